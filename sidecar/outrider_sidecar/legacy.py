# SPDX-License-Identifier: Apache-2.0
"""The handshake era (2025-03-26 to 2025-11-25): version negotiation with agents, and our requests to such servers.

Called by the pipeline (inbound) and by servers (outbound). Sessions towards agents are in `sessions`; sessions that
servers give us are kept by `servers`.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from outrider import decision
from outrider_sidecar import asked, conventions, crossing, exchange, jsonrpc, modern

_CLIENT_INFO = json.dumps({"name": conventions.CLIENT_NAME, "version": conventions.CLIENT_VERSION}).encode()


def version_of(headers: exchange.Headers) -> str:
    """The revision a request after the handshake speaks. Raises Malformed (-32022) for one nobody knows."""
    stated = asked.header(headers, conventions.HEADER_VERSION)
    if stated is None:
        return conventions.LEGACY_WITHOUT_HEADER
    if stated not in conventions.LEGACY:
        raise jsonrpc.Malformed(
            "this protocol version is not spoken here",
            code=conventions.VERSION_UNSUPPORTED,
            reason=decision.Reason.VERSION_UNSUPPORTED,
            data={"supported": list(reversed(conventions.LEGACY)), "requested": stated[:64]},
        )
    return stated


def chosen_version(params: dict[str, Any]) -> str:
    """What we answer an `initialize` with: the client's version if it is known, else the newest (spec, lifecycle)."""
    wanted = params.get("protocolVersion")
    return wanted if wanted in conventions.LEGACY else conventions.LEGACY[-1]


def initialize(id_: int, version: str, *, capabilities: bytes = b"{}") -> tuple[exchange.Headers, bytes]:
    """The first message to a server. `capabilities` are what it may ask of the agent that it is met for."""
    params = {
        "protocolVersion": json.dumps(version).encode(),
        "capabilities": capabilities,
        "clientInfo": _CLIENT_INFO,
    }
    return head(None, None), jsonrpc.request(id_, conventions.INITIALIZE, params)


def negotiated(answer: jsonrpc.Answer) -> str | None:
    """The version a server chose, None when it is none of this era or no result. Servers may be older than agents."""
    if answer.kind is not jsonrpc.AnswerKind.RESULT:
        return None
    try:
        version = msgspec.json.decode(jsonrpc.members(answer.payload).get("protocolVersion", b"null"))
    except msgspec.DecodeError:
        return None
    return version if version in (conventions.OLDEST, *conventions.LEGACY) else None


def initialized(*, session: bytes | None, version: str) -> tuple[exchange.Headers, bytes]:
    return head(session, version), jsonrpc.request(None, conventions.INITIALIZED, {})


def page_of(
    id_: int, method: str, cursor: str | None, *, session: bytes | None, version: str
) -> tuple[exchange.Headers, bytes]:
    """Asks for one page of what a server lists; `method` is one of the lists."""
    params = {} if cursor is None else {"cursor": json.dumps(cursor).encode()}
    return head(session, version), jsonrpc.request(id_, method, params)


def request(
    id_: int, subject: asked.Asked, permit: decision.Permit, *, session: bytes | None, version: str
) -> tuple[exchange.Headers, bytes]:
    """A governed request. Progress is asked for under our own token, which is `id_`."""
    params, meta = crossing.params(subject, permit), crossing.meta(subject, id_)
    if meta:
        params["_meta"] = jsonrpc.spliced(meta)
    made = (*head(session, version), *modern.traced(subject.trace))
    return made, jsonrpc.request(id_, subject.message.method, params)


def cancelled(request: int) -> bytes:
    """Tells a server that nobody waits for this request of ours any more."""
    return jsonrpc.request(None, conventions.CANCELLED, {"requestId": b"%d" % request})


def level(id_: int, wanted: str) -> bytes:
    """Tells a server how much of its log an agent wants to hear."""
    return jsonrpc.request(id_, conventions.SET_LEVEL, {"level": json.dumps(wanted).encode()})


def head(session: bytes | None, version: str | None) -> exchange.Headers:
    """What every request to such a server carries; both are None before the handshake."""
    made: list[tuple[bytes, bytes]] = [
        (b"content-type", b"application/json"),
        (b"accept", b"application/json, text/event-stream"),
    ]
    if version is not None:
        made.append((conventions.HEADER_VERSION, version.encode()))
    if session is not None:
        made.append((conventions.HEADER_SESSION, session))
    return tuple(made)
