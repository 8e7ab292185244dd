# SPDX-License-Identifier: Apache-2.0
"""A server of the handshake era asks in the middle of something: its agent is asked if it may be, and the server is answered."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest
from tests import asking as requests
from tests import asks
from tests.asks import FORM, SECRET, Bench

from outrider import decision, snapshot
from outrider_sidecar import agents, inquiries, jsonrpc, legs, questions

OFFERED = {"elicitation": {}, "sampling": {}}
ALLOWED = snapshot.ClientFeatures(sampling=True)
LEG = legs.Leg(
    legs.Server(snapshot.Endpoint(url="http://127.0.0.1:9/mcp")), legs.Session("k", b"s", "2025-11-25"), 1
)

bench = asks.bench


class Scene:
    """One inquiry: what the agent was told, and what the server was."""

    def __init__(self, bench: Bench, *, modern: bool = False) -> None:
        agent = None if modern else agents.Agent("k", "2025-11-25", "/mcp", OFFERED)
        subject = requests.subject(params={"name": "t"}, modern=modern, agent=agent)
        permit = requests.permit(subject)
        view = msgspec.structs.replace(permit.server, features=ALLOWED)
        self.agent = agents.Agent("k", "2025-11-25", "/mcp", OFFERED)
        self.to_agent: list[Any] = []
        self.to_server: list[Any] = []
        self.stream_is_open = True
        self.questions = questions.Questions(call_later=_never, clock=lambda: 0.0, otherwise=lambda *_: False)
        desk = inquiries.Desk(bench.judge, self.questions, self._tell, _drive)
        matter = inquiries.Matter(
            asks.ABOUT, requests.dataclasses.replace(permit, server=view), LEG, agent, via=self._via, deadline=50.0
        )  # fmt: skip
        self.inquiry = inquiries.Inquiry(desk, matter)

    def _via(self, body: bytes) -> bool:
        if self.stream_is_open:
            self.to_agent.append(json.loads(body))
        return self.stream_is_open

    async def _tell(self, permit: decision.Permit, leg: legs.Leg, body: bytes) -> None:
        assert leg is LEG
        self.to_server.append(json.loads(body))

    def hear(self, method: str, params: Any = None, id_: Any = 7) -> None:
        raw = json.dumps({} if params is None else params).encode()
        self.inquiry.heard(jsonrpc.Answer(jsonrpc.AnswerKind.REQUEST, id_, raw, method))

    def post(self, id_: int, **message: Any) -> bool:
        body = {"jsonrpc": "2.0", "id": id_, **message}
        return self.questions.heard(self.agent, jsonrpc.parse(json.dumps(body).encode()))


def _never(_seconds: float, _then: Callable[[], None]) -> Any:
    class Timer:
        def cancel(self) -> None:
            pass

    return Timer()


def _drive(work: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(StopIteration):
        work.send(None)


@pytest.mark.parametrize("id_", [7, "7", 0, ""])
def test_the_agents_answer_comes_back_under_the_servers_id_with_the_type_it_had(
    bench: Bench, id_: Any
) -> None:
    scene = Scene(bench)
    scene.hear("elicitation/create", FORM, id_)
    (asked,) = scene.to_agent
    assert (asked["id"], asked["method"], asked["params"]["message"]) == (1, "elicitation/create", "Who?")
    assert asked["params"]["_meta"] == {"dev.outrider/server": "crm/salesforce"}
    assert scene.post(1, result={"action": "accept", "content": {"name": "Ada"}})
    assert scene.to_server == [
        {"jsonrpc": "2.0", "id": id_, "result": {"action": "accept", "content": {"name": "Ada"}}}
    ]


def test_the_agents_error_comes_back_as_it_is(bench: Bench) -> None:
    scene = Scene(bench)
    scene.hear("sampling/createMessage", {"messages": [], "maxTokens": 1})
    scene.post(1, error={"code": -1, "message": "no", "data": {"x": 1}})
    assert scene.to_server[0]["error"] == {"code": -1, "message": "no", "data": {"x": 1}}


def test_a_ping_is_answered_here_and_is_nobodys_business(bench: Bench) -> None:
    scene = Scene(bench)
    scene.hear("ping")
    assert scene.to_server == [{"jsonrpc": "2.0", "id": 7, "result": {}}]
    assert bench.records == []


def test_roots_that_are_not_shown_are_none_for_the_server(bench: Bench) -> None:
    scene = Scene(bench)
    scene.hear("roots/list")
    assert scene.to_server[0]["result"] == {"roots": []}
    assert scene.to_agent == []


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [("elicitation/create", SECRET, -1), ("tools/call", {}, -32601), ("elicitation/create", [], -32601)],
)
def test_what_may_not_be_asked_is_answered_with_an_error_and_reaches_nobody(
    bench: Bench, method: str, params: Any, code: int
) -> None:
    scene = Scene(bench)
    scene.hear(method, params)
    assert scene.to_agent == []
    assert scene.to_server[0]["error"]["code"] == code
    assert scene.inquiry.refusals == []


def test_an_agent_of_the_stateless_era_is_not_asked_and_the_call_remembers_why(bench: Bench) -> None:
    scene = Scene(bench, modern=True)
    scene.hear("elicitation/create", FORM)
    assert scene.to_agent == []
    assert scene.to_server[0]["error"]["code"] == -32601
    assert scene.inquiry.refusals == [
        "elicitation/create: its client cannot be asked in the middle of a call"
    ]


def test_a_server_that_takes_its_question_back_waits_no_more(bench: Bench) -> None:
    scene = Scene(bench)
    scene.hear("elicitation/create", FORM, "q")
    notice = jsonrpc.Answer(
        jsonrpc.AnswerKind.NOTIFICATION, None, b'{"requestId":"q"}', "notifications/cancelled"
    )
    for other in (
        b'{"requestId":"other"}',
        b'{"requestId":1}',
        b"{}",
        b'{"requestId":["q"]}',
        b'{"\\ud800":1}',
    ):
        scene.inquiry.taken_back(requests.dataclasses.replace(notice, payload=other))
    assert len(scene.to_agent) == 1
    scene.inquiry.taken_back(notice)
    assert scene.to_agent[1]["method"] == "notifications/cancelled"
    assert not scene.post(1, result={})


def test_when_the_matter_is_over_whoever_still_thinks_is_told_to_stop(bench: Bench) -> None:
    scene = Scene(bench)
    scene.hear("elicitation/create", FORM)
    scene.inquiry.end()
    scene.inquiry.end()
    assert scene.to_agent[1]["method"] == "notifications/cancelled"
    assert [each["error"]["message"] for each in scene.to_server] == ["the client did not answer"]


def test_without_a_way_to_the_agent_the_server_hears_that_there_is_no_answer(bench: Bench) -> None:
    scene = Scene(bench)
    scene.stream_is_open = False
    scene.hear("elicitation/create", FORM)
    assert scene.to_server[0]["error"]["message"] == "the client did not answer"


def test_one_call_asks_so_often_and_never_twice_under_one_id(bench: Bench) -> None:
    scene = Scene(bench)
    scene.hear("elicitation/create", FORM, 1)
    scene.hear("elicitation/create", FORM, 1)
    assert len(scene.to_agent) == 1
    for number in range(inquiries.ASKS_MAX):
        scene.hear("roots/list", None, 100 + number)
    assert "error" in scene.to_server[-1]


@pytest.mark.parametrize("id_", [None, True, 1.5, ["a"], {}])
def test_what_cannot_be_answered_is_not(bench: Bench, id_: Any) -> None:
    scene = Scene(bench)
    scene.hear("elicitation/create", FORM, id_)
    assert (scene.to_agent, scene.to_server) == ([], [])
