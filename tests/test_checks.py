# SPDX-License-Identifier: Apache-2.0
"""What compile finds across objects: sound claims, each with its place, and silence about what is in order."""

from __future__ import annotations

import pytest
from tests.worlds import ALL, CALLS, EVERYONE, OURS, S, allow, budget, deny, policy, server, world

from outrider import compile as compiler
from outrider.findings import Reason


def reasons(made, *args, **more):
    return {(finding.reason, finding.name, finding.path) for finding in compiler.check(made, *args, **more)}


QUIET = {"credentials": [{"name": "c", "from": EVERYONE, "none": True}]}


def test_a_sound_world_has_no_findings() -> None:
    made = world(server(**QUIET), policy(allow(["get_*"])), budget(CALLS))
    assert compiler.check(made, {S: ("get_a",)}) == ()


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ([policy(allow(), target=[{"name": "s"}, {"name": "z"}])], (Reason.TARGET_NOT_FOUND, "p", "spec.targetRefs[1]")),
        ([budget(CALLS, target=[{"name": "z"}])], (Reason.TARGET_NOT_FOUND, "b", "spec.targetRefs[0]")),
        ([policy(allow(), target=[{"namespace": "no", "name": "*"}])], (Reason.TARGET_NOT_FOUND, "p", "spec.targetRefs[0]")),
        ([policy(allow(), namespace="outrider-system")],
         (Reason.PLATFORM_TARGET_NEEDS_NAMESPACE, "p", "spec.targetRefs[0]")),
        ([policy(allow(who=[{"teams": ["slaes"]}]))], (Reason.NEVER_MATCHES, "p", "spec.rules[0].from[0].teams")),
        ([policy(allow(who=[{"namespaces": ["a"], "serviceAccounts": ["b/x"]}]))],
         (Reason.NEVER_MATCHES, "p", "spec.rules[0].from[0]")),
        ([policy(allow(who=[{"namespaces": ["hr"]}]), namespace="agents", target=OURS)],
         (Reason.NEVER_MATCHES, "p", "spec.rules[0].from[0]")),
        ([budget(CALLS, **{"from": [{"teams": ["slaes"]}]})], (Reason.NEVER_MATCHES, "b", "spec.from[0].teams")),
        ([policy(allow(["a*"]), deny(["A*"]))], (Reason.SHADOWED, "p", "spec.rules[0].tools[0]")),
        ([policy(allow(["a", "b"]), deny(["b"], who=EVERYONE))], (Reason.SHADOWED, "p", "spec.rules[0].tools[1]")),
        ([policy(allow()), policy(deny(), name="top", namespace="outrider-system", target=ALL)],
         (Reason.SHADOWED, "p", "spec.rules[0].tools[0]")),
        ([policy(allow(), namespace="agents", target=ALL), policy(deny(), name="q", namespace="agents", target=ALL)],
         (Reason.SHADOWED, "p", "spec.rules[0].tools[0]")),
    ],
)  # fmt: skip
def test_what_does_not_do_what_it_seems_to_do_is_found(made, expected) -> None:
    found = reasons(world(server(**QUIET), *made, teams=[{"name": "sales", "namespaces": ["agents"]}]))
    assert found == {expected}


@pytest.mark.parametrize(
    "made",
    [
        [policy(allow(), deny(who=[{"namespaces": ["hr"]}]))],
        [policy(allow()), policy(deny(), name="q", mode="Audit")],
        [policy(allow()), policy(deny(), name="q", namespace="agents", target=OURS)],
        [policy(allow(["a*"]), deny(["ab*"]))],
        [policy(allow(["*"]), deny(["a*"]))],
    ],
)
def test_a_deny_for_fewer_callers_or_tools_shadows_nothing(made) -> None:
    assert reasons(world(server(**QUIET), *made)) == set()


