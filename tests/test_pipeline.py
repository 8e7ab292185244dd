# SPDX-License-Identifier: Apache-2.0
"""Every row of "How an answer looks", asked of a real door: statuses, codes, reasons, and what nobody can tell apart."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests import proxies
from tests.servers import mcp

from outrider import names, snapshot, testing

both_agents = pytest.mark.parametrize("modern", [True, False], ids=["modern-agent", "legacy-agent"])
OTHER = names.ServerId("crm", "other")


# At the door -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["", "Bearer", "Bearer wrong", "Basic YTpi", "Bearer agent-token2"])
def test_a_caller_without_the_token_is_told_where_it_is(token: str) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        told = await world.call("echo", authorization=token)
        assert told.status == 401
        assert b"read /etc/outrider/mcp.json" in told.body
        assert "resource_metadata" not in told.headers["www-authenticate"]
        assert peer.seen == []
        assert [each.reason for each in world.refusals] == ["LocalAuthRefused"]
        assert world.refusals[0].principal is None

    proxies.run(scenario)


@pytest.mark.parametrize(
    "headers",
    [{"host": "evil.example"}, {"origin": "null"}, {"origin": "https://evil.example"}, {"host": "localhost.evil.example"}],
)  # fmt: skip
def test_a_foreign_host_or_origin_is_forbidden_and_told_how_to_dial(headers: dict[str, str]) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        told = await world.call("echo", **headers)
        assert told.status == 403
        assert b"127.0.0.1 or localhost with its port" in told.body
        assert b"evil" not in told.body
        assert [each.reason for each in world.refusals] == ["HostRefused"]

    proxies.run(scenario)


@both_agents
@pytest.mark.parametrize("method", ["tools/call", "tools/list", "server/discover", "initialize", "x/y"])
def test_unknown_and_hidden_servers_and_paths_are_the_same_plain_404(modern: bool, method: str) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        hidden = proxies.a_view(peer, testing.deny(), id=OTHER)
        world.apply(proxies.a_view(peer), hidden)
        params = {"name": "echo"} if method == "tools/call" else {}
        asked = proxies.request(method, params)
        told = [
            await world.ask(asked, path=path, modern=modern) for path in ("/crm/other/mcp", "/crm/nobody/mcp")
        ]
        assert {each.status for each in told} == {404}
        assert {each.body for each in told} == {b"not found\n"}
        strip = [{k: v for k, v in each.headers.items() if k != "date"} for each in told]
        assert strip[0] == strip[1]
        assert (await world.ask(asked, path="/nowhere", modern=modern)).body == b"not found\n"
        assert {each.reason for each in world.refusals} <= {"ServerUnknown"}

    proxies.run(scenario)


@pytest.mark.parametrize("verb", ["GET", "PUT", "PATCH", "OPTIONS", "HEAD"])
def test_other_verbs_are_not_allowed(verb: str) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        asking = await world.send(verb, proxies.PATH, b"", {})
        status, headers = await asking.head()
        asking.leave()
        assert (status, headers["allow"]) == (405, "POST" if verb == "GET" else "GET, POST, DELETE")

    proxies.run(scenario)


def test_what_is_no_request_is_malformed_and_audited() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        for body, kind, status, code in (
            (b"{", "application/json", 400, -32700),
            (b"[]", "application/json", 400, -32600),
            (b"{}", "text/plain", 415, -32600),
        ):
            told = await (await world.send("POST", proxies.PATH, body, {"content-type": kind})).answer()
            assert (told.status, told.last["error"]["code"], told.last["id"]) == (status, code, None)
        assert [each.reason for each in world.refusals] == ["MalformedRequest"] * 3

    proxies.run(scenario)


def test_an_error_about_headers_names_the_request_it_is_about() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        told = await world.call("echo", id_="q", mcp_name="hangs")
        assert (told.status, told.last["id"], told.last["error"]["code"]) == (400, "q", -32020)
        assert peer.calls == []
        unspoken = await world.ask(
            proxies.request("tools/list"), modern=False, mcp_protocol_version="2024-11-05"
        )
        assert (unspoken.status, unspoken.last["error"]["code"]) == (400, -32022)
        assert unspoken.last["error"]["data"] == {"supported": ["2026-07-28"], "requested": "2024-11-05"}

    proxies.run(scenario)


def test_a_notification_and_a_response_are_taken_and_mean_nothing() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        for body in (
            proxies.request("notifications/initialized", id_=None),
            proxies.request("notifications/x", {"a": 1}, id_=None),
            {"jsonrpc": "2.0", "id": 5, "result": {}},
        ):
            told = await world.ask(body, modern=False)
            assert (told.status, told.body) == (202, b"")
        assert peer.seen == []

    proxies.run(scenario)


# Before there is a configuration ----------------------------------------------------------------------------------------


@both_agents
@pytest.mark.parametrize("path", [proxies.PATH, "/mcp", "/x/y/mcp"])
def test_before_a_configuration_everything_is_not_ready_and_nothing_is_unknown(
    modern: bool, path: str
) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        session = None if modern else await world.open_session(path="/mcp")
        world.current.bound = None
        options: dict[str, Any] = {"path": path, "modern": modern}
        if path == "/mcp":
            options["session"] = session  # it was opened by an earlier life: a 404 would end it for good
        called = await world.call("echo", **options)
        assert (called.status, called.reason, called.result["isError"]) == (200, "NotReady", True)
        listed = await world.ask(proxies.request("tools/list"), **options)
        assert (listed.status, listed.last["error"]["code"], listed.reason) == (200, 403, "NotReady")
        world.apply(proxies.a_view(peer))

    proxies.run(scenario)


# Names ------------------------------------------------------------------------------------------------------------------


@both_agents
@pytest.mark.parametrize("path", [proxies.PATH, "/mcp"])
def test_unknown_and_hidden_tools_are_told_apart_by_nothing_but_the_request_id(
    modern: bool, path: str
) -> None:
    prefix = "api__" if path == "/mcp" else ""

    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        told = []
        for tool in ("errs", "fails", "nobod", "n b", "x" * 300, ""):
            answer = await world.call(prefix + tool, {"a": 1}, modern=modern, path=path)
            assert (answer.status, answer.result["isError"]) == (200, True)
            assert answer.text == f"Unknown tool: {(prefix + tool)[:128]}"
            assert set(answer.refusal) == {"reason", "requestId"}
            assert answer.reason == "ToolUnknown"
            told.append({**answer.result, "content": None, "_meta": None})
        assert all(each == told[0] for each in told)
        assert peer.calls == []
        assert {each.visible for each in world.refusals} == {False}
        assert {each.reason for each in world.refusals} >= {"DeniedHidden", "ToolUnknown"}

    proxies.run(scenario, testing.allow(), testing.deny("errs", "FAILS"))


@both_agents
def test_a_refusal_of_policy_is_one_sentence_with_the_policy_and_the_request(modern: bool) -> None:
    rule = testing.deny("errs", message="Deals go through the desk.")

    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        told = await world.call("errs", modern=modern)
        request = told.refusal["requestId"]
        assert told.text == f"Refused by policy crm/p: Deals go through the desk. Request {request}."
        assert told.refusal == {"reason": "Denied", "requestId": request, "policy": "crm/p", "rule": "d"}
        assert "structuredContent" not in told.result
        assert (world.refusals[0].event, world.refusals[0].visible) == (request, True)
        assert peer.calls == []

    proxies.run(scenario, testing.allow(), rule)


def test_arguments_that_do_not_fit_are_not_sent_and_the_model_is_told_what_to_do() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        for arguments in ({}, {"n": "x"}, {"n": 1.5}):
            told = await world.call("echo", arguments)
            assert told.reason == "ArgumentsInvalid"
            assert "call again" in told.text
        assert peer.calls == []
        assert (await world.call("echo", {"n": 1})).reason is None

    proxies.run(scenario, peer=mcp.Peer(tools=[mcp.a_tool("echo", inputSchema=schema)]))


def test_a_used_up_budget_says_when_to_come_back() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        assert (await world.call("echo")).reason is None
        told = await world.call("echo")
        assert told.reason == "BudgetExceeded"
        assert told.refusal["retryAfterSeconds"] > 0
        assert "crm/b" in told.text
        assert len(peer.calls) == 1

    proxies.run(scenario, limits=(testing.a_limit(calls=1),))


@both_agents
def test_a_disabled_server_is_there_and_says_so_and_shows_nothing(modern: bool) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        told = await world.call("echo", modern=modern)
        assert (told.status, told.reason) == (200, "ServerDisabled")
        listed = await world.ask(proxies.request("tools/list"), modern=modern)
        assert (listed.status, listed.result["tools"]) == (200, [])
        assert peer.seen == []

    proxies.run(scenario, lifecycle=snapshot.Lifecycle.DISABLED)


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_a_server_that_is_down_at_first_contact_is_an_outage_and_recovers(era: str) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        peer.broken = 503
        told = await world.call("echo")
        assert (told.status, told.reason) == (200, "UpstreamNotReady")
        listed = await world.ask(proxies.request("tools/list"))
        assert (listed.status, listed.last["error"]["code"]) == (200, 403)
        merged = await world.ask(proxies.request("tools/list"), path="/mcp")
        assert (merged.status, merged.result["tools"]) == (200, [])
        peer.broken = 0
        world.lists._entries.clear()  # rather than waiting for the two seconds of its retry
        assert (await world.call("echo")).reason is None

    proxies.run(scenario, era=era)


# Methods ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("modern", "method", "status"),
    [
        (True, "tasks/list", 404), (True, "initialize", 404), (True, "ping", 404), (True, "Tools/Call", 404),
        (False, "tasks/list", 200), (False, "server/discover", 200),
    ],
)  # fmt: skip
def test_a_method_that_is_not_relayed_is_unknown(modern: bool, method: str, status: int) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        told = await world.ask(proxies.request(method), modern=modern)
        assert (told.status, told.last["error"]["code"]) == (status, -32601)
        assert not [seen for seen in peer.seen if seen.method == method != "server/discover"]
        assert world.refusals[-1].reason == "MethodUnknown"

    proxies.run(scenario)


def test_who_we_are_is_answered_truthfully_once_the_server_has_been_met() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        told = await world.ask(proxies.request("server/discover"))
        assert told.result["supportedVersions"] == [mcp.MODERN]
        assert told.result["capabilities"] == {"tools": {"listChanged": True}}
        assert told.result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "api"
        info = {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "t", "version": "1"},
        }
        greeted = await world.ask(proxies.request("initialize", info), modern=False)
        assert greeted.result["protocolVersion"] == "2025-06-18"
        assert greeted.headers["mcp-session-id"]
        assert (await world.ask(proxies.request("ping"), modern=False)).result == {}
        assert [seen.method for seen in peer.seen] == ["server/discover", "tools/list"]  # once, for everybody

    proxies.run(scenario)


# Load -------------------------------------------------------------------------------------------------------------------


def test_one_call_too_many_is_overloaded_and_later_fits_again() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        await world.call("echo")
        first = await world.calling("waits")
        await peer.called.wait()
        told = await world.call("echo")
        assert (told.reason, told.refusal["retryAfterSeconds"]) == ("Overloaded", 1)
        peer.go_on.set()
        await first.answer()
        assert (await world.call("echo")).reason is None

    proxies.run(scenario, calls_max=1)


def test_the_journal_tells_the_same_story_as_the_agent() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        told = await world.call("nobody", {"a": 1})
        (record,) = world.refusals
        assert told.refusal["requestId"] == record.event == record.request_id
        assert (record.tool, record.server, record.era) == ("nobody", "crm/api", mcp.MODERN)
        assert record.principal is not None
        assert record.principal.workload == "crm/bot"
        assert record.arguments is not None
        assert json.loads(record.arguments.content) == {"a": 1}

    proxies.run(scenario)
