# SPDX-License-Identifier: Apache-2.0
"""Keeps one kind's objects as the API server has them: list, then watch, and again when either ends.

Made by the source, which is told of changes. `objects` is truth and never half of it: a list is applied whole, and what it does not
hold is gone. What cannot be read or must not be believed changes nothing: the last good state stays, and `state` says why.

    WAITING --list applied, watch open--> SYNCED --a failure that lasts, or one of the rules below--> FROZEN --list applied--> SYNCED

- A list that fails changes nothing. An outage is said after some seconds; a refusal (403, 404) at once.
- A position that goes back means that the cluster was restored from a backup: frozen until `reset`, however far it grows again.
- Deletions are believed, however many (with an alarm), but not those of a CRD that goes away: deleting a CRD sends an ordinary DELETED
  for each object. The CRD is marked before the first of them goes, so it is looked at before a deletion is applied.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import aiohttp

from outrider_operator import access, apiobjects, collection, listwatch, watchstate

log = logging.getLogger("outrider.operator.reflector")

Watched = listwatch.Watched
Phase = watchstate.Phase
Reason = watchstate.Reason
State = watchstate.State

WATCH_SECONDS = 300
RETRY_SECONDS = 0.25
RETRY_SECONDS_MAX = 10.0
OUTAGE_SECONDS = 5.0
"""An outage shorter than this is nobody's news: API servers are restarted."""

LOOK_SECONDS = 2.0
"""While frozen for a reason that somebody may take away."""

RELIST_SECONDS = 1.0
"""Between a list and one that is asked for from outside."""

CLAIM_SECONDS = 30.0
"""Between lists that are asked for from outside: the position that somebody has seen may be made up, and each list cuts the watch."""

NUDGE_SECONDS = 0.25
"""What somebody else heard of, the watch will have brought by then."""

NUDGES_MAX = 1_000
_SHORT_SECONDS = 1.0


class _CrdGone(Exception):
    """The kind itself is going or gone."""


