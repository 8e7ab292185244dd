# SPDX-License-Identifier: Apache-2.0
"""Budgets as arithmetic: ids, periods, prices, escrow and rates, mostly as properties."""

from __future__ import annotations

import datetime as dt
import zoneinfo

import pytest
from hypothesis import assume, given, settings, stateful
from hypothesis import strategies as st

from outrider import budgets, names

CRM = names.ServerId("crm", "salesforce")
ZONES = sorted(zoneinfo.available_timezones())
CALL = budgets.MICRO


def limit(**fields):
    given_fields = {"namespace": "crm", "budget": "monthly", "name": "calls", "unit": budgets.Unit.CALLS}
    return budgets.Limit(**(given_fields | fields))


def quota(amount=10 * CALL, period=budgets.Period.DAY, **fields):
    return budgets.Quota(amount=amount, period=period, **fields)


def at(text, zone="UTC"):
    return dt.datetime.fromisoformat(text).replace(tzinfo=zoneinfo.ZoneInfo(zone)).timestamp()


# Pools


def test_a_pool_without_a_key_is_named_by_its_limit():
    assert budgets.pool_of(limit(), CRM, "query").id == "crm/monthly/calls"


def test_the_key_of_a_pool_is_sorted_and_taken_from_workload_and_call():
    keyed = limit(key=(("team", "sales"), ("namespace", "agents")), per_server=True, per_tool=True)
    assert (
        budgets.pool_of(keyed, CRM, "query").id
        == "crm/monthly/calls[namespace=agents,server=crm/salesforce,team=sales,tool=query]"
    )


def test_calls_to_different_tools_share_a_pool_unless_it_is_per_tool():
    shared, apart = limit(), limit(per_tool=True)
    assert budgets.pool_of(shared, CRM, "a") == budgets.pool_of(shared, CRM, "b")
    assert budgets.pool_of(apart, CRM, "a").id != budgets.pool_of(apart, CRM, "b").id


texts = st.text(alphabet="ab%,=[]/5C", max_size=5)
keys = st.dictionaries(texts, texts, max_size=3).map(lambda pairs: tuple(pairs.items()))


@given(st.tuples(texts, texts, texts, keys), st.tuples(texts, texts, texts, keys))
def test_two_different_keys_never_share_an_id(one, other):
    def pool_id(parts):
        namespace, budget, name, key = parts
        return budgets.pool_of(limit(namespace=namespace, budget=budget, name=name, key=key), CRM, "t").id

    same = one[:3] == other[:3] and dict(one[3]) == dict(other[3])
    assert (pool_id(one) == pool_id(other)) is same


def test_a_hypothetical_call_is_never_short():
    pool = budgets.pool_of(limit(quota=quota(amount=0)), CRM, "query")
    available = budgets.UNLIMITED.available(pool, 0.0)
    assert available is not None
    assert available > 10**12 * CALL


# Prices


def test_a_call_costs_its_fixed_price_and_its_result():
    price = budgets.Price(per_call=1000, per_thousand_result_tokens=2_000_000, result_bytes_max=30_000)
    assert budgets.reserve(price) == 1000 + 20_000_000
    assert budgets.cost(price, result_bytes=3_000, failed=False) == 1000 + 2_000_000
    assert budgets.cost(price, result_bytes=0, failed=False) == 1000


def test_part_of_a_token_and_part_of_a_micro_unit_are_rounded_up():
    price = budgets.Price(per_thousand_result_tokens=1500)
    assert budgets.cost(price, result_bytes=1, failed=False) == 2
    assert budgets.cost(price, result_bytes=4, failed=False) == 3


@pytest.mark.parametrize(
    ("on_error", "tool_error", "unknown"),
    [
        (budgets.OnError.FULL, 7 + 1000, 7 + 10_000),
        (budgets.OnError.PER_CALL_ONLY, 7, 7),
        (budgets.OnError.ZERO, 0, 0),
    ],
)
def test_failed_calls_cost_what_the_price_says_and_unknown_outcomes_the_reserve(
    on_error, tool_error, unknown
):
    price = budgets.Price(
        per_call=7, per_thousand_result_tokens=1_000_000, result_bytes_max=30, on_error=on_error
    )
    assert budgets.cost(price, result_bytes=3, failed=True) == tool_error
    assert budgets.cost(price, result_bytes=None, failed=True) == unknown
    assert budgets.cost(price, result_bytes=None, failed=False) == unknown


