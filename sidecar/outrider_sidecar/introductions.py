# SPDX-License-Identifier: Apache-2.0
"""How a server introduces itself: its name for itself, the revisions it speaks, what it can do and how it wants to be used.

Called by servers at contact; read by lists (what is worth asking for), by local (what is truthfully offered to agents) and by the
prober, which tells the operator. Pure. What a server says of itself is a stranger's words: it is cut to size, and what is not text
is left out. Capabilities that nothing here relays (tasks, extensions, experiments) are not read at all.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Final

import msgspec

from outrider_sidecar import conventions, jsonrpc

CHARACTERS_MAX = 128
VERSIONS_MAX = 16

INSTRUCTIONS_CHARACTERS_MAX = 32_768
"""Longer ones are left out: half of an instruction may say the opposite of the whole."""

TOOLS: Final = "tools"
PROMPTS: Final = "prompts"
RESOURCES: Final = "resources"
COMPLETIONS: Final = "completions"
LOGGING: Final = "logging"
SUBSCRIBE: Final = "resources.subscribe"
KNOWN: Final = {
    TOOLS: ("listChanged",),
    PROMPTS: ("listChanged",),
    RESOURCES: ("listChanged", "subscribe"),
    COMPLETIONS: (),
    LOGGING: (),
}
"""The capabilities that are read, with the flags inside them."""

_REVISION = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclasses.dataclass(frozen=True, slots=True)
class Introduction:
    """'' and () for what it did not say.

    `capabilities`: such as `prompts` and `resources.subscribe`; None for a server that has not been met.
    """

    name: str = ""
    version: str = ""
    protocol_versions: tuple[str, ...] = ()
    capabilities: frozenset[str] | None = None
    instructions: str = ""

    def has(self, capability: str) -> bool:
        """Whether it says so; False while nobody knows."""
        return self.capabilities is not None and capability in self.capabilities


def discovered(answer: jsonrpc.Answer) -> Introduction:
    """Of an answer to `server/discover`; the name stands in `_meta`, in drafts of the revision beside it."""
    parts = _members(answer.payload)
    meta = _members(parts.get("_meta", b""))
    name, version = _named(meta.get(conventions.META_SERVER_INFO) or parts.get("serverInfo", b""))
    return Introduction(
        name,
        version,
        _revisions(parts.get("supportedVersions", b"")),
        _capabilities(parts),
        _instructions(parts),
    )


def greeted(answer: jsonrpc.Answer, spoken: str) -> Introduction:
    """Of an answer to `initialize`, which agreed on the revision `spoken`; others it may speak are not told."""
    parts = _members(answer.payload)
    name, version = _named(parts.get("serverInfo", b""))
    return Introduction(name, version, (spoken,), _capabilities(parts), _instructions(parts))


def _capabilities(parts: dict[str, bytes]) -> frozenset[str]:
    said = _members(parts.get("capabilities", b""))
    found = set()
    for name, flags in KNOWN.items():
        if said.get(name, b"").startswith(b"{"):
            inside = _members(said[name])
            found |= {name, *(f"{name}.{flag}" for flag in flags if inside.get(flag) == b"true")}
    return frozenset(found)


def _instructions(parts: dict[str, bytes]) -> str:
    try:
        text = msgspec.json.decode(parts.get("instructions", b""), type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    return text if len(text) <= INSTRUCTIONS_CHARACTERS_MAX else ""


def _named(raw: bytes) -> tuple[str, str]:
    parts = _members(raw)
    return _text(parts.get("name", b"")), _text(parts.get("version", b""))


def _revisions(raw: bytes) -> tuple[str, ...]:
    try:
        listed = msgspec.json.decode(raw, type=list[str])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ()
    return tuple(sorted({each for each in listed if _REVISION.fullmatch(each)})[-VERSIONS_MAX:])


def _text(raw: bytes) -> str:
    try:
        text = msgspec.json.decode(raw, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    # What no reader sees (controls, zero-width and direction marks) could make one name look like another.
    return "".join(each for each in text[: 8 * CHARACTERS_MAX] if each.isprintable())[:CHARACTERS_MAX]


def _members(raw: bytes) -> dict[str, bytes]:
    try:
        return jsonrpc.members(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
