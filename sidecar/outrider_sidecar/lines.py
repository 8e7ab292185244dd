# SPDX-License-Identifier: Apache-2.0
"""One session with a server of HTTP+SSE: its stream, where to post, and whose each message on the stream is.

Made by `ssetransport`. An answer goes to the letter with its id, progress to the letter whose token it carries. What a server says
or asks besides belongs to the one call under way when there is just one; otherwise to whoever follows the session, and to
nobody when nobody does. Bounded: by what waits, by the size of events, by the stream's age and bytes.
"""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Callable

import msgspec

from outrider import decision
from outrider_sidecar import conventions, exchange, jsonrpc, letters, reading, streams

WAITING_MAX = 1_024
"""Letters without an answer; what comes on top is refused unsent."""

AGE_SECONDS_MAX = 24 * 3600.0
_BYTES_TIMES = 8
"""A stream that has carried so many results is closed as soon as nobody waits on it: the next request opens another."""

_PLACE_CHARACTERS_MAX = 2_048
_R = decision.Reason
_HEAD: exchange.Headers = ((b"accept", b"text/event-stream"),)
_EVENTS: exchange.Headers = ((b"content-type", b"text/event-stream"),)
_JSON: exchange.Headers = ((b"content-type", b"application/json"),)
_REPLY_SECONDS = 5.0


class Line:
    """`exchange.Sink` of the GET stream. `over` is called once, when the session cannot be used any more."""

    def __init__(
        self,
        out: exchange.Upstream,
        permit: decision.Permit,
        lent: exchange.Lent,
        *,
        clock: Callable[[], float],
        over: Callable[[], object],
    ) -> None:
        self._permit = permit
        self._lent = lent
        self.server = permit.server.id
        self.endpoint = permit.server.endpoint
        self._out = out
        self._clock = clock
        self._over = over
        self._limit = self.endpoint.result_bytes_max + reading.ENVELOPE_BYTES
        self._parser = streams.SseParser(self._limit, self._limit * reading.EVENTS_TIMES)
        self._place = ""
        self._refused: tuple[int, exchange.Headers] | None = None
        self._why: tuple[decision.Reason, str] | None = None
        self._waiting: dict[object, letters.Letter] = {}
        self._notes: set[letters.Letter] = set()
        self._follower: _Overhearing | None = None
        self._ended = False
        self._bytes = 0
        self._idle = asyncio.get_running_loop().call_later(self.endpoint.stream_seconds, self._unused)
        self._flight = out.send(
            permit, lent, _HEAD, b"", self, deadline=clock() + AGE_SECONDS_MAX, method="GET"
        )

    # What its users ask of it.

    def post(self, letter: letters.Letter) -> exchange.Flight:
        """Posts it as soon as it is known where."""
        if self._ended or len(self._waiting) + len(self._notes) >= WAITING_MAX:
            asyncio.get_running_loop().call_soon(
                letter.fail, _R.OVERLOADED, "too many messages wait on one stream"
            )
            return letter
        self._expect()
        if letter.answered_on_stream:
            self._waiting[letter.id] = letter
        else:
            self._notes.add(letter)
        letter.over = lambda: self._answered(letter)
        if self._place:
            self._carry(letter)
        return letter

    def overheard(self, into: exchange.Sink, deadline: float) -> exchange.Flight:
        """What belongs to no request, as one event stream; the newest wins."""
        before, self._follower = self._follower, None
        if before is not None:
            before.end(exchange.Complete())
        self._follower = _Overhearing(into, deadline, over=self._unfollowed)
        self._expect()
        return self._follower

    def close(self) -> None:
        """Ends the session: the server learns it by the end of the stream."""
        self._flight.cancel()
        self._end("the session was ended")

    # The stream.

    def head(self, status: int, headers: exchange.Headers) -> None:
        kinds = [
            value.partition(b";")[0].strip().lower() for name, value in headers if name == b"content-type"
        ]
        if status != 200 or kinds != [b"text/event-stream"]:
            self._refused = (status if status != 200 else 406, headers)
            self._flight.cancel()

    def data(self, chunk: bytes) -> bool:
        if self._ended or self._refused:
            return True
        self._bytes += len(chunk)
        try:
            events = self._parser.feed(chunk)
        except streams.SseTooLarge as error:
            self._hang_up(_R.UPSTREAM_TOO_LARGE, str(error))
            return True
        for event in events:
            if event.event == "endpoint" and not self._place:
                self._found(event.data)
            elif event.event == "message" and event.data and not self._ended:
                self._said(event.data)
        return True

    def done(self, end: exchange.Complete | exchange.Failed) -> None:
        if self._why is None and isinstance(end, exchange.Failed) and end.reason is not _R.CANCELLED:
            self._why = (end.reason, end.detail)
        self._end("the server ended the stream")

    def _hang_up(self, reason: decision.Reason, detail: str) -> None:
        """The stream cannot be used any more; `done` follows."""
        self._why = (reason, detail)
        self._flight.cancel()

    def _found(self, data: bytes) -> None:
        place = _place(self.endpoint.url, data)
        if place is None:
            self._hang_up(
                _R.UPSTREAM_ADDRESS_REFUSED, "the place to post to is not at the stream's own origin"
            )
            return
        self._place = place
        for letter in (*self._waiting.values(), *self._notes):
            self._carry(letter)

    def _carry(self, letter: letters.Letter) -> None:
        letter.posted = self._out.send(
            letter.permit, letter.lent, letter.head_, letter.body, letter,
            deadline=letter.deadline, place=self._place,
        )  # fmt: skip

    def _said(self, data: bytes) -> None:
        try:
            message = jsonrpc.answer(data)
        except jsonrpc.Malformed:
            self._hang_up(_R.UPSTREAM_PROTOCOL_ERROR, "the stream holds what is no JSON-RPC message")
            return
        if message.kind in (jsonrpc.AnswerKind.RESULT, jsonrpc.AnswerKind.ERROR):
            letter = self._waiting.get(message.id) if isinstance(message.id, int | str) else None
            if letter is not None:
                letter.hear(data, last=True)
            return
        asks = message.kind is jsonrpc.AnswerKind.REQUEST
        if asks and message.method == conventions.PING:
            self._reply(message, jsonrpc.result(message.id, b"{}"))
        elif (letter := self._whose(message)) is not None:
            letter.hear(data, last=False)
        elif self._follower is not None:
            self._follower.hear(data)
        elif asks:
            text = "Method not found: nobody is here to be asked"
            self._reply(message, jsonrpc.error(message.id, conventions.METHOD_NOT_FOUND, text))

    def _reply(self, message: jsonrpc.Answer, body: bytes) -> None:
        """Answers what needs nobody else, with what the stream was opened with."""
        if self._place and isinstance(message.id, int | str):
            deadline = self._clock() + _REPLY_SECONDS
            sink = letters.Unheard()
            self._out.send(self._permit, self._lent, _JSON, body, sink, deadline=deadline, place=self._place)

    def _whose(self, message: jsonrpc.Answer) -> letters.Letter | None:
        if message.method == conventions.PROGRESS:
            return self._waiting.get(_token(message))
        outside = (
            message.method.endswith("/list_changed") or message.method == "notifications/resources/updated"
        )
        if outside or (len(self._waiting) != 1 and self._follower is not None):
            return None
        # Asked during several calls and followed by nobody: the latest is the likeliest to have caused it.
        return next(reversed(self._waiting.values()), None)

    # The end.

    def _answered(self, letter: letters.Letter) -> None:
        if self._waiting.get(letter.id) is letter:
            del self._waiting[letter.id]
        self._notes.discard(letter)
        # Whatever the stream says, a session that is not known where messages are posted is over.
        if letter.unknown or (not self._waiting and self._bytes > self._limit * _BYTES_TIMES):
            self.close()

    def _unfollowed(self, follower: _Overhearing) -> None:
        if self._follower is follower:
            self._follower = None

    def _expect(self) -> None:
        self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(self.endpoint.stream_seconds, self._unused)

    def _unused(self) -> None:
        if self._waiting or self._follower is not None:
            self._expect()
        else:
            self.close()

    def _end(self, detail: str) -> None:
        if self._ended:
            return
        self._ended = True
        self._idle.cancel()
        self._over()
        for letter in (*self._waiting.values(), *self._notes):
            if self._refused is not None:
                letter.refuse(*self._refused)
            else:
                letter.fail(*(self._why or (_R.UPSTREAM_PROTOCOL_ERROR, detail)))
        if self._follower is not None:
            self._follower.end(exchange.Complete())


