# SPDX-License-Identifier: Apache-2.0
"""The stateless era (2026-07-28): what an agent's request must look like, and how ours to a server do.

Called by the pipeline (inbound) and by servers (outbound). Header values that go upstream are made from the body, never
copied (R10).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping

import msgspec

from outrider import decision, mirrors
from outrider_sidecar import asked, conventions, crossing, exchange, governed, jsonrpc

_R = decision.Reason
_CLIENT_INFO = json.dumps({"name": conventions.CLIENT_NAME, "version": conventions.CLIENT_VERSION})
_META = {
    conventions.META_VERSION: json.dumps(conventions.MODERN).encode(),
    conventions.META_CLIENT_INFO: _CLIENT_INFO.encode(),
    conventions.META_CAPABILITIES: b"{}",
}
_PLAIN = jsonrpc.spliced(_META)
_HEAD: exchange.Headers = (
    (b"content-type", b"application/json"),
    (b"accept", b"application/json, text/event-stream"),
    (conventions.HEADER_VERSION, conventions.MODERN.encode()),
)
_NOTHING: Mapping[str, bytes] = {}
_ONLY_MODERN_MEMBERS = ("resultType", "ttlMs", "cacheScope")
_ALWAYS_MODERN = {"resultType": b'"complete"'}
_NEVER_KEPT = {"ttlMs": b"0", "cacheScope": b'"private"'}


# Inbound --------------------------------------------------------------------------------------------------------------


def check(headers: exchange.Headers, message: jsonrpc.Message) -> None:
    """Header and body rules of a message (spec, transports). Raises Malformed with the code the table names.

    Of a notification the spec asks nothing but a version that is spoken: agents send them, and nobody reads an error.
    """
    if message.kind is jsonrpc.Kind.RESPONSE:
        raise jsonrpc.Malformed("nothing is asked of clients in this era, so nothing can be answered")
    stated, method, _ = (
        asked.header(headers, each)
        for each in (conventions.HEADER_VERSION, conventions.HEADER_METHOD, conventions.HEADER_NAME)
    )
    in_body = message.meta.get(conventions.META_VERSION)
    notification = message.kind is jsonrpc.Kind.NOTIFICATION
    if in_body is None and notification:
        in_body = stated
    if in_body is None and stated == conventions.MODERN:
        raise jsonrpc.Malformed(
            f"params._meta[{conventions.META_VERSION!r}] is missing", code=conventions.INVALID_PARAMS
        )
    if in_body is not None and in_body != stated:
        raise _mismatch("MCP-Protocol-Version and _meta name different versions")
    if stated != conventions.MODERN:
        raise jsonrpc.Malformed(
            "this protocol version is not spoken here",
            code=conventions.VERSION_UNSUPPORTED,
            reason=_R.VERSION_UNSUPPORTED,
            data={
                "supported": [conventions.MODERN],
                "requested": str(stated)[:64],
            },
        )
    if notification:
        return
    if not isinstance(message.meta.get(conventions.META_CAPABILITIES), dict):
        raise jsonrpc.Malformed(
            f"params._meta[{conventions.META_CAPABILITIES!r}] must be an object",
            code=conventions.INVALID_PARAMS,
        )
    if method != message.method:
        raise _mismatch("Mcp-Method is missing or is not the body's method")
    _check_name(headers, message)


def _check_name(headers: exchange.Headers, message: jsonrpc.Message) -> None:
    member = governed.MEMBER.get(message.method)
    if member is None:
        return
    named = message.params.get(member)
    if not isinstance(named, str):
        raise jsonrpc.Malformed(f"params.{member} must be a string", code=conventions.INVALID_PARAMS)
    stated = asked.header(headers, conventions.HEADER_NAME)
    if stated is None or _decoded(stated) != named:
        raise _mismatch("Mcp-Name is missing or is not the body's name")


def _mismatch(text: str) -> jsonrpc.Malformed:
    return jsonrpc.Malformed(text, code=conventions.HEADER_MISMATCH, reason=_R.HEADER_MISMATCH)


def _decoded(value: str) -> str | None:
    """A header value that may be `=?base64?...?=`."""
    if not (value.startswith("=?base64?") and value.endswith("?=")):
        return value
    try:
        return base64.b64decode(value[9:-2], validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None


# Outbound -------------------------------------------------------------------------------------------------------------


def discover(id_: int) -> tuple[exchange.Headers, bytes]:
    """Asks a server what it is; one of the handshake era does not know the question."""
    return _head(conventions.DISCOVER), jsonrpc.request(id_, conventions.DISCOVER, {"_meta": _meta()})


def speaks(answer: jsonrpc.Answer) -> bool:
    """Whether a server's answer to `discover` says that it speaks this era."""
    try:
        versions = msgspec.json.decode(jsonrpc.members(answer.payload).get("supportedVersions", b"[]"))
    except msgspec.DecodeError:
        return False
    return isinstance(versions, list) and conventions.MODERN in versions


