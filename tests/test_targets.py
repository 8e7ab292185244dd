# SPDX-License-Identifier: Apache-2.0
"""One name and everything about it, kind by kind."""

from __future__ import annotations

import pytest

from outrider import bind, budgets, call, rules, snapshot, targets, testing

TOOL, PROMPT, RESOURCE = call.Kind


def index(*chosen: rules.Rule, **more: object) -> targets.Index:
    return targets.Index(testing.a_server(*chosen, **more), "crm")


def about(effect: str, *, name: str = "r", **kinds: tuple[str, ...]) -> rules.Rule:
    """A rule that speaks of the given kinds only."""
    rule = testing.a_rule(
        effect, name=name, prompts=kinds.get("prompts", ()), resources=kinds.get("resources", ())
    )
    return rules.Rule(
        ref=rule.ref, effect=rule.effect, key=rule.key, tools=kinds.get("tools", ()), prompts=rule.prompts,
        resources=rule.resources,
    )  # fmt: skip


def test_a_rule_that_names_some_kinds_says_nothing_about_the_others() -> None:
    subject = index(about("Allow", prompts=("greet",)), about("Deny", name="d", tools=("*",)))
    assert [rule.ref.rule for rule in subject.target("greet", None, PROMPT).provider] == ["r"]
    assert subject.target("greet", None, PROMPT).denies == ()
    assert subject.target("greet", None, TOOL).provider == ()
    assert subject.target("greet", None, RESOURCE).provider == ()
    assert subject.opens == {PROMPT}
    assert not subject.resources_in_sight


def test_an_allow_means_a_uri_byte_for_byte_and_a_deny_every_guise_of_it() -> None:
    subject = index(
        about("Allow", resources=("file:///pub/*",)),
        about("Deny", name="d", resources=("file:///pub/secret*",)),
    )
    assert subject.target("file:///pub/a", None, RESOURCE).in_sight
    assert not subject.target("FILE:///pub/a", None, RESOURCE).in_sight
    for spelled in (
        "file:///pub/secret", "file:///pub/SECRET.txt", "file:///pub/%73ecret", "file:///pub//secret", "file:///pub/%2573ecret",
    ):  # fmt: skip
        assert [rule.ref.rule for rule in subject.target(spelled, None, RESOURCE).denies] == ["d"], spelled


def test_what_could_be_nobodys_name_has_no_target() -> None:
    subject = index(testing.allow(prompts=("*",), resources=("*",)))
    assert subject.target("file:///pub/../etc", None, RESOURCE) is None
    assert subject.target("bad\nprompt", None, PROMPT) is None
    assert subject.target("a prompt, with words", None, PROMPT) is not None
    assert subject.target("a tool", None, TOOL) is None


def test_include_and_exclude_are_about_tools_alone() -> None:
    subject = index(testing.allow(prompts=("*",)), include=("query",), exclude=("q*",))
    assert subject.target("query", None, TOOL) is None
    assert subject.target("query", None, PROMPT).in_sight


def test_what_is_no_tool_is_lent_the_first_credential_that_matched_the_caller() -> None:
    lent = (snapshot.Credential(name="narrow", tools=("query",)), snapshot.Credential(name="wide"))
    subject = index(
        testing.allow(prompts=("*",), resources=("*",)), credentials=lent, credential_required=True
    )
    assert subject.target("get", None, TOOL).credential.name == "wide"
    assert subject.target("get", None, PROMPT).credential.name == "narrow"
    assert subject.target("x://y", None, RESOURCE).credential.name == "narrow"
    unlent = index(testing.allow(prompts=("*",)), credential_required=True)
    assert unlent.target("get", None, PROMPT).credential_missing


