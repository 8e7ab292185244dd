# SPDX-License-Identifier: Apache-2.0
"""Every way a call can end, and what follows from it."""

from __future__ import annotations

import pytest

from outrider import audit, decision
from outrider_sidecar import endings, exchange, jsonrpc, legs, loans

R, S = decision.Reason, audit.Status
MAYBE, NOT = exchange.Sent.MAYBE_SENT, exchange.Sent.NOT_SENT


def answer(raw: bytes) -> jsonrpc.Answer:
    return jsonrpc.answer(b'{"jsonrpc":"2.0","id":1,' + raw + b"}")


@pytest.mark.parametrize(
    ("raw", "reason", "status", "failed", "asks"),
    [
        (b'"result":{}', R.ALLOWED, S.COMPLETED, False, False),
        (b'"result":{"resultType":"complete"}', R.ALLOWED, S.COMPLETED, False, False),
        (b'"result":{"isError":true}', R.TOOL_ERROR, S.COMPLETED, True, False),
        (b'"error":{"code":1,"message":"m"}', R.UPSTREAM_ERROR, S.COMPLETED, True, False),
        (b'"result":{"resultType":"input_required"}', R.UPSTREAM_PROTOCOL_ERROR, S.FAILED, True, True),
        (b'"result":{"resultType":"task","isError":true}', R.UPSTREAM_PROTOCOL_ERROR, S.FAILED, True, True),
        (b'"result":{"result\\u0054ype":"task"}', R.UPSTREAM_PROTOCOL_ERROR, S.FAILED, True, True),
    ],
)
def test_an_answer_is_what_it_says(raw: bytes, reason: R, status: S, failed: bool, asks: bool) -> None:
    end = endings.of(answer(raw), None, 200, cancelled=False)
    assert (end.reason, end.status, end.failed, end.asks) == (reason, status, failed, asks)
    assert (end.answer is None) is asks
    assert not end.breaking


def test_a_complete_answer_counts_whatever_happened_after_it() -> None:
    broke = exchange.Failed(R.UPSTREAM_PROTOCOL_ERROR, MAYBE, "cut")
    for cancelled in (False, True):
        end = endings.of(answer(b'"result":{}'), broke, 200, cancelled=cancelled)
        assert (end.reason, end.status) == (R.ALLOWED, S.COMPLETED)


@pytest.mark.parametrize(
    ("reason", "sent", "breaking"),
    [
        (R.UPSTREAM_TIMEOUT, MAYBE, True), (R.UPSTREAM_UNREACHABLE, NOT, True), (R.UPSTREAM_PROTOCOL_ERROR, MAYBE, True),
        (R.UPSTREAM_REDIRECTS, MAYBE, False), (R.UPSTREAM_TOO_LARGE, MAYBE, False),
        (R.UPSTREAM_ADDRESS_REFUSED, NOT, False), (R.CREDENTIAL_MALFORMED, NOT, False), (R.INTERNAL, MAYBE, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("cancelled", [False, True])
def test_a_failure_is_charged_when_the_server_may_have_seen_the_call(
    reason: R, sent: exchange.Sent, breaking: bool, cancelled: bool
) -> None:
    end = endings.of(None, exchange.Failed(reason, sent, "why"), None, cancelled=cancelled)
    assert end.reason is (R.CANCELLED if cancelled else reason)
    assert end.status is (S.FAILED if sent is MAYBE else S.NOT_SENT)
    assert (end.failed, end.detail) == (True, "why")
    assert end.breaking is (breaking and not cancelled)


@pytest.mark.parametrize(
    ("status", "reason", "breaking"),
    [
        (200, R.UPSTREAM_PROTOCOL_ERROR, True), (202, R.UPSTREAM_PROTOCOL_ERROR, True),
        (400, R.UPSTREAM_PROTOCOL_ERROR, False), (404, R.UPSTREAM_PROTOCOL_ERROR, False),
        (429, R.UPSTREAM_PROTOCOL_ERROR, False), (401, R.UPSTREAM_UNAUTHORIZED, False),
        (403, R.UPSTREAM_UNAUTHORIZED, False), (500, R.UPSTREAM_PROTOCOL_ERROR, True),
        (503, R.UPSTREAM_PROTOCOL_ERROR, True),
    ],
)  # fmt: skip
def test_no_answer_is_judged_by_its_status(status: int, reason: R, breaking: bool) -> None:
    end = endings.of(None, None, status, cancelled=False)
    assert (end.reason, end.status, end.failed, end.http_status) == (reason, S.FAILED, True, status)
    assert end.breaking is breaking


def test_only_details_that_help_are_for_the_agent() -> None:
    for reason in R:
        shown = endings.End(reason, S.FAILED, detail="10.0.0.7").public_detail
        assert bool(shown) is (reason in (R.UPSTREAM_BREAKER_OPEN, R.UPSTREAM_REDIRECTS))
    assert endings.of(answer(b'"result":{"resultType":"x"}'), None, 200, cancelled=False).public_detail


def test_error_types_are_empty_for_success_and_constants_otherwise() -> None:
    assert endings.End(R.ALLOWED, S.COMPLETED).error == ""
    assert endings.End(R.TOOL_ERROR, S.COMPLETED).error == "tool_error"
    assert endings.End(R.UPSTREAM_TIMEOUT, S.FAILED).error == "UpstreamTimeout"


def test_what_was_not_sent_for_want_of_a_credential_is_a_refusal_of_ours() -> None:
    lacking = {R.CREDENTIAL_UNAVAILABLE, R.CREDENTIAL_MALFORMED, R.CREDENTIAL_MISPLACED, R.USER_REQUIRED}
    assert {R.AUDIT_UNAVAILABLE, *lacking} == endings.OURS
    end = endings.unlent(
        loans.Unavailable(R.CREDENTIAL_UNAVAILABLE, "Vault is sealed", retry_after_seconds=3)
    )
    assert (end.reason, end.status, end.detail) == (R.CREDENTIAL_UNAVAILABLE, S.NOT_SENT, "Vault is sealed")
    assert (end.public_detail, end.retry_after_seconds, end.breaking) == ("", 3, False)


def test_what_was_sent_before_is_never_said_not_to_have_been() -> None:
    unmet = endings.unmet(legs.NoLeg(R.UPSTREAM_TIMEOUT, "no answer"))
    assert (unmet.reason, unmet.status) == (R.UPSTREAM_NOT_READY, S.NOT_SENT)
    again = endings.sent_before(unmet)
    assert (again.reason, again.status, again.failed, again.http_status) == (
        R.UPSTREAM_NOT_READY, S.FAILED, True, 401,
    )  # fmt: skip
    assert endings.sent_before(again) is again


def test_a_call_that_was_refused_with_what_has_been_replaced_may_be_tried_again_at_once() -> None:
    refused = endings.of(None, None, 401, cancelled=False)
    assert endings.sent_before(refused).retry_after_seconds is None
    assert endings.sent_before(refused, newer=True).retry_after_seconds == 0.0
    other = endings.End(R.CANCELLED, S.FAILED)
    assert endings.sent_before(other, newer=True) is other
