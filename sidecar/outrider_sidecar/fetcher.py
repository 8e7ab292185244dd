# SPDX-License-Identifier: Apache-2.0
"""One request of the proxy's own to an authorization server or for a set of keys: bounded, and under the rules of the way out.

Made by main for whoever asks by `fetching`. Every request has a connection of its own, to an address that R15
lets be dialled, over TLS except to loopback on a laptop. It refuses redirects, compressed answers and answers that are too long
or too late; it repeats nothing, keeps no cookie and reads no proxy or password from the environment. What went wrong is told in
words of ours: a library's texts may quote what was sent.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import ipaddress
import socket
import ssl
import urllib.parse
from collections.abc import Callable
from collections.abc import Set as AbstractSet

import aiohttp
import yarl
from aiohttp import http_exceptions

from outrider import snapshot
from outrider_sidecar import fetching, pools

SECONDS_MAX = 10.0
"""Nobody is waited for longer, whatever the deadline."""

AT_ONCE_MAX = 16
"""Requests under way to one origin; more wait their turn, so that one slow server keeps no other from being asked."""

_URL_BYTES_MAX = 2048
_CONTEXTS_MAX = 64


class AiohttpFetcher:
    """`fetching.Fetcher`. `network` gives the rules in force, `own` are the proxy's own addresses and the API server's (R15)."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        network: Callable[[], snapshot.Network],
        own: AbstractSet[str] = frozenset(),
    ) -> None:
        self._loop = loop
        self._network = network
        self._own = own
        self._lanes: dict[str, _Lane] = {}

    async def fetch(self, ask: fetching.Ask) -> fetching.Answer:
        """The answer, whatever its status; raises fetching.FetchFailed."""
        asked = _Asked(ask, self._network(), self._own)
        if ask.deadline <= self._loop.time():
            raise asked.failed(fetching.Trouble.TIMEOUT, "was not asked: there was no time left")
        origin = str(asked.url.origin())
        lane = self._lanes.setdefault(origin, _Lane())
        lane.users += 1
        try:
            async with asyncio.timeout_at(min(ask.deadline, self._loop.time() + SECONDS_MAX)), lane.turn:
                return await asked.run(self._loop)
        except TimeoutError:
            raise asked.failed(fetching.Trouble.TIMEOUT, "did not answer in time") from None
        finally:
            lane.users -= 1
            if not lane.users:
                del self._lanes[origin]


class _Lane:
    """The requests to one origin; forgotten when there are none."""

    def __init__(self) -> None:
        self.turn = asyncio.Semaphore(AT_ONCE_MAX)
        self.users = 0


