# SPDX-License-Identifier: Apache-2.0
"""The door: HTTP from agents, as calls of a `Pipeline`; an adapter of aiohttp's connection handler.

Called by main. It frames, bounds and times requests and answers (R3, R11, R12, R13) and knows nothing of MCP. It
refuses ambiguous framing, compressed bodies and upgrades, never inflates, never cancels the pipeline, and never shows a
client (or the log) a traceback or what the client sent. Who only holds a connection cannot keep anybody else out.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import pathlib
import socket
from collections.abc import Callable
from typing import cast

import aiohttp
from aiohttp import web

from outrider_sidecar import exchange, framing, listening, places, replies

_LOG = logging.getLogger("outrider")

_LINGER_SECONDS = 2.0
_READ_BYTES = 65_536
_LINE_BYTES_MAX = 16_384
_HEADERS_MAX = 100
_ACCEPTED_AT_ONCE = 32
"""Connections accepted between two looks at those that are there, so that a crowd at the door does not stop them."""
_WARN_SECONDS = 60.0


@dataclasses.dataclass(frozen=True, slots=True)
class DoorLimits:
    """Bytes and seconds. `bodies_bytes` bounds all request bodies held at once; `write_seconds` how long a client may
    leave an answer unread.
    """

    body_bytes: int = 4_194_304
    bodies_bytes: int = 67_108_864
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    idle_seconds: float = 75.0
    write_seconds: float = 60.0
    high_water_bytes: int = 65_536
    connections: int = 1_000


class _Answered:
    """What aiohttp gets in place of a response object: everything has been written."""

    def __init__(self, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive

    async def prepare(self, _request: web.BaseRequest) -> None:
        return None

    async def write_eof(self) -> None:
        return None


class _Connection(web.RequestHandler):
    """aiohttp's connection handler with the clocks it lacks."""

    def __init__(self, door: Door, server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=door.limits.idle_seconds,
            access_log=None,  # type: ignore[arg-type]  # None turns it off; the annotation does not say so
            auto_decompress=False,
            lingering_time=_LINGER_SECONDS,
            read_bufsize=_READ_BYTES,
            max_line_size=_LINE_BYTES_MAX,
            max_field_size=_LINE_BYTES_MAX,
            max_headers=_HEADERS_MAX,
        )
        self.door = door
        self.loop = loop
        self.wire: asyncio.Transport | None = None
        self.peer = ""
        self.reply: replies.Answer | None = None
        self.head_since: float | None = None
        self.held_bytes = 0
        self.trusted: bool | None = None
        self._blocked_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.wire = cast("asyncio.Transport", transport)
        self._blocked_since = self.head_since = self.loop.time()
        refused = self.door.enter(self, self.head_since)
        if refused is not None:
            self.wire.write(replies.whole(*refused))
            self._force_close = True
            self.wire.close()
            return
        self.wire.set_write_buffer_limits(high=self.door.limits.high_water_bytes)
        peername = transport.get_extra_info("peername")
        self.peer = str(peername[0]) if isinstance(peername, tuple) else ""
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.wire = None
        super().connection_lost(exc)
        self.door.leave(self)
        if self.reply is not None:
            self.reply.lost()

    def data_received(self, data: bytes) -> None:
        if data and self.reply is None and self.head_since is None:
            self.head_since = self.loop.time()
        super().data_received(data)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._blocked_since = self.loop.time()
        if self.reply is not None:
            self.reply.room()

    @property
    def draining(self) -> bool:
        return self.door.draining

    @property
    def busy(self) -> bool:
        """For `places`. Who was refused is not busy with sending more, nor with leaving the answers unread."""
        if self.reply is not None or self.trusted is False:
            return self.reply is not None
        unread = self.trusted and self.wire is not None and self.wire.get_write_buffer_size() > 0
        return bool(self._messages) or bool(unread)

    def evict(self) -> None:
        """Makes room. Says goodbye in order, unless the client does not even read what it was told."""
        if self.wire is not None and self.wire.get_write_buffer_size():
            self.wire.abort()
        else:
            self.force_close()

    def send(self, data: bytes) -> None:
        """Writes to the client unless it has gone."""
        if self.wire is not None and not self.wire.is_closing():
            if not self.wire.get_write_buffer_size():
                self._blocked_since = self.loop.time()
            self.wire.write(data)

    def abort(self) -> None:
        if self.wire is not None:
            self.wire.abort()

    def sweep(self, now: float) -> None:
        """Closes what is too slow: heads not complete in time, answers not read in time (R12)."""
        if self.wire is None:
            return
        if not self.wire.get_write_buffer_size():
            self._blocked_since = now
        elif now - self._blocked_since > self.door.limits.write_seconds:
            self.abort()
        if self.head_since is not None and now - self.head_since > self.door.limits.head_seconds:
            self.head_since = None
            self.send(replies.whole(408, "the request's head was not complete in time"))
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 -- aiohttp's signature
        status: int = 500,
        exc: BaseException | None = None,  # noqa: ARG002 -- not logged: it quotes what the client sent
        message: str | None = None,  # noqa: ARG002 -- not told: it quotes what the client sent
    ) -> web.StreamResponse:
        """The parser refused the bytes; its own answer would repeat them."""
        self.head_since = None
        self.send(replies.whole(status, "malformed HTTP request" if status < 500 else "internal error"))
        return cast("web.StreamResponse", _Answered(keep_alive=False))

    def log_exception(self, *_args: object, **_kw: object) -> None:
        """The message and the traceback could quote a request."""
        _LOG.error("a connection of the door failed inside the HTTP library and was closed")


