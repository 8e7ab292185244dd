# SPDX-License-Identifier: Apache-2.0
"""`subscriptions/listen` of agents of the stateless era: one stream of what changes, as long as the agent wants and may hear it.

A handler of the pipeline. First comes the acknowledgment of what will be heard, which is less than what was asked for when
policy or the server says so; every message carries the id of the request. The stream ends with a result when we go, or when
something that was acknowledged may not be heard any more (R21): whoever listens again learns what is left.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Coroutine
from typing import Any

from outrider import bind, call, decide, decision, names, snapshot
from outrider_sidecar import (
    answers,
    audience,
    conventions,
    ears,
    ids,
    introductions,
    journal,
    jsonrpc,
    lists,
    orders,
    refusals,
    streams,
    visits,
    watches,
)

LISTENERS_MAX = 1_000
URIS_MAX = 1_000
"""Resources on one stream; those on top are not acknowledged, nor those for which there is no room."""

LIVE_SECONDS = 3.0
"""How long the acknowledgment waits for servers to be listened to; they are listened to all the same when it takes longer."""

_R = decision.Reason


@dataclasses.dataclass(frozen=True, slots=True)
class Desk:
    """What the handlers work with; the same for both eras."""

    parts: orders.Parts
    refusals: refusals.Desk
    audience: audience.Audience
    catalogue: lists.Lists
    ids: ids.Ids
    room: watches.Room = dataclasses.field(default_factory=watches.Room)


class _Stream:
    """One agent's stream: what it hears, what is watched for it, and how it ends. Nothing is told before the acknowledgment."""

    def __init__(self, visit: visits.Visit, out: streams.Outgoing, kinds: frozenset[call.Kind]) -> None:
        self.visit = visit
        self.out = out
        self.listener = audience.Listener(visit.server, kinds, self._tell, visit.user)
        self.watches: list[watches.Watch] = []
        self._early: list[bytes] | None = []

    def acknowledge(self) -> None:
        """First of all what will be heard; then what has been heard since it was asked for."""
        honoured = ears.filtered(self.listener.kinds, [watch.uri for watch in self.watches])
        early, self._early = self._early, None
        id_ = self.visit.subject.id
        self.out.notify(audience.tagged(conventions.ACKNOWLEDGED, {"notifications": honoured}, id_))
        for message in early or ():
            self.out.notify(message)

    def _tell(self, method: str, params: dict[str, bytes]) -> None:
        message = audience.tagged(method, params, self.visit.subject.id)
        if self._early is None:
            self.out.notify(message)
        elif message not in self._early and len(self._early) < streams.FRAMES_MAX:
            self._early.append(message)

    def close(self, reason: decision.Reason, detail: str) -> None:
        """Its subscriptions are over."""
        for watch in self.watches:
            watch.close(reason, detail=detail)
        self.watches.clear()

    def finish(self) -> None:
        """The stream ends in order, with the result of its request."""
        id_ = self.visit.subject.id
        key = json.dumps(conventions.META_SUBSCRIPTION).encode()
        meta = b"{" + key + b":" + jsonrpc.encode_id(id_) + b"}"
        self.out.answer(jsonrpc.result(id_, jsonrpc.spliced({"resultType": b'"complete"', "_meta": meta})))


