# SPDX-License-Identifier: Apache-2.0
"""What a user changes about a decision: the rules 2 to 5 and 8 of the design's page on resources, a row each."""

from __future__ import annotations

from typing import Any

import pytest

from outrider import bind, budgets, call, catalog, decide, decision, identity, rules, snapshot, testing

R = decision.Reason
ADA = testing.a_user("sales", id="okta:ada", names=("okta:ada@corp.example",), client="okta:desk")
BOB = testing.a_user("hr", id="okta:bob", client="okta:chat")
EVE = testing.a_user("other:sales", id="other:ada", client="other:desk")
NOBODY = None

SALES = testing.callers(groups=["okta:sales"])
TO_ADA = testing.callers(users=["okta:ada"])
BY_MAIL = testing.callers(users=["okta:ada@corp.example"])
AT_DESK = testing.callers(clients=["okta:desk"])
SALES_AT_CHAT = testing.callers(groups=["okta:sales"], clients=["okta:chat"])
SALES_OR_BOB = (*SALES, *testing.callers(users=["okta:bob"]))
TEAM = testing.callers(teams=["okta:sales", "okta:deals"])
TEAM_AND_ADA = testing.callers(teams=["okta:sales"], users=["okta:ada"])
DENIED_TEAM = testing.callers(teams=["okta:sales"], teams_alone=False)
ANYONE: rules.Callers = ()

ALLOWED, UNKNOWN = (R.ALLOWED, True), (R.NOT_ALLOWED, False)
WANTED, TOLD, HIDDEN = (R.USER_REQUIRED, True), (R.DENIED, True), (R.DENIED_HIDDEN, False)


def allow(callers: rules.Callers = ANYONE, **more: Any) -> rules.Rule:
    return testing.allow("query", callers=callers, **more)


def deny(callers: rules.Callers = ANYONE, **more: Any) -> rules.Rule:
    return testing.deny("query", callers=callers, **more)


def loud(callers: rules.Callers = ANYONE) -> rules.Rule:
    return deny(callers, message="Ask the deal desk.", name="loud")


def consumer(callers: rules.Callers = ANYONE) -> rules.Rule:
    return allow(callers, key="Consumer", name="c")


ACROSS, BY_USERS, OFF = (
    {"consumer_key_needed": True}, {"require_user": True}, {"lifecycle": snapshot.Lifecycle.DISABLED},
)  # fmt: skip
Answer = tuple[decision.Reason, bool]

