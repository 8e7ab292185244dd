# SPDX-License-Identifier: Apache-2.0
"""The decision, check by check. What random worlds say about it is in tests/invariants."""

from __future__ import annotations

from typing import Any

import pytest

from outrider import bind, budgets, call, catalog, decide, decision, names, snapshot, testing

R = decision.Reason


class Purse:
    """Units with fixed contents; None where a pool is not known."""

    def __init__(self, amount: int | None) -> None:
        self.amount = amount

    def available(self, pool: budgets.Pool, now: float) -> int | None:
        return self.amount


def ask(
    bound: bind.Bound, tool: str = "query", units: budgets.Units = budgets.UNLIMITED, **more: Any
) -> decision.Decision:
    return decide.decide(bound, call.Call(testing.CRM, tool, **more), units, now=0.0)


def refused(found: decision.Decision) -> tuple[R, bool]:
    assert isinstance(found, decision.Refusal), found
    return found.reason, found.objection.visible


def test_an_allow_of_the_provider_is_enough_within_one_namespace() -> None:
    permit = ask(testing.bound_to(testing.a_server(testing.allow("query")), "query"))
    assert isinstance(permit, decision.Permit)
    assert [str(ref) for ref in permit.rules] == ["crm/p/r"]


def test_no_policy_means_deny() -> None:
    assert refused(ask(testing.bound_to(testing.a_server(), "query"))) == (R.NOT_ALLOWED, False)


@pytest.mark.parametrize("name", ["Query", "query2", "quer", "que\u200bry"])
def test_an_allow_matches_byte_exactly(name: str) -> None:
    bound = testing.bound_to(testing.a_server(testing.allow("query")), "query", "Query", "query2", "quer")
    assert refused(ask(bound, name))[1] is False


def test_across_namespaces_both_keys_are_needed() -> None:
    provider, consumer = testing.allow(), testing.allow(key="Consumer", name="c")
    only = testing.a_server(provider, consumer_key_needed=True)
    both = testing.a_server(provider, consumer, consumer_key_needed=True)
    alone = testing.a_server(consumer, consumer_key_needed=True)
    assert refused(ask(testing.bound_to(only, "query"))) == (R.NOT_ALLOWED, False)
    assert refused(ask(testing.bound_to(alone, "query"))) == (R.NOT_ALLOWED, False)
    permit = ask(testing.bound_to(both, "query"))
    assert isinstance(permit, decision.Permit)
    assert len(permit.rules) == 2


def test_a_platform_allow_turns_both_keys() -> None:
    view = testing.a_server(testing.allow(key="Platform"), consumer_key_needed=True)
    assert isinstance(ask(testing.bound_to(view, "query")), decision.Permit)


def test_a_deny_without_a_message_makes_the_tool_look_unknown_in_any_case() -> None:
    view = testing.a_server(testing.allow(), testing.deny("QUERY"))
    assert refused(ask(testing.bound_to(view, "query"))) == (R.DENIED_HIDDEN, False)


def test_a_deny_with_a_message_tells_it_to_whoever_could_otherwise_call() -> None:
    deny = testing.deny("query", message="Ask the deal desk.")
    found = ask(testing.bound_to(testing.a_server(testing.allow(), deny), "query"))
    assert refused(found) == (R.DENIED, True)
    assert isinstance(found, decision.Refusal)
    assert found.objection.detail == "Ask the deal desk."
    assert refused(ask(testing.bound_to(testing.a_server(deny), "query"))) == (R.NOT_ALLOWED, False)


def test_rules_in_audit_mode_are_recorded_and_never_count() -> None:
    view = testing.a_server(testing.allow(), testing.deny("query", enforced=False))
    permit = ask(testing.bound_to(view, "query"))
    assert isinstance(permit, decision.Permit)
    assert permit.would == ("would-deny crm/p/d",)
    lenient = ask(testing.bound_to(testing.a_server(testing.allow(enforced=False)), "query"))
    assert refused(lenient) == (R.NOT_ALLOWED, False)
    assert isinstance(lenient, decision.Refusal)
    assert lenient.would == ("would-allow crm/p/r",)


