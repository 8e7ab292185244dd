# SPDX-License-Identifier: Apache-2.0
"""From one HTTP request to one verdict: who, what, may it, and on its way.

Called by the door. `begin` reads as the product does: intake makes a Visit of the request, a table finds who serves its
method, and for whatever is decided that is `calls`. Nothing here knows aiohttp, and no policy is written here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from outrider import bind, call, decide, decision, identity, names
from outrider_sidecar import (
    agents,
    answers,
    asking,
    caller,
    calls,
    conventions,
    exchange,
    governed,
    ids,
    inquiries,
    intake,
    interviews,
    jsonrpc,
    listeners,
    lists,
    local,
    orders,
    questions,
    records,
    refusals,
    seats,
    sessions,
    showing,
    states,
    streams,
    users,
    visits,
    wishes,
)
from outrider_sidecar import current as in_force

_R = decision.Reason
_UNHEARD = frozenset({conventions.INITIALIZED, conventions.PROGRESS})
"""Notifications that mean nothing to us; others that are not served are counted as unknown."""


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """`calls_max` calls in flight; what comes on top is refused as Overloaded."""

    calls_max: int = 2048


@dataclasses.dataclass(frozen=True, slots=True)
class Gate:
    """What stands before the decision: the door's guard, the sealers of sessions and of states, users, ids, the servers' lists."""

    guard: caller.Guard
    sealer: sessions.Sealer
    states: states.States
    users: users.Users
    ids: ids.Ids
    catalogue: lists.Lists
    call_later: streams.CallLater
    jitter: Callable[[], float] = lambda: 0.0


class Pipeline:
    """`exchange.Pipeline`."""

    def __init__(self, parts: orders.Parts, gate: Gate, *, current: in_force.Current, limits: Limits) -> None:
        self._parts = parts
        self._gate = gate
        self._current = current
        self.desk = refusals.Desk(parts, gate.ids, current)
        self.agents = agents.Agents(gate.sealer, dropped=self._dropped)
        self._intake = intake.Intake(self.agents, self.desk, gate.ids, current, gate.users)
        self.listeners = listeners.Listeners(
            listeners.Wiring(
                parts, self.desk, current, gate.catalogue, gate.ids, gate.call_later, gate.jitter, self._aside
            )
        )
        judge = asking.Asking(
            journal=parts.journal, writer=parts.writer, telemetry=parts.telemetry, identifiers=gate.ids, seals=gate.states,
            wall=parts.wall,
        )  # fmt: skip
        self.questions = questions.Questions(
            call_later=gate.call_later, clock=parts.clock, otherwise=self.listeners.offer,
            first=int(parts.wall() * 10) % 2**31,
        )  # fmt: skip
        self._inquiries = inquiries.Desk(judge, self.questions, parts.servers.tell, parts.spawn)
        host = interviews.Host(
            judge, self.questions, self._inquiries, self._again, gate.call_later, gate.catalogue.changed
        )
        self.calls = calls.Calls(
            parts, self.desk, current, gate.catalogue, host,
            call_later=gate.call_later, calls_max=limits.calls_max,
        )  # fmt: skip
        self._wishes = wishes.Wishes(parts, gate.catalogue)
        self._showing = showing.Showing(gate.catalogue, current, self.desk, self._answer)
        self._requests = self._served()
        self._notifications: Mapping[str, visits.Listener] = {
            conventions.CANCELLED: self._cancelled,
            conventions.ROOTS_CHANGED: self._wishes.roots_changed,
        }

    def _served(self) -> Mapping[tuple[str, bool], visits.Handler]:
        """Who serves which method, by whether the agent is of the stateless era. What is not here is unknown (R6)."""
        both: dict[str, visits.Handler] = {
            **dict.fromkeys(governed.METHODS, self.calls.begin),
            **dict.fromkeys(showing.FORMS, self._showing.enumerate),
        }
        legacy: dict[str, visits.Handler] = {
            conventions.INITIALIZE: self._initialize,
            conventions.SET_LEVEL: self._wishes.set_level,
            conventions.PING: lambda visit, _bound: self._answer(visit, b"{}"),
            **self.listeners.handlers(modern=False),
        }
        modern: dict[str, visits.Handler] = {
            conventions.DISCOVER: self._showing.introduce,
            **self.listeners.handlers(modern=True),
        }
        return {
            **{(method, era): handler for method, handler in both.items() for era in (False, True)},
            **{(method, False): handler for method, handler in legacy.items()},
            **{(method, True): handler for method, handler in modern.items()},
        }

    @property
    def streams(self) -> int:
        """Answers that are open as event streams now."""
        return self.calls.streaming + len(self.listeners)

    def admit(self, method: str, target: bytes, headers: exchange.Headers, reply: exchange.Reply) -> bool:  # noqa: ARG002 -- the shape of exchange.Pipeline
        """Host, Origin and token, before a byte of the body is read (R3, R4)."""
        objection = self._gate.guard.objection(headers)
        if objection is None:
            return True
        self.desk.at_door(objection.reason)
        answers.not_accepted(objection).give(reply)
        return False

    def begin(self, request: exchange.Request, reply: exchange.Reply) -> Coroutine[Any, Any, None] | None:
        """Serves one request. Never raises for anything an agent can send."""
        path = request.target.partition(b"?")[0].decode("latin-1")
        server = None if path == "/mcp" else local.server_of(path)
        if path != "/mcp" and server is None:
            answers.not_found().give(reply)
        elif request.method == "POST":
            visit = self._intake.read(request, reply, path, server)
            return None if visit is None else self._begun(visit)
        elif request.method == "DELETE":
            self._end_session(request, reply, path)
        elif request.method == "GET":
            agent = self._intake.agent(request, reply, path, allowed=b"POST")
            if agent is not None:
                return self._intake.listening(
                    request, reply, path, lambda user: self._hear(agent, request, reply, user)
                )
        else:
            answers.method_not_allowed(b"GET, POST, DELETE").give(reply)
        return None

    # Sessions ---------------------------------------------------------------------------------------------------------

    def _end_session(self, request: exchange.Request, reply: exchange.Reply, endpoint: str) -> None:
        """DELETE: the agent is done with its session; here and at every server it was opened for."""
        agent = self._intake.agent(request, reply, endpoint, allowed=b"POST")
        if agent is not None:
            self.agents.end(agent)
            answers.Answer(200, (), b"").give(reply)

    def _hear(
        self,
        agent: agents.Agent,
        request: exchange.Request,
        reply: exchange.Reply,
        user: identity.User | None,
    ) -> None:
        """GET: the rest of an answer that comes in instalments, or the stream of the session."""
        last = next((value for name, value in request.headers if name == b"last-event-id"), b"")
        if not last or not self.calls.answers.take_up(agent, last.decode("latin-1"), reply, user=user):
            self.listeners.hear(agent, request, reply, user)

    def _dropped(self, agent: agents.Agent) -> None:
        """An agent's session is over, or forgotten to make room: nothing of it stays open."""
        self.calls.end(agent)
        self.questions.end(agent)
        self.listeners.dropped(agent)
        if self._current.bound is not None:
            self._parts.spawn(self._parts.servers.end_sessions(self._current.bound, agent.key))

    # Methods ----------------------------------------------------------------------------------------------------------

    def _begun(self, visit: visits.Visit) -> Coroutine[Any, Any, None] | None:
        """Only requests are somebody's: notifications and answers of an agent are its session's."""
        if visit.subject.message.kind is not jsonrpc.Kind.REQUEST or self._current.bound is None:
            return self._serve(visit)
        return self._intake.identified(visit, self._serve)

    def _serve(self, visit: visits.Visit) -> Coroutine[Any, Any, None] | None:
        bound = self._current.bound
        message = visit.subject.message
        if message.kind is jsonrpc.Kind.RESPONSE:
            answers.accepted().give(visit.reply)
            if visit.agent is None or not self.questions.heard(visit.agent, message):
                detail = "an answer to nothing that was asked, or too late"
                self.desk.of_caller(_R.MALFORMED_REQUEST, place=visit.endpoint, detail=detail)
            return None
        if message.kind is jsonrpc.Kind.NOTIFICATION:
            answers.accepted().give(visit.reply)
            listener = self._notifications.get(message.method)
            if listener is None and message.method not in _UNHEARD:
                self._parts.telemetry.operated("", "", _R.METHOD_UNKNOWN.value, 0.0)
            elif listener is not None and bound is not None:
                listener(visit, bound)
            return None
        if bound is None:
            self.desk.method(visit, decision.Objection(_R.NOT_READY, visible=True))
            return None
        if visit.server is not None and not self._visible(bound, visit.server):
            self.desk.server(visit)
            return None
        handler = self._requests.get((message.method, visit.subject.modern))
        if handler is not None:
            return handler(visit, bound)
        self.desk.of_caller(_R.METHOD_UNKNOWN, place=visit.endpoint, detail=message.method, about=visit.about)
        answers.unknown_method(visit.subject.id, modern=visit.subject.modern).give(visit.reply)
        return None

    def _aside(self, agent: agents.Agent, standing: seats.Standing, message: jsonrpc.Answer) -> None:
        """A server asks an agent something outside of any call, in the session that was opened for it.

        What the session was opened for is no part of it: the record names the server and what it asks, and no tool.
        """
        bound, leg = self._current.bound, self._parts.servers.leg_at_hand(standing.permit, agent)
        held = None if bound is None else bound.servers.get(standing.permit.server.id)
        if bound is None or held is None or leg is None or leg.session is None:
            return
        about = records.About(
            self._gate.ids.next(), bound.snapshot.workload, bound.digest, agent.version, message.method, ""
        )
        deadline = self._parts.clock() + held.view.endpoint.stream_seconds
        matter = inquiries.Matter(about, standing.aside(held.view), leg, agent, via=None, deadline=deadline)
        inquiries.Inquiry(self._inquiries, matter).heard(message)

    def _again(self, subject: call.Call, request: str) -> decision.Decision:
        """A call that goes on with `request` is decided like any other, and charged there."""
        bound = self._current.bound
        assert bound is not None
        return decide.decide(bound, subject, self._parts.ledger, now=self._parts.wall(), round_of=request)

    def _visible(self, bound: bind.Bound, server: names.ServerId) -> bool:
        """A server of which everything is hidden is not there at all."""
        held = bound.servers.get(server)
        return held is not None and held.in_sight

    def _answer(
        self, visit: visits.Visit, raw: bytes, *more: tuple[bytes, bytes], streamed: bool = False
    ) -> None:
        made = answers.event if streamed else answers.json
        made(jsonrpc.result(visit.subject.id, raw), *more).give(visit.reply)
        self._parts.telemetry.operated(
            visit.subject.message.method, "", "", self._parts.clock() - visit.request.received
        )

    def _initialize(self, visit: visits.Visit, bound: bind.Bound) -> showing.Waiting:
        return self._showing.introduce(visit, bound, self._opened)

    def _opened(self, visit: visits.Visit, raw: bytes) -> None:
        """The answer to `initialize`, with a session of its own."""
        sealed, _ = self.agents.open(
            version=visit.subject.version,
            principal=self._intake.principal,
            endpoint=visit.endpoint,
            capabilities=agents.declared(visit.subject.message.params.get("capabilities")),
        )
        self._answer(visit, raw, (conventions.HEADER_SESSION, sealed.encode()))

    def _cancelled(self, visit: visits.Visit, _bound: bind.Bound) -> None:
        """Only within a session: one that names none could mean anybody's call."""
        id_ = visit.subject.message.params.get("requestId")
        if visit.agent is not None and isinstance(id_, str | int) and not isinstance(id_, bool):
            self.calls.cancel(visit.agent, id_)
