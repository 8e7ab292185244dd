# SPDX-License-Identifier: Apache-2.0
"""Reflectors at a real API server: what is deleted while nobody watches vanishes, and what must not be believed is not."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from tests.kube import balancer
from tests.kube.watching import (
    FROZEN,
    SYNCED,
    WAITING,
    apply,
    config_map,
    config_maps,
    install,
    kubectl,
    rewired,
    run,
    things,
    watching,
)

from outrider_operator import access, apiobjects, reflector
from outrider_operator import cluster as api

_names = itertools.count()


@pytest.fixture
def place(cluster) -> str:
    return cluster.namespace(f"reflector-gaps-{next(_names)}")


# Gaps, outages, refusals ----------------------------------------------------------------------------------------------


def test_what_was_deleted_while_cut_off_and_the_api_server_restarted_is_gone(own_cluster):
    wire = balancer.Balancer().start()
    wire.targets([("127.0.0.1", own_cluster.port)])
    behind = rewired(own_cluster, wire.port)
    own_cluster.namespace("crm")
    own_cluster.apply(*(config_map("crm", name) for name in "abc"))

    async def main():
        async with watching(behind, config_maps("crm")) as seen:
            await seen.until(lambda: seen.names == {"a", "b", "c"})
            await seen.until_synced()
            wire.targets([])
            wire.cut()
            await kubectl(own_cluster, "delete", "configmap", "b", "-n", "crm")
            await apply(own_cluster, config_map("crm", "c", x="2"), config_map("crm", "d"))
            await asyncio.to_thread(own_cluster.restart_api)
            assert seen.names == {"a", "b", "c"}, "nobody has told it"
            await seen.until(lambda: seen.phase is FROZEN)
            assert seen.subject.state.reason is reflector.Reason.UNREACHABLE
            wire.targets([("127.0.0.1", own_cluster.port)])
            took = await seen.until(lambda: seen.names == {"a", "c", "d"})
            assert took < reflector.RETRY_SECONDS_MAX + 2
            await seen.until_synced()
            changes = {change.key[1]: change.after is None for change in seen.batches[-1]}
            assert changes == {"b": True, "c": False, "d": False}

    try:
        run(main())
    finally:
        wire.close()


def test_a_short_outage_is_nobodys_news(own_cluster):
    own_cluster.namespace("crm")
    own_cluster.apply(config_map("crm", "a"))

    async def main():
        async with watching(own_cluster.kubeconfig, config_maps("crm")) as seen:
            await seen.until(lambda: seen.names == {"a"})
            await seen.until_synced()
            await asyncio.to_thread(own_cluster.stop_api)
            await asyncio.sleep(1)
            assert seen.phase is SYNCED
            started = asyncio.create_task(asyncio.to_thread(own_cluster.start_api))
            await started
            await apply(own_cluster, config_map("crm", "b"))
            await seen.until(lambda: seen.names == {"a", "b"})

    run(main())


def test_who_may_not_read_waits_and_says_what_is_missing(cluster, place):
    cluster.service_account(place, "operator")
    kubeconfig = cluster.kubeconfig_token(cluster.token(place, "operator", cluster.audience))
    kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "reader", "namespace": place}}
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    who = {"kind": "ServiceAccount", "name": "operator", "namespace": place}

    async def main():
        async with watching(kubeconfig, config_maps(place)) as seen:
            await seen.until(lambda: seen.subject.state.reason is reflector.Reason.FORBIDDEN)
            assert seen.phase is WAITING
            assert 'cannot list resource "configmaps"' in seen.subject.state.why
            assert "give the operator's ServiceAccount get, list and watch" in seen.subject.state.why
            await apply(
                cluster,
                {**kind, "kind": "Role", "rules": [rule]},
                {**kind, "kind": "RoleBinding", "roleRef": ref, "subjects": [who]},
                config_map(place, "a"),
            )
            await seen.until(lambda: seen.names == {"a"})
            await seen.until_synced()
            await apply(cluster, {**kind, "kind": "Role", "rules": [{**rule, "verbs": ["list"]}]})
            seen.subject.relist(2**62)
            await seen.until(lambda: seen.phase is FROZEN)
            assert seen.subject.state.reason is reflector.Reason.FORBIDDEN, (
                "a list without a watch is not enough"
            )
            assert seen.names == {"a"}

    run(main())


# Kinds that go away ---------------------------------------------------------------------------------------------------


def test_deleting_a_crd_deletes_nothing_here_until_it_is_there_again(cluster, place):
    group = f"{place}.example.com"
    name = f"things.{group}"
    install(cluster, group)
    cluster.apply(*things(group, place, 60))

    async def main():
        asking = api.Cluster(access.load(cluster.kubeconfig))
        more = {"crd_state": lambda: asking.crd_state(name)}
        async with watching(cluster.kubeconfig, reflector.Watched(group, "v1", "things"), **more) as seen:
            for _ in range(3):
                await seen.until(lambda: len(seen.names) == 60)
                await seen.until_synced()
                batches = len(seen.batches)
                await kubectl(cluster, "delete", "crd", name, "--wait=false")
                await seen.until(lambda: seen.subject.state.reason is reflector.Reason.CRD_GONE)
                assert seen.phase is FROZEN
                await kubectl(cluster, "wait", "--for=delete", "crd", name)
                await asyncio.sleep(2.5)
                assert len(seen.names) == 60
                assert len(seen.batches) == batches, "not one deletion was believed"
                assert name in seen.subject.state.why
                await asyncio.to_thread(install, cluster, group)
                await apply(cluster, *things(group, place, 10))
                await seen.until(lambda: len(seen.names) == 10)
                await seen.until_synced()
                await apply(cluster, *things(group, place, 60))
        asking.close()

    run(main())


def test_a_deletion_is_believed_at_once_while_the_crd_stands(cluster, place):
    group = f"{place}.example.com"
    install(cluster, group)
    cluster.apply(*things(group, place, 2))

    async def main():
        asking = api.Cluster(access.load(cluster.kubeconfig))
        more = {"crd_state": lambda: asking.crd_state(f"things.{group}")}
        async with watching(cluster.kubeconfig, reflector.Watched(group, "v1", "things"), **more) as seen:
            await seen.until(lambda: len(seen.names) == 2)
            await kubectl(cluster, "delete", f"things.{group}", "t-1", "-n", place)
            assert await seen.until(lambda: seen.names == {"t-0"}) < 0.9
        asking.close()

    run(main())


def test_a_kind_that_is_not_installed_is_waited_for(cluster, place):
    group = f"{place}.example.com"

    async def main():
        asking = api.Cluster(access.load(cluster.kubeconfig))
        more = {"crd_state": lambda: asking.crd_state(f"things.{group}")}
        async with watching(cluster.kubeconfig, reflector.Watched(group, "v1", "things"), **more) as seen:
            await seen.until(lambda: seen.subject.state.reason is reflector.Reason.CRD_GONE)
            assert seen.phase is WAITING
            assert "install the CRDs" in seen.subject.state.why
            await asyncio.to_thread(install, cluster, group)
            await apply(cluster, *things(group, place, 3))
            await seen.until(lambda: len(seen.names) == 3)
            await seen.until_synced()
        asking.close()

    run(main())


def test_a_deletion_is_not_believed_while_nobody_knows_whether_the_crd_stands(cluster, place):
    answers: list[Any] = [
        apiobjects.CrdState.ESTABLISHED,
        RuntimeError("no answer"),
        RuntimeError("no answer"),
    ]

    async def crd_state() -> apiobjects.CrdState:
        found = answers.pop(0) if answers else apiobjects.CrdState.ESTABLISHED
        if isinstance(found, Exception):
            raise found
        return found

    async def main():
        async with watching(cluster.kubeconfig, config_maps(place), crd_state=crd_state) as seen:
            await seen.until_synced()
            await apply(cluster, config_map(place, "a"))
            await seen.until(lambda: seen.names == {"a"})
            await kubectl(cluster, "delete", "configmap", "a", "-n", place)
            await seen.until(lambda: not answers)
            await seen.until(lambda: not seen.names)
            assert sum(len(batch) for batch in seen.batches) == 2

    run(main())


# Restored clusters ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts_beyond", [False, True])
def test_an_older_etcd_is_not_believed_until_somebody_says_so(own_cluster, counts_beyond):
    wire = balancer.Balancer().start()
    wire.targets([("127.0.0.1", own_cluster.port)])
    behind = rewired(own_cluster, wire.port)
    own_cluster.namespace("crm")
    own_cluster.apply(config_map("crm", "grant"), config_map("crm", "other"))
    looked: list[set[str]] = []

    async def main():
        more = {"looked": lambda found: looked.append({name for _, name in found})}
        async with watching(behind, config_maps("crm"), **more) as seen:
            await seen.until(lambda: seen.names == {"grant", "other"})
            backup = await asyncio.to_thread(own_cluster.save_etcd)
            for n in range(0 if counts_beyond else 100):
                own_cluster.apply(config_map("crm", "other", x=str(n)))
            await kubectl(own_cluster, "delete", "configmap", "grant", "-n", "crm")
            await seen.until(lambda: seen.names == {"other"})
            applied = seen.subject.resource_version
            wire.targets([])
            wire.cut()
            await asyncio.to_thread(own_cluster.restore_etcd, backup)
            for n in range(50 if counts_beyond else 0):
                own_cluster.apply(config_map("default", "elsewhere", x=str(n)))
            wire.targets([("127.0.0.1", own_cluster.port)])
            await seen.until(lambda: seen.subject.state.reason is reflector.Reason.POSITION_WENT_BACK)
            assert seen.phase is FROZEN
            assert ("crm/grant" in seen.subject.state.why) == counts_beyond
            await seen.until(lambda: {"grant", "other"} in looked)
            assert seen.names == {"other"}
            assert seen.subject.resource_version == applied
            seen.subject.relist(2**62)
            await asyncio.sleep(3)
            assert seen.phase is FROZEN, "looking again changes nothing"
            seen.subject.reset()
            await seen.until(lambda: seen.names == {"grant", "other"})
            await seen.until_synced()

    try:
        run(main())
    finally:
        wire.close()


def test_what_is_no_danger_follows_an_older_etcd(own_cluster):
    own_cluster.namespace("crm")
    own_cluster.apply(config_map("crm", "a"))

    async def main():
        async with watching(own_cluster.kubeconfig, config_maps("crm"), forward_only=False) as seen:
            await seen.until(lambda: seen.names == {"a"})
            backup = await asyncio.to_thread(own_cluster.save_etcd)
            await apply(own_cluster, config_map("crm", "b"))
            await seen.until(lambda: seen.names == {"a", "b"})
            await asyncio.to_thread(own_cluster.restore_etcd, backup)
            await seen.until(lambda: seen.names == {"a"})
            await seen.until_synced()

    run(main())
