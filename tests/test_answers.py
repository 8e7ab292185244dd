# SPDX-License-Identifier: Apache-2.0
"""What an agent is told, and what it cannot tell from it."""

from __future__ import annotations

import json
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from mcp import types
from tests import asking

from outrider import budgets, decision, names
from outrider_sidecar import answers, conventions, exchange, jsonrpc

R = decision.Reason
LISTING = asking.subject("tools/list")
RULE = names.RuleRef("crm", "sales-only", "big-deals", 4)
LIMIT = budgets.Limit(namespace="crm", budget="quarter", name="calls", unit=budgets.Unit.CALLS)
POOL = budgets.Pool("crm/quarter/calls[]", LIMIT)
ID = "01J8Z0000000000000000000AA"

PASSED_ON = {R.ALLOWED, R.UPSTREAM_ERROR, R.TOOL_ERROR, R.INPUT_REQUIRED}
BEFORE_A_CALL = {
    R.LOCAL_AUTH_REFUSED, R.HOST_REFUSED, R.MALFORMED_REQUEST, R.HEADER_MISMATCH, R.VERSION_UNSUPPORTED,
    R.METHOD_UNKNOWN, R.SESSION_UNKNOWN, R.STATE_UNKNOWN,
}  # fmt: skip
HIDDEN = {
    R.SERVER_UNKNOWN, R.TOOL_UNKNOWN, R.PROMPT_UNKNOWN, R.RESOURCE_UNKNOWN, R.NOT_ALLOWED, R.DENIED_HIDDEN,
}  # fmt: skip
TOLD = [reason for reason in R if reason not in PASSED_ON | BEFORE_A_CALL | HIDDEN]


def objection(reason: R, **more: Any) -> decision.Objection:
    fields: dict[str, Any] = {"visible": True}
    if reason is R.DENIED:
        fields |= {"rule": RULE, "detail": "Deals above 50,000 go through the deal desk"}
    elif reason is R.ARGUMENTS_INVALID:
        fields |= {"detail": "/amount: 5 is not a string"}
    elif reason in (R.RATE_LIMITED, R.BUDGET_EXCEEDED):
        fields |= {"pool": POOL, "detail": POOL.id, "retry_after_seconds": 7.2}
    return decision.Objection(reason, **{**fields, **more})


def refused(reason: R, *, name: str = "query", modern: bool = True, **more: Any) -> dict[str, Any]:
    subject = asking.subject(modern=modern)
    body = answers.refused(subject, objection(reason, **more), request_id=ID, name=name)
    told: dict[str, Any] = json.loads(body)
    assert (told["jsonrpc"], told["id"], set(told)) == ("2.0", "theirs", {"jsonrpc", "id", "result"})
    return dict(told["result"])


def text(result: dict[str, Any]) -> str:
    (content,) = result["content"]
    assert content["type"] == "text"
    return str(content["text"])


# Calls ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", TOLD, ids=lambda reason: reason.value)
@pytest.mark.parametrize("modern", [True, False])
def test_a_refused_call_is_a_result_with_an_error_in_words_of_its_own(reason: R, modern: bool) -> None:
    result = refused(reason, modern=modern)
    assert result["isError"] is True
    assert "structuredContent" not in result
    assert result.get("resultType") == ("complete" if modern else None)
    refusal = result["_meta"]["dev.outrider/refusal"]
    assert (refusal["reason"], refusal["requestId"]) == (reason.value, ID)
    assert text(result).endswith(f"Request {ID}.")
    assert "reason that is in the proxy's log" not in text(result)
    assert types.CallToolResult.model_validate(result).is_error


def test_a_reason_nobody_phrased_still_makes_a_sentence() -> None:
    assert text(refused(R.TOOL_ERROR)).startswith("The call failed for a reason that is in the proxy's log.")


def test_no_two_reasons_are_told_in_the_same_words() -> None:
    sentences = [answers.sentence(objection(reason)) for reason in TOLD]
    assert len(set(sentences)) == len(TOLD)