prices = st.builds(
    budgets.Price,
    per_call=st.integers(0, 10**9),
    per_thousand_result_tokens=st.integers(0, 10**9),
    result_bytes_max=st.integers(0, 10**7),
    on_error=st.sampled_from(budgets.OnError),
)


@given(prices, st.none() | st.integers(0, 10**9), st.booleans())
def test_no_call_costs_more_than_its_reserve_or_less_than_nothing(price, result_bytes, failed):
    assert 0 <= budgets.cost(price, result_bytes=result_bytes, failed=failed) <= budgets.reserve(price)


@given(prices, st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_larger_result_never_costs_less(price, one, other):
    small, large = sorted((one, other))
    assert budgets.cost(price, result_bytes=small, failed=False) <= budgets.cost(
        price, result_bytes=large, failed=False
    )


# Periods


@given(
    st.floats(0, 4_000_000_000),
    st.sampled_from(ZONES),
    st.sampled_from(budgets.Period),
)
@settings(deadline=None)
def test_periods_partition_time_in_every_zone(now, zone, period):
    limited = quota(period=period, time_zone=zone)
    start, end = budgets.period(limited, now)
    assert start <= now < end
    assert budgets.period(limited, start) == (start, end)
    assert budgets.period(limited, end - 0.001) == (start, end)
    assert budgets.period(limited, end)[0] == end
    assert budgets.period(limited, start - 0.001)[1] == start


@pytest.mark.parametrize(
    ("period", "zone", "now", "start", "end"),
    [
        ("MINUTE", "UTC", "2026-07-01T12:34:56", "2026-07-01T12:34", "2026-07-01T12:35"),
        ("HOUR", "Asia/Kolkata", "2026-07-01T12:34:56", "2026-07-01T12:00", "2026-07-01T13:00"),
        ("DAY", "Europe/Berlin", "2026-07-01T23:59:59", "2026-07-01", "2026-07-02"),
        ("WEEK", "UTC", "2027-01-01T00:00:00", "2026-12-28", "2027-01-04"),
        ("MONTH", "Europe/Berlin", "2026-12-31T23:59:59", "2026-12-01", "2027-01-01"),
        ("MONTH", "America/New_York", "2028-02-29T10:00:00", "2028-02-01", "2028-03-01"),
    ],
)
def test_periods_follow_the_calendar_of_their_zone(period, zone, now, start, end):
    limited = quota(period=budgets.Period[period], time_zone=zone)
    assert budgets.period(limited, at(now, zone)) == (at(start, zone), at(end, zone))


def test_days_are_23_or_25_hours_long_when_the_clock_changes():
    berlin = quota(time_zone="Europe/Berlin")

    def hours(day):
        start, end = budgets.period(berlin, at(day + "T12:00", "Europe/Berlin"))
        return (end - start) / 3600

    assert (hours("2026-03-29"), hours("2026-03-30"), hours("2026-10-25")) == (23, 24, 25)


def test_the_repeated_hour_is_two_hours_and_not_one_long_one():
    berlin = quota(period=budgets.Period.HOUR, time_zone="Europe/Berlin")
    first = at("2026-10-25T00:30", "UTC")
    assert budgets.period(berlin, first)[1] == budgets.period(berlin, first + 3600)[0]


def test_a_day_whose_midnight_the_clock_skips_begins_with_the_change():
    beirut = quota(time_zone="Asia/Beirut")
    start, end = budgets.period(beirut, at("2026-03-29T12:00", "Asia/Beirut"))
    assert dt.datetime.fromtimestamp(start, zoneinfo.ZoneInfo("Asia/Beirut")).isoformat() == (
        "2026-03-29T01:00:00+03:00"
    )
    assert end - start == 23 * 3600


# Escrow


def test_more_than_is_available_is_never_set_aside():
    holder = budgets.Holder(granted=10).admit(6)
    assert holder.available == 4
    with pytest.raises(ValueError, match="4 are available"):
        holder.admit(5)
    with pytest.raises(ValueError, match="-1"):
        holder.admit(-1)


def test_what_was_not_set_aside_cannot_be_settled():
    with pytest.raises(ValueError, match="in flight"):
        budgets.Holder(granted=10).admit(1).settle(2, 0)


def test_a_lowered_cap_leaves_nothing_available_and_nothing_negative():
    account, _ = budgets.opened(quota(amount=10), 0.0).admit(8)
    lowered = account.rollover(quota(amount=5), 1.0)
    assert lowered.holder.available == 0
    assert lowered.holder.inflight == 8


def test_a_call_belongs_to_the_period_of_the_units_it_spends():
    daily = quota(amount=10)
    account, share = budgets.opened(daily, 0.0).admit(4)
    next_day = account.rollover(daily, 86_400.0)
    assert next_day.holder == budgets.Holder(granted=10)
    assert next_day.settle(share, 4) == next_day


def test_an_ended_period_is_not_opened_again_when_the_clock_goes_back():
    daily = quota(amount=10)
    account, share = budgets.opened(daily, 90_000.0).admit(10)
    assert account.rollover(daily, 5.0).holder.available == 0
    assert account.settle(share, 10).rollover(daily, 5.0).spent == 10


def test_a_limit_that_only_warns_books_what_is_beyond_it_as_debt():
    account, share = budgets.opened(quota(amount=10), 0.0).admit(25, overdraw=True)
    assert share == budgets.Share(0, 10, 15)
    settled = account.settle(share, 18)
    assert (settled.holder.used, settled.holder.debt, settled.spent) == (10, 8, 18)


def test_thresholds_are_reported_when_they_are_reached_and_once():
    warned = quota(amount=200, warn_at=(50, 80, 100))
    assert budgets.crossed(0, 99, warned) == ()
    assert budgets.crossed(99, 100, warned) == (50,)
    assert budgets.crossed(100, 100, warned) == ()
    assert budgets.crossed(100, 260, warned) == (80, 100)
    assert budgets.crossed(0, 5, quota(amount=0, warn_at=(50,))) == ()


@given(st.lists(st.integers(0, 40), max_size=20), st.integers(1, 300))
def test_each_threshold_fires_at_most_once_however_spending_is_cut_up(steps, amount):
    warned = quota(amount=amount, warn_at=(50, 80, 95, 100))
    fired, spent = [], 0
    for step in steps:
        fired += budgets.crossed(spent, spent + step, warned)
        spent += step
    assert fired == [each for each in warned.warn_at if spent * 100 >= each * amount]


# Rates


def test_a_bucket_gives_its_burst_and_then_what_time_brings():
    rate = budgets.Rate(per_second=2 * CALL, burst=3 * CALL)
    bucket = budgets.full_bucket(rate, 100.0)
    for _ in range(3):
        bucket, _share = bucket.take(CALL)
    with pytest.raises(ValueError, match="0 are available"):
        bucket.take(CALL)
    assert bucket.refilled(rate, 100.5).available == CALL
    assert bucket.refilled(rate, 1e6).available == 3 * CALL


def test_many_small_refills_lose_nothing_to_rounding():
    rate = budgets.Rate(per_second=1, burst=CALL)
    bucket = budgets.Bucket(0, 0)
    for tick in range(1, 1001):
        bucket = bucket.refilled(rate, tick / 100)
    assert bucket.available == 10


def test_a_token_of_a_call_that_was_never_sent_goes_back():
    rate = budgets.Rate(per_second=CALL, burst=2 * CALL)
    bucket, share = budgets.full_bucket(rate, 0.0).take(CALL)
    assert bucket.put_back(share, rate).available == 2 * CALL
    assert budgets.full_bucket(rate, 0.0).put_back(share, rate).available == 2 * CALL


def test_a_clock_that_was_set_back_does_not_stop_a_rate_for_as_long():
    rate = budgets.Rate(per_second=CALL, burst=CALL)
    empty, _ = budgets.full_bucket(rate, 10_000.0).take(CALL)
    back = empty.refilled(rate, 1_000.0)
    assert back.available == 0
    assert back.refilled(rate, 1_001.0).available == CALL


@given(
    st.lists(st.tuples(st.floats(-59, 59), st.integers(1, 5 * CALL)), max_size=40),
    st.integers(0, 5 * CALL),
    st.integers(0, 5 * CALL),
)
def test_a_rate_never_gives_more_than_burst_and_elapsed_time_whatever_the_clock_does(
    steps, per_second, burst
):
    rate = budgets.Rate(per_second=per_second, burst=burst)
    now = latest = 1_000_000.0
    bucket, taken = budgets.full_bucket(rate, now), 0
    for step, amount in steps:
        now = max(latest - 59, now + step)
        latest = max(latest, now)
        bucket = bucket.refilled(rate, now)
        if amount <= bucket.available:
            bucket, _share = bucket.take(amount)
            taken += amount
    assert taken <= burst + (latest - 1_000_000.0 + 0.001) * per_second


def test_waiting_is_told_in_seconds_or_as_useless():
    daily = limit(quota=quota(amount=10))
    assert budgets.retry_after(daily, 3, 0, 86_000.0) == 400.0
    assert budgets.retry_after(daily, 11, 0, 0.0) is None
    paced = limit(rate=budgets.Rate(per_second=2 * CALL, burst=CALL))
    assert budgets.retry_after(paced, CALL, 0, 0.0) == 0.5
    assert budgets.retry_after(paced, CALL, CALL, 0.0) == 0.0
    assert budgets.retry_after(paced, 2 * CALL, 0, 0.0) is None
    stopped = limit(rate=budgets.Rate(per_second=0, burst=CALL))
    assert budgets.retry_after(stopped, CALL, 0, 0.0) is None


@given(st.integers(0, CALL), st.integers(1, CALL), st.floats(0, 1e9))
def test_after_the_told_wait_a_rate_has_what_was_asked(level, per_second, now):
    rate = budgets.Rate(per_second=per_second, burst=CALL)
    wait = budgets.retry_after(limit(rate=rate), CALL, level, now)
    assume(wait is not None)
    bucket = budgets.Bucket(level * budgets.MICRO, round(now * budgets.MICRO))
    assert bucket.refilled(rate, now + wait + 1e-5).available >= CALL - per_second // 50_000 - 1


# Any order of events


class Escrow(stateful.RuleBasedStateMachine):
    """One quota under any order of admissions, settlements, rollovers, crashes and clock changes."""

    CAP = 100

    def __init__(self):
        super().__init__()
        self.quota = quota(amount=self.CAP, period=budgets.Period.MINUTE)
        self.now = 1_000_020.0
        self.account = budgets.opened(self.quota, self.now)
        self.open = []
        self.executed = {}

    @stateful.rule(seconds=st.floats(-120, 120))
    def the_clock_moves(self, seconds):
        self.now = max(0.0, self.now + seconds)

    @stateful.rule(amount=st.integers(0, 60))
    def a_call_is_admitted(self, amount):
        self.account = self.account.rollover(self.quota, self.now)
        if amount <= self.account.holder.available:
            self.account, share = self.account.admit(amount)
            self.open.append(share)

    @stateful.precondition(lambda self: self.open)
    @stateful.rule(data=st.data(), actual=st.integers(0, 80))
    def a_call_ends(self, data, actual):
        share = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        charged = min(actual, share.covered)
        self.executed[share.start] = self.executed.get(share.start, 0) + charged
        self.account = self.account.settle(share, charged)

    @stateful.rule()
    def the_proxy_crashes_and_replays(self):
        """What is open is charged at its maximum; what was settled is known exactly."""
        for share in self.open:
            self.executed[share.start] = self.executed.get(share.start, 0) + share.covered
        self.open = []
        used = self.executed.get(self.account.start, 0)
        holder = budgets.Holder(granted=self.CAP, used=used)
        assert holder.available <= self.account.holder.available
        self.account = budgets.Account(self.account.start, self.account.end, holder)

    @stateful.invariant()
    def no_period_is_ever_over_its_cap(self):
        held = dict(self.executed)
        for share in self.open:
            held[share.start] = held.get(share.start, 0) + share.covered
        assert all(0 <= amount <= self.CAP for amount in held.values())

    @stateful.invariant()
    def the_holder_keeps_its_promise(self):
        holder = self.account.holder
        assert min(holder.used, holder.inflight, holder.available) >= 0
        assert holder.used + holder.inflight <= holder.granted - holder.returned
        assert holder.used == self.executed.get(self.account.start, 0)


TestEscrow = Escrow.TestCase
TestEscrow.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
