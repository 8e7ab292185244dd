# SPDX-License-Identifier: Apache-2.0
"""Every ask is ruled on, written down before it goes anywhere, and counted; its words are kept only where results are."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from tests import asking as requests
from tests import asks
from tests.asks import FORM, SECRET, Bench, a_result, an_order, ruled

from outrider import audit, decision, snapshot, testing
from outrider_sidecar import agents, asking, features, seats, states

bench = asks.bench


def test_a_relayed_ask_stands_in_the_journal_as_something_that_happened_within_the_call(bench: Bench) -> None:
    assert ruled(bench, "elicitation/create", FORM).verdict is features.Verdict.RELAY
    intent, outcome = bench.records
    assert isinstance(intent, audit.Intent)
    assert isinstance(outcome, audit.Outcome)
    assert (intent.request_id, intent.method, intent.tool) == ("01CALL", "elicitation/create", "t")
    assert intent.event == outcome.event != "01CALL"
    assert (outcome.status, outcome.reason, outcome.cost) == (audit.Status.COMPLETED, "Allowed", 0)
    assert bench.counted('decision="Relay"') == 1


def test_a_refused_ask_stands_there_with_the_reason_and_not_with_its_words(bench: Bench) -> None:
    assert ruled(bench, "elicitation/create", SECRET).verdict is features.Verdict.REFUSE
    (refusal,) = bench.records
    assert isinstance(refusal, audit.RefusalRecord)
    assert (refusal.reason, refusal.method, refusal.request_id) == (
        "AskRefused",
        "elicitation/create",
        "01CALL",
    )
    assert "password" in refusal.detail
    assert refusal.arguments is not None
    assert refusal.arguments.content == ""
    assert len(refusal.arguments.digest) == 64
    assert bench.counted('decision="Refuse"') == 1


def test_roots_that_are_not_shown_are_written_down_as_answered_here(bench: Bench) -> None:
    ruling = ruled(bench, "roots/list", {})
    assert (ruling.verdict, ruling.answer) == (features.Verdict.ANSWER, b'{"roots":[]}')
    _, outcome = bench.records
    assert isinstance(outcome, audit.Outcome)
    assert outcome.status is audit.Status.NOT_SENT
    assert "answered here" in outcome.detail


@pytest.mark.parametrize(
    ("level", "kept"),
    [
        (snapshot.AuditLevel.METADATA, False),
        (snapshot.AuditLevel.ARGUMENTS, False),
        (snapshot.AuditLevel.FULL, True),
    ],
)
def test_the_words_of_an_ask_are_kept_where_results_are(
    bench: Bench, level: snapshot.AuditLevel, kept: bool
) -> None:
    ruled(bench, "elicitation/create", FORM, level=level)
    intent = bench.records[0]
    assert isinstance(intent, audit.Intent)
    assert intent.arguments is not None
    assert ("Who?" in intent.arguments.content) is kept


def test_they_are_kept_nowhere_when_something_of_the_tool_is_redacted(bench: Bench) -> None:
    redact = (snapshot.Redaction(tools=("t*",), result=("/token",)),)
    ruled(bench, "elicitation/create", FORM, level=snapshot.AuditLevel.FULL, redact=redact)
    intent = bench.records[0]
    assert isinstance(intent, audit.Intent)
    assert intent.arguments is not None
    assert intent.arguments.content == ""


def test_what_is_about_no_tool_is_kept_nowhere_when_something_of_any_tool_is_redacted(bench: Bench) -> None:
    """It may quote any of them."""
    redact = (snapshot.Redaction(tools=("other",), result=("/token",)),)
    permit = an_order(level=snapshot.AuditLevel.FULL, redact=redact).permit
    aside = seats.Standing(permit, session=None).aside(permit.server)  # type: ignore[arg-type]
    raw = json.dumps(FORM).encode()
    for each in (permit, aside):
        bench.judge.ruling(asks.ABOUT, each, "elicitation/create", raw, offered={"elicitation": {}})
    of_tool, of_none = (each for each in bench.records if isinstance(each, audit.Intent))
    assert of_tool.arguments is not None
    assert of_none.arguments is not None
    assert (of_tool.tool, "Who?" in of_tool.arguments.content) == ("t", True)
    assert (of_none.tool, of_none.arguments.content) == ("", "")


@pytest.mark.parametrize(
    ("deny", "verdict"), [(True, features.Verdict.REFUSE), (False, features.Verdict.RELAY)]
)
def test_what_cannot_be_written_down_is_not_asked_unless_the_entry_prefers_it(
    bench: Bench, deny: bool, verdict: features.Verdict
) -> None:
    bench.journal.close()
    assert ruled(bench, "elicitation/create", FORM, deny=deny).verdict is verdict


def test_an_agent_gets_the_asks_with_a_state_of_ours_and_comes_back_to_the_servers_own(bench: Bench) -> None:
    order = an_order()
    payload = a_result(who={"method": "elicitation/create", "params": FORM})
    told = bench.judge.relayed(order, payload, after=None)
    assert isinstance(told, bytes)
    said = json.loads(told)
    assert said["inputRequests"]["who"]["params"]["message"] == "Who?"
    assert "theirs" not in said["requestState"]
    state = bench.judge.states.opened(said["requestState"], order.permit.call, principal=str(testing.AGENT))
    assert state is not None
    assert (state.upstream, state.round, state.first) == ("theirs", 1, "01CALL")


@pytest.mark.parametrize(
    ("asks", "reason", "words"),
    [
        ({"a": {"method": "sampling/createMessage", "params": {}}}, "AskRefused", "sampling"),
        ({"a": {"method": "elicitation/create", "params": SECRET}}, "AskRefused", "secret"),
        ({"a": {"method": "roots/list"}}, "AskRefused", "roots"),
        ({"a": {"method": "tools/call", "params": {}}}, "AskRefused", "elicitation, sampling and roots only"),
        ({"a": {"params": {}}}, "UpstreamProtocolError", "method"),
        (
            {"a": {"method": "elicitation/create", "params": FORM}, "b": {"method": "ping"}},
            "AskRefused",
            "ping",
        ),
    ],
)
def test_one_ask_that_is_not_allowed_refuses_them_all(
    bench: Bench, asks: dict[str, Any], reason: str, words: str
) -> None:
    told = bench.judge.relayed(an_order(), a_result(**asks), after=None)
    assert isinstance(told, asking.Refused)
    assert told.reason.value == reason
    assert words in told.why


def test_the_sixth_ask_of_one_call_and_a_state_too_large_are_refused(bench: Bench) -> None:
    order, payload = an_order(), a_result(who={"method": "elicitation/create", "params": FORM})
    after = None
    for _ in range(states.ROUNDS_MAX):
        told = bench.judge.relayed(order, payload, after=after)
        assert isinstance(told, bytes)
        after = bench.judge.states.opened(
            json.loads(told)["requestState"], order.permit.call, principal=str(testing.AGENT)
        )
    refused = bench.judge.relayed(order, payload, after=after)
    assert isinstance(refused, asking.Refused)
    assert "more than 5 times" in refused.why
    large = bench.judge.relayed(order, a_result("x" * 70_000), after=None)
    assert isinstance(large, asking.Refused)
    assert large.reason is decision.Reason.ASK_REFUSED


def test_a_server_may_ask_so_often_in_a_minute_and_what_it_asks_beyond_that_fills_no_disk(
    bench: Bench,
) -> None:
    for _ in range(600):
        assert ruled(bench, "roots/list", {}).verdict is features.Verdict.ANSWER
    before = len(bench.records)
    told = [ruled(bench, "elicitation/create", FORM) for _ in range(1300)]
    assert {each.verdict for each in told} == {features.Verdict.REFUSE}
    assert "times a minute" in told[0].why
    assert len(bench.records) - before == 600
    bench.clock.now += 60
    assert ruled(bench, "elicitation/create", FORM).verdict is features.Verdict.RELAY


def test_who_cannot_be_asked_now_is_not_said_to_have_declared_nothing(bench: Bench) -> None:
    order = an_order()
    raw = json.dumps(FORM).encode()
    told = bench.judge.ruling(asks.ABOUT, order.permit, "elicitation/create", raw, offered=None)
    assert told.why == "its client cannot be asked in the middle of a call"
    roots = bench.judge.ruling(asks.ABOUT, order.permit, "roots/list", b"{}", offered=None)
    assert roots.verdict is features.Verdict.ANSWER


def _sent_to(*urls: str) -> bytes:
    asked = [{"mode": "url", "elicitationId": "e", "url": each, "message": "Sign in"} for each in urls]
    return json.dumps({"code": -32042, "message": "first", "data": {"elicitations": asked}}).encode()


VISITOR = {
    "offered": {"elicitation": {"url": {}}},
    "allowed": snapshot.ClientFeatures(elicitation_url_hosts=("a.example",)),
}


def test_people_are_sent_away_by_an_error_only_where_they_may_be_sent(bench: Bench) -> None:
    order = an_order(**VISITOR)  # type: ignore[arg-type]
    refused = bench.judge.sent_away(order, _sent_to("https://a.example/", "https://b.example/"), after=None)
    assert isinstance(refused, asking.Refused)
    assert "b.example" in refused.why
    undeclared = bench.judge.sent_away(an_order(), _sent_to("https://a.example/"), after=None)
    assert isinstance(undeclared, asking.Refused)
    assert bench.judge.sent_away(order, b'{"code":-32602,"message":"m"}', after=None) is None
    broken = bench.judge.sent_away(order, b'{"code":-32042,"message":"m"}', after=None)
    assert isinstance(broken, asking.Refused)
    assert broken.reason is decision.Reason.UPSTREAM_PROTOCOL_ERROR


def test_for_an_agent_of_the_stateless_era_that_error_is_a_question(bench: Bench) -> None:
    order = an_order(**VISITOR)  # type: ignore[arg-type]
    told = bench.judge.sent_away(order, _sent_to("https://a.example/"), after=None)
    assert isinstance(told, bytes)
    said = json.loads(told)
    assert said["resultType"] == "input_required"
    (ask,) = said["inputRequests"].values()
    assert (ask["method"], ask["params"]["url"]) == ("elicitation/create", "https://a.example/")
    state = bench.judge.states.opened(said["requestState"], order.permit.call, principal=str(testing.AGENT))
    assert state is not None
    assert state.upstream is None


def test_an_agent_of_the_handshake_era_gets_it_as_it_is(bench: Bench) -> None:
    order = an_order(**VISITOR)  # type: ignore[arg-type]
    agent = agents.Agent("k", "2025-11-25", "/mcp", {"elicitation": {"url": {}}})
    legacy = dataclasses.replace(
        order, subject=requests.subject(params={"name": "t"}, modern=False, agent=agent)
    )
    error = _sent_to("https://a.example/")
    assert bench.judge.sent_away(legacy, error, after=None) is error
