# SPDX-License-Identifier: Apache-2.0
"""What a server says it offers, and what its tools are called where servers are merged.

Called by the proxy's lists (which drains servers), by bind, and by `can-i` on saved definitions. Definitions are kept as
the bytes they came in: unknown fields, annotations and `$defs` survive (protocol.md rule 1).
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable

import msgspec

from outrider import mirrors, names

TOOLS_MAX = 10_000
"""More than this of one server are not listed: the rest is dropped and reported."""

SCHEMA_BYTES_MAX = 262_144
"""An inputSchema above this is not compiled (R20)."""

_EXPOSED_CHARACTERS_MAX = 64
_EXPOSED_HEAD_CHARACTERS = 55
_NOT_EXPOSABLE = re.compile(r"[^A-Za-z0-9_-]")


@dataclasses.dataclass(frozen=True, slots=True)
class Definition:
    """One tool as its server defines it: `raw` is the whole JSON object, `input_schema` that member of it.

    `mirrors` are the arguments it wants repeated in headers.
    """

    name: str
    raw: bytes
    input_schema: bytes | None
    mirrors: tuple[mirrors.Mirror, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Definitions:
    """One server's tools in its order; `dropped` are names that are unusable (R9) or came twice."""

    tools: tuple[Definition, ...]
    dropped: tuple[str, ...] = ()


class _Head(msgspec.Struct):
    name: str
    input_schema: msgspec.Raw = msgspec.field(name="inputSchema", default=msgspec.Raw())


def definitions(raws: Iterable[bytes]) -> Definitions:
    """Reads tool objects as an upstream listed them.

    A tool without a usable name, or with one that came before, is dropped and named in `dropped`: two definitions of
    one name cannot both be what was approved. Raises nothing: what cannot be read is dropped as `?`.
    """
    kept: dict[str, Definition] = {}
    dropped: list[str] = []
    for raw in raws:
        try:
            head = msgspec.json.decode(raw, type=_Head)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            dropped.append("?")
            continue
        if not names.is_tool_name(head.name) or head.name in kept or len(kept) >= TOOLS_MAX:
            dropped.append(head.name[: names.TOOL_NAME_CHARACTERS_MAX])
            continue
        schema = bytes(head.input_schema) or None
        try:
            kept[head.name] = Definition(head.name, bytes(raw), schema, mirrors.read(schema))
        except mirrors.MirrorRefused:
            dropped.append(head.name)
    return Definitions(tuple(kept.values()), tuple(dropped))


def alias(server: names.ServerId, workload_namespace: str) -> str:
    """A server's prefix on the merged endpoint; `_` is illegal in Kubernetes names, so no two servers meet."""
    return server.name if server.namespace == workload_namespace else f"{server.namespace}_{server.name}"


def exposed_name(server: names.ServerId, tool: str, workload_namespace: str) -> str:
    """`{alias}__{tool}` in characters every model accepts, cut to 64 with a hash of what it stands for.

    It depends on nothing but its own server and tool: nobody is renamed because of somebody else's object.
    """
    plain = f"{alias(server, workload_namespace)}__{tool}"
    safe = _NOT_EXPOSABLE.sub("_", plain)
    if safe == plain and len(plain) <= _EXPOSED_CHARACTERS_MAX:
        return plain
    identity = f"{server.namespace}\0{server.name}\0{tool}".encode()
    return f"{safe[:_EXPOSED_HEAD_CHARACTERS]}_{hashlib.sha256(identity).hexdigest()[:8]}"
