# SPDX-License-Identifier: Apache-2.0
"""Processes under measurement: pinned to a core, watched over their whole tree, ended with the run.

Called by everything that starts something. Reads /proc and nothing else; refuses to guess: what cannot be read is None.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from bench import compiled

_TICK = os.sysconf("SC_CLK_TCK")
_PROC = pathlib.Path("/proc")


@dataclasses.dataclass(frozen=True, slots=True)
class Cores:
    """Which core the path under test has, and which load and upstream share; None: not pinned."""

    load: int | None
    path: int | None

    @property
    def pinned(self) -> bool:
        return self.load is not None


def cores() -> Cores:
    """Two cores of those this process may use, when there are two and `taskset` to pin with."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2 or shutil.which("taskset") is None:
        return Cores(None, None)
    return Cores(allowed[0], allowed[1])


def pinned(core: int | None, command: Sequence[str]) -> list[str]:
    """The command as it is started; `taskset` becomes it, so that its process id is the command's."""
    return [*command] if core is None else ["taskset", "-c", str(core), *command]


@contextlib.contextmanager
def running(
    command: Sequence[str],
    *,
    core: int | None,
    log: pathlib.Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """A process for the length of a block; its stderr goes to `log`, its stdout is piped. SIGTERM, then SIGKILL."""
    with log.open("ab") as errors:
        process = subprocess.Popen(
            pinned(core, command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **environment} if environment else None,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdout is not None:
            process.stdout.close()


def wait_for(
    ready: Callable[[], bool],
    *,
    what: str,
    process: subprocess.Popen[str],
    log: pathlib.Path,
    seconds: float = 30,
) -> None:
    """Polls until ready. Raises Unable with the end of the log when the process died or time is up."""
    end = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            state = (
                f"exited with {process.returncode}"
                if process.poll() is not None
                else f"not ready in {seconds:g} s"
            )
            raise compiled.Unable(f"{what}: {state}\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.02)


def tree(root: int) -> list[int]:
    """The process ids of `root` and everything that descends from it."""
    parents: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, queue = [], [root]
    while queue:
        one = queue.pop()
        found.append(one)
        queue.extend(parents.get(one, ()))
    return found


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """What a tree has used so far: CPU seconds (user + system) and seconds it was runnable without a core."""

    cpu: float
    waited: float


def usage(root: int) -> Usage:
    """Sums over the tree, threads and reaped children included.

    The scheduler's nanoseconds of living threads are finer than the ticks of `stat`, which also know the threads and
    children that have gone: whichever is more is true.
    """
    ticks = fine = waited = 0.0
    for process in tree(root):
        with contextlib.suppress(OSError):
            fields = (_PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
            own, gone = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
            ticks += (own + gone) / _TICK
            fine += gone / _TICK
        with contextlib.suppress(OSError):
            for thread in (_PROC / str(process) / "task").iterdir():
                ran, queued, _ = (thread / "schedstat").read_text().split()
                fine += int(ran) / 1e9
                waited += int(queued) / 1e9
    return Usage(max(ticks, fine), waited)


def memory(root: int) -> tuple[float, str]:
    """MiB of the tree and which figure that is: PSS when every process shows it (shared pages once), else RSS."""
    proportional = 0
    whole = True
    for process in tree(root):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            try:
                rollup = (_PROC / str(process) / "smaps_rollup").read_text()
                proportional += _kib(rollup, "Pss:")
            except PermissionError:
                whole = False
    return (proportional / 1024, "PSS") if whole and proportional else (resident(root), "RSS")


def resident(root: int) -> float:
    """RSS of the tree in MiB; pages that processes share count once for each."""
    kib = 0
    for process in tree(root):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            kib += _kib((_PROC / str(process) / "status").read_text(), "VmRSS:")
    return kib / 1024


def _kib(text: str, name: str) -> int:
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(name)), 0)
