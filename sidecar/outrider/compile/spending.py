# SPDX-License-Identifier: Apache-2.0
"""Budgets that one call could nearly use up: reserves that are too large for their cap.

Called by checks. Before a call its largest possible cost is reserved; a cap of a few reserves refuses calls while most of it
is unspent.
"""

from __future__ import annotations

from collections.abc import Iterator

from outrider import budgets, resources, rules
from outrider.compile import scope, views
from outrider.findings import Finding, Reason, Severity
from outrider.resources import budget, fields

_PARTS_MIN = 10
"""A cap should hold at least this many reserves (budgets.md)."""


def findings_of(world: resources.World) -> Iterator[Finding]:
    """One finding for each Cost limit and server whose dearest call reserves more than a tenth of it."""
    platform = world.settings.platform_namespace
    index = scope.Index(world.budgets)
    for placed in world.servers:
        server = placed.resource
        for made in index.about(server.id):
            own = made.metadata.namespace
            if not any(
                scope.covers(own, target, server.id, platform=platform) for target in made.spec.target_refs
            ):
                continue
            reserve, tool = _dearest(server, made.spec.tools)
            for position, limit in enumerate(made.spec.limits):
                if _too_large(reserve, limit):
                    yield Finding(
                        Severity.WARNING, Reason.RESERVE_TOO_LARGE, "MCPBudget", own, made.metadata.name,
                        f"spec.limits[{position}].quota.amount",
                        f"one call of {tool} of {server.id} reserves {_decimal(reserve)}, more than a tenth of it",
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
