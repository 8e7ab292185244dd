# SPDX-License-Identifier: Apache-2.0
"""Answers that need no server: who we are, what can be done here, and what there is.

Called by showing. Pure. What a list shows is `decide.listed` and `decide.templates`, in the servers' order; a cursor is an offset
into exactly one version of that list, so that a page never mixes two. What is declared is what a server has, and we relay, and
this caller could reach: never more, and never tasks, extensions or experiments.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import itertools
import json
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

import msgspec

from outrider import bind, call, catalog, decide, identity, names, snapshot
from outrider_sidecar import conventions, introductions, jsonrpc

PAGE_ENTRIES_MAX = 1_000
LIST_TTL_MILLISECONDS = 5_000
"""How long a modern agent may keep a list: policies change, and a revocation must be seen soon."""

LIST_CHANGED: Final = "listChanged"
RELAYED: Final[frozenset[str]] = frozenset(
    {
        introductions.TOOLS,
        introductions.PROMPTS,
        introductions.RESOURCES,
        introductions.SUBSCRIBE,
        introductions.COMPLETIONS,
        introductions.LOGGING,
        LIST_CHANGED,
    }
)
"""Of what servers have, what reaches agents: capabilities, and `listChanged`, which is said of every list or of none."""

_KINDS = {
    introductions.TOOLS: call.Kind.TOOL,
    introductions.PROMPTS: call.Kind.PROMPT,
    introductions.RESOURCES: call.Kind.RESOURCE,
}
_CURSOR_CHARACTERS_MAX = 128

Met = Callable[[names.ServerId], introductions.Introduction]
"""What a server has said of itself."""


def server_of(path: str) -> names.ServerId | None:
    """The server behind `/{namespace}/{server}/mcp`, None for any other path."""
    parts = path.split("/")
    if len(parts) != 4 or parts[0] or parts[3] != "mcp":
        return None
    return names.server_id(f"{parts[1]}/{parts[2]}")


def initialized(bound: bind.Bound, server: names.ServerId | None, met: Met, *, version: str) -> bytes:
    """The result of `initialize`; `server` None is the merged endpoint."""
    return msgspec.json.encode(
        {
            "protocolVersion": version,
            "capabilities": capabilities(bound, server, met),
            "serverInfo": _info(bound, server),
            **_instructions(bound, server, met),
        }
    )


def discovered(bound: bind.Bound, server: names.ServerId | None, met: Met) -> bytes:
    """The result of `server/discover`."""
    return msgspec.json.encode(
        {
            "resultType": "complete",
            "supportedVersions": [conventions.MODERN],
            "capabilities": capabilities(bound, server, met),
            **_instructions(bound, server, met),
            "ttlMs": LIST_TTL_MILLISECONDS,
            "cacheScope": "private",
            "_meta": {conventions.META_SERVER_INFO: _info(bound, server)},
        }
    )


def capabilities(
    bound: bind.Bound, server: names.ServerId | None, met: Met, *, relayed: Collection[str] = RELAYED
) -> dict[str, Any]:
    """What is declared; a server that has not been met yet counts as one that has everything.

    The merged endpoint has no resources: their URIs belong to one server.
    """
    shown = bound.servers if server is None else {server: bound.servers[server]}
    having: set[str] = {introductions.TOOLS} if server is None else set()
    for server_id, held in shown.items():
        having |= _having(held, met(server_id), relayed)
    if server is None:
        having -= {introductions.RESOURCES, introductions.SUBSCRIBE}
    told: dict[str, Any] = {name: {} for name in introductions.KNOWN if name in having}
    if LIST_CHANGED in relayed:
        told |= {name: {LIST_CHANGED: True} for name in _KINDS if name in having}
    if introductions.SUBSCRIBE in having:
        told[introductions.RESOURCES] |= {"subscribe": True}
    return told


def _having(held: bind.BoundServer, met: introductions.Introduction, relayed: Collection[str]) -> set[str]:
    """What one server has for this caller."""
    unmet = met.capabilities is None
    had = {each for each in relayed if unmet or met.has(each)}
    kinds = {name for name, kind in _KINDS.items() if name in had and kind in held.index.opens}
    if not unmet and not any(met.has(name) for name in _KINDS):
        kinds = {introductions.TOOLS} & set(
            relayed
        )  # it says nothing, and is asked for its tools all the same
    found = kinds | (had & {introductions.LOGGING} if kinds else set())
    if kinds & {introductions.PROMPTS, introductions.RESOURCES}:
        found |= had & {introductions.COMPLETIONS}
    if introductions.RESOURCES in kinds:
        found |= had & {introductions.SUBSCRIBE}
    return found


def _instructions(bound: bind.Bound, server: names.ServerId | None, met: Met) -> dict[str, str]:
    """How a server wants to be used goes to agents only when its entry passes that, and never where servers are merged."""
    if server is None or not bound.servers[server].view.instructions:
        return {}
    text = met(server).instructions
    return {"instructions": text} if text else {}


def _info(bound: bind.Bound, server: names.ServerId | None) -> dict[str, str]:
    if server is None:
        return {"name": "outrider", "version": conventions.CLIENT_VERSION}
    view: snapshot.ServerView = bound.servers[server].view
    info = {"name": view.id.name, "version": view.version or "0"}
    return info | ({"title": view.title} if view.title else {})


def page(  # noqa: PLR0913 -- the facts of one page
    bound: bind.Bound,
    server: names.ServerId | None,
    cursor: object,
    *,
    modern: bool,
    form: catalog.Form = catalog.Form.TOOLS,
    user: identity.User | None = None,
) -> bytes | None:
    """One page of what `user` could call, get or read (without one: some user); None when the cursor is not one of this list."""
    seen = list(_seen(bound, server, form, user))
    whose = (str(bound.snapshot.workload), "" if user is None else user.id)
    told = (*whose, form.value, str(server), *(target.exposed for target in seen))
    version = hashlib.sha256(b"\0".join(each.encode() for each in told)).hexdigest()[:16]
    start = 0 if cursor is None else _offset(cursor, version)
    if start is None or start > len(seen):
        return None
    shown = [
        _definition(target, merged=server is None)
        for target in itertools.islice(seen, start, start + PAGE_ENTRIES_MAX)
    ]
    parts = {form.value: b"[" + b",".join(shown) + b"]"}
    if start + PAGE_ENTRIES_MAX < len(seen):
        parts["nextCursor"] = json.dumps(_cursor(start + PAGE_ENTRIES_MAX, version)).encode()
    if modern:
        parts |= {
            "resultType": b'"complete"',
            "ttlMs": b"%d" % LIST_TTL_MILLISECONDS,
            "cacheScope": b'"private"',
        }
    return jsonrpc.spliced(parts)


def _seen(
    bound: bind.Bound, server: names.ServerId | None, form: catalog.Form, user: identity.User | None
) -> Iterator[bind.Target]:
    if form.kind is call.Kind.RESOURCE and server is None:
        return iter(())
    if form is catalog.Form.TEMPLATES:
        return decide.templates(bound, server, user)
    return decide.listed(bound, server, form.kind, user)


def _definition(target: bind.Target, *, merged: bool) -> bytes:
    """The server's own bytes; on the merged endpoint with the exposed name, for that is what it is called by there."""
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
