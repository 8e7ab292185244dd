# SPDX-License-Identifier: Apache-2.0
"""Texts that carry state of ours through other people's hands and come back unchanged, or not at all.

Called by sessions and states, each with a purpose of its own: what was sealed for one is nothing to the other. Sealed and not
encrypted (decision 0004). Refuses whatever was altered, and every other spelling of the same bytes.
"""

from __future__ import annotations

import base64
import binascii
import hmac

_BYTES = 32


class Seal:
    """HMAC-SHA256 under `key`, 32 bytes that outlive the process; `purpose` ends with a zero byte."""

    def __init__(self, key: bytes, purpose: bytes) -> None:
        self._key = key
        self._purpose = purpose

    def close(self, body: bytes) -> str:
        """Visible ASCII."""
        return base64.urlsafe_b64encode(self._made(body) + body).rstrip(b"=").decode()

    def open(self, text: str, *, characters_max: int) -> bytes | None:
        """What was sealed; None for what never was, or is longer than it could be."""
        if len(text) > characters_max or not text.isascii():
            return None
        try:
            sealed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        seal, body = sealed[:_BYTES], sealed[_BYTES:]
        if not hmac.compare_digest(seal, self._made(body)):
            return None
        if base64.urlsafe_b64encode(sealed).rstrip(b"=").decode() != text:
            return None  # the last character's spare bits were changed: the same bytes, another text
        return body

    def _made(self, body: bytes) -> bytes:
        return hmac.digest(self._key, self._purpose + body, "sha256")
