# SPDX-License-Identifier: Apache-2.0
"""What a server asks reaches the agent under an id of ours, and one answer in time from that agent comes back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from outrider_sidecar import agents, jsonrpc, questions

AGENT = agents.Agent("a", "2025-11-25", "/mcp", {})
OTHER = agents.Agent("b", "2025-11-25", "/mcp", {})
ELICIT = jsonrpc.Answer(
    jsonrpc.AnswerKind.REQUEST, "theirs", b'{"message" : "Who?","x":1.50}', "elicitation/create"
)


class Timer:
    def __init__(self, at: float, then: Callable[[], None]) -> None:
        self.at, self.then, self.live = at, then, True

    def cancel(self) -> None:
        self.live = False


class Room:
    """Questions, a clock set by hand, and everything that was said to agents."""

    def __init__(self, *, has_stream: bool = False) -> None:
        self.now = 10.0
        self.timers: list[Timer] = []
        self.on_call: list[bytes] = []
        self.on_stream: list[tuple[str, bytes]] = []
        self.answers: list[jsonrpc.Message | None] = []
        self.has_stream = has_stream
        self.call_is_open = True
        self.questions = questions.Questions(
            call_later=self._later, clock=lambda: self.now, otherwise=self._otherwise
        )

    def _later(self, seconds: float, then: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.now + seconds, then))
        return self.timers[-1]

    def _otherwise(self, agent: agents.Agent, body: bytes) -> bool:
        if self.has_stream:
            self.on_stream.append((agent.key, body))
        return self.has_stream

    def _via(self, body: bytes) -> bool:
        if self.call_is_open:
            self.on_call.append(body)
        return self.call_is_open

    def ask(
        self, agent: agents.Agent = AGENT, request: jsonrpc.Answer = ELICIT, deadline: float = 100.0
    ) -> questions.Withdraw:
        return self.questions.ask(
            agent, request, via=self._via, answered=self.answers.append, deadline=deadline
        )

    def pass_to(self, now: float) -> None:
        self.now = now
        for each in self.timers:
            if each.live and each.at <= now:
                each.live = False
                each.then()

    def post(self, id_: Any, agent: agents.Agent = AGENT, **message: Any) -> bool:
        given = message or {"result": {"action": "accept"}}
        body = json.dumps({"jsonrpc": "2.0", "id": id_, **given}).encode()
        return self.questions.heard(agent, jsonrpc.parse(body))


def test_the_agent_gets_the_request_byte_for_byte_under_an_id_of_ours_and_its_answer_comes_back() -> None:
    room = Room()
    room.ask()
    assert room.on_call == [
        b'{"jsonrpc":"2.0","id":1,"method":"elicitation/create","params":{"message":"Who?","x":1.50}}'
    ]
    assert room.post(1)
    (answer,) = room.answers
    assert answer is not None
    assert answer.answered == jsonrpc.Answer(jsonrpc.AnswerKind.RESULT, 1, b'{"action": "accept"}')
    assert len(room.questions) == 0
    assert not any(each.live for each in room.timers)


def test_an_error_is_an_answer() -> None:
    room = Room()
    room.ask()
    assert room.post(1, error={"code": -1, "message": "no"})
    (answer,) = room.answers
    assert answer is not None
    assert answer.answered is not None
    assert answer.answered.kind is jsonrpc.AnswerKind.ERROR


@pytest.mark.parametrize(
    ("id_", "agent"), [(2, AGENT), ("1", AGENT), ("theirs", AGENT), (1, OTHER), (0, AGENT)]
)
def test_an_answer_to_nothing_this_agent_was_asked_means_nothing(id_: Any, agent: agents.Agent) -> None:
    room = Room()
    room.ask()
    assert not room.post(id_, agent)
    assert room.answers == []


def test_an_answer_counts_once() -> None:
    room = Room()
    room.ask()
    assert room.post(1)
    assert not room.post(1)
    assert len(room.answers) == 1


def test_whoever_thinks_too_long_is_told_to_stop_and_whoever_asked_hears_of_no_answer() -> None:
    room = Room()
    room.ask(deadline=20.0)
    room.pass_to(20.0)
    assert json.loads(room.on_call[1]) == {
        "jsonrpc": "2.0",
        "method": "notifications/cancelled",
        "params": {"requestId": 1},
    }
    assert room.answers == [None]
    assert not room.post(1)


def test_a_question_that_is_taken_back_is_taken_back_once() -> None:
    room = Room()
    withdraw = room.ask()
    withdraw()
    withdraw()
    assert b"notifications/cancelled" in room.on_call[1]
    assert len(room.on_call) == 2
    assert room.answers == [None]
    answered = room.ask()
    assert room.post(2)
    answered()
    assert len(room.answers) == 2


def test_without_a_call_that_streams_the_agents_own_stream_is_used_and_without_either_nobody_is_asked() -> (
    None
):
    room = Room(has_stream=True)
    room.call_is_open = False
    room.ask()
    assert [key for key, _ in room.on_stream] == ["a"]
    assert room.answers == []
    deaf = Room()
    deaf.call_is_open = False
    deaf.ask()
    assert deaf.answers == [None]
    assert len(deaf.questions) == 0


def test_a_session_that_ends_leaves_no_question_open_and_no_other_session_is_touched() -> None:
    room = Room()
    room.ask()
    room.ask(OTHER)
    room.questions.end(AGENT)
    room.questions.end(AGENT)
    assert room.answers == [None]
    assert room.post(2, OTHER)


def test_one_agent_has_so_many_questions_before_it_and_no_more() -> None:
    room = Room()
    for _ in range(questions.OPEN_MAX + 1):
        room.ask()
    assert len(room.questions) == questions.OPEN_MAX
    assert room.answers == [None]
    room.ask(OTHER)
    assert len(room.questions) == questions.OPEN_MAX + 1


def test_after_the_deadline_nobody_is_asked() -> None:
    room = Room()
    room.ask(deadline=10.0)
    assert (room.on_call, room.answers, len(room.questions)) == ([], [None], 0)


def test_ids_begin_where_they_are_told_to() -> None:
    said: list[bytes] = []
    one = questions.Questions(
        call_later=lambda _seconds, _then: Timer(0.0, lambda: None), clock=lambda: 0.0,
        otherwise=lambda _agent, body: bool(said.append(body)) or True, first=17,
    )  # fmt: skip
    one.ask(AGENT, ELICIT, answered=lambda _message: None, deadline=1.0)
    assert json.loads(said[0])["id"] == 17
