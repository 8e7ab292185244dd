# SPDX-License-Identifier: Apache-2.0
"""Upstream servers as we have met them: which era each speaks, the sessions we hold there, and whether it is well.

Called by an attempt (a `Leg` to send one call on) and by lists (a server's tools). Contact is made once, by whoever comes
first; everybody else waits for the same answer. Everything sent from here carries a Permit with Method.LIST or the call's.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Coroutine
from typing import Any

from outrider import bind, call, decide, decision, identity, names, snapshot
from outrider_sidecar import (
    agents,
    conventions,
    credentials,
    draining,
    errands,
    exchange,
    greetings,
    introductions,
    jsonrpc,
    legacy,
    legs,
    lists,
    loans,
    retries,
    telemetry,
)
from outrider_sidecar import current as in_force

SESSIONS_MAX = 1_000
"""Upstream sessions per server; the one unused for longest is dropped."""

CANCEL_SECONDS = 5.0

CONTACT_SECONDS = 20.0
"""Cold starts of 9 to 16 s are common."""

_R = decision.Reason

Opened = Callable[[agents.Agent, decision.Permit, legs.Session], Coroutine[Any, Any, None] | None]
"""Hears of every session that was opened at a server for an agent's, also in place of one that the server has forgotten.

What it returns is waited for before the session is used."""


CATALOGUE = legs.Proxy(
    session_key="catalogue",
    offers={"elicitation": {"form": {}, "url": {}}, "sampling": {"tools": {}, "context": {}}, "roots": {}},
)
"""On whose behalf servers are listed. Some show a tool only to clients that could be asked what it asks, so this one
declares whatever an agent could and the entry permits. It is never asked: no call goes by its session."""


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
        self.opened: Opened = lambda _agent, _permit, _session: None

    def keep(self, bound: bind.Bound) -> None:
        """A new snapshot: forget servers that left it or moved."""
        self._servers = {
            key: held
            for key, held in self._servers.items()
            if key in bound.servers and bound.servers[key].view.endpoint == held.endpoint
        }

    def leg_at_hand(self, permit: decision.Permit, client: legs.Client) -> legs.Leg | None:
        """A leg without waiting, when the server has been met and, in the handshake era, the session exists."""
        server = self._server(permit.server)
        stateless = server.era(client.modern)
        if stateless:
            return legs.Leg(server, None, server.mint())
        if stateless is None and client.modern:
            return None
        session = server.sessions.get(_key(permit, client.session_key))
        if session is None:
            return None
        server.sessions.move_to_end(session.key)
        return legs.Leg(server, session, server.mint())

    async def met(
        self, permit: decision.Permit, client: legs.Client, *, deadline: float, lent: exchange.Lent | None = None
    ) -> tuple[legs.Leg, exchange.Lent]:  # fmt: skip
        """The way there and what is lent for it, once more with a newer credential when the server refuses (401) to be met.

        `lent` is what is at hand, if it is. Raises NoLeg and loans.Unavailable.
        """
        if lent is None:
            lent = await self._credentials.lend(permit, deadline=deadline)
        try:
            return await self.leg(permit, lent, client, deadline=deadline), lent
        except legs.NoLeg as failure:
            if failure.status != retries.UNAUTHORIZED:
                raise
            fresh = await self._credentials.renewed(permit, lent, deadline=deadline)
            if fresh is None:
                raise
        return await self.leg(permit, fresh, client, deadline=deadline), fresh

    async def leg(
        self, permit: decision.Permit, lent: exchange.Lent, client: legs.Client, *, deadline: float
    ) -> legs.Leg:
        """Meets the server first if need be. Raises NoLeg."""
        while (leg := self.leg_at_hand(permit, client)) is None:
            await self._meet(permit, lent, client, deadline=deadline)
        return leg

    async def asked(
        self, errand: errands.Errand, said: tuple[exchange.Headers, bytes], method: str
    ) -> tuple[errands.Heard, exchange.Lent]:
        """A request of ours that may be made twice: once more with a newer credential when it is refused (401).

        Also what it went with in the end.
        """
        heard = await self.errands.run(errand, *said, method)
        if heard.status == retries.UNAUTHORIZED:
            fresh = await self._credentials.renewed(errand.permit, errand.lent, deadline=errand.deadline)
            if fresh is not None:
                errand = dataclasses.replace(errand, lent=fresh)
                heard = await self.errands.run(errand, *said, method)
        return heard, errand.lent

    def forget(self, leg: legs.Leg) -> None:
        """The server does not know this session any more."""
        if leg.session is not None:
            leg.server.sessions.pop(leg.session.key, None)

    def introduction(self, server_id: names.ServerId, modern: bool) -> introductions.Introduction | None:
        """What a server has said of itself to whoever comes in this era; None when it has not been met."""
        held = self._servers.get(server_id)
        return held.introduced(modern) if held is not None and held.said else None

    def _server(self, view: snapshot.ServerView) -> legs.Server:
        server = self._servers.get(view.id)
        if server is None or server.endpoint != view.endpoint:
            server = self._servers[view.id] = legs.Server(view.endpoint)
        return server

    async def _meet(
        self, permit: decision.Permit, lent: exchange.Lent, client: legs.Client, *, deadline: float
    ) -> None:
        """Single flight per server, session and era: whoever waits shares the failure too.

        Until it is known what the server speaks there is one flight for all: what one finds out holds for the others.
        """
        server, key = self._server(permit.server), _key(permit, client.session_key)
        place = f"{'' if server.era(client.modern) is None else key}\0{client.modern}"
        meeting = server.meeting.get(place)
        if meeting is not None:
            try:
                async with asyncio.timeout(deadline - self._clock()):
                    shared = await asyncio.shield(meeting)
            except TimeoutError:
                raise legs.NoLeg(_R.UPSTREAM_TIMEOUT, "the server is still being met") from None
            if shared is not None and shared.reason is not _R.CANCELLED:
                raise shared
            return  # met, or given up by one whose giving up is not ours
        meeting = server.meeting[place] = asyncio.get_running_loop().create_future()
        outcome: legs.NoLeg | None = legs.NoLeg(_R.CANCELLED, "whoever was meeting the server gave up")
        try:
            if not server.breaker.allow(now := self._clock()):
                raise legs.NoLeg(  # noqa: TRY301 -- a failure like those below
                    _R.UPSTREAM_BREAKER_OPEN, f"for {server.breaker.retry_after(now):.1f} s"
                )
            errand = errands.Errand(server, permit, lent, min(deadline, now + CONTACT_SECONDS))
            session = await greetings.meet(self.errands, errand, client, key)
            outcome = None
        except legs.NoLeg as failure:
            outcome = failure
            raise
        finally:
            del server.meeting[place]
            meeting.set_result(outcome)
        if session is not None:
            waiting = self._keep(server, session, permit, client)
            if waiting is not None:
                await waiting

    def _keep(
        self, server: legs.Server, session: legs.Session, permit: decision.Permit, client: legs.Client
    ) -> Coroutine[Any, Any, None] | None:
        server.sessions[session.key] = session
        user = permit.call.user
        if user is not None:
            session.user = user if _owner(permit) is not None else dataclasses.replace(user, token="")
        while len(server.sessions) > SESSIONS_MAX:
            server.sessions.popitem(last=False)
        return None if client.agent is None else self.opened(client.agent, permit, session)

    async def tell(
        self, permit: decision.Permit, leg: legs.Leg, body: bytes, method: str = "response"
    ) -> None:
        """Sends a notification or a response of ours, or of the agent's, in the session that a request goes through."""
        if leg.session is None:
            return
        try:
            lent = await self._credentials.lend(permit, deadline=self._clock() + CANCEL_SECONDS)
        except loans.Unavailable:
            return  # without the credential the server would not listen
        errand = errands.Errand(leg.server, permit, lent, self._clock() + CANCEL_SECONDS)
        await self.errands.run(errand, legacy.head(leg.session.id, leg.session.version), body, method)

    async def cancel(self, permit: decision.Permit, leg: legs.Leg) -> None:
        """Tells a server of the handshake era, which a closed connection tells nothing, that a call is not waited for."""
        await self.tell(permit, leg, legacy.cancelled(leg.call_id), conventions.CANCELLED)

    async def decline(self, permit: decision.Permit, leg: legs.Leg, message: jsonrpc.Answer) -> None:
        """Answers what a server of the handshake era asks during a call: a ping, and for anything else that nobody here does."""
        if not isinstance(message.id, str | int):
            return
        if message.method == conventions.PING:
            body = jsonrpc.result(message.id, b"{}")
        else:
            text = "Method not found: this client offers no capabilities"
            body = jsonrpc.error(message.id, conventions.METHOD_NOT_FOUND, text)
        await self.tell(permit, leg, body)

    async def tell_all(
        self, bound: bind.Bound, key: str, method: str, told: Callable[[legs.Session, int], bytes | None]
    ) -> None:
        """Sends to every server that holds a session for one agent's what `told` makes for it, under an id of ours; None: nothing."""
        for server_id, server in tuple(self._servers.items()):
            for session in [each for name, each in server.sessions.items() if name.startswith(f"{key}\0")]:
                body = told(session, server.mint())
                if body is not None:
                    await self._say(bound, server_id, server, session, (body, method))

    async def _say(
        self, bound: bind.Bound, server_id: names.ServerId, server: legs.Server, session: legs.Session,
        said: tuple[bytes, str],
    ) -> None:  # fmt: skip
        """One message in a session, or its farewell; nothing when the server may not be asked any more."""
        body, method = said
        permit = decide.permit_listing(
            bound, server_id, credential=session.key.split("\0")[1] or None, user=session.user
        )
        if not isinstance(permit, decision.Permit):
            return
        try:
            lent = await self._credentials.lend(permit, deadline=self._clock() + CANCEL_SECONDS)
        except loans.Unavailable:
            return  # without the credential the server would not listen; its own time limit ends the session
        errand = errands.Errand(server, permit, lent, self._clock() + CANCEL_SECONDS)
        await self.errands.run(errand, legacy.head(session.id, session.version), body, method)

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
            if session.id is not None:
                await self._say(bound, server_id, server, session, (b"", "DELETE"))

    async def visit(self, server_id: names.ServerId) -> lists.Listing:
        """As a stranger would: meets the server anew, drains its lists, takes its leave. Raises lists.ListingFailed.

        Nobody else may be asking the same server: what is remembered of it is forgotten first. Prompts and resources that cannot
        be listed stay unobserved.
        """
        self._servers.pop(server_id, None)
        try:
            listing = await self.listing(server_id, call.Kind.TOOL)
            for kind in (call.Kind.PROMPT, call.Kind.RESOURCE):
                with contextlib.suppress(lists.ListingFailed):
                    more = await self.listing(server_id, kind)
                    joined = lists.joined(listing.definitions, more.definitions)
                    listing = dataclasses.replace(listing, definitions=joined)
            return listing
        finally:
            met, bound = self._servers.get(server_id), self._current.bound
            if met is not None and bound is not None:
                await self._part(bound, server_id, met, CATALOGUE.session_key)

    async def listing(
        self, server_id: names.ServerId, kind: call.Kind = call.Kind.TOOL, user: identity.User | None = None
    ) -> lists.Listing:
        """Drains what a server lists of one kind, in the name of `user` only where nothing else will do. Raises lists.ListingFailed."""
        bound = self._current.bound
        permit = decide.permit_listing(bound, server_id, user=user) if bound is not None else None
        if not isinstance(permit, decision.Permit):
            reason = _R.SERVER_UNKNOWN if permit is None else permit.reason
            raise lists.ListingFailed(reason, "the proxy may not ask this server what it offers")
        deadline = self._clock() + CONTACT_SECONDS
        again = CATALOGUE.modern in self._server(permit.server).said
        try:
            return await draining.drained(_Peer(self, permit, deadline), kind, again=again)
        except (loans.Unavailable, legs.NoLeg) as failure:
            raise lists.ListingFailed(failure.reason, str(failure)) from None


