# SPDX-License-Identifier: Apache-2.0
"""One listen stream at a server of the stateless era: opened, widened without a gap, opened again, given up."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest
from tests.servers import flights, instalments
from tests.test_following import Lender

from outrider import call
from outrider_sidecar import ears, following

TOOL, RESOURCE = call.Kind.TOOL, call.Kind.RESOURCE


def said(method, **params):
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params})


ACK = said("notifications/subscriptions/acknowledged", notifications={})
CHANGED = said("notifications/tools/list_changed")


class World:
    """An ear at a server that answers as the test says, and what came of it."""

    def __init__(self, served):
        self.served = served
        self.heard, self.acknowledged, self.ends = [], [], []

    async def until(self, true):
        async with asyncio.timeout(10):
            while not true():
                await asyncio.sleep(0.005)


def run(act, scenario, monkeypatch, *, lender=None):
    monkeypatch.setattr(following, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(following, "BACKOFF_SECONDS_MAX", 0.1)

    async def main():
        async with instalments.serving(act) as served, flights.way_out() as out:
            world = World(served)
            parts = following.Parts(out, lender or Lender(), asyncio.get_running_loop().time, lambda: 0.0)
            world.ear = ears.Ear(
                parts, flights.permit(served.url), itertools.count(1).__next__, hear=world.heard.append,
                acknowledged=world.acknowledged.append, over=world.ends.append,
            )  # fmt: skip
            world.ear.want({TOOL}, {"a:b"})
            await scenario(world)
            world.ear.close()
            await asyncio.gather(world.ear.task, return_exceptions=True)

    asyncio.run(asyncio.wait_for(main(), 30))


async def listens(line, _seen):
    await line.event(ACK)
    await line.event(CHANGED)
    await line.until_gone()


def test_what_is_wanted_is_asked_for_and_what_is_said_is_handed_on(monkeypatch):
    async def scenario(world):
        await world.until(lambda: world.heard)
        assert [each.method for each in world.heard] == ["notifications/tools/list_changed"]
        assert world.acknowledged == [(frozenset({TOOL}), frozenset({"a:b"}))]
        (seen,) = world.served.seen
        body = json.loads(seen.body)
        assert (seen.verb, body["method"], seen.headers["mcp-method"]) == (
            "POST", "subscriptions/listen", "subscriptions/listen",
        )  # fmt: skip
        assert body["params"]["notifications"] == {"toolsListChanged": True, "resourceSubscriptions": ["a:b"]}
        assert seen.headers["authorization"] == flights.CANARY.decode()

    run(listens, scenario, monkeypatch)


def test_a_stream_that_is_refused_is_opened_again_with_a_newer_credential(monkeypatch):
    async def act(line, seen):
        if seen.headers["authorization"] != "Bearer newer":
            await line.status(401)
            return
        await listens(line, seen)

    lender = Lender()

    async def scenario(world):
        await world.until(lambda: world.heard)
        assert len(world.served.seen) == 2
        assert lender.refused == [flights.LENT]

    run(act, scenario, monkeypatch, lender=lender)


def test_more_is_asked_for_on_a_new_stream_before_the_old_one_is_let_go(monkeypatch):
    left, go_on = asyncio.Event(), asyncio.Event()

    async def act(line, seen):
        second = len(line.served.seen) == 2
        if second:
            await go_on.wait()
        await line.event(ACK)
        await line.until_gone()
        if not second:
            left.set()

    async def scenario(world):
        await world.until(lambda: world.acknowledged)
        world.ear.want({TOOL, RESOURCE}, {"a:b"})
        await world.until(lambda: len(world.served.seen) == 2)
        await asyncio.sleep(0.05)  # time in which the first must not end
        assert not left.is_set()
        go_on.set()
        await asyncio.wait_for(left.wait(), 10)
        assert world.acknowledged[-1][0] == {TOOL, RESOURCE}
        world.ear.want({RESOURCE, TOOL}, ["a:b"])  # the same
        await asyncio.sleep(0.05)
        assert len(world.served.seen) == 2

    run(act, scenario, monkeypatch)


def test_a_stream_that_ends_is_opened_again(monkeypatch):
    async def act(line, seen):
        await line.event(ACK)

    async def scenario(world):
        await world.until(lambda: len(world.served.seen) >= 3)
        ids = [json.loads(seen.body)["id"] for seen in world.served.seen]
        assert len(set(ids)) == len(ids)

    run(act, scenario, monkeypatch)


@pytest.mark.parametrize("status", [404, 405])
def test_a_server_that_does_not_know_the_method_is_asked_once(monkeypatch, status):
    async def act(line, seen):
        await line.status(status, b'{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"x"}}')

    async def scenario(world):
        await world.until(lambda: world.ends)
        assert world.ends == [following.End.NONE]
        assert len(world.served.seen) == 1

    run(act, scenario, monkeypatch)


def test_the_error_alone_tells_it_too(monkeypatch):
    async def act(line, seen):
        error = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"x"}}'
        await line.status(200, error, b"application/json")

    async def scenario(world):
        await world.until(lambda: world.ends)

    run(act, scenario, monkeypatch)


def test_trouble_is_waited_out_ever_longer(monkeypatch):
    times = []

    async def act(line, seen):
        times.append(asyncio.get_running_loop().time())
        await line.status(503)

    async def scenario(world):
        await world.until(lambda: len(times) == 4)
        gaps = [later - before for before, later in itertools.pairwise(times)]
        assert gaps[0] >= 0.04
        assert gaps[2] >= 0.1
        assert world.ends == []

    run(act, scenario, monkeypatch, lender=Lender(away=1))


def test_a_filter_is_written_with_what_is_wanted_and_nothing_else():
    assert ears.filtered([], []) == b"{}"
    assert json.loads(ears.filtered({RESOURCE}, {"b:2", "a:1"})) == {
        "resourcesListChanged": True,
        "resourceSubscriptions": ["a:1", "b:2"],
    }
