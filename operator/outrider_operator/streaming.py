# SPDX-License-Identifier: Apache-2.0
"""The operator's HTTP: the config stream, acknowledgements and status.

Called by main. Every request is reviewed before its body is read. One line in flight per stream: a slow reader gets the
newest version when it has read the one before, never two. Refuses what it cannot read with a sentence in JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import hdrs, web

from outrider import snapshot, wire
from outrider_operator import publishing, reviewer

PING_SECONDS = 15.0
STALLED_SECONDS_MAX = 60.0
"""A reader that takes nothing for this long is gone; it dials again if it is not."""

_BODY_BYTES_MAX = 65_536
_STREAMS_MAX = 64
_WRITTEN_POLL_SECONDS = 0.02
_SUBJECT = web.RequestKey("subject", str)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(
    publisher: publishing.Publisher, who: reviewer.Reviewer, *, ping_seconds: float = PING_SECONDS
) -> web.Application:
    """The application of one operator."""
    doors = _Doors(publisher, ping_seconds)
    app = web.Application(middlewares=[_reviewed(who)], client_max_size=_BODY_BYTES_MAX)
    app.router.add_get("/v1/config/stream", doors.stream)
    app.router.add_post("/v1/config/ack", doors.ack)
    app.router.add_get("/v1/status", doors.status)
    return app


def _reviewed(who: reviewer.Reviewer) -> Any:
    @web.middleware
    async def review(request: web.Request, handler: _Handler) -> web.StreamResponse:
        given = request.headers.getall(hdrs.AUTHORIZATION, [])
        token = given[0].removeprefix("Bearer ") if len(given) == 1 and given[0].startswith("Bearer ") else ""
        subject = await who.review(token) if token else None
        if subject is None:
            headers = {"WWW-Authenticate": "Bearer", "Connection": "close"}
            return _error(
                401, "present the token of the operator's token file as Authorization: Bearer", headers
            )
        request[_SUBJECT] = subject
        try:
            return await handler(request)
        except web.HTTPException as error:
            return _error(error.status, error.reason)

    return review


class _Doors:
    def __init__(self, publisher: publishing.Publisher, ping_seconds: float) -> None:
        self._publisher = publisher
        self._ping_seconds = ping_seconds

    async def status(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response(self._publisher.status())

    async def ack(self, request: web.Request) -> web.StreamResponse:
        try:
            message = wire.decode(await request.read())
        except wire.WireError as error:
            return _error(400, str(error))
        if not isinstance(message, wire.Ack):
            return _error(400, "the body is a message, but no ack")
        if not self._publisher.acknowledge(message, request[_SUBJECT]):
            return _error(409, "no open stream was offered this version; dial the stream first")
        return web.json_response({"recorded": True})

    async def stream(self, request: web.Request) -> web.StreamResponse:
        held = _held(request)
        if isinstance(held, str):
            return _error(400, held)
        if len(self._publisher.sidecars) >= _STREAMS_MAX:
            return _error(503, f"{_STREAMS_MAX} streams are open already")
        response = web.StreamResponse(
            headers={hdrs.CONTENT_TYPE: "application/x-ndjson", hdrs.CACHE_CONTROL: "no-store"}
        )
        await response.prepare(request)
        one = publishing.Sidecar(subject=request[_SUBJECT], peer=_peer(request))
        self._publisher.sidecars.append(one)
        try:
            await self._talk(_Line(request, response), one, held)
        except (ConnectionError, TimeoutError):
            # The reader is gone or stalled; what it missed it asks for when it dials again.
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._publisher.sidecars.remove(one)
        return response

    async def _talk(self, line: _Line, one: publishing.Sidecar, held: _Held) -> None:
        publisher = self._publisher
        await line.send(wire.encode(wire.Hello(epoch=publisher.epoch, schema=snapshot.SCHEMA)))
        known = held.version
        first = True
        while not publisher.draining:
            one.changed.clear()
            offer = publisher.offer
            if offer is not None and (first or offer.version != known):
                answer = _answer(offer, known, behind=first and held.ahead_of(offer, publisher.epoch))
                # Noted before it is sent: the acknowledgement may arrive before `send` returns.
                one.offered, one.refusal = offer.version, None
                one.acked = offer.version if offer.version == known else one.acked
                await line.send(answer)
                known, first = offer.version, False
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(one.changed.wait(), self._ping_seconds)
                continue
            await line.send(wire.encode(wire.Ping()))
        await line.send(wire.encode(wire.GoAway(reason="the operator is stopping; dial again")))


def _answer(offer: publishing.Offer, known: str, *, behind: bool) -> bytes:
    if behind:
        return wire.encode(wire.Behind())
    if offer.version == known:
        return wire.encode(wire.Unchanged(version=offer.version, position=dict(offer.position)))
    return offer.line


class _Line:
    """The one way to write to a stream: returns when the reader's side has taken everything."""

    __slots__ = ("_request", "_response")

    def __init__(self, request: web.Request, response: web.StreamResponse) -> None:
        self._request = request
        self._response = response

    async def send(self, line: bytes) -> None:
        """Raises ConnectionError when the reader is gone, TimeoutError when it takes nothing."""
        async with asyncio.timeout(STALLED_SECONDS_MAX):
            await self._response.write(line)
            # aiohttp lets 64 KiB pile up; several small snapshots would queue in it.
            # asyncio offers no event for an empty buffer to code that is not the protocol itself.
            while (transport := self._request.transport) is not None and transport.get_write_buffer_size():  # noqa: ASYNC110 - see above
                await asyncio.sleep(_WRITTEN_POLL_SECONDS)
        if self._request.transport is None:
            raise ConnectionResetError("the reader is gone")


class _Held:
    """What the sidecar says it holds: a version, its position, and (if it says so) the epoch of that position."""

    __slots__ = ("_epoch", "_position", "version")

    def __init__(self, version: str, position: dict[str, int], epoch: int | None) -> None:
        self.version = version
        self._position = position
        self._epoch = epoch

    def ahead_of(self, offer: publishing.Offer, epoch: int) -> bool:
        """True when it holds something newer of the same epoch; positions of different epochs do not compare."""
        return self._epoch == epoch and snapshot.behind(offer.position, self._position)


def _held(request: web.Request) -> _Held | str:
    """The query of a stream, or what is wrong with it."""
    query = request.query
    if query.get("schema") != str(snapshot.SCHEMA):
        return f"schema={snapshot.SCHEMA} is the only one that is spoken here; update the older side"
    version = query.get("version", "")
    if not re.fullmatch(r"([0-9a-f]{64})?", version):
        return "version is the digest of the snapshot held, or empty"
    epoch = query.get("epoch", "")
    if not re.fullmatch(r"[0-9]{0,16}", epoch):
        return "epoch is a number"
    try:
        position = json.loads(query.get("position", "{}"))
    except (ValueError, RecursionError):
        position = None
    if not isinstance(position, dict) or not all(type(at) is int and at >= 0 for at in position.values()):
        return 'position is a JSON object of counters, such as {"files":3}'
    return _Held(version, position, int(epoch) if epoch else None)


def _peer(request: web.Request) -> str:
    name = request.transport.get_extra_info("peername") if request.transport else None
    return f"{name[0]}:{name[1]}" if name else "unknown"


def _error(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": text}, status=status, headers=headers)
