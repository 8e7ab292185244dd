# SPDX-License-Identifier: Apache-2.0
"""Field bugs 3 and 25: streams that servers open by themselves, and news of changes."""

from __future__ import annotations

import asyncio
import contextlib

from tests import proxies
from tests.field_bugs import ground
from tests.servers import stages

from outrider import snapshot

SAMPLING = snapshot.ClientFeatures(sampling=True, roots=True)


async def listening(world: proxies.World, session: str, path: str = proxies.PATH) -> proxies.Asking:
    """The GET stream of a legacy session."""
    head = {"accept": "text/event-stream", "mcp-session-id": session, "mcp-protocol-version": "2025-11-25"}
    asking = await world.send("GET", path, b"", head)
    status, headers = await asking.head()
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    return asking


def test_bug_03_an_answer_comes_once_on_the_stream_of_its_request() -> None:
    """agentgateway/agentgateway#2373: answers on the POST and on the GET stream, "unknown message ID", disconnect."""

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        session = await world.open_session()
        asking = await listening(world, session)
        told = await world.call("query", {"n": 1}, id_=77, modern=False, session=session)
        assert [each["id"] for each in told.messages] == [77]
        await stage.push("notifications/tools/list_changed")
        heard = [message async for message in ground.messages(asking, seconds=1.0)]
        assert all("id" not in each for each in heard), heard
        asking.leave()

    ground.run(scenario, stages.Stage("legacy", tools=[stages.tool("query")]))


@ground.both_servers
@ground.both_endpoints
def test_bug_25_news_of_a_change_reaches_a_legacy_client_and_the_list_is_new(era: str, path: str) -> None:
    """maximhq/bifrost#6885, envoyproxy/ai-gateway#1619: list_changed was swallowed."""

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        session = await world.open_session(path)
        options = {"path": path, "session": session, "modern": False}
        assert len(await ground.drained(world, "tools/list", "tools", **options)) == 1
        asking = await listening(world, session, path)
        said = ground.messages(asking)
        stage.tools.append(stages.tool("more"))
        async with asyncio.timeout(15):
            while not await stage.push("notifications/tools/list_changed"):
                await asyncio.sleep(0.05)
            assert (await anext(said))["method"] == "notifications/tools/list_changed"
        assert len(await ground.drained(world, "tools/list", "tools", **options)) == 2
        asking.leave()

    ground.run(scenario, stages.Stage(era, tools=[stages.tool("query")]))


@ground.both_servers
@ground.both_endpoints
def test_bug_25_news_of_a_change_reaches_a_modern_client_and_the_list_is_new(era: str, path: str) -> None:
    """The same bug in the stateless era: `subscriptions/listen`."""

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        assert len(await ground.drained(world, "tools/list", "tools", path=path)) == 1
        body = proxies.request(
            "subscriptions/listen", {"notifications": {"toolsListChanged": True}}, id_="sub"
        )
        asking = await world.start(body, path=path)
        assert (await asking.head())[1]["content-type"] == "text/event-stream"
        said = ground.messages(asking)
        first = await anext(said)
        assert first["method"] == "notifications/subscriptions/acknowledged"
        stage.tools.append(stages.tool("more"))
        async with asyncio.timeout(15):
            while not await stage.push("notifications/tools/list_changed"):
                await asyncio.sleep(0.05)
            second = await anext(said)
        assert second["method"] == "notifications/tools/list_changed"
        for each in (first, second):
            assert each["params"]["_meta"][stages.mcp_key("subscriptionId")] == "sub"
        assert len(await ground.drained(world, "tools/list", "tools", path=path)) == 2
        asking.leave()
        with contextlib.suppress(TimeoutError):
            await stage.until(lambda: not stage.listeners, seconds=5)

    ground.run(scenario, stages.Stage(era, tools=[stages.tool("query")]))
