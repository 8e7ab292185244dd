# SPDX-License-Identifier: Apache-2.0
"""Whose policy says what, resolved for one workload; and what compile has to say about the rest."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import pytest
from tests.worlds import ALL, CALLS, EVERYONE, OURS, S, allow, budget, deny, policy, server, world

from outrider import budgets, identity, resources, rules, snapshot
from outrider import compile as compiler


def view(made, namespace="agents", account="bot"):
    """The view of crm/s, or None."""
    found = {one.id: one for one in compiler.snapshot(made, namespace, account).servers}
    return found.get(S)


def keys(made, namespace="agents"):
    shown = view(made, namespace)
    return None if shown is None else {(rule.ref.namespace, rule.key.value) for rule in shown.rules}


def test_a_target_in_its_own_namespace_speaks_for_the_provider_to_every_caller() -> None:
    made = world(server(), policy(allow()))
    assert keys(made) == {("crm", "Provider")}
    assert keys(made, "crm") == {("crm", "Provider")}


@pytest.mark.parametrize("target", [OURS, ALL, [{"namespace": "crm", "name": "*"}]])
def test_a_target_elsewhere_speaks_for_the_consumer_and_only_to_its_own_workloads(target) -> None:
    made = world(server(), policy(allow()), policy(allow(), namespace="agents", target=target))
    assert keys(made, "agents") == {("crm", "Provider"), ("agents", "Consumer")}
    assert keys(made, "hr") == {("crm", "Provider")}


def test_the_platform_governs_everyone_when_it_names_a_namespace() -> None:
    for target in (OURS, ALL):
        made = world(server(), policy(allow(), namespace="outrider-system", target=target))
        assert keys(made, "hr") == {("outrider-system", "Platform")}
        assert keys(made, "crm") == {("outrider-system", "Platform")}
    nameless = world(server(namespace="outrider-system"), policy(allow(), namespace="outrider-system"))
    assert compiler.snapshot(nameless, "hr", "bot").servers == ()


def test_what_a_consumer_allows_itself_shows_it_no_server() -> None:
    assert view(world(server(), policy(allow(), namespace="agents", target=ALL))) is None


def test_a_star_of_its_own_namespace_does_not_open_its_own_servers() -> None:
    assert view(world(server(), policy(allow(), target=ALL)), "crm") is None
    opened = world(server(), policy(allow()), policy(deny(), name="q", target=ALL))
    assert keys(opened, "crm") == {("crm", "Provider"), ("crm", "Consumer")}


def test_one_policy_may_hold_both_keys_without_saying_a_rule_twice_with_one() -> None:
    made = world(
        server(), policy(allow(), target=[{"name": "s"}, {"name": "*"}, {"namespace": "*", "name": "*"}])
    )
    shown = view(made, "crm")
    assert [rule.key for rule in shown.rules] == [rules.Key.CONSUMER, rules.Key.PROVIDER]


def test_a_server_no_rule_allows_is_not_in_the_snapshot_but_a_disabled_one_is() -> None:
    assert view(world(server(), policy(deny()))) is None
    assert view(world(server(lifecycle="Disabled"), policy(allow()))).lifecycle is snapshot.Lifecycle.DISABLED


def test_an_audit_mode_policy_is_carried_and_not_enforced() -> None:
    shown = view(world(server(), policy(allow(), mode="Audit")))
    assert [rule.enforced for rule in shown.rules] == [False]


def test_a_deny_that_names_no_tools_covers_all() -> None:
    shown = view(world(server(), policy(allow(), deny())))
    assert {rule.ref.rule: rule.tools for rule in shown.rules} == {"a": ("query",), "d": ("*",)}


TEAMS = {
    "teams": [{"name": "sales", "namespaces": ["agents"]}, {"name": "ops", "serviceAccounts": ["hr/bot"]}]
}


@pytest.mark.parametrize(
    ("who", "matching"),
    [
        ([{"teams": ["sales"]}], {"agents/bot", "agents/cat"}),
        ([{"teams": ["ops"]}], {"hr/bot"}),
        ([{"teams": ["ops", "sales"]}], {"agents/bot", "agents/cat", "hr/bot"}),
        ([{"namespaces": ["hr"]}], {"hr/bot", "hr/cat"}),
        ([{"serviceAccounts": ["hr/cat"]}], {"hr/cat"}),
        ([{"serviceAccounts": ["bot"]}], {"crm/bot"}),
        ([{"namespaces": ["agents"], "serviceAccounts": ["agents/bot"]}], {"agents/bot"}),
        ([{"namespaces": ["hr"], "teams": ["sales"]}], set()),
        ([{"namespaces": ["hr"], "teams": ["ops"]}], {"hr/bot"}),
        ([{"teams": ["ops"]}, {"namespaces": ["crm"]}], {"hr/bot", "crm/bot", "crm/cat"}),
        (EVERYONE, {"agents/bot", "agents/cat", "hr/bot", "hr/cat", "crm/bot", "crm/cat"}),
    ],
)
def test_selectors_match_all_fields_of_an_entry_and_any_entry(who, matching) -> None:
    made = world(server(), policy(allow(who=who)), **TEAMS)
    everyone = [(space, account) for space in ("agents", "hr", "crm") for account in ("bot", "cat")]
    assert {f"{space}/{account}" for space, account in everyone if view(made, space, account)} == matching


def test_the_workload_knows_its_teams_sorted() -> None:
    made = world(teams=[{"name": "z", "namespaces": ["a"]}, {"name": "b", "serviceAccounts": ["a/x"]}])
    assert compiler.snapshot(made, "a", "x").workload == identity.Workload(
        namespace="a", service_account="x", teams=("b", "z")
    )


def test_the_consumers_key_is_needed_across_namespaces_unless_consent_is_implied() -> None:
    objects = (server(), policy(allow()))
    assert view(world(*objects)).consumer_key_needed
    assert not view(world(*objects), "crm").consumer_key_needed
    assert not view(world(*objects, consumerConsent="Implied")).consumer_key_needed


def test_only_matching_credentials_are_carried_and_their_absence_is_remembered() -> None:
    listed = [
        {"name": "a", "from": [{"namespaces": ["agents"]}], "tools": ["get_*"], "file": {"path": "t"}},
        {
            "name": "k",
            "from": [{"namespaces": ["agents"]}],
            "file": {"path": "/k"},
            "inject": {"header": "X-Api-Key"},
        },
        {"name": "n", "from": [{"namespaces": ["hr"]}], "none": True},
    ]
    made = world(server(credentials=listed), policy(allow()))
    bearer, key = view(made).credentials
    assert (bearer.source.path, bearer.header, bearer.prefix) == ("/etc/o/t", "authorization", "Bearer ")
    assert (key.source.path, key.header, key.prefix) == ("/k", "x-api-key", "")
    assert [entry.source for entry in view(made, "hr").credentials] == [None]
    assert view(made, "crm").credentials == ()
    assert view(made, "crm").credential_required
    assert not view(world(server(), policy(allow()))).credential_required


def test_what_stands_below_an_entry_that_takes_every_call_of_a_workload_is_not_carried_to_it() -> None:
    """A proxy fetches what it carries, and Vault has to lend it: neither should be asked for what no call can use."""
    agents, groups, anyone = {"namespaces": ["agents"]}, {"groups": ["okta:sales"]}, {"anyone": True}
    listed = [
        {"name": name, "from": [who], "tools": tools, "file": {"path": name}}
        for name, who, tools in (
            ("some", agents, ["get_*"]), ("users", groups, ["*"]), ("all", agents, ["get_*", "*"]), ("rest", anyone, ["*"]),
            ("never", anyone, ["*"]),
        )
    ]  # fmt: skip
    made = world(server(credentials=listed), policy(allow()))
    assert [entry.name for entry in view(made).credentials] == ["some", "users", "all"]
    assert [entry.name for entry in view(made, "hr").credentials] == ["users", "rest"]


def test_prices_are_micro_units_and_a_tools_price_falls_back_on_the_default() -> None:
    cost = {
        "default": {"perCall": "0.002", "onError": "Zero"},
        "perTool": [
            {"name": "q", "perThousandResultTokens": "0.015", "maxResultBytes": 10},
            {"name": "f", "perCall": "0"},
        ],
    }
    shown = view(world(server(tools={"cost": cost}), policy(allow())))
    assert shown.default_price == budgets.Price(per_call=2000, on_error=budgets.OnError.ZERO)
    assert dict(shown.prices) == {
        "f": budgets.Price(per_call=0, on_error=budgets.OnError.ZERO),
        "q": budgets.Price(
            per_call=2000,
            per_thousand_result_tokens=15_000,
            result_bytes_max=10,
            on_error=budgets.OnError.ZERO,
        ),
    }


def test_limits_are_counted_by_what_per_says() -> None:
    made = world(
        server(), policy(allow()), budget(CALLS, per=["team", "namespace", "serviceAccount", "tool"]), **TEAMS
    )
    [limit] = view(made).limits
    assert limit.key == (("namespace", "agents"), ("serviceAccount", "agents/bot"), ("team", "sales"))
    assert (limit.per_tool, limit.per_server, limit.deny) == (True, False, True)
    assert limit.quota == budgets.Quota(amount=5_000_000, period=budgets.Period.DAY)
    assert [
        one.key for one in view(world(server(), policy(allow()), budget(CALLS, per=["team"]))).limits
    ] == [(("team", "-"),)]


def test_a_workload_of_two_teams_is_charged_to_both() -> None:
    two = [{"name": "x", "namespaces": ["agents"]}, {"name": "y", "namespaces": ["agents"]}]
    made = world(server(), policy(allow()), budget(CALLS, per=["team"]), teams=two)
    assert [limit.key for limit in view(made).limits] == [(("team", "x"),), (("team", "y"),)]


def test_a_budget_counts_own_servers_for_anyone_and_others_for_its_own_workloads() -> None:
    rate = {"name": "r", "unit": "Calls", "rate": {"perSecond": "0.5", "burst": 2}}
    made = world(
        server(), policy(allow()),
        budget(CALLS, name="mine"),
        budget(rate, name="yours", namespace="agents", target=ALL, onExceeded="Warn"),
        budget(CALLS, name="sales-only", **{"from": [{"namespaces": ["sales"]}]}),
        budget(CALLS, name="top", namespace="outrider-system", target=ALL),
    )  # fmt: skip
    assert [limit.budget for limit in view(made).limits] == ["yours", "mine", "top"]
    assert view(made).limits[0].rate == budgets.Rate(per_second=500_000, burst=2_000_000)
    assert not view(made).limits[0].deny
    assert [limit.budget for limit in view(made, "hr").limits] == ["mine", "top"]


def test_commands_need_a_bridge_and_loopback_is_only_what_the_caller_says() -> None:
    made = world(server(endpoint={"command": ["run"]}), policy(allow()))
    assert view(made) is None
    bridged = compiler.snapshot(
        made, "agents", "bot", bridges={S: "http://127.0.0.1:9/mcp"}, loopback=True, epoch=4
    )
    assert bridged.servers[0].endpoint.url == "http://127.0.0.1:9/mcp"
    assert (bridged.network.loopback, bridged.epoch) == (True, 4)
    assert not compiler.snapshot(made, "agents", "bot").network.loopback


def test_a_service_is_called_in_the_servers_own_namespace_and_marked_as_one() -> None:
    made = world(server(endpoint={"service": {"name": "mcp", "port": 80, "path": "/a"}}), policy(allow()))
    [found] = compiler.snapshot(made, "agents", "bot").servers
    assert (found.endpoint.url, found.endpoint.service) == ("http://mcp.crm.svc:80/a", True)
    plain = compiler.snapshot(world(server(), policy(allow())), "agents", "bot")
    assert not plain.servers[0].endpoint.service


def test_everything_a_server_says_reaches_its_view() -> None:
    made = world(
        server(
            title="T", version="1.2", endpoint={
                "url": "https://x.example/mcp", "protocol": "2025-11-25", "headers": {"X-Region": "eu"},
                "timeouts": {"connect": "1s", "call": "2m", "poolIdle": "500ms"}, "maxResultBytes": 2048,
            },
            tools={"include": ["q*"], "exclude": ["x"], "validateArguments": False,
                   "redact": [{"tools": ["q"], "arguments": ["/p"]}]},
            audit={"level": "Full", "durability": "Synced", "onUnavailable": "Allow"},
        ),
        policy(allow()), currency="EUR", network={"allow": [{"suffix": ".corp", "cidr": "10.0.0.0/8"}]},
    )  # fmt: skip
    shown = view(made)
    assert shown.endpoint == snapshot.Endpoint(
        url="https://x.example/mcp", protocol="2025-11-25", headers=(("x-region", "eu"),), connect_seconds=1.0,
        call_seconds=120.0, pool_idle_seconds=0.5, result_bytes_max=2048,
    )  # fmt: skip
    assert (shown.title, shown.version, shown.generation, shown.include, shown.exclude) == (
        "T",
        "1.2",
        7,
        ("q*",),
        ("x",),
    )
    assert not shown.validate_arguments
    assert shown.audit == snapshot.AuditRules(
        level=snapshot.AuditLevel.FULL,
        durability=snapshot.Durability.SYNCED,
        on_unavailable_deny=False,
        redact=(snapshot.Redaction(tools=("q",), arguments=("/p",)),),
    )
    whole = compiler.snapshot(made, "agents", "bot")
    assert whole.currency == "EUR"
    assert whole.network.allow == (snapshot.NetworkAllow(suffix=".corp", cidr="10.0.0.0/8"),)


@hypothesis.given(st.permutations(range(5)))
def test_the_order_of_objects_changes_neither_snapshot_nor_findings(order) -> None:
    objects = (
        server(), policy(allow(), deny(["x"])), policy(allow(), name="o", target=[{"name": "gone"}]),
        policy(allow(), namespace="agents", target=ALL), budget(CALLS, per=["team"]),
    )  # fmt: skip
    made = world(*(objects[index] for index in order), **TEAMS)
    plain = world(*objects, **TEAMS)
    assert snapshot.canonical(compiler.snapshot(made, "agents", "bot")) == snapshot.canonical(
        compiler.snapshot(plain, "agents", "bot")
    )
    assert compiler.check(made) == compiler.check(plain)


SPACES = st.sampled_from(["crm", "agents", "outrider-system"])
TARGETS = st.sampled_from([[{"name": "s"}], OURS, ALL, [{"namespace": "agents", "name": "*"}]])


@hypothesis.given(
    st.lists(
        st.tuples(SPACES, TARGETS, st.booleans(), st.sampled_from([EVERYONE, [{"namespaces": ["agents"]}]])),
        max_size=5,
    ),
    SPACES,
)
def test_no_set_of_policies_shows_a_server_that_neither_its_side_nor_the_platform_allows(
    drawn, caller
) -> None:
    given = [
        policy(allow(who=who) if allows else deny(who=who), namespace=space, target=target, name=f"p{index}")
        for index, (space, target, allows, who) in enumerate(drawn)
    ]
    made = compiler.snapshot(world(server(), server(namespace="agents"), *given), caller, "bot")
    for shown in made.servers:
        opening = [rule for rule in shown.rules if rule.effect is rules.Effect.ALLOW]
        assert any(rule.ref.namespace in (shown.id.namespace, "outrider-system") for rule in opening)
        for rule in shown.rules:
            if rule.key is rules.Key.CONSUMER:
                assert rule.ref.namespace == caller


def test_an_empty_world_is_an_empty_snapshot() -> None:
    assert compiler.snapshot(resources.World(), "a", "b").servers == ()
    assert compiler.check(resources.World()) == ()


# Every kind -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({}, (("*",), ("*",), ("*",))),
        ({"tools": ["a"]}, (("a",), (), ())),
        ({"prompts": ["b", "c"]}, ((), ("b", "c"), ())),
        ({"tools": ["a"], "resources": ["x://*"]}, (("a",), (), ("x://*",))),
    ],
)
def test_a_deny_that_names_no_kind_is_about_all_and_one_that_names_some_about_those(named, expected) -> None:
    quiet = {"name": "no", "effect": "Deny", **named}
    shown = view(world(server(), policy(allow(), quiet)))
    [found] = [rule for rule in shown.rules if rule.effect is rules.Effect.DENY]
    assert (found.tools, found.prompts, found.resources) == expected


@pytest.mark.parametrize("kind", ["prompts", "resources"])
def test_an_allow_of_another_kind_lets_a_workload_know_the_server_too(kind) -> None:
    words = {"name": "words", "effect": "Allow", "from": EVERYONE, kind: ["*"]}
    shown = view(world(server(), policy(words)))
    assert shown is not None
    assert [(rule.tools, getattr(rule, kind)) for rule in shown.rules] == [((), ("*",))]


def test_what_an_entry_says_about_streams_questions_and_instructions_is_in_its_view() -> None:
    plain = view(world(server(), policy(allow())))
    assert (plain.features, plain.instructions) == (snapshot.ClientFeatures(), False)
    assert (plain.endpoint.transport, plain.endpoint.stream_seconds) == ("StreamableHTTP", 600.0)
    shown = view(world(
        server(
            endpoint={"url": "https://s.example/sse", "transport": "SSE", "timeouts": {"stream": "30s"}},
            clientFeatures={
                "elicitation": {"form": "Deny", "urlHosts": ["a.example"]}, "sampling": "Allow", "roots": "Allow",
            },
            instructions="Pass",
        ),
        policy(allow()),
    ))  # fmt: skip
    assert shown.features == snapshot.ClientFeatures(
        elicitation_form=False, elicitation_url_hosts=("a.example",), sampling=True, roots=True
    )
    assert shown.instructions
    assert (shown.endpoint.transport, shown.endpoint.stream_seconds) == ("SSE", 30.0)
