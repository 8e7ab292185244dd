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
