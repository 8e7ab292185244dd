# SPDX-License-Identifier: Apache-2.0
"""Reflectors at a real API server, on ordinary days: objects come, change and go, few or many."""

from __future__ import annotations

import asyncio
import gc
import itertools
import pathlib
import time
from typing import Any

import pytest
from tests.kube.watching import (
    SYNCED,
    WAITING,
    Seen,
    apply,
    config_map,
    config_maps,
    install,
    kubectl,
    run,
    things,
    watching,
)

from outrider_operator import access, reflector

_names = itertools.count()


@pytest.fixture
def place(cluster) -> str:
    return cluster.namespace(f"reflector-test-{next(_names)}")


# Everyday life --------------------------------------------------------------------------------------------------------


def test_objects_come_change_and_go(cluster, place):
    async def main():
        async with watching(cluster.kubeconfig, config_maps(place)) as seen:
            assert seen.subject.state.reason is reflector.Reason.NOT_READ_YET
            await seen.until_synced()
            assert seen.batches == [], "nothing is no change"
            await apply(cluster, config_map(place, "a", x="1"))
            await seen.until(lambda: seen.names == {"a"})
            version = seen.subject.resource_version
            await apply(cluster, config_map(place, "a", x="2"))
            await seen.until(lambda: seen.subject.objects[place, "a"]["data"] == {"x": "2"})
            assert seen.subject.resource_version > version
            await kubectl(cluster, "delete", "configmap", "a", "-n", place)
            await seen.until(lambda: not seen.names)
            last = seen.batches[-1][-1]
            assert (last.before["data"], last.after) == ({"x": "2"}, None)
            assert time.time() - seen.subject.last_event_at < 10
            assert [state.phase for state in seen.states] == [SYNCED]

    run(main())


def test_what_is_there_already_comes_in_one_batch_and_trimmed(cluster, place):
    cluster.apply(*(config_map(place, f"c-{n}", x="1") for n in range(20)))

    def names_only(raw):
        return {"metadata": {key: raw["metadata"][key] for key in ("name", "namespace", "resourceVersion")}}

    async def main():
        async with watching(cluster.kubeconfig, config_maps(place), trim=names_only) as seen:
            await seen.until_synced()
            assert [len(batch) for batch in seen.batches] == [20]
            assert all(set(each) == {"metadata"} for each in seen.subject.objects.values())

    run(main())


def test_selectors_choose_and_what_no_longer_fits_is_gone(cluster, place):
    fits = {"fits": "yes"}
    cluster.apply(config_map(place, "a", fits), config_map(place, "b"))

    async def main():
        labelled = config_maps(place, label_selector="fits=yes")
        named = config_maps(place, field_selector="metadata.name=b")
        async with (
            watching(cluster.kubeconfig, labelled) as one,
            watching(cluster.kubeconfig, named) as other,
        ):
            await one.until(lambda: one.names == {"a"})
            await other.until(lambda: other.names == {"b"})
            await kubectl(cluster, "label", "configmap", "a", "-n", place, "fits-")
            await one.until(lambda: one.names == set())

    run(main())


def test_a_lot_of_deletions_is_in_force_and_an_alarm(cluster, place):
    cluster.apply(*(config_map(place, f"c-{n}") for n in range(30)))

    async def main():
        async with watching(cluster.kubeconfig, config_maps(place)) as seen:
            await seen.until(lambda: len(seen.names) == 30)
            await kubectl(cluster, "delete", "configmap", "--all", "-n", place)
            await seen.until(lambda: not seen.names)
            (alarm,) = seen.alarms
            assert 15 < alarm[0] <= 30
            assert alarm[1] == 30

    run(main())


def test_a_bug_of_who_is_told_ends_nothing(cluster, place):
    def buggy(_changes):
        raise RuntimeError("a bug")

    async def main():
        async with watching(cluster.kubeconfig, config_maps(place), changed=buggy) as seen:
            await apply(cluster, config_map(place, "a"))
            await seen.until(lambda: seen.names == {"a"})
            await apply(cluster, config_map(place, "b"))
            await seen.until(lambda: seen.names == {"a", "b"})

    run(main())


def test_a_watch_that_ends_as_agreed_goes_on_where_it_was(cluster, place, monkeypatch):
    monkeypatch.setattr(reflector, "WATCH_SECONDS", 1)

    async def main():
        async with watching(cluster.kubeconfig, config_maps(place)) as seen:
            await seen.until_synced()
            listed = seen.subject._listed_at
            for n in range(6):
                await apply(cluster, config_map(place, f"c-{n}"))
                await asyncio.sleep(0.5)
            await seen.until(lambda: len(seen.names) == 6)
            assert seen.subject._listed_at == listed, "without another list"

    run(main())


# Asked from outside ---------------------------------------------------------------------------------------------------


def test_a_list_on_request_brings_the_position_up_to_date(cluster, place):
    async def main():
        async with watching(cluster.kubeconfig, config_maps(place)) as seen:
            await seen.until_synced()
            before = seen.subject.resource_version
            await asyncio.to_thread(cluster.namespace, place, turn="1")
            assert seen.subject.resource_version == before
            seen.subject.relist(2**62)
            seen.subject.relist(2**62)
            await seen.until(lambda: seen.subject.resource_version > before)
            await seen.until_synced()

    run(main())


# Size -----------------------------------------------------------------------------------------------------------------


def test_five_thousand_objects_are_read_without_stopping_the_loop(cluster, place):
    group = f"{place}.example.com"
    install(cluster, group)
    rules = [
        {"name": f"r-{n}", "effect": "Allow", "tools": [f"tool-{n}-*"], "from": [{"anyone": True}]}
        for n in range(10)
    ]
    many = things(group, place, 5000, rules=rules)

    async def main():
        given = access.load(cluster.kubeconfig)
        async with given.session() as session:
            await filled(given, session, group, place, many)
            watched = reflector.Watched(group, "v1", "things")
            gc.freeze()  # what this test made is not what is measured
            resident = memory()
            seen = Seen(given, session, watched)
            began, stalls = time.monotonic(), []
            while seen.phase is WAITING:
                asked = time.process_time()
                await asyncio.sleep(0.001)
                stalls.append(time.process_time() - asked)
            took, grown = time.monotonic() - began, memory() - resident
            assert len(seen.names) == 5000
            print(
                f"5,000 objects in {took:.2f} s, {grown:.0f} MiB, longest stall {max(stalls) * 1000:.0f} ms of CPU"
            )
            assert took < 20
            assert grown < 120
            assert max(stalls) < 0.3
            await apply(cluster, {**many[7], "spec": {"rules": []}})
            await seen.until(lambda: seen.subject.objects[place, "t-7"]["spec"] == {"rules": []})
            gc.unfreeze()
            seen.task.cancel()
            await asyncio.gather(seen.task, return_exceptions=True)

    run(main())


async def filled(
    given: access.Access, session, group: str, namespace: str, many: list[dict[str, Any]]
) -> None:
    gate = asyncio.Semaphore(16)

    async def create(each: dict[str, Any]) -> None:
        url = given.url(f"/apis/{group}/v1/namespaces/{namespace}/things")
        async with gate, session.post(url, json=each, **given.request()) as answer:
            assert answer.status == 201, await answer.text()

    await asyncio.gather(*(create(each) for each in many))


def memory() -> float:
    """Resident MiB of this process."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20
