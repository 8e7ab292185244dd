# SPDX-License-Identifier: Apache-2.0
"""Runs one command and never outlives whoever holds the other end of its standard input.

Run by children as a process of its own, `python tether.py COMMAND...`, so it imports nothing but the standard library. When
standard input ends (the holder stopped, crashed or was killed with -9) or SIGTERM arrives, the command's process group gets
SIGTERM and, GRACE_SECONDS later, SIGKILL. On Linux what the command left behind is ended too, in whatever session it put
itself. Exits with the command's code, 128 + n after signal n, 127 when it could not be started.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

GRACE_SECONDS = 5.0

_PR_SET_CHILD_SUBREAPER = 36


def main(command: Sequence[str]) -> int:
    """Runs `command` to its end."""
    _adopt_orphans()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # before there is anything to leave behind
        signal.signal(number, lambda *_: stopping.set())
    try:
        # A group of its own: one signal reaches its children, and a terminal's Ctrl-C reaches none of them.
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)  # noqa: S603 - its whole purpose
    except OSError as error:
        sys.stderr.write(f"{command[0]} could not be started: {error.strerror}\n")
        return 127
    threading.Thread(target=_watch_holder, args=(stopping,), daemon=True).start()
    threading.Thread(target=_end_when, args=(stopping, child.pid), daemon=True).start()
    code = child.wait()
    _signal_group(child.pid, signal.SIGKILL)
    _end_orphans()
    return code if code >= 0 else 128 - code


def _watch_holder(stopping: threading.Event) -> None:
    while os.read(0, 4096):
        pass  # nothing is ever said; only the end counts
    stopping.set()


def _end_when(stopping: threading.Event, group: int) -> None:
    stopping.wait()
    _signal_group(group, signal.SIGTERM)
    killer = threading.Timer(GRACE_SECONDS, _signal_group, (group, signal.SIGKILL))
    killer.daemon = True
    killer.start()


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _adopt_orphans() -> None:
    """Linux: children of the command that lose their parent become ours, so that they can be ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_orphans() -> None:
    """Ends what is left of the command; killing one may hand us its children, hence the loop."""
    while orphans := _children():
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _children() -> list[int]:
    found: list[int] = []
    for listing in pathlib.Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in listing.read_text().split()]
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
