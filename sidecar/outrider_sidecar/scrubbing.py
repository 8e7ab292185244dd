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
_SHORT = frozenset(b'"\\/')
"""Characters that have an escape of their own."""


def message(data: bytes, secrets: Iterable[bytes]) -> bytes:
    """A JSON text without the secrets; the same bytes when it holds none."""
    for secret in secrets:
        if len(secret) >= SECRET_BYTES_MIN and _may_hold(data, secret):
            data = re.sub(rb"%b|(%b)" % (_spelled(secret), _ESCAPE), _redacted, data, flags=re.DOTALL)
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
    if _SHORT & set(secret) or _PRINTABLE_ESCAPE.search(data):
        return re.search(_spelled(secret), data) is not None
    return False


def _spelled(secret: bytes) -> bytes:
    """A pattern for every way in which JSON can write these characters."""
    return b"".join(_character(each) for each in secret)


def _character(code: int) -> bytes:
    """Any number of backslashes: results are often JSON inside a JSON string, and each layer adds some."""
    ways = [rb"\\{1,16}u00(?i:%02x)" % code]
    if code == ord("\\"):
        ways.append(rb"(?:\\\\){1,8}")  # pairs: an odd one belongs to the quote that follows
    elif code == ord('"'):
        ways.append(rb'\\{1,16}"')
    elif code == ord("/"):
        ways.append(rb"\\{0,16}/")
    else:
        ways.append(re.escape(bytes([code])))
    return b"(?:" + b"|".join(ways) + b")"


def _redacted(found: re.Match[bytes]) -> bytes:
    """Escapes that are not part of the secret are stepped over whole, so that no match begins inside one."""
    escape: bytes | None = found[1]
    return _REDACTED if escape is None else escape
