# SPDX-License-Identifier: Apache-2.0
"""R12, R14 and the bounds of everything that lasts: servers and agents that say, open or subscribe to too much."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

import pytest
from tests import proxies
from tests.field_bugs import ground
from tests.servers import mcp, stages

from outrider_sidecar import subscriptions

pytestmark = pytest.mark.slow

RESOURCES = [stages.resource("note://open/a")]
TEMPLATES = [stages.template("note://open/{id}")]


async def listening(world: proxies.World, session: str) -> proxies.Asking:
    head = {"accept": "text/event-stream", "mcp-session-id": session, "mcp-protocol-version": "2025-11-25"}
    asking = await world.send("GET", proxies.PATH, b"", head)
    assert (await asking.head())[0] == 200
    return asking


def a_listen(id_: Any, **wanted: Any) -> dict[str, Any]:
    return proxies.request("subscriptions/listen", {"notifications": wanted}, id_=id_)


@ground.both_servers
def test_a_server_that_says_without_end_that_its_list_changed_is_not_asked_without_end(era: str) -> None:
    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        options = await ground.agent(world, modern=False)
        await ground.drained(world, "tools/list", "tools", **options)
        asking = await listening(world, options["session"])
        async with asyncio.timeout(15):
            while not await stage.push("notifications/tools/list_changed"):
                await asyncio.sleep(0.05)
        before, began = len(stage.of("tools/list")), time.monotonic()
        for _ in range(1_000):
            await stage.push("notifications/tools/list_changed")
        await asyncio.sleep(1.0)
        asked, took = len(stage.of("tools/list")) - before, time.monotonic() - began
        assert asked <= 20 + 20 * took, f"{asked} lists in {took:.1f} s"
        assert (await world.call("query", **options)).reason is None
        asking.leave()

    ground.run(scenario, stages.Stage(era, tools=[stages.tool("query")]))


def test_streams_of_modern_agents_are_bounded_and_calls_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "LISTENERS_MAX", 20)

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        opened = [await world.start(a_listen(n, toolsListChanged=True)) for n in range(30)]
        heads = [await asking.head() for asking in opened]
        kinds = [headers["content-type"] for _, headers in heads]
        assert kinds.count("text/event-stream") == 20
        assert kinds.count("application/json") == 10
        assert len(stage.listeners) <= 2, "one stream there, however many here"
        assert (await world.call("query")).reason is None
        for asking in opened:
            asking.leave()
        await stage.until(lambda: not stage.listeners)

    ground.run(scenario, stages.Stage("modern", tools=[stages.tool("query")]))


def test_resources_on_one_stream_are_bounded_and_the_acknowledgment_says_which() -> None:
    uris = [f"note://open/{number}" for number in range(1_500)]

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        asking = await world.start(
            a_listen("s", resourceSubscriptions=[*uris, "note://open/../x", "", *uris])
        )
        await asking.head()
        first = await anext(ground.messages(asking))
        honoured = first["params"]["notifications"]["resourceSubscriptions"]
        assert sorted(honoured) == sorted(uris[:1_000])
        asking.leave()

    ground.run(scenario, stages.Stage("modern", resources=RESOURCES, templates=TEMPLATES))


def test_resources_of_one_session_are_bounded() -> None:
    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        options = await ground.agent(world, modern=False)
        refused = 0
        for number in range(1_200):
            body = proxies.request("resources/subscribe", {"uri": f"note://open/{number}"})
            refused += "error" in (await world.ask(body, **options)).last
        assert refused >= 200
        assert (await world.ask(proxies.request("ping"), **options)).result == {}

    ground.run(scenario, stages.Stage("legacy", resources=RESOURCES, templates=TEMPLATES))


def test_the_newest_stream_of_a_session_is_the_one_that_hears_and_the_others_end() -> None:
    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        options = await ground.agent(world, modern=False)
        await ground.drained(world, "tools/list", "tools", **options)
        opened = [await listening(world, options["session"]) for _ in range(50)]
        for old in opened[:-1]:
            async with asyncio.timeout(5):
                assert await old.chunk() == b""
        stage.tools.append(stages.tool("more"))
        async with asyncio.timeout(15):
            while not await stage.push("notifications/tools/list_changed"):
                await asyncio.sleep(0.05)
        assert (await anext(ground.messages(opened[-1])))["method"] == "notifications/tools/list_changed"
        for asking in opened:
            asking.leave()

    ground.run(scenario, stages.Stage("legacy", tools=[stages.tool("query")]))


@pytest.mark.parametrize(
    "frame",
    [
        b"id: a\x01\x7f b\ndata:\n\n", b"id: \xff\xfe\ndata:\n\n", b"id: " + b"9" * 9_000 + b"\ndata:\n\n",
        b"id: a\nretry: 999999999999\ndata:\n\n", b"id: a\nretry: 0\ndata:\n\n", b"id: \xc3\xa4\ndata:\n\n",
    ],
    ids=["controls", "no text", "9,000 digits", "for ever", "at once", "umlaut"],
)  # fmt: skip
def test_an_odd_place_in_a_stream_costs_its_own_call_only(frame: bytes) -> None:
    """What a server names as the place to go on at goes into a header of ours."""

    async def act(line: mcp.Line, heard: stages.Heard) -> bool:
        if heard.method != "tools/call" or heard.params.get("arguments", {}).get("odd") is None:
            return False
        await line.events()
        line.writer.write(b"%x\r\n%b\r\n" % (len(frame), frame))
        await line.over()
        return True

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        options = await ground.agent(world, modern=False)
        told = await world.call("query", {"odd": 1}, **options)
        while not told.messages:  # closed to be polled, as the server did
            last = re.findall(rb"^id: (\S+)", told.body, re.MULTILINE)[-1].decode()
            assert re.fullmatch(r"[0-9A-Z]{26}\.[0-9]+", last), "ours, whatever the server's was"
            head = {"mcp-session-id": options["session"], "mcp-protocol-version": "2025-11-25"}
            head |= {"accept": "text/event-stream", "last-event-id": last}
            told = await (await world.send("GET", proxies.PATH, b"", head)).answer()
            assert told.status == 200
        assert told.result["isError"]
        assert told.reason != "Internal"
        assert (await world.call("query", {"n": 1}, **options)).reason is None
        assert len([each for each in stage.heard if each.verb == "GET"]) < 100

    stage = stages.Stage("legacy", tools=[stages.tool("query")], act=act)
    ground.run(scenario, stage, endpoint={"call_seconds": 2.0})


def test_what_a_server_says_to_a_session_that_does_not_listen_is_kept_bounded() -> None:
    """A log line for every millisecond of a minute, and nobody who reads them."""

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        options = await ground.agent(world, modern=False)
        await world.call("query", **options)
        asking = await listening(world, options["session"])
        async with asyncio.timeout(15):
            while not any(stage.sessions.values()):
                await asyncio.sleep(0.02)
        asking.leave()
        text = json.loads(json.dumps({"level": "error", "data": "x" * 1_000}))
        for _ in range(5_000):
            await stage.push("notifications/message", text)
        again = await listening(world, options["session"])
        heard = [each async for each in ground.messages(again, seconds=1.0)]
        assert len(heard) <= 256
        again.leave()
        assert (await world.call("query", **options)).reason is None

    ground.run(scenario, stages.Stage("legacy", tools=[stages.tool("query")]))
