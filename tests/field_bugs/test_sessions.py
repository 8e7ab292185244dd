# SPDX-License-Identifier: Apache-2.0
"""Field bugs 5, 7, 8, 13, 14, 15, 16 and 17: sessions, whose they are, and what a call in one may cost or reach."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time

import pytest
from tests import proxies
from tests.field_bugs import ground
from tests.servers import stages

from outrider_sidecar import sessions

CANCELLED = "notifications/cancelled"


def held(stage: stages.Stage, go_on: asyncio.Event):
    """Calls of `wait` are answered when the test lets them, the last first."""
    waiting: list[tuple] = []

    async def act(line, heard):
        if heard.method != "tools/call" or heard.name != "wait":
            return False
        waiting.append((line, heard))
        if len(waiting) == 1:
            asyncio.get_running_loop().create_task(answer_all())
        return True

    async def answer_all():
        await go_on.wait()
        for line, heard in reversed(waiting):
            with contextlib.suppress(ConnectionError):
                await line.json(stages.answer(stage, heard))

    stage.act = act
    return waiting


def sealed(principal: str, endpoint: str = proxies.PATH) -> str:
    sealer = sessions.Sealer(proxies.KEY, entropy=os.urandom, wall=time.time)
    return sealer.open(version="2025-11-25", principal=principal, endpoint=endpoint)


@ground.both_endpoints
def test_bug_05_a_modern_client_calls_a_stateful_server_of_the_handshake_era(path: str) -> None:
    """agentgateway/agentgateway#2982: the synthetic initialize was skipped, 400 Missing session ID."""

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        for number in range(3):
            told = await world.call(ground.named(path, "query"), {"n": number}, path=path)
            assert json.loads(told.text)["arguments"] == {"n": number}
        asked = [each.method for each in stage.heard if each.method in ("initialize", "tools/call")]
        assert asked[0] == "initialize"
        assert asked.count("initialize") <= 2
        assert {bool(each.headers.get("mcp-session-id")) for each in stage.of("tools/call")} == {True}

    ground.run(scenario, stages.Stage("legacy", tools=[stages.tool("query")]))


@ground.both_endpoints
def test_bug_05_a_client_of_the_handshake_era_calls_a_server_that_only_knows_the_stateless_one(
    path: str,
) -> None:
    """Kuadrant/mcp-gateway#1483, the mirror case: such a server was invisible."""

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        options = await ground.agent(world, modern=False, path=path)
        listed = await ground.drained(world, "tools/list", "tools", **options)
        assert [tool["name"] for tool in listed] == [ground.named(path, "query")]
        assert "isError" not in (await world.call(ground.named(path, "query"), **options)).result
        assert {each.modern for each in stage.of("tools/call")} == {True}

    ground.run(scenario, stages.Stage("modern", tools=[stages.tool("query")]))


@ground.both_endpoints
@pytest.mark.parametrize("session", ["gone", "x" * 4_000, "a b", "0", ""])
@pytest.mark.parametrize("verb", ["POST", "DELETE"])
def test_bug_07_an_unknown_session_is_404_so_that_clients_begin_anew(
    path: str, session: str, verb: str
) -> None:
    """supercorp-ai/supergateway#123, punkpeye/mcp-proxy#108: 400 or 401, and clients never re-initialised."""

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        head = {
            "content-type": "application/json", "accept": "application/json, text/event-stream",
            "mcp-protocol-version": "2025-11-25", "mcp-session-id": session,
        }  # fmt: skip
        body = json.dumps(proxies.request("tools/list")).encode() if verb == "POST" else b""
        told = await (await world.send(verb, path, body, head)).answer()
        assert told.status == 404
        assert stage.of("tools/call") == []
        again = await ground.agent(world, modern=False, path=path)
        assert (await world.ask(proxies.request("tools/list"), **again)).status == 200

    ground.run(scenario, stages.Stage(tools=[stages.tool("query")]))


def test_bug_08_a_server_that_was_restarted_is_greeted_again_once_and_the_call_made() -> None:
    """sparfenyuk/mcp-proxy#149, modelcontextprotocol/python-sdk#1676: the proxy's client side never re-initialised."""

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        options = await ground.agent(world, modern=False)
        await world.call("query", **options)
        before = stage.opened
        stage.sessions.clear()
        told = await world.call("query", {"after": "restart"}, **options)
        assert json.loads(told.text)["arguments"] == {"after": "restart"}
        assert stage.opened == before + 1
        assert (await world.call("query", **options)).reason is None
        assert stage.opened == before + 1

    ground.run(scenario, stages.Stage("legacy", tools=[stages.tool("query")]))