class Subscriptions:
    """Every stream of modern agents. `call_later` arms its keep-alives."""

    def __init__(self, desk: Desk, *, call_later: streams.CallLater) -> None:
        self._desk = desk
        self._call_later = call_later
        self._streams: set[_Stream] = set()

    def __len__(self) -> int:
        return len(self._streams)

    # A stream -----------------------------------------------------------------------------------------------------------

    def listen(self, visit: visits.Visit, bound: bind.Bound) -> Coroutine[Any, Any, None] | None:
        """A `visits.Handler`."""
        accepts = streams.accepted(visit.request.headers)
        wanted = visit.subject.message.params.get("notifications")
        if not isinstance(wanted, dict) or not _is_list(wanted.get(ears.URIS)):
            text = f"params.notifications must be an object, and its {ears.URIS} a list of URIs"
            error = jsonrpc.error(visit.subject.id, conventions.INVALID_PARAMS, text)
            answers.json(error).give(visit.reply)
            return None
        if not accepts.sse:
            text = "this answer is an event stream: send Accept: application/json, text/event-stream"
            error = jsonrpc.error(visit.subject.id, conventions.INVALID_REQUEST, text)
            answers.json(error, status=406).give(visit.reply)
            return None
        if len(self._streams) >= LISTENERS_MAX:
            objection = decision.Objection(_R.OVERLOADED, visible=True, retry_after_seconds=1.0)
            self._desk.refusals.method(visit, objection)
            return None
        return self._begin(visit, bound, wanted)

    async def _begin(self, visit: visits.Visit, bound: bind.Bound, wanted: dict[str, Any]) -> None:
        out = streams.Outgoing(
            visit.reply, accepts=streams.Accepted(json=False, sse=True), call_later=self._call_later
        )
        stream = _Stream(visit, out, self._kinds(visit.server, wanted))
        listener = stream.listener
        self._streams.add(stream)
        out.on_gone(lambda: self._gone(stream))
        self._watch(stream, bound, list(dict.fromkeys(wanted.get(ears.URIS) or ()))[:URIS_MAX])
        self._desk.audience.join(listener, bound)
        if any(
            watch.permit.server.audit.durability is snapshot.Durability.SYNCED for watch in stream.watches
        ):
            try:
                await self._desk.parts.journal.synced()
            except journal.JournalUnavailable:
                self._end(stream, _R.AUDIT_UNAVAILABLE, "the journal cannot be made durable")
                return
        await self._desk.audience.live(listener, seconds=LIVE_SECONDS)
        if stream in self._streams:
            stream.acknowledge()

    @staticmethod
    def _kinds(server: names.ServerId | None, wanted: dict[str, Any]) -> frozenset[call.Kind]:
        """On the merged endpoint there are no resources."""
        return frozenset(
            kind
            for kind, flag in ears.FLAGS.items()
            if wanted.get(flag) is True and (server is not None or kind is not call.Kind.RESOURCE)
        )

    def _watch(self, stream: _Stream, bound: bind.Bound, uris: list[str]) -> None:
        """Decides about each resource. What may not be heard is left out of the acknowledgment, and recorded."""
        desk, visit = self._desk, stream.visit
        for uri in uris:
            if visit.server is None or desk.room.full or not subscribes(desk.catalogue, visit.server):
                continue
            subject = call.Call(
                visit.server, uri, None, call.Kind.RESOURCE, call.Method.SUBSCRIBE, visit.user
            )
            verdict = decide.decide(bound, subject, desk.parts.ledger, now=desk.parts.wall())
            if isinstance(verdict, decision.Permit):
                about = dataclasses.replace(visit.about, request_id=desk.ids.next())
                try:
                    stream.watches.append(watches.begun(desk.parts, about, verdict, desk.room))
                except watches.Unrecorded:
                    continue
                origin = audience.origin_of(verdict)
                stream.listener.uris.setdefault(origin, {})[uri] = visit.user
            elif isinstance(verdict, decision.Refusal):
                desk.refusals.noted(visit, verdict, bound, event=desk.ids.next())

    # Its end ------------------------------------------------------------------------------------------------------------

    def _gone(self, stream: _Stream) -> None:
        """The agent has left, or did not read what it was told."""
        self._forget(stream, _R.CANCELLED, "the agent closed its stream")

    def _end(self, stream: _Stream, reason: decision.Reason, detail: str) -> None:
        self._forget(stream, reason, detail)
        if not stream.out.ended:
            stream.finish()

    def _forget(self, stream: _Stream, reason: decision.Reason, detail: str) -> None:
        if stream in self._streams:
            self._streams.discard(stream)
            self._desk.audience.leave(stream.listener)
            stream.close(reason, detail)

    def configured(self, bound: bind.Bound) -> None:
        """A configuration is in force: streams that tell of what may not be heard any more end."""
        for stream in tuple(self._streams):
            server = stream.visit.server
            held = None if server is None else bound.servers.get(server)
            if server is not None and (held is None or not held.in_sight):
                self._end(stream, _R.NOT_ALLOWED, "the server may not be seen any more")
            elif not all(
                self._desk.audience.may_hear(watch.permit.server.id, watch.uri, watch.permit.call.user)
                for watch in stream.watches
            ):
                self._end(stream, _R.NOT_ALLOWED, "policy has changed")

    def drain(self) -> None:
        """The proxy goes: every stream ends in order."""
        for stream in tuple(self._streams):
            self._end(stream, _R.ALLOWED, "the proxy is shutting down")


def subscribes(catalogue: lists.Lists, server: names.ServerId) -> bool:
    """Whether a server tells of changes of its resources to those who listen; one that nobody has met yet may."""
    met = catalogue.introduction(server, modern=True)
    return met.capabilities is None or met.has(introductions.SUBSCRIBE)


def _is_list(value: object) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(each, str) for each in value))
