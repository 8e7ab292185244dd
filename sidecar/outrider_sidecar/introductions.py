# SPDX-License-Identifier: Apache-2.0
"""How a server introduces itself: its name for itself, and the revisions it speaks, as its first answer says.

Called by servers at contact; read by the prober, which tells the operator. Pure. What a server says of itself is a stranger's
words: it is cut to size, and what is not text is left out.
"""

from __future__ import annotations

import dataclasses
import re

import msgspec

from outrider_sidecar import conventions, jsonrpc

CHARACTERS_MAX = 128
VERSIONS_MAX = 16

_REVISION = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclasses.dataclass(frozen=True, slots=True)
class Introduction:
    """'' and () for what it did not say."""

    name: str = ""
    version: str = ""
    protocol_versions: tuple[str, ...] = ()


def discovered(answer: jsonrpc.Answer) -> Introduction:
    """Of an answer to `server/discover`; the name stands in `_meta`, in drafts of the revision beside it."""
    parts = _members(answer.payload)
    meta = _members(parts.get("_meta", b""))
    name, version = _named(meta.get(conventions.META_SERVER_INFO) or parts.get("serverInfo", b""))
    return Introduction(name, version, _revisions(parts.get("supportedVersions", b"")))


def greeted(answer: jsonrpc.Answer, spoken: str) -> Introduction:
    """Of an answer to `initialize`, which agreed on the revision `spoken`; others it may speak are not told."""
    name, version = _named(_members(answer.payload).get("serverInfo", b""))
    return Introduction(name, version, (spoken,))


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