def test_a_disabled_server_says_so_to_whoever_could_call_even_unobserved() -> None:
    view = testing.a_server(testing.allow("query"), lifecycle=snapshot.Lifecycle.DISABLED)
    for bound in (testing.bound_to(view, "query"), bind.bound(testing.a_snapshot(view), {})):
        assert refused(ask(bound)) == (R.SERVER_DISABLED, True)
        assert refused(ask(bound, "other"))[1] is False
        assert list(decide.listed(bound)) == []


def test_what_the_server_does_not_list_or_the_entry_leaves_out_is_unknown() -> None:
    view = testing.a_server(testing.allow(), include=("query", "debug_*"), exclude=("DEBUG_*",))
    bound = testing.bound_to(view, "query", "debug_x", "get")
    for name in ("nothing", "debug_x", "get"):
        assert refused(ask(bound, name)) == (R.TOOL_UNKNOWN, False)


def test_definitions_not_seen_yet_are_a_need() -> None:
    bound = bind.bound(testing.a_snapshot(testing.a_server(testing.allow())), {})
    assert ask(bound) == decision.Need(definitions=testing.CRM)


def test_a_server_outside_the_snapshot_is_unknown() -> None:
    found = decide.decide(
        testing.bound_to(testing.a_server(testing.allow())),
        call.Call(names.ServerId("a", "b"), "x"),
        budgets.UNLIMITED,
        now=0,
    )
    assert refused(found) == (R.SERVER_UNKNOWN, False)


def test_arguments_that_do_not_fit_the_schema_are_refused_with_the_place() -> None:
    schema = {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]}
    view = testing.a_server(testing.allow())
    observed = {view.id: testing.tools("query", schema=schema)}
    bound = bind.bound(testing.a_snapshot(view), observed)
    found = ask(bound, arguments={"amount": "much"})
    assert refused(found) == (R.ARGUMENTS_INVALID, True)
    assert isinstance(found, decision.Refusal)
    assert "/amount" in found.objection.detail
    assert isinstance(ask(bound, arguments={"amount": 1}), decision.Permit)
    lenient = testing.a_server(testing.allow(), validate_arguments=False)
    assert isinstance(ask(bind.bound(testing.a_snapshot(lenient), observed)), decision.Permit)


def test_credentials_are_first_match_and_none_matching_refuses() -> None:
    first = snapshot.Credential(name="a", tools=("get_*",), source=snapshot.FileSecret(path="/x"))
    second = snapshot.Credential(name="b", tools=("*",))
    view = testing.a_server(testing.allow(), credential_required=True, credentials=(first, second))
    bound = testing.bound_to(view, "query", "get_x")
    for tool, expected in (("query", second), ("get_x", first)):
        permit = ask(bound, tool)
        assert isinstance(permit, decision.Permit)
        assert permit.credential == expected
    bare = testing.a_server(testing.allow(), credential_required=True, credentials=(first,))
    assert refused(ask(testing.bound_to(bare, "query"))) == (R.NO_CREDENTIAL_FOR_CALLER, True)


def test_every_limit_must_hold_and_what_is_not_known_is_a_need() -> None:
    view = testing.a_server(testing.allow(), limits=(testing.a_limit(calls=5),))
    bound = testing.bound_to(view, "query")
    permit = ask(bound, units=Purse(budgets.MICRO))
    assert isinstance(permit, decision.Permit)
    assert [held.amount for held in permit.reservations] == [budgets.MICRO]
    assert refused(ask(bound, units=Purse(budgets.MICRO - 1))) == (R.BUDGET_EXCEEDED, True)
    need = ask(bound, units=Purse(None))
    assert isinstance(need, decision.Need)
    assert [pool.id for pool in need.pools] == [permit.reservations[0].pool.id]