def test_what_is_no_tool_costs_the_servers_default_and_counts_where_every_tool_does() -> None:
    limits = (
        testing.a_limit(calls=5, name="all", per_tool=True), testing.a_limit(calls=5, name="some", tools=("query",)),
        testing.a_limit(cost=9, name="money", tools=("q*", "**")),
    )  # fmt: skip
    price = budgets.Price(per_call=3)
    subject = index(
        testing.allow(prompts=("*",), resources=("*",)),
        limits=limits, default_price=price, prices=(("query", budgets.Price(per_call=7)),),
    )  # fmt: skip
    prompt, resource = (subject.target("query", None, kind) for kind in (PROMPT, RESOURCE))
    assert prompt.price == resource.price == price
    assert [held.pool.id for held in prompt.reservations] == ["crm/b/all[tool=(prompts)]", "crm/b/money"]
    assert subject.target("other", None, RESOURCE).reservations == resource.reservations
    assert [held.pool.limit.name for held in subject.target("query", None).reservations] == [
        "all", "some", "money",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("allowed", "denied", "seen"),
    [
        ("db://users/*", (), True), ("db://*/7", (), True), ("db://users/7", (), True), ("*", (), True),
        ("file:///*", (), False), ("db://users", (), False),
        ("*", ("db://users/*",), False), ("*", ("DB://*",), False), ("*", ("db://users/7",), True), ("*", ("*",), False),
    ],
)  # fmt: skip
def test_a_template_is_in_sight_when_something_it_can_become_could_be_read(
    allowed: str, denied: tuple[str, ...], seen: bool
) -> None:
    subject = index(about("Allow", resources=(allowed,)), about("Deny", name="d", resources=denied))
    assert subject.template("db://users/{id}", None).in_sight is seen


def test_one_of_several_globs_that_meets_a_template_is_enough() -> None:
    subject = index(about("Allow", resources=("file:///*", "db://users/*")))
    assert subject.template("db://users/{id}", None).in_sight


def test_rules_in_audit_mode_match_names_as_the_others_do() -> None:
    watching = [testing.allow("Query", name="a", enforced=False), testing.deny("DROP", enforced=False)]
    subject = index(testing.allow("*"), *watching)
    found = {
        name: [rule.ref.rule for rule in subject.target(name, None).watched]
        for name in ("Query", "query", "drop", "DROP")
    }
    assert found == {"Query": ["a"], "query": [], "drop": ["d"], "DROP": ["d"]}


def test_a_template_that_is_none_has_no_target() -> None:
    assert index(testing.allow(resources=("*",))).template("db://{", None) is None


TOLD_TOO = [about("Deny", name="d", resources=("*",)), testing.deny(name="e", resources=("*",), message="no")]


@pytest.mark.parametrize(
    ("chosen", "seen"),
    [
        ([about("Allow", resources=("*",))], True),
        ([about("Allow", resources=("*",)), about("Deny", name="d", resources=("*",))], False),
        ([about("Allow", resources=("a://*",)), about("Deny", name="d", resources=("A://*",))], False),
        ([about("Allow", resources=("a://*", "b://x")), about("Deny", name="d", resources=("a://*",))], True),
        ([about("Allow", resources=("a://*",)), about("Deny", name="d", resources=("a://b/*",))], True),
        ([about("Allow", resources=("*",)), testing.deny(resources=("*",), message="no")], True),
        ([about("Allow", resources=("*",)), *TOLD_TOO], True),
        ([about("Allow", resources=("*",)), TOLD_TOO[0], testing.deny(resources=("*",), message="no", enforced=False)], False),
        ([about("Allow", resources=("a://*",)), about("Deny", name="d", resources=("a://*",)), about("Deny", name="e", resources=("b://*",))], False),
        ([about("Allow", resources=("a://x",)), *(about("Deny", name=f"d{n}", resources=("a://x",)) for n in range(257))], True),
        ([about("Allow", tools=("*",))], False),
    ],
)  # fmt: skip
def test_resources_are_in_sight_when_what_is_allowed_is_not_all_silently_denied_again(
    chosen: list[rules.Rule], seen: bool
) -> None:
    assert index(*chosen).resources_in_sight is seen
    held = bind.bound(testing.a_snapshot(testing.a_server(*chosen)), {testing.CRM: testing.tools()}).servers[
        testing.CRM
    ]
    assert held.in_sight is seen


