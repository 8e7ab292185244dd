# SPDX-License-Identifier: Apache-2.0
"""Ratios within rounds, and how far they can be trusted.

Called by the table, the gate and the smaller benchmarks. Pure: the resampling is seeded, so a report can be recomputed.
"""

from __future__ import annotations

import dataclasses
import random
import statistics
from collections.abc import Sequence

RESAMPLES = 10_000
COVERAGE = 0.95


@dataclasses.dataclass(frozen=True, slots=True)
class Spread:
    """A median over rounds with the lowest and the highest round."""

    median: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """A mean over rounds with its bootstrap interval. One round has no interval: low = high = value."""

    value: float
    low: float
    high: float
    rounds: int

    def beyond(self, limit: float) -> bool:
        """Whether the whole interval lies above the limit. One round proves nothing."""
        return self.rounds > 1 and self.low > limit


def spread(values: Sequence[float]) -> Spread:
    """Raises ValueError without values."""
    if not values:
        raise ValueError("no rounds to summarise")
    return Spread(statistics.median(values), min(values), max(values))


def ratio(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Of two series, round by round. Raises ValueError when they do not pair or a divisor is zero."""
    if len(above) != len(below):
        raise ValueError(f"{len(above)} rounds cannot be divided by {len(below)}")
    if any(value == 0 for value in below):
        raise ValueError("a round measured zero; nothing can be divided by it")
    return spread([one / other for one, other in zip(above, below, strict=True)])


def interval(values: Sequence[float], *, seed: int = 1) -> Interval:
    """The mean and its percentile-bootstrap interval. Raises ValueError without values."""
    if not values:
        raise ValueError("no rounds to summarise")
    drawn = random.Random(seed)
    means = sorted(
        statistics.fmean(drawn.choices(values, k=len(values)))
        for _ in range(RESAMPLES if len(values) > 1 else 1)
    )
    edge = (1 - COVERAGE) / 2
    if len(values) == 1:
        return Interval(values[0], values[0], values[0], 1)
    return Interval(
        statistics.fmean(values),
        means[int(edge * (len(means) - 1))],
        means[round((1 - edge) * (len(means) - 1))],
        len(values),
    )