class Door:
    """An open door: `port` is what it listens on, 0 for a Unix socket, on which only `uid` is let in. Closed once."""

    def __init__(self, pipeline: exchange.Pipeline, limits: DoorLimits, *, uid: int | None = None) -> None:
        self.limits = limits
        self.uid = uid
        self.draining = False
        self.port = 0
        self._pipeline = pipeline
        self._loop = asyncio.get_running_loop()
        self._server = web.Server(self._handle)
        self._connections: places.Places[_Connection] = places.Places(limits.connections)
        self._warned = -_WARN_SECONDS
        self._active = 0
        self._held_bytes = 0
        self._changed = asyncio.Event()
        slowest = min(limits.head_seconds, limits.write_seconds)
        self._sweep_seconds = min(1.0, max(0.02, slowest / 4))
        self._sweeper = self._loop.call_later(self._sweep_seconds, self._sweep)

    async def listen(self, ours: socket.socket) -> None:
        """On a socket that is bound."""
        listening.raise_descriptors(self.limits.connections + listening.SPARE_DESCRIPTORS)
        self._listener = await self._loop.create_server(
            lambda: _Connection(self, self._server, self._loop), sock=ours, backlog=_ACCEPTED_AT_ONCE
        )
        # asyncio has one number for how many wait and how many come in at once.
        ours.listen(listening.BACKLOG)
        self.port = 0 if ours.family == socket.AF_UNIX else ours.getsockname()[1]

    async def close(self, drain_seconds: float) -> None:
        """Stops accepting, lets answers under way end for at most `drain_seconds`, then cuts what is left."""
        self.draining = True
        self._listener.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain_seconds):
                for _ in range(3):  # a request parsed in this very turn gets its handler first
                    await asyncio.sleep(0)
                for connection in tuple(self._connections):
                    if connection.reply is None:
                        connection.force_close()
                await self._until(lambda: self._active == 0)
                for connection in tuple(self._connections):
                    connection.force_close()
                await self._until(lambda: not self._connections)
        self._sweeper.cancel()
        for connection in tuple(self._connections):
            connection.abort()
        await self._server.shutdown(1.0)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def enter(self, connection: _Connection, now: float) -> tuple[int, str] | None:
        """None for a connection that may stay; a refusal when it is a stranger's, or too many have a request under way."""
        if listening.stranger(connection.wire, self.uid):
            return 403, "this socket is another user's"
        has_place, leaving = self._connections.enter(connection)
        if leaving is not None:
            leaving.evict()
        if (leaving is not None or not has_place) and now - self._warned >= _WARN_SECONDS:
            self._warned = now
            most = self.limits.connections
            _LOG.warning("more than %d connections at once: the oldest that ask nothing are closed", most)
        return None if has_place else (503, "too many connections")

    def leave(self, connection: _Connection) -> None:
        self._connections.leave(connection)
        self._changed.set()

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in tuple(self._connections):
            connection.sweep(now)
        self._sweeper = self._loop.call_later(self._sweep_seconds, self._sweep)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = cast("_Connection", request.protocol)
        connection.head_since = None
        headers = tuple((name.lower(), value) for name, value in request.raw_headers)
        reply = connection.reply = replies.Answer(
            connection,
            http10=request.version < aiohttp.HttpVersion11,
            bodyless=request.method == "HEAD",
            unread=lambda: not request.content.is_eof(),
            closing=framing.wants_close(request, headers),
        )
        if connection.wire is None:
            reply.lost()
        self._active += 1
        try:
            await self._answer(request, headers, reply)
        except Exception as error:  # noqa: BLE001 -- a bug of the pipeline ends its request, never the door
            replies.log_bug(error)
            if not reply.started:
                replies.say(reply, 500, "internal error")
            elif not reply.ended:
                reply.abort()
                await reply.over()  # so that `on_gone` is told
        finally:
            connection.reply = None
            self._connections.idle(connection)
            self._active -= 1
            self._held_bytes -= connection.held_bytes
            connection.held_bytes = 0
            self._changed.set()
        return cast("web.StreamResponse", _Answered(keep_alive=not (reply.closing or reply.gone)))

    async def _answer(
        self, request: web.BaseRequest, headers: exchange.Headers, reply: replies.Answer
    ) -> None:
        connection, received = cast("_Connection", request.protocol), self._loop.time()
        refused = framing.refusal(headers)
        if refused is not None and refused[0] == 400:
            # After ambiguous framing nobody knows where the next request begins.
            reply.closing = True
            replies.say(reply, *refused)
            return
        target = request.raw_path.encode("utf-8", "surrogateescape")
        admitted = self._pipeline.admit(request.method, target, headers, reply)
        connection.trusted = connection.trusted or admitted
        if admitted:
            self._connections.admitted(connection)
            if refused is not None:
                replies.say(reply, *refused)
                return
            body = await self._body(request, headers, reply)
            if body is None:
                return
            peer = connection.peer
            whole = exchange.Request(request.method, target, headers, body, peer, received)
            going_on = self._pipeline.begin(whole, reply)
            if going_on is not None:
                await going_on
        elif not reply.started:
            raise RuntimeError("admit refused without an answer")
        await reply.over()

    async def _body(
        self, request: web.BaseRequest, headers: exchange.Headers, reply: replies.Answer
    ) -> bytes | None:
        """The complete body; None when the request has been refused or the client is gone."""
        connection, content = cast("_Connection", request.protocol), request.content
        declared = next((int(value) for name, value in headers if name == b"content-length"), 0)
        if declared > self.limits.body_bytes:
            replies.say(reply, 413, f"the request's body is larger than {self.limits.body_bytes} bytes")
            return None
        if content.is_eof():
            body = content.read_nowait()
            return body if self._hold(connection, reply, len(body)) else None
        if any(name == b"expect" for name, _ in headers):
            connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                while chunk := await content.readany():
                    if not self._hold(connection, reply, len(chunk)):
                        return None
                    chunks.append(chunk)
        except TimeoutError:
            replies.say(reply, 408, "the request's body was not complete in time")
            return None
        except (web.RequestPayloadError, aiohttp.ClientError, aiohttp.http.HttpProcessingError, OSError):
            if not reply.gone:
                replies.say(reply, 400, "malformed HTTP request")
            return None
        return b"".join(chunks)

    def _hold(self, connection: _Connection, reply: replies.Answer, size: int) -> bool:
        """Accounts for body bytes in memory; False when they are too many and the request has been refused."""
        connection.held_bytes += size
        self._held_bytes += size
        if connection.held_bytes > self.limits.body_bytes:
            replies.say(reply, 413, f"the request's body is larger than {self.limits.body_bytes} bytes")
        elif self._held_bytes > self.limits.bodies_bytes:
            replies.say(reply, 503, "too many request bodies at once; try again")
        return not reply.started


async def serve(
    pipeline: exchange.Pipeline, *, host: str, port: int, limits: DoorLimits | None = None
) -> Door:
    """Opens the door; port 0 lets the kernel choose. Raises OSError when the address cannot be bound."""
    door = Door(pipeline, limits or DoorLimits())
    await door.listen(listening.bound(host, port))
    return door


async def serve_unix(
    pipeline: exchange.Pipeline, *, path: pathlib.Path, uid: int, limits: DoorLimits | None = None
) -> Door:
    """Opens the door as a Unix socket, for processes of one uid. Raises OSError when it cannot be bound."""
    door = Door(pipeline, limits or DoorLimits(), uid=uid)
    await door.listen(listening.unix(path))
    return door