def test_a_denial_names_its_policy_and_says_what_its_message_says() -> None:
    result = refused(R.DENIED)
    assert text(result) == (
        f"Refused by policy crm/sales-only: Deals above 50,000 go through the deal desk. Request {ID}."
    )
    assert result["_meta"]["dev.outrider/refusal"] == {
        "reason": "Denied", "requestId": ID, "policy": "crm/sales-only", "rule": "big-deals",
    }  # fmt: skip
    assert text(refused(R.DENIED, detail="Ask first!")).startswith(
        "Refused by policy crm/sales-only: Ask first! R"
    )


def test_a_model_can_tell_never_from_later_from_differently() -> None:
    never = {R.SERVER_DISABLED, R.NO_CREDENTIAL_FOR_CALLER, R.CREDENTIAL_MALFORMED, R.UPSTREAM_ADDRESS_REFUSED,
             R.UPSTREAM_REDIRECTS, R.UPSTREAM_UNAUTHORIZED, R.ASK_REFUSED, R.USER_REQUIRED, R.USER_TOKEN_INVALID, R.CREDENTIAL_MISPLACED}  # fmt: skip
    later = {R.RATE_LIMITED, R.BUDGET_EXCEEDED, R.NOT_READY, R.UPSTREAM_NOT_READY, R.AUDIT_UNAVAILABLE, R.LEDGER_UNAVAILABLE,
             R.CREDENTIAL_UNAVAILABLE, R.OVERLOADED, R.UPSTREAM_UNREACHABLE, R.UPSTREAM_BREAKER_OPEN}  # fmt: skip
    differently = {R.ARGUMENTS_INVALID, R.UPSTREAM_TOO_LARGE}
    for reason in TOLD:
        said = answers.sentence(objection(reason))
        assert ("Do not try again." in said) is (reason in never), reason
        assert ("Try again in" in said or "again later" in said) is (reason in later), reason
        assert ("Correct them" in said or "Ask for less" in said) is (reason in differently), reason
    assert "/amount: 5 is not a string" in answers.sentence(objection(R.ARGUMENTS_INVALID))


@pytest.mark.parametrize(
    ("seconds", "words", "number"),
    [
        (7.2, "Try again in 8 s.", 8), (119.0, "Try again in 119 s.", 119), (120.0, "It resets in 2 min;", 120),
        (3_601.0, "It resets in 1 h 1 min;", 3_601), (86_400.0 * 3, "It resets in 72 h 0 min;", 259_200),
        (None, "the limit is smaller than one call", None),
    ],
)  # fmt: skip
def test_when_to_come_back_is_said_in_words_and_in_seconds(
    seconds: float | None, words: str, number: int | None
) -> None:
    for reason in (R.RATE_LIMITED, R.BUDGET_EXCEEDED):
        result = refused(reason, retry_after_seconds=seconds)
        assert words in text(result)
        assert "crm/quarter, limit calls" in text(result)
        assert result["_meta"]["dev.outrider/refusal"].get("retryAfterSeconds") == number


@hypothesis.given(
    st.sampled_from(list(R)), st.text(max_size=20), st.none() | st.floats(0, 1e6), st.booleans(),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=200),
)  # fmt: skip
def test_whatever_is_hidden_is_told_in_the_words_for_an_unknown_tool(
    reason: R, detail: str, wait: float | None, modern: bool, name: str
) -> None:
    """R24: the same body but for the request id, whatever made it hidden."""
    secret = decision.Objection(
        reason, visible=False, rule=RULE, pool=POOL, detail=detail, retry_after_seconds=wait
    )
    unknown = decision.Objection(R.TOOL_UNKNOWN, visible=False)
    told, plain = (
        answers.refused(asking.subject(modern=modern), each, request_id=ID, name=name)
        for each in (secret, unknown)
    )
    assert told == plain
    result = json.loads(told)["result"]
    assert result["content"][0]["text"] == f"Unknown tool: {name[:128]}"
    assert result["_meta"]["dev.outrider/refusal"] == {"reason": "ToolUnknown", "requestId": ID}


