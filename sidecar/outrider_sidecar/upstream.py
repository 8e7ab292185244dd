# SPDX-License-Identifier: Apache-2.0
"""The way out: one HTTP request per Permit through aiohttp's client, into a `Sink`.

Called by the pipeline and the lists. It refuses addresses that R15 forbids (each one, as its socket is made), redirects,
compressed and ambiguously framed answers, and answers without end; it retries nothing, keeps no cookie and reads no
proxy from the environment. What went wrong is told by class names and errno: a library's texts may quote a header.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import io
import logging
import re
import urllib.parse
from collections.abc import Callable
from collections.abc import Set as AbstractSet

import aiohttp
import yarl
from aiohttp import http_exceptions

from outrider import decision, snapshot
from outrider_sidecar import exchange, pools, scrubbing

_LOG = logging.getLogger("outrider")

ENVELOPE_BYTES = 65_536
EVENTS_TIMES = 16
"""An event stream may be this many results long in all: progress adds up, endless streams do not (R14)."""
_WHOLE_BODY_BYTES = 262_144

_OWN_NAMES = frozenset(
    b"host content-length transfer-encoding accept-encoding connection keep-alive te trailer upgrade expect".split()
)
"""Framing and connection are the way out's own, and so is asking for an answer that is not compressed."""
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

_R = decision.Reason


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class _Outbound:
    """One request as it will be sent. No repr: the headers hold the credential (N4)."""

    method: str
    url: yarl.URL
    headers: list[tuple[str, str]]
    body: bytes
    answer_bytes_max: int
    secrets: tuple[bytes, ...]


