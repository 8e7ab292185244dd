# SPDX-License-Identifier: Apache-2.0
"""`subscriptions/listen`: what a stateless agent is told that it will hear, what it hears, and when it ends."""

from __future__ import annotations

import asyncio

import pytest
from tests import hearing_agents as hearing
from tests import proxies
from tests.servers import stages

from outrider import testing
from outrider_sidecar import subscriptions

LISTS = {"toolsListChanged": True, "promptsListChanged": True, "resourcesListChanged": True}
TOOLS = "notifications/tools/list_changed"
UPDATED = "notifications/resources/updated"
ERAS = pytest.mark.parametrize("era", ["modern", "legacy", "dual"])


async def heard_at(stage: stages.Stage, streams: int = 1) -> None:
    """Waits until the server has so many streams open."""
    await stage.until(
        lambda: len(stage.listeners) + sum(len(each) for each in stage.sessions.values()) == streams
    )


@ERAS
def test_what_a_server_says_reaches_whoever_asked_for_it_with_the_id_of_his_request(era: str) -> None:
    stage = hearing.a_stage(era)

    async def scenario(world: proxies.World) -> None:
        await world.ask(proxies.request("tools/list"))
        wanted = {"toolsListChanged": True, "resourceSubscriptions": ["file:///a"]}
        stream, honoured = await hearing.listen(world, wanted, id_=7)
        assert honoured == wanted
        assert stream.headers["content-type"] == "text/event-stream"
        await heard_at(stage)
        stage.tools.append(stages.tool("new"))
        await stage.push(TOOLS)
        changed = await stream.next()
        assert (changed["method"], hearing.tag(changed)) == (TOOLS, 7)
        assert "id:" not in stream.raw.decode()
        await stage.push(UPDATED, {"uri": "file:///b"})
        await stage.push(UPDATED, {"uri": "file:///a", "title": "kept", "future": {"a": 1.50}})
        updated = await stream.next()
        assert (updated["method"], hearing.tag(updated)) == (UPDATED, 7)
        assert (
            updated["params"].items() >= {"uri": "file:///a", "title": "kept", "future": {"a": 1.5}}.items()
        )
        told = await world.ask(proxies.request("tools/list"))
        assert [tool["name"] for tool in told.result["tools"]] == ["t", "new"]

    hearing.run(scenario, stage)


@ERAS
def test_many_listeners_are_one_stream_at_the_server(era: str) -> None:
    stage = hearing.a_stage(era)

    async def scenario(world: proxies.World) -> None:
        streams = []
        for number in range(5):
            wanted = {"resourceSubscriptions": [f"file:///{name}" for name in "ab"[: number % 2 + 1]]}
            streams.append((await hearing.listen(world, wanted, id_=number))[0])
        await heard_at(stage)
        await stage.push(UPDATED, {"uri": "file:///b"})
        for number in (1, 3):
            assert hearing.tag(await streams[number].next()) == number
        await stage.push(UPDATED, {"uri": "file:///a"})
        for number, stream in enumerate(streams):
            assert (await stream.next())["params"]["uri"] == "file:///a"
            if number:
                stream.leave()
        streams[0].leave()
        await heard_at(stage, 0)

    hearing.run(scenario, stage)


def test_nothing_is_heard_that_was_not_asked_for() -> None:
    stage = hearing.a_stage()

    async def scenario(world: proxies.World) -> None:
        await world.ask(proxies.request("tools/list"))
        stream, honoured = await hearing.listen(
            world, {"promptsListChanged": True, "toolsListChanged": False}
        )
        assert honoured == {"promptsListChanged": True}
        stage.tools.append(stages.tool("new"))
        await stage.push(TOOLS)
        await stage.push(UPDATED, {"uri": "file:///a"})
        await stage.push("notifications/message", {"level": "error", "data": "x"})
        await stage.push("notifications/progress", {"progressToken": 1, "progress": 1})
        assert await stream.quiet()

    hearing.run(scenario, stage)


def test_a_resource_that_policy_hides_is_not_acknowledged_not_heard_and_recorded() -> None:
    stage = hearing.a_stage()
    rules = (testing.allow(resources=("file:///a*",)), testing.deny(resources=("file:///a/secret*",)))

    async def scenario(world: proxies.World) -> None:
        uris = ["file:///a", "file:///b", "file:///../a"]
        stream, honoured = await hearing.listen(world, {"resourceSubscriptions": uris})
        assert honoured == {"resourceSubscriptions": ["file:///a"]}
        refused = [(each.tool, each.reason) for each in world.refusals]
        assert [uri for uri, _ in refused] == uris[1:]
        await heard_at(stage)
        (listened,) = stage.of("subscriptions/listen")
        assert listened.params["notifications"] == {"resourceSubscriptions": ["file:///a"]}
        await stage.push(UPDATED, {"uri": "file:///a/secret"})
        await stage.push(UPDATED, {"uri": "file:///a/open"})
        assert (await stream.next())["params"]["uri"] == "file:///a/open"

    hearing.run(scenario, stage, chosen=rules)


