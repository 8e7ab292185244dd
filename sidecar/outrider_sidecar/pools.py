# SPDX-License-Identifier: Apache-2.0
"""Connections to upstreams: who shares which, how they are made, and what may never be dialled (R15).

Called by upstream. Refuses an address at the one place where sockets are made, so that literal addresses, DNS answers
that change and happy-eyeballs races all pass the same check; refuses to reuse a connection with unread bytes on it.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import enum
import socket
import ssl
import urllib.parse
from collections.abc import Callable
from collections.abc import Set as AbstractSet

import aiohttp
import yarl
from aiohttp import client_proto, connector, tracing

from outrider import names, snapshot
from outrider_sidecar import addresses, exchange

CONNECTIONS_PER_POOL = 1_024
"""As many as agents can hold at the door, and some for what is said about calls under way: a cancellation or an answer to
what a server asked must never wait behind the long streams that it is about."""
_READ_BYTES = 65_536
_DNS_SECONDS = 10
_FORGET_SECONDS = 300.0
_NO_AUTO_HEADERS = ("Accept", "Content-Type", "User-Agent")


class Phase(enum.Enum):
    QUEUED = "waiting for a free connection"
    CONNECTING = "connecting"
    SENDING = "sent"


class Leg:
    """What the connector tells the flight that is connecting; found through `LEG`."""

    __slots__ = ("phase", "protocol", "refused")

    def __init__(self) -> None:
        self.phase = Phase.QUEUED
        self.protocol: client_proto.ResponseHandler | None = None
        self.refused = ""


LEG: contextvars.ContextVar[Leg] = contextvars.ContextVar("outrider_upstream_leg")


class _AddressRefused(OSError):
    """Raised where a socket would have been made."""


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """Connections are shared only by requests for which all of this is equal.

    `listening`: for streams that a server sends on its own, which are held as long as it will; calls never wait for them.
    `identity` names who we are on them (mTLS), "" for nobody: a certificate that replaced another gets connections of its own,
    and so its own TLS session, while what is under way goes on with the one it began with.
    """

    server: names.ServerId
    url: str
    listening: bool
    service: bool
    ca_bundle: str | None
    connect_seconds: float
    pool_idle_seconds: float
    network: snapshot.Network
    identity: str = ""


def sockets(
    host: str,
    *,
    network: snapshot.Network,
    own: AbstractSet[str],
    service: bool,
    refused: Callable[[str], None],
) -> Callable[[aiohttp.AddrInfoType], socket.socket]:
    """What makes every socket to `host`: an address that R15 forbids gets none, and `refused` is told why."""

    def make(info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, proto, _, address = info
        reason = addresses.check(
            str(address[0]), port=int(address[1]), host=host, network=network, own=own, service=service
        )
        if reason is not None:
            refused(f"{address[0]}: {reason}")
            raise _AddressRefused(reason)
        return socket.socket(family=family, type=kind, proto=proto)

    return make


def _tell_leg(refused: str) -> None:
    LEG.get().refused = refused


class _Connector(aiohttp.TCPConnector):
    """aiohttp's pool, telling the flight how far it got, with R15 at the one place where sockets are made."""

    def __init__(
        self,
        key: Key,
        own: AbstractSet[str],
        loop: asyncio.AbstractEventLoop,
        shown: ssl.SSLContext | None = None,
    ) -> None:
        self._key = key
        host = urllib.parse.urlsplit(key.url).hostname or ""
        # An empty bundle means the system's roots: aiohttp's own verified context, made at import.
        trusted = ssl.create_default_context(cadata=key.ca_bundle) if key.ca_bundle and not shown else True
        super().__init__(
            ssl=shown or trusted,
            resolver=aiohttp.ThreadedResolver(loop=loop),
            ttl_dns_cache=_DNS_SECONDS,
            limit=CONNECTIONS_PER_POOL,
            limit_per_host=CONNECTIONS_PER_POOL,
            keepalive_timeout=key.pool_idle_seconds,
            socket_factory=sockets(
                host, network=key.network, own=own, service=key.service, refused=_tell_leg
            ),
            loop=loop,
        )

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[tracing.Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 -- aiohttp's signature
    ) -> connector.Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            if protocol is not None and not protocol.should_close:
                leg = LEG.get()
                leg.phase = Phase.SENDING
                leg.protocol = protocol
                return connection
            # Bytes nobody asked for wait on this pooled connection; they would be read as our answer (N5).
            connection.close()

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[tracing.Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 -- aiohttp's signature
    ) -> client_proto.ResponseHandler:
        LEG.get().phase = Phase.CONNECTING
        async with asyncio.timeout(self._key.connect_seconds):
            return await super()._create_connection(req, traces, timeout)


