# SPDX-License-Identifier: Apache-2.0
"""What several reporters say of one server, as one observation that claims no more than was seen."""

from __future__ import annotations

import msgspec

from outrider_operator import observations

ONE, OTHER = "1" * 64, "2" * 64
CONTENTS = {
    ONE: observations.Listed((("a", "sha256:a"), ("b", "sha256:b")), 2),
    OTHER: observations.Listed((("b", "sha256:x"), ("c", "sha256:c")), 2),
}
GOOD = observations.Probe(
    "p1", 1000.0, good_at=1000.0, since=500.0, digest=ONE,
    server_info={"name": "sf"}, protocol_versions=("2025-11-25",),
)  # fmt: skip
FAILED = msgspec.structs.replace(GOOD, tried_at=1060.0, error="The connection was refused.")


def seen(*entries: observations.Entry) -> observations.Observation:
    made = observations.merged(entries, CONTENTS)
    assert made is not None
    return made


def probes(*each: observations.Probe) -> observations.Entry:
    return observations.Entry(each)


def group(digest: str, at: float, *pods: str, count: int = 0) -> observations.Group:
    return observations.Group(digest, at, pods, count or len(pods))


def test_nothing_heard_is_no_observation() -> None:
    assert observations.merged([], CONTENTS) is None
    assert observations.merged([observations.Entry()], CONTENTS) is None


def test_what_the_prober_lists_is_the_catalogue() -> None:
    made = seen(probes(GOOD))
    assert (made.reachable, made.message, made.seen_at) == (True, "", 1000.0)
    assert made.tools == CONTENTS[ONE].tools
    assert (made.total, made.complete) == (2, True)
    assert (made.server_info, made.protocol_versions) == ({"name": "sf"}, ("2025-11-25",))


def test_a_server_that_went_away_keeps_its_tools_and_says_since_when() -> None:
    made = seen(probes(FAILED))
    assert made.reachable is False
    assert made.message == "The connection was refused; it last answered at 1970-01-01T00:16:40Z."
    assert made.tools == CONTENTS[ONE].tools
    assert made.seen_at == 1060.0


def test_a_server_that_never_answered_says_only_why() -> None:
    made = seen(probes(observations.Probe("p1", 1060.0, "The connection was refused.")))
    assert (made.reachable, made.message, made.tools) == (False, "The connection was refused.", ())


def test_one_prober_that_gets_through_is_enough() -> None:
    away = observations.Probe("p2", 1010.0, "The name cannot be resolved.")
    assert seen(probes(GOOD, away)).reachable is True
    assert seen(probes(GOOD), probes(away)).reachable is True


def test_a_prober_that_has_been_silent_for_long_does_not_outvote_one_that_looks() -> None:
    away = observations.Probe("p2", 1300.0, "The name cannot be resolved.")
    made = seen(probes(GOOD, away))
    assert made.reachable is False
    assert made.message.startswith("The name cannot be resolved; it last answered at")


def test_a_prober_that_moved_to_another_replica_is_heard_once_and_its_latest_word_counts() -> None:
    assert seen(probes(GOOD), probes(FAILED)).reachable is False
    assert seen(probes(FAILED), probes(GOOD)).reachable is False


def test_without_a_prober_the_tools_are_what_most_sidecars_are_shown() -> None:
    entry = observations.Entry(groups=(group(ONE, 900.0, "x/a"), group(OTHER, 950.0, "x/b", "x/c")))
    made = seen(entry)
    assert (made.reachable, made.tools, made.seen_at) == (True, CONTENTS[OTHER].tools, 950.0)


def test_what_the_prober_may_not_list_the_sidecars_may() -> None:
    entry = observations.Entry(
        (observations.Probe("p", 10.0, "It needs a credential."),), (group(ONE, 9.0, "x/a"),)
    )
    made = seen(entry)
    assert (made.reachable, made.message, made.tools) == (
        False, "It needs a credential.", CONTENTS[ONE].tools,
    )  # fmt: skip


def test_pods_that_are_shown_something_else_are_named_and_so_is_the_difference() -> None:
    entry = observations.Entry((GOOD,), (group(ONE, 700.0, "x/a"), group(OTHER, 700.0, "x/b")))
    assert seen(entry).differing == (("x/b", "changed: b; more: c; missing: a"),)


def test_a_list_of_another_time_is_not_called_different() -> None:
    before, after = group(OTHER, 499.0, "x/b"), group(OTHER, 1001.0, "x/b")
    assert seen(observations.Entry((GOOD,), (before,))).differing == ()
    assert seen(observations.Entry((GOOD,), (after,))).differing == ()


def test_the_same_view_at_several_replicas_is_one_and_the_rest_of_many_pods_is_counted() -> None:
    one = observations.Entry((GOOD,), (group(OTHER, 700.0, "x/a", "x/b", count=10),))
    two = observations.Entry((), (group(OTHER, 800.0, "x/c", count=1),))
    made = seen(one, two)
    assert [pod for pod, _ in made.differing] == ["x/a", "x/b", "x/c"]
    assert made.differing[0][1].endswith("(so are 8 more pods)")


def test_a_list_that_is_too_long_to_be_held_is_still_counted() -> None:
    contents = {ONE: observations.Listed((), 12_000)}
    made = observations.merged([probes(GOOD)], contents)
    assert made is not None
    assert (made.total, made.complete, made.tools) == (12_000, False, ())


def test_a_moment_is_written_as_kubernetes_writes_it() -> None:
    assert observations.stamp(0.9) == "1970-01-01T00:00:00Z"
