# SPDX-License-Identifier: Apache-2.0
"""Governed requests are decided alike, whichever they are; what is hidden looks unknown in the agent's era."""

from __future__ import annotations

import asyncio
import base64
import pathlib
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests import proxies
from tests.servers import mcp, stages

from outrider import testing
from outrider_sidecar import lists

NAMED = {"tools/call", "prompts/get", "resources/read"}
both_agents = pytest.mark.parametrize("modern", [True, False], ids=["modern-agent", "legacy-agent"])


@both_agents
@pytest.mark.parametrize("path", [proxies.PATH, "/mcp"])
@pytest.mark.parametrize(
    ("method", "params", "codes"),
    [
        ("prompts/get", {"name": "hidden"}, (-32602, -32602)),
        ("resources/read", {"uri": "file:///hidden"}, (-32602, -32002)),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "hidden"}, "argument": {"name": "a", "value": ""}}, (-32602, -32602)),
    ],
)  # fmt: skip
def test_what_no_rule_allows_looks_unknown_in_its_era(
    modern: bool, path: str, method: str, params: dict[str, Any], codes: tuple[int, int]
) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        named = {"mcp_name": params["uri"] if "uri" in params else params.get("name", "")} if modern else {}
        told = await world.ask(proxies.request(method, params), modern=modern, path=path, **named)
        error = told.last["error"]
        assert (told.status, error["code"]) == (200, codes[0 if modern else 1])
        assert set(told.refusal) == {"reason", "requestId"}
        (record,) = world.refusals
        assert (record.method, record.visible, record.event) == (method, False, told.refusal["requestId"])
        assert peer.of(method) == []

    proxies.run(scenario, testing.allow("echo"))


def test_a_name_that_the_header_does_not_repeat_is_refused() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        for method, params in (("prompts/get", {"name": "p"}), ("resources/read", {"uri": "a://b"})):
            for header in ({}, {"mcp_name": "other"}):
                told = await world.ask(proxies.request(method, params), **header)
                assert (told.status, told.last["error"]["code"]) == (400, -32020)

    proxies.run(scenario)


def test_more_calls_than_there_is_room_for_are_told_to_come_back() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        first = await world.calling("waits", id_=1)
        await peer.called.wait()
        told = await world.call("echo", id_=2)
        assert told.reason == "Overloaded"
        assert told.refusal["retryAfterSeconds"] == 1
        peer.go_on.set()
        assert (await first.answer()).text == "late"

    proxies.run(scenario, calls_max=1)


KINDS = [
    ("tools/call", {"name": "echo", "arguments": {"a": [1.50]}}, "echo"),
    ("prompts/get", {"name": "greet é", "arguments": {"who": "x"}}, "greet é"),
    ("resources/read", {"uri": "doc://a/b", "future": [1.0]}, "doc://a/b"),
    ("completion/complete", {"ref": {"type": "ref/prompt", "name": "greet é"}, "argument": {"name": "who", "value": "a"}}, "greet é"),
    ("completion/complete", {"ref": {"type": "ref/resource", "uri": "doc://{x}"}, "argument": {"name": "x", "value": ""}}, "doc://{x}"),
]  # fmt: skip


@both_agents
@pytest.mark.parametrize("era", ["modern", "legacy", "dual"])
@pytest.mark.parametrize(("method", "params", "name"), KINDS)
def test_every_kind_passes_between_any_two_eras_and_is_recorded_under_its_name(
    modern: bool, era: str, method: str, params: dict[str, Any], name: str
) -> None:
    stage = stages.Stage(
        era, tools=[stages.tool("echo")], prompts=[stages.prompt("greet é")], resources=[stages.resource("doc://a/b")],
        templates=[stages.template("doc://{x}")],
    )  # fmt: skip

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        session = None if modern else await world.open_session()
        head = (
            {"mcp_name": f"=?base64?{base64.b64encode(name.encode()).decode()}?="}
            if modern and method in NAMED
            else {}
        )
        told = await world.ask(proxies.request(method, params), modern=modern, session=session, **head)
        assert "result" in told.last, told
        assert told.result.get("resultType") == ("complete" if modern else None)
        (heard,) = stage.of(method)
        assert heard.modern is (era == "modern" or (era == "dual" and modern))
        sent = {key: value for key, value in heard.params.items() if key != "_meta"}
        assert sent == params
        (intent,) = world.intents
        assert (intent.method, intent.tool) == (method, name)
        assert [each.reason for each in world.outcomes] == ["Allowed"]

    played(scenario, stage)


def test_prompts_are_asked_for_by_exposed_name_where_servers_are_merged() -> None:
    stage = stages.Stage(prompts=[stages.prompt("greet")])

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        asked = proxies.request("prompts/get", {"name": "api__greet"})
        assert "result" in (await world.ask(asked, path="/mcp", mcp_name="api__greet")).last
        ref = {"ref": {"type": "ref/prompt", "name": "api__greet"}, "argument": {"name": "who", "value": ""}}
        assert "result" in (await world.ask(proxies.request("completion/complete", ref), path="/mcp")).last
        assert [heard.params["name"] for heard in stage.of("prompts/get")] == ["greet"]
        assert stage.of("completion/complete")[0].params["ref"]["name"] == "greet"

    played(scenario, stage)


