# SPDX-License-Identifier: Apache-2.0
"""The ledger: all or none, exactly once, never above a cap, in any order."""

from __future__ import annotations

import pytest
from hypothesis import settings, stateful
from hypothesis import strategies as st

from outrider import budgets, names
from outrider_sidecar import ledger

CRM = names.ServerId("crm", "salesforce")
CALL = budgets.MICRO
NOON = 1_750_000_000.0 - 1_750_000_000 % 86_400 + 43_200


def pool(name="calls", **fields):
    fields = {"namespace": "crm", "budget": "b", "name": name, "unit": budgets.Unit.CALLS} | fields
    return budgets.pool_of(budgets.Limit(**fields), CRM, "query")


def daily(amount, **fields):
    return budgets.Quota(amount=amount, period=budgets.Period.DAY, **fields)


def needs(*pairs):
    return [budgets.Reservation(each, amount) for each, amount in pairs]


def test_a_pool_nobody_used_has_its_whole_quota():
    assert ledger.Ledger().available(pool(quota=daily(5)), NOON) == 5


def test_units_are_set_aside_in_all_pools_or_in_none():
    plenty, scarce = pool("plenty", quota=daily(10)), pool("scarce", quota=daily(1))
    book = ledger.Ledger()
    with pytest.raises(ValueError, match="1 are available"):
        book.reserve(needs((plenty, 3), (scarce, 2)), NOON)
    assert (book.available(plenty, NOON), book.available(scarce, NOON), book.holds) == (10, 1, 0)


def test_one_pool_named_twice_by_a_call_is_charged_twice():
    twice, book = pool(quota=daily(10)), ledger.Ledger()
    with pytest.raises(ValueError, match="4 are available"):
        book.reserve(needs((twice, 6), (twice, 6)), NOON)
    book.reserve(needs((twice, 6), (twice, 4)), NOON)
    assert book.available(twice, NOON) == 0


def test_a_call_that_was_never_sent_gives_everything_back():
    counted, paced = pool(quota=daily(CALL)), pool("pace", rate=budgets.Rate(per_second=1, burst=CALL))
    book = ledger.Ledger()
    hold = book.reserve(needs((counted, CALL), (paced, CALL)), NOON)
    assert (book.available(counted, NOON), book.available(paced, NOON)) == (0, 0)
    book.release(hold)
    assert (book.available(counted, NOON), book.available(paced, NOON)) == (CALL, CALL)


def test_settling_keeps_whole_calls_and_only_the_money_that_was_used():
    calls, money = pool(quota=daily(5 * CALL)), pool("spend", unit=budgets.Unit.COST, quota=daily(1000))
    book = ledger.Ledger()
    hold = book.reserve(needs((calls, CALL), (money, 600)), NOON)
    assert [charge.amount for charge in hold.charges()] == [CALL, 600]
    assert [charge.amount for charge in hold.charges(cost=250)] == [CALL, 250]
    book.settle(hold, 250)
    assert (book.available(calls, NOON), book.available(money, NOON)) == (4 * CALL, 750)


def test_money_is_never_charged_above_what_was_set_aside():
    money, book = pool("spend", unit=budgets.Unit.COST, quota=daily(1000)), ledger.Ledger()
    book.settle(book.reserve(needs((money, 600)), NOON), 10_000)
    assert book.available(money, NOON) == 400


@pytest.mark.parametrize("again", ["settle", "release"])
def test_a_hold_ends_exactly_once(again):
    counted, book = pool(quota=daily(5 * CALL)), ledger.Ledger()
    other = book.reserve(needs((counted, CALL)), NOON)
    hold = book.reserve(needs((counted, CALL)), NOON)
    book.settle(hold, 0)
    with pytest.raises(ValueError, match="ended already"):
        book.settle(hold, 0) if again == "settle" else book.release(hold)
    assert book.available(counted, NOON) == 3 * CALL
    book.release(other)
    assert book.holds == 0


def test_a_call_that_ends_after_midnight_is_charged_to_the_day_it_began():
    counted, book = pool(quota=daily(2 * CALL)), ledger.Ledger()
    hold = book.reserve(needs((counted, CALL)), NOON)
    tomorrow = NOON + 86_400
    book.reserve(needs((counted, CALL)), tomorrow)
    book.settle(hold, 0)
    assert book.available(counted, tomorrow) == CALL


