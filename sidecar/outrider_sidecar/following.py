# SPDX-License-Identifier: Apache-2.0
"""What a server of the handshake era says outside of any call: the GET stream of one session there, held open.

Made by `listeners` while somebody listens. A stream that ends is taken up again where it was (Last-Event-ID), not sooner than the
server asks (`retry`), and ever later while nothing comes of it. It ends by itself when the server has no such stream (405) or
does not know the session any more (404). What is said is handed on; it decides nothing about it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
from collections.abc import Callable

from outrider import decision
from outrider_sidecar import credentials, exchange, jsonrpc, legs, loans, polling, reading, retries

RETRY_SECONDS = 1.0
BACKOFF_SECONDS_MAX = 60.0

RENEW_SECONDS = 10.0
"""How long a stream that was refused waits for a newer credential before it is opened again."""

RETRY_SECONDS_MAX = 600.0
"""A server may not make us deaf to it for longer."""

_WELL_SECONDS = 5.0
"""A stream that was open for so long did not fail, however it ended."""

_R = decision.Reason
_NONE = frozenset({400, 405, 406, 501})
"""Statuses by which a server says that it has no stream of its own."""


class End(enum.Enum):
    """Why a stream is followed no more."""

    NONE = "the server has no such stream"
    UNKNOWN_SESSION = "the server does not know the session any more"


@dataclasses.dataclass(frozen=True, slots=True)
class Parts:
    """`clock` is loop time; `jitter` gives numbers from 0 up to 1."""

    upstream: exchange.Upstream
    credentials: credentials.Credentials
    clock: Callable[[], float]
    jitter: Callable[[], float]


@dataclasses.dataclass(slots=True)
class _Heard:
    """How one stream went. `messages` counts those that were heard on it."""

    status: int | None = None
    messages: int = 0
    seconds: float = 0.0
    failed: exchange.Failed | None = None
    place: tuple[str, float | None] | None = None


class Follower:
    """One session's stream. `hear` gets every message; `over` is called at most once, when there is nothing left to follow.

    `begun` is called whenever the server has opened its stream: from then on it is heard.
    """

    def __init__(  # noqa: PLR0913 -- three of them are what it says
        self,
        parts: Parts,
        permit: decision.Permit,
        session: legs.Session,
        *,
        hear: Callable[[jsonrpc.Answer], None],
        over: Callable[[End], None] = lambda _: None,
        begun: Callable[[], None] = lambda: None,
    ) -> None:
        self.permit = permit
        self.session = session
        self._parts = parts
        self._hear = hear
        self._over = over
        self._begun = begun
        self._task = asyncio.get_running_loop().create_task(self._follow(), name=f"follow {permit.server.id}")

    @property
    def task(self) -> asyncio.Task[None]:
        """For whoever closes all of them and waits."""
        return self._task

    def close(self) -> None:
        """Nobody listens any more."""
        self._task.cancel()

    async def _follow(self) -> None:
        place: tuple[str, float | None] | None = None
        failures = 0
        while True:
            heard = await self._listen("" if place is None else place[0])
            if heard.status == 404:
                self._over(End.UNKNOWN_SESSION)
                return
            if heard.status in _NONE or (heard.status == 200 and _is_no_stream(heard)):
                self._over(End.NONE)
                return
            place = heard.place or place
            well = heard.status == 200 and (heard.messages or heard.seconds >= _WELL_SECONDS)
            failures = 0 if well else failures + 1
            await asyncio.sleep(self._pause(failures, None if place is None else place[1]))

    def _pause(self, failures: int, retry: float | None) -> float:
        backoff = (
            min(RETRY_SECONDS * 2 ** min(failures, 16), BACKOFF_SECONDS_MAX) if failures else RETRY_SECONDS
        )
        asked = RETRY_SECONDS if retry is None else min(retry, RETRY_SECONDS_MAX)
        # No earlier than it asks, and not all sessions at once after a server has come back.
        return max(asked, backoff if failures else 0.0) * (1 + 0.5 * self._parts.jitter())

    async def _listen(self, last: str) -> _Heard:
        """One GET, until it is over. Never raises for anything a server can do."""
        parts, permit, heard = self._parts, self.permit, _Heard()
        try:
            lent = await parts.credentials.lend(permit)
        except loans.Unavailable:
            return heard
        ended: asyncio.Future[exchange.Failed | None] = asyncio.get_running_loop().create_future()

        def end(failed: exchange.Failed | None) -> None:
            if not ended.done():
                ended.set_result(failed)

        def said(message: jsonrpc.Answer) -> bool:
            heard.messages += 1
            self._hear(message)
            return True

        endpoint, started = permit.server.endpoint, parts.clock()
        into = _Reading(
            result_bytes_max=endpoint.result_bytes_max, on_message=said, on_end=end, secrets=lent.secrets
        )
        into.begun = self._begun
        head = polling.listening(self.session.id, self.session.version, last)
        deadline = started + endpoint.stream_seconds
        into.flight = parts.upstream.send(permit, lent, head, b"", into, deadline=deadline, method="GET")
        try:
            heard.failed = await ended
        finally:
            into.flight.cancel()
        heard.status, heard.place, heard.seconds = into.status, into.place, parts.clock() - started
        if heard.status == retries.UNAUTHORIZED:
            await parts.credentials.renewed(permit, lent, deadline=parts.clock() + RENEW_SECONDS)
        return heard


class _Reading(reading.Reading):
    """Says when the stream has begun."""

    __slots__ = ("begun",)

    begun: Callable[[], None]

    def head(self, status: int, headers: exchange.Headers) -> None:
        super().head(status, headers)
        if status == 200:
            self.begun()


def _is_no_stream(heard: _Heard) -> bool:
    """A 200 that is a page, or JSON: asking again would get the same."""
    return heard.failed is not None and heard.failed.detail == reading.NO_STREAM