def test_an_allow_is_shadowed_only_if_it_is_at_every_server_it_is_for() -> None:
    target = [{"name": "*"}]
    closed = server(**QUIET, tools={"exclude": ["query"]})
    one = world(closed, server("t", **QUIET), policy(allow(), target=target))
    assert reasons(one) == set()
    both = world(closed, server("t", **QUIET, tools={"exclude": ["Q*"]}), policy(allow(), target=target))
    assert reasons(both) == {(Reason.SHADOWED, "p", "spec.rules[0].tools[0]")}


def test_unknown_tools_are_found_once_the_servers_lists_are_known() -> None:
    made = world(
        server(**QUIET, tools={"cost": {"perTool": [{"name": "gone"}]}}),
        policy(allow(["quer", "get_*", "*"]), deny(["DROP_*", "nix"])),
        budget(CALLS, tools=["query", "lost"]),
    )
    assert reasons(made) == set()
    found = compiler.check(made, {S: ("query", "drop_all", "get_x")})
    assert {(finding.name, finding.path) for finding in found} == {
        ("p", "spec.rules[0].tools[0]"),
        ("p", "spec.rules[1].tools[1]"),
        ("b", "spec.tools[1]"),
        ("s", "spec.tools.cost.perTool[0]"),
    }
    assert {finding.reason for finding in found} == {Reason.UNKNOWN_TOOL}
    assert any(finding.remedy == 'Did you mean "query"?' for finding in found)


OKTA = {
    "name": "okta",
    "issuer": "https://okta.example",
    "audience": "o",
    "jwksUri": "https://okta.example/k",
}
BOARD = {"teams": [{"name": "board", "groups": ["okta:board"]}], "identityProviders": [OKTA]}


@pytest.mark.parametrize("who", [{"users": ["otka:ada"]}, {"groups": ["otka:g"]}, {"clients": ["otka:cli"]}])
def test_users_whose_tokens_nobody_can_verify_are_found_wherever_they_are_named(who) -> None:
    [field] = who
    allowed = world(server(**QUIET), policy(allow(who=[who])), identityProviders=[OKTA])
    assert reasons(allowed) == {(Reason.UNKNOWN_PROVIDER, "p", f"spec.rules[0].from[0].{field}[0]")}
    [found] = compiler.check(allowed)
    assert found.remedy.startswith('Did you mean "okta:')
    denied = world(server(**QUIET), policy(allow(), deny(who=[who])), identityProviders=[OKTA])
    assert reasons(denied) == {(Reason.UNKNOWN_PROVIDER, "p", f"spec.rules[1].from[0].{field}[0]")}
    counted = world(server(**QUIET), budget(CALLS, **{"from": [who]}))
    assert reasons(counted) == {(Reason.UNKNOWN_PROVIDER, "b", f"spec.from[0].{field}[0]")}


def test_a_team_of_groups_only_lets_no_pod_in_and_may_keep_users_out() -> None:
    who = [{"teams": ["board"]}]
    allowed = world(server(**QUIET), policy(allow(who=who)), **BOARD)
    assert reasons(allowed) == {(Reason.NEVER_MATCHES, "p", "spec.rules[0].from[0].teams")}
    assert "no workload is in team" in str(compiler.check(allowed)[0])
    assert reasons(world(server(**QUIET), policy(allow(), deny(who=who)), **BOARD)) == set()
    lent = server(credentials=[{"name": "c", "from": who, "none": True}])
    assert reasons(world(lent, **BOARD)) == {(Reason.NEVER_MATCHES, "s", "spec.credentials[0].from[0].teams")}


def test_a_deny_of_some_users_shadows_nothing() -> None:
    for who in ({"users": ["okta:ada"]}, {"teams": ["board"]}, {"groups": ["okta:board"]}):
        assert reasons(world(server(**QUIET), policy(allow(), deny(who=[who])), **BOARD)) == set()


