# SPDX-License-Identifier: Apache-2.0
"""Whether a run may be believed: every call is accounted for wherever it must have left a trace.

Called after each cell and at the end of a run. Pure; every function gives the sentences of what differs, and none is the
only acceptable answer. A run with one sentence is void.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What the load generator says it did."""

    sent: int
    answered: int
    echoed: int
    refused: int
    canaries: int
    wrong: int
    lost: int
    complaint: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """What the upstream counted: calls, of them to other tools than `echo`, and what their heads carried."""

    calls: int
    others: int
    traced: int
    named: int
    credential: int
    anonymous: int
    foreign: int

    def since(self, before: Arrived) -> Arrived:
        return Arrived(
            **{
                field.name: getattr(self, field.name) - getattr(before, field.name)
                for field in dataclasses.fields(self)
            }
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the proxy itself says: metrics' counts of decisions, and the journal's rows."""

    metric_allowed: int
    metric_refused: int
    audit_allowed: int
    audit_refused: int
    audit_unanswered: int
    audit_ids: int
    audit_bodies: int
    chain_whole: bool


def of_answers(sent: Sent, *, refuses: bool) -> list[str]:
    """Every call answered, every answer right, every canary refused where somebody refuses."""
    found = []
    if sent.wrong or sent.lost:
        found.append(
            f"{sent.wrong} wrong and {sent.lost} missing answers (first: {sent.complaint or 'unknown'})"
        )
    if sent.sent != sent.answered:
        found.append(f"{sent.sent} calls sent but {sent.answered} answered")
    wanted = sent.canaries if refuses else 0
    if sent.refused != wanted:
        found.append(f"{sent.refused} calls refused but {wanted} canaries were to be")
    if sent.echoed + sent.refused != sent.sent:
        found.append(f"{sent.echoed} echoes and {sent.refused} refusals do not make {sent.sent} calls")
    if sent.sent == 0:
        found.append("not one call was made")
    return found


def of_upstream(sent: Sent, arrived: Arrived, *, refuses: bool, credential: str | None) -> list[str]:
    """Calls sent = upstream calls + refusals, with the trace, name and credential each must carry.

    `credential` is the counter that must hold every call (`credential`, `anonymous`, `foreign`), None for any.
    """
    found = []
    if arrived.calls + sent.refused != sent.sent:
        found.append(
            f"{sent.sent} calls sent, but {arrived.calls} reached the upstream and {sent.refused} were refused"
        )
    if refuses and arrived.others:
        found.append(f"{arrived.others} denied calls reached the upstream")
    found += [
        f"only {count} of {arrived.calls} upstream calls were {what}"
        for what, count in (("traced", arrived.traced), ("named", arrived.named))
        if count != arrived.calls
    ]
    if credential is not None and getattr(arrived, credential) != arrived.calls:
        found.append(
            f"{arrived.calls} upstream calls, but {getattr(arrived, credential)} of the kind `{credential}` "
            "(credential = ours, anonymous = none, foreign = another)"
        )
    return found


def of_records(sent: Sent, kept: Kept, *, bodies: bool) -> list[str]:
    """Calls = audit records = metric counts, allowed and refused each; with arguments on record if `bodies`."""
    wanted = {
        "metric counts of allowed calls": (kept.metric_allowed, sent.echoed),
        "metric counts of refused calls": (kept.metric_refused, sent.refused),
        "audit records of allowed calls": (kept.audit_allowed, sent.echoed),
        "audit records of refused calls": (kept.audit_refused, sent.refused),
        "distinct request ids in the audit": (kept.audit_ids, sent.sent),
        "allowed calls without an outcome": (kept.audit_unanswered, 0),
        "audit records with arguments": (kept.audit_bodies, sent.sent if bodies else 0),
    }
    found = [f"{what}: {is_} instead of {should}" for what, (is_, should) in wanted.items() if is_ != should]
    if not kept.chain_whole:
        found.append("the journal's chain does not verify")
    return found


def of_budgets(sent: Sent, spent: Mapping[str, float], *, calls_pool: str, cost_pool: str) -> list[str]:
    """The Calls quota counted every allowed call, and the Cost quota something."""
    found = []
    if (calls := spent.get(calls_pool)) != sent.echoed:
        found.append(f"budget {calls_pool}: {calls} spent for {sent.echoed} calls")
    if not spent.get(cost_pool):
        found.append(f"budget {cost_pool}: nothing spent")
    return found


def total(parts: list[Sent]) -> Sent:
    """The sum of several cells."""
    names = [field.name for field in dataclasses.fields(Sent) if field.name != "complaint"]
    return Sent(
        **{name: sum(getattr(part, name) for part in parts) for name in names},
        complaint=next((part.complaint for part in parts if part.complaint), ""),
    )
