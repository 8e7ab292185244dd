# SPDX-License-Identifier: Apache-2.0
"""The size of patterns, repetitions written out."""

from __future__ import annotations

import pytest

from outrider import patterns


@pytest.mark.parametrize(
    ("pattern", "states"),
    [
        ("abc", 3), ("a{10}", 10), ("(ab){10}", 20), ("(a{10}b){3}", 33), ("[a-z]{5}", 5), (r"[\]}]{4}", 4),
        (r"\p{L}{7}", 7), ("[[a]b]{3}", 3), ("a{2,9}", 9), ("(a+){50}", 100), ("a+{50}", 51), (7, 0),
    ],
)  # fmt: skip
def test_a_repetition_counts_as_often_as_it_repeats(pattern: object, states: int) -> None:
    assert patterns.states(pattern) == states


@pytest.mark.parametrize("pattern", ["((a{1000}){1000}){1000}", "(?x) #[\n (a{99}){99}", "(?i-x)a"])
def test_what_is_huge_or_cannot_be_counted_is_above_the_limit(pattern: str) -> None:
    assert patterns.states(pattern) > patterns.STATES_MAX
