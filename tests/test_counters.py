# SPDX-License-Identifier: Apache-2.0
"""Changing what a counter is keyed by is said: budget, limit, from what, to what, and what follows."""

from __future__ import annotations

import pathlib

import pytest

from outrider import manifests, resources
from outrider_operator import counters

BUDGET = """\
apiVersion: outrider.dev/v1alpha1
kind: MCPBudget
metadata: {name: reads, namespace: crm}
spec:
  targetRefs: [{name: "*"}]
  per: [namespace, tool]
  limits:
  - {name: daily, unit: Calls, quota: {amount: "5", period: Day}}
---
apiVersion: outrider.dev/v1alpha1
kind: Settings
currency: USD
"""


def world(*swaps: tuple[str, str]) -> resources.World:
    text = BUDGET
    for old, new in swaps:
        assert old in text
        text = text.replace(old, new)
    return manifests.load({"a.yaml": text.encode()})


COST = ("unit: Calls", "unit: Cost")


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ((), (("per: [namespace, tool]", "per: [team]"),), "per changed from namespace, tool to team: calls are"),
        ((), (COST,), "unit changed from Calls to Cost"),
        ((), (("period: Day", "period: Month"),), "quota.period changed from Day to Month"),
        ((), (("period: Day", "period: Day, timeZone: Europe/Berlin"),), "quota.timeZone changed from UTC to Europe"),
        ((), (('quota: {amount: "5", period: Day}', 'rate: {perSecond: "1", burst: 1}'),), "from quota to rate"),
        ((COST,), (COST, ("USD", "EUR")), "currency changed from USD to EUR"),
    ],
)  # fmt: skip
def test_each_key_of_a_counter_is_noticed(before, after, words) -> None:
    found = counters.changes(counters.keys(world(*before)), counters.keys(world(*after)))
    assert [(one["budget"], one["limit"]) for one in found] == [("crm/reads", "daily")]
    assert found[0]["message"].startswith("Warning: MCPBudget crm/reads limit daily: ")
    assert words in found[0]["message"]


@pytest.mark.parametrize(
    "harmless",
    [('amount: "5"', 'amount: "9"'), ("[namespace, tool]", "[tool, namespace]"), ("name: daily", "name: other"), ("USD", "EUR")],
)  # fmt: skip
def test_what_keeps_every_counter_is_not_noticed(harmless) -> None:
    assert counters.changes(counters.keys(world()), counters.keys(world(harmless))) == []


def test_keys_are_remembered_over_restarts_and_absences(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "counters.json"
    first = counters.Memory(file)
    assert first.learn(world()) == []
    assert first.learn(resources.World()) == []
    first.save()
    again = counters.Memory(file)
    assert [one["field"] for one in again.learn(world(COST))] == ["unit"]
    assert again.learn(world(COST)) == []


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": 1, "b": {"unit": 2}}', b"[" * 100_000])
def test_a_memory_that_is_damaged_is_no_memory(tmp_path: pathlib.Path, content: bytes) -> None:
    file = tmp_path / "counters.json"
    file.write_bytes(content)
    assert counters.Memory(file).learn(world()) == []
