# SPDX-License-Identifier: Apache-2.0
"""Answers that need no server: who we are, and what can be called here.

Called by the pipeline. What a list shows is `decide.listed`, in the servers' order; a cursor is an offset into exactly one
version of that list, so that a page never mixes two.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import itertools
import json
from typing import Any

import msgspec

from outrider import bind, decide, names, snapshot
from outrider_sidecar import conventions, jsonrpc

PAGE_TOOLS_MAX = 1_000
LIST_TTL_MILLISECONDS = 5_000
"""How long a modern agent may keep a list: policies change, and a revocation must be seen soon."""

_CAPABILITIES: dict[str, Any] = {"tools": {}}
_CURSOR_CHARACTERS_MAX = 128


def server_of(path: str) -> names.ServerId | None:
    """The server behind `/{namespace}/{server}/mcp`, None for any other path."""
    parts = path.split("/")
    if len(parts) != 4 or parts[0] or parts[3] != "mcp":
        return None
    return names.server_id(f"{parts[1]}/{parts[2]}")


def initialized(view: snapshot.ServerView | None, version: str) -> bytes:
    """The result of `initialize`; `view` None is the merged endpoint."""
    return msgspec.json.encode(
        {"protocolVersion": version, "capabilities": _CAPABILITIES, "serverInfo": _info(view)}
    )


def discovered(view: snapshot.ServerView | None) -> bytes:
    """The result of `server/discover`."""
    return msgspec.json.encode(
        {
            "resultType": "complete",
            "supportedVersions": [conventions.MODERN],
            "capabilities": _CAPABILITIES,
            "ttlMs": LIST_TTL_MILLISECONDS,
            "cacheScope": "private",
            "_meta": {conventions.META_SERVER_INFO: _info(view)},
        }
    )


def _info(view: snapshot.ServerView | None) -> dict[str, str]:
    if view is None:
        return {"name": "outrider", "version": conventions.CLIENT_VERSION}
    info = {"name": view.id.name, "version": view.version or "0"}
    return info | ({"title": view.title} if view.title else {})


def page(bound: bind.Bound, server: names.ServerId | None, cursor: object, *, modern: bool) -> bytes | None:
    """One page of what can be called; None when the cursor is not one of this list."""
    seen = list(decide.listed(bound, server))
    version = hashlib.sha256(
        b"\0".join([str(server).encode(), *(target.exposed.encode() for target in seen)])
    ).hexdigest()[:16]
    start = 0 if cursor is None else _offset(cursor, version)
    if start is None or start > len(seen):
        return None
    shown = [
        _definition(target, merged=server is None)
        for target in itertools.islice(seen, start, start + PAGE_TOOLS_MAX)
    ]
    parts = {"tools": b"[" + b",".join(shown) + b"]"}
    if start + PAGE_TOOLS_MAX < len(seen):
        parts["nextCursor"] = json.dumps(_cursor(start + PAGE_TOOLS_MAX, version)).encode()
    if modern:
        parts |= {
            "resultType": b'"complete"',
            "ttlMs": b"%d" % LIST_TTL_MILLISECONDS,
            "cacheScope": b'"private"',
        }
    return jsonrpc.spliced(parts)


def _definition(target: bind.Target, *, merged: bool) -> bytes:
    """The server's own bytes; on the merged endpoint with the exposed name."""
    assert target.definition is not None
    if not merged:
        return target.definition.raw
    return jsonrpc.spliced(
        {**jsonrpc.members(target.definition.raw), "name": json.dumps(target.exposed).encode()}
    )


def _cursor(offset: int, version: str) -> str:
    return base64.urlsafe_b64encode(f"{offset}.{version}".encode()).decode()


def _offset(cursor: object, version: str) -> int | None:
    """Offsets into a list that has changed since, or that nobody gave out, are unknown. It opens nothing: see `page`."""
    if not isinstance(cursor, str) or len(cursor) > _CURSOR_CHARACTERS_MAX:
        return None
    try:
        offset, _, stated = base64.urlsafe_b64decode(cursor.encode()).decode("ascii").partition(".")
    except (binascii.Error, UnicodeError, ValueError):
        return None
    return int(offset) if stated == version and offset.isdigit() and len(offset) < 9 else None
