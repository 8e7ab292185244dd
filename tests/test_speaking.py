# SPDX-License-Identifier: Apache-2.0
"""Handshake-era agents that listen: the stream of a session, subscriptions on it, and what becomes of them."""

from __future__ import annotations

import asyncio

import pytest
from tests import hearing_agents as hearing
from tests import proxies
from tests.servers import stages

from outrider import testing
from outrider_sidecar import following, speaking

TOOLS = "notifications/tools/list_changed"
UPDATED = "notifications/resources/updated"


def subscribe(uri="file:///a", method="resources/subscribe", **more):
    return proxies.request(method, {"uri": uri, **more})


async def opened(world, *, listening=True, path=proxies.PATH):
    """A session, and its stream."""
    session = await world.open_session(path)
    return session, (await hearing.get(world, session, path=path) if listening else None)


async def until(true):
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.005)


def streams_of(stage):
    return len(stage.listeners) + sum(len(each) for each in stage.sessions.values())


# The stream ----------------------------------------------------------------------------------------------------------


def test_a_get_without_a_session_is_405_and_one_of_a_stranger_404():
    async def scenario(world):
        assert (await hearing.get(world, None)).status == 405
        assert (await hearing.get(world, "made-up")).status == 404
        session = await world.open_session()
        assert (await hearing.get(world, session, path="/mcp")).status == 404
        assert (await hearing.get(world, session, accept="application/json")).status == 406
        stream = await hearing.get(world, session)
        assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream")

    hearing.run(scenario, hearing.a_stage())


def test_a_stream_ends_in_order_with_its_session():
    async def scenario(world):
        session, stream = await opened(world)
        told = await (await world.send("DELETE", proxies.PATH, b"", {"mcp-session-id": session})).answer()
        assert told.status == 200
        assert await stream.next() is None
        assert (await hearing.get(world, session)).status == 404

    hearing.run(scenario, hearing.a_stage())


@pytest.mark.parametrize("era", ["modern", "legacy", "dual"])
def test_a_change_at_a_server_of_any_era_is_told_once(era):
    stage = hearing.a_stage(era)

    async def scenario(world):
        session, stream = await opened(world)
        await world.ask(proxies.request("tools/list"), modern=False, session=session)
        await world.call("t", modern=False, session=session)  # opens a session of its own at a legacy server
        await until(lambda: streams_of(stage) == (1 if era == "modern" else 2))
        stage.tools.append(stages.tool("new"))
        await stage.push(TOOLS)
        assert (await stream.next())["method"] == TOOLS
        assert await stream.quiet(1.5)  # also not when the second of two streams was read later

    hearing.run(scenario, stage)


def test_a_change_of_policy_is_told_to_legacy_agents_too():
    stage = hearing.a_stage(tools=[stages.tool("one"), stages.tool("two")])

    async def scenario(world):
        session, stream = await opened(world)
        await world.ask(proxies.request("tools/list"), modern=False, session=session)
        world.apply(hearing.a_view(stage, hearing.EVERYTHING, testing.deny("two")))
        message = await stream.next()
        assert message == {"jsonrpc": "2.0", "method": TOOLS}
        world.apply()
        assert await stream.next() is None  # the server may not be seen any more

    hearing.run(scenario, stage)


def test_servers_are_listened_to_while_somebody_listens():
    stage = hearing.a_stage("legacy")

    async def scenario(world):
        session, stream = await opened(world)
        await world.call("t", modern=False, session=session)
        await until(lambda: streams_of(stage) == 2)
        stream.leave()
        await until(lambda: streams_of(stage) == 0)
        again = await hearing.get(world, session)
        await until(lambda: streams_of(stage) == 2)
        assert again.status == 200

    hearing.run(scenario, stage)


# What a server says on the agent's own session -----------------------------------------------------------------------


def test_log_messages_come_to_the_agent_they_are_for_and_progress_of_nothing_does_not():
    stage = hearing.a_stage("legacy")

    async def scenario(world):
        first, heard = await opened(world)
        second, other = await opened(world)
        await world.call("t", modern=False, session=first)
        await world.call("t", modern=False, session=second)
        await until(lambda: streams_of(stage) == 3)
        (mine,) = stage.sessions[session_of(stage, 1)]
        said = {"level": "info", "data": {"x": 1.50}, "logger": "l"}
        await mine.event(
            {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1}}
        )
        await mine.event({"jsonrpc": "2.0", "id": 5, "result": {}})
        await mine.event({"jsonrpc": "2.0", "method": "notifications/message", "params": said})
        message = await heard.next()
        assert message == {"jsonrpc": "2.0", "method": "notifications/message", "params": said}
        assert await other.quiet()

    hearing.run(scenario, stage)


