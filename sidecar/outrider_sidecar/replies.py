# SPDX-License-Identifier: Apache-2.0
"""One HTTP/1.1 answer on one connection: `exchange.Reply`, framed by hand so that nothing of it has to be awaited.

Called by the door, which owns the connection. Refuses what would break the framing: line ends in headers, a second
start or end, more or fewer bytes than the length given.
"""

from __future__ import annotations

import asyncio
import email.utils
import http
import logging
import time
from collections.abc import Callable
from typing import Protocol

from outrider_sidecar import exchange

_LOG = logging.getLogger("outrider")

_OWN_NAMES = frozenset((b"content-length", b"transfer-encoding", b"connection", b"date"))
_REASONS = {status.value: status.phrase.encode() for status in http.HTTPStatus}


class Wire(Protocol):
    """What an answer needs of its connection."""

    loop: asyncio.AbstractEventLoop

    @property
    def draining(self) -> bool:
        """True when no further request should come on this connection."""

    @property
    def writing_paused(self) -> bool:
        """True above the high-water mark."""

    def send(self, data: bytes) -> None:
        """Queues bytes; drops them when the client has gone."""

    def abort(self) -> None:
        """Cuts the connection; `Answer.lost` follows."""


class Answer:
    """`exchange.Reply` on one connection. What is written after the client has gone goes nowhere, silently."""

    __slots__ = (
        "_bodyless",
        "_chunked",
        "_gone_then",
        "_head",
        "_http10",
        "_left",
        "_room_then",
        "_unread",
        "_waiter",
        "_wire",
        "closing",
        "ended",
        "gone",
        "started",
    )

    def __init__(
        self,
        wire: Wire,
        *,
        http10: bool = False,
        bodyless: bool = False,
        unread: Callable[[], bool] = lambda: False,
        closing: bool = False,
    ) -> None:
        """`unread` says whether bytes of the request are still to come when the answer starts."""
        self._wire = wire
        self._http10 = http10
        self._bodyless = bodyless
        self._unread = unread
        self.closing = closing or http10
        self.started = self.ended = self.gone = self._chunked = False
        self._head = b""
        self._left: int | None = None
        self._gone_then: list[Callable[[], None]] = []
        self._room_then: list[Callable[[], None]] = []
        self._waiter: asyncio.Future[None] | None = None

    def start(self, status: int, headers: exchange.Headers, length: int | None = None) -> None:
        assert not self.started, "an answer starts once"
        lines = [b"HTTP/1.1 %d %b" % (status, _REASONS.get(status, b"-")), b"date: " + _date()]
        for name, value in headers:
            if name in _OWN_NAMES or not _is_line(name) or not _is_line(value):
                raise ValueError("a header of the answer is the door's own, or has a line end in it")
            lines.append(name + b": " + value)
        empty = status < 200 or status in (204, 304)
        self._bodyless = self._bodyless or empty
        self._left = length
        if length is not None and not empty:
            lines.append(b"content-length: %d" % length)
        elif length is None and not empty:
            self._chunked = not self._http10
            self.closing = self.closing or self._http10
            if self._chunked:
                lines.append(b"transfer-encoding: chunked")
        # A body nobody read would be taken for the next request, so the connection ends with this answer.
        self.closing = self.closing or self._wire.draining or self._unread()
        if self.closing:
            lines.append(b"connection: close")
        self._head = b"\r\n".join((*lines, b"", b""))
        self.started = True
        if length is None:
            self._wire.loop.call_soon(self._flush_head)

    def write(self, chunk: bytes) -> bool:
        assert self.started, "an answer starts before it goes on"
        assert not self.ended, "nothing follows the end of an answer"
        if self.gone or not chunk:
            return self.gone or not self._wire.writing_paused
        self._send(self._framed(chunk))
        return not self._wire.writing_paused

    def on_room(self, then: Callable[[], None]) -> None:
        if self.gone or self.ended:
            return
        if self._wire.writing_paused:
            self._room_then.append(then)
        else:
            self._wire.loop.call_soon(then)

    def on_gone(self, then: Callable[[], None]) -> None:
        """After `abort` it is called too: the connection is lost before the end, whoever closed it."""
        if self.gone:
            self._wire.loop.call_soon(then)
        elif not self.ended:
            self._gone_then.append(then)

    def end(self, chunk: bytes = b"") -> None:
        assert self.started, "an answer starts before it ends"
        assert not self.ended, "an answer ends once"
        if self.gone:
            return
        data = self._framed(chunk) if chunk else b""
        if self._left and not self._bodyless:
            _LOG.error("an answer ended %d bytes before its length; its connection is cut", self._left)
            self.abort()
            return
        if self._chunked and not self._bodyless:
            data += b"0\r\n\r\n"
        self._send(data)
        self.ended = True
        self._wake()

    def abort(self) -> None:
        if not self.ended:
            self.closing = True
            self._wire.abort()

    def lost(self) -> None:
        """The connection is gone; told once, by the connection."""
        if self.ended or self.gone:
            return
        self.gone = True
        self._head = b""
        told, self._gone_then = self._gone_then, []
        self._room_then.clear()
        self._wake()
        _call_all(told)

    def room(self) -> None:
        """The connection's buffer has drained."""
        told, self._room_then = self._room_then, []
        _call_all(told)

    async def over(self) -> None:
        """Returns when the answer has ended or the client is gone."""
        if not (self.ended or self.gone):
            self._waiter = self._wire.loop.create_future()
            await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _framed(self, chunk: bytes) -> bytes:
        if self._left is not None:
            assert len(chunk) <= self._left, "more bytes than the answer's length"
            self._left -= len(chunk)
        if self._bodyless:
            return b""
        return b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk

    def _send(self, data: bytes) -> None:
        head, self._head = self._head, b""
        self._wire.send(head + data if head else data)

    def _flush_head(self) -> None:
        if self._head and not self.gone:
            self._send(b"")


def say(reply: exchange.Reply, status: int, text: str) -> None:
    """Answers with one line of plain text."""
    body = text.encode() + b"\n"
    reply.start(status, ((b"content-type", b"text/plain; charset=utf-8"),), len(body))
    reply.end(body)


def whole(status: int, text: str) -> bytes:
    """A whole answer outside any request."""
    body = text.encode() + b"\n"
    return (
        b"HTTP/1.1 %d %b\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
        b"connection: close\r\n\r\n%b" % (status, _REASONS.get(status, b"-"), len(body), body)
    )


def _is_line(value: bytes) -> bool:
    return not (b"\n" in value or b"\r" in value or b"\0" in value)


def _call_all(callbacks: list[Callable[[], None]]) -> None:
    for then in callbacks:
        try:
            then()
        except Exception as error:  # noqa: BLE001 -- one waiter's bug must not cost another its call
            log_bug(error)


def log_bug(error: Exception) -> None:
    """One line without the exception's text, which could quote a request or a secret."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = (
        f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else "nowhere"
    )
    _LOG.error("a request failed by a bug of ours and was refused: %s at %s", type(error).__name__, where)


_date_cache: list[tuple[int, bytes]] = [(0, b"")]


def _date() -> bytes:
    now = int(time.time())
    if _date_cache[0][0] != now:
        _date_cache[0] = (now, email.utils.formatdate(now, usegmt=True).encode())
    return _date_cache[0][1]
