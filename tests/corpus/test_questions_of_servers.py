# SPDX-License-Identifier: Apache-2.0
"""R18, R22 and R23 for what servers ask: nobody answers for another session, and nobody is asked without end."""

from __future__ import annotations

import asyncio
from typing import Any

from tests import proxies
from tests.field_bugs import ground
from tests.servers import mcp, stages

from outrider import snapshot


def asking_server(asked: list[Any], said: list[Any]) -> stages.Stage:
    """A stage of the handshake era that asks these ids for samples at once, and keeps what it is answered."""

    async def act(line: mcp.Line, heard: stages.Heard) -> bool:
        if heard.verb == "POST" and heard.body is not None and not heard.method:
            said.append(heard.body)
            return False
        if heard.method != "tools/call":
            return False
        await line.events()
        for id_ in asked:
            params = {"messages": [], "maxTokens": 1}
            await line.event(
                {"jsonrpc": "2.0", "id": id_, "method": "sampling/createMessage", "params": params}
            )
        async with asyncio.timeout(10):
            while len(said) < len([id_ for id_ in asked if isinstance(id_, str | int)]):
                await asyncio.sleep(0.01)
        await line.event(stages.result(heard, stages.text("done")))
        await line.over()
        return True

    return stages.Stage("legacy", tools=[stages.tool("query")], act=act, asked=asked)


def test_a_question_is_answered_by_nobody_but_the_session_that_was_asked_and_once() -> None:
    said: list[Any] = []

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        mine, other = await world.open_session(sampling={}), await world.open_session(sampling={})
        asking = await world.calling("query", modern=False, session=mine)
        await asking.head()
        asked = await anext(ground.messages(asking))
        answers = {"role": "assistant", "content": {"type": "text", "text": "not mine"}, "model": "m"}
        for session in (other, None):
            for id_ in (asked["id"], str(asked["id"]), "q", 1, 0):
                reply = {"jsonrpc": "2.0", "id": id_, "result": answers}
                assert (await world.ask(reply, modern=False, session=session)).status == 202
        assert said == []
        for words in ("first", "second"):
            right = {"jsonrpc": "2.0", "id": asked["id"], "result": {**answers, "model": words}}
            assert (await world.ask(right, modern=False, session=mine)).status == 202
        await stage.until(lambda: said)
        await world.settled()
        assert [(each["id"], each["result"]["model"]) for each in said] == [("q", "first")]
        asking.leave()

    ground.run(scenario, asking_server(["q"], said), features=snapshot.ClientFeatures(sampling=True))


def test_a_server_that_asks_a_thousand_things_or_with_ids_that_are_none_ends_its_own_call_only() -> None:
    said: list[Any] = []
    ids: list[Any] = [None, 1.5, {"a": 1}, [], True, "x" * 100_000, *range(1_000)]

    async def scenario(world: proxies.World, stage: stages.Stage) -> None:
        mine = await world.open_session(sampling={})
        asking = await world.calling("query", modern=False, session=mine)
        await asking.head()
        heard = [each async for each in ground.messages(asking, seconds=3.0)]
        assert len([each for each in heard if each.get("method") == "sampling/createMessage"]) <= 64
        asking.leave()
        assert (await world.ask(proxies.request("ping"), modern=False, session=mine)).result == {}
        note = proxies.request("notifications/cancelled", {"requestId": 1}, id_=None)
        await world.ask(note, modern=False, session=mine)
        await world.settled()

    ground.run(scenario, asking_server(ids, said), features=snapshot.ClientFeatures(sampling=True))