def test_a_rate_limit_says_when_to_come_back() -> None:
    rate = budgets.Rate(per_second=2 * budgets.MICRO, burst=budgets.MICRO)
    view = testing.a_server(testing.allow(), limits=(testing.a_limit(calls=1, quota=None, rate=rate),))
    found = ask(testing.bound_to(view, "query"), units=Purse(0))
    assert refused(found) == (R.RATE_LIMITED, True)
    assert isinstance(found, decision.Refusal)
    assert found.objection.retry_after_seconds == pytest.approx(0.5)


def test_an_exception_inside_a_check_denies() -> None:
    class Broken:
        def available(self, pool: budgets.Pool, now: float) -> int | None:
            raise RuntimeError("bug")

    view = testing.a_server(testing.allow(), limits=(testing.a_limit(calls=1),))
    assert refused(ask(testing.bound_to(view, "query"), units=Broken())) == (R.INTERNAL, True)


def test_lists_show_what_can_be_called_and_budgets_hide_nothing() -> None:
    view = testing.a_server(
        testing.allow("query", "get_*"),
        testing.deny("get_secret", message="no"),
        limits=(testing.a_limit(calls=0),),
    )
    bound = testing.bound_to(view, "query", "get_a", "get_secret", "drop")
    assert [target.name for target in decide.listed(bound)] == ["query", "get_a"]
    assert list(decide.listed(bound, names.ServerId("no", "such"))) == []


def test_explain_walks_the_same_checks_without_stopping() -> None:
    view = testing.a_server(
        testing.allow(), testing.deny("query", message="no"), limits=(testing.a_limit(calls=1),)
    )
    steps = decide.explain(testing.bound_to(view, "query"), call.Call(testing.CRM, "query"), Purse(0), now=0)
    objections = {
        step.check: step.found.reason for step in steps if isinstance(step.found, decision.Objection)
    }
    assert [step.check for step in steps] == [check.__name__ for check in decide.CHECKS]
    assert steps[0].promise == "The server is in this workload's snapshot at all."
    assert objections == {"not_denied": R.DENIED, "budget_within": R.BUDGET_EXCEEDED}
    unknown = decide.explain(
        testing.bound_to(view), call.Call(names.ServerId("a", "b"), "q"), Purse(0), now=0
    )
    assert [step.reached for step in unknown] == [True] + [False] * (len(decide.CHECKS) - 1)


def test_the_proxy_may_list_a_server_it_knows_and_no_other() -> None:
    disabled = testing.a_server(testing.allow(), lifecycle=snapshot.Lifecycle.DISABLED)
    uncredentialed = testing.a_server(testing.allow(), credential_required=True)
    assert isinstance(
        decide.permit_listing(testing.bound_to(testing.a_server(testing.allow())), testing.CRM),
        decision.Permit,
    )
    assert refused(decide.permit_listing(testing.bound_to(disabled), testing.CRM)) == (
        R.SERVER_DISABLED,
        True,
    )
    unlent = decide.permit_listing(testing.bound_to(uncredentialed), testing.CRM)
    assert refused(unlent) == (R.NO_CREDENTIAL_FOR_CALLER, True)
    missing = decide.permit_listing(testing.bound_to(disabled), names.ServerId("no", "such"))
    assert refused(missing) == (R.SERVER_UNKNOWN, False)


# Prompts and resources ------------------------------------------------------------------------------------------------

EVERYTHING = testing.allow(prompts=("*",), resources=("*",))


def of(
    bound: bind.Bound, kind: str, name: str, *, method: call.Method | None = None, **more: Any
) -> decision.Decision:
    """A get of a prompt or a read of a resource, unless another method is said."""
    chosen = call.Kind(kind)
    usual = call.Method.GET if chosen is call.Kind.PROMPT else call.Method.READ
    units = more.pop("units", budgets.UNLIMITED)
    return decide.decide(
        bound, call.Call(testing.CRM, name, None, chosen, method or usual), units, now=0.0, **more
    )


