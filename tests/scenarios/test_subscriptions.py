# SPDX-License-Identifier: Apache-2.0
"""Official clients of both eras hear official servers of both eras on their own, through a real proxy, while policy changes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
import socket
import sys
import warnings

import httpx2
import pytest
from mcp import types
from mcp.client import client as clients
from mcp.client import streamable_http
from mcp.shared import subscriptions as events
from tests import laptop
from tests.scenarios import servers

pytestmark = pytest.mark.slow

_NOTES = """\
import sys, uvicorn
from mcp.server.mcpserver import Context, MCPServer
notes = MCPServer("notes")

@notes.resource("notes://today")
def today() -> str:
    return "nothing yet"

@notes.tool()
async def touch(ctx: Context) -> str:
    await ctx.notify_resource_updated("notes://today")
    return "touched"

@notes.tool()
def sprout() -> str:
    notes.add_tool(lambda: "new", name="sprouted", description="Nobody was told of it.")
    return "sprouted"

@notes.tool()
async def grow(ctx: Context) -> str:
    notes.add_tool(lambda: "new", name="grown", description="It was not there before.")
    await ctx.notify_tools_changed()
    return "grown"

uvicorn.run(notes.streamable_http_app(), fd=int(sys.argv[1]), log_level="warning", timeout_graceful_shutdown=1)
"""
EVERYTHING = "demo://resource/dynamic/text/1"


@contextlib.contextmanager
def notes(logs):
    """A server on the SDK 2.x that tells of what its own tools change."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        line = [sys.executable, "-c", _NOTES, str(listening.fileno())]
        process = laptop.Process("notes", line, logs=logs, pass_fds=[listening.fileno()])
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
    try:
        yield url
    finally:
        process.stop()


@dataclasses.dataclass(frozen=True, slots=True)
class World:
    laptop: laptop.Laptop
    files: dict[str, str]

    def apply(self, name, *rules):
        """Another policy for one server."""
        self.laptop.write(f"policy-{name}.yaml", policy(name, *rules))


def policy(name, *rules):
    return laptop.documents(laptop.policy(f"outrider-system/{name}", f"tools/{name}", *rules))


def everything_of():
    return {**laptop.allow(), "prompts": ["*"], "resources": ["*"]}


@pytest.fixture
def world(tmp_path):
    with contextlib.ExitStack() as stack:
        urls = {
            "notes": stack.enter_context(notes(tmp_path / "logs")),
            "everything": stack.enter_context(servers.everything(tmp_path / "logs")),
        }
        files = {
            f"{name}.yaml": laptop.documents(laptop.server(f"tools/{name}", url))
            for name, url in urls.items()
        }
        files |= {f"policy-{name}.yaml": policy(name, everything_of()) for name in urls}
        yield World(stack.enter_context(laptop.running(tmp_path / "home", files)), files)


@contextlib.asynccontextmanager
async def connected(world, name, *, mode, heard=None):
    """An official client in one era; `heard` collects the notifications of a legacy one."""
    agent = world.laptop.agent
    url = f"http://127.0.0.1:{agent.port}{laptop.path(f'tools/{name}')}"
    head = {"Authorization": f"Bearer {agent.token}"}

    async def hear(message):
        if heard is not None and isinstance(message, types.ServerNotification):
            heard.append(message)

    async with httpx2.AsyncClient(headers=head, timeout=60, trust_env=False) as http:
        transport = streamable_http.streamable_http_client(url, http_client=http)
        async with clients.Client(transport, mode=mode, message_handler=hear) as client:
            yield client


def run(scenario):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the era they are of has deprecated since
        asyncio.run(asyncio.wait_for(scenario(), 60))


async def until(true):
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.02)


