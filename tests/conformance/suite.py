# SPDX-License-Identifier: Apache-2.0
"""The official conformance suite against a URL, and what it found, check by check.

`run(url, revision, folder)` runs every scenario that a revision of the protocol requires, and those the suite runs beside
them without scoring; nothing is left out. By hand, against any server: `python -m tests.conformance.suite URL REVISION`.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

REVISIONS = {"2025-11-25": (84, 0), "2026-07-28": (169, 25)}
"""For each revision, how many checks a server passes and fails that offers everything but tasks."""
TASKS = "tasks-"
"""The failing scenarios: an extension that neither the fixture nor the proxy offers; the suite does not score them."""
_SEEN = "INFO"
"""What the suite notes down beside its checks, such as each event of a stream: judged by nobody, and no check."""
_PROGRAM = "@modelcontextprotocol/conformance/dist/index.js"
_FOLDER = re.compile(r"server-(?P<scenario>.+)-\d{4}-\d\d-\d\dT[\d-]+Z")
_TOTAL = re.compile(r"^Total: (\d+) passed, (\d+) failed$", re.MULTILINE)
_SCENARIO_MS = 60_000
_RUN_SECONDS = 280


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One check of a scenario. `why` is what the suite says of a failure, with what it saw."""

    id: str
    status: str
    why: str = dataclasses.field(compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """What one run found: the checks of each scenario, in order. `printed` is what the suite said."""

    scenarios: Mapping[str, tuple[Check, ...]]
    printed: str

    @property
    def total(self) -> tuple[int, int]:
        """Checks passed and failed, which must be what the suite itself counted."""
        counted = collections.Counter(check.status for checks in self.scenarios.values() for check in checks)
        ours = counted["SUCCESS"], counted["FAILURE"]
        said = _TOTAL.search(self.printed)
        assert said is not None, self.printed[-3000:]
        assert ours == (int(said[1]), int(said[2])), (ours, said[0])
        return ours

    def failures(self) -> Iterator[tuple[str, Check]]:
        for scenario, checks in self.scenarios.items():
            for check in checks:
                if check.status == "FAILURE":
                    yield scenario, check


def differences(direct: Run, through: Run) -> list[str]:
    """Scenario by scenario, every check that came out otherwise; one line each."""
    told = []
    for scenario in sorted(direct.scenarios.keys() | through.scenarios.keys()):
        ours, theirs = through.scenarios.get(scenario, ()), direct.scenarios.get(scenario, ())
        if ours == theirs:
            continue
        if len(ours) != len(theirs):
            told.append(f"{scenario}: {len(theirs)} checks directly, {len(ours)} through the proxy")
        for at in range(max(len(ours), len(theirs))):
            one, other = (each[at] if at < len(each) else None for each in (theirs, ours))
            if one != other:
                told.append(f"{scenario}: {_shown(one)} directly, {_shown(other)} through the proxy")
    return told


def _shown(check: Check | None) -> str:
    return "nothing" if check is None else f"{check.id} {check.status} {check.why}".rstrip()


def missing() -> str:
    """What has to be installed first; "" when nothing is missing."""
    return "" if _program().exists() else f"{_PROGRAM} is not installed: run `make test`"


def run(url: str, revision: str, folder: pathlib.Path, *, token: str = "") -> Run:
    """`token` is sent as a bearer token. The suite's own exit code does not count: tasks are not scored."""
    node = pathlib.Path(sys.executable).with_name("node")
    line = [node, _program(), "server", "--url", url, "--requirements", revision, "-o", folder]
    env = dict(os.environ)
    if token:
        address = urllib.parse.urlsplit(url)
        env["OUTRIDER_ORIGIN"] = f"{address.scheme}://{address.netloc}"
        env["OUTRIDER_TOKEN"] = token
        line.insert(1, f"--import={pathlib.Path(__file__).with_name('bearer.mjs').as_uri()}")
    ran = subprocess.run(
        [os.fspath(word) for word in [*line, "--timeout", str(_SCENARIO_MS)]],
        env=env, capture_output=True, text=True, check=False, timeout=_RUN_SECONDS,
    )  # fmt: skip
    return Run(_read(folder), ran.stdout + ran.stderr)


def _program() -> pathlib.Path:
    return pathlib.Path(os.environ["OUTRIDER_NODE_MODULES"]) / _PROGRAM


def _read(folder: pathlib.Path) -> dict[str, tuple[Check, ...]]:
    found: dict[str, tuple[Check, ...]] = {}
    for file in sorted(folder.glob("*/checks.json")):
        named = _FOLDER.fullmatch(file.parent.name)
        assert named is not None, file
        assert named["scenario"] not in found, f"{named['scenario']} ran twice"
        told = [each for each in json.loads(file.read_bytes()) if each["status"] != _SEEN]
        found[named["scenario"]] = tuple(_check(each) for each in told)
    return found


def _check(told: Mapping[str, Any]) -> Check:
    why = ""
    if told["status"] == "FAILURE":
        why = f"({told.get('errorMessage', '')} {json.dumps(told.get('details', {}))[:600]})"
    return Check(told["id"], told["status"], why)


if __name__ == "__main__":
    os.environ.setdefault(
        "OUTRIDER_NODE_MODULES",
        str(pathlib.Path(__file__).resolve().parents[1] / "node" / "node_modules"),
    )
    with tempfile.TemporaryDirectory() as scratch:
        done = run(
            sys.argv[1], sys.argv[2], pathlib.Path(scratch), token=os.environ.get("OUTRIDER_TOKEN", "")
        )
    print(*(f"{scenario}: {_shown(check)}" for scenario, check in done.failures()), sep="\n")
    passed, failed = done.total
    print(f"{passed} passed, {failed} failed")
