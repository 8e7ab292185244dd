# SPDX-License-Identifier: Apache-2.0
"""Globs and case folding."""

from __future__ import annotations

import re

import hypothesis
import pytest
from hypothesis import strategies as st

from outrider import rules

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