def session_of(stage, number):
    """The server's session on which the agents' call of this number came."""
    return stage.of("tools/call")[number - 1].headers["mcp-session-id"]


def test_a_question_outside_of_any_call_is_answered_when_nobody_can_be_asked():
    stage = hearing.a_stage("legacy")

    async def scenario(world):
        session, _ = await opened(world)
        await world.call("t", modern=False, session=session)
        await until(lambda: streams_of(stage) == 2)
        (line,) = stage.sessions[session_of(stage, 1)]
        await line.event({"jsonrpc": "2.0", "id": "p", "method": "ping"})
        answer = await stage.until(
            lambda: [each for each in stage.heard if each.body and each.body.get("id") == "p"]
        )
        assert answer[0].body["result"] == {}
        assert answer[0].headers["mcp-session-id"] == session_of(stage, 1)

    hearing.run(scenario, stage)


# Subscriptions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_what_was_subscribed_to_is_heard_until_it_is_given_up(era):
    stage = hearing.a_stage(era)

    async def scenario(world):
        session, stream = await opened(world)
        told = await world.ask(subscribe(), modern=False, session=session)
        assert told.result == {}
        assert (await world.ask(subscribe(), modern=False, session=session)).result == {}  # twice is once
        await until(lambda: streams_of(stage) >= 1)
        if era == "legacy":
            (asked,) = stage.of("resources/subscribe")
            assert asked.params == {"uri": "file:///a"}
            await until(lambda: streams_of(stage) == 2)
        await stage.push(UPDATED, {"uri": "file:///b"})
        await stage.push(UPDATED, {"uri": "file:///a", "title": "x"})
        assert (await stream.next()) == {
            "jsonrpc": "2.0", "method": UPDATED, "params": {"uri": "file:///a", "title": "x"},
        }  # fmt: skip
        assert [(each.method, each.tool) for each in world.intents] == [("resources/subscribe", "file:///a")]
        assert world.outcomes == []
        given_up = await world.ask(subscribe(method="resources/unsubscribe"), modern=False, session=session)
        assert given_up.result == {}
        assert [each.reason for each in world.outcomes] == ["Allowed"]
        if era == "legacy":
            assert len(stage.of("resources/unsubscribe")) == 1
        await stage.push(UPDATED, {"uri": "file:///a"})
        assert await stream.quiet()
        again = await world.ask(subscribe(method="resources/unsubscribe"), modern=False, session=session)
        assert again.result == {}

    hearing.run(scenario, stage)


def test_two_agents_subscribe_on_sessions_of_their_own():
    stage = hearing.a_stage("legacy")

    async def scenario(world):
        (one, first), (two, second) = await opened(world), await opened(world)
        await world.ask(subscribe("file:///a"), modern=False, session=one)
        await world.ask(subscribe("file:///b"), modern=False, session=two)
        sessions = {each.headers["mcp-session-id"] for each in stage.of("resources/subscribe")}
        assert len(sessions) == 2
        await until(lambda: streams_of(stage) == 3)
        await stage.push(UPDATED, {"uri": "file:///b"})
        assert (await second.next())["params"] == {"uri": "file:///b"}
        assert await first.quiet()

    hearing.run(scenario, stage)


def test_a_resource_that_policy_hides_cannot_be_subscribed_to():
    stage = hearing.a_stage("legacy")

    async def scenario(world):
        session, _ = await opened(world)
        told = await world.ask(subscribe("file:///b"), modern=False, session=session)
        assert told.last["error"]["code"] == -32002
        assert "file:///b" in told.last["error"]["message"]
        assert stage.of("resources/subscribe") == []
        assert [(each.tool, each.reason) for each in world.refusals] == [("file:///b", "NotAllowed")]

    hearing.run(scenario, stage, chosen=(testing.allow(resources=("file:///a",)),))


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_a_revocation_ends_a_subscription_here_and_at_the_server(era):
    stage = hearing.a_stage(era)

    async def scenario(world):
        session, stream = await opened(world)
        await world.ask(subscribe(), modern=False, session=session)
        await world.ask(subscribe("file:///b"), modern=False, session=session)
        await until(lambda: streams_of(stage) >= (2 if era == "legacy" else 1))
        world.apply(hearing.a_view(stage, hearing.EVERYTHING, testing.deny("x", resources=("file:///a",))))
        await until(lambda: world.outcomes)
        assert [(each.reason, each.detail) for each in world.outcomes] == [
            ("NotAllowed", "policy has changed")
        ]
        if era == "legacy":
            await until(lambda: stage.of("resources/unsubscribe"))
        await stage.push(UPDATED, {"uri": "file:///a"})
        await stage.push(UPDATED, {"uri": "file:///b"})
        message = await stream.next()
        while message["method"] != UPDATED:  # that the list has changed is told too
            message = await stream.next()
        assert message["params"]["uri"] == "file:///b"

    hearing.run(scenario, stage)


