# SPDX-License-Identifier: Apache-2.0
"""Builders for tests and examples: the shortest way to say "a server with this rule".

Called by tests only. Everything it makes is what compile would make; nothing here is a double of our own code.
"""

from __future__ import annotations

from typing import Any

import msgspec

from outrider import bind, budgets, catalog, identity, names, rules, snapshot

CRM = names.ServerId("crm", "salesforce")
AGENT = identity.Workload(namespace="crm", service_account="bot")


def a_rule(effect: str, *tools: str, key: str = "Provider", name: str = "r", **more: Any) -> rules.Rule:
    """A rule of the policy `crm/p`; `more` are fields of Rule."""
    ref = names.RuleRef("crm", "p", name, 1)
    return rules.Rule(ref=ref, effect=rules.Effect(effect), key=rules.Key(key), tools=tools or ("*",), **more)


def allow(*tools: str, **more: Any) -> rules.Rule:
    return a_rule("Allow", *tools, **more)


def deny(*tools: str, **more: Any) -> rules.Rule:
    return a_rule("Deny", *tools, **{"name": "d", **more})


def a_user(*groups: str, id: str = "okta:ada", names: tuple[str, ...] = (), **more: Any) -> identity.User:  # noqa: A002 -- the field's name
    """A user of the provider `okta`; groups are of the same provider unless they say otherwise."""
    whole = frozenset(group if ":" in group else f"okta:{group}" for group in groups)
    return identity.User(id=id, names=frozenset({id, *names}), groups=whole, **more)


def callers(**fields: Any) -> rules.Callers:
    """What a `from` of one entry says about users; the fields are those of UserTest."""
    whole: dict[str, Any] = {
        name: tuple(each) if isinstance(each, list) else each for name, each in fields.items()
    }
    return (rules.UserTest(**whole),)


def a_server(
    *chosen: rules.Rule, server: names.ServerId = CRM, url: str = "http://127.0.0.1:9/mcp", **more: Any
) -> snapshot.ServerView:
    """A server entry with these rules."""
    return snapshot.ServerView(
        id=server, generation=1, endpoint=snapshot.Endpoint(url=url), rules=chosen, **more
    )


def a_snapshot(
    *servers: snapshot.ServerView, workload: identity.Workload = AGENT, **more: Any
) -> snapshot.Snapshot:
    return snapshot.Snapshot(epoch=1, workload=workload, servers=servers, **more)


def tools(*tool_names: str, schema: dict[str, Any] | None = None) -> catalog.Definitions:
    """Definitions as a server would list them."""
    raws = (
        msgspec.json.encode({"name": name, "inputSchema": schema or {"type": "object"}})
        for name in tool_names
    )
    return catalog.definitions(raws)


def bound_to(view: snapshot.ServerView, *tool_names: str, workload: identity.Workload = AGENT) -> bind.Bound:
    """One server, these tools observed."""
    return bind.bound(a_snapshot(view, workload=workload), {view.id: tools(*tool_names)})


def a_limit(*, calls: int | None = None, cost: int | None = None, **more: Any) -> budgets.Limit:
    """A monthly limit of whole calls, or of micro-units of cost."""
    unit, amount = (
        (budgets.Unit.CALLS, (calls or 0) * budgets.MICRO) if cost is None else (budgets.Unit.COST, cost)
    )
    quota = budgets.Quota(amount=amount, period=budgets.Period.MONTH)
    return budgets.Limit(
        **{"namespace": "crm", "budget": "b", "name": "l", "unit": unit, "quota": quota, **more}
    )