class _Overhearing:
    """`exchange.Flight` of whoever follows the session."""

    def __init__(self, into: exchange.Sink, deadline: float, *, over: Callable[[_Overhearing], None]) -> None:
        loop = asyncio.get_running_loop()
        self._into: exchange.Sink | None = into
        self._over = over
        self._timer = loop.call_at(deadline, self._late)
        self._headed = False
        loop.call_soon(self._begin)

    def resume(self) -> None:
        """As for letters: the stream is never paused for one reader."""

    def cancel(self) -> None:
        self.end(exchange.Failed(_R.CANCELLED, exchange.Sent.MAYBE_SENT, "followed no more"))

    def hear(self, data: bytes) -> None:
        self._begin()
        if self._into is not None:
            self._into.data(streams.encode_event(data))

    def end(self, end: exchange.Complete | exchange.Failed) -> None:
        into, self._into = self._into, None
        self._timer.cancel()
        self._over(self)
        if into is not None:
            into.done(end)

    def _begin(self) -> None:
        if self._into is not None and not self._headed:
            self._headed = True
            self._into.head(200, _EVENTS)

    def _late(self) -> None:
        self.end(exchange.Failed(_R.UPSTREAM_TIMEOUT, exchange.Sent.MAYBE_SENT, "long enough"))


def _token(message: jsonrpc.Answer) -> object:
    try:
        token = msgspec.json.decode(jsonrpc.members(message.payload).get("progressToken", b"null"))
    except msgspec.DecodeError:
        return None
    return token if isinstance(token, int | str) else None


def _place(url: str, data: bytes) -> str | None:
    """Path and query of what an `endpoint` event says, as the endpoint's own origin understands it; None for any other (R15).

    Relative places are taken as browsers would: an absolute path behind a prefix does not have the prefix.
    """
    try:
        text = data.decode("ascii").strip()
        base, found = urllib.parse.urlsplit(url), urllib.parse.urlsplit(urllib.parse.urljoin(url, text))
        here = (base.scheme, base.hostname, base.port or _PORTS.get(base.scheme))
        there = (found.scheme, found.hostname, found.port or _PORTS.get(found.scheme))
    except (UnicodeDecodeError, ValueError):
        return None
    if not text or len(text) > _PLACE_CHARACTERS_MAX or here != there or "@" in found.netloc:
        return None
    if not text.isprintable() or " " in text:
        return None
    return (found.path or "/") + (f"?{found.query}" if found.query else "")


_PORTS = {"http": 80, "https": 443}
