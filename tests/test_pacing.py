# SPDX-License-Identifier: Apache-2.0
"""When to try again: never at a round time, later each time, and at once after a success."""

from __future__ import annotations

import math
import random

from outrider_sidecar import pacing


class Clock:
    def __init__(self, jitter: float = 0.5) -> None:
        self.now = 100.0
        self.timing = pacing.Timing(lambda: self.now, lambda: self.now, lambda: jitter)


def test_what_lives_is_renewed_after_two_thirds_of_its_life_give_or_take_a_tenth() -> None:
    draws = [
        pacing.Timing(lambda: 0.0, lambda: 0.0, random.Random(seed).random).renewal(600.0)
        for seed in range(200)
    ]
    assert 360 <= min(draws) < 370
    assert 430 < max(draws) <= 440
    assert Clock().timing.renewal(math.inf) == math.inf


def test_waiting_doubles_up_to_the_most_and_a_success_ends_it() -> None:
    clock = Clock()
    backoff = pacing.Backoff(clock.timing, first=1, most=10)
    assert backoff.left == 0
    assert [backoff.failed() for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    assert backoff.left == 10
    clock.now += 10
    assert backoff.left == 0
    backoff.worked()
    assert (backoff.failures, backoff.failed()) == (0, 1)


def test_a_thousand_failures_are_no_larger_number() -> None:
    backoff = pacing.Backoff(Clock().timing, most=10)
    assert [backoff.failed() for _ in range(1_100)][-1] == 10


def test_no_two_proxies_come_back_at_the_same_time() -> None:
    assert pacing.Backoff(Clock(0.0).timing).failed() == 0.75
    assert pacing.Backoff(Clock(0.999).timing).failed() > 1.24
