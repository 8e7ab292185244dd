# SPDX-License-Identifier: Apache-2.0
"""Takes a lent secret out of what a server answers, before anybody relays, records or keeps it (N4, protocol.md rule 12).

Called by reading for every message and by the way out for redirects. It finds the secret as it was lent and in any JSON
spelling of it, also inside JSON that is itself text, which is what servers that echo a request send. It is no wall against a server that hides the secret on
purpose (encoded, in pieces): whoever was lent it has it. It refuses to look for anything shorter than SECRET_BYTES_MIN,
which would occur by accident.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable

from outrider import audit

SECRET_BYTES_MIN = 8
"""Below this a secret is likelier to be part of a word than to have been echoed."""

_REDACTED = audit.REDACTED.encode()
_PRINTABLE_ESCAPE = re.compile(rb"\\u00[2-7]")
_ESCAPE = rb"\\(?:u[0-9a-fA-F]{4}|.)"
_HEX = re.compile(rb"[0-9a-fA-F]{4}")
_BACKSLASH = ord("\\")
_BLOCK_BYTES = 64
"""Compared at once."""
_SHORT = frozenset(b'"\\/')
"""Characters that have an escape of their own."""


def message(data: bytes, secrets: Iterable[bytes]) -> bytes:
    """A JSON text without the secrets; the same bytes when it holds none."""
    for secret in secrets:
        if len(secret) >= SECRET_BYTES_MIN and _may_hold(data, secret):
            data = _rewritten(data, secret) if _BACKSLASH in secret else _without(data, secret)
    return data


def text(data: bytes, secrets: Iterable[bytes]) -> bytes:
    """Anything that is not JSON, such as a URL, without the secrets."""
    for secret in secrets:
        if len(secret) >= SECRET_BYTES_MIN:
            quoted = urllib.parse.quote_from_bytes(secret, safe="").encode()
            for each in {secret, quoted}:
                data = data.replace(each, _REDACTED)
    return data


def _may_hold(data: bytes, secret: bytes) -> bool:
    """Cheap for nearly every answer: two searches for fixed bytes."""
    if secret in data:
        return True
    if b"\\" not in data:
        return False
    return bool(_SHORT & set(secret)) or _PRINTABLE_ESCAPE.search(data) is not None


def _without(data: bytes, secret: bytes) -> bytes:
    """Replaces it wherever it stands, in any spelling. Escapes that are no part of it are left whole.

    A pattern is made of its beginning alone: one of a whole token takes the loop's thread a quarter of a second to compile, and
    much memory, for each user anew. What follows a beginning is compared as it comes.
    """
    head = re.compile(_spelled(secret[:SECRET_BYTES_MIN]))
    kept, done, at = [], 0, 0
    while (found := head.search(data, at)) is not None:
        start, at = found.start(), found.start() + 1
        if _is_odd(data, start):
            # A letter after an odd backslash is an escape's; of a long run of them the first is somebody else's.
            if data[start : start + 2] != b"\\\\":
                continue
            start += 1
        end = None if _in_escape(data, start) else _end(data, found.end(), secret)
        if end is not None:
            kept += [data[done:start], _REDACTED]
            done = at = end
    return b"".join([*kept, data[done:]])


def _rewritten(data: bytes, secret: bytes) -> bytes:
    """The same with a pattern of the whole, which finds out by itself which of many backslashes are whose: for secrets with such."""
    return re.sub(rb"%b|(%b)" % (_spelled(secret), _ESCAPE), _redacted, data, flags=re.DOTALL)


def _redacted(found: re.Match[bytes]) -> bytes:
    """Escapes that are not part of the secret are stepped over whole, so that no match begins inside one."""
    escape: bytes | None = found[1]
    return _REDACTED if escape is None else escape


def _end(data: bytes, at: int, secret: bytes) -> int | None:
    """Where the rest of a secret ends whose beginning ends at `at`; None when something else follows."""
    position, plain = SECRET_BYTES_MIN, _SHORT.isdisjoint(secret)
    while position < len(secret):
        block = secret[position : position + _BLOCK_BYTES] if plain else b""
        if block and data.startswith(block, at):
            position, at = position + len(block), at + len(block)
            continue
        found = _ONE[secret[position]].match(data, at)
        if found is None:
            return None
        position, at = position + 1, found.end()
    return at


def _is_odd(data: bytes, at: int) -> bool:
    """Whether an odd number of backslashes stands before it."""
    first = at
    while first > 0 and data[first - 1] == _BACKSLASH:
        first -= 1
    return (at - first) % 2 == 1


def _in_escape(data: bytes, at: int) -> bool:
    """Whether this is one of the four digits of an escape."""
    begin = data.rfind(b"\\u", max(0, at - 5), at)
    return begin >= 0 and not _is_odd(data, begin) and _HEX.match(data, begin + 2) is not None


def _spelled(text: bytes) -> bytes:
    """A pattern for every way in which JSON can write these characters."""
    return b"".join(_character(each) for each in text)


def _character(code: int) -> bytes:
    """Any number of backslashes: results are often JSON inside a JSON string, and each layer adds some."""
    ways = [rb"\\{1,16}u00(?i:%02x)" % code]
    if code == _BACKSLASH:
        ways.append(rb"(?:\\\\){1,8}")  # pairs: an odd one belongs to the quote that follows
    elif code == ord('"'):
        ways.append(rb'\\{1,16}"')
    elif code == ord("/"):
        ways.append(rb"\\{0,16}/")
    else:
        ways.append(re.escape(bytes([code])))
    return b"(?:" + b"|".join(ways) + b")"


_ONE = {code: re.compile(_character(code)) for code in range(256)}
