# SPDX-License-Identifier: Apache-2.0
"""Field bug 4: what servers ask of clients in the middle of a call, and what clients answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from mcp import types
from tests import proxies
from tests.field_bugs import ground
from tests.servers import mcp, stages

from outrider import snapshot

SAMPLING = snapshot.ClientFeatures(sampling=True, roots=True)


def asking_stage(*ids: Any) -> tuple[stages.Stage, list[Any]]:
    """A stage of the handshake era whose tool asks its client once for each id before it answers."""
    answered: list[Any] = []
    arrived = asyncio.Event()

    async def act(line: mcp.Line, heard: stages.Heard) -> bool:
        if heard.verb == "POST" and heard.body is not None and not heard.method:
            answered.append(heard.body)
            arrived.set()
            return False
        if heard.method != "tools/call":
            return False
        await line.events()
        for id_ in ids:
            arrived.clear()
            asked = {"messages": [], "maxTokens": 5}
            await line.event(
                {"jsonrpc": "2.0", "id": id_, "method": "sampling/createMessage", "params": asked}
            )
            await arrived.wait()
        await line.event(stages.result(heard, stages.text(json.dumps(answered))))
        await line.over()
        return True

    return stages.Stage("legacy", tools=[stages.tool("query")], act=act, asked=list(ids)), answered


@pytest.mark.parametrize("ids", [("q",), (7,), (0, "0", "")], ids=str)
def test_bug_04_what_a_client_posts_as_its_answer_reaches_the_server_and_the_call_ends(
    ids: tuple[Any, ...],
) -> None:
    """agentgateway/agentgateway#2838: 500 "unsupported message type", and the call hung."""
    stage, answered = asking_stage(*ids)

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        session = await world.open_session(sampling={})
        asking = await world.calling("query", modern=False, session=session)
        assert (await asking.head())[1]["content-type"] == "text/event-stream"
        said = ground.messages(asking)
        for number in range(len(ids)):
            asked = await anext(said)
            assert asked["method"] == "sampling/createMessage"
            reply = {"jsonrpc": "2.0", "id": asked["id"], "result": {"role": "assistant", "n": number}}
            told = await world.ask(reply, modern=False, session=session)
            assert (told.status, told.body) == (202, b"")
        last = await anext(said)
        assert last["result"]["content"][0]["text"] == json.dumps(answered)
        assert [(type(each["id"]), each["id"]) for each in answered] == [(type(id_), id_) for id_ in ids]
        assert [each["result"]["n"] for each in answered] == list(range(len(ids)))
        await world.settled()

    ground.run(scenario, stage, features=SAMPLING)
    assert answered


def test_bug_04_the_official_client_answers_a_servers_question_in_the_middle_of_its_call() -> None:
    """The same bug with the client that had it."""

    stage, answered = asking_stage("q")

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        async def sample(_context: Any, _params: Any) -> types.CreateMessageResult:
            content = types.TextContent(type="text", text="hello")
            return types.CreateMessageResult(role="assistant", content=content, model="m")

        async with ground.official(world, modern=False, sampling_callback=sample) as client:
            result = await client.call_tool("query", {})
            assert "hello" in result.content[0].text

    ground.run(scenario, stage, features=SAMPLING)
    assert [each["id"] for each in answered] == ["q"]
