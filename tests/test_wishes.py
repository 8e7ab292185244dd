# SPDX-License-Identifier: Apache-2.0
"""A log level is told to the servers of a session, to those that come later, and nobody else; changed roots to whom roots were shown."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests import proxies
from tests.servers import mcp, stages
from tests.test_greetings import play

from outrider import snapshot


async def set_level(world: proxies.World, held: str | None, level: Any = "warning") -> proxies.Told:
    asked = proxies.request("logging/setLevel", {"level": level})
    return await world.ask(asked, modern=False, session=held)


def test_a_level_reaches_servers_that_log_now_and_those_met_later() -> None:
    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        early, late = [await world.open_session(), await world.open_session()]
        await world.call("echo", modern=False, session=early)
        assert (await set_level(world, early)).result == {}
        assert (await set_level(world, late, "debug")).result == {}
        await stage.until(lambda: stage.of("logging/setLevel"))
        await world.call("echo", modern=False, session=late)
        levels = [each.params["level"] for each in stage.of("logging/setLevel")]
        assert levels == ["warning", "debug"]
        sessions = [each.headers["mcp-session-id"] for each in stage.of("logging/setLevel")]
        assert sessions == [each.headers["mcp-session-id"] for each in stage.of("tools/call")]

    play(scenario, "legacy")


def test_a_session_that_was_lost_hears_the_level_again() -> None:
    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        held = await world.open_session()
        await world.call("echo", modern=False, session=held)
        await set_level(world, held)
        await stage.until(lambda: stage.of("logging/setLevel"))
        stage.sessions.clear()
        assert (await world.call("echo", modern=False, session=held)).reason is None
        assert [each.params["level"] for each in stage.of("logging/setLevel")] == ["warning"] * 2

    play(scenario, "legacy")


def test_a_server_of_the_stateless_era_is_told_with_each_call() -> None:
    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        held = await world.open_session()
        await set_level(world, held, "info")
        await world.call("echo", modern=False, session=held)
        meta = stage.of("tools/call")[0].params["_meta"]
        assert meta["io.modelcontextprotocol/logLevel"] == "info"

    play(scenario, "modern")


@pytest.mark.parametrize("level", ["loud", "", None, 3, "INFO"])
def test_what_is_no_level_is_said_to_be_none(level: Any) -> None:
    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        told = await set_level(world, await world.open_session(), level)
        assert told.last["error"]["code"] == -32602
        assert "debug, info" in told.last["error"]["message"]
        assert stage.of("logging/setLevel") == []

    play(scenario, "legacy")


def test_there_is_no_level_to_set_where_nobody_logs_and_none_in_the_stateless_era() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        assert (await set_level(world, await world.open_session())).last["error"]["code"] == -32601
        told = await world.ask(proxies.request("logging/setLevel", {"level": "info"}))
        assert (told.status, told.last["error"]["code"]) == (404, -32601)

    proxies.run(scenario, era="legacy")


@pytest.mark.parametrize("shown", [True, False])
def test_changed_roots_are_told_to_servers_that_may_ask_for_them(shown: bool) -> None:
    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        held = await world.open_session(roots={"listChanged": True})
        await world.call("echo", modern=False, session=held)
        note = proxies.request("notifications/roots/list_changed", id_=None)
        assert (await world.ask(note, modern=False, session=held)).status == 202
        await world.settled()
        told = stage.of("notifications/roots/list_changed")
        assert len(told) == (1 if shown else 0)
        if shown:
            assert json.loads(told[0].raw) == {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}

    play(scenario, "legacy", features=snapshot.ClientFeatures(roots=shown))


def test_an_agent_that_wishes_without_end_is_told_of_as_fast_as_servers_listen_and_its_last_wish_counts() -> (
    None
):
    go_on = asyncio.Event()

    async def act(line: mcp.Line, heard: stages.Heard) -> bool:
        if heard.method == "logging/setLevel":
            await go_on.wait()
        return False

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        stage.act = act
        held = await world.open_session()
        await world.call("echo", modern=False, session=held)
        for level in ("debug", *["info", "notice"] * 50, "error"):
            assert (await set_level(world, held, level)).result == {}
        go_on.set()
        await world.settled()
        assert [each.params["level"] for each in stage.of("logging/setLevel")] == ["debug", "error"]

    play(scenario, "legacy")