# What the rules are, who asks, what the call gets, and whether that caller's list shows the tool.
ROWS: list[tuple[str, list[rules.Rule], dict[str, Any], identity.User | None, Answer, bool]] = [
    ("an entry that says nothing about users matches without one", [allow()], {}, NOBODY, ALLOWED, True),
    ("and with any", [allow()], {}, BOB, ALLOWED, True),
    ("a group of the user's is an Allow", [allow(SALES)], {}, ADA, ALLOWED, True),
    ("a group that is not the user's is none, and the tool looks unknown", [allow(SALES)], {}, BOB, UNKNOWN, False),
    ("a group of the same name at another provider is another group", [allow(SALES)], {}, EVE, UNKNOWN, False),
    ("and so is a user", [allow(TO_ADA)], {}, EVE, UNKNOWN, False),
    ("an Allow that names groups does not match without a user, who is asked for", [allow(SALES)], {}, NOBODY, WANTED, True),
    ("a user is named by the id", [allow(TO_ADA)], {}, ADA, ALLOWED, True),
    ("somebody else is not", [allow(TO_ADA)], {}, BOB, UNKNOWN, False),
    ("an Allow that names users does not match without one", [allow(TO_ADA)], {}, NOBODY, WANTED, True),
    ("an address that counts is a name", [allow(BY_MAIL)], {}, ADA, ALLOWED, True),
    ("a client is who the token was given to", [allow(AT_DESK)], {}, ADA, ALLOWED, True),
    ("another client is not", [allow(AT_DESK)], {}, BOB, UNKNOWN, False),
    ("a client id means something at its issuer only", [allow(AT_DESK)], {}, EVE, UNKNOWN, False),
    ("a client cannot be told without a token", [allow(AT_DESK)], {}, NOBODY, WANTED, True),
    ("fields of an entry are AND", [allow(SALES_AT_CHAT)], {}, ADA, UNKNOWN, False),
    ("entries are OR: the first", [allow(SALES_OR_BOB)], {}, ADA, ALLOWED, True),
    ("entries are OR: the second", [allow(SALES_OR_BOB)], {}, BOB, ALLOWED, True),
    ("entries are OR: neither", [allow(SALES_OR_BOB)], {}, testing.a_user("it", id="okta:cy"), UNKNOWN, False),
    ("a team that lists groups is its workload's where there is no user", [allow(TEAM)], {}, NOBODY, ALLOWED, True),
    ("and with a user that user must be a member too", [allow(TEAM)], {}, BOB, UNKNOWN, False),
    ("who is one by any of its groups", [allow(TEAM)], {}, testing.a_user("deals"), ALLOWED, True),
    ("a team does not stand in for a user that the entry names too", [allow(TEAM_AND_ADA)], {}, NOBODY, WANTED, True),
    ("an Allow in doubt does not spoil one that is certain", [allow(SALES), allow(name="a")], {}, NOBODY, ALLOWED, True),
    ("an Allow that misses does not either", [allow(SALES), allow(name="a")], {}, BOB, ALLOWED, True),
    # Both keys
    ("the consumer's key may hinge on a user", [allow(), consumer(SALES)], ACROSS, NOBODY, WANTED, True),
    ("and turn for one", [allow(), consumer(SALES)], ACROSS, ADA, ALLOWED, True),
    ("and not for another", [allow(), consumer(SALES)], ACROSS, BOB, UNKNOWN, False),
    ("so may the provider's", [allow(SALES), consumer()], ACROSS, NOBODY, WANTED, True),
    ("a user opens nothing that lacks the other key", [allow(SALES)], ACROSS, ADA, UNKNOWN, False),
    ("nor is one asked for then", [allow(SALES)], ACROSS, NOBODY, UNKNOWN, False),
    ("nor when the provider's is the one that is lacking", [consumer(SALES)], ACROSS, NOBODY, UNKNOWN, False),
    ("the platform's Allow of a user is both keys", [allow(SALES, key="Platform")], ACROSS, ADA, ALLOWED, True),
    # Denies
    ("a Deny of a group is one for its members", [allow(), deny(SALES)], {}, ADA, HIDDEN, False),
    ("and none for others", [allow(), deny(SALES)], {}, BOB, ALLOWED, True),
    ("in doubt it denies: a user is asked for, for the tool was listed", [allow(), deny(SALES)], {}, NOBODY, WANTED, True),
    ("with a message it tells that to its members", [allow(), loud(SALES)], {}, ADA, TOLD, False),
    ("and nothing to others", [allow(), loud(SALES)], {}, BOB, ALLOWED, True),
    ("and in doubt it tells the message", [allow(), loud(SALES)], {}, NOBODY, TOLD, True),
    ("of two in doubt the silent one asks for a user", [allow(), loud(SALES), deny(TO_ADA)], {}, NOBODY, WANTED, True),
    ("a Deny for everybody is no matter of users", [allow(SALES), deny()], {}, NOBODY, HIDDEN, False),
    ("nor is one with a message", [allow(SALES), loud()], {}, NOBODY, TOLD, False),
    ("whose message goes only to whoever could otherwise call", [allow(SALES), loud()], {}, BOB, UNKNOWN, False),
    ("and does go to them", [allow(SALES), loud()], {}, ADA, TOLD, False),
    ("a message in doubt is told beside a silent Deny, as it would be with the user", [allow(), deny(), loud(SALES)], {}, NOBODY, TOLD, False),
    ("and is not to whom it is not for", [allow(), deny(), loud(SALES)], {}, BOB, HIDDEN, False),
    ("the Allow that is in doubt comes before the message that is", [allow(TO_ADA), loud(SALES)], {}, NOBODY, WANTED, True),
    ("a denied team that the workload is not in is no matter without a user", [allow(), deny(DENIED_TEAM)], {}, NOBODY, ALLOWED, True),
    ("and matches the user who is in it", [allow(), deny(DENIED_TEAM)], {}, ADA, HIDDEN, False),
    ("and no other user", [allow(), deny(DENIED_TEAM)], {}, BOB, ALLOWED, True),
    # requireUser
    ("requireUser refuses whoever has none, and lists the tool", [allow()], BY_USERS, NOBODY, WANTED, True),
    ("and any user will do", [allow()], BY_USERS, BOB, ALLOWED, True),
    ("but opens nothing by itself", [], BY_USERS, BOB, UNKNOWN, False),
    ("nor asks for a user where nothing could be called", [], BY_USERS, NOBODY, UNKNOWN, False),
    ("it stands before what may deny", [allow(), loud(SALES)], BY_USERS, NOBODY, WANTED, True),
    ("and behind what does", [allow(), loud()], BY_USERS, NOBODY, TOLD, False),
    ("a disabled server says so before it asks for anybody", [allow(SALES)], OFF, NOBODY, (R.SERVER_DISABLED, True), False),
    ("but to nobody who could not call it", [allow(SALES)], OFF, BOB, UNKNOWN, False),
]  # fmt: skip


