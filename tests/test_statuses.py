# SPDX-License-Identifier: Apache-2.0
"""The writer: what differs is written, not often, again after a failure, and nothing twice."""

from __future__ import annotations

import asyncio
import time

import pytest

from outrider_operator import statuses

THING = ("MCPServer", "crm", "s")
OTHER = ("MCPServer", "crm", "t")


class Refused(Exception):
    def __init__(self, status):
        super().__init__(f"HTTP {status}")
        self.status = status


class Api:
    """Where statuses go: remembers when, and fails as it is told."""

    def __init__(self, *failures, takes=0.0):
        self.writes, self.failures, self.takes = [], list(failures), takes
        self.flying = self.most = 0

    async def __call__(self, kind, namespace, name, status):
        self.flying += 1
        self.most = max(self.most, self.flying)
        await asyncio.sleep(self.takes)
        self.flying -= 1
        self.writes.append((time.monotonic(), (kind, namespace, name), dict(status)))
        if self.failures and (failure := self.failures.pop(0)):
            raise Refused(failure)

    @property
    def said(self):
        return [status["x"] for _, _, status in self.writes]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(statuses, "SETTLE_SECONDS", 0.05)
    monkeypatch.setattr(statuses, "INTERVAL_SECONDS", 0.4)
    monkeypatch.setattr(statuses, "BUDGET_INTERVAL_SECONDS", 0.8)
    monkeypatch.setattr(statuses, "_RETRY_SECONDS", 0.1)


def play(api, script):
    outcomes = []

    async def run():
        writer = statuses.Writer(api, wrote=lambda kind, outcome: outcomes.append(outcome))
        running = asyncio.create_task(writer.run())
        await script(writer)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())
    return outcomes


def test_what_the_api_server_has_already_is_not_written() -> None:
    api = Api()
    conditions = [{"type": "B"}, {"type": "A"}]

    async def script(writer):
        writer.want(THING, {"x": 1, "conditions": conditions}, live={"x": 1, "conditions": conditions[::-1]})
        await asyncio.sleep(0.2)

    play(api, script)
    assert api.writes == []


def test_the_first_goes_at_once_the_second_soon_and_the_third_has_to_wait() -> None:
    api = Api()

    async def script(writer):
        writer.want(THING, {"x": 1}, live={}, first=True)
        await asyncio.sleep(0.02)
        writer.want(THING, {"x": 2}, live={})
        await asyncio.sleep(0.15)
        for number in range(3, 9):
            writer.want(THING, {"x": number}, live={})
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)

    began = time.monotonic()
    play(api, script)
    assert api.said == [1, 2, 8], "what came in between was never needed"
    at = [when - began for when, _, _ in api.writes]
    assert at[0] < 0.05
    assert at[1] < 0.2
    assert at[2] - at[1] >= 0.38


def test_a_wish_that_came_back_to_what_is_written_is_none() -> None:
    api = Api()

    async def script(writer):
        writer.want(THING, {"x": 1}, live={})
        await asyncio.sleep(0.1)
        writer.want(THING, {"x": 2}, live={"x": 1})
        writer.want(THING, {"x": 1}, live={"x": 1})
        assert writer.last(THING) == {"x": 1}
        await asyncio.sleep(0.5)

    play(api, script)
    assert api.said == [1]


def test_what_changes_while_it_is_written_is_written_after_it_even_if_it_changes_back() -> None:
    api = Api(takes=0.1)

    async def script(writer):
        writer.want(THING, {"x": 1}, live={})
        await asyncio.sleep(0.2)
        writer.want(THING, {"x": 2}, live={"x": 1})
        while not api.flying:
            await asyncio.sleep(0.01)
        writer.want(THING, {"x": 1}, live={"x": 1})
        await asyncio.sleep(0.7)

    play(api, script)
    assert api.said == [1, 2, 1]


