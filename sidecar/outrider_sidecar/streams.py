# SPDX-License-Identifier: Apache-2.0
"""Server-sent events, both ways, and the choice between them and one JSON body.

`SseParser` is for the relay (what an upstream streams), `Outgoing` for whoever answers an agent. No I/O and no clock:
timers come in as `call_later`. Refuses events and streams above their limits, and a reader that never makes room.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Callable
from typing import Protocol

from outrider_sidecar import exchange

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BOM = b"\xef\xbb\xbf"


class SseTooLarge(Exception):
    """One event, or the stream, is larger than allowed. The parser is of no use afterwards."""


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """One dispatched event. `id` and `retry` (milliseconds) are those this event itself carried, else None."""

    data: bytes
    event: str = "message"
    id: str | None = None
    retry: int | None = None


class SseParser:
    """An incremental parser of the WHATWG event stream, bounded by bytes.

    `event_bytes_max` bounds what is kept for the event being received; `stream_bytes_max` everything fed. Events without a
    `data` field are not dispatched; what they say stays in `last_event_id` and `retry` (milliseconds).
    """

    __slots__ = (
        "_at_start",
        "_data",
        "_event",
        "_event_bytes",
        "_event_bytes_max",
        "_failed",
        "_id",
        "_partial",
        "_retry",
        "_stream_bytes",
        "_stream_bytes_max",
        "_swallow_lf",
        "last_event_id",
        "retry",
    )

    def __init__(self, event_bytes_max: int, stream_bytes_max: int) -> None:
        self._event_bytes_max = event_bytes_max
        self._stream_bytes_max = stream_bytes_max
        self._stream_bytes = 0
        self._partial = bytearray()
        self._at_start = True
        self._swallow_lf = False
        self._failed = False
        self.last_event_id: str | None = None
        self.retry: int | None = None
        self._reset()

    def _reset(self) -> None:
        self._data: list[bytes] = []
        self._event = ""
        self._event_bytes = 0
        self._id: str | None = None
        self._retry: int | None = None

    def again(self) -> None:
        """The stream goes on in another answer: what was received of an event is lost, what was counted is not."""
        self._partial.clear()
        self._at_start = True
        self._swallow_lf = False
        self._reset()

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that `chunk` completes, in order. Raises SseTooLarge."""
        self._stream_bytes += len(chunk)
        if self._failed or self._stream_bytes > self._stream_bytes_max:
            self._failed = True
            raise SseTooLarge(f"the stream is larger than {self._stream_bytes_max} bytes")
        if self._at_start and not (chunk := self._without_bom(chunk)):
            return []
        start = 0
        if self._swallow_lf and chunk:
            # The CR that ended the last chunk was complete by itself; a LF right behind it belongs to it.
            start = 1 if chunk.startswith(b"\n") else 0
            self._swallow_lf = False
        events: list[Event] = []
        for end in _LINE_END.finditer(chunk, start):
            self._line(chunk[start : end.start()], events)
            start = end.end()
        self._swallow_lf = chunk.endswith(b"\r")
        if start < len(chunk):
            self._partial += chunk[start:]
            self._bound(self._event_bytes + len(self._partial))
        return events

    def _without_bom(self, chunk: bytes) -> bytes:
        """Holds back the first bytes until it is clear whether they are a byte order mark."""
        head = bytes(self._partial) + chunk
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._partial[:] = head
            return b""
        self._at_start = False
        self._partial.clear()
        return head.removeprefix(_BOM)

    def _bound(self, size: int) -> None:
        if size > self._event_bytes_max:
            self._failed = True
            raise SseTooLarge(f"an event is larger than {self._event_bytes_max} bytes")

    def _line(self, line: bytes, events: list[Event]) -> None:
        if self._partial:
            line = bytes(self._partial) + line
            self._partial.clear()
        self._bound(self._event_bytes + len(line))
        if not line:
            self._dispatch(events)
        elif not line.startswith(b":"):
            name, _, value = line.partition(b":")
            self._field(name, value.removeprefix(b" "))

    def _field(self, name: bytes, value: bytes) -> None:
        if name == b"data":
            self._data.append(value)
            self._event_bytes += len(value) + 1
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            self._id = self.last_event_id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) <= 12:
            self._retry = self.retry = int(value)

    def _dispatch(self, events: list[Event]) -> None:
        if self._data:
            events.append(Event(b"\n".join(self._data), self._event or "message", self._id, self._retry))
        self._reset()


