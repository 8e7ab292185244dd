# SPDX-License-Identifier: Apache-2.0
"""What a `from` leaves to be said of the user, for one workload: resources.md, "How a call is decided", 4 and 5."""

from __future__ import annotations

import json

import hypothesis
import hypothesis.strategies as st
import pytest
from tests.worlds import world

from outrider import identity, rules, testing
from outrider.compile import scope
from outrider.resources import fields

PROVIDERS = [{"name": "okta", "issuer": "https://okta.example", "audience": "outrider", "jwksUri": "https://okta.example/k", "tokenEndpoints": ["https://as.example/t"]}]  # fmt: skip
TEAMS = [
    {"name": "sales", "namespaces": ["agents"], "groups": ["okta:sales", "okta:reps"]},
    {"name": "ops", "namespaces": ["agents"]},
    {"name": "board", "groups": ["okta:board"]},
    {"name": "hr", "namespaces": ["people"], "groups": ["okta:hr"]},
]
WORLD = world(teams=TEAMS, identityProviders=PROVIDERS)
NAMED = {team["name"]: team for team in TEAMS}


def selectors(*entries):
    return tuple(fields.Selector.model_validate_json(json.dumps(entry)) for entry in entries)


def callers(*entries, deny=False, namespace="agents"):
    case = scope.case(WORLD, namespace, "bot")
    return case.callers("crm", selectors(*entries) if entries else None, deny=deny)


def test_nothing_is_said_of_users_by_entries_that_do_not_name_them() -> None:
    assert callers() == ()
    assert callers({"anyone": True}) == ()
    assert callers({"namespaces": ["agents"]}) == ()
    assert callers({"teams": ["ops"]}) == ()


def test_an_entry_of_another_workload_says_nothing_and_none_left_means_no_match() -> None:
    assert callers({"namespaces": ["hr"], "users": ["okta:ada"]}) is None
    assert callers({"serviceAccounts": ["agents/cat"], "groups": ["okta:x"]}) is None
    assert callers({"namespaces": ["hr"]}, {"groups": ["okta:x"]}) == (rules.UserTest(groups=("okta:x",)),)


def test_one_entry_without_a_word_about_users_is_enough_for_everybody() -> None:
    assert callers({"users": ["okta:ada"]}, {"namespaces": ["agents"]}) == ()
    assert callers({"users": ["okta:ada"]}, {"namespaces": ["hr"]}) == (rules.UserTest(users=("okta:ada",)),)


def test_the_fields_of_an_entry_about_users_stay_together() -> None:
    whole = {"namespaces": ["agents"], "users": ["okta:ada"], "groups": ["okta:g"], "clients": ["okta:cli"]}
    assert callers(whole) == (rules.UserTest(users=("okta:ada",), groups=("okta:g",), clients=("okta:cli",)),)


def test_in_an_allow_every_party_present_is_a_member_of_one_team() -> None:
    [test] = callers({"teams": ["sales"]})
    assert test == rules.UserTest(teams=("okta:reps", "okta:sales"))
    assert [test.matches(user) for user in (None, testing.a_user("sales"), testing.a_user("hr"))] == [True, True, False]  # fmt: skip
    assert callers({"teams": ["hr"]}) is None, "the workload is not in it, whoever the user is"
    assert callers({"teams": ["sales", "hr"]}) == (test,), "hr's groups are no way in for a workload of sales"
    assert callers({"teams": ["sales", "ops"]}) == (), "ops lists no groups, so nothing is asked of its users"


def test_a_team_of_groups_only_never_matches_a_pod_in_an_allow() -> None:
    assert callers({"teams": ["board"]}) is None


