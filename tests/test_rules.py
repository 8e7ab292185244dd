# SPDX-License-Identifier: Apache-2.0
"""Globs and case folding."""

from __future__ import annotations

import re

import hypothesis
import pytest
from hypothesis import strategies as st

from outrider import call, rules, testing

TEXT = st.text(alphabet="ab*._A", max_size=12)


def naive(glob: str, name: str) -> bool:
    """`*` is any run of characters; everything else is itself; both ends anchored."""
    return (
        re.fullmatch("".join(".*" if c == "*" else re.escape(c) for c in glob), name, re.DOTALL) is not None
    )


@hypothesis.given(glob=TEXT, name=TEXT)
@hypothesis.settings(max_examples=2000)
def test_a_glob_matches_what_a_regular_expression_of_it_matches(glob: str, name: str) -> None:
    assert rules.matches(glob, name) == naive(glob, name)
    assert rules.exact((glob,))(name) == naive(glob, name)


@hypothesis.given(globs=st.lists(TEXT, max_size=5), name=TEXT)
def test_a_list_of_globs_matches_when_any_of_them_does(globs: list[str], name: str) -> None:
    assert rules.exact(tuple(globs))(name) == any(naive(glob, name) for glob in globs)
    assert rules.folded(tuple(globs))(name) == any(naive(rules.fold(g), rules.fold(name)) for g in globs)


def test_a_glob_made_to_explode_a_backtracking_matcher_is_decided_at_once() -> None:
    assert not rules.matches("*a" * 60 + "b", "a" * 100_000)


@pytest.mark.parametrize("look_alike", ["Query", "QUERY", "\uff51uery", "qu\u212ary".replace("\u212a", "e")])
def test_a_deny_folds_case_and_compatibility_forms(look_alike: str) -> None:
    assert rules.folded(("query",))(look_alike)


@pytest.mark.parametrize("look_alike", ["Query", "query ", "que\u200bry", "\u0441query", "\uff51uery"])
def test_an_allow_is_byte_exact(look_alike: str) -> None:
    assert not rules.exact(("query",))(look_alike)
    assert rules.exact(("query",))("query")


@hypothesis.given(st.text())
def test_folding_twice_is_folding_once(text: str) -> None:
    assert rules.fold(rules.fold(text)) == rules.fold(text)


@hypothesis.given(one=TEXT, other=TEXT, name=TEXT)
@hypothesis.settings(max_examples=2000)
def test_globs_that_match_one_name_meet(one: str, other: str, name: str) -> None:
    if rules.matches(one, name) and rules.matches(other, name):
        assert rules.meet(one, other)
    assert rules.meet(one, other) == rules.meet(other, one)
    assert rules.meet(one, name.replace("*", "x")) == rules.matches(one, name.replace("*", "x"))


@pytest.mark.parametrize(
    ("one", "other", "meets"),
    [("a*", "*b", True), ("a*b", "ab*c", False), ("*a*", "*b*", True), ("a", "b*", False), ("", "*", True), ("", "a", False)],
)  # fmt: skip
def test_two_globs_meet_when_some_name_fits_both(one: str, other: str, meets: bool) -> None:
    assert rules.meet(one, other) is meets


def test_a_rule_says_what_it_says_of_each_kind() -> None:
    rule = testing.allow("query", prompts=("greet",), resources=("file:///*",))
    assert [rule.globs(kind) for kind in call.Kind] == [("query",), ("greet",), ("file:///*",)]


# Users ----------------------------------------------------------------------------------------------------------------

ADA = testing.a_user("sales", names=("okta:ada@corp.example",), client="okta:desk")
BOB = testing.a_user(id="okta:bob")
NOBODY = None


@pytest.mark.parametrize(
    ("fields", "ada", "bob", "nobody"),
    [
        ({}, True, True, True),
        ({"users": ["okta:ada"]}, True, False, None),
        ({"users": ["okta:ada@corp.example", "okta:x"]}, True, False, None),
        ({"groups": ["okta:x", "okta:sales"]}, True, False, None),
        ({"clients": ["okta:desk"]}, True, False, None),
        ({"teams": ["okta:sales", "okta:x"]}, True, False, True),
        ({"teams": ["okta:sales"], "teams_alone": False}, True, False, False),
        ({"users": ["okta:bob"], "groups": ["okta:sales"]}, False, False, None),
        ({"groups": ["okta:sales"], "clients": ["okta:x"]}, False, False, None),
        ({"users": ["okta:ada"], "groups": ["okta:sales"], "clients": ["okta:desk"], "teams": ["okta:sales"]}, True, False, None),
        ({"users": ["okta:ada"], "teams": ["okta:x"]}, False, False, None),
        ({"users": ["okta:ada"], "teams": ["okta:sales"], "teams_alone": False}, True, False, False),
    ],
)  # fmt: skip
def test_what_an_entry_says_of_a_user_is_exact_and_without_one_unknown(
    fields: dict[str, object], ada: bool, bob: bool, nobody: bool | None
) -> None:
    callers = testing.callers(**fields)
    assert [callers[0].matches(user) for user in (ADA, BOB, NOBODY)] == [ada, bob, nobody]
    assert [rules.admits(callers, user) for user in (ADA, BOB, NOBODY)] == [ada, bob, nobody]


SALES, TO_BOB = testing.callers(groups=["okta:sales"]), testing.callers(users=["okta:bob"])
NEVER_ALONE = testing.callers(teams=["okta:x"], teams_alone=False)


@pytest.mark.parametrize(
    ("callers", "ada", "bob", "nobody"),
    [
        ((), True, True, True),
        ((*SALES, *TO_BOB), True, True, None),
        ((*NEVER_ALONE, *SALES), True, False, None),
        ((*SALES, *testing.callers()), True, True, True),
        ((*NEVER_ALONE, *NEVER_ALONE), False, False, False),
    ],
)
def test_entries_are_alternatives_and_one_that_is_certain_is_enough(
    callers: rules.Callers, ada: bool, bob: bool, nobody: bool | None
) -> None:
    assert [rules.admits(callers, user) for user in (ADA, BOB, NOBODY)] == [ada, bob, nobody]


@pytest.mark.parametrize(
    ("callers", "said"),
    [
        ((), ""),
        (testing.callers(), "anybody"),
        (testing.callers(users=["okta:a", "okta:b"]), "okta:a or okta:b"),
        (testing.callers(groups=["okta:g"], clients=["okta:c"]), "in group okta:g and through client okta:c"),
        (testing.callers(teams=["okta:t"]), "of a team by group okta:t"),
        (testing.callers(teams=["okta:t"], teams_alone=False), "of a team, by group alone, okta:t"),
        ((*SALES, *TO_BOB), "in group okta:sales; or okta:bob"),
    ],
)
def test_who_is_meant_is_said_in_words(callers: rules.Callers, said: str) -> None:
    assert rules.in_words(callers) == said
