# SPDX-License-Identifier: Apache-2.0
"""One upstream as we remember it, and the way one call goes there: era, session, ids, and what of the answer is ours.

Made by `servers`, used by an attempt. Pure: it sends nothing and reads no clock.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from outrider import decision, identity, snapshot
from outrider_sidecar import (
    agents,
    asked,
    breaker,
    conventions,
    exchange,
    features,
    introductions,
    jsonrpc,
    legacy,
    modern,
)

_NOTHING: Mapping[str, bytes] = {}
_NOT_THIS_ERA = frozenset({400, 404, 405, 406, 415, 422, 501})
"""Statuses by which a server of the handshake era answers a stateless request."""


class NoLeg(Exception):
    """A server could not be met. `reason` is for the caller, the text for the log and the journal; `status` is the server's."""

    def __init__(self, reason: decision.Reason, text: str, *, status: int | None = None) -> None:
        super().__init__(text)
        self.reason = reason
        self.status = status


class Client(Protocol):
    """On whose behalf a server is met: an agent's request, a session of one, or the proxy itself."""

    @property
    def modern(self) -> bool:
        """The era in which it would like the server to be met."""

    @property
    def session_key(self) -> str:
        """Whose sessions there are used; "" for those that are nobody's in particular."""

    @property
    def agent(self) -> agents.Agent | None:
        """The session of its own that the server's is opened for."""


@dataclasses.dataclass(frozen=True, slots=True)
class Proxy:
    """The proxy on its own behalf, and for requests without a session that must be carried by one.

    `offers` are the client capabilities it speaks for, before the entry narrows them.
    """

    modern: bool = True
    session_key: str = ""
    agent: agents.Agent | None = None
    offers: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(slots=True, eq=False)
class Session:
    """A handshake with a server: `id` None when it keeps no sessions. `version` as negotiated. `roots`: it may ask for roots.

    `user` is the one in whose call it was opened, for taking leave; with a token only if the credential was made of it.
    """

    key: str
    id: bytes | None
    version: str
    introduction: introductions.Introduction = dataclasses.field(default_factory=introductions.Introduction)
    roots: bool = False
    user: identity.User | None = None


@dataclasses.dataclass(slots=True)
class Server:
    """What is known of one upstream at one endpoint; None: not met in that era yet.

    `said` are the latest introductions of each era (True: modern): official servers say different things of themselves in each.
    """

    endpoint: snapshot.Endpoint
    breaker: breaker.Breaker = dataclasses.field(default_factory=breaker.Breaker)
    speaks_modern: bool | None = None
    speaks_legacy: bool | None = None
    sessions: collections.OrderedDict[str, Session] = dataclasses.field(
        default_factory=collections.OrderedDict
    )
    meeting: dict[str, asyncio.Future[NoLeg | None]] = dataclasses.field(default_factory=dict)
    next_id: int = 0
    said: dict[bool, introductions.Introduction] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.doubt()

    def speaks(self, modern: bool) -> bool | None:
        return self.speaks_modern if modern else self.speaks_legacy

    def found(
        self, modern: bool, *, speaks: bool, introduction: introductions.Introduction | None = None
    ) -> None:
        """What an attempt to meet it in an era has shown."""
        if modern:
            self.speaks_modern = speaks
        else:
            self.speaks_legacy = speaks
        if introduction is not None:
            self.said[modern] = introduction
        elif not speaks:
            self.said.pop(modern, None)

    def introduced(self, modern: bool) -> introductions.Introduction:
        """What it said of itself in this era; in the other where it does not speak this one or was not met in it yet."""
        return self.said.get(modern) or self.said.get(not modern) or introductions.Introduction()

    def doubt(self) -> None:
        """Nothing is known any more but what the entry fixes: it is met again before the next request that needs it."""
        fixed = self.endpoint.protocol
        self.speaks_modern = None if fixed in ("Auto", conventions.MODERN) else False
        self.speaks_legacy = None if fixed != conventions.MODERN else False

    def era(self, modern: bool) -> bool | None:
        """True: it is met in the stateless era, for a client of this one. None: nobody knows yet."""
        if self.speaks(modern) is not False:
            return modern if self.speaks(modern) else None
        return not modern if self.speaks(not modern) else None

    def mint(self) -> int:
        """An id of ours: agents' ids never reach a server, so that two agents cannot collide there."""
        self.next_id += 1
        return self.next_id


@dataclasses.dataclass(slots=True)
class Leg:
    """The way one call goes to one server: era, session, and the ids it has there."""

    server: Server
    session: Session | None
    call_id: int

    @property
    def breaker(self) -> breaker.Breaker:
        return self.server.breaker

    def request(
        self, permit: decision.Permit, subject: asked.Asked, given: Mapping[str, bytes] = _NOTHING
    ) -> tuple[exchange.Headers, bytes]:
        """Head and body of a governed request in this server's era; `given` goes on with a round, which one of them knows."""
        if self.session is None:
            capabilities = features.told(subject.declared, permit.server.features)
            return modern.request(self.call_id, subject, permit, capabilities=capabilities, given=given)
        session, version = self.session.id, self.session.version
        return legacy.request(self.call_id, subject, permit, session=session, version=version)

    def doubt(self, status: int | None, answer: jsonrpc.Answer | None) -> None:
        """Meets the server again before the next call when it does not seem to speak the era of this one any more.

        Servers are replaced behind one URL, by older ones too. A session is given up only when the server says that it
        does not know the version: it may hold state of the agent's.
        """
        stateless = self.session is None or self.session.id is None
        if _unspoken(answer) or (stateless and answer is None and status in _NOT_THIS_ERA):
            self.server.doubt()
            if self.session is not None:
                self.server.sessions.pop(self.session.key, None)

    def progress(self, message: jsonrpc.Answer, subject: asked.Asked) -> bytes | None:
        """Progress of this call under the agent's own token; None for any notification that is not that."""
        token = subject.progress_token
        if message.method != conventions.PROGRESS or token is None:
            return None
        try:
            params = jsonrpc.members(message.payload)
        except msgspec.DecodeError:
            return None
        if params.get("progressToken") != b"%d" % self.call_id:
            return None
        return jsonrpc.request(
            None, conventions.PROGRESS, {**params, "progressToken": jsonrpc.encode_id(token)}
        )

    def expired(self, status: int | None, answer: jsonrpc.Answer | None) -> bool:
        """True when the server said that it does not know our session: 404, and nothing that answers the call.

        Some servers put the id of the request into that error, so its code tells as well.
        """
        if self.session is None or self.session.id is None or status != 404:
            return False
        return answer is None or answer.id != self.call_id or _is_error(answer, conventions.SESSION_NOT_FOUND)


def _unspoken(answer: jsonrpc.Answer | None) -> bool:
    """The server says that it does not speak the version of the request."""
    return answer is not None and _is_error(answer, conventions.VERSION_UNSUPPORTED)


def _is_error(answer: jsonrpc.Answer, code: int) -> bool:
    if answer.kind is not jsonrpc.AnswerKind.ERROR:
        return False
    try:
        return jsonrpc.members(answer.payload).get("code") == b"%d" % code
    except msgspec.DecodeError:
        return False