def encode_event(data: bytes, event: str = "message") -> bytes:
    """One event as bytes, LF only (two client SDKs cannot read lone CR); every line end in `data` starts a line."""
    if "\n" in event or "\r" in event:
        raise ValueError("an event's name is one line")
    lines = b"\ndata: ".join(_LINE_END.split(data))
    return b"event: %b\ndata: %b\n\n" % (event.encode(), lines)


class Timer(Protocol):
    """What `call_later` returns; asyncio's handles are."""

    def cancel(self) -> object:
        """It shall not fire."""


CallLater = Callable[[float, Callable[[], None]], Timer]

JSON_SECONDS = 10.0
COMMENT_SECONDS = 15.0
FRAMES_MAX = 256
FRAME_BYTES_MAX = 1_048_576

_COMMENT = b":\n\n"
_JSON_HEAD: exchange.Headers = ((b"content-type", b"application/json"),)
SSE_HEAD: exchange.Headers = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Accepted:
    """What the agent's Accept header lets an answer be. Neither: the caller refuses before there is an answer."""

    json: bool
    sse: bool


def accepted(headers: exchange.Headers) -> Accepted:
    """Reads the Accept header. Absent means JSON: a client that never named event streams need not understand them."""
    value = next((value for name, value in headers if name == b"accept"), b"application/json")
    kinds = set()
    for part in value.lower().split(b","):
        kind, *parameters = (piece.strip() for piece in part.split(b";"))
        if not any(re.fullmatch(rb"q\s*=\s*0(\.0{0,3})?", parameter) for parameter in parameters):
            kinds.add(kind)
    anything = b"*/*" in kinds
    return Accepted(
        json=anything or b"application/json" in kinds or b"application/*" in kinds,
        sse=anything or b"text/event-stream" in kinds or b"text/*" in kinds,
    )


