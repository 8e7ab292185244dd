# SPDX-License-Identifier: Apache-2.0
"""Refusals of nobody known: few in full, all of them counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outrider import audit
from outrider_sidecar import doorman


def test_ten_a_minute_are_written_and_the_rest_is_one_summary():
    door = doorman.strangers()
    assert [door.admits("HostRefused", 5.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert not door.admits("LocalAuthRefused", 60.0)
    assert door.due(64.9) is None
    assert door.due(65.0) == audit.Summary(
        since=5.0, until=65.0, counts={"HostRefused": 2, "LocalAuthRefused": 1}
    )
    assert door.due(65.0) is None
    assert door.admits("HostRefused", 65.0)


def test_a_minute_in_which_all_were_written_needs_no_summary():
    door = doorman.strangers()
    assert door.admits("HostRefused", 0.0)
    assert door.due(100.0) is None


def test_what_was_counted_is_not_lost_when_the_proxy_ends():
    door = doorman.strangers()
    for _ in range(11):
        door.admits("HostRefused", 0.0)
    assert door.due(1.0) is None
    assert door.due(1.0, closing=True).counts == {"HostRefused": 1}


@given(st.lists(st.tuples(st.floats(-100, 100), st.sampled_from("ab")), max_size=120))
def test_every_refusal_is_written_or_counted_whatever_the_clock_does(steps):
    door, now, written, counted = doorman.strangers(), 1_000.0, 0, 0
    for step, reason in steps:
        now += step
        if (summary := door.due(now)) is not None:
            counted += sum(summary.counts.values())
        written += door.admits(reason, now)
    if (summary := door.due(now, closing=True)) is not None:
        counted += sum(summary.counts.values())
    assert written + counted == len(steps)


def test_an_accepted_caller_has_a_measure_of_its_own_and_its_summary_says_so():
    strangers, callers = doorman.strangers(), doorman.callers()
    assert sum(strangers.admits("LocalAuthRefused", 0.0) for _ in range(1_000)) == 10
    assert not callers.owes
    assert sum(callers.admits("MethodUnknown", 0.0) for _ in range(601)) == 600
    assert callers.owes
    assert callers.due(60.0).why == "authenticated"
    assert strangers.due(60.0).why == "beforeAuthentication"
    assert not callers.owes
