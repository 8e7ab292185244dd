# SPDX-License-Identifier: Apache-2.0
"""One message to a server of HTTP+SSE: posted in one request, answered on a stream that is another.

Made by `ssetransport`, posted and answered by a `lines.Line`. To its owner it is a `Flight` like any other, whose sink gets a head,
the events that answer it, and exactly one end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from outrider import decision
from outrider_sidecar import exchange, jsonrpc, streams

_R = decision.Reason
_EVENTS: exchange.Headers = ((b"content-type", b"text/event-stream"),)


class Told:
    """A flight whose answer we know: one status and nothing more, as soon as the loop turns."""

    def __init__(self, into: exchange.Sink, status: int) -> None:
        self._into: exchange.Sink | None = into
        asyncio.get_running_loop().call_soon(self._tell, status)

    def _tell(self, status: int) -> None:
        into, self._into = self._into, None
        if into is not None:
            into.head(status, ())
            into.done(exchange.Complete())

    def resume(self) -> None:
        """There is nothing to wait for."""

    def cancel(self) -> None:
        """It is over at once anyway."""


class Unheard:
    """A sink for answers that nobody waits for."""

    def head(self, status: int, headers: exchange.Headers) -> None:
        """Whatever it is."""

    def data(self, chunk: bytes) -> bool:  # noqa: ARG002 -- the shape of exchange.Sink
        return True

    def done(self, end: exchange.Complete | exchange.Failed) -> None:
        """However it went."""


class Letter:
    """`exchange.Flight` for its owner, and `exchange.Sink` for the POST that carries it. `session`: told with the answer."""

    def __init__(  # noqa: PLR0913 -- what exchange.Upstream.send takes
        self,
        permit: decision.Permit,
        lent: exchange.Lent,
        head: exchange.Headers,
        body: bytes,
        into: exchange.Sink,
        *,
        deadline: float,
        session: bytes | None = None,
    ) -> None:
        message = jsonrpc.answer(body)
        self.permit = permit
        self.lent = lent
        self.head_ = head
        self.body = body
        self.deadline = deadline
        self.id = message.id
        self.answered_on_stream = message.kind is jsonrpc.AnswerKind.REQUEST
        self.posted: exchange.Flight | None = None
        self.ended = self.unknown = False
        self.over: Callable[[], None] = lambda: None
        self._into = into
        self._session = session
        self._headed = self._refused = False
        self._timer = asyncio.get_running_loop().call_at(deadline, self._late)

    # The flight, as its owner sees it.

    def resume(self) -> None:
        """One stream serves many: it is never paused for one of them. What its owner has no room for, its owner bounds."""

    def cancel(self) -> None:
        self.fail(_R.CANCELLED, "given up")

    # The POST that carries it.

    def head(self, status: int, headers: exchange.Headers) -> None:
        """Accepted: the answer comes on the stream. Refused: the refusal is the answer."""
        if not 200 <= status < 300:
            self._refused = True
            self.unknown = status == 404
            if not self.ended and not self._headed:
                self._headed = True
                self._into.head(status, headers)

    def data(self, chunk: bytes) -> bool:
        if self._refused and not self.ended:
            self._into.data(chunk)
        return True

    def done(self, end: exchange.Complete | exchange.Failed) -> None:
        if self.ended:
            return
        if isinstance(end, exchange.Failed):
            self._finish(end)
        elif self._refused or not self.answered_on_stream:
            self._accepted()
            self._finish(end)

    # What the line does with it.

    def hear(self, data: bytes, *, last: bool) -> None:
        """One message on the stream that is for this letter's owner; the last one answers it."""
        if self.ended:
            return
        self._accepted()
        self._into.data(streams.encode_event(data))
        if last and not self.ended:
            self._finish(exchange.Complete())

    def fail(self, reason: decision.Reason, detail: str) -> None:
        """It will not be answered. Whether the server can have seen it depends on whether it was posted."""
        if not self.ended:
            sent = exchange.Sent.NOT_SENT if self.posted is None else exchange.Sent.MAYBE_SENT
            if self.posted is not None:
                self.posted.cancel()
            self._finish(exchange.Failed(reason, sent, detail))

    def refuse(self, status: int, headers: exchange.Headers) -> None:
        """The stream was not to be had: its status is the answer, and the message was never sent."""
        if not self.ended:
            self._headed = True
            self._into.head(status, headers)
            self._finish(exchange.Complete())

    def _accepted(self) -> None:
        if not self._headed:
            self._headed = True
            told = () if self._session is None else ((b"mcp-session-id", self._session),)
            self._into.head(200, (*_EVENTS, *told))

    def _late(self) -> None:
        self.fail(_R.UPSTREAM_TIMEOUT, "no answer on the stream")

    def _finish(self, end: exchange.Complete | exchange.Failed) -> None:
        self.ended = True
        self._timer.cancel()
        self.over()
        self._into.done(end)
