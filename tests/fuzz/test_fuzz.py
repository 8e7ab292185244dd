# SPDX-License-Identifier: Apache-2.0
"""A short run of the fuzzer with fixed seeds; `python -m tests.fuzz --minutes 10` is the long one."""

from __future__ import annotations

import pytest
from tests.fuzz import __main__ as command
from tests.fuzz import bout

CONVERSATIONS = 40


@pytest.fixture(scope="module")
def it():
    with bout.running() as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_no_conversation_breaks_hangs_or_gets_anything_past_the_policy(it: bout.Bout, seed: int) -> None:
    command.round_of(it, seed, CONVERSATIONS)
    assert it.requests > CONVERSATIONS
    assert it.arrived > 0


def test_minutes_that_cannot_be_run_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command.main(["--minutes", "0"])
    assert left.value.code == 2
    assert "--minutes" in capsys.readouterr().err
