# SPDX-License-Identifier: Apache-2.0
"""A server of the stateless era asks an agent of the handshake era: within the call, answered together, bounded."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests import asking as requests
from tests import asks
from tests.asks import FORM, SECRET, Bench, a_result

from outrider import snapshot, testing
from outrider_sidecar import agents, asking, interviews, jsonrpc, orders, records, states

OFFERED = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}
ALLOWED = snapshot.ClientFeatures(elicitation_url_hosts=("login.example.com",), sampling=True)
ASK = {"method": "elicitation/create", "params": FORM}

bench = asks.bench


class Out:
    """The stream of the call."""

    mute = False

    def __init__(self) -> None:
        self.said: list[bytes] = []

    def notify(self, message: bytes) -> bool:
        self.said.append(message)
        return True


class Person:
    """An agent's end of `Questions`: keeps what it is asked, answers when told to."""

    def __init__(self) -> None:
        self.asked: list[jsonrpc.Answer] = []
        self.then: list[Callable[[jsonrpc.Message | None], None]] = []
        self.taken_back: list[Any] = []

    def ask(
        self, agent: agents.Agent, request: jsonrpc.Answer, *, via: Callable[[bytes], bool],
        answered: Callable[[jsonrpc.Message | None], None], deadline: float,
    ) -> Callable[[], None]:  # fmt: skip
        assert deadline == 100.0
        self.asked.append(request)
        self.then.append(answered)
        if not via(request.payload):
            answered(None)
        return lambda: self.taken_back.append(request.id)

    def answer(self, at: int, **message: Any) -> None:
        body = {"jsonrpc": "2.0", "id": 1, **message}
        self.then[at](jsonrpc.parse(json.dumps(body).encode()))


def unasked(*_: Any) -> Any:
    raise AssertionError("an interview decides nothing")


class Scene:
    """One interview, and what came of it."""

    def __init__(
        self, bench: Bench, *, number: int = 1, with_session: bool = True, allowed: snapshot.ClientFeatures = ALLOWED
    ) -> None:  # fmt: skip
        agent = agents.Agent("k", "2025-11-25", "/mcp", OFFERED) if with_session else None
        subject = requests.subject(params={"name": "t"}, modern=False, agent=agent)
        permit = requests.permit(subject)
        view = msgspec.structs.replace(permit.server, features=allowed)
        self.out, self.person = Out(), Person()
        about = records.About("01CALL", testing.AGENT, "", "2025-11-25", "tools/call", "")
        order = orders.Order(
            about, dataclasses.replace(permit, server=view), subject, out=self.out, received=0.0  # type: ignore[arg-type]
        )  # fmt: skip
        self.ends: list[Any] = []
        self.later: list[tuple[float, Callable[[], None]]] = []
        host = interviews.Host(bench.judge, self.person, None, again=unasked, call_later=self.call_later)  # type: ignore[arg-type]
        self.interview = interviews.Interview(host, order, number=number, done=self.ends.append)

    def call_later(self, seconds: float, then: Callable[[], None]) -> Any:
        self.later.append((seconds, then))

    def begin(self, payload: bytes) -> None:
        self.interview.begin(payload, deadline=100.0)

    @property
    def given(self) -> dict[str, Any]:
        (end,) = self.ends
        return {key: json.loads(value) for key, value in end.items()}

    @property
    def refused(self) -> asking.Refused:
        (end,) = self.ends
        assert isinstance(end, asking.Refused)
        return end


@pytest.fixture
def scene(bench: Bench) -> Scene:
    return Scene(bench)


