# SPDX-License-Identifier: Apache-2.0
"""How a permitted request is closed: units settled, outcome written, counted, and what its agent is told.

Called by an attempt, exactly once, in this order, so that no answer is out whose outcome is not written.
"""

from __future__ import annotations

import dataclasses
import logging

from outrider import audit, budgets, call, decision
from outrider_sidecar import answers, conventions, endings, jsonrpc, ledger, modern, orders, telemetry

log = logging.getLogger("outrider")

_R = decision.Reason


@dataclasses.dataclass(slots=True)
class Effort:
    """What an attempt has taken so far: units held, an intent written, the server's time (`sent_at` in loop time), a cost.

    `sends`: how often it was sent, or tried to be: again with a newer credential.
    """

    hold: ledger.Hold | None = None
    recorded: bool = False
    sent_at: float | None = None
    upstream_seconds: float = 0.0
    cost: int = 0
    sends: int = 1


def bytes_max(permit: decision.Permit) -> int:
    """How large a result may be: what was reserved must cover it, where a result's size costs."""
    price, most = permit.price, permit.server.endpoint.result_bytes_max
    return min(most, price.result_bytes_max) if price.per_thousand_result_tokens else most


def close(parts: orders.Parts, order: orders.Order, effort: Effort, end: endings.End) -> None:
    """Settles, records and counts."""
    permit = order.permit
    result = end.answer.payload if end.answer is not None else None
    charges = _settle(parts, permit, effort, end)
    ours = max(0.0, parts.clock() - order.received - effort.upstream_seconds)
    if effort.recorded:
        record = audit.Outcome(
            event=order.about.request_id,
            request_id=order.about.request_id,
            status=end.status,
            reason=end.reason.value,
            http_status=end.http_status,
            sends=effort.sends,
            result=None if result is None else parts.writer.result(permit, result),
            result_bytes=None if result is None else len(result),
            cost=effort.cost,
            charges=charges,
            ours_micros=round(ours * 1e6),
            upstream_micros=round(effort.upstream_seconds * 1e6),
            detail=end.detail,
        )
        parts.journal.outcome(record)
    _count(parts, permit, effort, end, ours)


def _settle(
    parts: orders.Parts, permit: decision.Permit, effort: Effort, end: endings.End
) -> tuple[budgets.Charge, ...]:
    """What it was charged to. What the server never saw costs nothing."""
    if effort.hold is None:
        return ()
    if end.status is audit.Status.NOT_SENT:
        parts.ledger.release(effort.hold)
        return ()
    result_bytes = len(end.answer.payload) if end.answer is not None else None
    effort.cost = cost = budgets.cost(permit.price, result_bytes=result_bytes, failed=end.failed)
    charges = effort.hold.charges(cost)
    for crossing in parts.ledger.settle(effort.hold, cost):
        log.warning(
            "budget threshold reached",
            extra=telemetry.fields(pool=crossing.pool.id, percent=crossing.percent),
        )
    return charges


def _count(
    parts: orders.Parts, permit: decision.Permit, effort: Effort, end: endings.End, ours: float
) -> None:
    count, rule, error = parts.telemetry, permit.rules[0], end.error
    refused = end.status is audit.Status.NOT_SENT and end.reason in endings.OURS
    reason = end.reason if refused else _R.ALLOWED
    count.decided(rule.object, rule.rule, "deny" if refused else "allow", reason.value)
    method, name = permit.call.method.value, counted(permit.call)
    count.operated(method, name, error, ours + effort.upstream_seconds)
    count.overhead(ours)
    if effort.sent_at is not None:
        count.upstream(method, str(permit.server.id), error, effort.upstream_seconds)
    for limit in (held.pool.limit for held in permit.reservations if held.pool.limit.rate is not None):
        count.limited(f"{limit.namespace}/{limit.budget}", "allow")
    if effort.cost:
        count.spent(str(permit.server.id), name, effort.cost / budgets.MICRO)


def counted(subject: call.Call) -> str:
    """The name as a label of metrics: a tool's. Prompts and URIs are as many as somebody likes."""
    return subject.name if subject.kind is call.Kind.TOOL else ""


def told(order: orders.Order, end: endings.End) -> bytes:
    """What the agent hears: the server's own answer under its id and in its era, or a refusal."""
    subject = order.subject
    if end.answer is None:
        objection = decision.Objection(
            end.reason,
            visible=True,
            detail=end.public_detail,
            retry_after_seconds=end.retry_after_seconds,
        )
        return answers.refused(
            subject, objection, request_id=order.about.request_id, name=order.permit.call.name
        )
    if end.answer.kind is jsonrpc.AnswerKind.ERROR:
        return jsonrpc.error_raw(subject.id, _error(order, end.answer.payload))
    return jsonrpc.result(
        subject.id, modern.adapted(end.answer.payload, modern=subject.modern, method=subject.message.method)
    )


_BAD_REQUESTS = frozenset(
    b"%d" % code
    for code in (conventions.HEADER_MISMATCH, conventions.CAPABILITY_MISSING, conventions.VERSION_UNSUPPORTED)
)
"""Errors that the stateless era sends with status 400 (transports)."""


def status(order: orders.Order, end: endings.End) -> int:
    """The HTTP status of what is told, if it is no stream by then."""
    if end.answer is None or end.answer.kind is not jsonrpc.AnswerKind.ERROR or not order.subject.modern:
        return 200
    return 400 if jsonrpc.members(end.answer.payload).get("code") in _BAD_REQUESTS else 200


def _error(order: orders.Order, raw: bytes) -> bytes:
    """A server's error as it is, but for a code that the agent's revision does not know."""
    if not order.subject.modern or order.permit.call.kind is not call.Kind.RESOURCE:
        return raw
    parts = jsonrpc.members(raw)
    if parts.get("code") != b"%d" % conventions.RESOURCE_NOT_FOUND:
        return raw
    return jsonrpc.spliced({**parts, "code": b"%d" % conventions.INVALID_PARAMS})
