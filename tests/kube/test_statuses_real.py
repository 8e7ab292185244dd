# SPDX-License-Identifier: Apache-2.0
"""Statuses at a real API server: the kinds' schemas take them, a second write changes nothing, and people can wait for them."""

from __future__ import annotations

import asyncio
import itertools
import json
import time

import pytest
from tests.worlds import CALLS, allow, budget, policy, server

from outrider import findings, manifests
from outrider_operator import access, conditions, events, observations, reporting
from outrider_operator import cluster as api

_names = itertools.count()
SEEN = observations.Observation(
    reachable=True, tools=tuple((f"tool{n:04}", f"sha256:{n:064}") for n in range(600)), seen_at=time.time(),
    protocol_versions=("2025-11-25", "2026-07-28"), server_info={"name": "sf", "version": "1.9"},
    differing=(("agents/a", "query has another description"),),
)  # fmt: skip
FLEET = conditions.Fleet(pods=2, programmed=2)


@pytest.fixture
def place(cluster) -> str:
    cluster.install_crds()
    return cluster.namespace(f"statuses-{next(_names)}")


def asked(given, question):
    async def main():
        subject = api.Cluster(access.load(given.kubeconfig), instance="outrider-0")
        try:
            return await asyncio.wait_for(question(subject), 60)
        finally:
            subject.close()

    return asyncio.run(main())


def made(cluster, place, one):
    """The object as the API server has it, and the resource in it."""
    one = json.loads(json.dumps(one).replace('"crm"', f'"{place}"'))
    del one["metadata"]["generation"]
    cluster.apply(one)
    raw = cluster.get(f"{one['kind']}.outrider.dev", one["metadata"]["name"], place)
    read = manifests.kubernetes_object(raw)
    assert not isinstance(read, tuple), read
    return raw, read


def status(raw, read, *, previous=None, **facts):
    given = {"fleet": FLEET, "targets": 1, **facts}
    whole = conditions.Facts(raw["kind"], raw["metadata"]["generation"], read, **given)
    return conditions.status(whole, previous or {}, now=time.time(), timestamp=reporting.timestamp)


def write(cluster, raw, given):
    about = raw["metadata"]
    asked(
        cluster,
        lambda at: at.apply_status(raw["kind"], about["namespace"], about["name"], given),
    )
    return cluster.get(f"{raw['kind']}.outrider.dev", about["name"], about["namespace"])


def finding(reason):
    return findings.Finding(
        findings.Severity.WARNING, reason, "MCPToolPolicy", "a", "p", "spec", "m" * 900, "Mend it."
    )


PROBLEMS = tuple(
    manifests.Problem("", 0, f"spec.rules[{n}].fro", "unknown field.", ("from",)) for n in range(40)
)
EVERY_FLEET = conditions.Fleet(
    9,
    1,
    refusals=(("a/x", "no\x07 such"),),
    too_old=("a/o",),
    unreachable=("a/u",),
    lagging=tuple(f"a/l{n}" for n in range(5)),
)


@pytest.mark.parametrize(
    ("one", "facts"),
    [
        (server(), {"observation": SEEN}),
        (server(), {"observation": observations.Observation(reachable=False, message="refused", seen_at=time.time())}),
        (server(), {"observation": None, "fleet": None}),
        (policy(allow()), {"found": tuple(finding(reason) for reason in findings.Reason)}),
        (policy(allow()), {"problems": PROBLEMS, "instead": "Generation 3 stays in force."}),
        (policy(allow()), {"fleet": EVERY_FLEET}),
        (policy(allow()), {"frozen": "The list went back."}),
        (budget(CALLS), {}),
    ],
)  # fmt: skip
def test_the_kinds_take_every_status_and_the_same_again_is_no_write(cluster, place, one, facts) -> None:
    raw, read = made(cluster, place, one)
    wanted = status(raw, read, **facts)
    written = write(cluster, raw, wanted)
    assert written["status"] == wanted
    again = write(cluster, written, status(raw, read, previous=written["status"], **facts))
    assert again["metadata"]["resourceVersion"] == written["metadata"]["resourceVersion"]
    assert again["metadata"]["generation"] == raw["metadata"]["generation"]


def test_what_is_no_longer_true_is_taken_away(cluster, place) -> None:
    raw, read = made(cluster, place, policy(allow()))
    broken = write(
        cluster, raw, status(raw, read, problems=PROBLEMS[:1], instead="Nothing of it is in force.")
    )
    assert "Stalled" in {each["type"] for each in broken["status"]["conditions"]}
    mended = write(cluster, raw, status(raw, read, previous=broken["status"]))
    assert "Stalled" not in {each["type"] for each in mended["status"]["conditions"]}


def test_people_see_it_and_can_wait_for_it(cluster, place) -> None:
    raw, read = made(cluster, place, policy(allow()))
    write(cluster, raw, status(raw, read))
    cluster.kubectl(
        "wait", "--for=condition=Ready", "mcptoolpolicies.outrider.dev/p", "-n", place, "--timeout=5s"
    )
    table = cluster.kubectl("get", "mcptoolpolicies.outrider.dev", "-n", place).stdout
    assert table.split()[:7] == ["NAME", "READY", "MODE", "TARGETS", "RULES", "PROGRAMMED", "AGE"]
    assert table.split()[7:13] == ["p", "True", "Enforce", "1", "1", "2/2"]


def test_an_object_that_is_gone_is_not_made_by_its_status(cluster, place) -> None:
    raw, read = made(cluster, place, policy(allow()))
    cluster.kubectl("delete", "mcptoolpolicies.outrider.dev", "p", "-n", place)
    with pytest.raises(api.ClusterError) as caught:
        write(cluster, raw, status(raw, read))
    assert caught.value.status == 404
    assert (
        cluster.kubectl("get", "mcptoolpolicies.outrider.dev", "p", "-n", place, check=False).returncode != 0
    )


def test_an_event_about_an_object_is_shown_by_describe(cluster, place) -> None:
    raw, read = made(cluster, place, policy(allow()))
    bad = status(raw, read, problems=PROBLEMS[:1], instead="Nothing of it is in force.")
    about = events.of_object(raw["kind"], place, "p", raw["metadata"]["uid"])
    [news] = events.transitions(about, {}, bad)

    async def post(at):
        for _ in range(2):
            await events.posting(at)(news)

    asked(cluster, post)
    shown = cluster.kubectl("describe", "mcptoolpolicies.outrider.dev", "p", "-n", place).stdout
    assert "UnknownField" in shown.partition("Events:")[2]
    listed = json.loads(cluster.kubectl("get", "events.events.k8s.io", "-n", place, "-o", "json").stdout)[
        "items"
    ]
    assert [(each["reason"], each["type"], each["series"]["count"]) for each in listed] == [
        ("UnknownField", "Warning", 2)
    ]
