# SPDX-License-Identifier: Apache-2.0
"""Silence is borne so long and no longer; what a server says, and an agent that thinks, begin it anew."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

from tests import proxies
from tests.servers import mcp

from outrider_sidecar import patience


@dataclasses.dataclass
class Clock:
    """Time that a test moves: timers fire when it passes them."""

    now: float = 0.0
    timers: list[tuple[float, Callable[[], None]]] = dataclasses.field(default_factory=list)

    def later(self, seconds: float, then: Callable[[], None]) -> Clock:
        self.timers.append((self.now + seconds, then))
        return self

    def cancel(self) -> None:
        self.timers.clear()

    def move(self, seconds: float) -> None:
        self.now += seconds
        while due := [each for each in self.timers if each[0] <= self.now]:
            self.timers.remove(due[0])
            due[0][1]()


def begun(clock: Clock, tired: list[int], busy: list[bool]) -> patience.Patience:
    return patience.Patience(
        clock.later, lambda: clock.now, seconds=5.0, tired=lambda: tired.append(1), busy=lambda: bool(busy)
    )


def test_silence_is_over_after_its_time() -> None:
    clock, tired = Clock(), []
    made = begun(clock, tired, [])
    clock.move(4.9)
    assert (tired, made.lost) == ([], False)
    clock.move(0.2)
    assert (tired, made.lost) == ([1], True)


def test_every_word_begins_it_anew() -> None:
    clock, tired = Clock(), []
    made = begun(clock, tired, [])
    for _ in range(5):
        clock.move(4.0)
        made.renew()
    assert tired == []
    clock.move(5.1)
    assert tired == [1]


def test_while_an_agent_is_asked_it_is_not_the_servers_silence() -> None:
    clock, tired, busy = Clock(), [], [True]
    begun(clock, tired, busy)
    clock.move(60.0)
    assert tired == []
    busy.clear()
    clock.move(5.1)
    assert tired == [1]


def test_whoever_is_answered_waits_no_more() -> None:
    clock, tired = Clock(), []
    begun(clock, tired, []).end()
    clock.move(60.0)
    assert tired == []


@mcp.behaviour
async def chatters(line, seen):
    """Progress for longer than an answer may take, never silent for as long."""
    await line.events()
    for at in range(5):
        await asyncio.sleep(0.25)
        await line.event(mcp.progress(mcp.token_of(seen), at))
    await line.event(mcp.result(seen, mcp.text("done")))
    await line.over()


@mcp.behaviour
async def babbles(line, seen):
    """Progress without end."""
    await line.events()
    for at in range(100):
        await line.event(mcp.progress(mcp.token_of(seen), at))
        await asyncio.sleep(0.1)
    raise ConnectionResetError


def test_a_stream_that_speaks_outlives_the_time_for_an_answer_and_one_that_falls_silent_does_not() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        told = await world.call("chatters", token="t")
        assert told.text == "done"
        assert len(told.messages) == 6
        late = await world.call("hangs")
        assert late.reason == "UpstreamTimeout"

    proxies.run(scenario, endpoint={"call_seconds": 0.5, "stream_seconds": 10.0})


def test_a_stream_that_never_ends_is_ended() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        told = await world.call("babbles", token="t")
        assert told.reason == "UpstreamTimeout"
        assert [each.reason for each in world.outcomes] == ["UpstreamTimeout"]
        assert world.outcomes[0].status.value == "Failed"

    proxies.run(scenario, endpoint={"call_seconds": 0.4, "stream_seconds": 1.0})
