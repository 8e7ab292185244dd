# SPDX-License-Identifier: Apache-2.0
"""The breaker as a machine: when it opens, for how long, and who may try first."""

from __future__ import annotations

import pytest
from hypothesis import stateful, strategies

from outrider import decision
from outrider_sidecar import breaker

R = decision.Reason


def opened(now=0.0):
    made = breaker.Breaker()
    for _ in range(breaker.FAILURES_TO_OPEN):
        assert made.allow(now)
        made.failed(now)
    return made


def test_it_opens_at_the_fifth_consecutive_failure_and_not_before():
    made = breaker.Breaker()
    for _ in range(4):
        made.failed(0.0)
        assert made.state is breaker.State.CLOSED
        assert made.allow(0.0)
    made.failed(0.0)
    assert made.state is breaker.State.OPEN
    assert not made.allow(0.0)


def test_a_success_in_between_starts_the_count_again():
    made = breaker.Breaker()
    for _ in range(20):
        for _ in range(4):
            made.failed(0.0)
        made.succeeded(0.0)
    assert made.state is breaker.State.CLOSED


def test_after_its_pause_exactly_one_probe_passes():
    made = opened()
    assert not made.allow(0.999)
    assert made.retry_after(0.4) == pytest.approx(0.6)
    assert made.allow(1.0)
    assert made.state is breaker.State.HALF_OPEN
    assert not any(made.allow(now) for now in (1.0, 2.0, 1000.0))
    made.succeeded(1000.0)
    assert made.state is breaker.State.CLOSED
    assert made.allow(1000.0)


def test_the_pause_doubles_to_thirty_seconds_and_a_success_resets_it():
    made, now, pauses = opened(), 0.0, []
    for _ in range(7):
        pauses.append(made.retry_after(now))
        now += pauses[-1]
        assert made.allow(now)
        made.failed(now)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    now += made.retry_after(now)
    assert made.allow(now)
    made.succeeded(now)
    for _ in range(5):
        made.failed(now)
    assert made.retry_after(now) == 1


def test_a_probe_without_a_verdict_gives_its_place_back():
    made = opened()
    assert made.allow(1.0)
    made.released(1.5)
    assert made.allow(1.5)
    assert not made.allow(1.5)


def test_late_news_of_older_requests_changes_no_pause():
    made = opened()
    made.succeeded(0.5)
    assert not made.allow(0.9)
    made.failed(0.9)
    assert made.retry_after(0.9) == pytest.approx(0.1)
    made.released(0.9)
    assert made.allow(1.0)


def test_only_not_reaching_not_hearing_and_not_understanding_count():
    counting = {reason for reason in R if breaker.counts(reason)}
    assert counting == {R.UPSTREAM_UNREACHABLE, R.UPSTREAM_TIMEOUT, R.UPSTREAM_PROTOCOL_ERROR}


class Machine(stateful.RuleBasedStateMachine):
    """Any order of questions and news, against what must always hold."""

    def __init__(self):
        super().__init__()
        self.breaker = breaker.Breaker()
        self.now = 0.0
        self.failures = 0
        self.probing = False

    @stateful.rule(seconds=strategies.floats(0, 40))
    def wait(self, seconds):
        self.now += seconds

    @stateful.rule()
    def ask(self):
        before = self.breaker.state
        allowed = self.breaker.allow(self.now)
        if before is breaker.State.CLOSED:
            assert allowed
        elif before is breaker.State.HALF_OPEN:
            assert not allowed
        elif allowed:
            assert self.breaker.state is breaker.State.HALF_OPEN
        else:
            assert 0 < self.breaker.retry_after(self.now) <= breaker.OPEN_SECONDS_MAX

    @stateful.rule()
    def fail(self):
        before, wait = self.breaker.state, self.breaker.retry_after(self.now)
        self.breaker.failed(self.now)
        self.failures += 1
        if before is breaker.State.HALF_OPEN:
            assert self.breaker.state is breaker.State.OPEN
        if before is breaker.State.OPEN:
            assert self.breaker.retry_after(self.now) == wait
        if self.breaker.state is breaker.State.OPEN:
            assert self.failures >= breaker.FAILURES_TO_OPEN

    @stateful.rule()
    def succeed(self):
        before, wait = self.breaker.state, self.breaker.retry_after(self.now)
        self.breaker.succeeded(self.now)
        if before is breaker.State.OPEN and wait > 0:
            assert self.breaker.state is breaker.State.OPEN
        else:
            assert self.breaker.state is breaker.State.CLOSED
            self.failures = 0

    @stateful.rule()
    def release(self):
        before = self.breaker.state
        self.breaker.released(self.now)
        assert (self.breaker.state is before) is (before is not breaker.State.HALF_OPEN)

    @stateful.invariant()
    def it_is_never_shut_for_ever_by_time_alone(self):
        assert self.breaker.retry_after(self.now + breaker.OPEN_SECONDS_MAX) == 0


TestMachine = Machine.TestCase
