# SPDX-License-Identifier: Apache-2.0
"""R18 and R23: what belongs to somebody else looks unknown: cursors and states."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from typing import Any

import pytest
from tests import proxies
from tests.field_bugs import ground
from tests.servers import mcp, stages

from outrider import call
from outrider_sidecar import states

FORM = {
    "method": "elicitation/create",
    "params": {"mode": "form", "message": "?", "requestedSchema": {"type": "object", "properties": {}}},
}
ELICITS = {"elicitation": {"form": {}}}
CAPABLE = {"_meta": {stages.mcp_key("clientCapabilities"): ELICITS}}


def asks(*, rounds: int = 1) -> stages.Stage:
    """A stage of the stateless era whose tool asks so many times, with a state that counts, before it answers."""

    async def act(line: mcp.Line, heard: stages.Heard) -> bool:
        if heard.method != "tools/call":
            return False
        number = int(heard.params.get("requestState") or "0")
        if number >= rounds:
            await line.json(stages.result(heard, stages.text(json.dumps(heard.params.get("inputResponses")))))
            return True
        value = {
            "resultType": "input_required",
            "inputRequests": {"a": FORM},
            "requestState": str(number + 1),
        }
        await line.json({"jsonrpc": "2.0", "id": heard.id, "result": value})
        return True

    return stages.Stage("modern", tools=[stages.tool("query"), stages.tool("other")], act=act)


def again(state: Any, tool: str = "query", arguments: Any = None, **more: Any) -> dict[str, Any]:
    params = {
        "name": tool,
        "arguments": arguments or {},
        "requestState": state,
        "inputResponses": {"a": {"action": "accept"}},
    }
    return proxies.request("tools/call", {**params, **CAPABLE, **more}, id_="again")


def a_call(tool: str = "query", arguments: Any = None) -> dict[str, Any]:
    return proxies.request("tools/call", {"name": tool, "arguments": arguments or {}, **CAPABLE}, id_="first")


def forged(principal: str, *, key: bytes = proxies.KEY, tool: str = "query") -> str:
    made = states.States(key, entropy=os.urandom, wall=time.time)
    subject = call.Call(proxies.API, tool, {})
    text = made.seal(subject, principal=principal, upstream="1", after=None, request="r")
    assert text is not None
    return text


def is_unknown(told: proxies.Told) -> bool:
    """Answered as what nobody ever gave out."""
    return told.status == 200 and ("error" in told.last or bool(told.result.get("isError")))


def test_a_state_goes_on_with_its_call_once_and_with_nothing_else() -> None:
    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        first = await world.ask(a_call(arguments={"n": 1}))
        assert first.result["resultType"] == "input_required"
        state = first.result["requestState"]
        assert state != "1"
        before = len(stage.of("tools/call"))
        for body in (
            again(state, "other", {"n": 1}), again(state, "query", {"n": 2}), again(state, "query", {}),
            again(state[:-3] + "AAA", arguments={"n": 1}), again("1", arguments={"n": 1}), again("", arguments={"n": 1}),
            again(state.upper(), arguments={"n": 1}), again({"a": 1}, arguments={"n": 1}), again(state + "=", arguments={"n": 1}),
        ):  # fmt: skip
            told = await world.ask(body)
            assert is_unknown(told), (body, told)
        assert len(stage.of("tools/call")) == before, "nothing of it arrived"
        told = await world.ask(again(state, arguments={"n": 1}))
        assert json.loads(told.text) == {"a": {"action": "accept"}}
        assert is_unknown(await world.ask(again(state, arguments={"n": 1}))), "and not a second time"
        assert [each.params.get("requestState") for each in stage.of("tools/call")] == [None, "1"]

    ground.run(scenario, asks())


@pytest.mark.parametrize("whose", ["other/bot", "crm/robot", ""])
def test_a_state_of_another_principal_or_under_another_key_looks_unknown(whose: str) -> None:
    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        await world.ask(a_call())
        before = len(stage.of("tools/call"))
        for text in (forged(whose), forged("crm/bot", key=bytes(32)), forged("crm/bot", tool="other")):
            told = await world.ask(again(text))
            assert is_unknown(told), told
        assert len(stage.of("tools/call")) == before

    ground.run(scenario, asks())


def test_a_server_that_asks_without_end_is_stopped_after_five_rounds() -> None:
    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        told = await world.ask(a_call())
        for _ in range(20):
            if told.result.get("resultType") != "input_required":
                break
            told = await world.ask(again(told.result["requestState"]))
        assert told.result["isError"]
        assert len(stage.of("tools/call")) <= 7

    ground.run(scenario, asks(rounds=1_000))


def test_a_cursor_is_good_for_the_list_it_was_given_with_and_for_no_other() -> None:
    async def scenario(world: proxies.World, one: stages.Stage, two: stages.Stage) -> None:
        lists = ("tools/list", "prompts/list", "resources/list", "resources/templates/list")
        cursor = (await world.ask(proxies.request("tools/list"))).result["nextCursor"]
        for path in (proxies.PATH, "/crm/other/mcp", "/mcp"):
            for method in lists:
                if (path, method) == (proxies.PATH, "tools/list"):
                    continue
                told = await world.ask(proxies.request(method, {"cursor": cursor}), path=path)
                assert told.last["error"]["code"] == -32602, (path, method)
        for bad in (cursor[:-2], cursor + "A", "", "0", "MTAwMA==", 5, None, {"a": 1}, "x" * 5_000):
            told = await world.ask(proxies.request("tools/list", {"cursor": bad}))
            assert told.status == 200
            assert ("error" in told.last) == (bad is not None), bad

    names = [stages.tool(f"t{n}") for n in range(1_001)]
    ground.run(scenario, stages.Stage(tools=names), stages.Stage(tools=names))


def test_an_answer_in_instalments_is_taken_up_by_nobody_but_its_own_session() -> None:
    go_on = asyncio.Event()

    async def act(line: mcp.Line, heard: stages.Heard) -> bool:
        if heard.verb == "GET" and heard.headers.get("last-event-id") == "place":
            await go_on.wait()
            await line.events()
            kept = stage.of("tools/call")[-1]
            await line.event(stages.answer(stage, kept))
            await line.over()
            return True
        if heard.method != "tools/call":
            return False
        await line.events()
        frame = b"id: place\nretry: 50\ndata:\n\n"
        line.writer.write(b"%x\r\n%b\r\n" % (len(frame), frame))
        await line.over()
        return True

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        mine, other = await ground.agent(world, modern=False), await ground.agent(world, modern=False)
        told = await world.call("query", {"whose": "mine"}, **mine)
        assert told.messages == []
        last = re.findall(rb"^id: (\S+)", told.body, re.MULTILINE)[-1].decode()
        head = {"mcp-protocol-version": "2025-11-25", "accept": "text/event-stream", "last-event-id": last}
        token = last.partition(".")[0]
        tricks = [
            (other, last),
            (mine, f"{token[:-1]}X.0"),
            (mine, f"{token}.99999999999"),
            (mine, "place"),
            (other, f"{token}.0"),
        ]
        strangers = []
        for options, place in tricks:
            asked = head | {"mcp-session-id": options["session"], "last-event-id": place}
            strangers.append(await world.send("GET", proxies.PATH, b"", asked))
            assert (await strangers[-1].head())[0] == 200
        right = await world.send("GET", proxies.PATH, b"", head | {"mcp-session-id": mine["session"]})
        await right.head()
        go_on.set()
        [answer] = [each async for each in ground.messages(right, seconds=5.0)]
        assert json.loads(answer["result"]["content"][0]["text"])["arguments"] == {"whose": "mine"}
        for asking in strangers:
            assert [each async for each in ground.messages(asking, seconds=0.3)] == []
            asking.leave()
        right.leave()

    stage = stages.Stage("legacy", tools=[stages.tool("query")], act=act)
    ground.run(scenario, stage)