def page_of(id_: int, method: str, cursor: str | None) -> tuple[exchange.Headers, bytes]:
    """Asks for one page of what a server lists; `method` is one of the lists."""
    params = {} if cursor is None else {"cursor": json.dumps(cursor).encode()}
    return _head(method), jsonrpc.request(id_, method, {**params, "_meta": _meta()})


def listen(id_: int, notifications: bytes) -> tuple[exchange.Headers, bytes]:
    """Asks a server to say on one stream what changes; `notifications` is the raw filter."""
    params = {"notifications": notifications, "_meta": _meta()}
    return _head(conventions.LISTEN), jsonrpc.request(id_, conventions.LISTEN, params)


def request(
    id_: int, subject: asked.Asked, permit: decision.Permit, *, capabilities: bytes = b"{}",
    given: Mapping[str, bytes] = _NOTHING,
) -> tuple[exchange.Headers, bytes]:  # fmt: skip
    """A governed request. Progress is asked for under our own token, which is `id_`; `given` is what a later round carries."""
    method = subject.message.method
    head = (*_head(method), *traced(subject.trace))
    if method in governed.MEMBER:
        head = (*head, (conventions.HEADER_NAME, mirrors.encoded(permit.call.name)))
    head = (*head, *mirrors.headers(crossing.mirrored(permit), permit.call.arguments))
    extras = crossing.meta(subject, id_)
    if (level := subject.log_level) is not None:
        extras[conventions.META_LOG_LEVEL] = json.dumps(level).encode()
    plain = not extras and capabilities == b"{}"
    meta = (
        _PLAIN if plain else jsonrpc.spliced({**_META, conventions.META_CAPABILITIES: capabilities, **extras})
    )
    params = {**crossing.params(subject, permit, given), "_meta": meta}
    return head, jsonrpc.request(id_, method, params)


def _head(method: str) -> exchange.Headers:
    return (*_HEAD, (conventions.HEADER_METHOD, method.encode()))


def _meta() -> bytes:
    return jsonrpc.spliced(_META)


def traced(trace: conventions.Trace) -> exchange.Headers:
    """Trace context as headers."""
    if not trace.parent:
        return ()
    state = ((conventions.HEADER_TRACESTATE, trace.state.encode()),) if trace.state else ()
    return ((conventions.HEADER_TRACEPARENT, trace.parent.encode()), *state)


# Between the eras -----------------------------------------------------------------------------------------------------


def adapted(raw: bytes, *, modern: bool, method: str) -> bytes:
    """A server's result as this agent's era writes it; everything else byte for byte as it came.

    Modern agents need `resultType`, and with a resource how long it may be kept: not at all, when the server's era had no
    word for it (official clients refuse a result without). Legacy ones must not see the members that only the modern era knows, the server's
    name for itself under a modern `_meta` key included.
    """
    parts = jsonrpc.members(raw)
    if modern:
        added = _ALWAYS_MODERN if method != conventions.READ_RESOURCE else {**_ALWAYS_MODERN, **_NEVER_KEPT}
        return raw if "resultType" in parts else jsonrpc.spliced({**added, **parts})
    kept = {key: value for key, value in parts.items() if key not in _ONLY_MODERN_MEMBERS}
    if conventions.META_SERVER_INFO.encode() in raw and kept.get("_meta", b"").startswith(b"{"):
        meta = jsonrpc.members(kept["_meta"])
        meta.pop(conventions.META_SERVER_INFO, None)
        kept = {key: value for key, value in kept.items() if key != "_meta"} | (
            {"_meta": jsonrpc.spliced(meta)} if meta else {}
        )
    return raw if len(kept) == len(parts) and kept == parts else jsonrpc.spliced(kept)


def asks_for_input(raw: bytes) -> bool:
    """A result that is a question to the client (`input_required`), or of a type nobody here knows."""
    if not jsonrpc.may_have(raw, b"resultType"):
        return False
    try:
        kind = jsonrpc.members(raw).get("resultType", b'"complete"')
        return bool(msgspec.json.decode(kind) != "complete")
    except msgspec.DecodeError:
        return True