def test_every_ask_is_sent_at_once_and_the_next_round_carries_all_answers_and_the_servers_state(
    scene: Scene,
) -> None:
    sampling = {"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}}
    scene.begin(a_result("theirs", who=ASK, say=sampling))
    assert [each.method for each in scene.person.asked] == ["elicitation/create", "sampling/createMessage"]
    assert len(scene.out.said) == 2
    assert json.loads(scene.person.asked[0].payload)["_meta"] == {"dev.outrider/server": "crm/salesforce"}
    scene.person.answer(
        1, result={"role": "assistant", "model": "m", "content": {"type": "text", "text": "x"}}
    )
    assert scene.ends == []
    scene.person.answer(0, result={"action": "accept", "content": {"name": "Ada"}})
    assert scene.given["requestState"] == "theirs"
    assert scene.given["inputResponses"]["who"] == {"action": "accept", "content": {"name": "Ada"}}
    assert set(scene.given["inputResponses"]) == {"who", "say"}


def test_roots_that_are_not_shown_are_answered_without_the_agent(scene: Scene) -> None:
    scene.begin(a_result(None, r={"method": "roots/list"}))
    assert scene.person.asked == []
    ((seconds, then),) = scene.later
    assert seconds == 0.0
    then()
    assert scene.given == {"inputResponses": {"r": {"roots": []}}}


def test_a_state_that_stands_alone_is_sent_back_after_a_pause(scene: Scene) -> None:
    scene.begin(a_result("wait"))
    ((seconds, then),) = scene.later
    assert seconds == interviews.PAUSE_SECONDS
    then()
    assert scene.given == {"requestState": "wait"}


def test_a_person_who_is_not_reached_has_cancelled_and_a_model_that_failed_ends_the_call(
    bench: Bench,
) -> None:
    asked = Scene(bench)
    asked.begin(a_result(None, who=ASK))
    asked.person.answer(0, error={"code": -1, "message": "rejected"})
    assert asked.given == {"inputResponses": {"who": {"action": "cancel"}}}
    sampled = Scene(bench)
    sampled.begin(a_result(None, say={"method": "sampling/createMessage", "params": {"messages": []}}))
    sampled.person.answer(0, error={"code": -1, "message": "secret words"})
    assert sampled.refused.why == "the client answered sampling/createMessage with an error"


def test_no_answer_in_time_ends_the_call_and_what_comes_later_goes_nowhere(scene: Scene) -> None:
    scene.begin(a_result(None, a=ASK, b=ASK))
    scene.person.then[0](None)
    assert "did not answer" in scene.refused.why
    assert "b" in scene.person.taken_back
    scene.person.answer(1, result={"action": "accept"})
    assert len(scene.ends) == 1


def test_an_abandoned_interview_says_nothing_more(scene: Scene) -> None:
    scene.begin(a_result(None, a=ASK))
    scene.interview.abandon()
    assert scene.person.taken_back == ["a"]
    scene.person.answer(0, result={"action": "accept"})
    assert scene.ends == []


def test_nothing_is_asked_when_one_of_the_asks_is_not_allowed(scene: Scene) -> None:
    scene.begin(a_result(None, a=ASK, b={"method": "elicitation/create", "params": SECRET}))
    assert scene.person.asked == []
    assert "secret" in scene.refused.why


def test_an_agent_that_takes_one_json_body_only_cannot_be_asked(scene: Scene) -> None:
    scene.out.mute = True
    scene.begin(a_result(None, a=ASK, b=ASK))
    assert "did not answer" in scene.refused.why
    assert len(scene.person.asked) == 1


def test_without_a_session_and_above_five_rounds_nobody_is_asked(bench: Bench) -> None:
    alone = Scene(bench, with_session=False)
    alone.begin(a_result(None, a=ASK))
    assert "no session" in alone.refused.why
    late = Scene(bench, number=states.ROUNDS_MAX + 1)
    late.begin(a_result(None, a=ASK))
    assert "more than 5 times" in late.refused.why


def test_whoever_is_sent_to_an_address_gets_an_id_with_it(scene: Scene) -> None:
    visit = {"mode": "url", "message": "Sign in", "url": "https://login.example.com/"}
    scene.begin(a_result(None, a={"method": "elicitation/create", "params": visit}))
    assert json.loads(scene.person.asked[0].payload)["elicitationId"] == "01CALL-1"


def test_the_journal_is_where_each_ask_stands(scene: Scene, bench: Bench) -> None:
    scene.begin(a_result(None, a=ASK))
    assert [type(each).__name__ for each in bench.records] == ["Intent", "Outcome"]
