# SPDX-License-Identifier: Apache-2.0
"""One request of the proxy's own to a server, answered whole: an introduction, a list, a cancellation, a farewell.

Called by servers, and through them by draining. What it finds out about the server's health is told to its breaker. Calls of
agents never go this way: theirs is an attempt.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

from outrider import decision
from outrider_sidecar import breaker, exchange, jsonrpc, legs, reading, telemetry

_R = decision.Reason


@dataclasses.dataclass(frozen=True, slots=True)
class Errand:
    """What every request of our own to one server needs; `deadline` in loop time."""

    server: legs.Server
    permit: decision.Permit
    lent: exchange.Lent
    deadline: float


@dataclasses.dataclass(frozen=True, slots=True)
class Heard:
    """What came back: None for what did not."""

    answer: jsonrpc.Answer | None
    status: int | None
    session: bytes | None
    failed: exchange.Failed | None


class Errands:
    """Runs them; `clock` is loop time."""

    def __init__(
        self, upstream: exchange.Upstream, telemetry: telemetry.Telemetry, clock: Callable[[], float]
    ) -> None:
        self._upstream = upstream
        self._telemetry = telemetry
        self._clock = clock

    async def run(self, errand: Errand, head: exchange.Headers, body: bytes, method: str) -> Heard:
        """Sends one and waits for its answer; without a body it is a DELETE."""
        answers: list[jsonrpc.Answer] = []
        over: asyncio.Future[exchange.Failed | None] = asyncio.get_running_loop().create_future()

        def heard(message: jsonrpc.Answer) -> bool:
            if message.kind in (jsonrpc.AnswerKind.RESULT, jsonrpc.AnswerKind.ERROR):
                answers.append(message)
                sink.linger()
            return True

        def ended(failed: exchange.Failed | None) -> None:
            if not over.done():
                over.set_result(failed)

        sink = reading.Reading(
            result_bytes_max=errand.permit.server.endpoint.result_bytes_max,
            on_message=heard,
            on_end=ended,
            secrets=errand.lent.secrets,
        )
        started = self._clock()
        verb = "POST" if body else "DELETE"
        sink.flight = flight = self._upstream.send(
            errand.permit, errand.lent, head, body, sink, deadline=errand.deadline, method=verb
        )
        try:
            failed = await over
            failed = None if answers else failed  # what was asked for has arrived, whatever came after it
        except asyncio.CancelledError:
            flight.cancel()
            errand.server.breaker.released(self._clock())
            raise
        self._told(errand, failed, method, started)
        return Heard(answers[0] if answers else None, sink.status, sink.session, failed)

    def _told(self, errand: Errand, failed: exchange.Failed | None, method: str, started: float) -> None:
        now = self._clock()
        if failed is not None and breaker.counts(failed.reason):
            errand.server.breaker.failed(now)
        elif failed is not None and failed.reason is _R.CANCELLED:
            errand.server.breaker.released(now)
        else:
            errand.server.breaker.succeeded(now)
        self._telemetry.upstream(
            method, str(errand.permit.server.id), "" if failed is None else failed.reason.value, now - started
        )


def no_leg(heard: Heard) -> legs.NoLeg:
    """Why what was heard is no answer that could be used."""
    if heard.failed is not None:
        return legs.NoLeg(heard.failed.reason, heard.failed.detail)
    if heard.status in (401, 403):
        return legs.NoLeg(_R.UPSTREAM_UNAUTHORIZED, f"HTTP status {heard.status}", status=heard.status)
    if heard.answer is not None and heard.answer.kind is jsonrpc.AnswerKind.ERROR:
        return legs.NoLeg(
            _R.UPSTREAM_PROTOCOL_ERROR, "the server answered our handshake or list with an error"
        )
    return legs.NoLeg(_R.UPSTREAM_PROTOCOL_ERROR, f"HTTP status {heard.status} and no MCP answer")
