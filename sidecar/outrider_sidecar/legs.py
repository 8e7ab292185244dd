# SPDX-License-Identifier: Apache-2.0
"""One upstream as we remember it, and the way one call goes there: era, session, ids, and what of the answer is ours.

Made by `servers`, used by an attempt. Pure: it sends nothing and reads no clock.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses

import msgspec

from outrider import decision, snapshot
from outrider_sidecar import asked, breaker, conventions, exchange, introductions, jsonrpc, legacy, modern

_NOT_THIS_ERA = frozenset({400, 404, 405, 406, 415, 422, 501})
"""Statuses by which a server of the handshake era answers a stateless request."""


class NoLeg(Exception):
    """A server could not be met. `reason` is for the caller, the text for the log and the journal."""

    def __init__(self, reason: decision.Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclasses.dataclass(slots=True)
class Session:
    """A handshake with a server: `id` None when it keeps no sessions. `version` as negotiated."""

    key: str
    id: bytes | None
    version: str


@dataclasses.dataclass(slots=True)
class Server:
    """What is known of one upstream at one endpoint. `modern` None: not met yet."""

    endpoint: snapshot.Endpoint
    breaker: breaker.Breaker = dataclasses.field(default_factory=breaker.Breaker)
    modern: bool | None = None
    sessions: collections.OrderedDict[str, Session] = dataclasses.field(
        default_factory=collections.OrderedDict
    )
    meeting: dict[str, asyncio.Future[NoLeg | None]] = dataclasses.field(default_factory=dict)
    next_id: int = 0
    introduction: introductions.Introduction = dataclasses.field(default_factory=introductions.Introduction)

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

    def request(self, permit: decision.Permit, subject: asked.Asked) -> tuple[exchange.Headers, bytes]:
        """Head and body of a governed request in this server's era."""
        if self.session is None:
            return modern.request(self.call_id, subject, permit)
        session, version = self.session.id, self.session.version
        return legacy.request(self.call_id, subject, permit, session=session, version=version)

    def doubt(self, status: int | None, answer: jsonrpc.Answer | None) -> None:
        """Meets the server again before the next call when it does not seem to speak the era of this one any more.

        Servers are replaced behind one URL, by older ones too. A session is given up only when the server says that it
        does not know the version: it may hold state of the agent's.
        """
        stateless = self.session is None or self.session.id is None
        if _unspoken(answer) or (stateless and answer is None and status in _NOT_THIS_ERA):
            self.server.modern = None
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
        """True when the server said that it does not know our session: 404, and nothing that answers the call."""
        return (
            self.session is not None
            and self.session.id is not None
            and status == 404
            and (answer is None or answer.id != self.call_id)
        )


def _unspoken(answer: jsonrpc.Answer | None) -> bool:
    """The server says that it does not speak the version of the request."""
    if answer is None or answer.kind is not jsonrpc.AnswerKind.ERROR:
        return False
    try:
        return jsonrpc.members(answer.payload).get("code") == b"%d" % conventions.VERSION_UNSUPPORTED
    except msgspec.DecodeError:
        return False