class _Flight:
    """`exchange.Flight`: one task, one timer, one `done`."""

    __slots__ = ("_into", "_landed", "_leg", "_loop", "_pool", "_room", "_task", "_timer", "_why")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pool: pools.Pool,
        into: exchange.Sink,
        *,
        landed: Callable[[_Flight], None],
    ) -> None:
        self._loop = loop
        self._pool = pool
        self._into = into
        self._landed = landed
        self._leg = pools.Leg()
        self._room: asyncio.Future[None] | None = None
        self._why: decision.Reason | None = None

    def depart(self, outbound: _Outbound, deadline: float) -> None:
        """Called once, right after it was made."""
        self._task = self._loop.create_task(self._run(outbound))
        self._timer = self._loop.call_at(deadline, self._give_up, _R.UPSTREAM_TIMEOUT)
        # Not a `finally` in the task: one that is cancelled before its first step never reaches it.
        self._task.add_done_callback(self._land)

    @property
    def task(self) -> asyncio.Task[exchange.Complete | exchange.Failed]:
        """For `close`, which waits for it."""
        return self._task

    def resume(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def cancel(self) -> None:
        self._give_up(_R.CANCELLED)

    def _give_up(self, why: decision.Reason) -> None:
        if self._why is None and not self._task.done():
            self._why = why
            self._task.cancel()

    def _land(self, task: asyncio.Task[exchange.Complete | exchange.Failed]) -> None:
        self._timer.cancel()
        self._landed(self)
        if task.cancelled():
            end = self._failed(self._why or _R.CANCELLED, self._leg.phase.value)
        elif (error := task.exception()) is not None:
            end = self._failed(_R.INTERNAL, _describe(error))
        else:
            end = task.result()
            if self._why is not None and isinstance(end, exchange.Failed):
                end = self._failed(self._why, end.detail)
        try:
            self._into.done(end)
        except Exception as error:  # noqa: BLE001 -- the loop's handler would log the sink, which may hold secrets
            _LOG.error("the end of an upstream request could not be settled: %s", type(error).__name__)

    def _failed(self, reason: decision.Reason, detail: str) -> exchange.Complete | exchange.Failed:
        sent = exchange.Sent.MAYBE_SENT if self._leg.phase is pools.Phase.SENDING else exchange.Sent.NOT_SENT
        return exchange.Failed(reason, sent, detail)

    async def _run(self, outbound: _Outbound) -> exchange.Complete | exchange.Failed:
        pools.LEG.set(self._leg)
        response: aiohttp.ClientResponse | None = None
        try:
            response = await self._pool.session.request(
                outbound.method,
                outbound.url,
                headers=outbound.headers,
                data=_data(outbound.body),
                allow_redirects=False,
            )
            end = await self._read(response, outbound)
        except Exception as error:  # noqa: BLE001 -- every failure is an end, told once
            end = self._explain(error)
        finally:
            # Complete answers gave their connection back at their last byte; every other one is closed.
            if response is not None and response.connection is not None:
                response.close()
        return end

    async def _read(
        self, response: aiohttp.ClientResponse, outbound: _Outbound
    ) -> exchange.Complete | exchange.Failed:
        bytes_max = outbound.answer_bytes_max
        headers = tuple((name.lower(), value) for name, value in response.raw_headers)
        refused = _refuse_head(response.status, headers, outbound.secrets)
        if refused is not None:
            if self._leg.protocol is not None:
                # An answer without a body has given its connection back already, but nobody can have taken it yet:
                # there was no await in between.
                self._leg.protocol.close()
            return self._failed(*refused)
        if (response.content_length or 0) > bytes_max:
            return self._failed(_R.UPSTREAM_TOO_LARGE, f"more than {bytes_max} bytes announced")
        if response.content_type == "text/event-stream":
            bytes_max *= EVENTS_TIMES
        self._into.head(response.status, headers)
        received = 0
        while chunk := await response.content.readany():
            received += len(chunk)
            if received > bytes_max:
                return self._failed(_R.UPSTREAM_TOO_LARGE, f"more than {bytes_max} bytes")
            # Made before `data` is called, so that a `resume` from within it is not lost.
            self._room = self._loop.create_future()
            if not self._into.data(chunk):
                await self._room
            self._room = None
        return exchange.Complete()

    def _explain(self, error: Exception) -> exchange.Complete | exchange.Failed:
        if self._leg.phase is pools.Phase.CONNECTING:
            if self._leg.refused:
                return self._failed(_R.UPSTREAM_ADDRESS_REFUSED, self._leg.refused)
            return self._failed(_R.UPSTREAM_UNREACHABLE, _describe(error))
        broken = isinstance(error, aiohttp.ClientError | http_exceptions.HttpProcessingError | OSError)
        return self._failed(_R.UPSTREAM_PROTOCOL_ERROR if broken else _R.INTERNAL, _describe(error))


class _Grounded:
    """The flight of a request that was refused before it left."""

    def resume(self) -> None:
        """There was never anything to resume."""

    def cancel(self) -> None:
        """Its end is already on its way."""


class AiohttpUpstream:
    """`exchange.Upstream`. `network` gives the current snapshot's network rules; a change of them changes the pools.

    `own_addresses` are never dialled: as in `addresses.check`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        network: Callable[[], snapshot.Network],
        own_addresses: AbstractSet[str] = frozenset(),
    ) -> None:
        self._loop = loop
        self._pools = pools.Pools(loop, network=network, own=own_addresses)
        self._flights: set[_Flight] = set()
        self._closed = False

    def send(  # noqa: PLR0913 -- the shape of exchange.Upstream
        self,
        permit: decision.Permit,
        lent: exchange.Lent,
        head: exchange.Headers,
        body: bytes,
        into: exchange.Sink,
        *,
        deadline: float,
        method: str = "POST",
        place: str = "",
    ) -> exchange.Flight:
        """As `exchange.Upstream.send`. Headers are `head`, what is lent and the endpoint's constants, in that order.

        A lent header replaces one of the same name, and a constant never replaces any. `place` is another path and query at
        the endpoint's own origin, already encoded.
        """
        endpoint = permit.server.endpoint
        if self._closed:
            return self._ground(into, _R.CANCELLED, "the proxy is shutting down")
        try:
            headers = _headers(head, lent.headers, endpoint.headers)
            pool = self._pools.of(permit.server, listening=method == "GET", identity=lent.identity)
            url = pool.url if not place else pool.at(place)
        except _Unsendable as refused:
            return self._ground(into, refused.reason, str(refused))
        except (ValueError, OSError) as error:
            # An unusable URL or CA bundle: no connection can ever be made with it.
            return self._ground(into, _R.UPSTREAM_UNREACHABLE, f"endpoint unusable: {_describe(error)}")

        def landed(flight: _Flight) -> None:
            self._flights.discard(flight)
            pool.flights -= 1
            pool.used = self._loop.time()

        flight = _Flight(self._loop, pool, into, landed=landed)
        pool.flights += 1
        self._flights.add(flight)
        most = endpoint.result_bytes_max + ENVELOPE_BYTES
        flight.depart(_Outbound(method, url, headers, body, most, lent.secrets), deadline)
        return flight

    async def close(self) -> None:
        """Cancels every flight, whose `done` all come before this returns, and closes every connection."""
        self._closed = True
        flights = tuple(self._flights)
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*(flight.task for flight in flights), return_exceptions=True)
        await self._pools.close()

    def _ground(self, into: exchange.Sink, reason: decision.Reason, detail: str) -> exchange.Flight:
        end = exchange.Failed(reason, exchange.Sent.NOT_SENT, detail)
        self._loop.call_soon(into.done, end)
        return _Grounded()


class _Unsendable(Exception):
    def __init__(self, reason: decision.Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def _headers(
    head: exchange.Headers, lent: exchange.Headers, constants: tuple[tuple[str, str], ...]
) -> list[tuple[str, str]]:
    lent_names = {name for name, _ in lent}
    taken = lent_names | {name for name, _ in head}
    made = [
        _header(name, value, _R.INTERNAL)
        for name, value in head
        if name not in _OWN_NAMES and name not in lent_names
    ]
    made += [_header(name, value, _R.CREDENTIAL_MALFORMED) for name, value in lent]
    for text, constant in constants:
        name = text.lower().encode()
        if name not in taken:
            made.append(_header(name, constant.encode(), _R.INTERNAL))
    made.append(("accept-encoding", "identity"))
    return made


def _header(name: bytes, value: bytes, reason: decision.Reason) -> tuple[str, str]:
    """One header as aiohttp takes it; raises _Unsendable without a byte of the value."""
    shown = name.decode("ascii", "backslashreplace")
    if name in _OWN_NAMES or not _TOKEN.fullmatch(name):
        raise _Unsendable(reason, f"{shown!r} cannot be sent as a header's name")
    if _CONTROL.search(value):
        raise _Unsendable(reason, f"the value of header {shown!r} has a control character in it")
    try:
        return shown, value.decode()
    except UnicodeDecodeError:
        raise _Unsendable(reason, f"the value of header {shown!r} is not UTF-8") from None


def _refuse_head(
    status: int, headers: exchange.Headers, secrets: tuple[bytes, ...]
) -> tuple[decision.Reason, str] | None:
    """(reason, detail) of an answer whose body must not be read."""
    coding = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    lengths = sum(name == b"content-length" for name, _ in headers)
    if status < 200:
        return _R.UPSTREAM_PROTOCOL_ERROR, f"status {status}"
    if 300 <= status < 400:
        return _R.UPSTREAM_REDIRECTS, f"status {status} to path {_path(headers, secrets)!a}"
    if any(
        name == b"content-encoding" and value.strip().lower() not in (b"", b"identity")
        for name, value in headers
    ):
        return _R.UPSTREAM_PROTOCOL_ERROR, "a compressed answer, though none was asked for"
    if lengths > 1 or (coding and (lengths or coding != [b"chunked"])):
        return _R.UPSTREAM_PROTOCOL_ERROR, "ambiguous framing"
    return None


def _path(headers: exchange.Headers, secrets: tuple[bytes, ...]) -> str:
    """Where a redirect points, its path only: host and query could carry secrets, and the path the one we lent."""
    location = next((value for name, value in headers if name == b"location"), b"")
    location = scrubbing.text(location, secrets)
    try:
        return urllib.parse.urlsplit(location.decode("ascii", "replace")).path[:200]
    except ValueError:
        return ""


def _data(body: bytes) -> bytes | io.BytesIO | None:
    """Large bodies go out in pieces: aiohttp warns about, and copies, a large one in one piece."""
    if not body:
        return None
    return body if len(body) <= _WHOLE_BODY_BYTES else io.BytesIO(body)


def _describe(error: BaseException) -> str:
    """Class names and errno, never texts: those may quote headers."""
    number = getattr(error, "errno", None)
    cause = error.__cause__
    name = type(error).__name__
    if cause is not None:
        name += f" by {type(cause).__name__}"
    if isinstance(number, int):
        name += f" ({errno.errorcode.get(number, f'errno {number}')})"
    return name
