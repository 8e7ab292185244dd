# SPDX-License-Identifier: Apache-2.0
"""Arguments that a tool wants repeated in `Mcp-Param-*` headers (`x-mcp-header`, revision 2026-07-28, transports).

Read by catalog from an inputSchema once; used by the proxy per call, in both directions: what an agent mirrored must be
what its body says, and what goes upstream is made from the body, never copied (R10).
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

KEYWORD = "x-mcp-header"
PREFIX = b"mcp-param-"
MIRRORS_MAX = 32

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_SAFE = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?")
_DATA = frozenset({"default", "examples", "const", "enum"})
_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_TYPES = {"string": str, "integer": int, "boolean": bool}


class MirrorRefused(ValueError):
    """An annotation that the specification does not allow: the tool is not usable over HTTP."""


@dataclasses.dataclass(frozen=True, slots=True)
class Mirror:
    """The argument at `path` (keys from the top) is repeated in `header` (lower case, with its prefix)."""

    path: tuple[str, ...]
    header: bytes
    type: str


def read(schema: bytes | None) -> tuple[Mirror, ...]:
    """The mirrors of an inputSchema, in its order. Raises MirrorRefused and nothing else."""
    if schema is None or (KEYWORD.encode() not in schema and b"\\u" not in schema):
        return ()
    try:
        found = tuple(_walk(msgspec.json.decode(schema), ()))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MirrorRefused(f"the schema cannot be read: {error}") from None
    if len({mirror.header for mirror in found}) != len(found) or len(found) > MIRRORS_MAX:
        raise MirrorRefused("two arguments want the same header, or too many want one")
    return found


def _walk(node: Any, path: tuple[str, ...]) -> Iterator[Mirror]:
    """Only chains of plain `properties` count; an annotation anywhere else is refused."""
    properties = node.get("properties") if isinstance(node, dict) else None
    own = (
        {key: value for key, value in node.items() if key != "properties"} if isinstance(node, dict) else node
    )
    if _mentions(own):
        raise MirrorRefused(f"{KEYWORD} stands where no argument is")
    for key, inner in (properties or {}).items() if isinstance(properties, dict) else ():
        if not isinstance(inner, dict):
            continue
        if KEYWORD in inner:
            name, kind = inner[KEYWORD], inner.get("type")
            if not isinstance(name, str) or not _TOKEN.fullmatch(name):
                raise MirrorRefused(f"{KEYWORD} of the argument {key[:100]!r} is no header name")
            if not isinstance(kind, str) or kind not in _TYPES:
                raise MirrorRefused(
                    f"{KEYWORD} of the argument {key[:100]!r} needs `type` to be integer, string or boolean alone"
                )
            yield Mirror((*path, key), PREFIX + name.lower().encode(), kind)
        yield from _walk({each: value for each, value in inner.items() if each != KEYWORD}, (*path, key))


def _mentions(value: Any) -> bool:
    """An annotation anywhere below, except in what is data to a schema and not a schema."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            if KEYWORD in each:
                return True
            for key, inner in each.items():
                if key in _MAPS and isinstance(inner, dict):
                    waiting.extend(inner.values())
                elif key not in _DATA:
                    waiting.append(inner)
        elif isinstance(each, list):
            waiting.extend(each)
    return False


def headers(
    mirrors: Sequence[Mirror], arguments: Mapping[str, Any] | None
) -> tuple[tuple[bytes, bytes], ...]:
    """What goes upstream beside these arguments; an absent or null argument has no header."""
    made = []
    for mirror in mirrors:
        value = _at(arguments, mirror.path)
        if value is not None:
            made.append((mirror.header, encoded(_text(value))))
    return tuple(made)


def objection(
    mirrors: Sequence[Mirror], arguments: Mapping[str, Any] | None, received: Sequence[tuple[bytes, bytes]]
) -> str | None:
    """Why headers as received and arguments do not say the same; None when they do."""
    for mirror in mirrors:
        stated = [value for name, value in received if name == mirror.header]
        value = _at(arguments, mirror.path)
        shown = mirror.header.decode()
        if value is None:
            if stated:
                return f"{shown} is there and its argument is not"
        elif len(stated) != 1:
            return f"{shown} is missing or there more than once"
        elif not _same(_decoded(stated[0]), value):
            return f"{shown} is not what its argument says"
    return None


def _at(arguments: Mapping[str, Any] | None, path: Sequence[str]) -> Any:
    value: Any = arguments
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value if isinstance(value, str | int | bool) else None


def _text(value: str | int | bool) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def encoded(text: str) -> bytes:
    """A header value that says exactly this text: as it is when that is safe, else in base64 (transports, value encoding)."""
    if _SAFE.fullmatch(text) and not text.startswith("=?"):
        return text.encode()
    return b"=?base64?" + base64.b64encode(text.encode("utf-8", "surrogatepass")) + b"?="


def _decoded(value: bytes) -> str | None:
    text = value.decode("latin-1").strip()
    if not (text.startswith("=?base64?") and text.endswith("?=")):
        return text
    try:
        return base64.b64decode(text[9:-2], validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None


def _same(stated: str | None, value: str | int | bool) -> bool:
    """Integers compare as numbers, everything else as text."""
    if stated is None or isinstance(value, str | bool):
        return stated == _text(value)
    return re.fullmatch(r"-?[0-9]{1,64}", stated) is not None and int(stated) == value
