# SPDX-License-Identifier: Apache-2.0
"""When the prober visits which server: at once when it is new or has moved, and then again and again.

Run by the prober. Four visits at a time to servers that were well and four to those that were not; one that takes long makes
room for the next. So servers that hang delay nobody who answers. Knows nothing of what a visit is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from outrider import names, snapshot

AT_ONCE = 4

PATIENCE_SECONDS = 1.0
"""Whoever takes longer is waited for elsewhere, as long as there is room."""

_SLOW_MAX = 32

EVERY_SECONDS = 60.0
"""Unless the server says how long its list is fresh."""

EVERY_SECONDS_MIN = 5.0
EVERY_SECONDS_MAX = 300.0
"""Status calls a server Stale that nobody has looked at for ten minutes."""

_RETRY_SECONDS = 5.0
_DOUBLINGS_MAX = 4

Visit = Callable[[names.ServerId], Awaitable[float | None]]
"""Visits one server; seconds for which it calls its list fresh (0: it does not say), None when it was not well."""


class Rounds:
    """`jitter` gives numbers from 0 to 1."""

    def __init__(self, visit: Visit, *, jitter: Callable[[], float]) -> None:
        self._visit = visit
        self._jitter = jitter
        self._well = asyncio.Semaphore(AT_ONCE)
        self._ill = asyncio.Semaphore(AT_ONCE)
        self._slow = asyncio.Semaphore(_SLOW_MAX)
        self._tours: dict[names.ServerId, _Tour] = {}

    def configure(self, wanted: Mapping[names.ServerId, snapshot.Endpoint]) -> None:
        """The servers there are from now on; what is on its way to one that left or moved is given up."""
        for server in [each for each, tour in self._tours.items() if wanted.get(each) != tour.endpoint]:
            self._tours.pop(server).task.cancel()
        for server, endpoint in wanted.items():
            if server not in self._tours:
                self._tours[server] = _Tour(endpoint, self._tour, server)

    def again(self, server: names.ServerId) -> None:
        """Visits one server soon."""
        if (tour := self._tours.get(server)) is not None:
            tour.soon.set()

    async def close(self) -> None:
        """Gives up every visit."""
        tours, self._tours = list(self._tours.values()), {}
        for tour in tours:
            tour.task.cancel()
        await asyncio.gather(*(tour.task for tour in tours), return_exceptions=True)

    async def _tour(self, server: names.ServerId, soon: asyncio.Event) -> None:
        failures = 0
        while True:
            fresh = await self._visited(server, self._ill if failures else self._well)
            failures = failures + 1 if fresh is None else 0
            if fresh is None:
                seconds = min(EVERY_SECONDS, _RETRY_SECONDS * 2 ** min(failures - 1, _DOUBLINGS_MAX))
            else:
                seconds = min(max(fresh or EVERY_SECONDS, EVERY_SECONDS_MIN), EVERY_SECONDS_MAX)
            try:
                async with asyncio.timeout(seconds * (0.9 + 0.1 * self._jitter())):
                    await soon.wait()
                soon.clear()
                # Asked for again and again, it would still not be visited again and again.
                await asyncio.sleep(1.0)
            except TimeoutError:
                pass

    async def _visited(self, server: names.ServerId, lane: asyncio.Semaphore) -> float | None:
        """One visit, in its lane or, when it takes long, beside it."""
        await lane.acquire()
        held = lane
        visit = asyncio.ensure_future(self._visit(server))
        try:
            done, _ = await asyncio.wait([visit], timeout=PATIENCE_SECONDS)
            if not done and not self._slow.locked():
                await self._slow.acquire()
                lane.release()
                held = self._slow
            return await visit
        finally:
            held.release()
            visit.cancel()


class _Tour:
    """One server's place in the rounds."""

    __slots__ = ("endpoint", "soon", "task")

    def __init__(
        self,
        endpoint: snapshot.Endpoint,
        tour: Callable[[names.ServerId, asyncio.Event], Awaitable[None]],
        server: names.ServerId,
    ) -> None:
        self.endpoint = endpoint
        self.soon = asyncio.Event()
        self.task: asyncio.Future[None] = asyncio.ensure_future(tour(server, self.soon))