def test_a_subscription_is_recorded_when_it_begins_and_when_it_ends_and_not_in_between() -> None:
    stage = hearing.a_stage()

    async def scenario(world: proxies.World) -> None:
        stream, _ = await hearing.listen(world, {"resourceSubscriptions": ["file:///a", "file:///b"]})
        assert [(each.method, each.tool) for each in world.intents] == [
            ("subscriptions/listen", "file:///a"),
            ("subscriptions/listen", "file:///b"),
        ]
        await heard_at(stage)
        for _ in range(3):
            await stage.push(UPDATED, {"uri": "file:///a"})
            await stream.next()
        assert world.outcomes == []
        stream.leave()
        await stage.until(lambda: len(world.outcomes) == 2)
        assert {(each.reason, each.status.value, each.cost) for each in world.outcomes} == {
            ("Cancelled", "Completed", 0)
        }

    hearing.run(scenario, stage)


@ERAS
def test_more_is_wanted_and_nothing_is_lost_while_the_server_is_told(era: str) -> None:
    stage = hearing.a_stage(era)

    async def scenario(world: proxies.World) -> None:
        first, _ = await hearing.listen(world, {"resourceSubscriptions": ["file:///a"]}, id_=1)
        await heard_at(stage)
        second, _ = await hearing.listen(world, {"resourceSubscriptions": ["file:///b"]}, id_=2)
        await stage.push(UPDATED, {"uri": "file:///b"})
        await stage.push(UPDATED, {"uri": "file:///a"})
        assert (await second.next())["params"]["uri"] == "file:///b"
        assert (await first.next())["params"]["uri"] == "file:///a"
        assert await first.quiet(0.1)
        await heard_at(stage)

    hearing.run(scenario, stage)


# Policy -----------------------------------------------------------------------------------------------------------------


def test_a_policy_that_shows_other_tools_is_a_change_and_one_that_shows_the_same_is_not() -> None:
    stage = hearing.a_stage(tools=[stages.tool("one"), stages.tool("two")])

    async def scenario(world: proxies.World) -> None:
        await world.ask(proxies.request("tools/list"))
        stream, _ = await hearing.listen(world, LISTS)
        world.apply(hearing.a_view(stage, hearing.EVERYTHING, testing.deny("two")))
        assert (await stream.next())["method"] == TOOLS
        world.apply(hearing.a_view(stage, hearing.EVERYTHING, testing.deny("two"), generation=2))
        assert await stream.quiet()

    hearing.run(scenario, stage)


def test_what_changes_of_hidden_tools_is_not_told() -> None:
    stage = hearing.a_stage(tools=[stages.tool("one"), stages.tool("two")])

    async def scenario(world: proxies.World) -> None:
        await world.ask(proxies.request("tools/list"))
        stream, _ = await hearing.listen(world, {"toolsListChanged": True})
        await heard_at(stage)
        stage.tools[1] = stages.tool("two", description="another")
        await stage.push(TOOLS)
        await stage.until(lambda: len(stage.of("tools/list")) == 2)
        assert await stream.quiet()
        await stage.push(
            TOOLS
        )  # nothing changed, and the server says so all the same: as it would be directly
        assert (await stream.next())["method"] == TOOLS

    hearing.run(scenario, stage, chosen=(testing.allow("one"),))


def test_a_revocation_ends_the_streams_that_told_of_it_and_no_others() -> None:
    stage = hearing.a_stage()

    async def scenario(world: proxies.World) -> None:
        both, _ = await hearing.listen(world, {"resourceSubscriptions": ["file:///a", "file:///b"]}, id_=1)
        one, _ = await hearing.listen(world, {"resourceSubscriptions": ["file:///b"]}, id_=2)
        world.apply(hearing.a_view(stage, hearing.EVERYTHING, testing.deny(resources=("file:///a",))))
        ended = await both.next()
        assert ended["id"] == 1
        assert ended["result"]["resultType"] == "complete"
        assert ended["result"]["_meta"] == {"io.modelcontextprotocol/subscriptionId": 1}
        assert await both.next() is None
        reasons = {(each.reason, each.detail) for each in world.outcomes}
        assert reasons == {("NotAllowed", "policy has changed")}
        await stage.push(UPDATED, {"uri": "file:///b"})
        assert (await one.next())["params"]["uri"] == "file:///b"
        again, honoured = await hearing.listen(world, {"resourceSubscriptions": ["file:///a"]}, id_=3)
        assert honoured == {}
        world.apply()
        assert (await again.next())["result"]["resultType"] == "complete"
        assert (await one.next())["id"] == 2

    hearing.run(scenario, stage)


def test_when_the_proxy_goes_every_stream_ends_with_its_result() -> None:
    stage = hearing.a_stage()

    async def scenario(world: proxies.World) -> None:
        stream, _ = await hearing.listen(world, {**LISTS, "resourceSubscriptions": ["file:///a"]})
        world.pipeline.listeners.drain()
        assert (await stream.next())["result"]["resultType"] == "complete"
        assert await stream.next() is None
        assert [each.reason for each in world.outcomes] == ["Allowed"]

    hearing.run(scenario, stage)


# The merged endpoint ----------------------------------------------------------------------------------------------------