class Pool:
    """The connections of one `Key`."""

    __slots__ = ("flights", "key", "session", "url", "used")

    def __init__(
        self,
        key: Key,
        own: AbstractSet[str],
        loop: asyncio.AbstractEventLoop,
        shown: ssl.SSLContext | None = None,
    ) -> None:
        """`shown` is TLS with a client certificate. Raises ValueError when the URL cannot be called and ssl.SSLError when the bundle cannot be read."""
        parts = urllib.parse.urlsplit(key.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError("an endpoint is an http or https URL with a host and without a user")
        self.key = key
        # Already encoded: what the endpoint says is what is sent, byte for byte.
        self.url = yarl.URL(key.url, encoded=key.url.isascii())
        self.flights = 0
        self.used = 0.0
        self.session = aiohttp.ClientSession(
            connector=_Connector(key, own, loop, shown),
            cookie_jar=aiohttp.DummyCookieJar(loop=loop),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
            skip_auto_headers=_NO_AUTO_HEADERS,
            trust_env=False,
            read_bufsize=_READ_BYTES,
        )
        # aiohttp repeats GET and DELETE by itself on a stale connection; nothing is repeated here (N8).
        self.session._retry_connection = False  # noqa: SLF001 -- there is no public switch

    def at(self, place: str) -> yarl.URL:
        """Another path and query at the same origin. Raises ValueError when it is none."""
        if not place.startswith("/") or place.startswith("//") or not place.isascii():
            raise ValueError("a place is an absolute path")
        return yarl.URL(f"{self.url.scheme}://{self.url.raw_authority}{place}", encoded=True)


class Pools:
    """Every pool in use. One whose key changed (other URL, other network rules) is replaced, never altered."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        network: Callable[[], snapshot.Network],
        own: AbstractSet[str],
    ) -> None:
        self._loop = loop
        self._network = network
        self._own = own
        self._pools: dict[Key, Pool] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def of(
        self,
        server: snapshot.ServerView,
        *,
        listening: bool = False,
        identity: exchange.Identity | None = None,
    ) -> Pool:
        """The pool for this server as it is configured now, and for who we are to it. Raises as Pool does."""
        endpoint = server.endpoint
        key = Key(
            server.id,
            endpoint.url,
            listening,
            endpoint.service,
            endpoint.ca_bundle,
            endpoint.connect_seconds,
            endpoint.pool_idle_seconds,
            self._network(),
            "" if identity is None else identity.name,
        )
        pool = self._pools.get(key)
        if pool is None:
            self._forget(key)
            shown = None if identity is None else identity.context
            pool = self._pools[key] = Pool(key, self._own, self._loop, shown)
        return pool

    async def close(self) -> None:
        """Closes every connection, in use or not."""
        pools = tuple(self._pools.values())
        self._pools.clear()
        await asyncio.gather(*(pool.session.close() for pool in pools), *self._closing)

    def _forget(self, fresh: Key) -> None:
        """Closes pools without flights that another has replaced or that were not used for a while."""
        stale = self._loop.time() - _FORGET_SECONDS
        for key, pool in tuple(self._pools.items()):
            replaced = _role(key) == _role(fresh)
            if pool.flights == 0 and (replaced or pool.used < stale):
                del self._pools[key]
                task = self._loop.create_task(pool.session.close())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)


def _role(key: Key) -> tuple[names.ServerId, bool, str]:
    """Of two pools with the same one the later replaces the other."""
    return key.server, key.listening, key.identity.partition("\0")[0]
