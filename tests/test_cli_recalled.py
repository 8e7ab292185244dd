# SPDX-License-Identifier: Apache-2.0
"""A request looked up in a journal, by the program that runs inside a sidecar's container."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest
from tests import journals

from outrider import audit
from outrider_cli import attempts, recalled

DENIED, OPEN = "01JD2M6Q6ZC4W2Q0G6X8T9R1AA", "01JD2M6Q6ZC4W2Q0G6X8T9R1AB"
WHO = audit.Principal(workload="agents/bot", teams=("sales",))


@pytest.fixture
def state(tmp_path: pathlib.Path) -> pathlib.Path:
    """What is mounted at the sidecar's --state: a journal with a refusal and a call under way."""
    book = journals.opened(tmp_path / "state" / "journal", journals.Clock())
    book.refusal(
        audit.RefusalRecord(
            event=DENIED, request_id=DENIED, reason="Denied", tool="drop", principal=WHO, server="crm/s"
        )
    )
    book.intent(
        audit.Intent(event=OPEN, request_id=OPEN, principal=WHO, server="crm/s", tool="query", snapshot="")
    )
    book.close()
    return tmp_path / "state"


def test_the_newest_attempt_of_an_id_is_found_also_one_under_way(state: pathlib.Path) -> None:
    denied, under_way = (recalled.found(state / "journal", each) for each in (DENIED, OPEN))
    assert denied is not None
    assert (denied["reason"], denied["tool"]) == ("Denied", "drop")
    assert under_way is not None
    assert under_way["status"] == "Open"
    assert recalled.found(state / "journal", "01JD2M6Q6ZC4W2Q0G6X8T9R1ZZ") is None


def test_the_program_prints_one_row_or_null(state: pathlib.Path, tmp_path: pathlib.Path) -> None:
    def run(*words: object) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "outrider_cli.recalled", *map(str, words)]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    assert json.loads(run(state / "journal", DENIED).stdout)["requestId"] == DENIED
    assert run(state / "journal", "01JD2M6Q6ZC4W2Q0G6X8T9R1ZZ").stdout == "null"
    segment = next((state / "journal").glob(f"*{attempts.SUFFIX}"))
    assert recalled.main([str(state / "journal"), DENIED]) == 0
    segment.unlink()
    segment.mkdir()
    ran = run(state / "journal", DENIED)
    assert ran.returncode == recalled.UNREADABLE
    assert "cannot read" in ran.stderr


def test_the_program_needs_nothing_that_the_sidecars_image_does_not_have() -> None:
    program = (
        "import sys, outrider_cli.recalled\n"
        "print([n for n in ('click', 'rich', 'pydantic', 'kopf', 'kubernetes', 'yaml') if n in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
