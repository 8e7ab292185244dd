# SPDX-License-Identifier: Apache-2.0
"""Agents of the handshake era that listen: the stream each holds open, and the sessions at servers that are followed for it.

Kept beside `agents`: an agent takes a seat with its first GET or subscription, and leaves it with its session. What a server
says on the agent's own session is for this agent: questions are asked of it, log messages come at its level, news of a resource
only when it subscribed. That a list has changed is everybody's: `audience` tells it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable

import msgspec

from outrider import call, decision, identity, names, snapshot
from outrider_sidecar import (
    agents,
    channels,
    conventions,
    following,
    jsonrpc,
    legs,
    streams,
    watches,
)
from outrider_sidecar import audience as hub

_SINGLE = frozenset(call.Kind)
_MERGED = _SINGLE - {call.Kind.RESOURCE}
"""Whose lists an agent is told of: resources stay on the endpoints of their servers."""

_FOR_LISTS = frozenset(hub.CHANGED.values())


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """A session at a server, opened for one agent."""

    permit: decision.Permit
    session: legs.Session

    def aside(self, view: snapshot.ServerView) -> decision.Permit:
        """For what belongs to no request: still this server with this credential, but about nothing that it offers.

        `view` is what is in force of it now: what it may ask may have been narrowed since the session was opened.
        """
        subject = call.Call(self.permit.call.server, "", method=call.Method.LIST, user=self.permit.call.user)
        return dataclasses.replace(
            self.permit,
            call=subject,
            server=view,
            target=None,
            rules=(),
            reservations=(),
            would=(),
            round_of="",
        )


Ask = Callable[[agents.Agent, Standing, jsonrpc.Answer], None]
"""A server asks something outside of any call; whoever this is answers it."""


class Seat:
    """One agent. `clock` is loop time."""

    def __init__(self, desk: Seats, agent: agents.Agent) -> None:
        self.agent = agent
        self.watches: dict[tuple[hub.Origin, str], watches.Watch] = {}
        self.standings: dict[hub.Origin, Standing] = {}
        self._desk = desk
        self._followers: dict[hub.Origin, following.Follower] = {}
        self._live: dict[hub.Origin, asyncio.Event] = {}
        self.channel = channels.Channel(
            call_later=desk.call_later, clock=desk.parts.clock, changed=self.arrange
        )
        server = desk.endpoint(agent)
        self.listener = hub.Listener(server, _SINGLE if server is not None else _MERGED, self._tell)
        self._joined = self._left = False

    def _tell(self, method: str, params: dict[str, bytes]) -> None:
        self.channel.offer(hub.notification(method, params))

    # Whom it hears ------------------------------------------------------------------------------------------------------

    def arrange(self) -> None:
        """Listens as long as somebody would hear it: while its agent does, or has subscribed to something."""
        if self._left:
            return
        active = self.channel.attached or bool(self.watches)
        if active and not self._joined:
            self._joined = self._desk.join(self.listener)
        elif self._joined and not active:
            self._joined = False
            self._desk.audience.leave(self.listener)
        for origin, follower in tuple(self._followers.items()):
            standing = self.standings.get(origin)
            if not active or standing is None or standing.session is not follower.session:
                follower.close()
                del self._followers[origin]
        for origin, standing in self.standings.items():
            if active and origin not in self._followers:
                self._followers[origin] = self._follower(origin, standing)

    def heard_as(self, user: identity.User | None) -> None:
        """Whose lists it hears of from now on."""
        if user != self.listener.user:
            if self._joined:
                self._desk.audience.leave(self.listener)
                self._joined = False
            self.listener.user = user

    def _follower(self, origin: hub.Origin, standing: Standing) -> following.Follower:
        def hear(message: jsonrpc.Answer) -> None:
            self.heard(standing, message)

        def over(end: following.End) -> None:
            begun()
            if end is following.End.UNKNOWN_SESSION and self.standings.get(origin) is standing:
                del self.standings[origin]
                self._desk.lost(self, origin, standing)

        def begun() -> None:
            self._live.setdefault(origin, asyncio.Event()).set()

        self._live[origin] = asyncio.Event()
        return following.Follower(
            self._desk.parts, standing.permit, standing.session, hear=hear, over=over, begun=begun
        )

    async def live(self, origin: hub.Origin, *, seconds: float) -> None:
        """Returns once what is said on a session would be heard; at the latest after `seconds`."""
        if origin in self._followers:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._live[origin].wait()

    def opened(self, standing: Standing) -> None:
        """A session at a server was opened for it, for the first time or again."""
        self.standings[hub.origin_of(standing.permit)] = standing
        self.arrange()

    def leave(self, reason: decision.Reason, detail: str) -> None:
        """Its session is over, or the proxy goes."""
        self._left = True
        self.channel.close()
        if self._joined:
            self._desk.audience.leave(self.listener)
        for follower in self._followers.values():
            follower.close()
        self._followers.clear()
        for watch in self.watches.values():
            watch.close(reason, detail=detail)
        self.watches.clear()
        self.agent.subscriptions.clear()

    # What it hears ------------------------------------------------------------------------------------------------------

    def heard(self, standing: Standing, message: jsonrpc.Answer) -> None:
        """Something that a server says in a session of this agent, about no request of its."""
        if message.kind is jsonrpc.AnswerKind.REQUEST:
            self._desk.ask(self.agent, standing, message)
        elif message.kind is not jsonrpc.AnswerKind.NOTIFICATION:
            return  # an answer outside of the request it is for is nobody's
        elif message.method in _FOR_LISTS:
            self._desk.audience.heard(standing.permit.server.id, message)
        elif self._is_for_me(standing, message):
            self.channel.offer(_as_it_came(message))

    def _is_for_me(self, standing: Standing, message: jsonrpc.Answer) -> bool:
        if message.method == conventions.LOG_MESSAGE:
            return loud_enough(message, self.agent.log_level)
        if message.method == conventions.ELICITED:
            return True
        if message.method != conventions.RESOURCE_UPDATED:
            return False  # progress of no call, and what nobody here knows
        server, uri = standing.permit.server.id, _uri(message)
        place = (server, hub.origin_of(standing.permit)[2])
        heard_as = {
            watch.permit.call.user
            for (origin, subscribed), watch in self.watches.items()
            if (origin[0], origin[2]) == place and hub.covers(subscribed, uri)
        }
        return bool(uri) and any(self._desk.audience.may_hear(server, uri, user) for user in heard_as)


@dataclasses.dataclass(frozen=True, slots=True)
class Seats:
    """What a seat asks of whoever keeps them. `join` says whether there was anything to join."""

    parts: following.Parts
    audience: hub.Audience
    call_later: streams.CallLater
    endpoint: Callable[[agents.Agent], names.ServerId | None]
    join: Callable[[hub.Listener], bool]
    ask: Ask
    lost: Callable[[Seat, hub.Origin, Standing], None]


def loud_enough(message: jsonrpc.Answer, level: str | None) -> bool:
    """Whether a log message is one that the agent asked for; without a level the server decides (2025-11-25, logging)."""
    if level is None:
        return True
    try:
        said = msgspec.json.decode(jsonrpc.members(message.payload).get("level", b"null"))
    except msgspec.DecodeError:
        return False
    levels = conventions.LOG_LEVELS
    return said in levels and levels.index(said) >= levels.index(level)


def _uri(message: jsonrpc.Answer) -> str:
    try:
        uri = msgspec.json.decode(jsonrpc.members(message.payload).get("uri", b'""'))
    except msgspec.DecodeError:
        return ""
    return uri if isinstance(uri, str) else ""


def _as_it_came(message: jsonrpc.Answer) -> bytes:
    head = b'{"jsonrpc":"2.0","method":' + msgspec.json.encode(message.method)
    return head + b',"params":' + message.payload + b"}"