def test_a_failed_write_is_tried_again_with_growing_pauses_and_the_newest_words() -> None:
    api = Api(500, 409, 0)

    async def script(writer):
        writer.want(THING, {"x": 1}, live={})
        await asyncio.sleep(0.08)
        writer.want(THING, {"x": 2}, live={})
        await asyncio.sleep(0.6)

    assert play(api, script) == ["failed", "failed", "written"]
    assert api.said == [1, 2, 2]
    at = [when for when, _, _ in api.writes]
    assert at[1] - at[0] >= 0.05
    assert at[2] - at[1] >= 0.1


def test_an_object_that_is_gone_is_forgotten() -> None:
    api = Api(404)

    async def script(writer):
        writer.want(THING, {"x": 1}, live={})
        await asyncio.sleep(0.3)
        assert writer.last(THING) is None

    assert play(api, script) == ["gone"]
    assert len(api.writes) == 1


def test_one_object_that_cannot_be_written_keeps_no_other_waiting() -> None:
    class Picky(Api):
        async def __call__(self, kind, namespace, name, status):
            await super().__call__(kind, namespace, name, status)
            if name == "s":
                raise Refused(422)

    api = Picky()

    async def script(writer):
        writer.want(THING, {"x": 1}, live={})
        writer.want(OTHER, {"x": 2}, live={})
        await asyncio.sleep(0.3)

    assert play(api, script).count("written") == 1


def test_only_so_many_are_written_at_a_time() -> None:
    api = Api(takes=0.02)

    async def script(writer):
        for number in range(40):
            writer.want(("MCPServer", "crm", f"s{number}"), {"x": number}, live={})
        await asyncio.sleep(0.6)

    play(api, script)
    assert sorted(api.said) == list(range(40))
    assert api.most == statuses.WRITES_MAX


def test_an_object_made_again_while_its_status_is_on_its_way_is_not_left_out() -> None:
    api = Api(takes=0.1)

    async def script(writer):
        writer.want(THING, {"x": 1}, live={})
        while not api.flying:
            await asyncio.sleep(0.01)
        writer.forget(THING)
        writer.want(THING, {"x": 2}, live={}, first=True)
        await asyncio.sleep(0.5)
        assert writer.last(THING) == {"x": 2}

    play(api, script)
    assert api.said == [1, 2]


def test_thousands_that_wait_cost_little_each() -> None:
    api = Api()

    async def script(writer):
        for number in range(5_000):
            writer.want(("MCPServer", "crm", f"s{number}"), {"x": number}, live={})
        while len(api.writes) < 5_000:
            await asyncio.sleep(0.01)

    began = time.process_time()
    play(api, script)
    assert time.process_time() - began < 5.0


def test_budgets_are_written_less_often() -> None:
    api = Api()

    async def script(writer):
        writer.want(("MCPBudget", "crm", "b"), {"x": 1}, live={})
        await asyncio.sleep(0.1)
        writer.want(("MCPBudget", "crm", "b"), {"x": 2}, live={})
        await asyncio.sleep(0.5)
        assert api.said == [1]
        await asyncio.sleep(0.5)

    play(api, script)
    assert api.said == [1, 2]


def test_a_writer_in_doubt_believes_the_api_server_only() -> None:
    api = Api()

    async def script(writer):
        writer.want(THING, {"x": 1}, live={})
        await asyncio.sleep(0.1)
        writer.want(THING, {"x": 1}, live={"x": "somebody else's"})
        await asyncio.sleep(0.5)
        assert api.said == [1]
        writer.doubt()
        writer.want(THING, {"x": 1}, live={"x": "somebody else's"})
        await asyncio.sleep(0.6)

    play(api, script)
    assert api.said == [1, 1]


def test_the_intervals_are_those_that_are_promised() -> None:
    import importlib

    fresh = importlib.reload(statuses)
    assert (fresh.INTERVAL_SECONDS, fresh.BUDGET_INTERVAL_SECONDS) == (5.0, 30.0)
