# SPDX-License-Identifier: Apache-2.0
"""The stream that an agent of the handshake era holds open with GET: what servers say outside of any call of its own.

One per agent's session, kept by `agents`; `listeners` and `questions` offer messages to it. The newest GET wins, as after a
connection that broke without our noticing. Nothing is kept for long and nothing is replayed, so no event has an id. It
refuses (says False) what would make it grow without bound, and never blocks.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable

from outrider_sidecar import exchange, streams

FRAMES_MAX = 256
BYTES_MAX = 1_048_576
"""What waits for an agent that does not read, or has not asked yet."""

KEPT_SECONDS = 30.0
"""How long a message waits for an agent without a stream: one that is between two connections, or has not opened its first."""

STREAM_SECONDS = 3_600.0
"""The longest that one GET is answered; clients open the next by themselves."""

_HEAD: exchange.Headers = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)
_COMMENT = b":\n\n"


@dataclasses.dataclass(slots=True)
class _Hearing:
    """One GET under way. `full` while the client does not read what it was sent."""

    reply: exchange.Reply
    comments: streams.Timer
    end: streams.Timer
    full: bool = False
    wrote: bool = False


class Channel:
    """`clock` is loop time. `changed` is called when an agent begins or ceases to listen."""

    __slots__ = ("_bytes", "_call_later", "_changed", "_clock", "_closed", "_frames", "_hearing")

    def __init__(
        self,
        *,
        call_later: streams.CallLater,
        clock: Callable[[], float],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._call_later = call_later
        self._clock = clock
        self._changed = changed
        self._frames: collections.deque[tuple[float, bytes]] = collections.deque()
        self._bytes = 0
        self._hearing: _Hearing | None = None
        self._closed = False

    @property
    def attached(self) -> bool:
        """Whether the agent holds its stream open now."""
        return self._hearing is not None

    def attach(self, reply: exchange.Reply) -> None:
        """Answers a GET with the stream, and ends the one before it."""
        if self._closed:
            reply.start(200, _HEAD)
            reply.end()
            return
        self._part()
        self._forget_old()
        reply.start(200, _HEAD)
        hearing = _Hearing(
            reply,
            comments=self._call_later(streams.COMMENT_SECONDS, lambda: self._comment(hearing)),
            end=self._call_later(STREAM_SECONDS, lambda: self._leave(hearing)),
        )
        self._hearing = hearing
        reply.on_gone(lambda: self._gone(hearing))
        self._flush()
        self._changed()

    def offer(self, message: bytes) -> bool:
        """Sends one JSON-RPC message, or keeps it a short while; False when there is no room for it or nobody will come."""
        if self._closed:
            return False
        frame = streams.encode_event(message)
        self._forget_old()
        if len(self._frames) >= FRAMES_MAX or self._bytes + len(frame) > BYTES_MAX:
            return False
        self._frames.append((self._clock(), frame))
        self._bytes += len(frame)
        self._flush()
        return True

    def part(self) -> None:
        """Ends the stream that is there, in order; the agent may open another."""
        if self._hearing is not None:
            self._part()
            self._changed()

    def close(self) -> None:
        """The session is over, or the proxy goes: the stream ends as HTTP says it should, and nothing is taken any more."""
        self._closed = True
        self._part()
        self._frames.clear()
        self._bytes = 0

    def _forget_old(self) -> None:
        """Of what waits for nobody; who holds a stream gets everything."""
        before = self._clock() - KEPT_SECONDS
        while self._hearing is None and self._frames and self._frames[0][0] < before:
            self._bytes -= len(self._frames.popleft()[1])

    def _flush(self) -> None:
        hearing = self._hearing
        while hearing is not None and self._frames and not hearing.full:
            _, frame = self._frames.popleft()
            self._bytes -= len(frame)
            self._write(hearing, frame)

    def _write(self, hearing: _Hearing, frame: bytes) -> None:
        hearing.wrote = True
        if not hearing.reply.write(frame):
            hearing.full = True
            hearing.reply.on_room(lambda: self._room(hearing))

    def _room(self, hearing: _Hearing) -> None:
        hearing.full = False
        if hearing is self._hearing:
            self._flush()

    def _comment(self, hearing: _Hearing) -> None:
        if hearing is not self._hearing:
            return
        if not hearing.wrote and not hearing.full:
            self._write(hearing, _COMMENT)
        hearing.wrote = False
        hearing.comments = self._call_later(streams.COMMENT_SECONDS, lambda: self._comment(hearing))

    def _part(self) -> None:
        """Ends the stream that is there, if any."""
        hearing, self._hearing = self._hearing, None
        if hearing is not None:
            hearing.comments.cancel()
            hearing.end.cancel()
            hearing.reply.end()

    def _leave(self, hearing: _Hearing) -> None:
        if hearing is self._hearing:
            self._part()
            self._changed()

    def _gone(self, hearing: _Hearing) -> None:
        """The client has left, or was cut off by the door for not reading."""
        if hearing is self._hearing:
            self._hearing = None
            hearing.comments.cancel()
            hearing.end.cancel()
            self._changed()
