# SPDX-License-Identifier: Apache-2.0
"""Upstream servers as we have met them: which era each speaks, the sessions we hold there, and whether it is well.

Called by an attempt (a `Leg` to send one call on) and by lists (a server's tools). Contact is made once, by whoever comes
first; everybody else waits for the same answer. Everything sent from here carries a Permit with Method.LIST or the call's.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable

from outrider import bind, call, decide, decision, names, snapshot
from outrider_sidecar import (
    conventions,
    credentials,
    draining,
    errands,
    exchange,
    introductions,
    jsonrpc,
    legacy,
    legs,
    lists,
    modern,
    telemetry,
)
from outrider_sidecar import current as in_force

SESSIONS_MAX = 1_000
"""Upstream sessions per server; the one unused for longest is dropped."""

CANCEL_SECONDS = 5.0

CONTACT_SECONDS = 20.0
"""Cold starts of 9 to 16 s are common."""

_R = decision.Reason
_FALLBACK = frozenset({200, 400, 404, 405, 406, 415, 422, 501})
"""Statuses by which a server of the handshake era answers a request it does not know (versioning rules of the spec)."""


class Servers:
    """All upstreams of one proxy."""

    def __init__(
        self,
        *,
        upstream: exchange.Upstream,
        credentials: credentials.Credentials,
        current: in_force.Current,
        telemetry: telemetry.Telemetry,
        clock: Callable[[], float],
    ) -> None:
        self._credentials = credentials
        self._current = current
        self._clock = clock
        self.errands = errands.Errands(upstream, telemetry, clock)
        self._servers: dict[names.ServerId, legs.Server] = {}

    def keep(self, bound: bind.Bound) -> None:
        """A new snapshot: forget servers that left it or moved."""
        self._servers = {
            key: held
            for key, held in self._servers.items()
            if key in bound.servers and bound.servers[key].view.endpoint == held.endpoint
        }

    def leg_at_hand(self, permit: decision.Permit, session_key: str) -> legs.Leg | None:
        """A leg without waiting, when the server has been met and, in the handshake era, the session exists."""
        server = self._server(permit.server)
        if server.modern is None:
            return None
        if server.modern:
            return legs.Leg(server, None, server.mint())
        session = server.sessions.get(_key(permit, session_key))
        if session is None:
            return None
        server.sessions.move_to_end(session.key)
        return legs.Leg(server, session, server.mint())

    async def leg(
        self, permit: decision.Permit, lent: exchange.Lent, session_key: str, *, deadline: float
    ) -> legs.Leg:
        """Meets the server first if need be. Raises NoLeg."""
        while (leg := self.leg_at_hand(permit, session_key)) is None:
            await self._meet(permit, lent, _key(permit, session_key), deadline=deadline)
        return leg

    def forget(self, leg: legs.Leg) -> None:
        """The server does not know this session any more."""
        if leg.session is not None:
            leg.server.sessions.pop(leg.session.key, None)

    def _server(self, view: snapshot.ServerView) -> legs.Server:
        server = self._servers.get(view.id)
        if server is None or server.endpoint != view.endpoint:
            server = self._servers[view.id] = legs.Server(view.endpoint)
        return server

    async def _meet(self, permit: decision.Permit, lent: exchange.Lent, key: str, *, deadline: float) -> None:
        """Single flight per server and session: whoever waits shares the failure too."""
        server = self._server(permit.server)
        meeting = server.meeting.get(key)
        if meeting is not None:
            try:
                async with asyncio.timeout(deadline - self._clock()):
                    shared = await asyncio.shield(meeting)
            except TimeoutError:
                raise legs.NoLeg(_R.UPSTREAM_TIMEOUT, "the server is still being met") from None
            if shared is not None and shared.reason is not _R.CANCELLED:
                raise shared
            return  # met, or given up by one whose giving up is not ours
        meeting = server.meeting[key] = asyncio.get_running_loop().create_future()
        outcome: legs.NoLeg | None = legs.NoLeg(_R.CANCELLED, "whoever was meeting the server gave up")
        try:
            errand = errands.Errand(server, permit, lent, min(deadline, self._clock() + CONTACT_SECONDS))
            await self._contact(errand, key)
            outcome = None
        except legs.NoLeg as failure:
            outcome = failure
            raise
        finally:
            del server.meeting[key]
            meeting.set_result(outcome)

    async def _contact(self, errand: errands.Errand, key: str) -> None:
        """Modern first, unless the entry fixes a revision; a server that does not know the question is greeted."""
        server = errand.server
        if not server.breaker.allow(now := self._clock()):
            raise legs.NoLeg(_R.UPSTREAM_BREAKER_OPEN, f"for {server.breaker.retry_after(now):.1f} s")
        wanted = errand.permit.server.endpoint.protocol
        if server.modern is None and wanted in ("Auto", conventions.MODERN):
            head, body = modern.discover(server.mint())
            heard = await self.errands.run(errand, head, body, "server/discover")
            if (
                heard.answer is not None
                and heard.answer.kind is jsonrpc.AnswerKind.RESULT
                and modern.speaks(heard.answer)
            ):
                server.modern = True
                server.introduction = introductions.discovered(heard.answer)
                return
            if wanted != "Auto" or heard.status not in _FALLBACK:
                raise errands.no_leg(heard)
        version = conventions.LEGACY[-1] if wanted == "Auto" else wanted
        head, body = legacy.initialize(server.mint(), version)
        heard = await self.errands.run(errand, head, body, "initialize")
        spoken = legacy.negotiated(heard.answer) if heard.answer is not None else None
        if spoken is None or heard.answer is None:
            if wanted == "Auto":
                server.modern = None  # what it was before may have been replaced by something newer
            raise errands.no_leg(heard)
        session = legs.Session(key, heard.session, spoken)
        head, body = legacy.initialized(session=session.id, version=spoken)
        await self.errands.run(errand, head, body, "notifications/initialized")
        server.modern = False
        server.introduction = introductions.greeted(heard.answer, spoken)
        server.sessions[key] = session
        while len(server.sessions) > SESSIONS_MAX:
            server.sessions.popitem(last=False)

    async def cancel(self, permit: decision.Permit, leg: legs.Leg) -> None:
        """Tells a server of the handshake era, which a closed connection tells nothing, that a call is not waited for."""
        if leg.session is None:
            return
        try:
            lent = await self._credentials.lend(permit)
        except credentials.Unavailable:
            return  # without the credential the server would not listen
        head, body = legacy.cancelled(leg.call_id, session=leg.session.id, version=leg.session.version)
        errand = errands.Errand(leg.server, permit, lent, self._clock() + CANCEL_SECONDS)
        await self.errands.run(errand, head, body, conventions.CANCELLED)

    async def decline(self, permit: decision.Permit, leg: legs.Leg, message: jsonrpc.Answer) -> None:
        """Answers what a server of the handshake era asks during a call: a ping, and for anything else that nobody here does."""
        if leg.session is None or not isinstance(message.id, str | int):
            return
        try:
            lent = await self._credentials.lend(permit)
        except credentials.Unavailable:
            return  # without the credential the server would not listen
        if message.method == conventions.PING:
            body = jsonrpc.result(message.id, b"{}")
        else:
            text = "Method not found: this client offers no capabilities"
            body = jsonrpc.error(message.id, conventions.METHOD_NOT_FOUND, text)
        errand = errands.Errand(leg.server, permit, lent, self._clock() + CANCEL_SECONDS)
        await self.errands.run(errand, legacy.head(leg.session.id, leg.session.version), body, "response")

    async def end_sessions(self, bound: bind.Bound, session_key: str) -> None:
        """An agent's session is over: so are those opened for it at servers."""
        for server_id, server in tuple(self._servers.items()):
            await self._part(bound, server_id, server, session_key)

    async def _part(
        self, bound: bind.Bound, server_id: names.ServerId, server: legs.Server, session_key: str
    ) -> None:
        """Ends the sessions that one server keeps for one agent's session."""
        for key in [each for each in server.sessions if each.startswith(f"{session_key}\0")]:
            session = server.sessions.pop(key)
            permit = decide.permit_listing(bound, server_id, credential=key.partition("\0")[2] or None)
            if session.id is None or not isinstance(permit, decision.Permit):
                continue
            try:
                lent = await self._credentials.lend(permit)
            except credentials.Unavailable:
                continue  # without the credential the server would not listen; its own time limit ends it
            errand = errands.Errand(server, permit, lent, self._clock() + CANCEL_SECONDS)
            head = legacy.farewell(session=session.id, version=session.version)
            await self.errands.run(errand, head, b"", "DELETE")

    async def visit(self, server_id: names.ServerId) -> lists.Listing:
        """As a stranger would: meets the server anew, drains its tools and prompts, takes its leave. Raises lists.ListingFailed.

        Nobody else may be asking the same server: what is remembered of it is forgotten first. Prompts that cannot be listed
        stay unobserved.
        """
        self._servers.pop(server_id, None)
        try:
            listing = await self.listing(server_id, call.Kind.TOOL)
            with contextlib.suppress(lists.ListingFailed):
                prompts = await self.listing(server_id, call.Kind.PROMPT)
                joined = lists.joined(listing.definitions, prompts.definitions)
                listing = dataclasses.replace(listing, definitions=joined)
            return listing
        finally:
            met, bound = self._servers.get(server_id), self._current.bound
            if met is not None and bound is not None:
                await self._part(bound, server_id, met, "")

    async def listing(self, server_id: names.ServerId, kind: call.Kind = call.Kind.TOOL) -> lists.Listing:
        """Drains what a server lists of one kind. Raises lists.ListingFailed."""
        bound = self._current.bound
        permit = decide.permit_listing(bound, server_id) if bound is not None else None
        if not isinstance(permit, decision.Permit):
            reason = _R.SERVER_UNKNOWN if permit is None else permit.reason
            raise lists.ListingFailed(reason, "the proxy may not ask this server what it offers")
        deadline = self._clock() + CONTACT_SECONDS
        try:
            lent = await self._credentials.lend(permit)
            return await draining.drained(_Peer(self, permit, lent, deadline), kind)
        except (credentials.Unavailable, legs.NoLeg) as failure:
            raise lists.ListingFailed(failure.reason, str(failure)) from None


@dataclasses.dataclass(frozen=True, slots=True)
class _Peer:
    """`draining.Peer`: one server, met with the credential the proxy's own questions get."""

    servers: Servers
    permit: decision.Permit
    lent: exchange.Lent
    deadline: float

    async def leg(self) -> legs.Leg:
        return await self.servers.leg(self.permit, self.lent, "", deadline=self.deadline)

    async def ask(self, leg: legs.Leg, head: exchange.Headers, body: bytes, method: str) -> errands.Heard:
        errand = errands.Errand(leg.server, self.permit, self.lent, self.deadline)
        return await self.servers.errands.run(errand, head, body, method)

    def forget(self, leg: legs.Leg) -> None:
        self.servers.forget(leg)


def _key(permit: decision.Permit, session_key: str) -> str:
    """Sessions are never shared between agents' sessions, nor between credentials."""
    return f"{session_key}\0{permit.credential.name if permit.credential is not None else ''}"
