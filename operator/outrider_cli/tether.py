# SPDX-License-Identifier: Apache-2.0
"""Runs one command and never outlives whoever holds the other end of its standard input.

Run by children as a process of its own, `python tether.py [--with-child] COMMAND...`, so it imports nothing but the standard
library. When standard input ends (the holder stopped, crashed or was killed with -9) or SIGTERM arrives, the command's process group gets
SIGTERM and, GRACE_SECONDS later, SIGKILL. On Linux what the command left behind is ended too, in whatever session it put
itself. Exits with the command's code, 128 + n after signal n, 127 when it could not be started. With `--with-child` the command is
a bridge, worth nothing without the server it runs as its child: once that has ended, the command is ended too, with CHILD_LOST.
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
import time
from collections.abc import Sequence

GRACE_SECONDS = 5.0
WITH_CHILD = "--with-child"
CHILD_LOST = 70
"""The exit code when the command had to be ended because its child had ended."""

_PR_SET_CHILD_SUBREAPER = 36
_LOOK_SECONDS = 0.2
_LOOKS = 3
"""So many looks in a row must agree: programs start short-lived children to ask the system something."""


def main(command: Sequence[str]) -> int:
    """Runs `command` to its end."""
    with_child, command = command[0] == WITH_CHILD, command[command[0] == WITH_CHILD :]
    _adopt_orphans()
    stopping, lost = threading.Event(), threading.Event()
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
    if with_child:
        threading.Thread(target=_watch_child, args=(lost, child.pid), daemon=True).start()
    code = child.wait()
    _signal_group(child.pid, signal.SIGKILL)
    _end_orphans()
    if lost.is_set():
        return CHILD_LOST
    return code if code >= 0 else 128 - code


def _watch_child(lost: threading.Event, parent: int) -> None:
    """Ends `parent`, at once, when the child it had for a while is no more: it has nothing left to finish."""
    looks: list[frozenset[int]] = []
    had = False
    while True:
        looks = [*looks[1 - _LOOKS :], frozenset(_children(parent))]
        if len(looks) == _LOOKS:
            had = had or bool(frozenset.intersection(*looks))
            if had and not any(looks):
                break
        time.sleep(_LOOK_SECONDS)
    sys.stderr.write("the server behind the bridge has ended, so the bridge is ended too\n")
    sys.stderr.flush()
    lost.set()
    _signal_group(parent, signal.SIGKILL)


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
    while sys.platform == "linux" and (orphans := _children(os.getpid())):
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _children(parent: int) -> list[int]:
    """The children of a process; on Linux with those that have ended and wait to be looked at, when they are ours."""
    if sys.platform != "linux":
        listed = subprocess.run(  # noqa: S603 - a fixed command
            ["/usr/bin/pgrep", "-P", str(parent)], capture_output=True, text=True, check=False
        )
        return [int(word) for word in listed.stdout.split()]
    found: list[int] = []
    for listing in pathlib.Path(f"/proc/{parent}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in listing.read_text().split()]
    return [pid for pid in found if parent == os.getpid() or not _is_over(pid)]


def _is_over(pid: int) -> bool:
    """True when the process has ended, though its parent may not have looked yet."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
