# SPDX-License-Identifier: Apache-2.0
"""Joining a snapshot with definitions."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from outrider import bind, budgets, call, catalog, identity, names, rules, testing

ELSEWHERE = names.ServerId("tools", "time")


def test_a_target_holds_the_rules_that_match_its_name_in_order_and_each_once() -> None:
    view = testing.a_server(
        testing.allow("query", "q*", name="b"), testing.allow("*", name="a"), testing.allow("other", name="c")
    )
    target = testing.bound_to(view, "query").servers[view.id].targets[call.Kind.TOOL, "query"]
    assert [rule.ref.rule for rule in target.provider] == ["a", "b"]
    assert target.consumer is None


def test_prices_and_limits_are_joined_by_name() -> None:
    price = budgets.Price(per_call=7)
    limits = (testing.a_limit(calls=1, name="all"), testing.a_limit(cost=9, name="q", tools=("q*",)))
    view = testing.a_server(testing.allow(), prices=(("query", price),), limits=limits)
    targets = testing.bound_to(view, "query", "get").servers[view.id].targets
    query, get = targets[call.Kind.TOOL, "query"], targets[call.Kind.TOOL, "get"]
    assert (query.price, get.price) == (price, view.default_price)
    assert [held.pool.limit.name for held in query.reservations] == ["all", "q"]
    assert [held.amount for held in query.reservations] == [budgets.MICRO, budgets.reserve(price)]
    assert [held.pool.limit.name for held in get.reservations] == ["all"]


def test_a_merged_name_leads_back_to_its_server_and_tool() -> None:
    long = "t" * 100
    servers = [testing.a_server(testing.allow()), testing.a_server(testing.allow(), server=ELSEWHERE)]
    observed = {testing.CRM: testing.tools("query", "a.b", long), ELSEWHERE: testing.tools("query")}
    bound = bind.bound(testing.a_snapshot(*servers), observed)
    for server, tool in (
        (testing.CRM, "query"),
        (testing.CRM, "a.b"),
        (testing.CRM, long),
        (ELSEWHERE, "query"),
    ):
        assert bound.named(catalog.exposed_name(server, tool, "crm")) == (server, tool)
    assert bound.named("salesforce__nothing") == (testing.CRM, "nothing")
    assert bound.named("nobody__query") is None
    assert bound.named("query") is None


def test_a_merged_name_of_an_unobserved_server_leads_to_the_server() -> None:
    bound = bind.bound(testing.a_snapshot(testing.a_server(testing.allow())), {})
    assert bound.named("salesforce__query") == (testing.CRM, "query")


def test_new_definitions_replace_only_their_server() -> None:
    servers = [testing.a_server(testing.allow()), testing.a_server(testing.allow(), server=ELSEWHERE)]
    before = bind.bound(testing.a_snapshot(*servers), {testing.CRM: testing.tools("query")})
    after = before.with_definitions(ELSEWHERE, testing.tools("now"))
    assert before.servers[ELSEWHERE].targets is None
    assert after.servers[testing.CRM] is before.servers[testing.CRM]
    assert [key[1] for key in after.servers[ELSEWHERE].targets] == ["now"]
    assert after.with_definitions(names.ServerId("no", "such"), testing.tools()) is after


def test_a_list_that_changed_joins_anew_what_changed_and_nothing_else() -> None:
    def listed(*tools: str, template: str) -> catalog.Definitions:
        raws = [json.dumps({"name": name, "inputSchema": {"type": "object"}}).encode() for name in tools]
        templates = [json.dumps({"uriTemplate": f"file:///{template}/{{x}}", "name": "t"}).encode()]
        return catalog.definitions(raws, templates=templates)

    view = testing.a_server(testing.allow(resources=("*",)))
    before = bind.bound(testing.a_snapshot(view), {view.id: listed("a", "b", "gone", template="x")})
    other = json.dumps({"name": "b", "description": "Other.", "inputSchema": {"type": "object"}}).encode()
    found = dataclasses.replace(
        listed("c", "a", template="x"),
        tools=(*listed("c", "a", template="x").tools, *catalog.definitions([other]).tools),
    )
    after = before.with_definitions(view.id, found)
    was, now = before.servers[view.id], after.servers[view.id]
    tool = call.Kind.TOOL
    assert [name for _, name in now.targets] == ["c", "a", "b"]
    assert now.targets[tool, "a"] is was.targets[tool, "a"]
    assert now.targets[tool, "b"].definition.raw == other
    assert now.templates["file:///x/{x}"] is was.templates["file:///x/{x}"]
    fresh = bind.bound(testing.a_snapshot(view), {view.id: found}).servers[view.id]
    assert list(fresh.targets) == list(now.targets)
    assert set(fresh.exposed) == set(now.exposed)


def test_the_alias_is_short_only_within_the_workloads_namespace() -> None:
    bound = bind.bound(
        testing.a_snapshot(
            testing.a_server(), workload=identity.Workload(namespace="x", service_account="y")
        ),
        {},
    )
    assert dict(bound.aliases) == {"crm_salesforce": testing.CRM}


def test_what_the_list_shows_to_be_wrong_is_a_finding_with_object_path_cause_and_remedy() -> None:
    view = testing.a_server(testing.allow("query", "qeury", "broken"), testing.deny("DEBUG_*", "QUERY"))
    good = b'{"name":"%s","inputSchema":{"type":"object"}}'
    observed = catalog.definitions([good % b"query", good % b"query", good % b"a b", b'{"name":"broken"}'])
    bound = bind.bound(testing.a_snapshot(view), {view.id: observed})
    found = bind.objections(bound.servers[view.id], observed)
    assert [(each.reason.value, each.kind, each.path) for each in found] == [
        ("DuplicateName", "MCPServer", "spec.endpoint"),
        ("UnusableToolName", "MCPServer", "spec.endpoint"),
        ("DefinitionsRefused", "MCPServer", "spec.endpoint"),
        ("UnknownTool", "MCPToolPolicy", "spec.rules[r].tools"),
        ("UnknownTool", "MCPToolPolicy", "spec.rules[d].tools"),
    ]
    assert "inputSchema" in found[2].message
    assert "'qeury'" in str(found[3])
    assert all(each.remedy and each.namespace == "crm" for each in found)
    assert not any("left out. It is left out" in str(each) for each in found)


def test_rules_written_for_other_servers_too_are_not_held_against_one_servers_list() -> None:
    view = testing.a_server(
        testing.deny("a_*", key="Platform"), testing.deny("b", key="Consumer"), testing.allow("c", key="Platform"),
        testing.allow("d", key="Consumer"), testing.deny("e", key="Provider"),
    )  # fmt: skip
    observed = testing.tools("query")
    found = bind.objections(testing.bound_to(view, "query").servers[view.id], observed)
    assert [each.message.partition("that ")[2] for each in found] == ["'d' matches", "'e' matches"]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "$ref": "https://example.com/s"},
        {"type": "object", "properties": {"a": {"type": "nonsense"}}},
        {"type": "object", "description": "x" * 300_000},
        {"type": "object", "allOf": [{"$ref": "#"}]},
        {"type": "object", "properties": {"a": {"pattern": "("}}},
    ],
)
def test_a_tool_whose_arguments_cannot_be_checked_is_left_out_unless_the_entry_says_not_to_check(
    schema: dict[str, Any],
) -> None:
    observed = testing.tools("query", schema=schema)
    for checked in (True, False):
        view = testing.a_server(testing.allow(), validate_arguments=checked)
        held = bind.bound(testing.a_snapshot(view), {view.id: observed}).servers[view.id]
        found = [each for each in bind.objections(held, observed) if each.kind == "MCPServer"]
        assert held.targets is not None
        assert (not held.targets) is checked
        assert [each.reason.value for each in found] == ["DefinitionsRefused"] * checked
        assert all("validateArguments: false" in each.remedy and "'query'" in each.message for each in found)


def test_a_tool_that_is_excluded_is_not_reported_for_its_schema() -> None:
    observed = testing.tools("query", schema={"type": "object", "$ref": "#"})
    view = testing.a_server(testing.allow(), exclude=("query",))
    held = bind.bound(testing.a_snapshot(view), {view.id: observed}).servers[view.id]
    assert bind.objections(held, observed) == ()


def test_a_server_is_in_sight_when_some_call_of_it_would_not_look_unknown() -> None:
    def in_sight(*chosen: rules.Rule, **more: object) -> tuple[bool, bool]:
        view = testing.a_server(*chosen, **more)
        unobserved = bind.bound(testing.a_snapshot(view), {}).servers[view.id]
        return unobserved.in_sight, testing.bound_to(view, "query", "drop").servers[view.id].in_sight

    assert in_sight() == (False, False)
    assert in_sight(testing.allow("drop")) == (True, True)
    assert in_sight(testing.allow("other")) == (True, False)
    assert in_sight(testing.allow(), testing.deny()) == (True, False)
    assert in_sight(testing.allow(), testing.deny(message="no")) == (True, True)
    assert in_sight(testing.allow(enforced=False)) == (False, False)
    assert in_sight(testing.allow(), consumer_key_needed=True) == (False, False)
    assert in_sight(testing.allow(), testing.allow(key="Consumer", name="c"), consumer_key_needed=True) == (
        True,
        True,
    )


# Prompts and resources ------------------------------------------------------------------------------------------------


def test_a_uri_that_no_list_names_is_joined_once_and_a_flood_of_them_is_forgotten() -> None:
    view = testing.a_server(testing.allow(resources=("*",)))
    held = bind.bound(testing.a_snapshot(view), {}).servers[view.id]
    kind = call.Kind.RESOURCE
    assert held.target(kind, "a://b") is held.target(kind, "a://b")
    assert held.target(kind, "a://../b") is None
    for number in range(3 * bind.MEMO_MAX):
        assert held.target(kind, f"a://{number}") is not None
    assert len(held._memo) <= bind.MEMO_MAX
    assert held.target(call.Kind.PROMPT, "unlisted") is None


def test_prompts_have_merged_names_of_their_own_and_resources_have_none() -> None:
    view = testing.a_server(testing.allow(prompts=("*",), resources=("*",)))
    observed = catalog.definitions(
        [b'{"name":"greet","inputSchema":{"type":"object"}}'],
        prompts=[b'{"name":"greet"}', b'{"name":"Write a letter"}'],
        resources=[b'{"name":"a","uri":"a://b"}'],
    )
    bound = bind.bound(testing.a_snapshot(view), {view.id: observed})
    prompt, tool = call.Kind.PROMPT, call.Kind.TOOL
    letter = catalog.exposed_name(view.id, "Write a letter", "crm")
    assert bound.named(letter, prompt) == (view.id, "Write a letter")
    assert bound.named(letter) == (view.id, letter.partition("__")[2])
    assert (
        bound.named("salesforce__greet", prompt)
        == bound.named("salesforce__greet", tool)
        == (view.id, "greet")
    )
    assert {kind for kind, _ in bound.servers[view.id].exposed} == {prompt, tool}


def test_a_kind_that_is_not_observed_leaves_the_others_as_they_are() -> None:
    view = testing.a_server(testing.allow("query", prompts=("*",)))
    observed = dataclasses.replace(testing.tools("query"), unobserved=frozenset({call.Kind.PROMPT}))
    held = bind.bound(testing.a_snapshot(view), {view.id: observed}).servers[view.id]
    assert [held.observed(kind) for kind in call.Kind] == [True, False, True]
    assert held.target(call.Kind.TOOL, "query") is not None
    bound = bind.bound(testing.a_snapshot(view), {view.id: observed})
    assert bound.named("salesforce__Write", call.Kind.PROMPT) == (view.id, "Write")
    nowhere = testing.a_server(testing.allow("other", prompts=("*",)))
    unseen = bind.bound(testing.a_snapshot(nowhere), {view.id: observed}).servers[view.id]
    assert unseen.in_sight, "some prompt may be there"


def test_rules_about_prompts_and_resources_are_held_against_their_own_lists() -> None:
    view = testing.a_server(
        testing.allow(
            prompts=("greet", "great"), resources=("db://users/7", "db://rows/*", "other://*", "*")
        ),
        testing.deny("nothing", prompts=("*",), resources=("FILE:///A",)),
    )
    observed = catalog.definitions(
        [b'{"name":"nothing","inputSchema":{"type":"object"}}'],
        prompts=[b'{"name":"greet"}', b'{"name":"a\\nb"}'],
        resources=[b'{"name":"a","uri":"file:///a"}', b'{"name":"r","uri":"db://rows/1"}'],
        templates=[b'{"name":"t","uriTemplate":"db://users/{id}"}'],
    )
    found = bind.objections(
        bind.bound(testing.a_snapshot(view), {view.id: observed}).servers[view.id], observed
    )
    assert [(each.reason.value, each.path) for each in found] == [
        ("UnusablePromptName", "spec.endpoint"),
        ("UnknownPrompt", "spec.rules[r].prompts"),
        ("UnknownResource", "spec.rules[r].resources"),
    ]
    assert "the prompt 'a\\nb' is left out: its name is not 1 to 128 characters" in found[0].message
    assert "lists no resource or template that 'other://*' matches" in found[2].message
    unobserved = dataclasses.replace(
        testing.tools("nothing"), unobserved=frozenset({call.Kind.PROMPT, call.Kind.RESOURCE})
    )
    assert (
        bind.objections(
            bind.bound(testing.a_snapshot(view), {view.id: unobserved}).servers[view.id], unobserved
        )
        == ()
    )