class Reflector:
    """One kind. Callbacks are called in the loop: `changed` once per batch, after `objects` has changed.

    `crd_state` is asked before deletions are believed. `alarmed` gets how many are gone at once, and of how many. `looked` gets, every two
    seconds while the position has gone back, what the API server has now. `forward_only=False`: an older state is no danger.
    """

    def __init__(  # noqa: PLR0913 - callbacks, each by its name
        self, given: access.Access, session: aiohttp.ClientSession, watched: Watched, *,
        changed: Callable[[list[collection.Change]], None],
        trim: collection.Trim = collection.without_managed_fields,
        crd_state: Callable[[], Awaitable[apiobjects.CrdState]] | None = None,
        alarmed: Callable[[int, int], None] = lambda _gone, _of: None,
        stated: Callable[[State], None] = lambda _state: None,
        looked: Callable[[Mapping[collection.Key, collection.Object]], None] | None = None,
        forward_only: bool = True,
    ) -> None:  # fmt: skip
        self.watched = watched
        self.state = State(
            Phase.WAITING, Reason.NOT_READ_YET, f"{watched} have not been read yet", time.time()
        )
        self.last_event_at = 0.0
        self._source = listwatch.Source(given, session, watched)
        self._held = collection.Collection(trim)
        self._deletions = collection.Deletions()
        self._changed, self._alarmed, self._stated, self._looked = changed, alarmed, stated, looked
        self._crd_state = crd_state
        self._forward_only = forward_only
        self._must_list, self._was_read = True, False
        self._listed_at, self._checked_at = -RELIST_SECONDS, -CLAIM_SECONDS
        self._claimed = 0
        self._failures = 0
        self._failing_since: float | None = None
        self._cycle: asyncio.Task[None] | None = None
        self._interrupted = False
        self._applying = asyncio.Lock()
        self._asked: asyncio.TimerHandle | None = None
        self._nudges: dict[collection.Key, int] = {}
        self._nudged = asyncio.Event()

    @property
    def objects(self) -> Mapping[collection.Key, collection.Object]:
        """By (namespace, name). The same object while its resourceVersion is the same."""
        return self._held.objects

    @property
    def resource_version(self) -> int:
        """As of when `objects` is: of the last list, event or bookmark. 0 before, and after `reset` until read again."""
        return self._held.version

    # What others ask of it ------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Positions start over: what the API server has now is believed, also when it is older."""
        self._held.forget_position()
        self._interrupt()

    def relist(self, claimed: int) -> None:
        """Somebody says that this position was seen: reads everything anew if it is later, unless the watch is there before its turn."""
        if claimed <= self._held.version or self._cycle is None:
            return
        self._claimed = max(claimed, self._claimed)
        if self._asked is None:
            loop = asyncio.get_running_loop()
            turn = max(loop.time(), self._listed_at + RELIST_SECONDS, self._checked_at + CLAIM_SECONDS)
            self._asked = loop.call_at(turn, self._check)

    def nudge(self, key: collection.Key, resource_version: str | int) -> None:
        """Somebody heard of one object; it is looked up unless the watch brings as much soon."""
        try:
            version = int(resource_version)
        except ValueError:
            return
        if version <= self._held.version or len(self._nudges) >= NUDGES_MAX:
            return
        self._nudges[key] = max(version, self._nudges.get(key, 0))
        self._nudged.set()

    def _check(self) -> None:
        """What a list then shows is the truth, and the claim is forgotten."""
        claimed, self._claimed, self._asked = self._claimed, 0, None
        if claimed > self._held.version:
            self._checked_at = asyncio.get_running_loop().time()
            self._interrupt()

    def _interrupt(self) -> None:
        self._must_list = True
        if self._cycle is not None:
            self._interrupted = True
            self._cycle.cancel()

    # The cycle ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled; nothing that an API server does ends it."""
        nudging = asyncio.create_task(self._look_up())
        try:
            while True:
                self._interrupted = False
                self._cycle = asyncio.create_task(self._turn())
                await asyncio.wait((self._cycle, nudging), return_when=asyncio.FIRST_COMPLETED)
                for task in (self._cycle, nudging):
                    if task.done() and not (task.cancelled() and self._interrupted):
                        await task
        finally:
            if self._asked is not None:
                self._asked.cancel()
            for each in (self._cycle, nudging):
                if each is not None:
                    each.cancel()
            await asyncio.gather(
                nudging, *(() if self._cycle is None else (self._cycle,)), return_exceptions=True
            )
            self._cycle = None

    async def _turn(self) -> None:
        """List if need be, and watch; whatever goes wrong is said, and waited for."""
        try:
            await self._read()
        except collection.WentBack as error:
            await self._wait_for_reset(str(error))
        except _CrdGone as error:
            await self._wait_for_crd(str(error))
        except listwatch.Silent as error:
            self._must_list = True
            log.debug(
                "a watch is opened again", extra={"fields": {"watched": str(self.watched), "why": str(error)}}
            )
        except listwatch.Refused as error:
            self._must_list = True
            if error.gone:
                await asyncio.sleep(_pause(0))
            else:
                await self._fail(
                    watchstate.reason(error),
                    f"{self.watched} cannot be read: {watchstate.advice(error)}",
                    error.retry_after,
                )
        except collection.TooMany as error:
            self._must_list = True
            await self._fail(Reason.TOO_MANY_OBJECTS, f"{self.watched} are not taken: {error}")
        except Exception:
            self._must_list = True
            log.exception("a bug of ours ended a watch", extra={"fields": {"watched": str(self.watched)}})
            await self._fail(
                Reason.BUG, f"{self.watched} cannot be read because of a bug of ours; the log says more"
            )

    async def _read(self) -> None:
        if self._must_list:
            await self._list()
        seconds = round(WATCH_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load
        began = time.monotonic()
        async with self._source.watch(self._held.version, seconds) as runs:
            self._synced()
            async for events in runs:
                async with self._applying:
                    difference = self._held.followed(events, forward_only=self._forward_only)
                    await self._take(difference, check=difference.deletions > 0)
        lasted = time.monotonic() - began
        if lasted < seconds - 1:
            # Not the end that was asked for: whoever answers next may be another server, or a restored one.
            self._must_list = True
            await asyncio.sleep(_pause(0) if lasted > _SHORT_SECONDS else RETRY_SECONDS_MAX / 4)

    async def _list(self) -> None:
        self._listed_at = asyncio.get_running_loop().time()
        # Held while reading, so that no single look, which may be newer than the list, comes in between.
        async with self._applying:
            found, version = await self._source.listed(self._held)
            difference = self._held.replaced(found, version, forward_only=self._forward_only)
            self._must_list = False  # before anybody is told, who may ask for another
            await self._take(difference, check=not self._was_read or difference.deletions > 0)
            self._was_read = True

    async def _take(self, difference: collection.Difference, *, check: bool) -> None:
        """Applies and tells; called with `_applying` held, since whether a CRD is there takes a moment to ask."""
        if check and self._crd_state is not None:
            await self._believe_crd(self._crd_state)
        self._held.apply(difference)
        self.last_event_at = time.time()
        self._told(difference.changes)
        if difference.deletions:
            left = len(self.objects)
            gone = self._deletions.count(difference.deletions, left, time.monotonic())
            if gone is not None:
                fields = {"watched": str(self.watched), "deleted": gone, "left": left}
                log.warning("many objects were deleted at once; this is in force", extra={"fields": fields})
                self._safely(lambda: self._alarmed(gone, gone + left))

    async def _believe_crd(self, crd_state: Callable[[], Awaitable[apiobjects.CrdState]]) -> None:
        try:
            state = await crd_state()
        except Exception as error:  # noqa: BLE001 - whatever the owner's question raises
            # Not known is not gone: nothing is applied, and the next list finds the same deletions.
            raise listwatch.Refused(
                0, "NoAnswer", f"whether its CRD is there is not known: {error}"
            ) from None
        if state != apiobjects.CrdState.ESTABLISHED:
            raise _CrdGone(watchstate.crd_sentence(self.watched, state, known=bool(self.objects)))

    # States ---------------------------------------------------------------------------------------------------------

    def _synced(self) -> None:
        self._failures, self._failing_since = 0, None
        self._say(Phase.SYNCED, Reason.NONE, "")

    async def _fail(self, reason: Reason, why: str, retry_after: float = 0.0) -> None:
        """Says so, at once or after a while, and waits: longer each time, and no two replicas the same."""
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        if reason is Reason.NOT_SERVED and self._crd_state is not None:
            reason = Reason.CRD_GONE
        if (
            not self._was_read
            or reason is not Reason.UNREACHABLE
            or now - self._failing_since >= OUTAGE_SECONDS
        ):
            self._say(self._unsynced, reason, why)
        pause = min(max(_pause(self._failures), retry_after), 3 * RETRY_SECONDS_MAX)
        self._failures += 1
        await asyncio.sleep(pause)

    async def _wait_for_reset(self, why: str) -> None:
        what = f"{why}; raise `epoch` in the settings to accept it"
        self._say(Phase.FROZEN, Reason.POSITION_WENT_BACK, what)
        while True:  # until `reset` interrupts
            if self._looked is not None:
                await self._look_behind(self._looked)
            await asyncio.sleep(LOOK_SECONDS)

    async def _look_behind(
        self, looked: Callable[[Mapping[collection.Key, collection.Object]], None]
    ) -> None:
        try:
            found, _ = await self._source.listed(self._held)
        except (listwatch.Refused, listwatch.Silent, collection.TooMany):
            return
        self._safely(lambda: looked(found))

    async def _wait_for_crd(self, why: str) -> None:
        self._must_list = True
        self._say(self._unsynced, Reason.CRD_GONE, why)
        await asyncio.sleep(LOOK_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load

    @property
    def _unsynced(self) -> Phase:
        """A list that was applied is a good state, even if no watch was ever opened."""
        return Phase.FROZEN if self._was_read else Phase.WAITING

    def _say(self, phase: Phase, reason: Reason, why: str) -> None:
        before = self.state
        if (before.phase, before.reason) == (phase, reason):
            self.state = dataclasses.replace(before, why=why)
            return
        self.state = State(phase, reason, why, time.time())
        level = logging.INFO if phase is Phase.SYNCED else logging.WARNING
        fields = {"watched": str(self.watched), "why": why, "objects": len(self.objects)}
        log.log(level, f"a watch is {phase}", extra={"fields": fields})  # noqa: G004 - three constants
        self._safely(lambda: self._stated(self.state))

    def _told(self, changes: Iterable[collection.Change]) -> None:
        if given := list(changes):
            self._safely(lambda: self._changed(given))

    def _safely(self, call: Callable[[], Any]) -> None:
        """A bug of whoever is told must not end the watch."""
        try:
            call()
        except Exception:
            log.exception(
                "what a watch brought was not used because of a bug",
                extra={"fields": {"watched": str(self.watched)}},
            )

    # Nudges ---------------------------------------------------------------------------------------------------------

    async def _look_up(self) -> None:
        while True:
            await self._nudged.wait()
            await asyncio.sleep(NUDGE_SECONDS)
            self._nudged.clear()
            while self._nudges:
                key, version = self._nudges.popitem()
                if self.state.phase is Phase.SYNCED and version > self._held.version:
                    await self._look_up_one(key)

    async def _look_up_one(self, key: collection.Key) -> None:
        async with self._applying:
            known = self.objects.get(key)
            try:
                raw = await self._source.one(key)
                difference = self._held.looked_up(key, raw, known)
                if difference is not None and self.state.phase is Phase.SYNCED:
                    await self._take(difference, check=raw is None)
            except (listwatch.Refused, listwatch.Silent, collection.TooMany, _CrdGone):
                return  # what stands in the way, the watch meets too, and says it


def _pause(failures: int) -> float:
    """Full jitter over a growing span."""
    span = min(RETRY_SECONDS * float(2 ** min(failures, 16)), RETRY_SECONDS_MAX)
    return span * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load