def test_a_server_without_credential_or_bridge_is_found() -> None:
    assert reasons(world(server())) == {(Reason.NO_CREDENTIAL, "s", "spec.credentials")}
    made = world(server(endpoint={"command": ["x"]}))
    assert reasons(made) == {(Reason.COMMAND_WITHOUT_BRIDGE, "s", "spec.endpoint.command")}
    assert reasons(made, bridges={S: "http://127.0.0.1:1/"}) == set()


@pytest.mark.parametrize(("amount", "found"), [("0.9", True), ("10", False), ("0", False)])
def test_a_budget_of_a_few_reserves_is_found(amount, found) -> None:
    cost = {"perTool": [{"name": "q", "perCall": "0.1"}]}
    spend = {"name": "m", "unit": "Cost", "quota": {"amount": amount, "period": "Month"}}
    made = world(server(**QUIET, tools={"cost": cost}), budget(spend, tools=["q"]))
    assert bool(reasons(made)) is found
    assert reasons(made) <= {(Reason.RESERVE_TOO_LARGE, "b", "spec.limits[0].quota.amount")}


def test_missing_consent_is_found_for_the_laptops_own_workload() -> None:
    who = {"workload": {"namespace": "agents", "serviceAccount": "bot"}}
    objects = (server(**QUIET), policy(allow()))
    assert reasons(world(*objects, **who)) == {(Reason.CONSENT_MISSING, "s", "")}
    assert reasons(world(*objects, consumerConsent="Implied", **who)) == set()
    assert reasons(world(*objects, policy(allow(), namespace="agents", target=OURS), **who)) == set()


def test_a_thousand_servers_and_policies_compile_without_reading_each_for_each() -> None:
    many = [server(f"s{n}", **QUIET) for n in range(1000)]
    many += [policy(allow(), name=f"p{n}", target=[{"name": f"s{n}"}]) for n in range(1000)]
    made = world(*many)
    assert len(compiler.snapshot(made, "agents", "bot").servers) == 1000
    assert compiler.check(made) == ()


def test_prompts_that_no_server_lists_are_told_with_what_may_have_been_meant() -> None:
    words = {
        "name": "words",
        "effect": "Allow",
        "from": [{"anyone": True}],
        "prompts": ["gret", "write *", "*"],
    }
    quiet = {"name": "quiet", "effect": "Deny", "prompts": ["GREET", "nothing"]}
    made = world(server(), policy(words, quiet))
    found = {
        (each.reason.value, each.path): each.remedy
        for each in compiler.check(made, prompts={S: ("greet",)})
        if each.kind == "MCPToolPolicy"
    }
    assert found == {
        ("UnknownPrompt", "spec.rules[0].prompts[0]"): 'Did you mean "greet"?',
        ("UnknownPrompt", "spec.rules[0].prompts[1]"): "Correct it, or remove it.",
        ("UnknownPrompt", "spec.rules[1].prompts[1]"): "Correct it, or remove it.",
    }
    assert not any(each.reason.value == "UnknownPrompt" for each in compiler.check(made))


@pytest.mark.parametrize(
    ("deny", "places"),
    [
        ({"prompts": ["*"]}, ["prompts[0]"]),
        ({"resources": ["FILE:///*"]}, ["resources[0]"]),
        ({}, ["prompts[0]", "resources[0]", "resources[1]", "tools[0]"]),
        ({"tools": ["other"]}, []),
        ({"resources": ["file:///docs/secret"]}, []),
    ],
)
def test_an_allow_is_shadowed_kind_by_kind(deny: dict[str, list[str]], places: list[str]) -> None:
    allow = {
        "name": "all", "effect": "Allow", "from": [{"anyone": True}], "tools": ["query"], "prompts": ["greet"],
        "resources": ["file:///docs/*", "db://7"],
    }  # fmt: skip
    made = world(server(), policy(allow, {"name": "no", "effect": "Deny", **deny}))
    found = [each.path for each in compiler.check(made) if each.reason.value == "Shadowed"]
    assert sorted(found) == [f"spec.rules[0].{place}" for place in places]
