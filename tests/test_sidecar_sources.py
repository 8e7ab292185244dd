# SPDX-License-Identifier: Apache-2.0
"""One server heard for everybody: when it is met, when it is met again, and when it is left alone."""

from __future__ import annotations

import asyncio

from tests import hearing_agents as hearing
from tests import proxies

from outrider import call, decide
from outrider_sidecar import following, sources

TOOLS = "notifications/tools/list_changed"


def run(stage, scenario, monkeypatch):
    """A source of one server, which wants to hear of tools and of one resource."""
    monkeypatch.setattr(following, "RETRY_SECONDS", 0.02)

    async def inside(world):
        clock = asyncio.get_running_loop().time
        followed = following.Parts(world.parts.upstream, world.parts.credentials, clock, lambda: 0.0)
        heard = []
        permit = decide.permit_listing(world.current.bound, proxies.API)
        source = sources.Source(
            sources.Parts(followed, world.parts.servers),
            permit,
            hear=lambda message: heard.append(message.method),
        )
        source.want({call.Kind.TOOL}, {"file:///a"})
        try:
            await scenario(source, heard)
        finally:
            source.close()
            await asyncio.gather(source.task, return_exceptions=True)

    hearing.run(inside, stage)


def open_lines(stage):
    return [*stage.listeners, *(line for lines in stage.sessions.values() for line in lines)]


def test_when_it_is_live_nothing_is_missed(monkeypatch):
    for era in ("modern", "legacy", "dual"):
        stage = hearing.a_stage(era)

        async def scenario(source, heard, stage=stage):
            async with asyncio.timeout(10):
                await source.live()
            assert await stage.push(TOOLS) == 1
            await stage.until(lambda: heard == [TOOLS])
            source.want({call.Kind.TOOL}, {"file:///a", "file:///b"})
            async with asyncio.timeout(10):
                await source.live()
            told = [each.params["uri"] for each in stage.of("resources/subscribe")]
            assert told == (["file:///a", "file:///b"] if stage.era == "legacy" else [])
            source.want({call.Kind.TOOL}, set())
            async with asyncio.timeout(10):
                await source.live()
            assert len(stage.of("resources/unsubscribe")) == (2 if stage.era == "legacy" else 0)

        run(stage, scenario, monkeypatch)


def test_a_legacy_server_that_forgot_the_session_is_met_again_and_subscribed_to_again(monkeypatch):
    stage = hearing.a_stage("legacy")

    async def scenario(source, heard):
        await source.live()
        lines = open_lines(stage)
        stage.sessions.clear()
        for line in lines:
            line.writer.transport.abort()
        await stage.until(
            lambda: len(stage.of("initialize")) == 2 and len(stage.of("resources/subscribe")) == 2
        )
        await stage.until(lambda: len(open_lines(stage)) == 1)
        await stage.push(TOOLS)
        await stage.until(lambda: heard == [TOOLS])

    run(stage, scenario, monkeypatch)


def test_a_server_that_says_nothing_on_its_own_is_left_alone_and_delays_nobody(monkeypatch):
    stage = hearing.a_stage("legacy")

    async def act(line, heard):
        if heard.verb == "GET":
            await line.say(b"", status=b"405 Method Not Allowed")
            return True
        return False

    stage.act = act

    async def scenario(source, heard):
        async with asyncio.timeout(10):
            await source.live()
        await asyncio.sleep(0.2)  # time in which it must not be asked again
        assert len([each for each in stage.heard if each.verb == "GET"]) == 1
        source.want(set(), set())
        async with asyncio.timeout(1):
            await source.live()
        assert heard == []

    run(stage, scenario, monkeypatch)


def test_a_server_that_asks_on_a_session_of_nobody_is_told_so(monkeypatch):
    stage = hearing.a_stage("legacy")

    async def scenario(source, heard):
        await source.live()
        (line,) = open_lines(stage)
        await line.event({"jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage", "params": {}})
        answers = await stage.until(
            lambda: [
                each for each in stage.heard if isinstance(each.body, dict) and each.body.get("id") == "q"
            ]
        )
        assert answers[0].body["error"]["code"] == -32601
        assert heard == []

    run(stage, scenario, monkeypatch)


def test_a_server_that_cannot_be_met_is_tried_again(monkeypatch):
    stage = hearing.a_stage("modern")
    down = True

    async def act(line, _heard):
        if down:
            await line.say(b"", status=b"503 Service Unavailable")
        return down

    stage.act = act

    async def scenario(source, heard):
        nonlocal down
        async with asyncio.timeout(10):
            await source.live()  # nothing would be heard: nobody need wait for that
        down = False
        await stage.until(lambda: len(stage.listeners) == 1)
        await stage.push(TOOLS)
        await stage.until(lambda: heard == [TOOLS])

    run(stage, scenario, monkeypatch)


def test_a_bug_of_ours_makes_nobody_deaf_for_good(monkeypatch, caplog):
    monkeypatch.setattr(sources, "IDLE_SECONDS", 0.05)
    stage = hearing.a_stage("modern")
    real, broken = sources.Source._met, [True]

    async def met(self):
        if broken:
            broken.clear()
            raise ZeroDivisionError
        return await real(self)

    monkeypatch.setattr(sources.Source, "_met", met)

    async def scenario(source, heard):
        await stage.until(lambda: len(stage.listeners) == 1)
        await stage.push(TOOLS)
        await stage.until(lambda: heard == [TOOLS])
        assert "a server is not heard" in caplog.text

    run(stage, scenario, monkeypatch)
