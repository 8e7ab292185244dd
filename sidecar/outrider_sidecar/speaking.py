# SPDX-License-Identifier: Apache-2.0
"""Handshake-era agents that listen: GET, `resources/subscribe` and `resources/unsubscribe`, and what becomes of them.

Handlers of the pipeline. A subscription is decided as what it is and made where the server is met: on the agent's own session,
or, at a server of the stateless era, as part of the one stream that is heard for everybody. It ends with the session, and when
policy does not let it be heard any more (R21).
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import Coroutine
from typing import Any

from outrider import audit, bind, call, decide, decision, identity, names
from outrider_sidecar import (
    agents,
    answers,
    conventions,
    endings,
    errands,
    exchange,
    following,
    jsonrpc,
    legs,
    loans,
    local,
    seats,
    sources,
    streams,
    subscriptions,
    visits,
    watches,
)
from outrider_sidecar import audience as hub
from outrider_sidecar import current as in_force

URIS_MAX = 1_000
"""Subscriptions of one agent."""

RENEWALS_MAX = 6
"""How often a server is asked for a new session for somebody who subscribed to something on the lost one."""

LIVE_SECONDS = 0.5
"""How long the first request of a session waits for the session's own stream, if its agent listens."""

_R = decision.Reason


class Speaking:
    """Every seat. `ask` is what happens to a server's question outside of any call."""

    def __init__(
        self,
        desk: subscriptions.Desk,
        parts: sources.Parts,
        current: in_force.Current,
        *,
        call_later: streams.CallLater,
        ask: seats.Ask | None = None,
    ) -> None:
        self._desk = desk
        self._parts = parts
        self._current = current
        self._seats: dict[str, seats.Seat] = {}
        self._opened: collections.OrderedDict[str, dict[hub.Origin, seats.Standing]] = (
            collections.OrderedDict()
        )
        self._seating = seats.Seats(
            parts.following,
            desk.audience,
            call_later,
            endpoint=lambda agent: local.server_of(agent.endpoint),
            join=self._join,
            ask=ask or self._decline,
            lost=self._lost,
        )

    def __len__(self) -> int:
        """Streams that agents hold open now."""
        return sum(seat.channel.attached for seat in self._seats.values())

    # What agents do -----------------------------------------------------------------------------------------------------

    def hear(
        self,
        agent: agents.Agent,
        request: exchange.Request,
        reply: exchange.Reply,
        user: identity.User | None = None,
    ) -> None:
        """GET: the stream of an agent's session, which hears of lists as this user sees them."""
        server, bound = local.server_of(agent.endpoint), self._current.bound
        held = bound.servers.get(server) if bound is not None and server is not None else None
        if not streams.accepted(request.headers).sse:
            answers.plain(406, "this is an event stream: send Accept: text/event-stream").give(reply)
        elif bound is None:
            answers.plain(503, "the proxy has not received its configuration yet").give(reply)
        elif server is not None and (held is None or not held.in_sight):
            answers.not_found().give(reply)
        else:
            seat = self._seat(agent)
            seat.heard_as(user)
            seat.channel.attach(reply)

    def offer(self, agent: agents.Agent, message: bytes) -> bool:
        """Says something to an agent on its own stream; False when it has none and nobody will come."""
        seat = self._seats.get(agent.key)
        return seat is not None and seat.channel.offer(message)

    def heard(
        self,
        agent: agents.Agent | None,
        permit: decision.Permit,
        session: legs.Session | None,
        message: jsonrpc.Answer,
    ) -> None:
        """A server said something on the stream of a call that is not about the call: as if it had said it on its own."""
        seat = None if agent is None else self._seats.get(agent.key)
        if message.kind is not jsonrpc.AnswerKind.NOTIFICATION:
            return
        if seat is not None and session is not None:
            seat.heard(seats.Standing(permit, session), message)
        else:
            self._desk.audience.heard(permit.server.id, message)

    def subscribe(self, visit: visits.Visit, bound: bind.Bound) -> Coroutine[Any, Any, None] | None:
        """A `visits.Handler`."""
        agent, uri = visit.agent, visit.subject.message.params.get("uri")
        if agent is None or not isinstance(uri, str):
            text = "a subscription needs a session" if agent is None else "params.uri must be a string"
            error = jsonrpc.error(visit.subject.id, conventions.INVALID_PARAMS, text)
            answers.json(error).give(visit.reply)
            return None
        subject = call.Call(
            visit.server or names.ServerId("", ""),
            uri,
            None,
            call.Kind.RESOURCE,
            call.Method.SUBSCRIBE,
            visit.user,
        )
        seat = self._seat(agent)
        verdict = decide.decide(bound, subject, self._desk.parts.ledger, now=self._desk.parts.wall())
        room = len(seat.watches) < URIS_MAX and not self._desk.room.full
        if isinstance(verdict, decision.Permit) and room:
            if (hub.origin_of(verdict), uri) in seat.watches:
                self._answer(visit)
                return None
            return self._subscribed(visit, seat, verdict)
        if isinstance(verdict, decision.Permit | decision.Need):
            full = _R.OVERLOADED if isinstance(verdict, decision.Permit) else _R.LEDGER_UNAVAILABLE
            verdict = decision.Refusal(subject, decision.Objection(full, visible=True))
        self._desk.refusals.call(visit, verdict, bound)
        return None

    async def _subscribed(self, visit: visits.Visit, seat: seats.Seat, permit: decision.Permit) -> None:
        try:
            watch = watches.begun(self._desk.parts, visit.about, permit, self._desk.room)
        except watches.Unrecorded:
            self._refused(visit, decision.Objection(_R.AUDIT_UNAVAILABLE, visible=True))
            return
        deadline = self._desk.parts.clock() + permit.server.endpoint.call_seconds
        try:
            heard = await self._tell(seat, permit, conventions.SUBSCRIBE, deadline=deadline)
        except (legs.NoLeg, loans.Unavailable) as failure:
            reason = _R.UPSTREAM_NOT_READY if failure.reason in endings.UNCERTAIN else failure.reason
            watch.close(reason, audit.Status.NOT_SENT, str(failure))
            self._refused(visit, decision.Objection(reason, visible=True))
            return
        if self._seats.get(seat.agent.key) is not seat:
            watch.close(_R.CANCELLED, detail="the agent's session ended")
            answers.unknown_session(visit.subject.id).give(visit.reply)
            return
        answer = None if heard is None else heard.answer
        if heard is not None and (answer is None or answer.kind is not jsonrpc.AnswerKind.RESULT):
            self._unsubscribed(visit, seat, watch, heard)
            return
        seat.watches[hub.origin_of(permit), permit.call.name] = watch
        seat.agent.subscriptions.add((permit.server.id, permit.call.name))
        seat.arrange()
        if heard is None:
            await self._desk.audience.live(
                seat.listener, seconds=max(0.0, deadline - self._desk.parts.clock())
            )
        self._answer(visit)

    def _unsubscribed(
        self, visit: visits.Visit, seat: seats.Seat, watch: watches.Watch, heard: errands.Heard
    ) -> None:
        """The server says no: in its own words, if it has any."""
        seat.listener.uris.get(hub.origin_of(watch.permit), {}).pop(watch.uri, None)
        if heard.answer is not None:
            watch.close(_R.UPSTREAM_ERROR)
            body = jsonrpc.error_raw(visit.subject.id, heard.answer.payload)
            answers.json(body).give(visit.reply)
            return
        failed = errands.no_leg(heard)
        watch.close(failed.reason, audit.Status.FAILED, str(failed))
        self._refused(visit, decision.Objection(failed.reason, visible=True))

    def unsubscribe(self, visit: visits.Visit, _bound: bind.Bound) -> Coroutine[Any, Any, None] | None:
        """A `visits.Handler`. Nothing needs to be permitted to hear less; what was not subscribed to is not heard anyway."""
        agent, uri = visit.agent, visit.subject.message.params.get("uri")
        seat = None if agent is None else self._seats.get(agent.key)
        ended = [] if seat is None else [key for key in seat.watches if key[1] == uri]
        if seat is None or not ended:
            self._answer(visit)
            return None
        return self._given_up(visit, seat, ended)

    async def _given_up(
        self, visit: visits.Visit, seat: seats.Seat, ended: list[tuple[hub.Origin, str]]
    ) -> None:
        for key in ended:
            await self._stop(seat, key, _R.ALLOWED, "the agent unsubscribed")
        self._answer(visit)

    async def _stop(
        self, seat: seats.Seat, key: tuple[hub.Origin, str], reason: decision.Reason, detail: str
    ) -> None:
        """One subscription is over, here at once and at the server as soon as it hears of it."""
        watch = seat.watches.pop(key, None)
        if watch is None:
            return
        watch.close(reason, detail=detail)
        origin, uri = key
        seat.agent.subscriptions.discard((origin[0], uri))
        if uri in seat.listener.uris.get(origin, ()):
            del seat.listener.uris[origin][uri]
            self._desk.audience.rearrange()
        elif origin in seat.standings:
            deadline = self._desk.parts.clock() + sources.CONTACT_SECONDS
            with contextlib.suppress(legs.NoLeg, loans.Unavailable):  # what it says is not passed on any more
                await self._tell(seat, watch.permit, conventions.UNSUBSCRIBE, deadline=deadline)
        seat.arrange()

    def _answer(self, visit: visits.Visit) -> None:
        answers.json(jsonrpc.result(visit.subject.id, b"{}")).give(visit.reply)
        parts = self._desk.parts
        parts.telemetry.operated(visit.subject.message.method, "", "", parts.clock() - visit.request.received)

    def _refused(self, visit: visits.Visit, objection: decision.Objection) -> None:
        body = answers.refused(visit.subject, objection, request_id=visit.about.request_id)
        answers.json(body).give(visit.reply)

    # At the server ------------------------------------------------------------------------------------------------------

    async def _tell(
        self, seat: seats.Seat, permit: decision.Permit, method: str, *, deadline: float
    ) -> errands.Heard | None:
        """Asks on the agent's own session, once more on a new one when it is lost; None at a server that is listened to instead.

        Raises NoLeg and Unavailable.
        """
        parts, heard = self._desk.parts, None
        for _ in range(2):
            leg, lent = await parts.servers.met(permit, _client(seat.agent), deadline=deadline)
            if leg.session is None:
                seat.listener.uris.setdefault(hub.origin_of(permit), {})[permit.call.name] = permit.call.user
                return None
            head, body = sources.about(leg, leg.session, method, permit.call.name)
            errand = errands.Errand(leg.server, permit, lent, deadline)
            heard, _ = await parts.servers.asked(errand, (head, body), method)
            if not leg.expired(heard.status, heard.answer):
                break
            parts.servers.forget(leg)
        return heard

    def opened(
        self, agent: agents.Agent, permit: decision.Permit, session: legs.Session
    ) -> Coroutine[Any, Any, None] | None:
        """A session at a server was opened for an agent: what it had subscribed to on the one before is subscribed to again.

        What is returned is to be waited for before the session is used: some servers ask at once, where nobody listened yet.
        """
        origin, standing = hub.origin_of(permit), seats.Standing(permit, session)
        self._opened.setdefault(agent.key, {})[origin] = standing
        self._opened.move_to_end(agent.key)
        while len(self._opened) > agents.AGENTS_MAX:
            self._opened.popitem(last=False)
        seat = self._seats.get(agent.key)
        if seat is None:
            return None  # nobody listens to it
        seat.opened(standing)
        for key, watch in seat.watches.items():
            if key[0] == origin and key[1] not in seat.listener.uris.get(origin, ()):
                self._desk.parts.spawn(self._again(seat, watch))
        return seat.live(origin, seconds=LIVE_SECONDS)

    async def _again(self, seat: seats.Seat, watch: watches.Watch) -> None:
        deadline = self._desk.parts.clock() + sources.CONTACT_SECONDS
        try:
            await self._tell(seat, watch.permit, conventions.SUBSCRIBE, deadline=deadline)
        except (legs.NoLeg, loans.Unavailable):
            return  # the next session is another chance

    def _lost(self, seat: seats.Seat, origin: hub.Origin, standing: seats.Standing) -> None:
        """A server forgot a session that was followed: without one nothing that was subscribed to would be heard."""
        self._opened.get(seat.agent.key, {}).pop(origin, None)
        if any(key[0] == origin for key in seat.watches):
            self._desk.parts.spawn(self._renew(seat, origin, standing))

    async def _renew(self, seat: seats.Seat, origin: hub.Origin, standing: seats.Standing) -> None:
        parts, permit = self._desk.parts, standing.permit
        for attempt in range(RENEWALS_MAX):
            if self._seats.get(seat.agent.key) is not seat or origin in seat.standings:
                return
            deadline = parts.clock() + sources.CONTACT_SECONDS
            try:
                leg, _ = await parts.servers.met(permit, _client(seat.agent), deadline=deadline)
                if leg.session is not standing.session:
                    return
                parts.servers.forget(leg)
            except (legs.NoLeg, loans.Unavailable):
                await asyncio.sleep(following.RETRY_SECONDS * 2**attempt)
        for key in [each for each in seat.watches if each[0] == origin]:
            await self._stop(seat, key, _R.UPSTREAM_NOT_READY, "the server gives no session any more")

    def _decline(self, agent: agents.Agent, standing: seats.Standing, message: jsonrpc.Answer) -> None:
        """Nobody to ask: the server is told so."""
        servers = self._desk.parts.servers
        leg = servers.leg_at_hand(standing.permit, _client(agent))
        if leg is not None:
            self._desk.parts.spawn(servers.decline(standing.permit, leg, message))

    # What becomes of them -----------------------------------------------------------------------------------------------

    def _seat(self, agent: agents.Agent) -> seats.Seat:
        seat = self._seats.get(agent.key)
        if seat is None:
            seat = self._seats[agent.key] = seats.Seat(self._seating, agent)
            seat.standings.update(self._opened.get(agent.key, {}))
        return seat

    def _join(self, listener: hub.Listener) -> bool:
        if self._current.bound is None:
            return False
        self._desk.audience.join(listener, self._current.bound)
        return True

    def dropped(self, agent: agents.Agent) -> None:
        """Its session is over."""
        self._opened.pop(agent.key, None)
        seat = self._seats.pop(agent.key, None)
        if seat is not None:
            seat.leave(_R.CANCELLED, "the agent's session ended")

    def configured(self, bound: bind.Bound) -> None:
        """A configuration is in force: what may not be heard any more is not."""
        for opened in (*self._opened.values(), *(seat.standings for seat in self._seats.values())):
            for origin, standing in tuple(opened.items()):
                held = bound.servers.get(origin[0])
                if held is None or held.view.endpoint != standing.permit.server.endpoint:
                    del opened[origin]
        for seat in self._seats.values():
            seat.arrange()
            server = local.server_of(seat.agent.endpoint)
            held = None if server is None else bound.servers.get(server)
            if server is not None and (held is None or not held.in_sight):
                seat.channel.part()
            for key in [
                key
                for key, watch in seat.watches.items()
                if not self._desk.audience.may_hear(key[0][0], key[1], watch.permit.call.user)
            ]:
                self._desk.parts.spawn(self._stop(seat, key, _R.NOT_ALLOWED, "policy has changed"))

    def drain(self) -> None:
        """The proxy goes: every stream ends in order."""
        for seat in self._seats.values():
            seat.leave(_R.ALLOWED, "the proxy is shutting down")
        self._seats.clear()


def _client(agent: agents.Agent) -> legs.Proxy:
    return legs.Proxy(modern=False, session_key=agent.key, agent=agent)