# Other methods --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "code"), [(R.NOT_READY, 403), (R.RATE_LIMITED, 429), (R.BUDGET_EXCEEDED, 402), (R.DENIED, 403)]
)
def test_another_refused_method_is_an_error_outside_every_reserved_range(reason: R, code: int) -> None:
    error = json.loads(answers.refused(LISTING, objection(reason), request_id=ID))["error"]
    assert error["code"] == code
    refusal = refused(reason)["_meta"]["dev.outrider/refusal"]
    assert error["data"] == {"dev.outrider/refusal": refusal}  # programs read the same of both


def test_another_method_tells_nothing_of_what_is_hidden() -> None:
    secret = decision.Objection(R.DENIED_HIDDEN, visible=False, rule=RULE, detail="because")
    told = answers.refused(LISTING, secret, request_id=ID)
    unknown = decision.Objection(R.TOOL_UNKNOWN, visible=False)
    assert told == answers.refused(LISTING, unknown, request_id=ID)
    assert b"sales-only" not in told
    assert b"because" not in told


# HTTP -----------------------------------------------------------------------------------------------------------------


def head(answer: answers.Answer, name: bytes) -> bytes | None:
    found = [value for key, value in answer.headers if key == name]
    assert len(found) <= 1
    return found[0] if found else None


def test_a_stranger_is_told_where_the_token_is_and_sent_to_no_browser() -> None:
    answer = answers.not_accepted(decision.Objection(R.LOCAL_AUTH_REFUSED, visible=True))
    assert answer.status == 401
    assert b"read /etc/outrider/mcp.json" in answer.body
    assert head(answer, b"www-authenticate") == b"Bearer"
    assert not [value for _, value in answer.headers if b"resource_metadata" in value]


def test_a_wrong_host_is_told_how_to_dial_and_no_setting_that_there_is_not() -> None:
    answer = answers.not_accepted(decision.Objection(R.HOST_REFUSED, visible=True))
    assert answer.status == 403
    assert b"dial the proxy as 127.0.0.1 or localhost with its port" in answer.body
    assert b"allowedHosts" not in answer.body


def test_plain_statuses_are_plain() -> None:
    assert (answers.not_found().status, answers.not_found().body) == (404, b"not found\n")
    refused_method = answers.method_not_allowed(b"POST")
    assert (refused_method.status, head(refused_method, b"allow")) == (405, b"POST")
    assert (answers.accepted().status, answers.accepted().body) == (202, b"")


def test_an_unknown_session_is_a_404_in_the_sdks_words() -> None:
    answer = answers.unknown_session("s")
    assert answer.status == 404
    assert json.loads(answer.body) == {
        "jsonrpc": "2.0", "id": "s", "error": {"code": -32001, "message": "Session not found"},
    }  # fmt: skip
    assert head(answer, b"content-type") == b"application/json"


@pytest.mark.parametrize(("modern", "status"), [(True, 404), (False, 200)])
def test_an_unknown_method_is_minus_32601_and_404_only_where_the_spec_says_so(
    modern: bool, status: int
) -> None:
    answer = answers.unknown_method(5, modern=modern)
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (status, conventions.METHOD_NOT_FOUND)


def test_a_malformed_request_is_answered_with_what_is_wrong_and_with_its_id() -> None:
    error = jsonrpc.Malformed("no", status=415, data={"supported": ["x"]})
    error.id = 12
    answer = answers.malformed(error)
    assert answer.status == 415
    assert json.loads(answer.body) == {
        "jsonrpc": "2.0", "id": 12, "error": {"code": -32600, "message": "no", "data": {"supported": ["x"]}},
    }  # fmt: skip


class Heard:
    """A reply that keeps what it is given."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def start(self, status: int, headers: exchange.Headers, length: int | None = None) -> None:
        self.said.append((status, headers, length))

    def end(self, chunk: bytes = b"") -> None:
        self.said.append(chunk)


def test_an_answer_is_given_with_its_length() -> None:
    heard = Heard()
    answer = answers.json(b"{}", (b"x-more", b"1"), status=201)
    answer.give(heard)  # type: ignore[arg-type]
    expected = ((b"content-type", b"application/json"), (b"x-more", b"1"))
    assert heard.said == [(201, expected, 2), b"{}"]
