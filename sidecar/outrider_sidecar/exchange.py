# SPDX-License-Identifier: Apache-2.0
"""The types between door, pipeline and way out, so that either end can be replaced without touching what is between.

Nothing here knows aiohttp, and nothing here does anything.
"""

from __future__ import annotations

import dataclasses
import enum
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from outrider import decision

Headers = tuple[tuple[bytes, bytes], ...]
"""Lower-case names; order and duplicates kept."""


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One complete HTTP request: target raw as received, body complete and capped. `received` is loop time, seconds."""

    method: str
    target: bytes
    headers: Headers
    body: bytes
    peer: str
    received: float


class Reply(Protocol):
    """The way back to the agent. Never blocks; the door never cancels the pipeline, it reports `on_gone`."""

    def start(self, status: int, headers: Headers, length: int | None = None) -> None:
        """Sends the head; `length` None means a stream."""

    def write(self, chunk: bytes) -> bool:
        """Queues bytes; False above the high-water mark: wait for `on_room`."""

    def on_room(self, then: Callable[[], None]) -> None:
        """Calls back once, when there is room again."""

    def on_gone(self, then: Callable[[], None]) -> None:
        """Calls back once, when the client's connection is lost before `end`."""

    def end(self, chunk: bytes = b"") -> None:
        """The last bytes. Nothing may follow."""

    def abort(self) -> None:
        """Closes the connection without an end: for streams that cannot be finished honestly."""


class Pipeline(Protocol):
    """What the door serves."""

    def admit(self, method: str, target: bytes, headers: Headers, reply: Reply) -> bool:
        """Before the body is read (R3, R4): True to read on, False when the answer has been given."""

    def begin(self, request: Request, reply: Reply) -> Coroutine[Any, Any, None] | None:
        """None: answered, or going on by callbacks. A coroutine only when something must be waited for."""


class Sent(enum.Enum):
    """Whether an upstream can have seen the request (N8)."""

    NOT_SENT = "NotSent"
    MAYBE_SENT = "MaybeSent"


@dataclasses.dataclass(frozen=True, slots=True)
class Complete:
    """The upstream's answer ended as HTTP says it should."""


@dataclasses.dataclass(frozen=True, slots=True)
class Failed:
    """It did not. `detail` is for the log and holds no secret."""

    reason: decision.Reason
    sent: Sent
    detail: str = ""


class Sink(Protocol):
    """Where an upstream's answer goes."""

    def head(self, status: int, headers: Headers) -> None:
        """Once, before any data."""

    def data(self, chunk: bytes) -> bool:
        """False = pause until `flight.resume()`."""

    def done(self, end: Complete | Failed) -> None:
        """Exactly once, also after `cancel`: settling and audit hang on it."""


class Flight(Protocol):
    """One request under way upstream."""

    def resume(self) -> None:
        """There is room again."""

    def cancel(self) -> None:
        """Give up; `done(Failed(CANCELLED, ...))` still follows."""


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """Who the proxy is to a server by its connection (mTLS). Connections are shared by requests with one `name` only."""

    name: str
    context: ssl.SSLContext = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Lent:
    """Headers with the secret, for one upstream request. Has no repr: it must not reach a log (N4).

    `secrets` are what must not come back: the secret alone, and what a server can read out of it. `version` tells what was lent from
    what will be lent next. `identity` is what the connection is made with, None for nobody in particular.
    """

    headers: Headers = ()
    secrets: tuple[bytes, ...] = ()
    version: str = ""
    identity: Identity | None = None


class Upstream(Protocol):
    """The way out. Takes server and address only from the Permit."""

    def send(  # noqa: PLR0913 -- the shape shapes.md settles
        self,
        permit: decision.Permit,
        lent: Lent,
        head: Headers,
        body: bytes,
        into: Sink,
        *,
        deadline: float,
        method: str = "POST",
        place: str = "",
    ) -> Flight:
        """Starts one HTTP request to `permit.server.endpoint.url`; deadline in loop time (seconds). Never raises.

        `place` is another path and query at that URL's origin, already encoded.
        """

    async def close(self) -> None:
        """Ends everything under way."""
