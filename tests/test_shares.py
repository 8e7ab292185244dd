# SPDX-License-Identifier: Apache-2.0
"""Shares of a bounded table: whoever has most gives way, and only to whoever has less."""

from __future__ import annotations

import pytest

from outrider_operator import shares


def entry(number: int) -> shares.Entry:
    return f"uid-{number}", ("crm/salesforce", "token")


def filled(**counts: int) -> shares.Shares:
    """A full table, in which tenants have so many."""
    table = shares.Shares(sum(counts.values()))
    for tenant, count in counts.items():
        for number in range(count):
            assert not table.full
            table.add(tenant, entry(number))
    assert table.full
    return table


def test_of_a_full_table_the_newest_of_whoever_has_most_is_spared() -> None:
    assert filled(a=5, b=2).spared("b") == entry(4)
    assert filled(a=5, b=2).spared("new") == entry(4)


@pytest.mark.parametrize(("tenant", "counts"), [("a", {"a": 5, "b": 2}), ("b", {"a": 3, "b": 2}), ("a", {})])
def test_whoever_would_have_as_much_as_anybody_has_its_share(tenant: str, counts: dict[str, int]) -> None:
    """Two that have as much as each other would otherwise take from each other for ever."""
    assert filled(**counts).spared(tenant) is None


def test_what_is_removed_makes_room() -> None:
    table = filled(a=2)
    table.remove("a", entry(0))
    assert not table.full
    table.add("b", entry(7))
    assert table.full
    table.remove("b", entry(7))
    table.remove("a", entry(1))
    assert table.spared("c") is None


def test_however_many_take_turns_everybody_ends_with_the_same() -> None:
    table = filled(a=12)
    held = {"a": 12, "b": 0, "c": 0}
    whose = {entry(number): "a" for number in range(12)}
    for number in range(100, 140):
        tenant = "bc"[number % 2]
        spared = table.spared(tenant)
        if spared is None:
            continue
        table.remove(whose[spared], spared)
        held[whose.pop(spared)] -= 1
        table.add(tenant, entry(number))
        held[tenant] += 1
        whose[entry(number)] = tenant
    assert max(held.values()) - min(held.values()) <= 1
