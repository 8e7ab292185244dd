# SPDX-License-Identifier: Apache-2.0
"""One permitted call, between both eras on both legs, with everything real."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests import proxies
from tests.servers import mcp

from outrider import audit, budgets, testing

ERAS = ["modern", "legacy", "sessionless"]
both_agents = pytest.mark.parametrize("modern", [True, False], ids=["modern-agent", "legacy-agent"])
all_peers = pytest.mark.parametrize("era", ERAS)


@all_peers
@both_agents
def test_a_call_passes_between_any_two_eras(era: str, modern: bool) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        told = await world.call("echo", {"a": [1, "é"]}, modern=modern)
        assert told.status == 200
        assert json.loads(told.text) == {"a": [1, "é"]}
        assert set(told.last) == {"jsonrpc", "id", "result"}
        assert told.result.get("resultType") == ("complete" if modern else None)
        (outcome,) = world.outcomes
        assert (outcome.status, outcome.reason, outcome.http_status) == (
            audit.Status.COMPLETED,
            "Allowed",
            200,
        )
        assert world.intents[0].era == (mcp.MODERN if modern else mcp.LEGACY)

    proxies.run(scenario, era=era)


@all_peers
@both_agents
@pytest.mark.parametrize("id_", [0, 7, "7", "x y", 2**60])
def test_an_id_comes_back_with_its_type_and_never_reaches_the_server(
    era: str, modern: bool, id_: Any
) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        told = await world.call("echo", id_=id_, modern=modern)
        assert (told.last["id"], type(told.last["id"])) == (id_, type(id_))
        assert all(isinstance(seen.body["id"], int) for seen in peer.calls)
        assert len({seen.body["id"] for seen in peer.seen if seen.body and "id" in seen.body}) == sum(
            "id" in (seen.body or {}) for seen in peer.seen
        )

    proxies.run(scenario, era=era)


@all_peers
def test_arguments_reach_the_server_byte_for_byte(era: str) -> None:
    raw = b'{ "b":1.50, "a" :[ 1e2,"\\u00e9\\/"], "big":123456789012345678901234567890 }'
    meta = json.dumps(proxies.META).encode()
    body = (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":%b,"_meta":%b}}'
    )
    head = {
        "content-type": "application/json", "mcp-protocol-version": mcp.MODERN, "mcp-method": "tools/call",
        "mcp-name": "echo",
    }  # fmt: skip

    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        asking = await world.send("POST", proxies.PATH, body % (raw, meta), head)
        assert (await asking.answer()).status == 200
        assert b'"arguments":' + raw in peer.calls[0].raw

    proxies.run(scenario, era=era)


@pytest.mark.parametrize("arguments", [b"null", b""])
def test_null_arguments_are_sent_as_none(arguments: bytes) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        member = b',"arguments":' + arguments if arguments else b""
        body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"%b}}' % member
        asking = await world.send("POST", proxies.PATH, body, {"content-type": "application/json"})
        assert (await asking.answer()).text == "null"
        assert "arguments" not in peer.calls[0].body["params"]

    proxies.run(scenario)


@all_peers
@both_agents
def test_what_nobody_knows_in_a_result_survives_byte_for_byte(era: str, modern: bool) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        told = await world.call("odd", modern=modern)
        for raw in (
            b'[ {"type":"text","text":"\\u00e9","annotations":{"x":1.50}} ]',
            b'{"big":12345678901234567890,"$defs":{}}', b'"_meta":{"com.example/x":[1]}', b'"future":null',
        ):  # fmt: skip
            assert raw in told.body
        assert (b'"resultType":"complete"' in told.body) is modern

    proxies.run(scenario, era=era)


@all_peers
@both_agents
def test_a_tool_error_and_a_server_error_come_back_as_they_are(era: str, modern: bool) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        failed = await world.call("fails", modern=modern)
        assert (failed.status, failed.result["isError"], failed.text) == (200, True, "no such deal")
        assert failed.refusal is None
        erred = await world.call("errs", modern=modern)
        assert (erred.status, erred.last["error"]) == (
            200,
            {"code": -32050, "message": "busy", "data": {"x": 1}},
        )
        assert [each.reason for each in world.outcomes] == ["ToolError", "UpstreamError"]

    proxies.run(scenario, era=era)


@all_peers
@both_agents
def test_a_stream_with_one_answer_is_an_answer(era: str, modern: bool) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        told = await world.call("quiet_stream", modern=modern)
        assert told.headers["content-type"] == "application/json"
        assert told.text == "done"

    proxies.run(scenario, era=era)


@all_peers
@both_agents
def test_a_stream_that_stays_open_behind_its_answer_keeps_nobody_waiting(era: str, modern: bool) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        told = await world.call("open_stream", modern=modern)
        assert told.text == "done"
        await peer.left.wait()
        assert (world.outcomes[0].reason, world.outcomes[0].status) == ("Allowed", audit.Status.COMPLETED)
        assert world.outcomes[0].upstream_micros < 5_000_000  # the deadline is 50 s

    proxies.run(scenario, era=era)


@all_peers
@both_agents
@pytest.mark.parametrize("token", [9, "9", "tok en"])
def test_progress_arrives_during_the_call_under_the_agents_own_token(
    era: str, modern: bool, token: Any
) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        asking = await world.calling("streams", token=token, modern=modern, id_="a")
        status, headers = await asking.head()
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        first = await asking.chunk()
        assert not peer.go_on.is_set()  # the server has not answered yet
        peer.go_on.set()
        rest = b""
        while chunk := await asking.chunk():
            rest += chunk
        told = proxies.parsed(status, headers, first + rest)
        *notes, answer = told.messages
        logs = [note for note in notes if note["method"] == "notifications/message"]
        assert len(logs) == (0 if modern else 1)  # in the stateless era nobody asked for them
        notes = [note for note in notes if note not in logs]
        assert [note["params"]["progress"] for note in notes] == [1, 3]
        assert {note["method"] for note in notes} == {"notifications/progress"}
        assert all(note["params"]["progressToken"] == token for note in notes)
        assert all(type(note["params"]["progressToken"]) is type(token) for note in notes)
        assert notes[0]["params"]["unknown"] == {"a": 1}
        assert (answer["id"], told.text) == ("a", "done")
        assert mcp.token_of(peer.calls[0]) == peer.calls[0].body["id"]
        asking.leave()

    proxies.run(scenario, era=era)


@all_peers
def test_without_a_token_no_progress_is_asked_for_and_none_is_passed_on(era: str) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        peer.go_on.set()
        told = await world.call("streams")
        assert (told.headers["content-type"], told.text) == ("application/json", "done")
        assert mcp.token_of(peer.calls[0]) is None

    proxies.run(scenario, era=era)


def test_an_agent_that_reads_json_only_gets_json_and_no_progress() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        peer.go_on.set()
        told = await world.call("streams", token=1, accept="application/json")
        assert (told.headers["content-type"], told.text) == ("application/json", "done")

    proxies.run(scenario)


@all_peers
def test_a_modern_agent_that_leaves_cancels_its_call(era: str) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        asking = await world.calling("waits")
        await peer.called.wait()
        asking.leave()
        await peer.left.wait()
        await world.settled()
        (outcome,) = world.outcomes
        assert (outcome.reason, outcome.status) == ("Cancelled", audit.Status.FAILED)
        if era == "modern":
            assert peer.of("notifications/cancelled") == []
        else:
            await peer.told.wait()
            (note,) = peer.of("notifications/cancelled")
            assert note.body["params"]["requestId"] == peer.calls[0].body["id"]

    proxies.run(scenario, era=era)


@all_peers
def test_a_legacy_agent_that_leaves_cancels_nothing_and_the_outcome_is_recorded(era: str) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        session = await world.open_session()
        asking = await world.calling("waits", modern=False, session=session)
        await peer.called.wait()
        asking.leave()
        assert world.parts.ledger.holds == 1
        peer.go_on.set()
        await world.settled()
        (outcome,) = world.outcomes
        assert (outcome.reason, outcome.status) == ("Allowed", audit.Status.COMPLETED)
        assert peer.of("notifications/cancelled") == []

    proxies.run(scenario, era=era)


def test_equal_requests_at_once_each_get_their_own_answer() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        askings = [
            await world.calling("echo", {"n": number}, id_=1, modern=bool(number % 2)) for number in range(40)
        ]
        told = [await each.answer() for each in askings]
        assert [json.loads(each.text)["n"] for each in told] == list(range(40))
        assert len({each.event for each in world.intents}) == 40

    proxies.run(scenario)


@pytest.mark.parametrize(
    ("on_error", "tool", "cost"),
    [
        ("Full", "echo", 3), ("Full", "fails", 3), ("PerCallOnly", "fails", 3), ("Zero", "fails", 0),
        ("Zero", "echo", 3), ("Full", "cuts", 3), ("Zero", "cuts", 0),
    ],
)  # fmt: skip
def test_units_are_settled_once_at_what_the_call_cost(on_error: str, tool: str, cost: int) -> None:
    price = budgets.Price(per_call=3 * budgets.MICRO, on_error=budgets.OnError(on_error))
    limits = (testing.a_limit(calls=10), testing.a_limit(cost=100 * budgets.MICRO, name="m"))

    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        await world.call(tool)
        await world.settled()
        spent = {row.pool.split("/")[-1][0]: row for row in world.parts.ledger.standing(0)}
        assert (spent["l"].spent, spent["l"].reserved) == (budgets.MICRO, 0)
        assert (spent["m"].spent, spent["m"].reserved) == (cost * budgets.MICRO, 0)
        (outcome,) = world.outcomes
        assert outcome.cost == cost * budgets.MICRO
        charges = {charge.pool.split("/")[-1][0]: charge.amount for charge in outcome.charges}
        assert charges == {"l": budgets.MICRO, "m": cost * budgets.MICRO}

    proxies.run(scenario, default_price=price, limits=limits)


def test_trace_context_goes_on_and_into_the_journal() -> None:
    parent = f"00-{'ab' * 16}-{'cd' * 8}-01"

    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        await world.call("echo", traceparent=parent, tracestate="a=1")
        (seen,) = peer.calls
        assert (seen.headers["traceparent"], seen.headers["tracestate"]) == (parent, "a=1")
        assert seen.body["params"]["_meta"]["traceparent"] == parent
        assert world.intents[0].trace_id == "ab" * 16

    proxies.run(scenario)


@all_peers
def test_nothing_of_an_agents_headers_crosses(era: str) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        await world.call(
            "echo", cookie="a=b", x_secret="1", last_event_id="5", mcp_param_a="x", accept_encoding="gzip"
        )
        for seen in peer.seen:
            assert not {"cookie", "x-secret", "last-event-id", "mcp-param-a", "authorization"} & set(
                seen.headers
            )
            assert seen.headers["accept-encoding"] == "identity"

    proxies.run(scenario, era=era)