class Outgoing:
    """One answer to an agent: JSON, unless a notification or 10 s come first; then an event stream with comments.

    `notify` any number of times, then `answer` once. `keep_json` is for tools with results too big for event readers:
    the answer stays JSON and notifications are dropped, as for a client that does not accept event streams.
    """

    __slots__ = (
        "_accepts",
        "_call_later",
        "_ended",
        "_flight",
        "_gone",
        "_headers",
        "_keep_json",
        "_last",
        "_queue",
        "_queued_bytes",
        "_reply",
        "_roomy",
        "_streaming",
        "_timer",
        "_upstream_paused",
        "_wrote",
    )

    def __init__(
        self,
        reply: exchange.Reply,
        *,
        accepts: Accepted,
        call_later: CallLater,
        headers: exchange.Headers = (),
        keep_json: bool = False,
    ) -> None:
        """`headers` are added to the answer's own, whichever it becomes."""
        self._reply = reply
        self._accepts = accepts
        self._call_later = call_later
        self._headers = headers
        self._keep_json = accepts.json and (keep_json or not accepts.sse)
        self._queue: collections.deque[bytes] = collections.deque()
        self._queued_bytes = 0
        self._roomy = True
        self._streaming = False
        self._ended = False
        self._last = False
        self._wrote = False
        self._upstream_paused = False
        self._flight: exchange.Flight | None = None
        self._gone: list[Callable[[], None]] = []
        self._timer: Timer | None = None
        reply.on_gone(self._client_gone)
        if not self._keep_json:
            self._timer = call_later(JSON_SECONDS, self._start_stream)

    @property
    def streaming(self) -> bool:
        """True once the answer has become an event stream: its status and headers are out."""
        return self._streaming

    @property
    def ended(self) -> bool:
        """True after `answer`, `abort` or the client's leaving: nothing more will be sent."""
        return self._ended

    @property
    def mute(self) -> bool:
        """True when nothing but the answer can be sent: the client takes one JSON body only, or has left."""
        return self._keep_json or self._ended or self._last

    def on_gone(self, then: Callable[[], None]) -> None:
        """Calls back once if the client leaves, or is cut off for not reading, before the last byte is handed on."""
        self._gone.append(then)

    def feeding(self, flight: exchange.Flight) -> None:
        """Whose data comes out here: it is resumed when there is room after `notify` said False."""
        self._flight = flight

    def notify(self, message: bytes) -> bool:
        """Sends a message before the answer (one JSON-RPC message, any bytes). False: pause the flight.

        Dropped, with True, when the client can only have JSON, has been answered or is gone.
        """
        return self.frame(encode_event(message))

    def frame(self, frame: bytes) -> bool:
        """As `notify`, with an event that is written already."""
        if self._ended or self._last or self._keep_json:
            return True
        self._start_stream()
        self._push(frame)
        self._upstream_paused = not self._ended and not self._roomy
        return not self._upstream_paused

    def answer(self, body: bytes, *, status: int = 200) -> None:
        """The answer, once: the whole JSON body, or the last event. `status` counts only while none was sent."""
        if self._ended:
            return
        assert not self._last, "a request is answered once"
        self._last = True
        if not self._streaming and self._accepts.json:
            self._finish()
            head = (*_JSON_HEAD, *self._headers)
            self._reply.start(status, head, len(body))
            self._reply.end(body)
            return
        self._start_stream(status)
        self._push(encode_event(body))

    def last(self, frame: bytes) -> None:
        """As `answer`, on a stream: an event that is written already, and nothing behind it."""
        if not self._ended:
            self._last = True
            self._start_stream()
            self._push(frame)

    def abort(self) -> None:
        """Cuts the connection: for an answer that cannot be finished honestly."""
        if not self._ended:
            self._finish()
            self._reply.abort()

    def _start_stream(self, status: int = 200) -> None:
        if self._streaming or self._ended:
            return
        self._streaming = True
        self._reply.start(status, (*SSE_HEAD, *self._headers))
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._call_later(COMMENT_SECONDS, self._comment)

    def _comment(self) -> None:
        if self._ended:
            return
        if not self._wrote and self._roomy:
            self._write(_COMMENT)
        self._wrote = False
        self._arm()

    def _push(self, frame: bytes) -> None:
        self._queue.append(frame)
        self._queued_bytes += len(frame)
        self._flush()
        # The answer itself is bounded by its caller; what piles up before it is bounded here.
        full = len(self._queue) > FRAMES_MAX or self._queued_bytes > FRAME_BYTES_MAX
        if full and not self._last and not self._ended:
            self.abort()
            self._tell_gone()

    def _flush(self) -> None:
        while self._queue and self._roomy and not self._ended:
            frame = self._queue.popleft()
            self._queued_bytes -= len(frame)
            if self._last and not self._queue:
                self._finish()
                self._reply.end(frame)
                return
            self._write(frame)

    def _write(self, frame: bytes) -> None:
        self._wrote = True
        if not self._reply.write(frame):
            self._roomy = False
            self._reply.on_room(self._on_room)

    def _on_room(self) -> None:
        self._roomy = True
        self._flush()
        if self._roomy and self._upstream_paused and not self._ended:
            self._upstream_paused = False
            if self._flight is not None:
                self._flight.resume()

    def _finish(self) -> None:
        self._ended = True
        self._queue.clear()
        self._queued_bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _client_gone(self) -> None:
        if not self._ended:
            self._finish()
            self._tell_gone()

    def _tell_gone(self) -> None:
        told, self._gone = self._gone, []
        for then in told:
            then()
