# SPDX-License-Identifier: Apache-2.0
"""Field bugs 6, 9, 11 and 12: headers that belong to one hop, and members of requests and results that must survive."""

from __future__ import annotations

import json

import pytest
from tests import proxies
from tests.field_bugs import ground
from tests.servers import mcp, stages

from outrider import testing

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def saying(value: dict[str, object], **more: object):
    """A stage whose tool answers with exactly this result."""

    async def act(line: mcp.Line, heard: stages.Heard) -> bool:
        if heard.method != "tools/call":
            return False
        await line.json(stages.result(heard, value))
        return True

    return stages.Stage(str(more.pop("era", "dual")), tools=[stages.tool("query", **more)], act=act)


@ground.both_agents
@ground.both_servers
def test_bug_06_no_header_of_one_hop_is_copied_to_the_other(modern: bool, era: str) -> None:
    """PrefectHQ/fastmcp PR 4853 (`mcp-*` in the fallback initialize), fastmcp#586 (Content-Length), gateway-registry PR 1097."""

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        options = await ground.agent(world, modern=modern)
        foreign = {
            "cookie": "a=agents", "x_forwarded_for": "6.6.6.6", "te": "trailers", "via": "1.1 agents",
            "mcp_param_who": "agents", "last_event_id": "agents", "x_api_key": "agents", "origin": "http://localhost",
            "proxy_authorization": "agents", "mcp_future": "agents", "user_agent": "agents",
        }  # fmt: skip
        told = await world.call("query", {"n": 1}, **options, **foreign)
        assert told.reason is None
        for heard in stage.heard:
            assert "agents" not in str(heard.head), heard
            assert heard.headers["host"] == f"127.0.0.1:{stage.port}"
            assert int(heard.headers["content-length"]) == len(heard.raw)
        for heard in stage.of("initialize"):
            assert [name for name, _ in heard.head if name.startswith("mcp-")] == []
        known = {"date", "content-type", "content-length", "connection", "keep-alive", "cache-control"}
        assert set(told.headers) <= known, told.headers

    ground.run(scenario, stages.Stage(era, tools=[stages.tool("query")]))


def test_bug_06_the_session_of_an_answer_to_initialize_is_given_to_the_client_and_is_ours() -> None:
    """agentic-community/mcp-gateway-registry PR 1097: `Mcp-Session-Id` of the answer was dropped."""

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        session = await world.open_session()
        assert session.isascii()
        assert session.isprintable()
        await world.call("query", modern=False, session=session)
        assert session not in {each.headers.get("mcp-session-id") for each in stage.heard}

    ground.run(scenario, stages.Stage("legacy", tools=[stages.tool("query")]))


@ground.both_agents
@ground.both_servers
def test_bug_09_meta_of_a_request_and_of_its_result_arrive(modern: bool, era: str) -> None:
    """btsouth/toolport PR 511, sparfenyuk/mcp-proxy PR 189: no progress, no tracing; fastmcp#2525: the result's lost."""
    meta = {"com.example/kept": {"a": [1, None]}, "plain": "x"}

    async def act(line: mcp.Line, heard: stages.Heard) -> bool:
        if heard.method != "tools/call":
            return False
        await line.events()
        note = {"progressToken": heard.params["_meta"]["progressToken"], "progress": 1, "total": 2}
        await line.event({"jsonrpc": "2.0", "method": "notifications/progress", "params": note})
        await line.event(stages.result(heard, {**stages.text("done"), "_meta": meta}))
        await line.over()
        return True

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        given = {"progressToken": "tok\u00fcn", "traceparent": TRACE, "tracestate": "a=1"}
        body = proxies.request("tools/call", {"name": "query", "arguments": {}, "_meta": given}, id_="i")
        told = await world.ask(body, **await ground.agent(world, modern=modern))
        progress, answer = told.messages
        assert progress["params"] == {"progressToken": "tok\u00fcn", "progress": 1, "total": 2}
        assert answer["result"]["_meta"] == meta
        [arrived] = stage.of("tools/call")
        sent = arrived.params["_meta"]
        assert sent["traceparent"][:35] == TRACE[:35]
        assert sent["tracestate"] == "a=1"
        assert sent["progressToken"] != "tok\u00fcn"

    ground.run(scenario, stages.Stage(era, tools=[stages.tool("query")], act=act))


@ground.both_agents
@ground.both_servers
def test_bug_11_structured_content_arrives_whole_and_the_official_client_accepts_it(
    modern: bool, era: str
) -> None:
    """IBM/mcp-context-forge#4042: lost or validated anew, "outputSchema defined but no structured output"."""
    value = {
        "content": [{"type": "text", "text": "3"}],
        "structuredContent": {"n": 3, "more": [1.5, {"$ref": "#"}]},
    }

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        async with ground.official(world, modern=modern) as client:
            await client.list_tools()
            result = await client.call_tool("query", {})
            assert result.structured_content == value["structuredContent"]

    ground.run(scenario, saying(value, outputSchema=SCHEMA, era=era))


@ground.both_agents
def test_bug_12_an_error_is_shown_though_its_structured_content_does_not_conform(modern: bool) -> None:
    """cyanheads/git-mcp-server#40, HexSleeves/tailscale-mcp PR 101: the client's complaint hid the real error."""
    value = {"content": [{"type": "text", "text": "no such deal"}], "isError": True}

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        async with ground.official(world, modern=modern) as client:
            await client.list_tools()
            result = await client.call_tool("query", {})
            assert result.is_error
            assert result.content[0].text == "no such deal"

    ground.run(scenario, saying(value, outputSchema=SCHEMA))


@ground.both_agents
def test_bug_12_a_refusal_of_a_tool_with_an_output_schema_is_read_by_the_official_client(
    modern: bool,
) -> None:
    """The same bug, in what we say ourselves: a refusal never has structuredContent."""

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        world.apply(
            proxies.a_view(
                None, testing.allow(), testing.deny("query", name="d", message="Ask the deal desk."),
                endpoint={"url": stage.url},
            )
        )  # fmt: skip
        async with ground.official(world, modern=modern) as client:
            result = await client.call_tool("query", {})
            assert result.is_error
            assert result.structured_content is None

    ground.run(
        scenario, stages.Stage(tools=[stages.tool("query", outputSchema=SCHEMA), stages.tool("other")])
    )


@ground.both_agents
@pytest.mark.parametrize("kind", ["image", "audio", "resource", "resource_link", "text"])
def test_bug_11_every_kind_of_content_arrives_byte_for_byte(modern: bool, kind: str) -> None:
    """The same bug in general: proxies that rebuild results from models lose what their models do not know."""
    part = {
        "image": {"type": "image", "data": "AAAA", "mimeType": "image/png", "vendor": 1.0},
        "audio": {"type": "audio", "data": "AAAA", "mimeType": "audio/wav"},
        "resource": {
            "type": "resource",
            "resource": {"uri": "note://x", "text": "\u00fc", "_meta": {"a": 1}},
        },
        "resource_link": {"type": "resource_link", "uri": "note://x", "name": "x", "size": 12345678901234567},
        "text": {"type": "text", "text": "\u2028", "annotations": {"audience": ["user"], "priority": 0.10}},
    }[kind]

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        told = await world.call("query", **await ground.agent(world, modern=modern))
        assert json.dumps(part).encode() in told.body

    ground.run(scenario, saying({"content": [part]}))
