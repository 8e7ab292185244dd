# SPDX-License-Identifier: Apache-2.0
"""A request to a server of the handshake era whose answer may come in several streams: closed by the server to be polled.

Called by an attempt and by errands in place of the way out. A stream that ends without its answer, and whose events had ids, is
taken up again by GET with Last-Event-ID until the answer is there or the time is over (SEP-1699). The request itself is never
repeated (N8), and the agent sees none of this: neither ids nor pauses.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Protocol

from outrider import decision
from outrider_sidecar import exchange, legacy, legs, reading

RETRY_SECONDS = 1.0
"""Between two streams when the server does not say how long to leave it alone; what SDKs do."""

RETRY_SECONDS_MIN = 0.05
"""A server that wants to be asked at once is not asked in a loop."""

_R = decision.Reason


class Instalments(Protocol):
    """Whoever passes the answer on, when it is told to anybody that it comes in instalments; seconds to leave it alone, if known."""

    def prime(self, retry: float | None) -> None:
        """The stream can be taken up again from here on."""

    def pause(self, retry: float | None) -> None:
        """It has been closed to be polled."""


@dataclasses.dataclass(frozen=True, slots=True)
class Way:
    """What a request goes with: taken from the Permit, as for the way out. `clock` is loop time."""

    upstream: exchange.Upstream
    permit: decision.Permit
    lent: exchange.Lent
    session: legs.Session | None
    clock: Callable[[], float]
    out: Instalments | None = None


def send(
    way: Way, head: exchange.Headers, body: bytes, into: reading.Reading, *, deadline: float
) -> exchange.Flight:
    """As `exchange.Upstream.send`; only a session can be asked for the rest of a stream."""
    if way.session is None or way.session.id is None:
        return way.upstream.send(way.permit, way.lent, head, body, into, deadline=deadline)
    if way.out is not None:
        into.primed = way.out.prime
    return _Polled(way, into, deadline).depart(head, body)


def listening(session: bytes | None, version: str, last: str) -> exchange.Headers:
    """The head of a GET for what a server says on its own, from after its event `last` on; "" from now on."""
    made = [(b"accept", b"text/event-stream"), *legacy.head(session, version)[2:]]
    return (*made, (b"last-event-id", last.encode())) if last else tuple(made)


class _Polled:
    """`exchange.Flight` for whoever asked, and `exchange.Sink` for each of the streams that the answer comes in."""

    __slots__ = ("_cancelled", "_deadline", "_flight", "_into", "_pause", "_taken_up", "_unfit", "_way")

    def __init__(self, way: Way, into: reading.Reading, deadline: float) -> None:
        self._way = way
        self._into = into
        self._deadline = deadline
        self._flight: exchange.Flight | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._taken_up = self._cancelled = False
        self._unfit = ""

    def depart(self, head: exchange.Headers, body: bytes) -> exchange.Flight:
        """Sends the request itself, once."""
        way = self._way
        self._flight = way.upstream.send(way.permit, way.lent, head, body, self, deadline=self._deadline)
        return self

    # The flight, as its owner sees it.

    def resume(self) -> None:
        if self._flight is not None:
            self._flight.resume()

    def cancel(self) -> None:
        self._cancelled = True
        if self._pause is not None:
            self._end(_R.CANCELLED, "the server had closed its stream to be polled")
        elif self._flight is not None:
            self._flight.cancel()

    # The sink of one stream after the other.

    def head(self, status: int, headers: exchange.Headers) -> None:
        """What is no stream does not go on with one: its status is the GET's, and says nothing about the request."""
        kinds = [
            value.partition(b";")[0].strip().lower() for name, value in headers if name == b"content-type"
        ]
        if self._taken_up and (status != 200 or kinds != [b"text/event-stream"]):
            self._unfit = f"the rest of the stream is not to be had: HTTP status {status}"
            return
        self._into.head(status, headers)

    def data(self, chunk: bytes) -> bool:
        return True if self._unfit else self._into.data(chunk)

    def done(self, end: exchange.Complete | exchange.Failed) -> None:
        broke_off = isinstance(end, exchange.Complete) or end.reason is _R.UPSTREAM_PROTOCOL_ERROR
        unreached = isinstance(end, exchange.Failed) and end.sent is exchange.Sent.NOT_SENT
        place = None if self._unfit or self._cancelled else self._into.place
        if place is not None and (broke_off or (self._taken_up and unreached)):
            self._wait(place[0], place[1])
        elif self._unfit:
            self._end(_R.UPSTREAM_PROTOCOL_ERROR, self._unfit)
        elif self._taken_up and isinstance(end, exchange.Failed):
            self._end(end.reason, end.detail)
        else:
            self._into.done(end)

    def _wait(self, last: str, seconds: float | None) -> None:
        pause = max(RETRY_SECONDS if seconds is None else seconds, RETRY_SECONDS_MIN)
        if self._way.clock() + pause >= self._deadline:
            self._end(_R.UPSTREAM_TIMEOUT, "the server closed its stream to be polled after the deadline")
            return
        if self._way.out is not None:
            self._way.out.pause(seconds)
        self._pause = asyncio.get_running_loop().call_later(pause, self._take_up, last)

    def _take_up(self, last: str) -> None:
        way, self._pause = self._way, None
        assert way.session is not None
        self._taken_up = True
        head = listening(way.session.id, way.session.version, last)
        self._flight = way.upstream.send(
            way.permit, way.lent, head, b"", self, deadline=self._deadline, method="GET"
        )

    def _end(self, reason: decision.Reason, detail: str) -> None:
        """Whatever became of a GET, the request before it has been sent."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._into.done(exchange.Failed(reason, exchange.Sent.MAYBE_SENT, detail))
