# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.start`: what the proxy costs before it does anything.

CPU seconds and memory of the real command from exec until it listens, with no control plane to be reached, so before the
first snapshot; beside them a bare interpreter of the same version, measured in turn. Goals are printed, never enforced.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from bench import compiled, paths, processes

MEMORY_GOAL_MIB = 45
CPU_GOAL_SECONDS = 0.5
_BARE = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(60)"


def proxy(folder: pathlib.Path) -> tuple[list[str], pathlib.Path]:
    """The sidecar's command line with a control plane that is not there, and the file it writes when it listens."""
    token, address = folder / "operator-token", folder / "address.json"
    token.write_text("0" * 64)
    token.chmod(0o600)
    command = [paths.program("outrider-sidecar"), "--operator", f"http://127.0.0.1:{paths.free_port()}"]
    command += [
        "--token-file",
        str(token),
        "--state",
        str(folder / "state"),
        "--port",
        "0",
        "--admin-port",
        "0",
    ]
    command += ["--address-file", str(address), "--agent-token-file", str(folder / "agent-token")]
    return command, address


def bare(folder: pathlib.Path) -> tuple[list[str], pathlib.Path]:
    """An interpreter that does nothing."""
    return [sys.executable, "-c", _BARE, str(folder / "up")], folder / "up"


def once(command: Sequence[str], up: pathlib.Path, log: pathlib.Path) -> dict[str, float]:
    """Starts it, waits until `up` exists and reads what it has used. Raises Unable when it does not start."""
    began = time.monotonic()
    with processes.running(command, core=processes.cores().path, log=log) as process:
        processes.wait_for(up.exists, what=command[0], process=process, log=log)
        wall = time.monotonic() - began
        used = processes.usage(process.pid).cpu
        proportional, kind = processes.memory(process.pid)
        return {
            "cpu": used,
            "wall": wall,
            "resident": processes.resident(process.pid),
            "proportional": proportional if kind == "PSS" else float("nan"),
        }


def imported() -> set[str]:
    """What the proxy must not have imported to start, if it has."""
    code = (
        "import sys, outrider_sidecar.main; "
        "print(*(m for m in ('pydantic', 'kopf', 'kubernetes', 'grpc', 'yaml', 'hvac') if m in sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="starts of each (default 7)")
    given = parser.parse_args(arguments)
    if given.rounds < 1:
        parser.error("--rounds must be above zero")
    found: dict[str, list[dict[str, float]]] = {"outrider-sidecar": [], "bare python": []}
    try:
        for _ in range(given.rounds):
            for name, make in (("outrider-sidecar", proxy), ("bare python", bare)):
                with tempfile.TemporaryDirectory(prefix="outrider-bench-") as place:
                    command, up = make(pathlib.Path(place))
                    found[name].append(once(command, up, pathlib.Path(place) / "log"))
    except compiled.Unable as unable:
        print(f"cannot run: {unable}", file=sys.stderr)
        return 3
    print(f"from exec until listening, no control plane; median of {given.rounds} starts [lowest-highest]")
    print(f"{'':>18}{'CPU s':<20}{'wall s':<20}{'RSS MiB':<20}{'PSS MiB':<20}")
    for name, runs in found.items():
        print(
            f"{name:>16}  "
            + "".join(f"{_shown(runs, what):<20}" for what in ("cpu", "wall", "resident", "proportional"))
        )
    memory = statistics.median(one["resident"] for one in found["outrider-sidecar"])
    cpu = statistics.median(one["cpu"] for one in found["outrider-sidecar"])
    print(
        f"goals: RSS at most {MEMORY_GOAL_MIB} MiB ({_kept(memory, MEMORY_GOAL_MIB)}), CPU at most {CPU_GOAL_SECONDS:g} s ({_kept(cpu, CPU_GOAL_SECONDS)})"
    )
    if early := imported():
        print(f"imported at start though nothing has asked for it: {', '.join(sorted(early))}")
    return 0


def _shown(runs: list[dict[str, float]], what: str) -> str:
    values = [one[what] for one in runs]
    digits = 1 if what in ("resident", "proportional") else 3
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}-{max(values):.{digits}f}]"


def _kept(value: float, goal: float) -> str:
    return "kept" if value <= goal else "MISSED"


if __name__ == "__main__":
    sys.exit(main())
