# SPDX-License-Identifier: Apache-2.0
"""Servers of the stateless era that ask, on the official SDK, and official clients of both eras that answer.

What a client gets through the proxy is what it gets from the server itself, as far as the entry allows; a round of a call is
charged once; a state goes on with its own call of its own agent, once (R22, rule 10).
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from tests import proxies
from tests.scenarios import people
from tests.scenarios.people import (
    ANSWERED,
    EVERYTHING,
    ONCE,
    TOOL,
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

from outrider import audit, bind, identity, snapshot, testing

pytestmark = pytest.mark.slow

dual, stateless = people.dual, people.stateless
STRANGER = identity.Workload(namespace="ops", service_account="else")
ROUNDS = {
    "test_input_required_result_elicitation": "Hello, Ada!",
    "test_input_required_result_sampling": "The model said: Paris",
    "test_input_required_result_list_roots": "1 root(s)",
    "test_input_required_result_request_state": "state-ok: confirmed",
    "test_input_required_result_multiple_inputs": "All inputs received.",
    "test_input_required_result_multi_round": "Ada likes blue.",
    "test_streaming_elicitation": "Hello, Ada!",
}
"""The fixture's tools that ask, and what comes of it when everything is answered."""


# Stateless agent, stateless server ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ROUNDS)
def test_a_stateless_agent_is_asked_what_it_would_be_asked_directly(
    dual: str, tmp_path: pathlib.Path, tool: str
) -> None:
    async def scenario() -> None:
        direct, there = Person(), Person()
        async with client(dual, direct, modern=True) as session:
            assert text(await session.call_tool(tool)) == ROUNDS[tool]
        async with proxied(tmp_path, dual) as world:
            token = proxies.TOKEN.decode()
            async with client(through(world), there, modern=True, token=token) as session:
                assert text(await session.call_tool(tool)) == ROUNDS[tool]
            assert [each[0] for each in there.asked] == [each[0] for each in direct.asked]
            assert worded(there) == worded(direct)
            asks = [each for each in world.intents if each.method in {each[0] for each in there.asked}]
            assert [each.method for each in asks] == [each[0] for each in there.asked]

    run(scenario())


def test_a_later_round_is_charged_to_nobody_and_points_to_the_first(
    dual: str, tmp_path: pathlib.Path
) -> None:
    async def scenario() -> None:
        async with proxied(tmp_path, dual, limits=ONCE) as world:
            first = await asked(world)
            assert first.result["resultType"] == "input_required"
            assert charged(world) == 1
            state = first.result["requestState"]
            done = await asked(world, inputResponses=ANSWERED, requestState=state)
            assert done.text == "Hello, Ada!"
            assert charged(world) == 1
            calls = [each for each in world.intents if each.method == "tools/call"]
            assert [(each.round_of, len(each.charges)) for each in calls] == [
                ("", 1),
                (calls[0].request_id, 0),
            ]
            outcomes = {each.event: each for each in world.outcomes}
            assert [outcomes[each.event].reason for each in calls] == ["InputRequired", "Allowed"]
            assert (await asked(world)).reason == "BudgetExceeded", "a call of its own is charged"

    run(scenario())


def test_a_spent_a_foreign_and_an_altered_state_look_unknown_and_reach_nobody(
    dual: str, tmp_path: pathlib.Path
) -> None:
    async def scenario() -> None:
        async with proxied(tmp_path, dual) as world:
            state = (await asked(world)).result["requestState"]
            other = (await asked(world, "test_input_required_result_tampered_state")).result["requestState"]
            before = len(world.intents)
            for wrong in (state + "-TAMPERED", other, "x", 7, {"a": 1}, ""):
                told = await asked(world, inputResponses=ANSWERED, requestState=wrong)
                assert told.last["error"]["code"] == -32602, wrong
            changed = await asked(
                world, inputResponses=ANSWERED, requestState=state, arguments={"more": "than before"}
            )
            assert changed.last["error"]["code"] == -32602
            assert len(world.intents) == before
            assert (await asked(world, inputResponses=ANSWERED, requestState=state)).text == "Hello, Ada!"
            again = await asked(world, inputResponses=ANSWERED, requestState=state)
            assert again.last["error"]["code"] == -32602
            reasons = [each.reason for each in world.refusals]
            assert reasons == ["StateUnknown"] * 8

    run(scenario())


