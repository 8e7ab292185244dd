# SPDX-License-Identifier: Apache-2.0
"""Snapshots: canonical bytes, digests, positions."""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis import strategies as st

from outrider import snapshot, testing

POSITIONS = st.dictionaries(st.sampled_from(["files", "servers"]), st.integers(0, 5))


def test_equal_content_has_equal_bytes_and_another_content_another_digest() -> None:
    one, same = (testing.a_snapshot(testing.a_server(testing.allow("query"))) for _ in range(2))
    other = testing.a_snapshot(testing.a_server(testing.allow("quer")))
    assert snapshot.canonical(one) == snapshot.canonical(same)
    assert snapshot.digest(snapshot.canonical(one)) != snapshot.digest(snapshot.canonical(other))


@pytest.mark.parametrize(
    ("offered", "held", "behind"),
    [({"files": 2}, {"files": 2}, False), ({"files": 1}, {"files": 2}, True), ({}, {"files": 1}, True), ({"files": 9, "servers": 1}, {"files": 2, "servers": 2}, True), ({"files": 1}, {}, False)],
)  # fmt: skip
def test_a_position_lower_in_any_component_is_behind(
    offered: dict[str, int], held: dict[str, int], behind: bool
) -> None:
    assert snapshot.behind(offered, held) is behind


@hypothesis.given(a=POSITIONS, b=POSITIONS)
def test_two_positions_are_never_each_ahead_of_the_other_unless_equal(
    a: dict[str, int], b: dict[str, int]
) -> None:
    if not snapshot.behind(a, b) and not snapshot.behind(b, a):
        assert all(a.get(key, 0) == b.get(key, 0) for key in {*a, *b})
