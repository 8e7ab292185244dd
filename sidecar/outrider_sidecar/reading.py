# SPDX-License-Identifier: Apache-2.0
"""Reads an upstream's HTTP answer as MCP messages, whether it is one JSON body or an event stream.

A `Sink` for the way out, made once per upstream request by the pipeline (calls) and by servers (what the proxy asks on
its own behalf). It bounds what is read, hands messages on one by one as they arrive, and says exactly once how it ended.
It decides nothing about them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from outrider import decision
from outrider_sidecar import exchange, jsonrpc, scrubbing, streams

ENVELOPE_BYTES = 65_536
"""What a message may hold besides the result itself."""

_ERROR_BODY_BYTES = 65_536
EVENTS_TIMES = 16
"""An event stream may be this many results long in all: progress adds up, endless streams do not (R14)."""

LINGER_SECONDS = 0.2
"""How long a stream may stay open behind the answer it was for: servers should close it and some do not."""

NO_STREAM = "the answer is neither JSON nor an event stream"

_R = decision.Reason


class Reading:
    """`on_message` gets each message and says whether there is room for more; `on_end` gets None or why it failed.

    `status` and `session` (the upstream's `mcp-session-id`) are known once the head is in. `flight`, when its owner sets
    it, is cancelled as soon as the answer cannot be used any more. `secrets` are taken out of every message first.

    A stream that breaks off may be taken up where it was (`place`): then `head` is called once more, before `done`.
    """

    __slots__ = (
        "_body",
        "_ended",
        "_failed",
        "_limit",
        "_lingers",
        "_on_end",
        "_on_message",
        "_parser",
        "_secrets",
        "_spoilt",
        "_unreadable",
        "flight",
        "primed",
        "session",
        "status",
    )

    def __init__(
        self,
        *,
        result_bytes_max: int,
        on_message: Callable[[jsonrpc.Answer], bool],
        on_end: Callable[[exchange.Failed | None], None],
        secrets: tuple[bytes, ...] = (),
    ) -> None:
        self._limit = result_bytes_max + ENVELOPE_BYTES
        self._on_message = on_message
        self._on_end = on_end
        self._secrets = secrets
        self._parser: streams.SseParser | None = None
        self._body = bytearray()
        self._failed: exchange.Failed | None = None
        self._ended = False
        self._unreadable = False
        self._lingers = self._spoilt = False
        self.status: int | None = None
        self.session: bytes | None = None
        self.flight: exchange.Flight | None = None
        self.primed: Callable[[float | None], None] | None = None

    def linger(self) -> None:
        """What was asked for has arrived: a stream that stays open behind it is ended soon, instead of at its deadline."""
        self._lingers = True
        if self._parser is not None and self.flight is not None:
            asyncio.get_running_loop().call_later(LINGER_SECONDS, self.flight.cancel)

    @property
    def place(self) -> tuple[str, float | None] | None:
        """Where an unfinished stream can be taken up again: its last event's id, and after how many seconds if it said so."""
        if self._parser is None or not self._parser.last_event_id or self._spoilt or self._lingers:
            return None
        retry = self._parser.retry
        return self._parser.last_event_id, None if retry is None else retry / 1000

    def head(self, status: int, headers: exchange.Headers) -> None:
        """Chooses how to read. What is neither JSON nor events is refused, unless it is an error's body or nothing at all:

        notifications and DELETE are answered with an empty 200 by some servers.
        """
        self.status = status
        kinds = [
            value.partition(b";")[0].strip().lower() for name, value in headers if name == b"content-type"
        ]
        self.session = next((value for name, value in headers if name == b"mcp-session-id"), None)
        if status == 200 and kinds == [b"text/event-stream"]:
            if self._parser is None:
                self._parser = streams.SseParser(self._limit, self._limit * EVENTS_TIMES)
            else:
                self._parser.again()
        elif status == 200 and kinds != [b"application/json"]:
            self._unreadable = True
        elif status != 200:
            self._limit = _ERROR_BODY_BYTES

    def data(self, chunk: bytes) -> bool:
        """Bytes as they arrive. True after a failure too: the flight ends by itself."""
        if self._failed is not None or self._ended:
            return True
        if self._unreadable:
            if chunk:
                self._fail(_R.UPSTREAM_PROTOCOL_ERROR, NO_STREAM)
            return True
        if self._parser is None:
            self._body += chunk
            if len(self._body) > self._limit:
                self._fail(_R.UPSTREAM_TOO_LARGE, "the answer is larger than maxResultBytes")
            return True
        try:
            events = self._parser.feed(chunk)
        except streams.SseTooLarge:
            self._fail(_R.UPSTREAM_TOO_LARGE, "an event or the stream is larger than maxResultBytes allows")
            return True
        room = True
        for event in events:
            if not event.data and event.id and self.primed is not None:
                self.primed(None if event.retry is None else event.retry / 1000)
            # Other types of event are none of MCP's (some servers beat their heart so); clients pass over them too.
            if event.data and event.event == "message" and self._failed is None:
                room = self._message(event.data) and room
        return room

    def done(self, end: exchange.Complete | exchange.Failed) -> None:
        """The end, once: a whole JSON body is a message now; an event stream has had its say."""
        assert not self._ended, "an answer ends once"
        if self._failed is None and isinstance(end, exchange.Failed):
            self._failed = end
        if self._failed is None and self._parser is None and self._body:
            self._message(bytes(self._body))
        self._ended = True
        self._on_end(self._failed)

    def _message(self, data: bytes) -> bool:
        try:
            message = jsonrpc.answer(scrubbing.message(data, self._secrets))
        except jsonrpc.Malformed as error:
            if self.status == 200:
                self._fail(_R.UPSTREAM_PROTOCOL_ERROR, f"the answer is not a JSON-RPC message: {error}")
            return True
        return self._on_message(message)

    def _fail(self, reason: decision.Reason, detail: str) -> None:
        self._spoilt = True
        self._failed = exchange.Failed(reason, exchange.Sent.MAYBE_SENT, detail)
        if self.flight is not None:
            self.flight.cancel()
