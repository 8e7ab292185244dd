# SPDX-License-Identifier: Apache-2.0
"""Servers of the handshake era that ask in the middle of a call, and agents of both eras."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from tests import proxies
from tests.scenarios import people
from tests.scenarios.people import (
    EVERY_KIND,
    EVERYTHING,
    ONCE,
    Person,
    asked,
    charged,
    client,
    proxied,
    run,
    text,
    through,
    worded,
)  # fmt: skip
from tests.servers import stages

from outrider import snapshot

pytestmark = pytest.mark.slow

dual, stateless = people.dual, people.stateless


# Servers of the handshake era -------------------------------------------------------------------------------------------

MID_CALL = {
    "test_sampling": ({"prompt": "Capital of France?"}, "LLM response: Paris", "sampling/createMessage"),
    "test_elicitation": (
        {"message": "Yes?"}, 'User response: action=accept, content={"response": "yes"}', "elicitation/create",
    ),
}  # fmt: skip
ASIDE = {"test_roots": ({}, "file:///work", "roots/list")}
"""Asked on the server's own stream, not on that of the call."""


@pytest.mark.parametrize("tool", [*MID_CALL, "test_roots"])
def test_a_server_of_the_handshake_era_asks_its_agent_in_the_middle_of_the_call(
    dual: str, tmp_path: pathlib.Path, tool: str
) -> None:
    arguments, answer, method = (MID_CALL | ASIDE)[tool]

    async def scenario() -> None:
        direct, there = Person(), Person()
        async with client(dual, direct, modern=False) as session:
            assert text(await session.call_tool(tool, arguments)) == answer
        async with proxied(tmp_path, dual) as world:
            token = proxies.TOKEN.decode()
            async with client(through(world), there, modern=False, token=token) as session:
                assert text(await session.call_tool(tool, arguments)) == answer
            assert [each[0] for each in there.asked] == [method]
            assert worded(there) == worded(direct)
            call, ask = (each for each in world.intents if each.method in ("tools/call", method))
            within = (call.request_id, tool) if tool in MID_CALL else (ask.request_id, "")
            assert (ask.request_id, ask.tool) == within

    run(scenario())


def test_what_a_server_may_ask_aside_is_what_is_in_force_now(dual: str, tmp_path: pathlib.Path) -> None:
    """Its session goes on, with what was declared when it was opened."""

    async def scenario() -> None:
        person = Person()
        async with proxied(tmp_path, dual) as world:
            token = proxies.TOKEN.decode()
            async with client(through(world), person, modern=False, token=token) as session:
                assert "file:///work" in text(await session.call_tool("test_roots", {}))
                view = proxies.a_view(
                    None, EVERY_KIND, endpoint={"url": dual}, features=snapshot.ClientFeatures()
                )
                world.apply(view)
                assert "file:///work" not in text(await session.call_tool("test_roots", {}))
                assert len(person.asked) == 1

    run(scenario())


@pytest.mark.parametrize(
    ("tool", "words"),
    [("test_sampling", "the server's entry does not allow sampling")],
)
def test_what_the_entry_does_not_allow_a_server_of_the_handshake_era_is_told_and_its_agent_is_not_asked(
    dual: str, tmp_path: pathlib.Path, tool: str, words: str
) -> None:
    async def scenario() -> None:
        person = Person()
        async with (
            proxied(tmp_path, dual, features=snapshot.ClientFeatures()) as world,
            client(through(world), person, modern=False, token=proxies.TOKEN.decode()) as session,
        ):
            told = await session.call_tool(tool, MID_CALL[tool][0])
            assert words in text(told)
            assert person.asked == []

    run(scenario())


