# SPDX-License-Identifier: Apache-2.0
"""Header names that are the proxy's own to set, and the look of a secret where a constant should be.

Called by the server model. Refuses by name and by shape, and never repeats a value: it may be the secret.
"""

from __future__ import annotations

import re

from outrider.resources.fields import matches

_RESERVED = frozenset(
    {
        "accept", "accept-encoding", "connection", "date", "expect", "forwarded", "host", "http2-settings", "keep-alive",
        "last-event-id", "te", "trailer", "transfer-encoding", "upgrade", "via",
    }
)  # fmt: skip
_RESERVED_PREFIXES = ("content-", "mcp-", "proxy-", "x-forwarded-", "outrider-")
_NAME_PATTERN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}"
_TELLING_NAME_PATTERN = r"auth|cookie|token|secret|passw|credential|api-?_?key|access-?_?key|private-?_?key|session|signature|jwt|bearer"
_TELLING_VALUE_PATTERN = (
    r"^(bearer|basic|digest|negotiate|token)\s+\S|-----begin|\beyj[a-z0-9_-]{8,}\.|^(sk|pk|rk)[-_][a-z0-9_-]{8,}"
    r"|^(gh[a-z]_|github_pat_|glpat-|xox[a-z]-|hvs\.|s\.[a-z0-9]{20}|akia[0-9a-z]{12}|aiza[0-9a-z_-]{20}|npm_|pypi-)"
)
_UUID_PATTERN = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_RANDOM_PATTERN = r"[A-Za-z0-9+/=_-]{24,}"
_HEX_PATTERN = r"[0-9a-f]{32,}"

_NAME = re.compile(_NAME_PATTERN)
_TELLING_NAME = re.compile(_TELLING_NAME_PATTERN)
_TELLING_VALUE = re.compile(_TELLING_VALUE_PATTERN, re.IGNORECASE)
_UUID = re.compile(_UUID_PATTERN, re.IGNORECASE)
_RANDOM = re.compile(_RANDOM_PATTERN)


_OURS = "^(" + "|".join([*(f"{name}$" for name in sorted(_RESERVED)), *_RESERVED_PREFIXES]) + ")"
_LOOKS_SECRET = (
    f"{matches('self[k]', f'(?i){_TELLING_VALUE_PATTERN}')} || ({matches('self[k]', f'^{_RANDOM_PATTERN}$')}"
    f" && !{matches('self[k]', f'(?i)^{_UUID_PATTERN}$')} && {matches('self[k]', '[0-9]')}"
    f" && ({matches('self[k]', f'(?i)^{_HEX_PATTERN}$')}"
    f" || ({matches('self[k]', '[a-z]')} && {matches('self[k]', '[A-Z]')})))"
)

RULES = (
    (
        f"self.all(k, {matches('k', f'^{_NAME_PATTERN}$')})",
        "a header's name is letters, digits and !#$%&'*+.^_`|~- only, at most 64",
    ),
    (
        f"self.all(k, !{matches('k.lowerAscii()', _OURS)})",
        "one of these headers is the proxy's own to set (framing, hops, MCP's own); remove it",
    ),
    (
        f"self.all(k, !{matches('k.lowerAscii()', _TELLING_NAME_PATTERN)})",
        "one of these is the name of a secret; list it under credentials instead",
    ),
    (
        "self.all(k, self[k] == self[k].trim())",
        "a value begins or ends with a space, which HTTP does not keep; remove it",
    ),
    (
        f"self.all(k, !({_LOOKS_SECRET}))",
        "a value looks like a secret; constants are readable by everybody, so put it under credentials",
    ),
    (
        "self.all(k, self.exists_one(o, o.lowerAscii() == k.lowerAscii()))",
        "two names differ only in case; header names have no case",
    ),
)
"""`constant_problem`, and that names have no case, as the API server checks them: (CEL, what it says)."""


INJECTED_RULE = (
    f"!{matches('self.lowerAscii()', _OURS)} && self.lowerAscii() != 'cookie'",
    "this header is the proxy's own to set (framing, hops, MCP's own, cookies); a credential cannot go there",
)
"""Where a credential may go, as the API server checks it."""


def reserved(name: str) -> bool:
    """True for headers that only the proxy may set, whoever asks (framing, hops, MCP's own)."""
    lower = name.lower()
    return lower in _RESERVED or lower.startswith(_RESERVED_PREFIXES)


def constant_problem(name: str, value: str) -> str | None:
    """Why `name: value` cannot be a constant header; None when it can. The value is not repeated."""
    if not _NAME.fullmatch(name):
        return "is not a header name: letters, digits and !#$%&'*+.^_`|~- only, at most 64"
    if reserved(name):
        return "is the proxy's own to set; remove it"
    if _TELLING_NAME.search(name.lower()):
        return "is the name of a secret; put the value in a file and list it under credentials"
    if value != value.strip():
        return "begins or ends with a space, which HTTP does not keep"
    if _looks_secret(value):
        return "looks like a secret; constants are readable by everybody, so put it under credentials"
    return None


def _looks_secret(value: str) -> bool:
    if _TELLING_VALUE.search(value):
        return True
    if _UUID.fullmatch(value) or not _RANDOM.fullmatch(value):
        return False
    # Words joined by hyphens have one kind of letters; what a generator made mixes them with digits.
    digits = any(c.isdigit() for c in value)
    mixed = any(c.islower() for c in value) and any(c.isupper() for c in value)
    return digits and (mixed or re.fullmatch(_HEX_PATTERN, value, re.IGNORECASE) is not None)
