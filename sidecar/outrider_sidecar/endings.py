# SPDX-License-Identifier: Apache-2.0
"""How one call can end, and which it was: read off the server's message, the transport's failure and the status.

Called by an attempt. Pure: what follows from an end (settling, recording, answering) is the attempt's.
"""

from __future__ import annotations

import dataclasses

from outrider import audit, call, decision
from outrider_sidecar import breaker, exchange, jsonrpc, legs, loans, modern

_R = decision.Reason

UNCERTAIN = frozenset({_R.UPSTREAM_TIMEOUT, _R.UPSTREAM_PROTOCOL_ERROR, _R.UPSTREAM_TOO_LARGE})
"""Ends whose words say that the call may have been made: wrong for anything that happened before it was sent."""

OURS = frozenset(
    {
        _R.AUDIT_UNAVAILABLE,
        _R.CREDENTIAL_UNAVAILABLE,
        _R.CREDENTIAL_MALFORMED,
        _R.CREDENTIAL_MISPLACED,
        _R.USER_REQUIRED,
    }
)
"""Ends that are refusals of ours, though there was a Permit."""


@dataclasses.dataclass(frozen=True, slots=True)
class End:
    """For the journal, the ledger, the metrics and the answer. `answer` is what the server said, if it said anything.

    `failed` is what pricing calls an error (`onError`); `http_status` the server's, None when there was none. `asks` is True
    when the server answered well, but with a question to its client. `retry_after_seconds`: it is no use to try again before.
    """

    reason: decision.Reason
    status: audit.Status
    detail: str = ""
    answer: jsonrpc.Answer | None = None
    failed: bool = False
    http_status: int | None = None
    asks: bool = False
    retry_after_seconds: float | None = None

    @property
    def public_detail(self) -> str:
        """Details that help a model and tell it nothing about where we run."""
        helps = self.asks or self.reason in (_R.UPSTREAM_BREAKER_OPEN, _R.UPSTREAM_REDIRECTS)
        return self.detail if helps else ""

    def tell(self, health: breaker.Breaker, now: float) -> None:
        """What it says of the server's health; `now` in loop time."""
        if self.breaking:
            health.failed(now)
        elif self.reason is _R.CANCELLED:
            health.released(now)
        else:
            health.succeeded(now)

    @property
    def breaking(self) -> bool:
        """Whether it counts against the server's health: what a server says, politely or not, does not."""
        said = self.asks or (self.http_status is not None and 400 <= self.http_status < 500)
        return breaker.counts(self.reason) and not said

    @property
    def error(self) -> str:
        """`error.type` of the conventions: "" when all went well."""
        return {_R.ALLOWED: "", _R.INPUT_REQUIRED: "", _R.TOOL_ERROR: "tool_error"}.get(
            self.reason, self.reason.value
        )


def of(
    response: jsonrpc.Answer | None, failed: exchange.Failed | None, status: int | None, *, cancelled: bool,
    kind: call.Kind = call.Kind.TOOL,
) -> End:  # fmt: skip
    """What became of a call that was handed to the way out. A complete answer counts whatever happened after it."""
    if response is not None:
        return _answered(response, status, kind)
    if failed is not None:
        reached = failed.sent is exchange.Sent.MAYBE_SENT
        return End(
            _R.CANCELLED if cancelled else failed.reason,
            audit.Status.FAILED if reached else audit.Status.NOT_SENT,
            failed=True,
            detail=failed.detail,
            http_status=status,
        )
    if status in (401, 403):
        return End(_R.UPSTREAM_UNAUTHORIZED, audit.Status.FAILED, failed=True, http_status=status)
    detail = "the answer held no response to this call" if status == 200 else f"HTTP status {status}"
    return End(
        _R.UPSTREAM_PROTOCOL_ERROR, audit.Status.FAILED, detail=detail, failed=True, http_status=status
    )


def unlent(failure: loans.Unavailable) -> End:
    """No credential could be lent, so nothing was sent. Why is for the journal and the log; the agent is told when to try again."""
    return End(
        failure.reason,
        audit.Status.NOT_SENT,
        detail=str(failure),
        retry_after_seconds=failure.retry_after_seconds,
    )


def unmet(failure: legs.NoLeg) -> End:
    """A server that could not be met has seen nothing of the call: the agent must not be told "unknown"."""
    reason = _R.UPSTREAM_NOT_READY if failure.reason in UNCERTAIN else failure.reason
    return End(reason, audit.Status.NOT_SENT, detail=f"{failure.reason.value}: {failure}")


def paused(seconds: float) -> End:
    """The server failed too often of late."""
    return End(_R.UPSTREAM_BREAKER_OPEN, audit.Status.NOT_SENT, detail=f"for {seconds:.1f} s")


def sent_before(end: End, *, newer: bool = False) -> End:
    """Of a request whose credential the server had refused (401). If it could not be sent again, it was sent, and is settled as such.

    `newer`: there is a newer credential now, and this was not sent with it: the agent may try again at once.
    """
    if newer and end.reason is _R.UPSTREAM_UNAUTHORIZED:
        return dataclasses.replace(end, retry_after_seconds=0.0)
    if end.status is not audit.Status.NOT_SENT:
        return end
    return dataclasses.replace(
        end, status=audit.Status.FAILED, failed=True, http_status=end.http_status or 401
    )


def asked(answer: jsonrpc.Answer, status: int | None) -> End:
    """The server's question is on its way to the agent, which goes on with the call when it has the answer."""
    return End(_R.INPUT_REQUIRED, audit.Status.COMPLETED, answer=answer, http_status=status, asks=True)


def refused(reason: decision.Reason, why: str, status: int | None) -> End:
    """The server asked for something that its client may not be asked, or cannot answer: that ends the call."""
    return End(reason, audit.Status.FAILED, detail=why, failed=True, http_status=status, asks=True)


def for_want_of_an_answer(end: End, why: str) -> End:
    """A call that failed after its server was refused an answer is told so: the server's own words would not say why."""
    failed = end.reason in (_R.UPSTREAM_ERROR, _R.TOOL_ERROR)
    return refused(_R.ASK_REFUSED, why, end.http_status) if failed else end


def _answered(response: jsonrpc.Answer, status: int | None, kind: call.Kind) -> End:
    if response.kind is jsonrpc.AnswerKind.ERROR:
        return End(
            _R.UPSTREAM_ERROR, audit.Status.COMPLETED, answer=response, failed=True, http_status=status
        )
    if modern.asks_for_input(response.payload):
        detail = "the server asks its client for input, which this method and era do not know"
        return End(
            _R.UPSTREAM_PROTOCOL_ERROR,
            audit.Status.FAILED,
            detail=detail,
            failed=True,
            http_status=status,
            asks=True,
        )
    if kind is call.Kind.TOOL and response.is_tool_error:
        return End(_R.TOOL_ERROR, audit.Status.COMPLETED, answer=response, failed=True, http_status=status)
    return End(_R.ALLOWED, audit.Status.COMPLETED, answer=response, http_status=status)