def test_a_server_that_says_no_is_quoted_and_nothing_is_subscribed_to():
    stage = hearing.a_stage("legacy")

    async def act(line, heard):
        if heard.method == "resources/subscribe":
            await line.json(stages.error(heard, -32002, "no such resource", data={"uri": "file:///a"}))
            return True
        return False

    stage.act = act

    async def scenario(world):
        session, stream = await opened(world)
        told = await world.ask(subscribe(), modern=False, session=session)
        assert told.last["error"] == {
            "code": -32002,
            "message": "no such resource",
            "data": {"uri": "file:///a"},
        }
        assert [each.reason for each in world.outcomes] == ["UpstreamError"]
        await world.call("t", modern=False, session=session)
        await until(lambda: streams_of(stage) == 2)
        await stage.push(UPDATED, {"uri": "file:///a"})
        assert await stream.quiet()

    hearing.run(scenario, stage)


def test_a_server_that_cannot_be_met_is_told_and_nothing_is_subscribed_to():
    async def scenario(world):
        world.apply(proxies.a_view(None, hearing.EVERYTHING))
        session = await world.open_session()
        told = await world.ask(subscribe(), modern=False, session=session)
        assert told.reason == "UpstreamUnreachable"
        assert [each.status.value for each in world.outcomes] == ["NotSent"]

    hearing.run(scenario)


def test_a_session_that_the_server_lost_is_opened_again_with_what_was_subscribed_to(monkeypatch):
    monkeypatch.setattr(following, "RETRY_SECONDS", 0.05)
    stage = hearing.a_stage("legacy")

    async def scenario(world):
        session, stream = await opened(world)
        await world.ask(subscribe(), modern=False, session=session)
        await until(lambda: streams_of(stage) == 2)
        open_lines = [line for lines in stage.sessions.values() for line in lines]
        stage.sessions.clear()  # the server was restarted
        for line in open_lines:
            line.writer.transport.abort()
        await until(lambda: len(stage.of("resources/subscribe")) == 2 and streams_of(stage) == 2)
        await stage.push(UPDATED, {"uri": "file:///a"})
        message = await stream.next()
        assert message["params"] == {"uri": "file:///a"}

    hearing.run(scenario, stage)


def test_a_subscription_ends_with_the_session_of_its_agent():
    stage = hearing.a_stage("legacy")

    async def scenario(world):
        session, _ = await opened(world, listening=False)
        await world.ask(subscribe(), modern=False, session=session)
        await (await world.send("DELETE", proxies.PATH, b"", {"mcp-session-id": session})).answer()
        assert [(each.reason, each.detail) for each in world.outcomes] == [
            ("Cancelled", "the agent's session ended")
        ]
        await until(lambda: streams_of(stage) == 0)

    hearing.run(scenario, stage)


@pytest.mark.parametrize("body", [{"uri": 1}, {}, {"URI": "file:///a"}])
def test_what_names_no_resource_is_an_error(body):
    async def scenario(world):
        session = await world.open_session()
        told = await world.ask(proxies.request("resources/subscribe", body), modern=False, session=session)
        assert told.last["error"]["code"] in (-32602, -32600)

    hearing.run(scenario, hearing.a_stage())


def test_more_subscriptions_than_one_agent_may_have_are_refused(monkeypatch):
    monkeypatch.setattr(speaking, "URIS_MAX", 1)

    async def scenario(world):
        session = await world.open_session()
        await world.ask(subscribe("file:///a"), modern=False, session=session)
        told = await world.ask(subscribe("file:///b"), modern=False, session=session)
        assert told.reason == "Overloaded"

    hearing.run(scenario, hearing.a_stage("legacy"))


def test_resources_of_no_server_in_particular_are_unknown():
    async def scenario(world):
        session = await world.open_session("/mcp")
        told = await world.ask(subscribe(), modern=False, session=session, path="/mcp")
        assert told.last["error"]["code"] == -32002

    hearing.run(scenario, hearing.a_stage())


def test_streams_that_agents_hold_are_counted_and_end_when_the_proxy_goes():
    async def scenario(world):
        _, stream = await opened(world)
        assert world.pipeline.streams == 1
        world.pipeline.listeners.drain()
        assert await stream.next() is None
        assert world.pipeline.streams == 0

    hearing.run(scenario, hearing.a_stage())
