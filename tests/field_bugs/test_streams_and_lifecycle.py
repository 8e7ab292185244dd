# SPDX-License-Identifier: Apache-2.0
"""Field bugs 22 to 25: streams with large, silent and empty events, and servers and clients that come and go."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests import proxies
from tests.field_bugs import ground
from tests.servers import mcp, stages

from outrider import testing
from outrider_sidecar import streams

BIG = "x" * 2_000_000


def streaming(*frames: bytes, era: str = "dual", wait: asyncio.Event | None = None) -> stages.Stage:
    """A stage whose tool answers with these frames of an event stream; ANSWER stands for its answer."""

    async def act(line: mcp.Line, heard: stages.Heard) -> bool:
        if heard.method != "tools/call":
            return False
        await line.events()
        for frame in frames:
            if frame == b"WAIT":
                assert wait is not None
                await wait.wait()
                continue
            answer = json.dumps(stages.answer(stage, heard)).encode()
            data = frame.replace(b"ANSWER", answer)
            for at in range(0, len(data), 60_000):
                part = data[at : at + 60_000]
                line.writer.write(b"%x\r\n%b\r\n" % (len(part), part))
                await line.writer.drain()
        await line.over()
        return True

    stage = stages.Stage(era, tools=[stages.tool("query")], act=act)
    return stage


@ground.both_agents
@ground.both_servers
def test_bug_22_a_result_of_two_megabytes_passes_as_one_event(modern: bool, era: str) -> None:
    """gravitational/teleport#67000, python-sdk#3332: limits of 64 KiB or 1 MiB; aiohttp's own is 512 KiB a line."""
    frame = b'data: {"jsonrpc":"2.0","id":@,"result":{"resultType":"complete","content":[{"type":"text","text":"%b"}]}}\n\n'

    async def act(line: mcp.Line, heard: stages.Heard) -> bool:
        if heard.method != "tools/call":
            return False
        await line.events()
        data = (frame % BIG.encode()).replace(b"@", str(heard.id).encode())
        line.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await line.over()
        return True

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        told = await world.call("query", **await ground.agent(world, modern=modern))
        assert told.text == BIG
        async with ground.official(world, modern=modern) as client:
            assert (await client.call_tool("query", {})).content[0].text == BIG

    ground.run(scenario, stages.Stage(era, tools=[stages.tool("query")], act=act))


@ground.both_servers
def test_bug_22_a_list_of_a_megabyte_and_a_half_does_not_vanish(era: str) -> None:
    """The same bug: the tool list disappeared silently."""
    tools = [stages.tool(f"t{n}", description="d" * 3_000) for n in range(500)]

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        for path in (proxies.PATH, "/mcp"):
            assert len(await ground.drained(world, "tools/list", "tools", path=path)) == 500

    ground.run(scenario, stages.Stage(era, tools=tools))


