# SPDX-License-Identifier: Apache-2.0
"""Writes statuses: those that differ from what was written, not often, not many at once, and again when that failed.

Called by reporting on the replica that leads. Refuses to write what is there already, and to write one object twice within its
interval: a status is for people and for tools that wait, and both read the last one. What could not be written is tried again with
growing pauses, each object on its own.
"""

from __future__ import annotations

import asyncio
import dataclasses
import heapq
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from outrider import compile as compiler
from outrider_operator import conditions

log = logging.getLogger("outrider.operator.statuses")

INTERVAL_SECONDS = 5.0
BUDGET_INTERVAL_SECONDS = 30.0
SETTLE_SECONDS = 1.0
"""A change waits this long: most acknowledgements are there by then, and one write says what two would have."""

WRITES_MAX = 8
"""Writes in flight."""

_RETRY_SECONDS = 1.0
_RETRY_SECONDS_MAX = 60.0

Apply = Callable[[str, str, str, conditions.Status], Awaitable[Any]]
"""(kind, namespace, name, status): server-side apply on the status subresource. An exception with `status` 404: it is gone."""


@dataclasses.dataclass(slots=True)
class _Wish:
    """A status to be written when the loop's clock is at `due`; `tries` failed before. `first`: the object has none yet."""

    status: conditions.Status
    due: float
    first: bool
    tries: int = 0


class Writer:
    """The statuses of one leader. `wrote` is told the kind and outcome (written, gone, failed) of every attempt."""

    def __init__(
        self, apply: Apply, *, wrote: Callable[[str, str], None] = lambda _kind, _outcome: None
    ) -> None:
        self._apply = apply
        self._wrote = wrote
        self._wishes: dict[compiler.Object, _Wish] = {}
        self._written: dict[compiler.Object, conditions.Status] = {}
        self._free: dict[compiler.Object, float] = {}
        self._flying: dict[compiler.Object, asyncio.Task[None]] = {}
        self._queue: list[tuple[float, compiler.Object]] = []
        self._woken = asyncio.Event()

    def last(self, thing: compiler.Object) -> conditions.Status | None:
        """What this writer wants an object's status to be, or wrote last; None when it has done neither."""
        wish = self._wishes.get(thing)
        return wish.status if wish is not None else self._written.get(thing)

    def want(
        self,
        thing: compiler.Object,
        status: conditions.Status,
        *,
        live: Mapping[str, Any],
        first: bool = False,
    ) -> None:
        """Has `status` written unless it is what was written, or what the API server has (`live`).

        The first status of an object goes at once and the second soon after: one says that the object was seen, and nobody who
        waits for the other should wait because of it.
        """
        written = self._written.get(thing)
        if written is None and same(status, live):
            written = self._written[thing] = status
        if thing not in self._flying and written is not None and same(status, written):
            self._wishes.pop(thing, None)
            return
        wish = self._wishes.get(thing)
        if wish is not None:
            wish.status = status
            return
        now = asyncio.get_running_loop().time()
        due = now if first else max(now + SETTLE_SECONDS, self._free.get(thing, now))
        self._wishes[thing] = _Wish(status, due, first)
        self._push(thing)

    def forget(self, thing: compiler.Object) -> None:
        """The object is gone, or is another one of the same name."""
        for known in (self._wishes, self._written, self._free):
            known.pop(thing, None)

    def doubt(self) -> None:
        """Believes nothing of what it wrote: the next `want` compares with what the API server has."""
        self._written.clear()

    async def run(self) -> None:
        """Writes until cancelled; what is in flight then is given up."""
        try:
            while True:
                self._woken.clear()
                self._start()
                await self._wait()
        finally:
            for task in self._flying.values():
                task.cancel()
            await asyncio.gather(*self._flying.values(), return_exceptions=True)
            self._flying.clear()
            self._wishes.clear()
            self._written.clear()
            self._queue.clear()

    def _push(self, thing: compiler.Object) -> None:
        """Remembers when it is due; what stands in the queue for an earlier wish of it is passed over then."""
        heapq.heappush(self._queue, (self._wishes[thing].due, thing))
        self._woken.set()

    def _start(self) -> None:
        """Starts what is due, the longest due first, as far as there is room."""
        now = asyncio.get_running_loop().time()
        while self._queue and self._queue[0][0] <= now and len(self._flying) < WRITES_MAX:
            due, thing = heapq.heappop(self._queue)
            wish = self._wishes.get(thing)
            if wish is not None and wish.due == due and thing not in self._flying:
                self._flying[thing] = asyncio.create_task(self._write(thing, wish))

    async def _wait(self) -> None:
        now = asyncio.get_running_loop().time()
        full = len(self._flying) >= WRITES_MAX
        patience = None if full or not self._queue else max(0.0, self._queue[0][0] - now)
        try:
            async with asyncio.timeout(patience):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _write(self, thing: compiler.Object, wish: _Wish) -> None:
        status = wish.status
        try:
            await self._apply(*thing, status)
        except Exception as error:  # noqa: BLE001 - whatever keeps one status from being written keeps no other
            self._failed(thing, wish, error)
        else:
            self._wrote(thing[0], "written")
            if self._wishes.get(thing) is wish:
                self._landed(thing, wish, status)
        finally:
            self._flying.pop(thing, None)
            if thing in self._wishes:
                self._push(thing)
            self._woken.set()

    def _landed(self, thing: compiler.Object, wish: _Wish, status: conditions.Status) -> None:
        interval = BUDGET_INTERVAL_SECONDS if thing[0] == "MCPBudget" else INTERVAL_SECONDS
        free = asyncio.get_running_loop().time() + (SETTLE_SECONDS if wish.first else interval)
        self._written[thing], self._free[thing] = status, free
        if same(wish.status, status):
            del self._wishes[thing]
        else:
            wish.due, wish.first, wish.tries = free, False, 0

    def _failed(self, thing: compiler.Object, wish: _Wish, error: Exception) -> None:
        if self._wishes.get(thing) is not wish:
            return
        if getattr(error, "status", 0) == 404:
            self.forget(thing)
            self._wrote(thing[0], "gone")
            return
        wish.tries += 1
        pause = min(_RETRY_SECONDS * 2 ** (wish.tries - 1), _RETRY_SECONDS_MAX)
        wish.due = asyncio.get_running_loop().time() + pause * (0.5 + random.random() / 2)  # noqa: S311 - spreads retries
        self._wrote(thing[0], "failed")
        kind, namespace, name = thing
        fields = {
            "object": f"{kind} {namespace}/{name}",
            "why": str(error) or repr(error),
            "tries": wish.tries,
        }
        log.warning("status not written; it is tried again", extra={"fields": fields})


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """True when two statuses say the same; the order of conditions says nothing."""
    return _ordered(one) == _ordered(other)


def _ordered(status: Mapping[str, Any]) -> dict[str, Any]:
    listed = status.get("conditions")
    if not isinstance(listed, list):
        return dict(status)
    return {**status, "conditions": sorted(listed, key=_type)}


def _type(condition: Any) -> str:
    return str(condition.get("type")) if isinstance(condition, Mapping) else ""