def test_setting_the_clock_back_does_not_open_an_ended_day_again():
    counted, book = pool(quota=daily(2 * CALL)), ledger.Ledger()
    book.settle(book.reserve(needs((counted, 2 * CALL)), NOON), 0)
    book.settle(book.reserve(needs((counted, 2 * CALL)), NOON + 86_400), 0)
    assert book.available(counted, NOON) == 0


def test_thresholds_are_returned_by_the_settlement_that_reaches_them():
    counted = pool(quota=daily(4 * CALL, warn_at=(50, 100)))
    book, reached = ledger.Ledger(), []
    for _ in range(4):
        reached.append([each.percent for each in book.settle(book.reserve(needs((counted, CALL)), NOON), 0)])
    assert reached == [[], [50], [], [100]]


def test_a_limit_that_only_warns_lets_calls_pass_and_books_the_debt():
    warned, book = pool(quota=daily(CALL), deny=False), ledger.Ledger()
    for _ in range(3):
        assert book.available(warned, NOON) == budgets.UNLIMITED_UNITS
        book.settle(book.reserve(needs((warned, CALL)), NOON), 0)
    (row,) = book.standing(NOON)
    assert (row.spent, row.debt, row.remaining) == (3 * CALL, 2 * CALL, 0)


def test_a_rate_that_only_warns_never_refuses():
    warned, book = pool(rate=budgets.Rate(per_second=1, burst=CALL), deny=False), ledger.Ledger()
    for _ in range(3):
        book.settle(book.reserve(needs((warned, CALL)), NOON), 0)
    assert book.available(warned, NOON) == budgets.UNLIMITED_UNITS


def test_a_rate_refills_with_time():
    paced, book = pool(rate=budgets.Rate(per_second=2 * CALL, burst=CALL)), ledger.Ledger()
    book.settle(book.reserve(needs((paced, CALL)), NOON), 0)
    assert (book.available(paced, NOON), book.available(paced, NOON + 0.5)) == (0, CALL)


def test_the_standing_says_what_is_left_and_until_when():
    money = pool("spend", unit=budgets.Unit.COST, quota=daily(1000))
    book = ledger.Ledger()
    book.settle(book.reserve(needs((money, 600)), NOON), 100)
    book.reserve(needs((money, 300)), NOON)
    assert book.standing(NOON) == (
        ledger.Standing(
            "crm/b/spend", budgets.Unit.COST, 1000, 100, 300, 600, 0, resets_at=int(NOON) + 43_200
        ),
    )
    assert book.standing(NOON + 86_400) == ()


def test_what_a_replay_found_is_spent_before_the_first_call():
    counted, book = pool(quota=daily(5 * CALL)), ledger.Ledger()
    start = int(NOON) - 43_200
    book.restore(
        [
            budgets.Charge(counted.id, start - 86_400, start, 5 * CALL),
            budgets.Charge(counted.id, start, start + 86_400, 3 * CALL),
            budgets.Charge(counted.id, start, start + 86_400, CALL),
        ],
        latest=NOON,
    )
    assert book.standing(NOON)[0].limit is None
    assert book.available(counted, NOON) == CALL
    assert book.available(counted, NOON - 86_400) == CALL
    assert book.available(counted, NOON + 86_400) == 5 * CALL


def test_rates_count_as_used_up_when_the_journal_ended():
    paced = pool(rate=budgets.Rate(per_second=CALL, burst=10 * CALL))
    book = ledger.Ledger()
    book.restore([], latest=NOON)
    assert book.available(paced, NOON + 3) == 3 * CALL
    fresh = ledger.Ledger()
    fresh.restore([], latest=None)
    assert fresh.available(paced, NOON) == 10 * CALL


def test_a_full_ledger_does_not_know_instead_of_guessing():
    book = ledger.Ledger(pools_max=2)
    for name in ("a", "b"):
        book.release(book.reserve(needs((pool(name, quota=daily(CALL)), CALL)), NOON))
    third = pool("c", quota=daily(CALL))
    assert book.available(third, NOON) is None
    assert book.available(pool("d", quota=daily(CALL), deny=False), NOON) is None
    assert book.available(pool("a", quota=daily(CALL)), NOON) == CALL
    with pytest.raises(ValueError, match="no room"):
        book.reserve(needs((third, 1)), NOON)