@ground.both_agents
@ground.both_servers
def test_bug_23_a_silent_call_is_kept_alive_by_comments(
    modern: bool, era: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """typescript-sdk PR 2538, mcp-sap-docs PR 75, coolify#5586: idle streams are cut at 60 s, buffered or compressed."""
    monkeypatch.setattr(streams, "JSON_SECONDS", 0.05)
    monkeypatch.setattr(streams, "COMMENT_SECONDS", 0.05)
    wait = asyncio.Event()

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        asking = await world.calling(
            "query", **await ground.agent(world, modern=modern), accept_encoding="gzip, br"
        )
        status, head = await asking.head()
        assert (status, head["content-type"], head.get("content-encoding")) == (
            200,
            "text/event-stream",
            None,
        )
        assert head["x-accel-buffering"] == "no"
        assert "no-transform" in head["cache-control"]
        assert [await asking.chunk() for _ in range(3)] == [b":\n\n"] * 3
        wait.set()
        said = [message async for message in ground.messages(asking)]
        assert json.loads(said[-1]["result"]["content"][0]["text"])["by"] == "stage"
        asking.leave()

    ground.run(scenario, streaming(b"WAIT", b"data: ANSWER\n\n", era=era, wait=wait))


@ground.both_agents
@pytest.mark.parametrize(
    "frames",
    [
        (b"id: 1\ndata:\n\n", b"data: ANSWER\n\n"),
        (b"id: 1\nretry: 100\ndata: \n\n", b"id: 2\ndata: ANSWER\n\n"),
        (b": hello\n\n", b"event: message\ndata: ANSWER\n\n"),
        (b"\xef\xbb\xbfdata: ANSWER\n\n",),
        (b"data: ANSWER\r\n\r\n",),
        (b"data: ANSWER\r\r",),
        (b"event: ping\ndata: x\n\n", b"data: ANSWER\n\n"),
        (b"data\n\n", b"data:ANSWER\n\n"),
    ],
    ids=[
        "priming",
        "priming with retry",
        "comment",
        "byte order mark",
        "CRLF",
        "CR",
        "another event",
        "bare data",
    ],
)
def test_bug_24_a_priming_event_and_other_line_ends_reach_no_client_that_cannot_bear_them(
    modern: bool, frames: tuple[bytes, ...]
) -> None:
    """python-sdk#1672, typescript-sdk PR 1184, microsoft/vscode#309104: JSON.parse("") on an empty first event.

    Clients of 2025-11-25 must bear one, and get one of ours where the server sends one: its stream can be taken up again.
    """
    primed = not modern and frames[0].startswith(b"id:")

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        told = await world.call("query", **await ground.agent(world, modern=modern))
        assert len(told.messages) == 1
        assert json.loads(told.text)["by"] == "stage"
        assert b"\r" not in told.body
        assert (b"id:" in told.body) is primed
        old = {
            "session": await world.open_session(version="2025-06-18"),
            "mcp_protocol_version": "2025-06-18",
        }
        assert b"id:" not in (await world.call("query", modern=False, **old)).body

    ground.run(scenario, streaming(*frames, era="legacy"))


@ground.both_agents
@ground.both_servers
def test_bug_24_ids_come_back_with_the_type_they_had(modern: bool, era: str) -> None:
    """python-sdk#961, PR 1720: ids that are text were made numbers."""

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        options = await ground.agent(world, modern=modern)
        for id_ in ("1", 1, "", 0, -1, "01", 2**53, "\u00fc", "null", 10**18):
            for told in (
                await world.call("query", id_=id_, **options),
                await world.call("none", id_=id_, **options),
            ):
                assert (type(told.last["id"]), told.last["id"]) == (type(id_), id_)

    ground.run(scenario, stages.Stage(era, tools=[stages.tool("query")]))


@ground.both_agents
def test_bug_25_one_dead_server_leaves_the_merged_list_as_it_is(modern: bool) -> None:
    """decocms/studio PR 4695, portofcontext/pctx#119: one dead upstream failed every list."""

    async def scenario(world: proxies.World, alive: stages.Stage, dying: stages.Stage) -> None:
        options = await ground.agent(world, modern=modern, path="/mcp")
        dead = stages.Stage(port=9)
        ground.show(world, alive, dead)
        listed = await ground.drained(world, "tools/list", "tools", **options)
        assert [tool["name"] for tool in listed] == ["api__query"]
        assert (await world.call("api__query", **options)).reason is None

    ground.run(scenario, stages.Stage(tools=[stages.tool("query")]), stages.Stage())


def test_bug_25_sessions_of_clients_that_vanish_are_bounded_and_of_those_that_leave_are_ended() -> None:
    """supercorp-ai/supergateway#108, #141 and #160: sessions and children leaked when clients vanished."""

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        for _ in range(30):
            options = await ground.agent(world, modern=False)
            await world.call("query", **options)
            head = {"mcp-session-id": options["session"], "mcp-protocol-version": "2025-11-25"}
            assert (await (await world.send("DELETE", proxies.PATH, b"", head)).answer()).status == 200
        await world.settled()
        assert len(stage.sessions) <= 1, "the one for the lists"

    ground.run(scenario, stages.Stage("legacy", tools=[stages.tool("query")]))


def test_bug_25_a_list_is_the_callers_own_after_every_change_of_policy() -> None:
    """aklivity/zilla#2063: cached lists were served to the wrong caller."""

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        assert len(await ground.drained(world, "tools/list", "tools")) == 1_200
        cursor = (await world.ask(proxies.request("tools/list"))).result["nextCursor"]
        ground.show(world, stage, chosen=(testing.allow("t1*"),))
        shown = [tool["name"] for tool in await ground.drained(world, "tools/list", "tools")]
        assert shown == [name for name in (f"t{n}" for n in range(1_200)) if name.startswith("t1")]
        told = await world.ask(proxies.request("tools/list", {"cursor": cursor}))
        assert told.last["error"]["code"] == -32602

    ground.run(scenario, stages.Stage(tools=[stages.tool(f"t{n}") for n in range(1_200)]))


def test_bug_25_a_refused_caller_is_not_sent_to_look_for_metadata() -> None:
    """sigbit/mcp-auth-proxy#177, python-sdk#1400: protected-resource metadata whose `resource` was not the URL."""

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        told = await world.ask(proxies.request("tools/list"), authorization="Bearer wrong")
        assert told.status == 401
        assert "resource_metadata" not in str(told.headers)
        for path in (
            "/.well-known/oauth-protected-resource",
            "/.well-known/oauth-protected-resource/crm/api/mcp",
        ):
            asking = await world.send("GET", path, b"", {})
            assert (await asking.head())[0] == 404
            asking.leave()

    ground.run(scenario, stages.Stage(tools=[stages.tool("query")]))


def test_bug_25_the_host_a_server_sees_is_its_own_and_a_foreign_one_is_refused_at_ours() -> None:
    """RekklesNA/ProxmoxMCP-Plus#92, agentgateway#1855: Host rewriting against checks for DNS rebinding."""

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        assert (await world.call("query", host="localhost:15100")).reason is None
        assert (await world.call("query", host="rebound.example")).status == 403
        assert {each.headers["host"] for each in stage.heard} == {f"127.0.0.1:{stage.port}"}

    ground.run(scenario, stages.Stage(tools=[stages.tool("query")]))
