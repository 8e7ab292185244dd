# SPDX-License-Identifier: Apache-2.0
"""From one HTTP request to one verdict: who, what, may it, and on its way.

Called by the door. `begin` reads as the product does: parse, era, caller's session, method; for a call `decide`, once more
if something had to be fetched, then an `Attempt`. Every refusal leaves through `refusals`, so that it is recorded
and counted like a call. No policy is written here, and nothing here knows aiohttp.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from outrider import bind, call, decide, decision, mirrors, names
from outrider_sidecar import (
    answers,
    asked,
    attempt,
    caller,
    conventions,
    endings,
    exchange,
    ids,
    jsonrpc,
    legacy,
    lists,
    local,
    modern,
    records,
    refusals,
    sessions,
    streams,
)
from outrider_sidecar import current as in_force

log = logging.getLogger("outrider")

_R = decision.Reason
LIST_SECONDS_MAX = 3.0
"""How long a list waits for servers that were never listed, from when they were first asked."""

_NEEDS_MAX = 2
"""How often a call may wait for something and be decided again: definitions once, after a swap once more."""


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """`calls_max` calls in flight; what comes on top is refused as Overloaded."""

    calls_max: int = 2048


@dataclasses.dataclass(frozen=True, slots=True)
class Gate:
    """What stands before the decision: the door's guard, the sealer of sessions, ids, the servers' lists."""

    guard: caller.Guard
    sealer: sessions.Sealer
    ids: ids.Ids
    catalogue: lists.Lists
    call_later: streams.CallLater


class Pipeline:
    """`exchange.Pipeline`."""

    def __init__(
        self, parts: attempt.Parts, gate: Gate, *, current: in_force.Current, limits: Limits
    ) -> None:
        self._parts = parts
        self._gate = gate
        self._current = current
        self._limits = limits
        self._desk = refusals.Desk(parts, gate.ids, current)
        self._under_way: dict[tuple[str, jsonrpc.Id], attempt.Attempt] = {}
        self._anonymous: set[attempt.Attempt] = set()

    @property
    def streams(self) -> int:
        """Answers that are open as event streams now."""
        return sum(each.streaming for each in (*self._under_way.values(), *self._anonymous))

    def admit(self, method: str, target: bytes, headers: exchange.Headers, reply: exchange.Reply) -> bool:  # noqa: ARG002 -- the shape of exchange.Pipeline
        """Host, Origin and token, before a byte of the body is read (R3, R4)."""
        objection = self._gate.guard.objection(headers)
        if objection is None:
            return True
        self._desk.at_door(objection.reason)
        answers.not_accepted(objection).give(reply)
        return False

    def begin(self, request: exchange.Request, reply: exchange.Reply) -> Coroutine[Any, Any, None] | None:
        """Serves one request. Never raises for anything an agent can send."""
        path = request.target.partition(b"?")[0].decode("latin-1")
        server = None if path == "/mcp" else local.server_of(path)
        if path != "/mcp" and server is None:
            answers.not_found().give(reply)
            return None
        if request.method == "DELETE":
            self._end_session(request, path).give(reply)
            return None
        if request.method != "POST":
            answers.method_not_allowed(b"POST, DELETE").give(reply)
            return None
        try:
            visit = self._read(request, reply, path, server)
        except jsonrpc.Malformed as error:
            self._desk.of_caller(error.reason, place=path, detail=str(error))
            answers.malformed(error).give(reply)
            return None
        if visit is None:
            return None
        return self._serve(visit)

    # Reading ----------------------------------------------------------------------------------------------------------

    def _read(
        self, request: exchange.Request, reply: exchange.Reply, endpoint: str, server: names.ServerId | None
    ) -> refusals.Visit | None:
        """Parses and places a request; None when it was answered with an unknown session. Raises Malformed."""
        jsonrpc.check_content_type(request.headers)
        message = jsonrpc.parse(request.body)
        try:
            return self._place(request, reply, message, endpoint=endpoint, server=server)
        except jsonrpc.Malformed as error:
            error.id = message.id
            raise

    def _place(
        self, request: exchange.Request, reply: exchange.Reply, message: jsonrpc.Message, *, endpoint: str,
        server: names.ServerId | None,
    ) -> refusals.Visit | None:  # fmt: skip
        trace = asked.trace(request.headers, message)
        is_modern = asked.is_modern(request.headers, message)
        key = ""
        if is_modern:
            modern.check(request.headers, message)
            version = conventions.MODERN
        elif message.method == conventions.INITIALIZE:
            version = legacy.chosen_version(message.params)
        else:
            version = legacy.version_of(request.headers)
            sealed = asked.header(request.headers, conventions.HEADER_SESSION)
            known = self._current.bound is not None  # without a configuration nobody's session can be told
            if sealed is not None and known:
                state = self._gate.sealer.read(sealed, principal=self._principal, endpoint=endpoint)
                if state is None:
                    self._desk.of_caller(_R.SESSION_UNKNOWN, place=endpoint)
                    answers.unknown_session(message.id).give(reply)
                    return None
                key = state.nonce.hex()
        subject = asked.Asked(is_modern, version, message, trace, key)
        bound = self._current.bound
        about = records.About(
            request_id=self._gate.ids.next(),
            workload=None if bound is None else bound.snapshot.workload,
            digest="" if bound is None else bound.digest,
            era=version,
            method=message.method,
            trace_id=trace.id,
        )
        return refusals.Visit(request, reply, endpoint, server, subject, about)

    @property
    def _principal(self) -> str:
        return "" if self._current.bound is None else str(self._current.bound.snapshot.workload)

    def _end_session(self, request: exchange.Request, endpoint: str) -> answers.Answer:
        """DELETE: the agent is done with its session; here and at every server it was opened for."""
        try:
            sealed = asked.header(request.headers, conventions.HEADER_SESSION)
        except jsonrpc.Malformed as error:
            return answers.malformed(error)
        if sealed is None:
            return answers.method_not_allowed(b"POST")
        state = self._gate.sealer.read(sealed, principal=self._principal, endpoint=endpoint)
        if state is None:
            self._desk.of_caller(_R.SESSION_UNKNOWN, place=endpoint)
            return answers.unknown_session(None)
        self._gate.sealer.end(state)
        for key, each in tuple(self._under_way.items()):
            if key[0] == state.nonce.hex():
                each.cancel()
        if self._current.bound is not None:
            self._parts.spawn(self._parts.servers.end_sessions(self._current.bound, state.nonce.hex()))
        return answers.Answer(200, (), b"")

    # Methods ----------------------------------------------------------------------------------------------------------

    def _serve(self, visit: refusals.Visit) -> Coroutine[Any, Any, None] | None:
        bound = self._current.bound
        message = visit.subject.message
        if message.kind is jsonrpc.Kind.RESPONSE:
            answers.accepted().give(visit.reply)  # nothing was asked, so nothing can be answered
            return None
        if message.kind is jsonrpc.Kind.NOTIFICATION:
            self._notified(visit)
            return None
        if bound is None:
            self._desk.method(visit, decision.Objection(_R.NOT_READY, visible=True))
            return None
        if visit.server is not None and not self._visible(bound, visit.server):
            self._desk.server(visit)
            return None
        return self._dispatch(visit, bound)

    def _dispatch(self, visit: refusals.Visit, bound: bind.Bound) -> Coroutine[Any, Any, None] | None:
        method, is_modern = visit.subject.message.method, visit.subject.modern
        if method == conventions.CALL_TOOL:
            return self._call(visit)
        if method == conventions.LIST_TOOLS:
            return self._list(visit, bound)
        view = None if visit.server is None else bound.servers[visit.server].view
        if method == conventions.PING and not is_modern:
            self._answer(visit, b"{}")
        elif method == conventions.INITIALIZE and not is_modern:
            sealed = self._gate.sealer.open(
                version=visit.subject.version, principal=self._principal, endpoint=visit.endpoint
            )
            self._answer(
                visit,
                local.initialized(view, visit.subject.version),
                (conventions.HEADER_SESSION, sealed.encode()),
            )
        elif method == conventions.DISCOVER and is_modern:
            self._answer(visit, local.discovered(view))
        else:
            self._desk.of_caller(_R.METHOD_UNKNOWN, place=visit.endpoint, detail=method)
            answers.unknown_method(visit.subject.id, modern=is_modern).give(visit.reply)
        return None

    def _answer(self, visit: refusals.Visit, raw: bytes, *more: tuple[bytes, bytes]) -> None:
        answers.json(jsonrpc.result(visit.subject.id, raw), *more).give(visit.reply)
        self._parts.telemetry.operated(
            visit.subject.message.method, "", "", self._parts.clock() - visit.request.received
        )

    def _notified(self, visit: refusals.Visit) -> None:
        """Notifications are taken and, but for a cancellation, mean nothing to us."""
        if visit.subject.message.method == conventions.CANCELLED:
            id_ = visit.subject.message.params.get("requestId")
            if isinstance(id_, str | int) and not isinstance(id_, bool):
                self._cancel((visit.subject.session_key, id_))
        answers.accepted().give(visit.reply)

    def _cancel(self, key: tuple[str, jsonrpc.Id]) -> None:
        if (under_way := self._under_way.get(key)) is not None:
            under_way.cancel()

    # Lists ------------------------------------------------------------------------------------------------------------

    def _visible(self, bound: bind.Bound, server: names.ServerId) -> bool:
        """A server whose every tool is hidden is not there at all."""
        held = bound.servers.get(server)
        return held is not None and held.in_sight

    def _list(self, visit: refusals.Visit, bound: bind.Bound) -> Coroutine[Any, Any, None] | None:
        chosen = list(bound.servers) if visit.server is None else [visit.server]
        wanted = [each for each in chosen if decide.asked(bound.servers[each])]
        for server in wanted:
            self._gate.catalogue.touch(server)
        missing = [server for server in wanted if bound.servers[server].targets is None]
        if missing:
            return self._once_observed(visit, missing)
        self._page(visit, bound)
        return None

    async def _once_observed(self, visit: refusals.Visit, missing: list[names.ServerId]) -> None:
        """Waits for the lists of servers that nobody has asked yet. One that is down is left out of the merged list."""
        await self._gate.catalogue.patiently(missing, seconds=LIST_SECONDS_MAX)
        bound = self._current.bound
        assert bound is not None
        if visit.server is None:
            self._page(visit, bound)
        elif not self._visible(bound, visit.server):
            self._desk.server(visit)
        elif (
            failed := await self._gate.catalogue.ensure(visit.server, seconds=LIST_SECONDS_MAX)
        ) is not None:
            self._desk.method(visit, decision.Objection(failed.reason, visible=True))
        else:
            self._page(visit, bound)

    def _page(self, visit: refusals.Visit, bound: bind.Bound) -> None:
        cursor = visit.subject.message.params.get("cursor")
        raw = local.page(bound, visit.server, cursor, modern=visit.subject.modern)
        if raw is None:
            error = jsonrpc.error(visit.subject.id, conventions.INVALID_PARAMS, "unknown cursor")
            answers.json(error).give(visit.reply)
            return
        self._answer(visit, raw)

    # Calls ------------------------------------------------------------------------------------------------------------

    def _call(self, visit: refusals.Visit, needs: int = 0) -> Coroutine[Any, Any, None] | None:
        """Decides on the current Bound and units; both are read in this turn of the loop and used in it."""
        bound = self._current.bound
        assert bound is not None
        named = self._named(visit, bound)
        if isinstance(named, decision.Refusal):
            self._desk.call(visit, named, bound)
            return None
        verdict = decide.decide(bound, named, self._parts.ledger, now=self._parts.wall())
        if isinstance(verdict, decision.Permit):
            return self._attempt(visit, verdict)
        if isinstance(verdict, decision.Refusal):
            self._desk.call(visit, verdict, bound)
            return None
        if verdict.definitions is not None:
            return self._call_once_observed(visit, named, verdict.definitions, needs)
        objection = decision.Objection(_R.LEDGER_UNAVAILABLE, visible=True)
        self._desk.call(visit, decision.Refusal(named, objection), bound)
        return None

    async def _call_once_observed(
        self, visit: refusals.Visit, subject: call.Call, server: names.ServerId, needs: int
    ) -> None:
        """Fetches what the decision needs and decides again; a server that cannot be listed cannot be called."""
        bound = self._current.bound
        assert bound is not None
        deadline = visit.request.received + bound.servers[server].view.endpoint.call_seconds
        failed = await self._gate.catalogue.ensure(server, seconds=max(0.0, deadline - self._parts.clock()))
        if failed is not None or needs >= _NEEDS_MAX:
            known = failed is not None and failed.reason not in endings.UNCERTAIN
            reason = failed.reason if failed is not None and known else _R.UPSTREAM_NOT_READY
            refused = decision.Refusal(subject, decision.Objection(reason, visible=True))
            self._desk.call(visit, refused, self._current.bound)
            return
        waiting = self._call(visit, needs + 1)
        if waiting is not None:
            await waiting

    def _named(self, visit: refusals.Visit, bound: bind.Bound) -> call.Call | decision.Refusal:
        """Which server's tool is meant. A name that is no name at all is refused like an unknown one."""
        params = visit.subject.message.params
        name, arguments = params.get("name"), params.get("arguments")
        text = name if isinstance(name, str) else ""
        if visit.server is not None:
            return call.Call(visit.server, text, arguments)
        found = bound.named(text)
        if found is None:
            nowhere = call.Call(names.ServerId("", ""), text, arguments)
            return decision.Refusal(nowhere, decision.Objection(_R.SERVER_UNKNOWN, visible=False))
        return call.Call(found[0], found[1], arguments)

    def _attempt(self, visit: refusals.Visit, permit: decision.Permit) -> Coroutine[Any, Any, None] | None:
        if visit.subject.modern and (complaint := self._unmirrored(visit, permit)) is not None:
            self._desk.of_caller(_R.HEADER_MISMATCH, place=visit.endpoint, detail=complaint)
            error = jsonrpc.error(visit.subject.id, conventions.HEADER_MISMATCH, complaint)
            answers.json(error, status=400).give(visit.reply)
            return None
        if len(self._under_way) + len(self._anonymous) >= self._limits.calls_max:
            objection = decision.Objection(_R.OVERLOADED, visible=True, retry_after_seconds=1.0)
            self._desk.call(visit, decision.Refusal(permit.call, objection), self._current.bound)
            return None
        accepts = streams.accepted(_first(visit.request.headers, b"accept"))
        out = streams.Outgoing(
            visit.reply,
            accepts=accepts,
            call_later=self._gate.call_later,
            keep_json=permit.price.result_bytes_max > streams.FRAME_BYTES_MAX,
        )
        key = self._cancel_key(visit)
        order = attempt.Order(visit.about, permit, visit.subject, out, visit.request.received)
        made = attempt.Attempt(self._parts, order, ended=self._forget(key))
        if key is None:
            self._anonymous.add(made)
        else:
            self._under_way[key] = made
        if visit.subject.modern:
            out.on_gone(made.cancel)  # a legacy agent that is gone has cancelled nothing
        return made.start()

    def _unmirrored(self, visit: refusals.Visit, permit: decision.Permit) -> str | None:
        return mirrors.objection(attempt.mirrors_of(permit), permit.call.arguments, visit.request.headers)

    def _cancel_key(self, visit: refusals.Visit) -> tuple[str, jsonrpc.Id] | None:
        """By what a cancellation finds a call; None when another call in the session has its id already.

        Without a session nobody can tell whose call a cancellation means, so it means none.
        """
        if not visit.subject.session_key or visit.subject.id is None:
            return None
        key = (visit.subject.session_key, visit.subject.id)
        return None if key in self._under_way else key

    def _forget(self, key: tuple[str, jsonrpc.Id] | None) -> Callable[[attempt.Attempt], None]:
        def ended(made: attempt.Attempt) -> None:
            if key is None:
                self._anonymous.discard(made)
            else:
                self._under_way.pop(key, None)

        return ended


def _first(headers: exchange.Headers, name: bytes) -> bytes | None:
    return next((value for key, value in headers if key == name), None)
