# SPDX-License-Identifier: Apache-2.0
"""Ends process groups when whoever started them has ended, however it ended: kill -9 leaves no API server behind.

A process of its own that holds the end of a pipe: `Lifeline` writes a line for each group, and a line that takes it back.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys


class Lifeline:
    """`hold` a process group; `drop` it when it has ended; `close` at the end."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", __file__], stdin=subprocess.PIPE, start_new_session=True
        )

    def hold(self, group: int) -> None:
        self._say(f"+{group}")

    def drop(self, group: int) -> None:
        self._say(f"-{group}")

    def close(self) -> None:
        """Whatever is still held is ended."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()


def main() -> None:
    held: set[int] = set()
    for line in sys.stdin:
        (held.add if line[0] == "+" else held.discard)(int(line[1:]))
    for group in held:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    main()
