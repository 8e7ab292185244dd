# SPDX-License-Identifier: Apache-2.0
"""When to try again: clocks, jitter and back-off for whoever keeps something fresh.

Used by the modules that lend. Thousands of proxies learn of the same outage in the same second: nothing here is ever due at a round time.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

FIRST_SECONDS = 1.0
MOST_SECONDS = 10.0


@dataclasses.dataclass(frozen=True, slots=True)
class Timing:
    """`clock` is loop time, `wall` epoch seconds, `jitter` anything in [0, 1)."""

    clock: Callable[[], float]
    wall: Callable[[], float]
    jitter: Callable[[], float]

    def about(self, seconds: float) -> float:
        """Seconds, give or take a tenth."""
        return seconds * (0.9 + 0.2 * self.jitter())

    def renewal(self, seconds: float) -> float:
        """When to renew what lives so long: after two thirds of it, give or take a tenth; inf for what never ends."""
        return math.inf if math.isinf(seconds) else self.about(seconds * 2 / 3)


class Backoff:
    """Doubles what is waited with every failure, up to `most` seconds, give or take a quarter."""

    __slots__ = ("_first", "_most", "_timing", "failures", "until")

    def __init__(self, timing: Timing, *, first: float = FIRST_SECONDS, most: float = MOST_SECONDS) -> None:
        self._timing = timing
        self._first = first
        self._most = most
        self.failures = 0
        self.until = -math.inf

    @property
    def left(self) -> float:
        """Seconds until it may be tried again; 0 when it may be."""
        return max(0.0, self.until - self._timing.clock())

    def failed(self) -> float:
        """Once more; seconds until it may be tried again."""
        self.failures += 1
        waited = min(self._most, self._first * 2.0 ** min(self.failures - 1, 20))
        waited *= 0.75 + 0.5 * self._timing.jitter()
        self.until = self._timing.clock() + waited
        return waited

    def worked(self) -> None:
        self.failures = 0
        self.until = -math.inf
