# SPDX-License-Identifier: Apache-2.0
"""A server is met in the era of whoever comes, when it speaks it; what it may ask is what that agent declared and the entry permits."""

from __future__ import annotations

import asyncio
import pathlib
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests import proxies
from tests.servers import mcp, stages

from outrider import call, snapshot, testing

Scenario = Callable[[proxies.World, stages.Stage], Awaitable[None]]
EVERYTHING = {
    "sampling": {"tools": {}},
    "elicitation": {},
    "roots": {"listChanged": True},
    "tasks": {"list": {}},
}


def play(scenario: Scenario, era: str = "dual", **view: Any) -> None:
    """One proxy before a server that keeps what it heard."""

    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            stage = stages.Stage(era, tools=[stages.tool("echo")])
            async with stages.playing(stage) as served, proxies.running(pathlib.Path(folder)) as world:
                world.apply(proxies.a_view(served, **view))
                await scenario(world, served)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_server_of_both_eras_is_met_in_each_agents_own() -> None:
    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        held = await world.open_session()
        assert (await world.call("echo", modern=False, session=held)).status == 200
        assert (await world.call("echo")).status == 200
        legacy, modern = stage.of("tools/call")
        assert (legacy.modern, modern.modern) == (False, True)
        assert "mcp-session-id" not in modern.headers

    play(scenario)


@pytest.mark.parametrize(("era", "modern"), [("modern", False), ("legacy", True)])
def test_only_what_a_server_does_not_speak_is_bridged(era: str, modern: bool) -> None:
    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        held = None if modern else await world.open_session()
        for _ in range(2):
            assert (await world.call("echo", modern=modern, session=held)).reason is None
        assert [each.modern for each in stage.of("tools/call")] == [era == "modern"] * 2
        assert (
            len(stage.of("initialize")) <= 2
        )  # once for lists of ours, once for the agent; not once per call

    play(scenario, era)


@pytest.mark.parametrize("version", ["2025-03-26", "2025-06-18", "2025-11-25"])
def test_a_session_speaks_the_agents_revision(version: str) -> None:
    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        held = await world.open_session(version=version)
        told = await world.call("echo", modern=False, session=held, mcp_protocol_version=version)
        assert told.reason is None
        assert stage.of("tools/call")[0].headers["mcp-protocol-version"] == version

    play(scenario)


@pytest.mark.parametrize(
    ("features", "told"),
    [
        (snapshot.ClientFeatures(), {"elicitation": {}}),
        (snapshot.ClientFeatures(elicitation_form=False), {}),
        (
            snapshot.ClientFeatures(sampling=True, roots=True),
            {"elicitation": {}, "sampling": {"tools": {}}, "roots": {"listChanged": True}},
        ),
    ],
)  # fmt: skip
def test_a_server_learns_what_the_agent_declared_and_the_entry_permits(
    features: snapshot.ClientFeatures, told: dict[str, Any]
) -> None:
    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        held = await world.open_session(**EVERYTHING)
        await world.call("echo", modern=False, session=held)
        assert stage.of("initialize")[-1].params["capabilities"] == told
        bare = await world.open_session()
        await world.call("echo", modern=False, session=bare)
        assert stage.of("initialize")[-1].params["capabilities"] == {}

    play(scenario, features=features)


def test_a_server_that_speaks_neither_era_is_asked_again_next_time() -> None:
    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        async def nothing(line: mcp.Line, heard: stages.Heard) -> bool:
            await line.say(b"", status=b"404 Not Found")
            return True

        assert (await world.call("echo")).reason is None
        stage.act = nothing
        held = await world.open_session()
        assert (await world.call("echo", modern=False, session=held)).reason == "UpstreamNotReady"
        stage.act = None
        assert (await world.call("echo", modern=False, session=held)).reason is None

    play(scenario)


def test_each_agent_is_told_what_the_server_says_in_its_own_era_whoever_came_last() -> None:
    said = {
        "server/discover": {"tools": {}, "prompts": {}, "resources": {"subscribe": True}},
        "initialize": {"tools": {}, "resources": {}, "logging": {}},
    }

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        async def act(line: mcp.Line, heard: stages.Heard) -> bool:
            if heard.method not in said:
                return False
            told = stages.answer(stage, heard)
            told["result"]["capabilities"] = said[heard.method]
            await line.json(told, *([b"mcp-session-id: s"] if heard.method == "initialize" else []))
            return True

        stage.act, stage.sessions["s"] = act, set()
        changing = {"listChanged": True}
        for _ in range(2):
            assert (await world.call("echo", modern=False, session=await world.open_session())).reason is None
            assert (await world.call("echo")).reason is None
            await asyncio.gather(*(listed(world, kind) for kind in call.Kind))
            told = (await world.ask(proxies.request("server/discover"))).result["capabilities"]
            assert told == {
                "tools": changing,
                "prompts": changing,
                "resources": {"subscribe": True, **changing},
            }
            info = {
                "protocolVersion": mcp.LEGACY,
                "capabilities": {},
                "clientInfo": {"name": "t", "version": "1"},
            }
            told = (await world.ask(proxies.request("initialize", info), modern=False)).result["capabilities"]
            assert told == {"tools": changing, "resources": changing, "logging": {}}
        assert stage.of("prompts/list")

    async def listed(world: proxies.World, kind: call.Kind) -> None:
        world.lists.changed(proxies.API, kind)
        assert await world.lists.ensure(proxies.API, kind) is None

    play(scenario, rules=(testing.allow(prompts=("*",), resources=("*",)),))
