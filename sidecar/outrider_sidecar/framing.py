# SPDX-License-Identifier: Apache-2.0
"""Where one request ends and the next begins, as far as aiohttp's strict parser leaves that to us (R11).

Called by the door for every request. Refuses what another reader of the same bytes could count differently.
"""

from __future__ import annotations

from aiohttp import web

from outrider_sidecar import exchange

_FRAMING_NAMES = frozenset(
    (b"content-length", b"transfer-encoding", b"upgrade", b"expect", b"content-encoding")
)


def refusal(headers: exchange.Headers) -> tuple[int, str] | None:
    """What aiohttp's strict parser leaves to us: (status, text) of a request whose body cannot be read safely."""
    named: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name in _FRAMING_NAMES:
            named.setdefault(name, []).append(value.strip().lower())
    if not named:
        return None
    coding, length = named.get(b"transfer-encoding"), named.get(b"content-length")
    ambiguous = coding is not None and (coding != [b"chunked"] or length is not None)
    if ambiguous or (length is not None and (len(length) > 1 or not length[0].isdigit())):
        return 400, "malformed HTTP request"
    if any(b"websocket" in value for value in named.get(b"upgrade", ())):
        return 400, "protocol upgrades are not supported here"
    if any(value != b"100-continue" for value in named.get(b"expect", ())):
        return 417, "an expectation that is not supported here"
    if any(value not in (b"", b"identity") for value in named.get(b"content-encoding", ())):
        return 415, "send the body without Content-Encoding"
    return None


def wants_close(request: web.BaseRequest, headers: exchange.Headers) -> bool:
    # An offered upgrade is ignored, but what such a client sends next is not certain to be HTTP/1.1.
    return (
        any(
            name == b"upgrade" or (name == b"connection" and b"close" in value.lower())
            for name, value in headers
        )
        or request.method == "CONNECT"
    )