def played(scenario: Callable[[proxies.World, stages.Stage], Awaitable[None]], stage: stages.Stage) -> None:
    """One proxy that allows everything of one server."""

    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with stages.playing(stage) as served, proxies.running(pathlib.Path(folder)) as world:
                rule = testing.a_rule("Allow", "*", prompts=("*",), resources=("*",))
                world.apply(proxies.a_view(served, rule))
                await scenario(world, served)

    asyncio.run(asyncio.wait_for(main(), 60))


NEW = [
    ("tools/call", {"name": "new", "arguments": {}}),
    ("prompts/get", {"name": "new"}),
    ("completion/complete", {"ref": {"type": "ref/prompt", "name": "new"}, "argument": {"name": "who", "value": ""}}),
]  # fmt: skip


async def asked_for(
    world: proxies.World, method: str, params: dict[str, Any], path: str = proxies.PATH
) -> proxies.Told:
    head = {"mcp_name": params["name"]} if method in NAMED else {}
    return await world.ask(proxies.request(method, params), path=path, **head)


@pytest.mark.parametrize(("method", "params"), NEW)
def test_a_name_that_the_server_has_got_since_is_known_once_the_list_has_aged(
    monkeypatch: pytest.MonkeyPatch, method: str, params: dict[str, Any]
) -> None:
    stage = stages.Stage(tools=[stages.tool("echo")], prompts=[stages.prompt("greet")])

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        lists_of = "tools/list" if method == "tools/call" else "prompts/list"
        assert (await asked_for(world, method, params)).refusal
        stage.tools.append(stages.tool("new"))
        stage.prompts.append(stages.prompt("new"))
        assert (await asked_for(world, method, params)).refusal
        assert len(stage.of(lists_of)) == 1  # it is young yet
        monkeypatch.setattr(lists, "TTL_SECONDS_MIN", 0.0)
        assert (await asked_for(world, method, params)).refusal is None
        assert len(stage.of(lists_of)) == 2
        assert (await asked_for(world, method, params)).refusal is None
        assert len(stage.of(lists_of)) == 2  # what is allowed waits for nothing

    played(scenario, stage)


def test_a_list_that_hangs_keeps_nobody_waiting_for_a_name_that_looks_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = stages.Stage(tools=[stages.tool("echo")])
    hanging = asyncio.Event()

    async def act(_line: mcp.Line, heard: stages.Heard) -> bool:
        if heard.method == "tools/list" and hanging.is_set():
            await asyncio.sleep(30)
        return False

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        assert (await world.call("echo")).reason is None
        hanging.set()
        monkeypatch.setattr(lists, "TTL_SECONDS_MIN", 0.0)
        monkeypatch.setattr(lists, "LOOK_SECONDS_MAX", 0.2)
        async with asyncio.timeout(10):  # a call may take 50 s
            assert (await world.call("unknown")).reason == "ToolUnknown"

    stage.act = act
    played(scenario, stage)


def test_unknown_and_hidden_names_wait_alike_for_one_list_and_stay_refused_when_it_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = stages.Stage(tools=[stages.tool("echo"), stages.tool("hidden"), stages.tool("denied")])
    let_go, broken = asyncio.Event(), []

    async def act(line: mcp.Line, heard: stages.Heard) -> bool:
        if heard.method != "tools/list":
            return False
        await let_go.wait()
        if broken:
            await line.json(stages.error(heard, -32603, "Internal error"))
        return bool(broken)

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        denied = testing.a_rule("Deny", "denied", message="not today")
        world.apply(proxies.a_view(stage, testing.allow("echo", "denied"), denied))
        let_go.set()
        assert (await world.call("echo")).reason is None
        floor = lists.TTL_SECONDS_MIN
        for _ in range(2):
            let_go.clear()
            stage.heard.clear()
            monkeypatch.setattr(lists, "TTL_SECONDS_MIN", 0.0)
            waiting = [asyncio.create_task(world.call(name)) for name in ("hidden", "unknown") * 5]
            await stage.until(lambda: stage.of("tools/list"))
            assert (await world.call("echo")).reason is None
            assert (await world.call("denied")).reason == "Denied"
            assert not any(each.done() for each in waiting)
            monkeypatch.setattr(lists, "TTL_SECONDS_MIN", floor)
            let_go.set()
            told = await asyncio.gather(*waiting)
            assert {(each.reason, each.text) for each in told} == {
                ("ToolUnknown", f"Unknown tool: {name}") for name in ("hidden", "unknown")
            }
            assert len(stage.of("tools/list")) == 1
            broken.append("from now on")

    stage.act = act
    played(scenario, stage)
