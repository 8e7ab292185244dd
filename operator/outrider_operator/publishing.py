# SPDX-License-Identifier: Apache-2.0
"""The configuration in force on its way to proxies: who listens, what each was offered, what it said.

Called by whoever knows what is in force (`laptop` for files, controller in a cluster) and by `streaming`, which talks HTTP. Nothing
is queued: a stream that is woken asks for the newest offer of its workload. A workload's line is encoded once for all of its
streams and forgotten when the last of them has it. Used on one event loop only.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Protocol

from outrider import snapshot, wire
from outrider_operator import receipts, reviewer

Subject = tuple[str, str]
"""(namespace, ServiceAccount): whom a snapshot is for."""


@dataclasses.dataclass(frozen=True, slots=True)
class Offer:
    """A workload's snapshot in one schema. `unexpressed`: what that schema cannot say (`MCPServer ns/name`), denied in it."""

    version: str
    position: snapshot.Position
    content: bytes
    unexpressed: tuple[str, ...] = ()


class Source(Protocol):
    """What is in force now. Asked often and on the event loop: it must remember what it made."""

    @property
    def epoch(self) -> int:
        """Of its positions; another one means that they start over."""

    def offer(self, subject: Subject, schema: int) -> Offer | None:
        """The newest of a workload; None while nothing is known at all."""


@dataclasses.dataclass(slots=True, eq=False)
class Stream:
    """One open stream: who listens, what was offered last and how that was answered. `sent_at` is monotonic.

    `deflate`: the reader can take offers deflated.
    """

    principal: reviewer.Principal
    peer: str
    schema: int = snapshot.SCHEMA
    deflate: bool = False
    software: str = ""
    trust: str = ""
    offered: str = ""
    position: snapshot.Position = dataclasses.field(default_factory=dict)
    acked: str = ""
    refusal: receipts.Refusal | None = None
    sent_at: float = 0.0
    leaving: wire.GoAway | None = None
    changed: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    def leave(self, reason: str, *, spread_ms: int = 0) -> None:
        """Has the reader sent away; it dials again."""
        self.leaving = wire.GoAway(reason=reason, spread_ms=spread_ms)
        self.changed.set()


class _Group:
    """The streams of one workload that read one schema in one form."""

    __slots__ = ("_deflate", "due", "line", "line_of", "sending", "streams")

    def __init__(self, *, deflate: bool) -> None:
        self._deflate = deflate
        self.streams: set[Stream] = set()
        self.due: set[Stream] = set()
        self.sending = 0
        self.line = b""
        self.line_of: tuple[str, snapshot.Position] | None = None

    def line_for(self, offer: Offer) -> bytes:
        """Encoded once for everybody who is due."""
        made_of = (offer.version, offer.position)
        if self.line_of != made_of:
            message = wire.SnapshotOffer(
                version=offer.version, position=dict(offer.position), content=wire.raw(offer.content)
            )
            self.line = wire.encode(wire.deflated(message) if self._deflate else message)
            self.line_of = made_of
        return self.line

    def forget(self) -> None:
        """A thousand workloads' lines are not kept for nobody."""
        if not self.due and not self.sending:
            self.line, self.line_of = b"", None


_Form = tuple[int, bool]
"""How an offer is written: in which schema, and whether deflated."""