def ask(view: snapshot.ServerView, user: identity.User | None, **more: Any) -> decision.Decision:
    subject = call.Call(testing.CRM, "query", user=user, **more)
    return decide.decide(testing.bound_to(view, "query"), subject, budgets.UNLIMITED, now=0.0)


def said(found: decision.Decision) -> Answer:
    if isinstance(found, decision.Permit):
        return ALLOWED
    assert isinstance(found, decision.Refusal), found
    return found.reason, found.objection.visible


@pytest.mark.parametrize(
    ("chosen", "view", "user", "answer", "listed"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_with_a_user_everything_is_exact_and_without_one_nothing_is_lenient(
    chosen: list[rules.Rule],
    view: dict[str, Any],
    user: identity.User | None,
    answer: Answer,
    listed: bool,
) -> None:
    server = testing.a_server(*chosen, **view)
    assert said(ask(server, user)) == answer
    bound = testing.bound_to(server, "query")
    seen = list(decide.listed(bound, user=user))
    assert [target.name for target in seen] == ["query"] * listed
    target = bound.servers[testing.CRM].target(call.Kind.TOOL, "query")
    assert target is not None
    assert (decide.reach(target, user) is decide.Reach.ALWAYS) is listed
    # A visible refusal and a listed tool are never behind a server that looks unknown.
    assert bound.servers[testing.CRM].in_sight or (not listed and not answer[1])


def permitted(found: decision.Decision) -> decision.Permit:
    assert isinstance(found, decision.Permit), found
    return found


def refused(found: decision.Decision) -> decision.Objection:
    assert isinstance(found, decision.Refusal), found
    return found.objection


def named(callers: rules.Callers, name: str, **more: Any) -> rules.Rule:
    return allow(callers, name=name, **more)


def test_a_permit_names_the_rules_that_matched_this_user() -> None:
    view = testing.a_server(
        named(TO_ADA, "a1"), named(SALES, "a2"), named(ANYONE, "c1", key="Consumer"), named(TO_ADA, "c0", key="Consumer"),
        consumer_key_needed=True,
    )  # fmt: skip
    assert [ref.rule for ref in permitted(ask(view, ADA)).rules] == ["a1", "c0"]
    cy = testing.a_user("sales", id="okta:cy")
    assert [ref.rule for ref in permitted(ask(view, cy)).rules] == ["a2", "c1"]


def test_a_refusal_for_want_of_a_user_names_the_rule_it_hinges_on_or_the_entry() -> None:
    assert (
        refused(ask(testing.a_server(named(SALES, "a"), deny(SALES, name="d")), NOBODY)).rule
        == deny(name="d").ref
    )
    assert refused(ask(testing.a_server(named(SALES, "a"), loud(SALES)), NOBODY)).rule == allow(name="a").ref
    required = refused(ask(testing.a_server(allow(), require_user=True), NOBODY))
    assert (required.rule, required.detail) == (None, "the MCPServer says `requireUser`")


def test_a_refusal_of_a_user_says_so_in_the_journal() -> None:
    detail = refused(ask(testing.a_server(allow(SALES)), BOB)).detail
    assert detail == "no Allow of crm (provider) or the platform that matches this user"
    plain = refused(ask(testing.a_server(), BOB)).detail
    assert plain == "no Allow of crm (provider) or the platform"
    across = refused(ask(testing.a_server(allow(), consumer(SALES), consumer_key_needed=True), BOB)).detail
    assert across == "no Allow of the workload's namespace (consumer) or the platform that matches this user"


@pytest.mark.parametrize(
    ("user", "would"),
    [(NOBODY, ["would-deny crm/p/d"]), (ADA, ["would-deny crm/p/d", "would-allow crm/p/w"]), (BOB, [])],
)
def test_rules_in_audit_mode_are_recorded_as_they_would_have_counted(
    user: identity.User | None, would: list[str]
) -> None:
    view = testing.a_server(
        allow(), deny(SALES, enforced=False), allow(SALES, name="w", enforced=False), require_user=False
    )
    assert list(permitted(ask(view, user)).would) == would


# Credentials ----------------------------------------------------------------------------------------------------------

EXCHANGE = snapshot.TokenExchange(
    token_url="https://as.example/token",
    client=snapshot.OAuthClient(id="outrider", secret=snapshot.FileSecret(path="/s")),
)


def entry(name: str, callers: rules.Callers = ANYONE, **more: Any) -> snapshot.Credential:
    return snapshot.Credential(
        **{"name": name, "callers": callers, "source": snapshot.FileSecret(path="/x"), **more}
    )


MISSING = (R.NO_CREDENTIAL_FOR_CALLER, True)

LENT: list[tuple[str, list[snapshot.Credential], identity.User | None, str | Answer]] = [
    ("one that says nothing about users is for all", [entry("any")], BOB, "any"),
    ("the first that is for the user", [entry("his", testing.callers(users=["okta:bob"])), entry("any")], BOB, "his"),
    ("is passed over for others", [entry("his", testing.callers(users=["okta:bob"])), entry("any")], ADA, "any"),
    ("is never passed over where there is no user", [entry("his", TO_ADA), entry("any")], NOBODY, WANTED),
    ("does not matter behind one that is for all", [entry("any"), entry("his", TO_ADA)], NOBODY, "any"),
    ("none for this user is none at all", [entry("hers", TO_ADA)], BOB, MISSING),
    ("an exchange needs a user, whoever it is", [entry("x", source=EXCHANGE), entry("any")], NOBODY, WANTED),
    ("and is then the user's", [entry("x", source=EXCHANGE), entry("any")], BOB, "x"),
    ("or not", [entry("x", SALES, source=EXCHANGE), entry("any")], BOB, "any"),
    ("a team's entry is the workload's without a user", [entry("team", TEAM), entry("any")], NOBODY, "team"),
    ("and only members' with one", [entry("team", TEAM), entry("any")], BOB, "any"),
    ("an entry for other tools is not looked at", [entry("x", source=EXCHANGE, tools=("get_*",)), entry("any")], NOBODY, "any"),
    ("no credential at all may be an entry", [entry("none", TO_ADA, source=None), entry("any")], ADA, "none"),
]  # fmt: skip


@pytest.mark.parametrize(("entries", "user", "lent"), [row[1:] for row in LENT], ids=[row[0] for row in LENT])
def test_a_credential_is_the_first_for_the_caller_and_doubt_is_never_passed_over(
    entries: list[snapshot.Credential], user: identity.User | None, lent: str | Answer
) -> None:
    view = testing.a_server(allow(), credentials=tuple(entries), credential_required=True)
    found = ask(view, user)
    if isinstance(lent, str):
        credential = permitted(found).credential
        assert credential is not None
        assert credential.name == lent
    else:
        assert said(found) == lent
    assert [target.name for target in decide.listed(testing.bound_to(view, "query"), user=user)] == ["query"]


# Budgets --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "counted"),
    [
        (NOBODY, ["all", "sales", "ada"]),
        (ADA, ["all", "sales", "ada"]),
        (BOB, ["all"]),
        (testing.a_user("sales", id="okta:cy"), ["all", "sales"]),
    ],
)
def test_a_limit_of_some_users_counts_theirs_and_what_may_be_theirs(
    user: identity.User | None, counted: list[str]
) -> None:
    limits = (
        testing.a_limit(calls=5, name="all"),
        testing.a_limit(calls=5, name="sales", callers=SALES),
        testing.a_limit(calls=5, name="ada", callers=TO_ADA),
        testing.a_limit(calls=5, name="denied", callers=testing.callers(users=["okta:none"], groups=["okta:sales"])),
    )  # fmt: skip
    view = testing.a_server(allow(), limits=limits)
    names = [held.pool.limit.name for held in permitted(ask(view, user)).reservations]
    assert [name for name in names if name != "denied"] == counted
    assert ("denied" in names) is (user is NOBODY)
    assert permitted(ask(view, user, method=call.Method.COMPLETE)).reservations


def test_a_team_that_a_caller_without_a_user_is_not_in_does_not_count() -> None:
    view = testing.a_server(allow(), limits=(testing.a_limit(calls=5, callers=DENIED_TEAM),))
    assert permitted(ask(view, NOBODY)).reservations == ()
    assert len(permitted(ask(view, ADA)).reservations) == 1


# What the proxy asks on its own, and other kinds ------------------------------------------------------------------------


def test_a_list_is_asked_for_in_nobodys_name_unless_only_users_have_credentials() -> None:
    shared, hers = entry("any"), entry("x", source=EXCHANGE)

    def leave(*entries: snapshot.Credential, user: identity.User | None, **more: Any) -> Any:
        view = testing.a_server(allow(), credentials=entries, credential_required=True)
        return decide.permit_listing(testing.bound_to(view), testing.CRM, user=user, **more)

    permit = permitted(leave(hers, shared, user=ADA))
    assert (permit.credential, permit.call.user, permit.call.method) == (shared, None, call.Method.LIST)
    permit = permitted(leave(hers, user=ADA))
    assert (permit.credential, permit.call.user) == (hers, ADA)
    assert permitted(leave(hers, shared, user=ADA, credential="x")).call.user == ADA
    assert said(leave(hers, user=NOBODY)) == WANTED
    assert said(leave(shared, user=ADA, credential="gone")) == MISSING


def test_where_only_users_have_credentials_a_call_without_one_is_not_sent_for_a_list_either() -> None:
    for kind, method in ((call.Kind.TOOL, call.Method.CALL), (call.Kind.PROMPT, call.Method.GET)):
        view = testing.a_server(
            testing.allow(prompts=("*",)),
            credentials=(entry("x", source=EXCHANGE),),
            credential_required=True,
        )
        unseen = bind.bound(testing.a_snapshot(view), {})

        def found(
            user: identity.User | None, name: str, about: Any = (kind, method), held: bind.Bound = unseen
        ) -> Any:
            return decide.decide(
                held, call.Call(testing.CRM, name, None, *about, user=user), budgets.UNLIMITED, now=0.0
            )

        assert said(found(NOBODY, "query")) == said(found(NOBODY, "nothing")) == WANTED
        assert found(ADA, "query") == decision.Need(definitions=testing.CRM)
    mixed = testing.a_server(
        allow(), credentials=(entry("x", source=EXCHANGE), entry("any")), credential_required=True
    )
    subject = call.Call(testing.CRM, "query")
    needed = decide.decide(bind.bound(testing.a_snapshot(mixed), {}), subject, budgets.UNLIMITED, now=0.0)
    assert needed == decision.Need(definitions=testing.CRM)


def test_prompts_resources_and_templates_depend_on_the_user_like_tools() -> None:
    everything = {"prompts": ("*",), "resources": ("db://*",)}
    view = testing.a_server(
        testing.allow(callers=SALES, **everything), testing.deny("x", callers=TO_ADA, resources=("db://7",))
    )
    definitions = catalog.definitions(
        prompts=[b'{"name":"greet"}'],
        resources=[b'{"name":"r","uri":"db://7"}', b'{"name":"r","uri":"db://8"}'],
        templates=[b'{"name":"t","uriTemplate":"db://{row}"}'],
    )
    bound = bind.bound(testing.a_snapshot(view), {testing.CRM: definitions})

    def seen(user: identity.User | None) -> list[str]:
        lists = [
            *(decide.listed(bound, None, kind, user) for kind in call.Kind),
            decide.templates(bound, user=user),
        ]
        return [target.name for each in lists for target in each]

    assert seen(NOBODY) == ["greet", "db://7", "db://8", "db://{row}"]
    assert seen(ADA) == ["greet", "db://8", "db://{row}"]
    assert seen(BOB) == []
    for uri, user, answer in (
        ("db://9", ADA, ALLOWED), ("db://7", ADA, HIDDEN), ("db://9", BOB, UNKNOWN), ("db://9", NOBODY, WANTED),
    ):  # fmt: skip
        subject = call.Call(testing.CRM, uri, None, call.Kind.RESOURCE, call.Method.READ, user)
        assert said(decide.decide(bound, subject, budgets.UNLIMITED, now=0.0)) == answer
    template = call.Call(testing.CRM, "db://{row}", None, call.Kind.RESOURCE, call.Method.COMPLETE, BOB)
    assert said(decide.decide(bound, template, budgets.UNLIMITED, now=0.0)) == UNKNOWN


def test_a_silent_deny_of_some_users_hides_no_resources_from_the_others() -> None:
    for callers, seen in ((SALES, True), (DENIED_TEAM, True), (ANYONE, False)):
        view = testing.a_server(
            testing.allow(resources=("*",)), testing.deny("x", callers=callers, resources=("*",))
        )
        held = bind.bound(testing.a_snapshot(view), {testing.CRM: testing.tools()}).servers[testing.CRM]
        assert held.in_sight is seen, callers


def test_what_is_the_same_for_everybody_is_made_once() -> None:
    bound = testing.bound_to(testing.a_server(allow()), "query")
    target = bound.servers[testing.CRM].target(call.Kind.TOOL, "query")
    assert target is not None
    assert target.of(ADA) is target.of(BOB) is target
    assert permitted(ask(testing.a_server(allow()), ADA)).call.user == ADA


def test_explain_shows_what_each_check_says_about_the_user() -> None:
    view = testing.a_server(
        allow(SALES), credentials=(entry("x", source=EXCHANGE),), credential_required=True, require_user=True
    )
    bound = testing.bound_to(view, "query")

    def objections(user: identity.User | None) -> dict[str, R]:
        steps = decide.explain(bound, call.Call(testing.CRM, "query", user=user), budgets.UNLIMITED, now=0.0)
        return {step.check: step.found.reason for step in steps if isinstance(step.found, decision.Objection)}

    assert objections(NOBODY) == {"user_present": R.USER_REQUIRED, "credential_chosen": R.USER_REQUIRED}
    assert objections(ADA) == {}
    assert objections(BOB) == {"reachable": R.NOT_ALLOWED}
