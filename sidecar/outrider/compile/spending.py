# SPDX-License-Identifier: Apache-2.0
"""Budgets that one call could nearly use up: reserves that are too large for their cap.

Called by checks. Before a call its largest possible cost is reserved; a cap of a few reserves refuses calls while most of it
is unspent.
"""

from __future__ import annotations

from collections.abc import Iterator

from outrider import budgets, resources, rules
from outrider.compile import objects, views
from outrider.findings import Finding, Reason, Severity
from outrider.resources import budget, fields

_PARTS_MIN = 10
"""A cap should hold at least this many reserves (budgets.md)."""


def of(known: objects.Objects, made: resources.MCPBudget) -> Iterator[Finding]:
    """One finding for each Cost limit and server whose dearest call reserves more than a tenth of it."""
    if not any(limit.quota is not None and limit.unit is budgets.Unit.COST for limit in made.spec.limits):
        return
    for server in sorted(known.covered(made.metadata.namespace, made.spec.target_refs)):
        reserve, tool = _dearest(known.servers[server], made.spec.tools)
        for position, limit in enumerate(made.spec.limits):
            if _too_large(reserve, limit):
                yield Finding(
                    Severity.WARNING, Reason.RESERVE_TOO_LARGE, *objects.about(made),
                    f"spec.limits[{position}].quota.amount",
                    f"one call of {tool} of {server} reserves {_decimal(reserve)}, more than a tenth of it",
                    "Lower maxResultBytes of the tool's price, or raise the amount.",
                )  # fmt: skip


def _too_large(reserve: int, limit: budget.Limit) -> bool:
    if limit.quota is None or limit.unit is not budgets.Unit.COST:
        return False
    amount = fields.micro(limit.quota.amount)
    return 0 < amount < reserve * _PARTS_MIN


def _dearest(server: resources.MCPServer, tools: tuple[str, ...]) -> tuple[int, str]:
    """The largest reserve among the tools counted, in micro-units, and whose it is."""
    cost = server.spec.tools.cost
    counted = rules.exact(tools)
    own = {entry.name: entry for entry in cost.per_tool}
    found = [
        (budgets.reserve(views.price(entry, default=cost.default)), name)
        for name, entry in own.items()
        if counted(name)
    ]
    others = [glob for glob in tools if "*" in glob or glob not in own]
    if others:
        found.append((budgets.reserve(views.price(cost.default)), f'"{others[0]}"'))
    return max(found, default=(0, ""))


def _decimal(micro: int) -> str:
    whole, part = divmod(micro, budgets.MICRO)
    return f"{whole}.{part:06d}".rstrip("0").rstrip(".")