def test_what_one_key_opens_is_not_in_sight_when_all_that_the_other_opens_is_denied() -> None:
    provider, denied = about("Allow", resources=("a://*",)), about("Deny", name="d", resources=("b://*",))
    for theirs, seen in (("b://*", False), ("a://*", True)):
        consumer = testing.allow(key="Consumer", name="c", resources=(theirs,))
        subject = index(provider, consumer, denied, consumer_key_needed=True)
        assert subject.resources_in_sight is seen


def test_both_keys_must_be_turned_for_one_and_the_same_kind() -> None:
    provider, consumer = about("Allow", tools=("*",)), testing.allow("x", key="Consumer", name="c")
    other = rules.Rule(
        ref=consumer.ref, effect=consumer.effect, key=consumer.key, tools=(), prompts=("*",), resources=("*",)
    )
    assert index(provider, other, consumer_key_needed=True).opens == frozenset()
    assert index(provider, consumer, consumer_key_needed=True).opens == {TOOL}


# Users ----------------------------------------------------------------------------------------------------------------


def of_sales() -> targets.Target:
    subject = index(testing.allow("query", callers=testing.callers(groups=["okta:sales"])))
    found = subject.target("query", None)
    assert found is not None
    return found


def test_a_name_is_made_once_for_users_who_are_the_same_to_rules() -> None:
    target = of_sales()
    seen = target.of(testing.a_user("sales", token="one"))
    assert target.of(testing.a_user("sales", token="another", expires_at=9.0)) is seen
    assert target.of(None) is target
    for other in (
        testing.a_user("sales", names=("okta:x",)), testing.a_user("sales", "x"), testing.a_user("sales", client="okta:c"),
    ):  # fmt: skip
        assert target.of(other) is not seen
    assert seen.of(None) is target
    assert seen.of(testing.a_user()) is target.of(testing.a_user())
    assert (seen.listed, target.of(testing.a_user()).listed) == (True, False)


def test_no_more_users_are_kept_than_the_bound_says_and_no_token_is() -> None:
    target = of_sales()
    for number in range(targets.USERS_MAX * 3):
        assert target.of(testing.a_user("sales", id=f"okta:{number}", token="CANARY")).listed
    assert target.conditions is not None
    assert len(target.conditions._memo) <= targets.USERS_MAX
    assert "CANARY" not in repr(vars_of(target.conditions))


def vars_of(whole: targets.Whole) -> list[object]:
    return [whole._memo.keys(), *whole._memo.values()]


@pytest.mark.parametrize(
    ("chosen", "more"),
    [
        ([testing.allow(callers=testing.callers(users=["okta:a"]))], {}),
        ([testing.allow(), testing.deny(callers=testing.callers(users=["okta:a"]))], {}),
        ([testing.allow(), testing.deny(callers=testing.callers(users=["okta:a"]), enforced=False)], {}),
        ([testing.allow()], {"require_user": True}),
        ([testing.allow()], {"limits": (testing.a_limit(calls=1, callers=testing.callers(users=["okta:a"])),)}),
        ([testing.allow()], {"credentials": (snapshot.Credential(name="c", callers=testing.callers(users=["okta:a"])),)}),
    ],
)  # fmt: skip
def test_a_user_makes_a_difference_where_anything_says_so_and_nowhere_else(
    chosen: list[rules.Rule], more: dict[str, object]
) -> None:
    hinging, plain = (
        index(*chosen, **more).target("query", None),
        index(testing.allow()).target("query", None),
    )
    assert hinging is not None
    assert plain is not None
    assert hinging.conditions is not None
    assert plain.conditions is None
    elsewhere = index(testing.allow(), testing.deny("drop", callers=testing.callers(users=["okta:a"])))
    found = elsewhere.target("query", None)
    assert found is not None
    assert found.conditions is None
