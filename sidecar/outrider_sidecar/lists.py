# SPDX-License-Identifier: Apache-2.0
"""The observed catalogue: what each server offers, drained once per server and kept fresh.

Called by the pipeline (a list, or a Need for definitions) and by main after a snapshot (to warm servers). One request at
a time per server, whoever asks; what is stale is served while it is fetched again; a server that is down never empties
anybody else's list (protocol.md rule 8). What an agent sees of it is decided by `decide.listed`, not here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import pathlib
import traceback
from collections.abc import Awaitable, Callable, Iterable

from outrider import catalog, decision, names
from outrider_sidecar import telemetry

log = logging.getLogger("outrider")

TTL_SECONDS = 60.0
"""How long a list is fresh when its server does not say."""

TTL_SECONDS_MAX = 3600.0
"""A server may not make us deaf to its changes for longer."""

RETRY_SECONDS = 2.0
"""A server that could not be listed is not asked again sooner: a dead one must not cost every caller its timeout."""

WARM_AT_ONCE = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Listing:
    """What a server answered: its definitions and for how long it calls them fresh (seconds), None if it did not say."""

    definitions: catalog.Definitions
    ttl_seconds: float | None = None


class ListingFailed(Exception):
    """The server could not be listed. `reason` is for whoever waits for it, the text for the log, without secrets."""

    def __init__(self, reason: decision.Reason, text: str) -> None:
        super().__init__(f"{reason.value}: {text}")
        self.reason = reason
        self.text = text


@dataclasses.dataclass(slots=True)
class _Entry:
    due: float
    began: float = 0.0
    running: asyncio.Task[None] | None = None
    failed: ListingFailed | None = None


class Lists:
    """`fetch` asks one server (raises ListingFailed); `observed` hands definitions on; `clock` is monotonic seconds."""

    def __init__(
        self,
        *,
        fetch: Callable[[names.ServerId], Awaitable[Listing]],
        observed: Callable[[names.ServerId, catalog.Definitions], None],
        clock: Callable[[], float],
    ) -> None:
        self._fetch = fetch
        self._observed = observed
        self._clock = clock
        self._entries: dict[names.ServerId, _Entry] = {}
        self._warming = asyncio.Semaphore(WARM_AT_ONCE)

    def keep(self, servers: Iterable[names.ServerId], *, moved: Iterable[names.ServerId] = ()) -> None:
        """A new snapshot: forget servers that left it, and ask those again that moved."""
        wanted = set(servers) - set(moved)
        for server in [each for each in self._entries if each not in wanted]:
            entry = self._entries.pop(server)
            if entry.running is not None:
                entry.running.cancel()

    def touch(self, server: names.ServerId) -> None:
        """Somebody looks at this server's list: fetch it again in the background when it is stale."""
        entry = self._entries.get(server)
        if entry is None or (entry.running is None and self._clock() >= entry.due):
            self._start(server)

    async def ensure(self, server: names.ServerId, *, seconds: float | None = None) -> ListingFailed | None:
        """Waits for the fetch under way, or makes one if none is due later, at most `seconds`. None, or why not."""
        self.touch(server)
        entry = self._entries[server]
        if entry.running is not None:
            done, _ = await asyncio.wait([entry.running], timeout=seconds)
            if not done:
                return ListingFailed(decision.Reason.UPSTREAM_NOT_READY, "its list has not arrived yet")
        return entry.failed

    async def patiently(self, servers: Iterable[names.ServerId], *, seconds: float) -> None:
        """Waits for lists under way, for none longer than `seconds` from its start: a server that hangs delays nobody twice."""
        entries = []
        for server in servers:
            self.touch(server)
            entries.append(self._entries[server])
        running = {entry.running: entry.began + seconds for entry in entries if entry.running is not None}
        while left := [task for task, until in running.items() if not task.done() and until > self._clock()]:
            nearest = min(running[task] for task in left) - self._clock()
            await asyncio.wait(left, timeout=max(nearest, 0.001), return_when=asyncio.FIRST_COMPLETED)

    async def warm(self, servers: Iterable[names.ServerId]) -> None:
        """Asks servers for their lists ahead of the first call, a few at a time."""

        async def one(server: names.ServerId) -> None:
            async with self._warming:
                await self.ensure(server)

        await asyncio.gather(*(one(server) for server in servers))

    async def close(self) -> None:
        """Ends every fetch under way."""
        running = [entry.running for entry in self._entries.values() if entry.running is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _start(self, server: names.ServerId) -> None:
        entry = self._entries.setdefault(server, _Entry(due=0.0))
        entry.began = self._clock()
        entry.running = asyncio.get_running_loop().create_task(
            self._run(server, entry), name=f"list {server}"
        )

    async def _run(self, server: names.ServerId, entry: _Entry) -> None:
        try:
            listing = await self._fetch(server)
        except ListingFailed as failure:
            if str(entry.failed) != str(failure):
                log.warning(
                    "server cannot be listed", extra=telemetry.fields(server=str(server), why=str(failure))
                )
            entry.failed = failure
            entry.due = self._clock() + RETRY_SECONDS
        except Exception as bug:  # noqa: BLE001 -- a bug must not make every caller ask the server again
            self._broken(server, entry, bug)
        else:
            entry.due = self._clock() + min(listing.ttl_seconds or TTL_SECONDS, TTL_SECONDS_MAX)
            try:
                self._observed(server, listing.definitions)
            except Exception as bug:  # noqa: BLE001 -- as above: whoever waits is told, and it is not tried at once again
                self._broken(server, entry, bug)
            else:
                entry.failed = None
        finally:
            entry.running = None

    def _broken(self, server: names.ServerId, entry: _Entry, bug: Exception) -> None:
        """A bug of ours, logged once by type and place: its text may quote what a server sent."""
        frame = traceback.extract_tb(bug.__traceback__)[-1]
        text = f"{type(bug).__name__} in {frame.name}, line {frame.lineno} of {pathlib.PurePath(frame.filename).name}"
        failure = ListingFailed(decision.Reason.INTERNAL, text)
        if str(entry.failed) != str(failure):
            log.error(
                "a bug: a server's list was not taken in",
                extra=telemetry.fields(server=str(server), why=text),
            )
        entry.failed = failure
        entry.due = self._clock() + RETRY_SECONDS
