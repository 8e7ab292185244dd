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
"""Between two refreshes of the same thing: doubled whenever what one brought is refused at once, up to this."""

REMEMBERED_MAX = 1_000

_Key = tuple[snapshot.Source, str]


@dataclasses.dataclass(slots=True)
class _Renewal:
    """`ended_at` in loop time; `pause` seconds after it before the next."""

    task: asyncio.Task[loans.Loan]
    ended_at: float | None = None
    pause: float = PAUSE_SECONDS


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
        known = self._known.get(key)
        if known is None or known.ended_at is not None:
            pause = PAUSE_SECONDS
            if known is not None and known.ended_at is not None:
                since = self._clock() - known.ended_at
                if since < known.pause:
                    return None
                if since < 2 * known.pause:
                    pause = min(2 * known.pause, PAUSE_SECONDS_MAX)
            known = self._begun(key, source, wanted, refused)
            known.pause = pause
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(wanted.deadline):
                return await asyncio.shield(known.task)
        return None

    def _begun(self, key: _Key, source: loans.Source, wanted: loans.Wanted, refused: str) -> _Renewal:
        """Nobody's in particular: it goes on when whoever asked first gives up."""
        while len(self._known) >= REMEMBERED_MAX:
            del self._known[next(iter(self._known))]
        task = asyncio.get_running_loop().create_task(source.fetch(wanted, refused=refused))
        begun = self._known[key] = _Renewal(task)

        def ended(done: asyncio.Task[loans.Loan]) -> None:
            begun.ended_at = self._clock()
            if not done.cancelled():
                done.exception()  # told to whoever waits; nobody may be left

        task.add_done_callback(ended)
        return begun
