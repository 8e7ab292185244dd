# SPDX-License-Identifier: Apache-2.0
"""The source over a real API server: what is applied is in force, what is broken is not, and what cannot be read changes nothing."""

from __future__ import annotations

import asyncio
import itertools
import json
import time

import pytest
from tests.worlds import CALLS, allow, budget, deny, policy, server

from outrider import compile as compiler
from outrider_operator import access, apiservers, events, reflector
from outrider_operator import cluster as api
from outrider_operator.sources import kubernetes

_names = itertools.count()
P = "MCPToolPolicy"


def config(namespace, **settings):
    whole = {"apiVersion": "outrider.dev/v1alpha1", "kind": "Settings", **settings}
    metadata = {"name": "outrider-settings", "namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": {"settings.yaml": json.dumps(whole)},
    }


def pod(namespace, name, **labels):
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    init = [{"name": "outrider", "image": "outrider:1", "restartPolicy": "Always"}]
    spec = {
        "serviceAccountName": "bot",
        "initContainers": init,
        "containers": [{"name": "agent", "image": "x"}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


class Watching:
    """A Source that runs, and the last reading of it."""

    def __init__(self, given, namespace):
        self.given, self.namespace = given, namespace
        self.news: list[events.Event] = []
        self.reading: kubernetes.Reading | None = None
        self.readings = 0

    async def __aenter__(self):
        reached = access.load(self.given.kubeconfig)
        self._session = reached.session()
        self._api = api.Cluster(reached)
        asked = kubernetes.Api(self._api.crd_state, self._api.kube_system_uid, self._api.api_servers)
        place = kubernetes.Place(self.namespace, "outrider")
        self.source = kubernetes.Source(reached, self._session, asked, place, tell=self.news.append)
        self._tasks = [asyncio.create_task(self.source.run()), asyncio.create_task(self._follow())]
        return self

    async def __aexit__(self, *_exception):
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()
        self._api.close()

    async def _follow(self):
        async for reading in self.source.readings():
            self.reading, self.readings = reading, self.readings + 1

    async def do(self, work, *words, **more):
        return await asyncio.to_thread(work, *words, **more)

    async def until(self, truth, seconds=30.0):
        began = time.monotonic()
        while not truth():
            for task in self._tasks:
                if task.done():
                    task.result()
            why = f"{self.source.unready()} {self.news}"
            assert time.monotonic() - began < seconds, f"never came true: {why}"
            await asyncio.sleep(0.01)
        return time.monotonic() - began

    def names(self, namespace):
        """Everything in force of one namespace."""
        if self.reading is None:
            return set()
        world = self.reading.world
        found = set()
        for kind in (world.servers, world.policies, world.budgets):
            found |= {
                each.resource.metadata.name for each in kind if each.resource.metadata.namespace == namespace
            }
        return found


def play(given, namespace, script):
    async def run():
        async with Watching(given, namespace) as watching, asyncio.timeout(240):
            await script(watching)

    asyncio.run(run())


def here(one, namespace):
    made = json.loads(json.dumps(one).replace('"crm"', f'"{namespace}"'))
    del made["metadata"]["generation"]
    return made


@pytest.fixture
def place(cluster) -> str:
    cluster.install_crds()
    made = cluster.namespace(f"source-{next(_names)}")
    cluster.apply(config(made))
    return made


def test_what_is_applied_is_in_force_at_once_and_what_is_deleted_is_not(cluster, place) -> None:
    async def script(watching):
        await watching.until(lambda: watching.reading is not None)
        await watching.do(cluster.apply, here(server(), place), here(policy(allow()), place))
        await watching.until(lambda: watching.names(place) == {"s", "p"})
        before = {each.resource.metadata.name: each for each in watching.reading.world.policies}
        position = watching.reading.position
        assert set(position) == {"servers", "policies", "budgets", "namespaces", "settings"}
        await watching.do(cluster.apply, here(server(title="T"), place))
        took = await watching.until(
            lambda: any(each.resource.spec.title == "T" for each in watching.reading.world.servers)
        )
        assert took < 2.0
        after = {each.resource.metadata.name: each for each in watching.reading.world.policies}
        assert after["p"] is before["p"], "what did not change is the very same"
        assert ("MCPServer", place, "s") in watching.reading.things
        assert watching.reading.position["servers"] > position["servers"]
        assert all(watching.source.position[name] >= at for name, at in position.items())
        await watching.do(cluster.kubectl, "delete", "mcptoolpolicies.outrider.dev", "p", "-n", place)
        await watching.until(lambda: watching.names(place) == {"s"})
        assert watching.source.watched((P, place, "p")) is None
        assert watching.source.unready() == ()

    play(cluster, place, script)


def test_where_the_api_server_is_comes_with_the_first_reading_and_a_new_endpoint_with_another(
    cluster, place, monkeypatch
) -> None:
    monkeypatch.setattr(apiservers, "SECONDS", 0.1)
    further = "10.213.77.3"
    # An API server puts right what it says of itself, every ten seconds: until then this is what it says.
    patch = json.dumps([{"op": "add", "path": "/endpoints/-", "value": {"addresses": [further]}}])
    words = ("patch", "endpointslice", "kubernetes", "-n", "default", "--type=json", "-p", patch)

    async def script(watching):
        await watching.until(lambda: watching.reading is not None)
        assert watching.reading.world.api_servers == (cluster.advertised,)
        seen, compiled = [], compiler.Compiler()

        def anew():
            compiled.update(watching.reading.world)
            seen.append(compiled.snapshot("agents", "bot").network.refused)
            return seen[-1]

        assert anew() == (cluster.advertised,)
        position = watching.reading.position
        await watching.do(cluster.kubectl, *words)
        await watching.until(lambda: anew() == (cluster.advertised, further))
        assert all(watching.reading.position[name] >= at for name, at in position.items())
        await watching.until(lambda: anew() == (cluster.advertised,), 60)

    play(cluster, place, script)


def test_a_status_is_seen_and_makes_no_other_world(cluster, place) -> None:
    async def script(watching):
        await watching.do(cluster.apply, here(server(), place))
        await watching.until(lambda: watching.names(place) == {"s"})
        compiled = compiler.Compiler()
        compiled.update(watching.reading.world)
        given = {"observedGeneration": 1, "programmed": "0/0"}
        await watching._api.apply_status("MCPServer", place, "s", given)
        await watching.until(lambda: watching.source.watched(("MCPServer", place, "s")).status == given)
        await watching.until(lambda: ("MCPServer", place, "s") in watching.reading.things)
        assert not compiled.update(watching.reading.world).delta.servers

    play(cluster, place, script)


def test_without_settings_nothing_is_read_and_broken_ones_change_nothing(cluster, place) -> None:
    cluster.kubectl("delete", "configmap", "outrider-settings", "-n", place)

    async def script(watching):
        await watching.until(lambda: any("does not exist" in each for each in watching.source.unready()))
        assert watching.reading is None
        await watching.do(cluster.apply, config(place, currency="EUR"))
        await watching.until(lambda: watching.reading is not None)
        assert watching.reading.world.settings.currency == "EUR"
        await watching.do(cluster.apply, config(place, currency="euro"))
        await watching.until(lambda: watching.source.complaints)
        assert "currency" in str(watching.source.complaints[0])
        assert watching.source.unready() == ()
        assert watching.news[-1].reason is events.Reason.SETTINGS_INVALID
        assert watching.news[-1].regarding.kind == "ConfigMap"
        await watching.do(cluster.kubectl, "delete", "configmap", "outrider-settings", "-n", place)
        await watching.until(lambda: "does not exist" in str(watching.source.complaints[0]))
        assert watching.reading.world.settings.currency == "EUR"
        await watching.do(cluster.apply, config(place, currency="CHF"))
        await watching.until(lambda: watching.reading.world.settings.currency == "CHF")
        assert watching.source.complaints == ()

    play(cluster, place, script)


def test_the_epoch_is_the_clusters_and_the_settings(cluster, place) -> None:
    async def script(watching):
        await watching.until(lambda: watching.reading is not None)
        first = watching.reading.epoch
        assert 0 < first < 2**48
        await watching.do(cluster.apply, config(place, epoch=1))
        await watching.until(lambda: watching.reading.epoch != first)
        await watching.do(cluster.apply, config(place, epoch=0))
        await watching.until(lambda: watching.reading.epoch == first)

    play(cluster, place, script)


def test_a_namespaces_label_is_known_and_names_a_team(cluster, place) -> None:
    cluster.apply(config(place, teamFromNamespaceLabel=True))
    label = {"outrider.dev__team": "blue", "app": "x"}
    agents = cluster.namespace(f"{place}-agents", **label)

    async def script(watching):
        await watching.until(lambda: watching.reading is not None)
        assert watching.reading.world.namespaces[agents] == {"outrider.dev/team": "blue"}
        assert compiler.workload(watching.reading.world, agents, "bot").teams == ("blue",)
        await watching.do(cluster.kubectl, "label", "namespace", agents, "outrider.dev/team-")
        await watching.until(lambda: agents not in watching.reading.world.namespaces)

    play(cluster, place, script)


def test_injected_pods_are_known_while_they_have_not_ended(cluster, place) -> None:
    cluster.service_account(place, "bot")

    async def script(watching):
        await watching.until(lambda: watching.reading is not None)

        def mine():
            return {each.name: each for each in watching.source.pods().values() if each.namespace == place}

        await watching.do(
            cluster.apply, pod(place, "a", **{"outrider.dev/injected": "true"}), pod(place, "other")
        )
        await watching.until(lambda: set(mine()) == {"a"})
        assert (mine()["a"].image, mine()["a"].service_account, mine()["a"].running) == (
            "outrider:1",
            "bot",
            False,
        )
        for phase, truth in (("Running", lambda: mine()["a"].running), ("Succeeded", lambda: mine() == {})):
            words = [
                "patch",
                "pod",
                "a",
                "-n",
                place,
                "--subresource=status",
                "-p",
                json.dumps({"status": {"phase": phase}}),
            ]
            await watching.do(cluster.kubectl, *words)
            await watching.until(truth)

    play(cluster, place, script)


def test_of_an_injected_pod_that_exists_somebody_is_told_once(cluster, place) -> None:
    cluster.service_account(place, "bot")
    status = {"image": "outrider:1", "localAuth": "Open", "agentContainers": ["agent"]}
    made = pod(place, "told", **{"outrider.dev/injected": "true"})
    made["metadata"]["annotations"] = {"outrider.dev/status": json.dumps(status)}
    silent = pod(place, "untold", **{"outrider.dev/injected": "true"})

    async def script(watching):
        await watching.until(lambda: watching.reading is not None)
        await watching.do(cluster.apply, silent)
        await watching.do(cluster.apply, made)
        uid = (await watching.do(cluster.get, "pod", "told", place))["metadata"]["uid"]
        await watching.until(lambda: uid in watching.source.pods())
        mine = [each for each in watching.news if each.regarding.namespace == place]
        words = "sidecar outrider:1 beside agent; local-auth is Open"
        about = events.Reference("v1", "Pod", place, "told", uid)
        assert mine == [events.Event(about, "Normal", events.Reason.INJECTED, words)]
        watching.source.reflectors["pods"].relist(2**62)
        await watching.do(cluster.kubectl, "label", "pod", "told", "-n", place, "changed=yes")
        await asyncio.sleep(1.5)
        assert [each for each in watching.news if each.regarding.namespace == place] == mine

    play(cluster, place, script)


def test_many_deletions_at_once_are_in_force_and_somebody_is_told(cluster, place) -> None:
    async def script(watching):
        many = [here(server(f"s{number}"), place) for number in range(22)]
        await watching.do(cluster.apply, *many)
        await watching.until(lambda: len(watching.names(place)) == 22)
        await watching.do(cluster.kubectl, "delete", "mcpservers.outrider.dev", "--all", "-n", place)
        await watching.until(lambda: watching.names(place) == set())
        [told] = [each for each in watching.news if each.reason is events.Reason.MASS_DELETION]
        assert "servers were deleted at once" in told.message
        assert (told.type, told.regarding.kind, told.regarding.namespace) == ("Warning", "Lease", place)

    play(cluster, place, script)


def test_a_replica_that_is_behind_catches_up_when_somebody_holds_more(cluster, place) -> None:
    async def script(watching):
        await watching.until(lambda: watching.reading is not None)
        await watching.do(cluster.apply, config(place))  # Anything that raises the API server's own count.
        ahead = int(cluster.get("configmap", "outrider-settings", place)["metadata"]["resourceVersion"])
        behind = dict(watching.source.position)
        watching.source.catch_up(dict.fromkeys(behind, ahead))
        await watching.until(lambda: all(at >= ahead for at in watching.source.position.values()), 15)

    play(cluster, place, script)


@pytest.mark.slow
def test_an_outage_changes_nothing_and_what_happened_meanwhile_is_seen_after_it(own_cluster) -> None:
    own_cluster.install_crds()
    place = own_cluster.namespace("source-outage")
    own_cluster.apply(
        config(place), here(server(), place), here(policy(allow()), place), here(budget(CALLS), place)
    )

    async def script(watching):
        await watching.until(lambda: watching.names(place) == {"s", "p", "b"})
        backup = await watching.do(own_cluster.save_etcd)
        await watching.do(own_cluster.stop_api)
        await asyncio.sleep(3)
        assert watching.names(place) == {"s", "p", "b"}
        await watching.do(own_cluster.start_api)
        await watching.do(own_cluster.kubectl, "delete", "mcptoolpolicies.outrider.dev", "p", "-n", place)
        await watching.until(lambda: watching.names(place) == {"s", "b"}, 60)
        # Somebody restores etcd to when the policy was there: an older state is not taken for a newer one.
        await watching.do(own_cluster.restore_etcd, backup)
        await watching.until(lambda: watching.source.frozen(P) != "", 90)
        assert watching.names(place) == {"s", "b"}
        assert any(each.reason is events.Reason.FROZEN for each in watching.news)
        before = watching.reading.epoch
        await watching.do(own_cluster.apply, config(place, epoch=1))
        await watching.until(lambda: watching.names(place) == {"s", "p", "b"}, 90)
        await watching.until(lambda: watching.source.frozen(P) == "")
        assert watching.reading.epoch != before
        assert any(each.reason is events.Reason.THAWED for each in watching.news)

    play(own_cluster, place, script)


@pytest.mark.slow
def test_what_no_check_refused_changes_nothing_and_a_kind_that_is_taken_away_is_frozen(own_cluster) -> None:
    own_cluster.install_crds()
    place = own_cluster.namespace("source-kinds")
    own_cluster.kubectl("delete", "validatingadmissionpolicybinding", "--all")
    own_cluster.apply(config(place), here(server(), place), here(policy(allow(), deny(["b"])), place))
    time.sleep(2)  # Until the API server's own watch has seen that nothing refuses unknown fields any more.
    future = {"name": "late", "effect": "Deny", "tools": ["a"], "when": "now > deadline"}

    async def script(watching):
        await watching.until(lambda: watching.names(place) == {"s", "p"})
        await watching.do(own_cluster.apply, here(policy(allow(["c"]), deny(["b"]), future), place))
        await watching.until(lambda: watching.source.watched((P, place, "p")).problems)
        watched = watching.source.watched((P, place, "p"))
        assert [problem.field for problem in watched.problems] == ["spec.rules[2].when"]
        assert (watched.generation, watched.instead) == (2, "Generation 1 stays in force.")
        assert [rule.tools for rule in watched.placed.resource.spec.rules] == [("query",), ("b",)]

    play(own_cluster, place, script)

    async def after_a_restart(watching):
        await watching.until(lambda: watching.names(place) == {"s", "p"})
        watched = watching.source.watched((P, place, "p"))
        denies = [(rule.effect.value, rule.name, rule.tools) for rule in watched.placed.resource.spec.rules]
        assert denies == [("Deny", "d", ("b",)), ("Deny", "unreadable-2", None)]
        await watching.do(own_cluster.kubectl, "delete", "crd", "mcpservers.outrider.dev", "--wait=false")
        await watching.until(lambda: watching.source.frozen("MCPServer") != "", 60)
        await asyncio.sleep(3)
        assert watching.names(place) == {"s", "p"}
        assert watching.source.reflectors["servers"].state.reason is reflector.Reason.CRD_GONE
        assert list(watching.source.gone()) == ["servers"]

    play(own_cluster, place, after_a_restart)
