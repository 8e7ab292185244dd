# SPDX-License-Identifier: Apache-2.0
"""What a server says it offers, and what its tools are called where servers are merged.

Called by the proxy's lists (which drains servers), by bind, and by `can-i` on saved definitions. Definitions are kept as
the bytes they came in: unknown fields, annotations and `$defs` survive (protocol.md rule 1).
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from outrider import findings, mirrors, names

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


class Dropped(NamedTuple):
    """A tool that is neither listed nor callable, and why. `name` is "?" when not even that could be read."""

    name: str
    reason: findings.Reason


@dataclasses.dataclass(frozen=True, slots=True)
class Definitions:
    """One server's tools in its order, and what was left out of them."""

    tools: tuple[Definition, ...]
    dropped: tuple[Dropped, ...] = ()


class _Head(msgspec.Struct):
    name: str
    input_schema: msgspec.Raw = msgspec.field(name="inputSchema", default=msgspec.Raw())


def definitions(raws: Iterable[bytes]) -> Definitions:
    """Reads tool objects as an upstream listed them.

    A tool without a usable name, or with one that came before, is dropped and named in `dropped`: two definitions of
    one name cannot both be what was approved. Raises nothing: what cannot be read is dropped as `?`.
    """
    kept: dict[str, Definition] = {}
    dropped: list[Dropped] = []
    for raw in raws:
        try:
            head = msgspec.json.decode(raw, type=_Head)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            dropped.append(Dropped("?", findings.Reason.DEFINITIONS_REFUSED))
            continue
        read = _read(head, raw, kept)
        if isinstance(read, Definition):
            kept[read.name] = read
        else:
            dropped.append(Dropped(head.name[: names.TOOL_NAME_CHARACTERS_MAX], read))
    return Definitions(tuple(kept.values()), tuple(dropped))


def _read(head: _Head, raw: bytes, kept: Mapping[str, Definition]) -> Definition | findings.Reason:
    if not names.is_tool_name(head.name):
        return findings.Reason.UNUSABLE_TOOL_NAME
    if head.name in kept:
        return findings.Reason.DUPLICATE_NAME
    if len(kept) >= TOOLS_MAX:
        return findings.Reason.TOO_MANY_TOOLS
    schema = bytes(head.input_schema) or None
    try:
        return Definition(head.name, bytes(raw), schema, mirrors.read(schema))
    except mirrors.MirrorRefused:
        return findings.Reason.DEFINITIONS_REFUSED


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
