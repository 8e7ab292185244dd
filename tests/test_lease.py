# SPDX-License-Identifier: Apache-2.0
"""Electors at a real API server: one leads, another follows when it stops, is killed, is cut off or is paused, and never both.

The times are a fifth of the real ones, in the same proportions.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import subprocess
import sys
import time

import pytest
from tests.kube import balancer

from outrider_operator import access, lease
from outrider_operator import cluster as api

_names = itertools.count()
QUICK = {"LEASE_SECONDS": 3.0, "RENEW_SECONDS_MAX": 2.0, "RETRY_SECONDS": 0.4}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    for name, value in QUICK.items():
        monkeypatch.setattr(lease, name, value)


@pytest.fixture
def place(cluster) -> str:
    return cluster.namespace(f"lease-test-{next(_names)}")


class Replica:
    """An elector that runs, and what it was told and when."""

    def __init__(self, kubeconfig, namespace: str, identity: str, clock=lease.boot_clock) -> None:
        self.api = api.Cluster(access.load(kubeconfig))
        self.told: list[tuple[str, float]] = []
        self.elector = lease.Elector(
            self.api, namespace=namespace, name="outrider", identity=identity, advertise="10.0.0.1:8443",
            started=lambda: self.told.append(("started", time.monotonic())),
            stopped=lambda: self.told.append(("stopped", time.monotonic())), clock=clock,
        )  # fmt: skip
        self.task = asyncio.create_task(self.elector.run())

    @property
    def leading(self) -> bool:
        return self.elector.leading

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def kill(self) -> None:
        """Ends it without its last words."""
        self.api.close()
        await self.stop()


@contextlib.asynccontextmanager
async def replicas(*each):
    made = [Replica(*arguments) for arguments in each]
    try:
        yield made
    finally:
        for replica in made:
            await replica.stop()
            replica.api.close()


async def until(condition, seconds: float = 20.0) -> float:
    """Waits; how long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it did not come true"
        await asyncio.sleep(0.01)
    return time.monotonic() - began


def run(main) -> None:
    asyncio.run(asyncio.wait_for(main, 120))


def test_one_leads_and_both_know_who(cluster, place):
    async def main():
        both = [(cluster.kubeconfig, place, name) for name in ("a", "b")]
        async with replicas(*both) as (a, b):
            await until(lambda: a.leading or b.leading)
            for _ in range(200):
                await asyncio.sleep(0.02)
                assert a.leading != b.leading
            leader = a if a.leading else b
            await until(lambda: a.elector.holder == b.elector.holder)
            assert a.elector.holder == lease.Holder(leader.elector._own.identity, "10.0.0.1:8443")
            assert [what for what, _ in leader.told] == ["started"]
            spec = (await asyncio.to_thread(cluster.get, "lease", "outrider", place))["spec"]
            assert spec["holderIdentity"] == f"{leader.elector._own.identity}/10.0.0.1:8443"
            assert spec["leaseTransitions"] == 0

    run(main())


def test_who_stops_makes_way_at_once(cluster, place):
    async def main():
        async with replicas((cluster.kubeconfig, place, "a")) as (a,):
            await until(lambda: a.leading)
            b = Replica(cluster.kubeconfig, place, "b")
            await asyncio.sleep(1)
            assert not b.leading
            await a.stop()
            assert [what for what, _ in a.told] == ["started", "stopped"]
            assert await until(lambda: b.leading) < 1.5
            spec = (await asyncio.to_thread(cluster.get, "lease", "outrider", place))["spec"]
            assert spec["leaseTransitions"] == 1
            await b.kill()

    run(main())


