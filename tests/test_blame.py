# SPDX-License-Identifier: Apache-2.0
"""A refusal names the object that its author can mend, or none."""

from __future__ import annotations

import json

import pytest

from outrider import budgets, names, rules, snapshot, testing
from outrider_sidecar import blame

LIMIT = budgets.Limit(
    namespace="agents", budget="daily", name="calls", unit=budgets.Unit.CALLS,
    quota=budgets.Quota(amount=1, period=budgets.Period.DAY),
)  # fmt: skip
RULE = rules.Rule(
    ref=names.RuleRef("crm", "sales", "read", 4), effect=rules.Effect.ALLOW, key=rules.Key.PROVIDER, tools=("*",)
)  # fmt: skip
CONTENT = snapshot.canonical(testing.a_snapshot(testing.a_server(testing.allow(), RULE, limits=(LIMIT,))))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("$.servers[0].rules[1].tools", ("MCPToolPolicy crm/sales", 4)), ("$.servers[0].limits[0]", ("MCPBudget agents/daily", 0)),
        ("$.servers[0].endpoint.url", ("MCPServer crm/salesforce", 1)), ("$.servers[0]", ("MCPServer crm/salesforce", 1)),
        ("$.servers[7]", ("", 0)), ("$.servers[0].rules[9]", ("", 0)), ("$.network", ("", 0)), ("", ("", 0)),
        ("$.servers[999999999999]", ("", 0)),
    ],
)  # fmt: skip
def test_a_place_leads_to_the_object_it_comes_from(path, source) -> None:
    assert blame.source(CONTENT, path) == source


@pytest.mark.parametrize(
    "change",
    [
        lambda view: view.update(id=5), lambda view: view.update(id=["a"]), lambda view: view.update(id=["a", 5]),
        lambda view: view.update(id=["a", "b" * 999]), lambda view: view.pop("id"), lambda view: view.pop("generation"),
    ],
    ids=range(6),
)  # fmt: skip
def test_what_is_damaged_itself_is_not_named(change) -> None:
    value = json.loads(CONTENT)
    change(value["servers"][0])
    assert blame.source(json.dumps(value).encode(), "$.servers[0]")[0] == ""


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"servers":5}', b"[" * 100_000, b"\xff"])
def test_no_content_makes_it_fail(content) -> None:
    assert blame.source(content, "$.servers[0].rules[0]") == ("", 0)
