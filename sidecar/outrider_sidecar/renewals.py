# SPDX-License-Identifier: Apache-2.0
"""When a credential that a server refused (401) is fetched again: once for all who were refused, and ever more seldom in vain.

Used by credentials. A server that refuses whatever it is shown must not be turned into a storm on Vault or an authorization
server, and neither must thousands of calls that were refused in the same second.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable

from outrider import snapshot
from outrider_sidecar import loans

SECONDS_MAX = 10.0
"""A refused call waits no longer than this for something newer."""

PAUSE_SECONDS = 1.0
PAUSE_SECONDS_MAX = 60.0
"""Between two refreshes of the same thing: doubled whenever what one brought is refused at once, up to this.

A refresh that failed brought nothing, and says nothing about the next: how seldom its origin is asked while it is away is the source's
own matter. Neither does one say anything about a secret that came by another way since.
"""

SERVED_SECONDS = 10.0
"""What a server took for so long was not refused at once: it has been replaced since."""

REMEMBERED_MAX = 1_000

_Key = tuple[snapshot.Source, str]


@dataclasses.dataclass(slots=True)
class _Renewal:
    """`task` while it is under way, for it ends with a secret; `ended_at` in loop time; `pause` seconds after it before the next.

    `brought` is the version that it ended with, None for none; `refused_at` when a server first would not have that.
    """

    task: asyncio.Task[loans.Loan] | None
    ended_at: float = 0.0
    pause: float = PAUSE_SECONDS
    brought: str | None = None
    refused_at: float | None = None

    def next(self, refused: str, now: float) -> float | None:
        """The pause of a refresh that begins now; None when it is too early for one."""
        if self.brought not in (None, refused):
            return PAUSE_SECONDS
        if self.refused_at is None:
            self.refused_at = now
        if self.brought is not None and self.refused_at - self.ended_at >= SERVED_SECONDS:
            return PAUSE_SECONDS
        since = now - self.ended_at
        if since < self.pause:
            return None
        return min(2 * self.pause, PAUSE_SECONDS_MAX) if since < 2 * self.pause else PAUSE_SECONDS


class Renewals:
    """`clock` is loop time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[_Key, _Renewal] = {}

    async def renewed(self, source: loans.Source, wanted: loans.Wanted, refused: str) -> loans.Loan | None:
        """What the source has now; None when it was asked too short a time ago, or is not done by the deadline.

        Raises loans.Unavailable.
        """
        key = (wanted.where, "" if wanted.user is None else wanted.user.id)
        known, pause = self._known.get(key), PAUSE_SECONDS
        task = None if known is None else known.task
        if task is None:
            if known is not None:
                following = known.next(refused, self._clock())
                if following is None:
                    return None
                pause = following
            task = asyncio.get_running_loop().create_task(source.fetch(wanted, refused=refused))
            self._begun(key, _Renewal(task, pause=pause))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(wanted.deadline):
                return await asyncio.shield(task)
        return None

    def _begun(self, key: _Key, begun: _Renewal) -> None:
        """Nobody's in particular: it goes on when whoever asked first gives up."""
        self._known.pop(key, None)
        while len(self._known) >= REMEMBERED_MAX:
            del self._known[next(iter(self._known))]
        self._known[key] = begun

        def ended(done: asyncio.Task[loans.Loan]) -> None:
            begun.task, begun.ended_at = None, self._clock()
            if done.cancelled():
                return
            if done.exception() is not None:  # told to whoever waits; nobody may be left
                begun.pause = PAUSE_SECONDS
            else:
                begun.brought = done.result().version

        assert begun.task is not None
        begun.task.add_done_callback(ended)
