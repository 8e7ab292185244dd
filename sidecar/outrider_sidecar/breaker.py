# SPDX-License-Identifier: Apache-2.0
"""The circuit breaker of one upstream: a state machine without a clock.

Called by the pipeline around each request it sends. Refuses to count what a server says (tool errors, any HTTP
status): only not reaching it, not hearing from it in time and not understanding it are failures.
"""

from __future__ import annotations

import enum

from outrider import decision

FAILURES_TO_OPEN = 5
OPEN_SECONDS_FIRST = 1.0
OPEN_SECONDS_MAX = 30.0

_FAILURES = frozenset(
    (
        decision.Reason.UPSTREAM_UNREACHABLE,
        decision.Reason.UPSTREAM_TIMEOUT,
        decision.Reason.UPSTREAM_PROTOCOL_ERROR,
    )
)


class State(enum.Enum):
    """For metrics and status."""

    CLOSED = "Closed"
    OPEN = "Open"
    HALF_OPEN = "HalfOpen"


def counts(reason: decision.Reason) -> bool:
    """True when a request that ended so speaks against the upstream's health."""
    return reason in _FAILURES


class Breaker:
    """Opens after 5 consecutive failures, for 1 s, doubling to 30 s; then lets exactly one probe through.

    Whoever gets True from `allow` owes exactly one of `succeeded`, `failed` and `released`. Times are seconds of one
    monotonic clock.
    """

    __slots__ = ("_failures", "_open_seconds", "_state", "_until")

    def __init__(self) -> None:
        self._state = State.CLOSED
        self._failures = 0
        self._open_seconds = OPEN_SECONDS_FIRST
        self._until = 0.0

    @property
    def state(self) -> State:
        """OPEN lasts until somebody asks after its time is over: nothing happens by itself."""
        return self._state

    def allow(self, now: float) -> bool:
        """True when a request may be sent now; the first one after the pause is the probe."""
        if self._state is State.CLOSED:
            return True
        if self._state is State.OPEN and now >= self._until:
            self._state = State.HALF_OPEN
            return True
        return False

    def retry_after(self, now: float) -> float:
        """Seconds until asking again can help, for the agent: 0 when closed, the probe's time is not known."""
        return max(0.0, self._until - now) if self._state is State.OPEN else 0.0

    def succeeded(self, now: float) -> None:
        """The upstream answered. One that was sent before the breaker opened does not cut the pause short."""
        if self._state is State.OPEN and now < self._until:
            return
        self._state = State.CLOSED
        self._failures = 0
        self._open_seconds = OPEN_SECONDS_FIRST

    def failed(self, now: float) -> None:
        """A failure that `counts`. One that was sent before the breaker opened does not lengthen the pause."""
        if self._state is State.OPEN:
            return
        self._failures += 1
        if self._state is State.HALF_OPEN:
            self._open_seconds = min(self._open_seconds * 2, OPEN_SECONDS_MAX)
        elif self._failures < FAILURES_TO_OPEN:
            return
        self._state = State.OPEN
        self._until = now + self._open_seconds

    def released(self, now: float) -> None:
        """The request ended without a verdict (cancelled, never sent): its place as the probe is free again."""
        if self._state is State.HALF_OPEN:
            self._state = State.OPEN
            self._until = now