def test_a_modern_client_hears_of_resources_tools_and_policy_until_the_proxy_goes(world):
    async def scenario():
        async with connected(world, "notes", mode="auto") as client:
            assert {tool.name for tool in (await client.list_tools()).tools} == {"touch", "sprout", "grow"}
            async with client.listen(
                tools_list_changed=True, resource_subscriptions=["notes://today"]
            ) as heard:
                assert heard.honored.resource_subscriptions == ["notes://today"]
                await client.call_tool("touch", {})
                assert await anext(heard) == events.ResourceUpdated(uri="notes://today")
                await client.call_tool("grow", {})
                assert await anext(heard) == events.ToolsListChanged()
                assert "grown" in {tool.name for tool in (await client.list_tools()).tools}
                world.apply("notes", {**laptop.allow("touch"), "resources": ["*"]})
                assert await anext(heard) == events.ToolsListChanged()
                assert {tool.name for tool in (await client.list_tools()).tools} == {"touch"}
                world.laptop.proxy.signal(signal.SIGTERM)
                assert [event async for event in heard] == []  # ended, not lost

    run(scenario)
    assert world.laptop.verify().returncode == 0


def test_a_revocation_ends_a_modern_clients_stream_in_order(world):
    async def scenario():
        async with connected(world, "notes", mode="auto") as client:
            async with client.listen(resource_subscriptions=["notes://today"]) as heard:
                world.apply(
                    "notes", everything_of(), {"name": "no", "effect": "Deny", "resources": ["notes://*"]}
                )
                assert [event async for event in heard] == []
            async with client.listen(resource_subscriptions=["notes://today"]) as heard:
                assert not heard.honored.resource_subscriptions

    run(scenario)


def test_a_legacy_client_hears_of_tools_that_a_server_of_the_other_era_got(world):
    heard = []

    async def scenario():
        async with connected(world, "notes", mode="legacy", heard=heard) as client:
            await client.list_tools()
            await client.call_tool("touch", {})
            await client.call_tool("grow", {})
            await until(lambda: any(isinstance(each, types.ToolListChangedNotification) for each in heard))
            assert "grown" in {tool.name for tool in (await client.list_tools()).tools}

    run(scenario)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_resources_of_a_legacy_server_are_heard_of_by_clients_of_both_eras(world, mode):
    heard = []

    async def scenario():
        async with connected(world, "everything", mode=mode, heard=heard) as client:
            if mode == "legacy":
                await client.subscribe_resource(EVERYTHING)
                await client.call_tool("toggle-subscriber-updates", {})
                await until(
                    lambda: any(isinstance(each, types.ResourceUpdatedNotification) for each in heard)
                )
                await client.unsubscribe_resource(EVERYTHING)
            else:
                async with client.listen(resource_subscriptions=[EVERYTHING]) as stream:
                    await client.call_tool("toggle-subscriber-updates", {})
                    async with asyncio.timeout(20):
                        assert await anext(stream) == events.ResourceUpdated(uri=EVERYTHING)

    run(scenario)


def test_what_a_server_of_both_eras_says_in_one_is_not_told_to_clients_of_the_other(world):
    async def scenario():
        for _ in range(2):
            async with connected(world, "notes", mode="legacy") as client:
                await client.call_tool("touch", {})  # by which the server is met in this era
            async with connected(world, "notes", mode="legacy") as client:
                assert client.server_capabilities.resources.subscribe is None
            async with connected(world, "notes", mode="auto") as client:
                assert client.server_capabilities.resources.subscribe is True
                async with client.listen(resource_subscriptions=["notes://today"]) as heard:
                    assert heard.honored.resource_subscriptions == ["notes://today"]
                    await client.call_tool("touch", {})
                    assert await anext(heard) == events.ResourceUpdated(uri="notes://today")

    run(scenario)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_a_tool_that_a_server_got_and_told_nobody_of_can_be_called_within_seconds(world, mode):
    async def scenario():
        async with connected(world, "notes", mode=mode) as client:
            await client.list_tools()
            await client.call_tool("sprout", {})
            async with asyncio.timeout(15):  # the list is kept for a minute by servers that name no time
                while (told := await client.call_tool("sprouted", {})).is_error:
                    await asyncio.sleep(0.2)
            assert told.content[0].text == "new"

    run(scenario)
