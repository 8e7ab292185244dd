# SPDX-License-Identifier: Apache-2.0
"""The Inspection remembers, and when it is done it says what check says: over random worlds, edits and lists of tools."""

from __future__ import annotations

import collections

import hypothesis
import hypothesis.strategies as st
from tests.test_compiler import histories
from tests.worlds import EVERYONE, S, allow, deny, policy, server, world

from outrider import compile as compiler
from outrider import names
from outrider.findings import Reason

QUIET = {"credentials": [{"name": "c", "from": EVERYONE, "none": True}]}
definitions = st.dictionaries(
    st.builds(names.ServerId, st.sampled_from(["crm", "agents"]), st.sampled_from(["s", "t"])),
    st.sampled_from([("query",), ("other",), ()]),
    max_size=3,
)


@hypothesis.settings(max_examples=40, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(histories(), st.lists(st.tuples(definitions, definitions), max_size=6))
def test_whatever_happens_it_ends_up_saying_what_check_says(steps, lists) -> None:
    remembering = compiler.Compiler()
    inspection = compiler.Inspection(remembering.objects)
    listed, prompts = {}, {}
    for index, (made, _) in enumerate(steps):
        inspection.note(remembering.update(made).delta)
        if index < len(lists):
            listed, prompts = lists[index]
            inspection.learn(listed, prompts)
        for _ in inspection.work():
            pass
        assert inspection.done
        found = inspection.all()
        assert found == compiler.check(made, listed, prompts=prompts)
        assert inspection.counts() == collections.Counter(each.reason.value for each in found)


def settled(inspection):
    return set(inspection.work())


def test_a_change_is_looked_at_with_what_it_may_have_changed_and_nothing_else() -> None:
    remembering = compiler.Compiler()
    inspection = compiler.Inspection(remembering.objects)
    other = [server("t", **QUIET), policy(allow(), name="other", target=[{"name": "t"}])]
    plain = [server(**QUIET), policy(allow())]
    inspection.note(remembering.update(world(*plain, *other)).delta)
    assert len(settled(inspection)) == 4
    inspection.note(remembering.update(world(*plain, *other, policy(deny(), name="d"))).delta)
    assert ("MCPToolPolicy", "crm", "other") not in settled(inspection)
    [found] = inspection.of(("MCPToolPolicy", "crm", "p"))
    assert found.reason is Reason.SHADOWED
    inspection.note(remembering.update(world(*plain, *other)).delta)
    assert settled(inspection) >= {("MCPToolPolicy", "crm", "p"), ("MCPToolPolicy", "crm", "d")}
    assert inspection.all() == ()
    inspection.learn({S: ("something",)})
    assert settled(inspection) == {("MCPServer", "crm", "s"), ("MCPToolPolicy", "crm", "p")}
    [found] = inspection.all()
    assert found.reason is Reason.UNKNOWN_TOOL


def test_what_is_not_yet_looked_at_keeps_what_was_said_last() -> None:
    remembering = compiler.Compiler()
    inspection = compiler.Inspection(remembering.objects)
    inspection.note(remembering.update(world(policy(allow()))).delta)
    settled(inspection)
    inspection.note(remembering.update(world(server(**QUIET), policy(allow()))).delta)
    assert not inspection.done
    assert [found.reason for found in inspection.all()] == [Reason.TARGET_NOT_FOUND]
    settled(inspection)
    assert inspection.all() == ()
