# SPDX-License-Identifier: Apache-2.0
"""Tells the operator what this proxy sees of servers: what is new, and all of it now and then.

Run by main (a sidecar's view) and by the prober (the catalogue); both hand in what a server listed or why it did not. A list is
told by its digest, and whole when the operator asks. Refuses to be in anybody's way: it works in slices, keeps no definition, and
when the operator is away it waits.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable

import aiohttp

from outrider import call, catalog, fingerprints, names, reports, wire
from outrider_sidecar import introductions, telemetry

log = logging.getLogger("outrider")

SLICE_TOOLS = 20
"""Fingerprinted at a stretch, about 3 ms."""

TOOLS_HELD_MAX = 100_000
"""Names and fingerprints in memory, about 20 MB; a list beyond is made again when it is asked for."""

_REPORT_BYTES = 1_048_576
_TOOL_BYTES = 220
_SEEN_BYTES = 1_200
_BACKOFF_SECONDS = 1.0
_BACKOFF_SECONDS_MAX = 60.0
_AGE_SECONDS_MAX = 86_400.0
_NOT_HERE = 404

Post = Callable[[bytes], Awaitable[tuple[int, bytes]]]
"""Delivers a report: (HTTP status, the answer's body). Raises OSError, aiohttp.ClientError, TimeoutError or wire.WireError."""

Jitter = Callable[[], float]
"""A number from 0 to 1."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pace:
    """`wait_seconds`: what is new waits up to this for more. `repeat_seconds`: everything is said again about this often."""

    wait_seconds: float
    repeat_seconds: float


@dataclasses.dataclass(slots=True)
class _View:
    """One server as seen last. `mark` is of the bytes it listed; `tools` None: not held, to be listed again when asked for;
    `prompts` and `resources` None: not observed.

    `fresh`: to be told; `whole`: with its tools; `asked`: its tools were wanted and are not held.
    """

    at: float
    error: str = ""
    mark: bytes = b""
    digest: str = ""
    tools: tuple[tuple[str, str], ...] | None = None
    prompts: tuple[tuple[str, str], ...] | None = None
    prompt_count: int = 0
    resources: str | None = None
    resource_count: int = 0
    template_count: int = 0
    unusable: int = 0
    introduction: introductions.Introduction = dataclasses.field(default_factory=introductions.Introduction)
    fresh: bool = True
    whole: bool = False
    asked: bool = False


class Telling:
    """`again` is called with a server whose list has to be fetched once more; `clock` is monotonic seconds."""

    def __init__(
        self, post: Post, pace: Pace, *, clock: Callable[[], float], jitter: Jitter,
        again: Callable[[names.ServerId], None] = lambda _server: None,
    ) -> None:  # fmt: skip
        self._post = post
        self._pace = pace
        self._clock = clock
        self._jitter = jitter
        self._again = again
        self._views: dict[names.ServerId, _View] = {}
        self._news = asyncio.Event()
        self._held = 0
        self._why = ""

    async def listed(
        self, server: names.ServerId, found: catalog.Definitions, who: introductions.Introduction, *, always: bool = False
    ) -> None:  # fmt: skip
        """A server has listed its tools, and whatever else is observed. Unless `always`, the same as before is no news."""
        mark = _mark(found)
        held = self._views.get(server)
        if held is None or held.mark != mark:
            fresh = _View(self._clock(), mark=mark)
            pairs = []
            for index, tool in enumerate(found.tools):
                pairs.append((tool.name, fingerprints.of(tool.raw)))
                if index % SLICE_TOOLS == SLICE_TOOLS - 1:
                    await asyncio.sleep(0)
            fresh.digest, fresh.unusable = fingerprints.digest(pairs), len(found.dropped)
            fresh.prompts, fresh.prompt_count = await _prompts(found), len(found.prompts)
            fresh.resources = await _resources(found)
            fresh.resource_count, fresh.template_count = len(found.resources), len(found.templates)
            fresh.whole = held is not None and held.asked
            self._drop(server)
            if self._held + len(pairs) <= TOOLS_HELD_MAX or fresh.whole:
                fresh.tools = tuple(pairs)
                self._held += len(pairs)
            held = self._views[server] = fresh
        held.fresh = held.fresh or always or bool(held.error) or held.introduction != who
        held.at, held.introduction = self._clock(), who
        held.error = ""
        if held.fresh:
            self._news.set()

    def failed(self, server: names.ServerId, error: str) -> None:
        """A server could not be listed, and why, for people."""
        held = self._views.setdefault(server, _View(self._clock()))
        held.at, held.error, held.fresh = self._clock(), error[: reports.ERROR_CHARACTERS_MAX], True
        self._news.set()

    def keep(self, servers: Iterable[names.ServerId]) -> None:
        """Forgets every other server."""
        for server in self._views.keys() - set(servers):
            self._drop(server)

    def repeat(self) -> None:
        """Whoever is told now may know nothing: a new stream, perhaps to another replica."""
        for held in self._views.values():
            held.fresh = True
        if self._views:
            self._news.set()

    async def run(self) -> None:
        """Tells what is new, for ever; returns only by cancellation."""
        failures = 0
        while True:
            try:
                async with asyncio.timeout(self._pace.repeat_seconds * (0.8 + 0.4 * self._jitter())):
                    await self._news.wait()
            except TimeoutError:
                self.repeat()
                continue
            await asyncio.sleep(self._pace.wait_seconds * self._jitter())
            self._news.clear()
            delivered = await self._tell()
            failures = 0 if delivered else failures + 1
            if failures:
                self._news.set()
                seconds = min(_BACKOFF_SECONDS_MAX, _BACKOFF_SECONDS * 2 ** min(failures, 10))
                await asyncio.sleep(seconds * (0.5 + 0.5 * self._jitter()))

    async def _tell(self) -> bool:
        """Sends reports until nothing is new; False when one was not taken."""
        while batch := self._batch():
            told = {server: (held.digest, held.error) for server, held in batch.items()}
            report = reports.Report(servers=tuple(self._seen(server, held) for server, held in batch.items()))
            wanted = await self._delivered(reports.encode(report))
            if wanted is None:
                return False
            for server, held in batch.items():
                held.whole = False
                if self._held > TOOLS_HELD_MAX and held.tools is not None:
                    self._held -= len(held.tools)
                    held.tools = None
                # What came while the report was under way is news still.
                held.fresh = (held.digest, held.error) != told[server]
            for text in wanted.servers:
                self._wanted(names.server_id(text))
        return True

    def _batch(self) -> dict[names.ServerId, _View]:
        chosen: dict[names.ServerId, _View] = {}
        size = 0
        for server, held in self._views.items():
            if not held.fresh:
                continue
            told = len(held.prompts or ()) + (len(held.tools or ()) if held.whole else 0)
            size += _SEEN_BYTES + _TOOL_BYTES * told
            if chosen and (size > _REPORT_BYTES or len(chosen) >= reports.SERVERS_MAX):
                break
            chosen[server] = held
        return chosen

    def _seen(self, server: names.ServerId, held: _View) -> reports.Seen:
        age = min(max(0.0, self._clock() - held.at), _AGE_SECONDS_MAX)
        if held.error:
            return reports.Seen(server=str(server), age_seconds=age, error=held.error)
        return reports.Seen(
            server=str(server), age_seconds=age, digest=held.digest, tools=held.tools if held.whole else None,
            unusable=held.unusable, server_name=held.introduction.name, server_version=held.introduction.version,
            protocol_versions=held.introduction.protocol_versions, prompts=held.prompts, prompt_count=held.prompt_count,
            instructions=fingerprints.of_text(held.introduction.instructions) if held.introduction.instructions else "",
            resources=held.resources, resource_count=held.resource_count, template_count=held.template_count,
        )  # fmt: skip

    def _wanted(self, server: names.ServerId | None) -> None:
        held = None if server is None else self._views.get(server)
        if server is None or held is None or held.error:
            return
        if held.tools is None:
            held.mark, held.asked = b"", True
            self._again(server)
            return
        held.whole = held.fresh = True

    async def _delivered(self, body: bytes) -> reports.Wanted | None:
        """The answer; None when the operator is away. One that takes no reports, on a laptop or an older one, wants nothing."""
        try:
            status, answer = await self._post(body)
            if status == 200:
                self._why = ""
                return reports.decode_wanted(answer)
            if status == _NOT_HERE:
                return reports.Wanted()
            why = f"it answers {status}"
        except (OSError, aiohttp.ClientError, TimeoutError, wire.WireError) as error:
            why = str(error) or type(error).__name__
        if why != self._why:
            self._why = why
            log.warning("what is seen of servers could not be told", extra=telemetry.fields(why=why))
        return None

    def _drop(self, server: names.ServerId) -> None:
        dropped = self._views.pop(server, None)
        self._held -= len(dropped.tools or ()) if dropped is not None else 0


async def _prompts(found: catalog.Definitions) -> tuple[tuple[str, str], ...] | None:
    """(name, fingerprint) of the first of them by name; None when they are not observed."""
    if call.Kind.PROMPT in found.unobserved:
        return None
    pairs = []
    for index, prompt in enumerate(sorted(found.prompts, key=lambda each: each.name)[: reports.PROMPTS_MAX]):
        pairs.append((prompt.name, fingerprints.of(prompt.raw)))
        if index % SLICE_TOOLS == SLICE_TOOLS - 1:
            await asyncio.sleep(0)
    return tuple(pairs)


async def _resources(found: catalog.Definitions) -> str | None:
    """One fingerprint of resources and templates together, "" without any; None when they are not observed.

    There may be thousands, with names that say nothing to a reader of a status: that something has changed is what can be seen.
    """
    if call.Kind.RESOURCE in found.unobserved:
        return None
    pairs = []
    for index, each in enumerate((*found.resources, *found.templates)):
        pairs.append((each.name, fingerprints.of(each.raw)))
        if index % SLICE_TOOLS == SLICE_TOOLS - 1:
            await asyncio.sleep(0)
    return f"sha256:{fingerprints.digest(pairs)}" if pairs else ""


def _mark(found: catalog.Definitions) -> bytes:
    """Of the bytes as they came: cheap, so that only a list that changed is fingerprinted."""
    unobserved = (call.Kind.PROMPT in found.unobserved, call.Kind.RESOURCE in found.unobserved)
    made = hashlib.sha256(b"%d%d;" % unobserved)
    for listed in (found.tools, found.prompts, found.resources, found.templates):
        made.update(b"%d;" % len(listed))
        for each in listed:
            made.update(b"%d\0%b" % (len(each.raw), each.raw))
    made.update(b"%d" % len(found.dropped))
    return made.digest()
