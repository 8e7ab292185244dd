# SPDX-License-Identifier: Apache-2.0
"""The observed catalogue: what each server offers of each kind, drained once per server and kept fresh.

Called by the pipeline (a list, or a Need for definitions), by main after a snapshot (to warm servers) and by whoever hears
that a server's list has changed. One fetch at a time per server and kind, whoever asks: a list of prompts that hangs hides
no tools. What is stale is served while it is fetched again; a server that is down never empties anybody else's list
(protocol.md rule 8). What an agent sees of it is decided by `decide.listed`, not here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import pathlib
import traceback
from collections.abc import Awaitable, Callable, Iterable

from outrider import call, catalog, decision, identity, names
from outrider_sidecar import introductions, telemetry

log = logging.getLogger("outrider")

TTL_SECONDS = 60.0
"""How long a list is fresh when its server does not say."""

TTL_SECONDS_MIN = 5.0
"""How old a list may be whatever its server says, that is, how often it is asked at most for lookers: agents are told five
seconds by us (`local.LIST_TTL_MILLISECONDS`), so asking more often would show nothing sooner."""

TTL_SECONDS_MAX = 3600.0
"""A server may not make us deaf to its changes for longer."""

RETRY_SECONDS = 2.0
"""A server that could not be listed is not asked again sooner: a dead one must not cost every caller its timeout."""

LOOK_SECONDS_MAX = 3.0
"""How long whoever looks waits for servers that were never met or listed, from when they were first asked (decision 8). A call that
cannot be decided without a list waits as long as it may."""

WARM_AT_ONCE = 4

CHANGED_SECONDS_MIN = 1.0
"""A server that says all the time that its list has changed is asked no more often than this."""


@dataclasses.dataclass(frozen=True, slots=True)
class Listing:
    """What a server answered: its definitions and for how long it calls them fresh (seconds), None if it did not say."""

    definitions: catalog.Definitions
    ttl_seconds: float | None = None
    introduction: introductions.Introduction = dataclasses.field(default_factory=introductions.Introduction)


def joined(held: catalog.Definitions | None, part: catalog.Definitions) -> catalog.Definitions:
    """What is known of a server once `part` has been learned; the kinds it does not speak of stay as they were held."""
    if held is None or not part.unobserved:
        return part
    kept = part.unobserved - held.unobserved
    tools, prompts, resources = (held if kind in kept else part for kind in call.Kind)
    return catalog.Definitions(
        tools=tools.tools,
        prompts=prompts.prompts,
        resources=resources.resources,
        templates=resources.templates,
        dropped=tuple(
            one
            for kind, known in zip(call.Kind, (tools, prompts, resources), strict=True)
            for one in known.dropped
            if one.kind is kind
        ),
        unobserved=part.unobserved & held.unobserved,
    )


class ListingFailed(Exception):
    """The server could not be listed. `reason` is for whoever waits for it, the text for the log, without secrets."""

    def __init__(self, reason: decision.Reason, text: str) -> None:
        super().__init__(f"{reason.value}: {text}")
        self.reason = reason
        self.text = text


@dataclasses.dataclass(slots=True)
class _Entry:
    """One list. `outdated`: it changed while it was being fetched, so what arrives may be from before.

    `began` and `ended` are of the last fetch, whatever came of it.
    """

    due: float
    began: float = 0.0
    ended: float = 0.0
    running: asyncio.Task[None] | None = None
    failed: ListingFailed | None = None
    outdated: bool = False


Place = tuple[names.ServerId, call.Kind]
"""Which list: of a kind, at a server. Templates of resources are drained with the resources."""

_TOOL = call.Kind.TOOL


def _waits_for(user: identity.User | None, entry: _Entry) -> bool:
    """Whether a list could not be fetched because that takes a user, and now there is one."""
    failed = entry.failed
    return user is not None and failed is not None and failed.reason is decision.Reason.USER_REQUIRED


class Lists:
    """`fetch` asks one server for one kind, in the name of a user where that is needed (raises ListingFailed); `observed` hands definitions on; `clock` is monotonic seconds.

    `met` is what a server has said of itself in an era (True: modern), None when it has not been met.
    """

    def __init__(
        self,
        *,
        fetch: Callable[[names.ServerId, call.Kind, identity.User | None], Awaitable[Listing]],
        observed: Callable[[names.ServerId, catalog.Definitions], object],
        met: Callable[[names.ServerId, bool], introductions.Introduction | None],
        clock: Callable[[], float],
    ) -> None:
        self._fetch = fetch
        self._observed = observed
        self._met = met
        self._clock = clock
        self._entries: dict[Place, _Entry] = {}
        self._introductions: dict[names.ServerId, introductions.Introduction] = {}
        self._warming = asyncio.Semaphore(WARM_AT_ONCE)
        self._closed = False

    def keep(self, servers: Iterable[names.ServerId], *, moved: Iterable[names.ServerId] = ()) -> None:
        """A new snapshot: forget servers that left it, and ask those again that moved."""
        wanted = set(servers) - set(moved)
        for place in [each for each in self._entries if each[0] not in wanted]:
            entry = self._entries.pop(place)
            if entry.running is not None:
                entry.running.cancel()
        for server in [each for each in self._introductions if each not in wanted]:
            del self._introductions[server]

    def introduction(self, server: names.ServerId, *, modern: bool) -> introductions.Introduction:
        """What it said of itself in an era, else when it was last met for a list; an empty one when it never was."""
        met = self._met(server, modern) or self._introductions.get(server)
        return met or introductions.Introduction()

    def failure(self, server: names.ServerId, kind: call.Kind) -> ListingFailed | None:
        """Why this list could not be fetched last; None when it could, or nobody has tried or finished trying."""
        entry = self._entries.get((server, kind))
        return None if entry is None else entry.failed

    def touch(
        self, server: names.ServerId, kind: call.Kind = _TOOL, user: identity.User | None = None
    ) -> None:
        """Somebody looks at this list: fetch it again in the background when it is stale, in the name of `user` if it must be."""
        entry = self._entries.get((server, kind))
        if entry is None or (
            entry.running is None and (self._clock() >= entry.due or _waits_for(user, entry))
        ):
            self._start((server, kind), user)

    def aged(self, server: names.ServerId, kind: call.Kind) -> bool:
        """Whether asking once more could tell something new: it is being asked, or was not for TTL_SECONDS_MIN."""
        entry = self._entries.get((server, kind))
        return entry is None or entry.running is not None or self._clock() >= entry.ended + TTL_SECONDS_MIN

    async def renewed(
        self, server: names.ServerId, kind: call.Kind, *, seconds: float, user: identity.User | None = None
    ) -> None:
        """Fetches a list that has aged, or waits for the fetch under way, at most `seconds`; what comes of it is seen in `observed`."""
        place = (server, kind)
        if not self.aged(*place):
            return
        entry = self._entries.get(place)
        if entry is None or entry.running is None:
            self._start(place, user)
        running = self._entries[place].running
        if running is not None:
            await asyncio.wait([running], timeout=seconds)

    def changed(self, server: names.ServerId, kind: call.Kind) -> None:
        """The server says that its list is another one now: fetch it again, at most every CHANGED_SECONDS_MIN.

        A list nobody has looked at yet is left alone.
        """
        entry = self._entries.get((server, kind))
        if entry is None:
            return
        entry.outdated = entry.running is not None
        entry.due = min(entry.due, max(self._clock(), entry.began + CHANGED_SECONDS_MIN))
        if entry.running is None:
            self._soon((server, kind), entry)

    async def ensure(
        self, server: names.ServerId, kind: call.Kind = _TOOL, *, seconds: float | None = None,
        user: identity.User | None = None,
    ) -> ListingFailed | None:  # fmt: skip
        """Waits for the fetch under way, or makes one if none is due later, at most `seconds`. None, or why not."""
        self.touch(server, kind, user)
        entry = self._entries[server, kind]
        if entry.running is not None:
            done, _ = await asyncio.wait([entry.running], timeout=seconds)
            if not done:
                return ListingFailed(decision.Reason.UPSTREAM_NOT_READY, "its list has not arrived yet")
        return entry.failed

    async def patiently(
        self, servers: Iterable[names.ServerId], kind: call.Kind = _TOOL, *, seconds: float,
        user: identity.User | None = None,
    ) -> None:  # fmt: skip
        """Waits for lists under way, for none longer than `seconds` from its start: a server that hangs delays nobody twice."""
        entries = []
        for server in servers:
            self.touch(server, kind, user)
            entries.append(self._entries[server, kind])
        running = {entry.running: entry.began + seconds for entry in entries if entry.running is not None}
        while left := [task for task, until in running.items() if not task.done() and until > self._clock()]:
            nearest = min(running[task] for task in left) - self._clock()
            await asyncio.wait(left, timeout=max(nearest, 0.001), return_when=asyncio.FIRST_COMPLETED)

    async def warm(self, wanted: Iterable[Place]) -> None:
        """Asks servers for their lists ahead of the first call, a few at a time."""

        async def one(server: names.ServerId, kind: call.Kind) -> None:
            async with self._warming:
                await self.ensure(server, kind)

        await asyncio.gather(*(one(*place) for place in wanted))

    async def close(self) -> None:
        """Ends every fetch under way, and those that were to come."""
        self._closed = True
        running = [entry.running for entry in self._entries.values() if entry.running is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _start(self, place: Place, user: identity.User | None = None) -> None:
        entry = self._entries.setdefault(place, _Entry(due=0.0))
        entry.began, entry.outdated = self._clock(), False
        entry.running = asyncio.get_running_loop().create_task(
            self._run(place, entry, user), name=f"list {place[1].value} {place[0]}"
        )

    def _soon(self, place: Place, entry: _Entry) -> None:
        """Fetches it when it is due, unless somebody has by then."""

        def now() -> None:
            if self._entries.get(place) is entry and not self._closed:
                self.touch(*place)

        asyncio.get_running_loop().call_later(max(0.0, entry.due - self._clock()), now)

    async def _run(self, place: Place, entry: _Entry, user: identity.User | None) -> None:
        try:
            listing = await self._fetch(*place, user)
        except ListingFailed as failure:
            if str(entry.failed) != str(failure):
                fields = telemetry.fields(server=str(place[0]), kind=place[1].value, why=str(failure))
                if failure.reason is decision.Reason.USER_REQUIRED:
                    log.info("server is listed when a user asks", extra=fields)
                else:
                    log.warning("server cannot be listed", extra=fields)
            entry.failed = failure
            entry.due = self._clock() + RETRY_SECONDS
        except Exception as bug:  # noqa: BLE001 -- a bug must not make every caller ask the server again
            self._broken(place, entry, bug)
        else:
            said = TTL_SECONDS if listing.ttl_seconds is None else listing.ttl_seconds
            entry.due = self._clock() + min(max(said, TTL_SECONDS_MIN), TTL_SECONDS_MAX)
            try:
                self._introductions[place[0]] = listing.introduction
                self._observed(place[0], listing.definitions)
            except Exception as bug:  # noqa: BLE001 -- as above: whoever waits is told, and it is not tried at once again
                self._broken(place, entry, bug)
            else:
                entry.failed = None
        finally:
            entry.running = None
            entry.ended = self._clock()
            if entry.outdated and not self._closed:
                entry.outdated = False
                entry.due = min(entry.due, entry.began + CHANGED_SECONDS_MIN)
                self._soon(place, entry)

    def _broken(self, place: Place, entry: _Entry, bug: Exception) -> None:
        """A bug of ours, logged once by type and place: its text may quote what a server sent."""
        frame = traceback.extract_tb(bug.__traceback__)[-1]
        text = f"{type(bug).__name__} in {frame.name}, line {frame.lineno} of {pathlib.PurePath(frame.filename).name}"
        failure = ListingFailed(decision.Reason.INTERNAL, text)
        if str(entry.failed) != str(failure):
            log.error(
                "a bug: a server's list was not taken in",
                extra=telemetry.fields(server=str(place[0]), kind=place[1].value, why=text),
            )
        entry.failed = failure
        entry.due = self._clock() + RETRY_SECONDS