def test_in_a_deny_any_party_present_is_enough() -> None:
    assert callers({"teams": ["sales"]}, deny=True) == (), "the workload is a member"
    [test] = callers({"teams": ["hr", "board"]}, deny=True)
    assert test == rules.UserTest(teams=("okta:board", "okta:hr"), teams_alone=False)
    assert [test.matches(user) for user in (None, testing.a_user("hr"), testing.a_user("sales"))] == [False, True, False]  # fmt: skip
    assert callers({"teams": ["nobody"]}, deny=True) is None
    assert callers({"teams": ["board"], "namespaces": ["hr"]}, deny=True) is None, "fields are AND there too"


def test_two_entries_that_say_the_same_are_one() -> None:
    same = {"groups": ["okta:g"]}
    assert callers(same, {**same, "namespaces": ["agents"]}) == (rules.UserTest(groups=("okta:g",)),)


def test_the_namespaces_label_makes_a_member_of_a_team_that_lists_groups() -> None:
    labelled = world(teams=TEAMS, identityProviders=PROVIDERS, teamFromNamespaceLabel=True)
    object.__setattr__(labelled, "namespaces", {"shop": {scope.TEAM_LABEL: "board"}})
    case = scope.case(labelled, "shop", "bot")
    assert case.callers("crm", selectors({"teams": ["board"]})) == (rules.UserTest(teams=("okta:board",)),)


GROUPS = ["okta:sales", "okta:reps", "okta:hr", "okta:board", "okta:x"]
entries = st.fixed_dictionaries(
    {},
    optional={
        "namespaces": st.just(["agents"]),
        "teams": st.lists(st.sampled_from([*NAMED, "nobody"]), min_size=1, max_size=3, unique=True),
        "users": st.just(["okta:ada"]),
        "groups": st.lists(st.sampled_from(GROUPS), min_size=1, max_size=2, unique=True),
        "clients": st.just(["okta:cli"]),
    },
).filter(bool)
people = st.none() | st.builds(
    lambda id_, groups, client: identity.User(id=id_, names=frozenset({id_}), groups=frozenset(groups), client=client),
    st.sampled_from(["okta:ada", "okta:bob"]),
    st.lists(st.sampled_from(GROUPS), max_size=3),
    st.sampled_from(["okta:cli", "okta:other"]),
)  # fmt: skip


def plainly(entry, namespace, user, *, deny):
    """resources.md read by somebody who knows nothing of snapshots: True, False, or None where it cannot be said."""
    said = []
    if "namespaces" in entry:
        said.append(namespace in entry["namespaces"])
    if "teams" in entry:
        members = []
        for team in (NAMED[name] for name in entry["teams"] if name in NAMED):
            parties = [namespace in team.get("namespaces", ())]
            if user is not None and team.get("groups"):
                parties.append(not user.groups.isdisjoint(team["groups"]))
            members.append(any(parties) if deny else all(parties))
        said.append(any(members))
    if {"users", "groups", "clients"} & entry.keys():
        if user is None:
            said.append(None)
        else:
            said.append(user.id in entry.get("users", [user.id]))
            said.append("groups" not in entry or not user.groups.isdisjoint(entry["groups"]))
            said.append(user.client in entry.get("clients", [user.client]))
    return False if False in said else None if None in said else True


@hypothesis.given(
    st.lists(entries, min_size=1, max_size=3),
    st.sampled_from(["agents", "people", "shop"]),
    people,
    st.booleans(),
)
def test_what_is_compiled_says_what_the_words_say(given, namespace, user, deny) -> None:
    left = callers(*given, deny=deny, namespace=namespace)
    said = False if left is None else rules.admits(left, user)
    wanted = [plainly(entry, namespace, user, deny=deny) for entry in given]
    assert said == (True if True in wanted else None if None in wanted else False)


@pytest.mark.parametrize("deny", [False, True])
def test_selecting_is_having_something_left_to_be_said(deny) -> None:
    case = scope.case(WORLD, "agents", "bot")
    assert case.selects("crm", None)
    assert case.selects("crm", selectors({"users": ["okta:ada"]}), deny=deny)
    assert case.selects("crm", selectors({"teams": ["board"]}), deny=deny) is deny