def listing(view: snapshot.ServerView, **lists: list[bytes]) -> bind.Bound:
    return bind.bound(testing.a_snapshot(view), {view.id: catalog.definitions(**lists)})


def test_a_prompt_must_be_listed_and_allowed_and_a_resource_allowed() -> None:
    bound = listing(testing.a_server(EVERYTHING), prompts=[b'{"name":"greet"}'])
    assert isinstance(of(bound, "Prompt", "greet"), decision.Permit)
    assert refused(of(bound, "Prompt", "other")) == (R.PROMPT_UNKNOWN, False)
    assert isinstance(of(bound, "Resource", "file:///unlisted"), decision.Permit)
    found = of(bound, "Resource", "file:///a/../b")
    assert refused(found) == (R.RESOURCE_UNKNOWN, False)
    assert isinstance(found, decision.Refusal)
    assert "dots" in found.objection.detail
    tools_alone = listing(testing.a_server(testing.allow()), prompts=[b'{"name":"greet"}'])
    assert refused(of(tools_alone, "Prompt", "greet")) == (R.NOT_ALLOWED, False)
    assert refused(of(tools_alone, "Resource", "file:///a")) == (R.NOT_ALLOWED, False)


def test_a_deny_that_names_a_kind_is_about_that_kind() -> None:
    deny = testing.deny("nothing", resources=("*SECRET*",), message="No secrets.")
    bound = listing(testing.a_server(EVERYTHING, deny), prompts=[b'{"name":"secret"}'])
    assert isinstance(of(bound, "Prompt", "secret"), decision.Permit)
    assert refused(of(bound, "Resource", "file:///%73ecret")) == (R.DENIED, True)


def test_prompts_not_seen_yet_are_a_need_and_resources_never_are() -> None:
    view = testing.a_server(EVERYTHING)
    unseen = bind.bound(testing.a_snapshot(view), {})
    partly = bind.bound(
        testing.a_snapshot(view), {view.id: catalog.Definitions(unobserved=frozenset({call.Kind.PROMPT}))}
    )
    for bound in (unseen, partly):
        assert of(bound, "Prompt", "greet") == decision.Need(definitions=view.id)
        assert isinstance(of(bound, "Resource", "a://b"), decision.Permit)
    assert refused(ask(partly)) == (R.TOOL_UNKNOWN, False)
    closed = bind.bound(testing.a_snapshot(testing.a_server()), {})
    assert refused(of(closed, "Prompt", "greet")) == (R.NOT_ALLOWED, False)
    disabled = testing.a_server(EVERYTHING, lifecycle=snapshot.Lifecycle.DISABLED)
    for kind in ("Prompt", "Resource"):
        assert refused(of(bind.bound(testing.a_snapshot(disabled), {}), kind, "a://b")) == (
            R.SERVER_DISABLED,
            True,
        )


def test_a_completion_is_decided_like_what_it_completes_and_costs_nothing() -> None:
    limits = (testing.a_limit(calls=5, name="calls"), testing.a_limit(cost=9, name="money"))
    view = testing.a_server(
        testing.allow(prompts=("greet",), resources=("db://users/*",)),
        limits=limits, default_price=budgets.Price(per_call=3, per_thousand_result_tokens=2, result_bytes_max=77),
    )  # fmt: skip
    bound = listing(view, prompts=[b'{"name":"greet"}', b'{"name":"other"}'])
    for kind, name in (("Prompt", "greet"), ("Resource", "db://users/{id}"), ("Resource", "db://users/7")):
        permit = of(bound, kind, name, method=call.Method.COMPLETE)
        assert isinstance(permit, decision.Permit), (kind, name)
        assert (permit.price.per_call, permit.price.per_thousand_result_tokens) == (0, 0)
        assert permit.price.result_bytes_max == 77
        assert [held.pool.limit.name for held in permit.reservations] == ["calls"]
    for kind, name in (("Prompt", "other"), ("Resource", "db://rows/{id}")):
        assert refused(of(bound, kind, name, method=call.Method.COMPLETE)) == (R.NOT_ALLOWED, False)
    assert refused(of(bound, "Resource", "db://users/{id}")) == (R.RESOURCE_UNKNOWN, False)
    whole = of(bound, "Prompt", "greet")
    assert isinstance(whole, decision.Permit)
    assert (whole.price, [held.pool.limit.name for held in whole.reservations]) == (
        view.default_price,
        ["calls", "money"],
    )
    assert refused(of(bound, "Resource", "db://users/7", method=call.Method.COMPLETE, units=Purse(0))) == (
        R.BUDGET_EXCEEDED, True,
    )  # fmt: skip


