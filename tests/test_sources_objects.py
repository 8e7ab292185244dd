# SPDX-License-Identifier: Apache-2.0
"""Objects of an API server: a broken one changes nothing, and one that nobody ever read whole allows nothing."""

from __future__ import annotations

import copy

import hypothesis
import hypothesis.strategies as st
import pytest
from tests.worlds import CALLS, EVERYONE, allow, budget, deny, policy, server

from outrider import compile as compiler
from outrider import manifests, resources, rules
from outrider_operator.sources import objects


def raw(made, *, generation=1, uid="u1", **status):
    whole = copy.deepcopy(made)
    whole["metadata"] |= {
        "generation": generation, "uid": uid, "resourceVersion": "5", "managedFields": [{"manager": "kubectl"}],
        "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": "x"},
    }  # fmt: skip
    return whole | ({"status": status} if status else {})


def broken(made, **spec):
    whole = copy.deepcopy(made)
    whole["spec"] |= spec or {"fro": 1}
    return whole


def view(shelf, namespace="agents"):
    made = resources.World(
        servers=shelf.placed("MCPServer"),
        policies=shelf.placed("MCPToolPolicy"),
        budgets=shelf.placed("MCPBudget"),
    )
    found = compiler.snapshot(made, namespace, "bot").servers
    return found[0] if found else None


def test_an_object_is_read_once_for_each_generation_and_keeps_its_place() -> None:
    shelf = objects.Shelf()
    first = shelf.put("MCPServer", raw(server()))
    again = shelf.put("MCPServer", raw(server(), observedGeneration=1))
    assert again.placed is first.placed
    assert again.status == {"observedGeneration": 1}
    assert (again.problems, again.instead) == ((), "")
    edited = shelf.put("MCPServer", raw(server(title="T"), generation=2))
    assert edited.placed.resource.spec.title == "T"
    assert shelf.placed("MCPServer") == (edited.placed,)


def test_a_broken_generation_leaves_the_last_valid_one_in_force() -> None:
    shelf = objects.Shelf()
    shelf.put("MCPServer", raw(server()))
    shelf.put("MCPToolPolicy", raw(policy(allow(["a"])), generation=3))
    for generation in (4, 5):
        made = shelf.put("MCPToolPolicy", raw(broken(policy(allow(["b"]))), generation=generation))
        assert [problem.field for problem in made.problems] == ["spec.fro"]
        assert made.instead == "Generation 3 stays in force."
        assert [rule.tools for rule in view(shelf).rules] == [("a",)]
    mended = shelf.put("MCPToolPolicy", raw(policy(allow(["c"])), generation=6))
    assert (mended.problems, mended.instead) == ((), "")
    assert [rule.tools for rule in view(shelf).rules] == [("c",)]


def test_an_object_of_the_same_name_with_another_uid_inherits_nothing() -> None:
    shelf = objects.Shelf()
    shelf.put("MCPServer", raw(server()))
    made = shelf.put("MCPServer", raw(broken(server()), uid="u2"))
    assert made.placed is None
    assert made.instead == "Nothing of it is in force, so the server cannot be called."


def test_what_is_dropped_is_gone() -> None:
    shelf = objects.Shelf()
    shelf.put("MCPServer", raw(server()))
    shelf.drop("MCPServer", "crm", "s")
    assert shelf.placed("MCPServer") == ()


def after_a_restart(made):
    shelf = objects.Shelf()
    shelf.put("MCPServer", raw(server()))
    shelf.put("MCPToolPolicy", raw(policy(allow(["a", "b"]), name="open")))
    return shelf, shelf.put(made["kind"], raw(made))


def test_the_denies_of_a_policy_never_read_whole_hold_and_its_allows_do_not() -> None:
    shelf, made = after_a_restart(broken(policy(allow(["c"]), deny(["a"], who=EVERYONE), name="p")))
    assert made.instead == "None of its Allows is in force, and what it denies stays denied."
    found = {rule.ref.rule: rule for rule in view(shelf).rules if rule.ref.policy == "p"}
    assert {name: (rule.effect, rule.tools) for name, rule in found.items()} == {
        "d": (rules.Effect.DENY, ("a",))
    }


def test_a_deny_that_cannot_be_read_denies_everything_of_its_targets() -> None:
    future = {"name": "late", "effect": "Deny", "tools": ["a"], "when": "now > deadline"}
    shelf, _ = after_a_restart(policy(future, name="p"))
    [rule] = [rule for rule in view(shelf).rules if rule.ref.policy == "p"]
    assert (rule.effect, rule.tools, rule.ref.rule) == (rules.Effect.DENY, ("*",), "unreadable-0")
    elsewhere = policy(future, name="p", target=[{"name": "other"}])
    shelf, _ = after_a_restart(elsewhere)
    assert [rule.ref.policy for rule in view(shelf).rules] == ["open"]


def test_targets_that_cannot_be_read_are_all_servers_it_could_have_meant() -> None:
    for target in ([{"name": "BAD NAME"}], [], "s"):
        shelf, _ = after_a_restart(broken(policy(deny(), name="p"), targetRefs=target))
        assert "p" in {rule.ref.policy for rule in view(shelf).rules}


@pytest.mark.parametrize(
    "made",
    [broken(policy(allow(["c"]), name="p")), broken(policy(deny(), name="p", mode="Audit"))],
)
def test_a_policy_that_could_only_have_allowed_or_recorded_is_left_out(made) -> None:
    _, watched = after_a_restart(made)
    assert watched.placed is None
    assert "Nothing of it is in force" in watched.instead


def test_a_budget_never_read_whole_refuses_what_it_would_have_counted() -> None:
    shelf, made = after_a_restart(broken(budget(CALLS)))
    assert "refused" in made.instead
    [limit] = view(shelf).limits
    assert (limit.budget, limit.quota.amount, limit.deny) == ("b", 0, True)
    shelf, _ = after_a_restart(broken(budget(CALLS, onExceeded="Warn")))
    assert view(shelf).limits == ()


def test_a_name_that_is_none_of_ours_is_guarded_under_another() -> None:
    made = policy(deny(), name="a.b")
    shelf, watched = after_a_restart(made)
    assert [problem.field for problem in watched.problems] == ["metadata.name"]
    assert [rule.ref.policy[:11] for rule in view(shelf).rules if rule.ref.policy != "open"] == [
        "unreadable-"
    ]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@hypothesis.given(
    st.sampled_from(["MCPServer", "MCPToolPolicy", "MCPBudget"]),
    json_values,
    st.dictionaries(st.sampled_from(["targetRefs", "rules", "mode", "limits", "onExceeded"]), json_values),
)
def test_whatever_an_object_holds_it_is_read_or_refused_and_what_guards_it_is_valid(
    kind, other, spec
) -> None:
    for given in (spec, other):
        made = raw({"apiVersion": "outrider.dev/v1alpha1", "kind": kind,
                    "metadata": {"name": "x", "namespace": "crm"}, "spec": given})  # fmt: skip
        watched = objects.Shelf().put(kind, made)
        assert watched.problems or watched.placed
        if kind == "MCPToolPolicy" and watched.problems and watched.placed:
            assert all(rule.effect is rules.Effect.DENY for rule in watched.placed.resource.spec.rules)
        assert isinstance(manifests.kubernetes_object(made), tuple) == bool(watched.problems)
