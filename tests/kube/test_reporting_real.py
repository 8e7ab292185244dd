# SPDX-License-Identifier: Apache-2.0
"""Source, compiler, reporting and writer over a real API server: people see what is true, and nothing is written for its own sake."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import subprocess
import time

import pytest
from tests.kube import apiserver
from tests.kube.test_source_real import Watching, config, here, pod
from tests.worlds import EVERYONE, allow, deny, policy, server

from outrider import compile as compiler
from outrider import names
from outrider_operator import events, observations, receipts, reporting, statuses

_names = itertools.count()
QUIET = {"credentials": [{"name": "c", "from": EVERYONE, "none": True}]}


@pytest.fixture
def place(cluster) -> str:
    cluster.install_crds()
    made = cluster.namespace(f"reporting-{next(_names)}")
    cluster.apply(config(made))
    cluster.service_account(made, "bot")
    return made


class Reporting(Watching):
    """Everything but the streams: what sidecars acknowledge is given by the test."""

    async def __aenter__(self):
        await super().__aenter__()
        self.compiled = compiler.Compiler()
        self.receipts: dict[str, receipts.Receipt] = {}
        self.seen: dict[names.ServerId, observations.Observation] = {}
        known = reporting.Known(
            watched=self.source.watched, everything=self.source.everything, frozen=self.source.frozen,
            pods=self.source.pods, receipts=lambda: self.receipts, observations=lambda: self.seen, settling=lambda: False,
        )  # fmt: skip
        writer, poster = statuses.Writer(self._api.apply_status), events.Poster(events.posting(self._api))
        self.reporter = reporting.Reporter(self.compiled, known, writer, poster)
        self.reporter.lead(True)
        self._tasks += [asyncio.create_task(each.run()) for each in (self.reporter, writer, poster)]
        return self

    async def _follow(self):
        async for reading in self.source.readings():
            self.reading = reading
            self.reporter.changed(self.compiled.update(reading.world, epoch=reading.epoch), reading.things)

    def acknowledge(self, account="bot"):
        """Every running pod has what its workload should have."""
        for uid, each in self.source.pods().items():
            version = self.compiled.compiled(each.namespace, account).version
            self.receipts[uid] = receipts.Receipt(
                each.subject, each.name, each.namespace, 2, offered=version, acked=version
            )


def play(given, place, script):
    async def run():
        async with Reporting(given, place) as running, asyncio.timeout(120):
            await script(running)

    asyncio.run(run())


def conditions(cluster, place, plural, name):
    raw = cluster.get(f"{plural}.outrider.dev", name, place)
    found = {
        each["type"]: (each["status"], each["reason"]) for each in raw.get("status", {}).get("conditions", [])
    }
    return found, raw


@contextlib.contextmanager
def history(cluster, place, file):
    """Every version of the place's policies, as a watch told it: what is true for a moment only is seen as well."""
    line = [
        apiserver.KUBECTL,
        "--kubeconfig",
        cluster.kubeconfig,
        "get",
        "mcptoolpolicies.outrider.dev",
        "-n",
        place,
    ]
    with (
        file.open("wb") as out,
        subprocess.Popen([*line, "--watch", "-o", "jsonpath={@}{'\\n'}"], stdout=out) as watch,
    ):
        try:
            yield lambda: [json.loads(version) for version in file.read_text().splitlines()]
        finally:
            watch.kill()


async def shown(running, at, kind, wanted, *, seconds=20.0):
    end = time.monotonic() + seconds
    while True:
        found, raw = await running.do(conditions, *at)
        if found.get(kind) == wanted:
            return raw
        assert time.monotonic() < end, f"{kind} never was {wanted}: {found}"
        await asyncio.sleep(0.1)


@pytest.mark.slow
def test_a_policy_becomes_ready_when_its_pods_acknowledge_and_the_writes_are_few(
    cluster, place, tmp_path
) -> None:
    cluster.apply(pod(place, "agent", **{"outrider.dev/injected": "true"}))
    phase = json.dumps({"status": {"phase": "Running"}})
    cluster.kubectl("patch", "pod", "agent", "-n", place, "--subresource=status", "-p", phase)

    async def script(running):
        await running.until(lambda: running.reading is not None)
        await running.do(cluster.apply, here(server(**QUIET), place), here(policy(allow()), place))
        p, q = ((cluster, place, "mcptoolpolicies", name) for name in ("p", "q"))
        raw = await shown(running, p, "Programmed", ("False", "SidecarsUnreachable"))
        assert raw["status"]["programmed"] == "0/1"
        assert f"{place}/agent" in str(raw["status"]["conditions"])
        running.acknowledge()
        await running.do(
            cluster.kubectl,
            "wait",
            "--for=condition=Ready",
            "mcptoolpolicies.outrider.dev/p",
            "-n",
            place,
            "--timeout=20s",
        )
        # Another policy comes: it is programmed when acknowledged, and the first one stays as it is.
        await running.do(cluster.apply, here(policy(deny(["x"]), name="q"), place))
        await shown(running, q, "Programmed", ("False", "Pending"))
        assert (await running.do(conditions, *p))[0]["Ready"] == ("True", "Ready")
        running.acknowledge()
        await shown(running, q, "Ready", ("True", "Ready"))
        await asyncio.sleep(2)

    with history(cluster, place, tmp_path / "versions") as versions:
        play(cluster, place, script)
        first = next(
            each["status"] for each in versions() if each["metadata"]["name"] == "p" and "status" in each
        )
    ready = next(each for each in first["conditions"] if each["type"] == "Ready")
    assert (ready["status"], ready["reason"], first["observedGeneration"]) == ("Unknown", "Pending", 1)
    writes = [
        each["objectRef"]["name"]
        for each in cluster.audit_log()
        if each["verb"] == "patch" and each["objectRef"].get("subresource") == "status"
        and each["objectRef"].get("namespace") == place and each["objectRef"]["resource"] == "mcptoolpolicies"
    ]  # fmt: skip
    assert writes.count("p") == 3, "unknown, unreachable, ready"
    assert writes.count("q") <= 3


@pytest.mark.slow
def test_a_new_leader_writes_nothing_that_is_true_already_and_remembers_what_servers_list(
    cluster, place
) -> None:
    seen = observations.Observation(
        reachable=True, tools=(("query", f"sha256:{0:064}"),), seen_at=time.time()
    )

    async def first(running):
        await running.until(lambda: running.reading is not None)
        await running.do(cluster.apply, here(server(**QUIET), place), here(policy(allow(["qeury"])), place))
        running.seen[names.ServerId(place, "s")] = seen
        await shown(
            running, (cluster, place, "mcptoolpolicies", "p"), "Enforceable", ("False", "UnknownTool")
        )
        await shown(running, (cluster, place, "mcpservers", "s"), "ToolsDiscovered", ("True", "Discovered"))
        await asyncio.sleep(6)

    play(cluster, place, first)
    before = [
        conditions(cluster, place, *each)[1] for each in (("mcptoolpolicies", "p"), ("mcpservers", "s"))
    ]

    async def second(running):
        await running.until(lambda: running.reading is not None)
        await asyncio.sleep(4)

    play(cluster, place, second)
    after = [conditions(cluster, place, *each)[1] for each in (("mcptoolpolicies", "p"), ("mcpservers", "s"))]
    assert [each["metadata"]["resourceVersion"] for each in before] == [
        each["metadata"]["resourceVersion"] for each in after
    ]