class _Asked:
    """One request under way."""

    def __init__(self, ask: fetching.Ask, network: snapshot.Network, own: AbstractSet[str]) -> None:
        """Raises fetching.FetchFailed for what can never be asked."""
        self._ask = ask
        self._refused = ""
        try:
            parts = urllib.parse.urlsplit(ask.url)
            host, _ = parts.hostname or "", parts.port
            self.shown = fetching.shown(ask.url)
        except ValueError:
            raise fetching.FetchFailed(fetching.Trouble.UNFIT, "the URL cannot be read as one") from None
        if (
            len(ask.url) > _URL_BYTES_MAX
            or not ask.url.isascii()
            or not ask.url.isprintable()
            or " " in ask.url
        ):
            raise self.failed(
                fetching.Trouble.UNFIT, f"is longer than {_URL_BYTES_MAX} bytes or not printable ASCII"
            )
        if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or parts.fragment:
            raise self.failed(
                fetching.Trouble.UNFIT, "is no http or https URL with a host and without a user or fragment"
            )
        self._plain = parts.scheme == "http"
        if self._plain and not network.loopback:
            raise self.failed(fetching.Trouble.UNFIT, "is not asked without TLS; use https")
        self.url = yarl.URL(ask.url, encoded=True)
        self._sockets = pools.sockets(host, network=network, own=own, service=False, refused=self._refuse)

    def failed(self, reason: fetching.Trouble, what: str) -> fetching.FetchFailed:
        """`what` goes on after the URL."""
        return fetching.FetchFailed(reason, f"{self.shown} {what}")

    async def run(self, loop: asyncio.AbstractEventLoop) -> fetching.Answer:
        """Raises fetching.FetchFailed, and TimeoutError if somebody else's time limit ends it."""
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=self._context(),
                resolver=aiohttp.ThreadedResolver(loop=loop),
                force_close=True,
                socket_factory=self._make_socket,
                loop=loop,
            ),
            cookie_jar=aiohttp.DummyCookieJar(loop=loop),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
            skip_auto_headers=("User-Agent", "Content-Type"),
            trust_env=False,
        )
        # aiohttp repeats a GET by itself when a connection goes stale; nothing is repeated here.
        session._retry_connection = False  # noqa: SLF001 -- there is no public switch
        try:
            async with session.request(
                self._ask.method,
                self.url,
                headers=[*self._ask.headers, ("accept-encoding", "identity")],
                data=self._ask.body or None,
                allow_redirects=False,
            ) as response:
                return await self._read(response)
        except (aiohttp.ClientError, http_exceptions.HttpProcessingError, OSError, ValueError) as error:
            # A TimeoutError is an OSError: that of the system (a connection that times out) and that of our own limit.
            if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
                raise
            raise self._explained(error) from None
        finally:
            await session.close()

    async def _read(self, response: aiohttp.ClientResponse) -> fetching.Answer:
        headers = tuple((name.lower(), value) for name, value in response.raw_headers)
        most = min(self._ask.bytes_max, fetching.BYTES_MAX)
        if not 200 <= response.status < 600:
            raise self.failed(fetching.Trouble.MALFORMED, f"answered with status {response.status}")
        if 300 <= response.status < 400:
            raise self.failed(
                fetching.Trouble.REDIRECTED,
                f"answered with status {response.status}, and redirects are never followed: name the place itself",
            )
        if any(
            name == b"content-encoding" and value.strip().lower() not in (b"", b"identity")
            for name, value in headers
        ):
            raise self.failed(
                fetching.Trouble.MALFORMED, "sent a compressed answer, though none was asked for"
            )
        body = bytearray()
        too_long = (response.content_length or 0) > most
        while not too_long and (chunk := await response.content.readany()):
            body += chunk
            too_long = len(body) > most
        if too_long:
            raise self.failed(fetching.Trouble.TOO_LARGE, f"sent an answer of more than {most} bytes")
        return fetching.Answer(response.status, headers, bytes(body))

    def _context(self) -> ssl.SSLContext | bool:
        if not self._ask.ca_bundle:
            return True
        try:
            return _context(self._ask.ca_bundle)
        except (ValueError, OSError):
            raise self.failed(
                fetching.Trouble.UNFIT, "has a caBundle that holds no certificate in PEM"
            ) from None

    def _make_socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        address = str(info[4][0])
        if self._plain and not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
            self._refuse(f"{address}: without TLS only loopback is dialled; use https")
            raise OSError(errno.EACCES, "without TLS")
        return self._sockets(info)

    def _refuse(self, why: str) -> None:
        self._refused = why

    def _explained(self, error: Exception) -> fetching.FetchFailed:
        """By class names and errno, and by what OpenSSL says of a certificate: never by a library's own text."""
        connecting = isinstance(error, aiohttp.ClientConnectorError) or not isinstance(
            error, aiohttp.ClientError
        )
        if self._refused and connecting:
            return self.failed(fetching.Trouble.ADDRESS_REFUSED, f"is not asked: {self._refused}")
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            said = getattr(error.certificate_error, "verify_message", "") or "it cannot be verified"
            return self.failed(
                fetching.Trouble.UNREACHABLE,
                f"has a certificate that is not trusted: {said[: fetching.SHOWN_MAX]}",
            )
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return self.failed(fetching.Trouble.UNREACHABLE, "has a name that does not resolve")
        if isinstance(error, aiohttp.ClientConnectorError):
            return self.failed(fetching.Trouble.UNREACHABLE, f"cannot be reached: {_described(error)}")
        return self.failed(fetching.Trouble.MALFORMED, f"did not answer as HTTP demands: {_described(error)}")


@functools.lru_cache(maxsize=_CONTEXTS_MAX)
def _context(ca_bundle: str) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=ca_bundle)


def _described(error: BaseException) -> str:
    """The class, and the system's name for it where there is one."""
    number = getattr(error, "errno", None)
    known = errno.errorcode.get(number, "") if isinstance(number, int) else ""
    return f"{type(error).__name__} ({known})" if known else type(error).__name__
