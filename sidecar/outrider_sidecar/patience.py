# SPDX-License-Identifier: Apache-2.0
"""How long a server may keep a call waiting: so long in silence, and never longer than its streams may last.

Made by an attempt for each request it sends. Every message of the server is a sign of life, and while an agent is being asked in
the server's name the silence is not the server's. A comment that keeps a connection open is no sign of anything.
"""

from __future__ import annotations

from collections.abc import Callable

from outrider_sidecar import streams


class Patience:
    """`seconds` of silence are borne; `tired` is called once when they are over, unless `busy` says whose silence it is."""

    __slots__ = ("_busy", "_call_later", "_clock", "_last", "_seconds", "_timer", "_tired", "lost")

    def __init__(
        self, call_later: streams.CallLater, clock: Callable[[], float], *, seconds: float,
        tired: Callable[[], None], busy: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._call_later = call_later
        self._clock = clock
        self._seconds = seconds
        self._tired = tired
        self._busy = busy
        self._last: float | None = None
        self._timer = call_later(seconds, self._look)
        self.lost = False

    def renew(self) -> None:
        """The server has said something."""
        self._last = self._clock()

    def end(self) -> None:
        """Nobody waits any more."""
        self._timer.cancel()

    def _look(self) -> None:
        if self._busy():
            self._last = self._clock()
        left = 0.0 if self._last is None else self._last + self._seconds - self._clock()
        if left > 0:
            self._timer = self._call_later(left, self._look)
            return
        self.lost = True
        self._tired()