@dataclasses.dataclass(slots=True)
class _Peer:
    """`draining.Peer`: one server, met with the credential the proxy's own questions get."""

    servers: Servers
    permit: decision.Permit
    deadline: float
    lent: exchange.Lent | None = None

    async def leg(self) -> legs.Leg:
        leg, self.lent = await self.servers.met(
            self.permit, CATALOGUE, deadline=self.deadline, lent=self.lent
        )
        return leg

    async def ask(self, leg: legs.Leg, head: exchange.Headers, body: bytes, method: str) -> errands.Heard:
        assert self.lent is not None, "there is a leg"
        errand = errands.Errand(leg.server, self.permit, self.lent, self.deadline)
        heard, self.lent = await self.servers.asked(errand, (head, body), method)
        return heard

    def forget(self, leg: legs.Leg) -> None:
        self.servers.forget(leg)


def _key(permit: decision.Permit, session_key: str) -> str:
    """Sessions are never shared between agents' sessions, nor between credentials, nor users whose credential is their own."""
    entry, user = permit.credential, _owner(permit)
    return f"{session_key}\0{entry.name if entry is not None else ''}" + (f"\0{user.id}" if user else "")


def _owner(permit: decision.Permit) -> identity.User | None:
    """Whose own the credential is, if it is a user's."""
    entry = permit.credential
    own = entry is not None and isinstance(entry.source, snapshot.TokenExchange)
    return permit.call.user if own else None