def test_who_is_killed_is_followed_when_its_lease_has_run_out(cluster, place):
    code = f"""
import asyncio, pathlib
from outrider_operator import access, cluster, lease
for name, value in {QUICK!r}.items():
    setattr(lease, name, value)
api = cluster.Cluster(access.load(pathlib.Path({str(cluster.kubeconfig)!r})))
told = lambda: print("leading", flush=True)
asyncio.run(lease.Elector(api, namespace={place!r}, name="outrider", identity="a", advertise="h:1", started=told).run())
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "leading\n"

        async def main():
            async with replicas((cluster.kubeconfig, place, "b")) as (b,):
                await asyncio.sleep(1)
                assert not b.leading
                other.kill()
                took = await until(lambda: b.leading)
                assert 1.5 < took < 5

        run(main())
    finally:
        other.kill()
        other.wait()
        other.stdout.close()


def test_who_is_cut_off_has_stopped_before_another_starts(cluster, place):
    wire = balancer.Balancer().start()
    wire.targets([("127.0.0.1", cluster.port)])
    cluster.service_account(place, "operator")
    cluster.apply(*rights(place))
    token = cluster.token(place, "operator", cluster.audience)
    behind = cluster.kubeconfig_token(token, url=f"https://127.0.0.1:{wire.port}")

    async def main():
        async with replicas((behind, place, "a")) as (a,):
            await until(lambda: a.leading)
            async with replicas((cluster.kubeconfig, place, "b")) as (b,):
                await asyncio.sleep(1)
                wire.targets([])
                wire.cut()
                while not b.leading:
                    await asyncio.sleep(0.005)
                    assert not (a.leading and b.leading)
                stopped = dict(a.told)["stopped"]
                assert stopped + 0.5 < dict(b.told)["started"], "with room to spare"
                assert "does not answer" in a.elector.problem or "in time" in a.elector.problem
                wire.targets([("127.0.0.1", cluster.port)])
                await until(lambda: a.elector.problem == "")
                assert a.elector.holder == lease.Holder("b", "10.0.0.1:8443")
                assert not a.leading

    try:
        run(main())
    finally:
        wire.close()


def rights(namespace: str) -> list[dict]:
    kind = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": "operator", "namespace": namespace},
    }
    rule = {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "verbs": ["get", "create", "update"],
    }
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator"}
    subject = {"kind": "ServiceAccount", "name": "operator", "namespace": namespace}
    return [
        {**kind, "kind": "Role", "rules": [rule]},
        {**kind, "kind": "RoleBinding", "roleRef": ref, "subjects": [subject]},
    ]


def test_who_was_paused_knows_at_once_that_it_leads_no_more(cluster, place):
    ahead = 0.0

    async def main():
        nonlocal ahead
        async with replicas((cluster.kubeconfig, place, "a", lambda: lease.boot_clock() + ahead)) as (a,):
            await until(lambda: a.leading)
            ahead = 100.0
            assert not a.leading, "without having run in between"
            await until(lambda: len(a.told) >= 3)
            assert [what for what, _ in a.told][:3] == ["started", "stopped", "started"]

    run(main())


def test_a_clock_that_is_set_back_or_forth_moves_nothing(cluster, place):
    """What another wrote as times is for people to read."""

    async def main():
        async with replicas((cluster.kubeconfig, place, "a")) as (a,):
            await until(lambda: a.leading)
            await a.kill()
            past = {
                "spec": {
                    "renewTime": "1999-01-01T00:00:00.000000Z",
                    "acquireTime": "1999-01-01T00:00:00.000000Z",
                }
            }
            await asyncio.to_thread(
                cluster.kubectl,
                "patch",
                "lease",
                "outrider",
                "-n",
                place,
                "--type=merge",
                "-p",
                json.dumps(past),
            )
            async with replicas((cluster.kubeconfig, place, "b")) as (b,):
                assert await until(lambda: b.leading) > 2.5

    run(main())


def test_who_finds_the_lease_in_other_hands_or_gone_stops(cluster, place):
    async def main():
        async with replicas((cluster.kubeconfig, place, "a")) as (a,):
            await until(lambda: a.leading)
            taken = {"spec": {"holderIdentity": "thief/h:1"}}
            await asyncio.to_thread(
                cluster.kubectl,
                "patch",
                "lease",
                "outrider",
                "-n",
                place,
                "--type=merge",
                "-p",
                json.dumps(taken),
            )
            await until(lambda: not a.leading, 2)
            assert a.elector.holder == lease.Holder("thief", "h:1")
            await until(lambda: a.leading)
            await asyncio.to_thread(cluster.kubectl, "delete", "lease", "outrider", "-n", place)
            await until(lambda: len(a.told) == 5)
            assert a.leading

    run(main())


def test_who_may_not_write_the_lease_says_so_and_never_leads(cluster, place):
    async def main():
        async with replicas((cluster.kubeconfig_for("nobody"), place, "a")) as (a,):
            await until(lambda: a.elector.problem != "")
            assert 'User "nobody" cannot get resource "leases"' in a.elector.problem
            assert not a.leading
            assert a.elector.holder is None

    run(main())


def test_a_holder_is_read_as_it_is_written():
    for text in ("outrider-0/10.0.0.1:8443", "outrider-0/[fd00::1]:8443"):
        assert str(lease.Holder.parse(text)) == text
    assert lease.Holder.parse("someone") == lease.Holder("someone", "")
