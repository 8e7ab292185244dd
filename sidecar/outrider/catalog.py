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
from typing import Any, Literal, NamedTuple

import msgspec

from outrider import findings, mirrors, names

TOOLS_MAX = 10_000
"""More than this of one server are not listed: the rest is dropped and reported."""

DEPTH_MAX = 64
"""A definition nested deeper than this is dropped: parsers of clients give up at 200, and lose the whole list."""

_DETAIL_CHARACTERS_MAX = 200
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
    """A tool that is neither listed nor callable, and why. `name` is "?" when not even that could be read.

    `detail` says which member is wrong and what is expected of it; "" when the reason says it all.
    """

    name: str
    reason: findings.Reason
    detail: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Definitions:
    """One server's tools in its order, and what was left out of them."""

    tools: tuple[Definition, ...]
    dropped: tuple[Dropped, ...] = ()


class _Head(msgspec.Struct):
    name: str
    input_schema: msgspec.Raw = msgspec.field(name="inputSchema", default=msgspec.Raw())


class _Icon(msgspec.Struct, rename="camel"):
    src: str
    mime_type: str | None = None
    sizes: list[str] | None = None
    theme: Literal["dark", "light"] | None = None


class _Annotations(msgspec.Struct, rename="camel"):
    title: str | None = None
    read_only_hint: bool | None = None
    destructive_hint: bool | None = None
    idempotent_hint: bool | None = None
    open_world_hint: bool | None = None


class _Execution(msgspec.Struct, rename="camel"):
    task_support: Literal["forbidden", "optional", "required"] | None = None


class _Schema(msgspec.Struct):
    type: Literal["object"]
    dialect: str | None = msgspec.field(name="$schema", default=None)
    properties: dict[str, dict[str, Any] | bool] | None = None
    required: list[str] | None = None


class _Shape(msgspec.Struct, rename="camel"):
    """What official clients of every revision demand of a tool; one that is not like this costs them the whole list."""

    name: str
    input_schema: _Schema
    output_schema: _Schema | None = None
    title: str | None = None
    description: str | None = None
    annotations: _Annotations | None = None
    icons: list[_Icon] | None = None
    execution: _Execution | None = None
    meta: dict[str, Any] | None = msgspec.field(name="_meta", default=None)


class _Unusable(ValueError):
    """A definition that clients cannot use. The text says which member, and what is expected."""


def definitions(raws: Iterable[bytes]) -> Definitions:
    """Reads tool objects as an upstream listed them.

    A tool without a usable name, or with one that came before, is dropped and named in `dropped`: two definitions of
    one name cannot both be what was approved. So is one that official clients cannot read: they would lose every other
    tool with it. Raises nothing: what has no name that can be read is dropped as `?`.
    """
    kept: dict[str, Definition] = {}
    dropped: list[Dropped] = []
    for raw in raws:
        try:
            head = msgspec.json.decode(raw, type=_Head)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            dropped.append(Dropped("?", findings.Reason.DEFINITIONS_REFUSED, _plain(error)))
            continue
        read = _read(head, raw, kept)
        if isinstance(read, Definition):
            kept[read.name] = read
        else:
            dropped.append(read)
    return Definitions(tuple(kept.values()), tuple(dropped))


def _read(head: _Head, raw: bytes, kept: Mapping[str, Definition]) -> Definition | Dropped:
    shown = head.name[: names.TOOL_NAME_CHARACTERS_MAX]
    if not names.is_tool_name(head.name):
        return Dropped(shown, findings.Reason.UNUSABLE_TOOL_NAME)
    if head.name in kept:
        return Dropped(shown, findings.Reason.DUPLICATE_NAME)
    if len(kept) >= TOOLS_MAX:
        return Dropped(shown, findings.Reason.TOO_MANY_TOOLS)
    schema = bytes(head.input_schema)
    try:
        _check(raw)
        return Definition(head.name, bytes(raw), schema, mirrors.read(schema))
    except (
        msgspec.DecodeError,
        UnicodeDecodeError,
        RecursionError,
        _Unusable,
        mirrors.MirrorRefused,
    ) as error:
        return Dropped(shown, findings.Reason.DEFINITIONS_REFUSED, _plain(error))
    except Exception as bug:  # noqa: BLE001 -- one tool of one server must never cost the others their list
        text = f"reading it failed with {type(bug).__name__}, which is a bug of ours"
        return Dropped(shown, findings.Reason.DEFINITIONS_REFUSED, text)


def _check(raw: bytes) -> None:
    """Raises what `_read` expects for a definition that a client could not read."""
    msgspec.json.decode(raw, type=_Shape)
    whole = msgspec.json.decode(raw)
    if raw.count(b"{") + raw.count(b"[") > DEPTH_MAX and _is_deeper(whole, DEPTH_MAX):
        raise _Unusable(f"it is nested deeper than {DEPTH_MAX} levels")


def _is_deeper(value: Any, levels: int) -> bool:
    level = [value]
    for _ in range(levels + 1):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return bool(level)


def _plain(error: Exception) -> str:
    """A decoder's complaint, the place first."""
    if isinstance(error, RecursionError):
        return f"it is nested deeper than {DEPTH_MAX} levels"
    text, _, place = str(error).replace("`", "").partition(" - at $")
    text = text[:1].lower() + text[1:_DETAIL_CHARACTERS_MAX]
    return f"at {place[1:_DETAIL_CHARACTERS_MAX]}: {text}" if len(place) > 1 else text


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
