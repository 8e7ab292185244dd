# SPDX-License-Identifier: Apache-2.0
"""Who is at the local door: Host and Origin (R4), then the token that only this agent was given (R3).

Called by the pipeline before a body is read. It answers with an Objection or nothing and never looks at what the caller
says about itself.
"""

from __future__ import annotations

import dataclasses
import hmac

from outrider import decision
from outrider_sidecar import exchange

_LOOPBACK = (b"127.0.0.1", b"localhost", b"[::1]")


@dataclasses.dataclass(frozen=True, slots=True)
class Guard:
    """`hosts` are further names this proxy may be called by (`--allowed-host`), lower case, with or without a port.

    `token` is the local-auth token; None asks for none, where loopback is the agent's alone or the kernel has said who calls.
    Origins are accepted on loopback only, any port: browsers' inspectors on a laptop.
    """

    token: bytes | None
    hosts: frozenset[bytes] = frozenset()

    def objection(self, headers: exchange.Headers) -> decision.Objection | None:
        """None when the caller may go on. Constant time in the token."""
        if not self._host_fits(headers) or not self._origin_fits(headers):
            return decision.Objection(decision.Reason.HOST_REFUSED, visible=True)
        if self.token is None:
            return None
        given = _values(headers, b"authorization")
        scheme, _, value = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(value.strip(), self.token):
            return decision.Objection(decision.Reason.LOCAL_AUTH_REFUSED, visible=True)
        return None

    def _host_fits(self, headers: exchange.Headers) -> bool:
        given = _values(headers, b"host")
        if len(given) != 1:
            return False
        host = given[0].lower()
        return _bare(host) in _LOOPBACK or host in self.hosts or _bare(host) in self.hosts

    def _origin_fits(self, headers: exchange.Headers) -> bool:
        given = _values(headers, b"origin")
        if not given:
            return True
        scheme, separator, rest = given[0].lower().partition(b"://")
        return (
            len(given) == 1
            and separator != b""
            and scheme in (b"http", b"https")
            and _bare(rest) in _LOOPBACK
        )


def _values(headers: exchange.Headers, name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]


def _bare(host: bytes) -> bytes:
    """Without a port; a malformed port keeps the text as it is, so that it matches nothing."""
    name, colon, port = host.rpartition(b":")
    return name if colon and port.isdigit() and len(port) <= 5 else host
