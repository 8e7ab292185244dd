# SPDX-License-Identifier: Apache-2.0
"""Why the API server did not answer or said no, in words for people: the libraries' own name objects in memory and wrap each other.

Used by cluster, listwatch and replicas. Pure.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator

import aiohttp

_ADVICE = {
    401: "the API server does not know who asks; the token or certificate has ended or is of another cluster",
    403: "{text}; give the operator's ServiceAccount that right (the Helm chart does)",
}


def unanswered(server: str, error: BaseException) -> str:
    """A sentence about a request that got no answer."""
    for each in _chain(error):
        # aiohttp's own is of this class too, without what this one says.
        if isinstance(each, ssl.SSLCertVerificationError) and hasattr(each, "verify_message"):
            return (
                f"the API server {server} is not to be trusted: {each.verify_message}; "
                "look at the address and the certificate authority that were given for it"
            )
    return f"the API server {server} does not answer: {why(error)}"


def why(error: BaseException) -> str:
    """What was in the way, in a few words."""
    chain = list(_chain(error))
    for each in reversed(chain):
        if isinstance(each, TimeoutError):
            return "it took too long"
        if isinstance(each, ssl.SSLEOFError | ssl.SSLZeroReturnError | aiohttp.ServerDisconnectedError):
            return "the connection was closed"
        # TLS and names have error numbers of their own.
        if isinstance(each, OSError) and not isinstance(each, ssl.SSLError | socket.gaierror) and each.errno:
            said = os.strerror(each.errno).lower()
            return f"{each.filename}: {said}" if each.filename else said
        if isinstance(each, ConnectionError):
            return "the connection was closed"
    last = chain[-1]
    return " ".join(str(last).split())[:300] or repr(last)


def refused(status: int, reason: str, text: str) -> str:
    """A sentence about an answer that is no; `status` 0 when there is none and `text` is one already."""
    if status == 0:
        return text
    return _ADVICE.get(status, "{reason}: {text}").format(reason=reason, text=text)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it is about, as far as it tells."""
    found: BaseException | None = error
    seen: set[int] = set()
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        inner = [getattr(found, name, None) for name in ("certificate_error", "os_error", "reason")]
        inner += [found.__cause__, *found.args]
        found = next((each for each in inner if isinstance(each, BaseException)), None)
