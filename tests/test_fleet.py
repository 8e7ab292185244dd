# SPDX-License-Identifier: Apache-2.0
"""Pods that run are counted, whether or not anybody hears of them, and a pod that may still enforce what is gone is no success."""

from __future__ import annotations

from tests.worlds import CALLS, allow, budget, deny, policy, server, world

from outrider import compile as compiler
from outrider import snapshot
from outrider_operator import conditions, fleet, pods, receipts

BOT, CAT = ("agents", "bot"), ("agents", "cat")
P, Q = ("MCPToolPolicy", "crm", "p"), ("MCPToolPolicy", "crm", "q")


def pod(name, *, account="bot", phase="Running", deleting=False):
    return pods.Pod(f"uid-{name}", "agents", name, account, phase=phase, deleting=deleting)


def running(*given):
    return {each.uid: each for each in given}


def receipt(name, acked="", *, subject=BOT, **more):
    return receipts.Receipt(subject, name, "agents", snapshot.SCHEMA, offered=acked, acked=acked, **more)


def heard(**given):
    return {f"uid-{name}": each for name, each in given.items()}


class Case:
    def __init__(self, *objects):
        self.compiled = compiler.Compiler()
        self.fleet = fleet.Fleet(self.compiled)
        self.world(*objects)

    def world(self, *objects):
        self.compiled.update(world(*objects))
        return self.version()

    def version(self, subject=BOT):
        return self.compiled.compiled(*subject).version

    def count(self, thing, known, given, **more):
        self.fleet.update(known, given)
        return self.fleet.of(thing, **more)


def test_running_pods_are_counted_by_what_they_acknowledged() -> None:
    case = Case(server(), policy(allow()), budget(CALLS))
    now = case.version()
    known = running(
        pod("a"), pod("b"), pod("c"), pod("d"), pod("e"),
        pod("pending", phase="Pending"), pod("done", phase="Succeeded"), pod("leaving", deleting=True),
    )  # fmt: skip
    given = heard(
        a=receipt("a", now),
        b=receipt("b", now, connected=False),
        c=receipt("c"),
        d=receipt("d", refusal=receipts.Refusal("no such thing", "$.servers[0]", "MCPServer crm/s")),
    )
    expected = conditions.Fleet(
        pods=5, programmed=2, refusals=(("agents/d", "MCPServer crm/s $.servers[0]: no such thing"),),
        unreachable=("agents/e",), lagging=("agents/c",),
    )  # fmt: skip
    for thing in (P, ("MCPServer", "crm", "s"), ("MCPBudget", "crm", "b")):
        assert case.count(thing, known, given) == expected
    assert case.fleet.of(Q) == conditions.Fleet()
    assert case.fleet.of(P, settling=True).settling


def test_another_objects_change_leaves_an_object_programmed() -> None:
    case = Case(server(), policy(allow()))
    known, before = running(pod("a")), case.version()
    case.world(server(), policy(allow()), policy(deny(["x"]), name="q"))
    given = heard(a=receipt("a", before))
    assert case.count(P, known, given).fraction == "1/1"
    assert case.count(Q, known, given).lagging == ("agents/a",)
    given = heard(a=receipt("a", case.version()))
    assert case.count(Q, known, given).fraction == "1/1"


def test_a_pod_that_may_still_enforce_what_no_longer_concerns_it_counts_until_it_knows() -> None:
    case = Case(server(), policy(allow()), policy(allow(["x"]), name="q"))
    before, known = case.version(), running(pod("a"), pod("b"))
    elsewhere = policy(allow(["x"], who=[{"namespaces": ["hr"]}]), name="q")
    case.world(server(), policy(allow()), elsewhere)
    stale = heard(a=receipt("a", before), b=receipt("b", case.version()))
    assert case.count(Q, known, stale) == conditions.Fleet(pods=1, lagging=("agents/a",))
    fresh = heard(a=receipt("a", case.version()), b=receipt("b", case.version()))
    assert case.count(Q, known, fresh) == conditions.Fleet()
    assert case.compiled.concerned(Q) == {}, "and then it is forgotten"


def test_without_a_running_pod_nobody_can_enforce_what_is_gone() -> None:
    case = Case(server(), policy(allow()), policy(allow(["x"]), name="q"))
    case.fleet.update(running(pod("a")), {})
    case.world(server(), policy(allow()))
    assert case.count(Q, running(pod("a")), {}).pods == 1
    assert case.count(Q, {}, {}).pods == 0


def test_a_version_that_nobody_made_proves_nothing() -> None:
    case = Case(server(), policy(allow()))
    assert case.count(P, running(pod("a")), heard(a=receipt("a", "f" * 64))).lagging == ("agents/a",)


def test_a_version_made_for_an_older_schema_counts_and_what_it_cannot_express_does_not() -> None:
    case = Case(server(), policy(allow()))
    case.compiled.note(BOT, "a" * 64)
    old = receipt("a", "a" * 64, unexpressed=("MCPServer crm/s",))
    assert case.count(("MCPServer", "crm", "s"), running(pod("a")), heard(a=old)).too_old == ("agents/a",)
    assert case.count(P, running(pod("a")), heard(a=old)).fraction == "1/1"
    assert case.fleet.older == frozenset()
    case.fleet.update(running(pod("a")), heard(a=receipts.Receipt(BOT, "a", "agents", 1)))
    assert case.fleet.older == {(BOT, 1)}


def test_what_moved_is_what_concerns_the_workload_of_the_pod_that_moved() -> None:
    case = Case(
        server(), policy(allow(who=[{"serviceAccounts": ["agents/bot"]}])), policy(deny(["x"]), name="q")
    )
    case.version(CAT)
    known = running(pod("a"), pod("z", account="cat"))
    assert case.fleet.update(known, {}) == {P, Q, ("MCPServer", "crm", "s")}
    assert case.fleet.update(known, {}) == frozenset()
    assert case.fleet.update(known, heard(z=receipt("z", subject=CAT))) == frozenset()
    assert case.fleet.update(known, heard(a=receipt("a"))) == {P, Q, ("MCPServer", "crm", "s")}
    assert case.fleet.subjects == {BOT, CAT}