@pytest.mark.parametrize("tool", MID_CALL)
def test_an_agent_of_the_stateless_era_cannot_be_asked_by_a_server_of_the_handshake_era(
    dual: str, tmp_path: pathlib.Path, tool: str
) -> None:
    arguments, _, method = MID_CALL[tool]

    async def scenario() -> None:
        person = Person()
        handshake = {"url": dual, "protocol": "2025-11-25"}
        async with proxies.running(tmp_path) as world:
            world.apply(proxies.a_view(None, EVERY_KIND, endpoint=handshake, features=EVERYTHING))
            token = proxies.TOKEN.decode()
            async with client(through(world), person, modern=True, token=token) as session:
                told = await session.call_tool(tool, arguments)
                assert "its client cannot be asked in the middle of a call" in text(told)
                assert person.asked == []
            refused = [(each.reason, each.method) for each in world.refusals]
            assert refused == [("AskRefused", method)]

    run(scenario())


def test_a_call_that_fails_for_want_of_an_answer_says_what_was_asked(tmp_path: pathlib.Path) -> None:
    async def act(line: Any, heard: stages.Heard) -> bool:
        if heard.method != "tools/call":
            return False
        ask = {"jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage", "params": {"messages": []}}
        await line.events()
        await line.event(ask)
        told = {"jsonrpc": "2.0", "id": heard.id}
        await stage.until(lambda: [each for each in stage.heard if each.id == "q"])
        await line.event(
            {**told, "result": {"isError": True, "content": [{"type": "text", "text": "gave up"}]}}
        )
        await line.over()
        return True

    stage = stages.Stage(era="legacy", tools=[stages.tool("t")], act=act)

    async def scenario() -> None:
        async with stages.playing(stage), proxied(tmp_path, stage.url) as world:
            told = await world.call("t")
            assert told.reason == "AskRefused"
            assert "sampling/createMessage" in told.text
            (answer,) = [each.body for each in stage.heard if each.id == "q"]
            assert answer["error"]["code"] == -32601

    run(scenario())


ADDRESS = "https://login.example.com/connect?x=1"


@pytest.mark.parametrize("hosts", [("login.example.com",), ()])
@pytest.mark.parametrize("modern", [True, False])
def test_an_error_that_sends_people_to_an_address_goes_where_they_may_be_sent(
    tmp_path: pathlib.Path, hosts: tuple[str, ...], *, modern: bool
) -> None:
    visit = {"mode": "url", "elicitationId": "e1", "url": ADDRESS, "message": "Sign in"}

    async def act(line: Any, heard: stages.Heard) -> bool:
        if heard.method != "tools/call" or len(stage.of("tools/call")) > 1:
            return False
        error = {"code": -32042, "message": "Sign in first", "data": {"elicitations": [visit]}}
        await line.json({"jsonrpc": "2.0", "id": heard.id, "error": error})
        return True

    stage = stages.Stage(era="legacy", tools=[stages.tool("t")], act=act)
    features = snapshot.ClientFeatures(elicitation_url_hosts=hosts)
    declared = {"elicitation": {"url": {}}}

    async def scenario() -> None:
        async with (
            stages.playing(stage),
            proxied(tmp_path, stage.url, features=features, limits=ONCE) as world,
        ):
            if not modern:
                session = await world.open_session(**declared)
                told = await world.call("t", modern=False, session=session)
                assert (told.last.get("error", {}).get("code") == -32042) is bool(hosts)
                assert (told.reason == "AskRefused") is not bool(hosts)
                return
            meta = {"io.modelcontextprotocol/clientCapabilities": declared}
            told = await asked(world, "t", _meta=meta)
            if not hosts:
                assert told.reason == "AskRefused"
                return
            (key, ask), *_ = told.result["inputRequests"].items()
            assert ask["params"]["url"] == ADDRESS
            done = await asked(
                world, "t", _meta=meta, inputResponses={key: {"action": "accept"}},
                requestState=told.result["requestState"],
            )  # fmt: skip
            assert done.reason is None
            assert charged(world) == 1
            again = stage.of("tools/call")[1]
            assert not {"inputResponses", "requestState"} & set(again.params)

    run(scenario())