class Publisher:
    """Everybody who listens. `book` gets what is offered and answered; `answered` an answer and the seconds it took, if known."""

    def __init__(
        self,
        source: Source,
        *,
        book: receipts.Book | None = None,
        answered: Callable[[wire.Ack, float | None], None] | None = None,
    ) -> None:
        self._source = source
        self._groups: dict[Subject, dict[_Form, _Group]] = {}
        self._listening: dict[reviewer.Principal, list[Stream]] = {}
        self._answered = answered
        self.book = book if book is not None else receipts.Book()
        self.streams: dict[Stream, None] = {}
        self.bundle = ""
        self.draining = False

    @property
    def epoch(self) -> int:
        return self._source.epoch

    @property
    def subjects(self) -> Collection[Subject]:
        """The workloads that listen."""
        return self._groups.keys()

    @property
    def versions(self) -> int:
        """How many different snapshots are offered now."""
        return len({stream.offered for stream in self.streams if stream.offered})

    def listening(self, principal: reviewer.Principal) -> int:
        """How many streams of one principal are open."""
        return len(self._listening.get(principal, ()))

    def opened(self, stream: Stream) -> None:
        """A stream begins."""
        self.streams[stream] = None
        groups = self._groups.setdefault(stream.principal.subject, {})
        form = stream.schema, stream.deflate
        if form not in groups:
            groups[form] = _Group(deflate=stream.deflate)
        groups[form].streams.add(stream)
        self._listening.setdefault(stream.principal, []).append(stream)
        self.book.opened(stream.principal, stream.schema, stream.software, stream.trust)
        if self.draining:
            stream.leave(_STOPPING)

    def closed(self, stream: Stream) -> None:
        """A stream has ended."""
        del self.streams[stream]
        self._listening[stream.principal].remove(stream)
        if not self._listening[stream.principal]:
            del self._listening[stream.principal]
        groups = self._groups[stream.principal.subject]
        group = groups[stream.schema, stream.deflate]
        group.streams.discard(stream)
        group.due.discard(stream)
        group.forget()
        if not group.streams:
            del groups[stream.schema, stream.deflate]
        if not groups:
            del self._groups[stream.principal.subject]
        self.book.closed(stream.principal)

    def _group(self, stream: Stream) -> _Group:
        return self._groups[stream.principal.subject][stream.schema, stream.deflate]

    async def refresh(self, subjects: Iterable[Subject] | None = None) -> int:
        """Wakes the streams of these workloads (None: of all) whose newest offer is another; says how many.

        Between two workloads the loop gets its turn: while one is compiled, another is being sent.
        """
        woken = 0
        for subject in list(self._groups if subjects is None else subjects):
            if subject in self._groups:
                woken += self.wake(subject)
                await asyncio.sleep(0)
        return woken

    def wake(self, subject: Subject) -> int:
        """The same for one workload, at once."""
        woken = 0
        for (schema, _), group in self._groups.get(subject, {}).items():
            offer = self._source.offer(subject, schema)
            if offer is None:
                continue
            # Each for itself: one of them may have looked already, between the change and this.
            group.due = {stream for stream in group.streams if stream.offered != offer.version}
            for stream in group.due:
                stream.changed.set()
            woken += len(group.due)
        return woken

    def newest(self, stream: Stream) -> Offer | None:
        """What the stream's workload should hold now."""
        return self._source.offer(stream.principal.subject, stream.schema)

    def offering(self, stream: Stream, offer: Offer, *, held: bool) -> None:
        """Notes what is about to be said: the answer may arrive before the line has left. `held`: the reader has it already."""
        stream.offered, stream.position, stream.refusal = offer.version, offer.position, None
        stream.sent_at = time.monotonic()
        group = self._group(stream)
        group.due.discard(stream)
        self.book.offered(stream.principal, offer.version, offer.position, offer.unexpressed)
        if held:
            stream.acked = offer.version
            self.book.answered(stream.principal, offer.version, offer.position, None)

    @contextlib.contextmanager
    def line(self, stream: Stream, offer: Offer) -> Iterator[bytes]:
        """The offer's line while it is being sent; one for all who are sent it at a time."""
        group = self._group(stream)
        group.sending += 1
        try:
            yield group.line_for(offer)
        finally:
            group.sending -= 1
            group.forget()

    def acknowledge(self, ack: wire.Ack, principal: reviewer.Principal) -> bool:
        """Takes an answer; False when nothing of that version was ever offered to that principal, as far as can be known.

        A pod's answer counts although its stream is another replica's: connections are spread, and the receipts come together.
        Of several streams of one principal the longest-waiting is meant.
        """
        refusal = None if ack.ok else receipts.Refusal(ack.error, ack.path, ack.source)
        asked = [one for one in self._listening.get(principal, ()) if one.offered == ack.version]
        waiting = [one for one in asked if one.acked != ack.version and one.refusal is None]
        for one in (waiting or asked)[:1]:
            one.acked = ack.version if ack.ok else one.acked
            one.refusal = refusal
        if asked and self._answered is not None:
            self._answered(ack, time.monotonic() - waiting[0].sent_at if waiting else None)
        if principal.uid:
            self.book.answered(principal, ack.version, ack.position, refusal)
        return bool(asked or principal.uid)

    def trusted(self, digest: str, principal: reviewer.Principal) -> None:
        """A sidecar says which bundle of authorities it trusts now."""
        for one in self._listening.get(principal, ()):
            one.trust = digest
        self.book.trusted(principal, digest)

    def trust(self, bundle: str) -> None:
        """Tells everybody who reads schema 2 or newer of these authorities."""
        self.bundle = bundle
        for stream in self.streams:
            stream.changed.set()

    async def drain(self, seconds: float = 0.0) -> None:
        """Sends every proxy away: this process ends. Spread over `seconds`, and each is told to take as long to come back."""
        self.draining = True
        open_streams = list(self.streams)
        pause = seconds / len(open_streams) if open_streams else 0.0
        for stream in open_streams:
            stream.leave(_STOPPING, spread_ms=int(seconds * 1000))
            if pause:
                await asyncio.sleep(pause)


_STOPPING = "the operator is stopping; dial again"