def test_pools_of_ended_periods_and_full_buckets_make_room():
    book = ledger.Ledger(pools_max=2)
    book.settle(book.reserve(needs((pool("a", quota=daily(CALL)), CALL)), NOON), 0)
    book.settle(
        book.reserve(needs((pool("r", rate=budgets.Rate(per_second=CALL, burst=CALL)), CALL)), NOON), 0
    )
    assert book.available(pool("c", quota=daily(CALL)), NOON + 86_400) == CALL
    assert book.available(pool("a", quota=daily(CALL)), NOON) == CALL, "yesterday's is not spendable again"
    book.reserve(needs((pool("a", quota=daily(CALL)), CALL)), NOON)
    assert book.standing(NOON)[0].resets_at > NOON + 86_400


def test_a_resized_quota_counts_what_was_spent_before():
    book = ledger.Ledger()
    book.settle(book.reserve(needs((pool(quota=daily(10)), 8)), NOON), 8)
    assert book.available(pool(quota=daily(9)), NOON) == 1
    assert book.available(pool(quota=daily(5)), NOON) == 0
    assert book.available(pool(quota=daily(20)), NOON) == 12


class Book(stateful.RuleBasedStateMachine):
    """Two quotas and calls needing either or both, against a plain count of what was executed."""

    def __init__(self):
        super().__init__()
        self.calls = pool("calls", quota=budgets.Quota(amount=7, period=budgets.Period.MINUTE))
        self.money = pool(
            "spend", unit=budgets.Unit.COST, quota=budgets.Quota(amount=50, period=budgets.Period.HOUR)
        )
        self.caps = {self.calls.id: 7, self.money.id: 50}
        self.book = ledger.Ledger()
        self.now = NOON
        self.seen = None  # the latest wall time that the ledger was asked at and the journal holds
        self.open = []
        self.spent = {}

    @stateful.rule(seconds=st.sampled_from([-4000, -70, -1, 0.5, 20, 61, 3600]))
    def the_clock_moves(self, seconds):
        self.now += seconds

    @stateful.rule(count=st.integers(0, 3), price=st.integers(0, 30))
    def a_call_is_admitted_when_decide_would(self, count, price):
        wanted = needs((self.calls, count), (self.money, price))
        if all(self.book.available(each.pool, self.now) >= each.amount for each in wanted):
            self.open.append(self.book.reserve(wanted, self.now))
            self.seen = self.now if self.seen is None else max(self.seen, self.now)

    @stateful.precondition(lambda self: self.open)
    @stateful.rule(data=st.data(), cost=st.integers(0, 40))
    def a_call_ends(self, data, cost):
        hold = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        for charge in hold.charges(cost):
            self.spent[charge[:3]] = self.spent.get(charge[:3], 0) + charge.amount
        self.book.settle(hold, cost)

    @stateful.precondition(lambda self: self.open)
    @stateful.rule()
    def a_call_is_never_sent(self):
        self.book.release(self.open.pop())

    @stateful.rule()
    def the_proxy_is_killed_and_starts_again(self):
        for hold in self.open:
            for charge in hold.charges():
                self.spent[charge[:3]] = self.spent.get(charge[:3], 0) + charge.amount
        before = [self.book.available(each, self.now) for each in (self.calls, self.money)]
        self.open, self.book = [], ledger.Ledger()
        self.book.restore(
            [budgets.Charge(*key, amount) for key, amount in self.spent.items()], latest=self.seen
        )
        after = [self.book.available(each, self.now) for each in (self.calls, self.money)]
        assert all(new <= old for new, old in zip(after, before, strict=True))

    @stateful.invariant()
    def no_period_is_over_its_cap_whatever_is_in_flight(self):
        held = dict(self.spent)
        for hold in self.open:
            for charge in hold.charges():
                held[charge[:3]] = held.get(charge[:3], 0) + charge.amount
        assert all(amount <= self.caps[key[0]] for key, amount in held.items())

    @stateful.invariant()
    def the_standing_agrees_with_what_was_executed(self):
        for row in self.book.standing(self.now):
            spent = sum(
                amount
                for (name, _, end), amount in self.spent.items()
                if (name, end) == (row.pool, row.resets_at)
            )
            assert row.spent == spent


TestBook = Book.TestCase
TestBook.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
