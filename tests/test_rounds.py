# SPDX-License-Identifier: Apache-2.0
"""The prober's rounds: who is visited when, and that nobody waits for those who hang."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from outrider import names, snapshot
from outrider_sidecar import rounds

HERE = snapshot.Endpoint(url="http://one.example/mcp")
THERE = snapshot.Endpoint(url="http://two.example/mcp")


def server(name: str) -> names.ServerId:
    return names.ServerId("crm", name)


class Road:
    """Visits as they come: what each server answers, who hangs, how many are under way."""

    def __init__(self) -> None:
        self.visits: list[str] = []
        self.fresh: dict[str, float | None] = {}
        self.hanging: set[str] = set()
        self.under_way = self.most = 0
        self.made = rounds.Rounds(self.visit, jitter=lambda: 0.0)

    async def visit(self, to: names.ServerId) -> float | None:
        self.visits.append(to.name)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await (asyncio.Event().wait() if to.name in self.hanging else asyncio.sleep(0.01))
        finally:
            self.under_way -= 1
        return self.fresh.get(to.name, 0.0)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)


def run(scenario: Callable[[Road], Awaitable[None]]) -> None:
    async def whole() -> None:
        road = Road()
        try:
            await scenario(road)
        finally:
            await road.made.close()
        assert road.under_way == 0

    asyncio.run(whole())


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "EVERY_SECONDS", 0.2)
    monkeypatch.setattr(rounds, "EVERY_SECONDS_MIN", 0.05)
    monkeypatch.setattr(rounds, "_RETRY_SECONDS", 0.05)


def test_every_server_is_visited_at_once_four_at_a_time_and_then_again() -> None:
    async def scenario(road: Road) -> None:
        road.made.configure({server(f"s{number}"): HERE for number in range(12)})
        await road.until(lambda: len(road.visits) >= 12)
        assert sorted(road.visits[:12]) == sorted(f"s{number}" for number in range(12))
        assert road.most == rounds.AT_ONCE
        await road.until(lambda: len(road.visits) >= 24)

    run(scenario)


def test_only_what_is_new_or_moved_is_visited_at_once_and_what_left_never_again() -> None:
    async def scenario(road: Road) -> None:
        road.made.configure({server("a"): HERE, server("b"): HERE, server("c"): HERE})
        await road.until(lambda: len(road.visits) == 3)
        await asyncio.sleep(0.05)
        road.made.configure({server("a"): HERE, server("b"): THERE, server("d"): HERE})
        await road.until(lambda: len(road.visits) == 5)
        assert sorted(road.visits[3:]) == ["b", "d"]
        await road.until(lambda: road.visits.count("a") == 3)
        assert road.visits.count("c") == 1

    run(scenario)


def test_servers_that_hang_again_delay_nobody_who_answers() -> None:
    async def scenario(road: Road) -> None:
        sick = {server(f"ill{number}"): HERE for number in range(20)}
        road.fresh = {each.name: None for each in sick}
        road.made.configure(sick)
        await road.until(lambda: len(set(road.visits)) == 20)
        road.hanging = {each.name for each in sick}
        await road.until(lambda: road.under_way == rounds.AT_ONCE)
        road.made.configure({**sick, server("well"): HERE})
        await road.until(lambda: road.visits.count("well") == 3)

    run(scenario)


def test_what_a_visit_is_on_its_way_to_is_given_up_when_it_left() -> None:
    async def scenario(road: Road) -> None:
        road.hanging = {"a"}
        road.made.configure({server("a"): HERE})
        await road.until(lambda: road.under_way == 1)
        road.made.configure({})
        await road.until(lambda: road.under_way == 0)

    run(scenario)


def test_a_server_says_for_how_long_it_need_not_be_asked_within_bounds() -> None:
    async def scenario(road: Road) -> None:
        road.fresh = {"often": 0.001, "seldom": 3600.0}
        road.made.configure({server("often"): HERE, server("seldom"): HERE})
        await road.until(lambda: road.visits.count("often") >= 6)
        assert road.visits.count("seldom") == 1

    run(scenario)


def test_a_list_that_is_asked_for_is_fetched_soon_and_asking_again_and_again_does_not_hurry() -> None:
    async def scenario(road: Road) -> None:
        road.fresh = {"a": 3600.0}
        road.made.configure({server("a"): HERE})
        road.made.again(server("nobody"))
        await road.until(lambda: len(road.visits) == 1)
        await asyncio.sleep(0.05)
        for _ in range(20):
            road.made.again(server("a"))
            await asyncio.sleep(0.01)
        assert len(road.visits) == 1
        await road.until(lambda: len(road.visits) == 2)

    run(scenario)