def test_a_state_of_another_workload_looks_unknown(dual: str, tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with proxied(tmp_path / "a", dual) as world, proxied(tmp_path / "b", dual) as other:
            theirs = (await asked(other)).result["requestState"]
            moved = testing.a_snapshot(
                *(held.view for held in world.current.bound.servers.values()),
                workload=STRANGER, network=snapshot.Network(loopback=True),
            )  # fmt: skip
            world.current.swap(bind.bound(moved, world.current.definitions))
            told = await asked(world, inputResponses=ANSWERED, requestState=theirs)
            assert told.last["error"]["code"] == -32602

    run(scenario())


def test_answers_without_a_state_are_a_call_of_its_own(dual: str, tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with proxied(tmp_path, dual) as world:
            extra = {**ANSWERED, "unknown": {"action": "accept", "content": {}}}
            assert (await asked(world, inputResponses=extra)).text == "Hello, Ada!"
            again = await asked(world, inputResponses={"wrong": {"action": "cancel"}})
            assert again.result["resultType"] == "input_required"
            broken = await asked(world, inputResponses={"user_name": 12345})
            assert broken.result["resultType"] if "result" in broken.last else broken.last["error"]

    run(scenario())


def test_prompts_ask_too(dual: str, tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with proxied(tmp_path, dual) as world:
            name = "test_input_required_result_prompt"

            async def get(**params: Any) -> proxies.Told:
                body = proxies.request("prompts/get", {"name": name, **people.FORM_ONLY, **params})
                return await world.ask(body, mcp_name=name)

            first = await get()
            assert first.result["resultType"] == "input_required"
            (key,) = first.result["inputRequests"]
            answers = {key: {"action": "accept", "content": {"context": "c"}}}
            done = await get(inputResponses=answers, requestState=first.result["requestState"])
            assert done.result["messages"]

    run(scenario())


@pytest.mark.parametrize(
    ("features", "told"),
    [(EVERYTHING, {"sample", "ask"}), (snapshot.ClientFeatures(), {"ask"}),
     (snapshot.ClientFeatures(elicitation_form=False, sampling=True), {"sample"})],
)  # fmt: skip
def test_a_server_learns_only_of_the_capabilities_that_the_entry_allows(
    dual: str, tmp_path: pathlib.Path, features: snapshot.ClientFeatures, told: set[str]
) -> None:
    async def scenario() -> None:
        async with proxied(tmp_path, dual, features=features) as world:
            meta = {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {}, "sampling": {}}}
            said = await asked(world, "test_input_required_result_capabilities", _meta=meta)
            assert set(said.result["inputRequests"]) == told

    run(scenario())


@pytest.mark.parametrize(
    ("tool", "offered", "features", "words"),
    [
        ("test_input_required_result_elicitation", {}, EVERYTHING, "the client did not declare elicitation.form"),
        ("test_input_required_result_sampling", {"sampling": {}}, snapshot.ClientFeatures(),
         "the server's entry does not allow sampling"),
        ("test_input_required_result_list_roots", {"roots": {}}, snapshot.ClientFeatures(), "roots are not shown"),
    ],
)  # fmt: skip
def test_what_may_not_be_asked_ends_the_call_with_words_that_say_why(
    dual: str, tmp_path: pathlib.Path, *, tool: str, offered: dict[str, Any], features: snapshot.ClientFeatures, words: str
) -> None:  # fmt: skip
    async def scenario() -> None:
        async with proxied(tmp_path, dual, features=features) as world:
            meta = {"io.modelcontextprotocol/clientCapabilities": offered}
            said = await asked(world, tool, _meta=meta)
            assert said.reason == "AskRefused"
            assert words in said.text
            call = next(each for each in world.intents if each.method == "tools/call")
            outcome = next(each for each in world.outcomes if each.event == call.event)
            assert (outcome.status, outcome.reason) == (audit.Status.FAILED, "AskRefused")

    run(scenario())


# Agent of the handshake era, stateless server -------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ROUNDS)
def test_an_agent_of_the_handshake_era_is_asked_within_the_call_by_a_server_that_knows_only_rounds(
    stateless: str, tmp_path: pathlib.Path, tool: str
) -> None:
    async def scenario() -> None:
        direct, there = Person(), Person()
        async with client(stateless, direct, modern=True) as session:
            assert text(await session.call_tool(tool)) == ROUNDS[tool]
        async with proxied(tmp_path, stateless, limits=ONCE) as world:
            token = proxies.TOKEN.decode()
            async with client(through(world), there, modern=False, token=token) as session:
                assert text(await session.call_tool(tool)) == ROUNDS[tool]
            assert sorted(each[0] for each in there.asked) == sorted(each[0] for each in direct.asked)
            assert charged(world) == 1
            (call,) = [each for each in world.intents if each.method == "tools/call"]
            (outcome,) = [each for each in world.outcomes if each.event == call.event]
            assert (outcome.status, outcome.reason) == (audit.Status.COMPLETED, "Allowed")

    run(scenario())


def test_a_prompt_asks_an_agent_of_the_handshake_era_too(stateless: str, tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        person = Person()
        async with (
            proxied(tmp_path, stateless) as world,
            client(through(world), person, modern=False, token=proxies.TOKEN.decode()) as session,
        ):
            got = await session.get_prompt("test_input_required_result_prompt")
            assert got.messages
            assert [each[0] for each in person.asked] == ["elicitation/create"]

    run(scenario())


def test_a_person_who_is_not_there_has_cancelled(stateless: str, tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        person = Person()
        person.fails = True
        async with (
            proxied(tmp_path, stateless) as world,
            client(through(world), person, modern=False, token=proxies.TOKEN.decode()) as session,
        ):
            told = await session.call_tool("test_input_required_result_elicitation")
            assert text(told) == "Hello, stranger!"

    run(scenario())


def test_what_an_agent_of_the_handshake_era_does_not_offer_it_is_not_asked(
    stateless: str, tmp_path: pathlib.Path
) -> None:
    async def scenario() -> None:
        async with proxied(tmp_path, stateless) as world:
            session = await world.open_session()
            told = await world.call(TOOL, modern=False, session=session)
            assert told.reason == "AskRefused"
            assert "did not declare elicitation.form" in told.text

    run(scenario())


def test_a_call_that_is_taken_back_while_a_person_thinks_ends_and_what_was_revoked_is_not_asked_again(
    stateless: str, tmp_path: pathlib.Path
) -> None:
    async def scenario() -> None:
        async with proxied(tmp_path, stateless) as world:
            session, question, asking = await _asked_within_a_call(world)
            world.apply(proxies.a_view(None, testing.allow("other"), endpoint={"url": stateless}))
            answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "decline"}}
            told = await world.ask(answer, modern=False, session=session)
            assert told.status == 202
            body = await asking.chunk()
            assert b"AskRefused" in body
            assert b"taken away" in body
            asking.leave()

    run(scenario())


def test_a_call_that_is_cancelled_while_a_person_thinks_is_over(
    stateless: str, tmp_path: pathlib.Path
) -> None:
    async def scenario() -> None:
        async with proxied(tmp_path, stateless) as world:
            session, question, asking = await _asked_within_a_call(world)
            notice = proxies.request("notifications/cancelled", {"requestId": 1}, id_=None)
            await world.ask(notice, modern=False, session=session)
            await world.settled()
            (outcome,) = [each for each in world.outcomes if each.reason == "Cancelled"]
            assert outcome.status is audit.Status.FAILED
            late = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "decline"}}
            assert (await world.ask(late, modern=False, session=session)).status == 202
            asking.leave()

    run(scenario())


async def _asked_within_a_call(world: proxies.World) -> tuple[str, Any, proxies.Asking]:
    """A session, the question that stands on the stream of its call, and that stream."""
    session = await world.open_session(elicitation={})
    asking = await world.calling(TOOL, modern=False, session=session)
    await asking.head()
    event = await asking.chunk()
    while b"elicitation/create" not in event:
        event = await asking.chunk()
    return session, json.loads(event.split(b"data: ")[1]), asking
