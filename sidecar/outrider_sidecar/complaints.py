# SPDX-License-Identifier: Apache-2.0
"""Why a server could not be listed, in words that whoever runs it can act on.

Called by the prober; the words stand in the MCPServer's status. Pure. Of what a server or library said it quotes only what
upstream lets through: classes, errno and status, never a header.
"""

from __future__ import annotations

import urllib.parse

from outrider import decision, snapshot

_R = decision.Reason

_NO_ROUTE = "there is no route to {place}; check the address, and NetworkPolicies and firewalls on the way"
_UNTRUSTED = (
    "the certificate of {host} is not trusted or is for another name; put the CA that issued it into `endpoint.tls.caBundle`, "
    "or use the name the certificate has"
)
_SILENT = (
    "{place} did not take the connection, or its TLS handshake, within {connect:g} s; does a NetworkPolicy or firewall drop "
    "it, or is the server overloaded?"
)
_UNREACHABLE = (
    (
        "endpoint unusable",
        "the endpoint cannot be used: {detail}; check `endpoint.url` and `endpoint.tls.caBundle`",
    ),
    ("DNS", "the name {host} cannot be resolved; check the endpoint's host and that it exists in DNS"),
    (
        "ECONNREFUSED",
        "{place} refuses connections; is the server running, and is this the port it listens on?",
    ),
    ("Certificate", _UNTRUSTED),
    ("SSL", "{place} does not speak TLS the way https needs; is it a plain http port, or an old server?"),
    ("EHOSTUNREACH", _NO_ROUTE),
    ("ENETUNREACH", _NO_ROUTE),
    ("Timeout", _SILENT),
    (
        "endpoint unusable",
        "the endpoint cannot be used: {detail}; check `endpoint.url` and `endpoint.tls.caBundle`",
    ),
)
"""What the detail of a connection that was not made holds, and what that means."""

_WORDS = {
    _R.UPSTREAM_ADDRESS_REFUSED: "{detail}",
    _R.UPSTREAM_UNAUTHORIZED: "it needs a credential to list its tools ({detail}), and the prober has none for it",
    _R.UPSTREAM_REDIRECTS: "it answers with a redirect ({detail}), which is never followed; put the URL that it leads to "
    "into the endpoint",
    _R.UPSTREAM_TIMEOUT: "{place} took the connection and did not answer in time; is it overloaded, or waiting for something?",
    _R.UPSTREAM_TOO_LARGE: "its list is larger than `endpoint.maxResultBytes` allows ({detail})",
    _R.UPSTREAM_PROTOCOL_ERROR: "it answers, but not as an MCP server does: {detail}; check the endpoint's path",
    _R.NO_CREDENTIAL_FOR_CALLER: "it needs a credential to list its tools, and the prober has none for it",
}


def words(reason: decision.Reason, detail: str, endpoint: snapshot.Endpoint) -> str:
    """One sentence about one failure; `detail` is what the exception says besides its reason."""
    try:
        parts = urllib.parse.urlsplit(endpoint.url)
        host = parts.hostname or endpoint.url
        place = f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    except ValueError:
        host = place = endpoint.url
    said = _WORDS.get(reason)
    if reason is _R.UPSTREAM_UNREACHABLE:
        said = next((text for sign, text in _UNREACHABLE if sign in detail), "it cannot be reached: {detail}")
    if said is None:
        said = f"{reason.value}: {{detail}}"
    text = said.format(host=host, place=place, detail=detail.rstrip("."), connect=endpoint.connect_seconds)
    return f"{text[:1].upper()}{text[1:]}" if text.endswith("?") else f"{text[:1].upper()}{text[1:]}."