def test_bug_13_and_16_a_session_at_a_server_is_one_agents_and_kept_for_all_its_calls() -> None:
    """IBM/mcp-context-forge#2055 and #4205: shared across users; #6481: a fresh initialize for every call (6.5 s each)."""

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        agents = [await ground.agent(world, modern=False) for _ in range(4)]
        for _ in range(5):
            for options in agents:
                await world.call("query", {"who": options["session"][-6:]}, **options)
        used: dict[str, set[str]] = {}
        for call in stage.of("tools/call"):
            used.setdefault(call.params["arguments"]["who"], set()).add(call.headers["mcp-session-id"])
        assert len(used) == 4
        assert all(len(each) == 1 for each in used.values())
        assert len(set.union(*used.values())) == 4
        assert stage.opened <= 5, "one for each agent and one for the lists"

    ground.run(scenario, stages.Stage("legacy", tools=[stages.tool("query")]))


@ground.both_agents
@ground.both_servers
def test_bug_14_equal_ids_at_once_answered_in_another_order_reach_their_own_callers(
    modern: bool, era: str
) -> None:
    """GHSA-345p-7cg4-v4c7 (CVE-2026-25536), modelcontextprotocol/typescript-sdk#1483: answers leaked across clients."""
    go_on = asyncio.Event()
    stage = stages.Stage(era, tools=[stages.tool("wait")])
    waiting = held(stage, go_on)

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        agents = [await ground.agent(world, modern=modern) for _ in range(10)]
        asked = [
            await world.calling("wait", {"who": number}, id_=1, **options)
            for number, options in enumerate(agents)
        ]
        await stage.until(lambda: len(waiting) == 10)
        go_on.set()
        for number, asking in enumerate(asked):
            told = await asking.answer()
            assert (told.last["id"], json.loads(told.text)["arguments"]) == (1, {"who": number})
        at_server = [(heard.headers.get("mcp-session-id"), heard.id) for _, heard in waiting]
        assert len(set(at_server)) == 10

    ground.run(scenario, stage)


@ground.both_endpoints
def test_bug_15_a_session_of_another_principal_looks_unknown(path: str) -> None:
    """modelcontextprotocol/python-sdk#2100, mcp-gateway-registry PR 1357: the id was not bound to the principal."""

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        mine = await world.open_session(path)
        ask = proxies.request("tools/list")
        told = {
            name: await world.ask(ask, path=path, modern=False, session=session)
            for name, session in {
                "another workload's": sealed("other/bot", path),
                "another namespace's": sealed("crm2/bot", path),
                "another endpoint's": await world.open_session("/mcp" if path != "/mcp" else proxies.PATH),
                "tampered": mine[:-2] + ("A" if mine[-2] != "A" else "B") + mine[-1],
                "nobody's": "nobody",
            }.items()
        }
        assert {each.status for each in told.values()} == {404}
        assert len({each.body for each in told.values()}) == 1
        assert (await world.ask(ask, path=path, modern=False, session=mine)).status == 200

    ground.run(scenario, stages.Stage(tools=[stages.tool("query")]))


def test_bug_17_a_cancellation_reaches_the_right_server_at_once_with_that_servers_id() -> None:
    """PrefectHQ/fastmcp#4124, lynnswap/XcodeMCPKit#210, mcp-context-forge#1983: with the client's id, elsewhere, or queued."""
    never = asyncio.Event()
    one, two = (stages.Stage("legacy", label=label, tools=[stages.tool("wait")]) for label in ("one", "two"))
    waiting = held(two, never)

    async def scenario(world: proxies.World, one: stages.Stage, two: stages.Stage) -> None:
        options = await ground.agent(world, modern=False, path="/mcp")
        asking = await world.calling("other__wait", id_="mine", **options)
        await two.until(lambda: waiting)
        note = proxies.request(CANCELLED, {"requestId": "mine", "reason": "enough"}, id_=None)
        began = time.monotonic()
        assert (await world.ask(note, **options)).status == 202
        [told] = await two.until(lambda: two.of(CANCELLED))
        assert time.monotonic() - began < 2
        assert told.params["requestId"] == waiting[0][1].id != "mine"
        assert told.headers["mcp-session-id"] == waiting[0][1].headers["mcp-session-id"]
        assert (await asking.answer()).reason == "Cancelled"
        assert one.of(CANCELLED) == []
        never.set()

    ground.run(scenario, one, two)


def test_bug_17_a_modern_agent_that_leaves_has_cancelled_and_a_legacy_one_has_not() -> None:
    """The same bug, and the rules of the two eras: what a closed connection means."""
    go_on = asyncio.Event()
    stage = stages.Stage("legacy", tools=[stages.tool("wait")])
    waiting = held(stage, go_on)

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        legacy = await world.calling("wait", {"era": "legacy"}, **await ground.agent(world, modern=False))
        await stage.until(lambda: len(waiting) == 1)
        legacy.leave()
        modern = await world.calling("wait", {"era": "modern"})
        await stage.until(lambda: len(waiting) == 2)
        modern.leave()
        [told] = await stage.until(lambda: stage.of(CANCELLED))
        assert told.params["requestId"] == waiting[1][1].id
        go_on.set()
        await world.settled()
        assert sorted(each.reason for each in world.outcomes) == ["Allowed", "Cancelled"]

    ground.run(scenario, stage)
