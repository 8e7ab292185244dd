# SPDX-License-Identifier: Apache-2.0
"""What an endpoint's URL may look like, and whether a credential may travel to it.

Called by the server model, and by the operator for the URLs of bridges. Refuses everything two parsers could read
differently: users, fragments, backslashes, spaces, non-ASCII.
"""

from __future__ import annotations

import ipaddress
import urllib.parse

_HOST = r"[A-Za-z0-9.:\[\]-]+"
_REST = r"(/[\x21\x24-\x5b\x5d\x5f\x61-\x7a\x7e]*)?(\?[\x21\x24-\x5b\x5d\x5f\x61-\x7a\x7e]*)?$"
_PRIVATE = rf"^(https://{_HOST}|http://(localhost|127[.][0-9]+[.][0-9]+[.][0-9]+|\[::1\])(:[0-9]+)?)"

PATTERN = rf"^https?://{_HOST}{_REST}"
"""http or https, a host, perhaps a port, path and query; printable ASCII without spaces, quotes and backslashes."""

PRIVATE_PATTERN = _PRIVATE + _REST
"""The same, and `private`: for schemas that are checked where no code of ours is, such as Helm's."""

ORIGIN_PATTERN = _PRIVATE + "/?$"
"""The same, without path and query."""

PATH_PATTERN = r"^/[\x21\x24-\x3e\x40-\x5b\x5d\x5f\x61-\x7a\x7e]*$"
"""A path alone, of the same characters, without a query."""

_PORT = "int(url(self).getPort())"
_READABLE = (
    f"isURL(self) && url(self).getHostname() != '' && (url(self).getPort() == '' || ({_PORT} > 0 && {_PORT} < 65536))"
    " && !self.matches('^https?://[.-]') && !self.matches('^https?://[^/?]*[.][.]')"
)
RULE = (
    _READABLE,
    "needs a host that is a name or an address, and a port between 1 and 65535 if it names one",
)
"""`problem` as the API server checks it: CEL, and what it says."""

LOOPBACK = r"self.matches('(?i)^http://(localhost|127[.][0-9]+[.][0-9]+[.][0-9]+|\\[::1\\])([:/?]|$)')"
PRIVATE_RULE = (
    f"self.startsWith('https:') || {LOOPBACK}",
    "must be https: what is sent there is secret (http only to this machine itself)",
)
"""`private` as the API server checks it."""


_PORTS = {"http": 80, "https": 443}


def problem(url: str) -> str | None:
    """Why `url`, which fits PATTERN, cannot be an endpoint; None when it can."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not a URL: the host or the port cannot be read"
    if not parts.hostname or port == 0:
        return "needs a host, and a port between 1 and 65535 if it names one"
    if parts.hostname.startswith((".", "-")) or ".." in parts.hostname:
        return "the host is not a name"
    return None


def loopback(url: str) -> bool:
    """True when the host is this machine by its own name: localhost, 127.0.0.0/8 or ::1."""
    host = urllib.parse.urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of a URL that has no `problem`, comparable."""
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme)


def private(url: str) -> bool:
    """True when a credential may travel to `url`: encrypted, or never leaving this machine."""
    return url.startswith("https:") or loopback(url)