def test_the_merged_endpoint_tells_of_tools_and_prompts_of_all_and_of_no_resources() -> None:
    one, two = hearing.a_stage("legacy", label="one"), hearing.a_stage("modern", label="two")

    async def scenario(world: proxies.World) -> None:
        await world.ask(proxies.request("tools/list"), path="/mcp")
        await world.ask(proxies.request("prompts/list"), path="/mcp")
        wanted = {**LISTS, "resourceSubscriptions": ["file:///a"]}
        stream, honoured = await hearing.listen(world, wanted, path="/mcp")
        assert honoured == {"toolsListChanged": True, "promptsListChanged": True}
        two.tools.append(stages.tool("new"))
        await two.push(TOOLS)
        assert (await stream.next())["method"] == TOOLS
        one.prompts.clear()
        await one.push("notifications/prompts/list_changed")
        assert (await stream.next())["method"] == "notifications/prompts/list_changed"

    hearing.run(scenario, one, two)


def test_a_server_that_is_down_delays_the_acknowledgment_a_little_and_nothing_else(monkeypatch) -> None:
    monkeypatch.setattr(subscriptions, "LIVE_SECONDS", 0.3)
    one, two = hearing.a_stage(label="one"), hearing.a_stage(label="two")

    async def hangs(line, heard):
        await asyncio.sleep(30)
        return True

    two.act = hangs

    async def scenario(world: proxies.World) -> None:
        stream, _ = await hearing.listen(world, LISTS, path="/mcp")
        await heard_at(one)
        await one.push(TOOLS)
        assert (await stream.next())["method"] == TOOLS

    hearing.run(scenario, one, two)


# What is refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "notifications", [None, [], "all", {"resourceSubscriptions": "file:///a"}, {"resourceSubscriptions": [1]}]
)
def test_a_filter_that_cannot_be_read_is_an_error(notifications: object) -> None:
    async def scenario(world: proxies.World) -> None:
        body = proxies.request("subscriptions/listen", {"notifications": notifications})
        told = await world.ask(body)
        assert (told.status, told.last["error"]["code"]) == (200, -32602)

    hearing.run(scenario, hearing.a_stage())


def test_a_client_that_reads_no_event_streams_is_told_so() -> None:
    async def scenario(world: proxies.World) -> None:
        body = proxies.request("subscriptions/listen", {"notifications": {}})
        told = await world.ask(body, accept="application/json")
        assert told.status == 406
        assert "text/event-stream" in told.last["error"]["message"]

    hearing.run(scenario, hearing.a_stage())


def test_legacy_agents_do_not_know_the_method_and_modern_ones_not_theirs() -> None:
    async def scenario(world: proxies.World) -> None:
        session = await world.open_session()
        body = proxies.request("subscriptions/listen", {"notifications": {}})
        assert (await world.ask(body, modern=False, session=session)).last["error"]["code"] == -32601
        told = await world.ask(proxies.request("resources/subscribe", {"uri": "file:///a"}))
        assert (told.status, told.last["error"]["code"]) == (404, -32601)

    hearing.run(scenario, hearing.a_stage())


def test_more_streams_than_there_are_places_for_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(subscriptions, "LISTENERS_MAX", 1)

    async def scenario(world: proxies.World) -> None:
        stream, _ = await hearing.listen(world, LISTS)
        told = await world.ask(proxies.request("subscriptions/listen", {"notifications": LISTS}))
        assert told.reason == "Overloaded"
        stream.leave()
        while len(world.pipeline.listeners):
            await asyncio.sleep(0.005)
        await hearing.listen(world, LISTS)

    hearing.run(scenario, hearing.a_stage())


def test_a_server_that_says_that_it_has_no_subscriptions_is_not_promised_for() -> None:
    stage = hearing.a_stage()

    async def act(line, heard):
        if heard.method not in ("server/discover", "initialize"):
            return False
        made = stages.answer(stage, heard)
        made["result"]["capabilities"] = {"tools": {}, "resources": {}}
        await line.json(made)
        return True

    stage.act = act

    async def scenario(world: proxies.World) -> None:
        await world.ask(proxies.request("tools/list"))
        _, honoured = await hearing.listen(world, {"resourceSubscriptions": ["file:///a"]})
        assert honoured == {}
        assert world.intents == []

    hearing.run(scenario, stage)


def test_an_agent_of_the_other_era_takes_no_subscription_away() -> None:
    stage = hearing.a_stage()

    async def act(line, heard):
        if heard.method != "initialize":
            return False
        made = stages.answer(stage, heard)
        made["result"]["capabilities"] = {"tools": {}, "resources": {}}
        stage.sessions["s"] = set()
        await line.json(made, b"mcp-session-id: s")
        return True

    stage.act = act

    async def scenario(world: proxies.World) -> None:
        await world.ask(proxies.request("tools/list"))
        await world.call("t", modern=False, session=await world.open_session())
        assert stage.of("initialize")
        _, honoured = await hearing.listen(world, {"resourceSubscriptions": ["file:///a"]})
        assert honoured == {"resourceSubscriptions": ["file:///a"]}

    hearing.run(scenario, stage)