def test_a_later_round_passes_the_same_checks_and_spends_nothing() -> None:
    limits = (testing.a_limit(calls=5),)
    view = testing.a_server(testing.allow("query"), limits=limits, default_price=budgets.Price(per_call=3))
    bound = testing.bound_to(view, "query", "other")
    permit = decide.decide(bound, call.Call(testing.CRM, "query"), Purse(0), now=0.0, round_of="REQUEST")
    assert isinstance(permit, decision.Permit)
    assert (permit.round_of, permit.reservations, permit.price.per_call) == ("REQUEST", (), 0)
    assert refused(decide.decide(bound, call.Call(testing.CRM, "other"), Purse(0), now=0.0, round_of="REQUEST")) == (
        R.NOT_ALLOWED, False,
    )  # fmt: skip
    first = ask(bound)
    assert isinstance(first, decision.Permit)
    assert (first.round_of, len(first.reservations), first.price.per_call) == ("", 1, 3)


def test_every_list_shows_what_could_be_used_in_the_servers_order() -> None:
    view = testing.a_server(
        testing.allow("query", prompts=("b", "a"), resources=("file:///docs/*",)),
        testing.deny("drop", resources=("*secret*",), message="no"),
    )
    bound = listing(
        view,
        prompts=[b'{"name":"b"}', b'{"name":"c"}', b'{"name":"a"}'],
        resources=[
            b'{"name":"x","uri":"file:///docs/x"}', b'{"name":"y","uri":"file:///docs/secret"}', b'{"name":"z","uri":"file:///z"}',
        ],
        templates=[
            b'{"name":"t","uriTemplate":"file:///{path}"}', b'{"name":"u","uriTemplate":"file:///docs/secret/{path}"}',
            b'{"name":"v","uriTemplate":"db://{row}"}',
        ],
    )  # fmt: skip
    assert [target.name for target in decide.listed(bound, view.id, call.Kind.PROMPT)] == ["b", "a"]
    assert [target.name for target in decide.listed(bound, None, call.Kind.RESOURCE)] == ["file:///docs/x"]
    assert [target.name for target in decide.templates(bound)] == ["file:///{path}"]
    assert list(decide.listed(bound, view.id)) == []
    assert list(decide.templates(bound, names.ServerId("no", "such"))) == []


def test_a_server_is_asked_for_a_kind_when_both_keys_could_turn_for_it() -> None:
    held = testing.bound_to(testing.a_server(testing.allow(prompts=("*",)))).servers[testing.CRM]
    assert [decide.asked(held, kind) for kind in call.Kind] == [True, True, False]
    assert decide.asked(held)


def test_explain_says_of_a_resource_what_decide_says() -> None:
    bound = listing(testing.a_server(EVERYTHING))
    subject = call.Call(testing.CRM, "a://b", None, call.Kind.RESOURCE, call.Method.READ)
    steps = decide.explain(bound, subject, budgets.UNLIMITED, now=0.0)
    assert all(step.reached and step.found is None for step in steps)
