# SPDX-License-Identifier: Apache-2.0
"""Servers that hang, that nobody agreed to, and what they ask of us: none of it is another server's problem."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests import proxies
from tests.servers import mcp

from outrider import call, names, snapshot, testing
from outrider_sidecar import lists

STRANGER = names.ServerId("mallory", "bait")
PATIENCE = lists.LOOK_SECONDS_MAX


def merged(told: proxies.Told) -> list[str]:
    return [tool["name"] for tool in told.result["tools"]]


def test_a_server_that_hangs_delays_the_merged_list_once_and_by_a_bounded_time() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        async with mcp.serving(mcp.Peer("modern", mute=True)) as hanging:
            world.apply(proxies.a_view(peer), proxies.a_view(hanging, id=STRANGER))
            loop = asyncio.get_running_loop()
            began = loop.time()
            first = merged(await world.ask(proxies.request("tools/list"), path="/mcp"))
            between = loop.time()
            second = merged(await world.ask(proxies.request("tools/list"), path="/mcp"))
            assert first == second
            assert any(name.endswith("__echo") for name in first)
            assert PATIENCE - 0.1 < between - began < lists.TTL_SECONDS / 4
            assert loop.time() - between < PATIENCE - 0.1

    proxies.run(scenario)


@pytest.mark.parametrize(
    "rules",
    [
        (testing.allow(),),
        (testing.allow(key="Consumer"),),
        (testing.allow(enforced=False), testing.allow(key="Consumer")),
    ],
)
def test_a_server_that_only_one_side_allows_is_never_dialled_and_does_not_exist(rules) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        bait = proxies.a_view(peer, *rules, id=STRANGER, consumer_key_needed=True)
        world.apply(bait)
        await world.lists.warm([(STRANGER, call.Kind.TOOL)])
        path = f"/{STRANGER.namespace}/{STRANGER.name}/mcp"
        for body in (
            proxies.request("tools/list"),
            proxies.request("tools/call", {"name": "echo", "arguments": {}}),
        ):
            there = await world.ask(body, path=path)
            nowhere = await world.ask(body, path="/mallory/none/mcp")
            assert (there.status, there.body, there.messages) == (
                nowhere.status,
                nowhere.body,
                nowhere.messages,
            )
            assert there.status == 404
        assert merged(await world.ask(proxies.request("tools/list"), path="/mcp")) == []
        assert peer.seen == []

    proxies.run(scenario)


def test_what_an_audit_mode_allow_would_say_is_recorded_without_asking_the_server() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        world.apply(proxies.a_view(peer, testing.allow(enforced=False)))
        told = await world.call("salesforce__echo", path="/mcp")
        assert told.text.startswith("Unknown tool")
        assert peer.seen == []

    proxies.run(scenario)


def test_the_deadline_of_a_call_covers_the_wait_for_its_servers_list() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        told = await world.call("echo")
        assert told.reason == "UpstreamNotReady"
        assert "nothing was sent" in told.text
        assert loop.time() - began < 3.0

    proxies.run(scenario, peer=mcp.Peer("modern", mute=True), endpoint={"call_seconds": 1.0})


def test_what_a_server_asks_during_a_call_is_answered_or_refused_and_the_call_goes_on() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        told = await world.call("demands")
        ping, sampling = json.loads(told.text)
        assert (ping["id"], ping["result"]) == (7, {})
        assert (sampling["id"], sampling["error"]["code"]) == ("s-1", -1)

    proxies.run(scenario, era="legacy")


def test_true_is_not_the_id_one() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        session = await world.open_session()
        asking = await world.calling("waits", id_=1, modern=False, session=session)
        await peer.called.wait()
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": True}}
        assert (await world.ask(note, modern=False, session=session)).status == 202
        peer.go_on.set()
        assert (await asking.answer()).text == "late"

    proxies.run(scenario, era="legacy")


def test_a_disabled_server_is_answered_for_without_being_asked() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        assert (await world.call("echo")).reason == "ServerDisabled"
        assert peer.seen == []

    proxies.run(scenario, lifecycle=snapshot.Lifecycle.DISABLED)
