# SPDX-License-Identifier: Apache-2.0
"""What a replica says of itself to probes and scrapes, against an API server that answers as it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import pathlib
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
from aiohttp import web
from tests.kube import certs, fakeapi

from outrider import compile as compiler
from outrider_operator import apiobjects, keeper, offers, publishing, standing, telemetry
from outrider_operator.sources import kubernetes

PROBER = ("outrider-system", "outrider-prober")
SETTINGS = "apiVersion: outrider.dev/v1alpha1\nkind: Settings\nplatformNamespace: outrider-system\n"
COLLECTIONS = {"servers", "policies", "budgets", "namespaces", "settings", "pods"}


@dataclasses.dataclass
class Replica:
    """The parts that are asked, over an API server whose lists are in `lists` (by plural: an answer instead of an empty list)."""

    source: kubernetes.Source
    offered: offers.Offers
    certificates: keeper.Keeper
    subject: standing.Standing
    publisher: publishing.Publisher
    lists: dict[str, Callable[[], web.Response]]
    crds: apiobjects.CrdState = apiobjects.CrdState.ESTABLISHED
    api_servers: Callable[[], tuple[str, ...]] = lambda: ("10.0.0.7",)
    problem: str = ""
    bug: str = ""

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.02)

    async def read(self) -> None:
        """The first configuration, taken."""
        async for reading in self.source.readings():
            self.offered.take(reading)
            return


def settings_list(text: str = SETTINGS) -> Callable[[], web.Response]:
    metadata = {
        "name": "outrider-settings",
        "namespace": "outrider-system",
        "resourceVersion": "5",
        "uid": "s",
    }
    made = {"metadata": metadata, "data": {"settings.yaml": text}}
    return lambda: web.json_response({"kind": "List", "metadata": {"resourceVersion": "10"}, "items": [made]})


@contextlib.asynccontextmanager
async def replica(folder: pathlib.Path) -> AsyncIterator[Replica]:
    lists: dict[str, Callable[[], web.Response]] = {"configmaps": settings_list()}

    async def script(request: web.Request) -> web.StreamResponse | None:
        plural = request.path.rpartition("/")[2]
        if plural in lists:
            answer = lists[plural]()
            return None if "watch" in request.query and answer.status == 200 else answer
        if "watch" in request.query:
            return None
        return web.json_response({"kind": "List", "metadata": {"resourceVersion": "10"}, "items": []})

    async with fakeapi.serving() as (api, given), aiohttp.ClientSession() as session:
        api.script = script

        async def crd_state(_name: str) -> apiobjects.CrdState:
            return made.crds

        async def kube_system_uid() -> str:
            return "a-uid"

        async def api_servers() -> tuple[str, ...]:
            return made.api_servers()

        source = kubernetes.Source(
            given,
            session,
            kubernetes.Api(crd_state, kube_system_uid, api_servers),
            kubernetes.Place("outrider-system", "outrider"),
        )
        compiled = compiler.Compiler()
        prober = offers.Prober(PROBER, compiler.Probing(*PROBER))
        offered = offers.Offers(compiled, prober, position=lambda: source.position)
        publisher = publishing.Publisher(offered)
        certificates = keeper.Keeper(folder)
        subject = standing.Standing(
            source=source, offered=offered, publisher=publisher, certificates=certificates,
            inspection=compiler.Inspection(compiled.objects), admission=lambda: made.problem,
            bug=lambda: made.bug, leading=lambda: True,
        )  # fmt: skip
        made = Replica(source, offered, certificates, subject, publisher, lists)
        yield made


def running(folder: pathlib.Path, work: Callable[[Replica], Awaitable[None]]) -> None:
    """A replica with a certificate whose source runs."""
    keys = certs.Authority.make(folder / "keys", ["127.0.0.1"])
    (folder / "tls.crt").write_bytes(keys.server_cert.read_bytes())
    (folder / "tls.key").write_bytes(keys.server_key.read_bytes())
    (folder / "ca.crt").write_bytes(keys.ca_file.read_bytes())

    async def run() -> None:
        async with replica(folder) as made:
            watching = asyncio.create_task(made.source.run())
            try:
                await work(made)
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    asyncio.run(run())


def test_before_anything_is_there_each_reason_is_a_sentence_of_its_own(tmp_path: pathlib.Path) -> None:
    async def run() -> None:
        async with replica(tmp_path) as made:
            made.problem = "admission is not served yet"
            said = made.subject.unready()
            assert [each.partition(":")[0] for each in said] == [
                "servers", "policies", "budgets", "namespaces", "settings", "pods",
                "which cluster this is (the uid of kube-system) is not known", "certificates", "admission",
            ]  # fmt: skip
            assert all("have not been read yet" in each for each in said[:6])
            assert made.subject.silent() == "this replica has not read everything yet"

    asyncio.run(run())


def test_it_is_ready_when_everything_is_read_and_served_and_not_before(tmp_path: pathlib.Path) -> None:
    async def work(made: Replica) -> None:
        await made.until(lambda: not made.source.unready())
        assert made.subject.unready() == (
            "the first configuration is being compiled",
            "certificates: there is none yet",
        )
        await made.read()
        assert made.subject.silent() == ""
        await made.certificates.step()
        made.problem = "admission has ended: why; it is started again"
        assert made.subject.unready() == ("admission: admission has ended: why; it is started again",)
        made.problem = ""
        assert made.subject.unready() == ()

    running(tmp_path, work)


def test_a_bug_in_the_first_configuration_is_no_work_in_progress(tmp_path: pathlib.Path) -> None:
    async def work(made: Replica) -> None:
        await made.until(lambda: not made.source.unready())
        made.bug = "a bug of ours keeps what was read from being used (KeyError('x')); the log says more"
        assert made.subject.unready()[0] == made.bug
        await made.read()
        await made.certificates.step()
        assert made.subject.unready() == (), "what was in force before it stays, and is served"

    running(tmp_path, work)


def test_settings_that_are_broken_or_absent_keep_a_new_replica_out(tmp_path: pathlib.Path) -> None:
    async def work(made: Replica) -> None:
        made.lists["configmaps"] = settings_list("kind: Settings\n")
        await made.until(lambda: made.source.reflectors["settings"].state.phase == "synced")
        await made.until(lambda: len(made.subject.unready()) == 2)
        assert made.subject.unready()[0].startswith(
            "settings: ConfigMap outrider-system/outrider-settings settings.yaml:1: apiVersion: must be said"
        )

    running(tmp_path, work)


def test_a_list_that_only_fails_is_no_reason_for_who_knows_everything_already(tmp_path: pathlib.Path) -> None:
    async def work(made: Replica) -> None:
        await made.read()
        await made.certificates.step()
        made.lists["mcpservers"] = lambda: fakeapi.status(403, "Forbidden")
        made.source.reflectors["servers"].relist(2**62)
        await made.until(lambda: made.source.frozen("MCPServer"))
        assert made.subject.unready() == ()
        assert made.subject.silent() == ""
        assert made.subject.gauges()["outrider_frozen"]["servers"] == 1.0
        assert made.subject.gauges()["outrider_frozen"]["pods"] == 0.0

    running(tmp_path, work)


def test_where_the_api_server_is_may_stay_unknown_and_only_metrics_say_so(tmp_path: pathlib.Path) -> None:
    async def work(made: Replica) -> None:
        made.api_servers = lambda: ()
        await made.read()
        await made.certificates.step()
        assert made.subject.unready() == ()
        assert made.subject.silent() == ""
        assert made.subject.gauges()["outrider_frozen"]["api-servers"] == 1.0
        assert made.subject.gauges()["outrider_watched_objects"]["api-servers"] == 0

    running(tmp_path, work)


def test_a_kind_that_is_not_served_any_more_is_one_for_new_streams_too(tmp_path: pathlib.Path) -> None:
    async def work(made: Replica) -> None:
        await made.read()
        await made.certificates.step()
        made.crds = apiobjects.CrdState.ABSENT
        made.lists["mcpservers"] = lambda: fakeapi.status(404, "NotFound")
        made.source.reflectors["servers"].relist(2**62)
        await made.until(lambda: made.source.frozen("MCPServer"))
        [said] = made.subject.unready()
        assert said.startswith("servers: mcpservers.outrider.dev cannot be read: ")
        assert "install the CRDs" in said
        assert made.subject.silent() == said
        made.crds = apiobjects.CrdState.ESTABLISHED
        del made.lists["mcpservers"]
        await made.until(lambda: not made.subject.unready())
        assert made.subject.silent() == ""

    running(tmp_path, work)


def test_who_stops_says_so(tmp_path: pathlib.Path) -> None:
    async def work(made: Replica) -> None:
        await made.read()
        await made.certificates.step()
        await made.publisher.drain()
        assert made.subject.unready() == ("stopping",)

    running(tmp_path, work)


def test_every_gauge_is_given_and_what_was_never_heard_is_no_age(tmp_path: pathlib.Path) -> None:
    async def work(made: Replica) -> None:
        before = made.subject.gauges()
        assert before.keys() == {name for name, _, _ in telemetry.GAUGES}
        assert set(before["outrider_watch_last_event_age_seconds"].values()) == {math.inf}
        assert before["outrider_leader"] == {"": 1.0}
        await made.read()
        await made.certificates.step()
        after = made.subject.gauges()
        ages = after["outrider_watch_last_event_age_seconds"]
        assert ages.keys() == COLLECTIONS
        assert all(0 <= age < 20 for age in ages.values())
        known = {**dict.fromkeys(COLLECTIONS, 0), "settings": 1, "api-servers": 1}
        assert after["outrider_watched_objects"] == known
        assert after["outrider_frozen"] == dict.fromkeys(known, 0.0)
        assert after["outrider_certificate_expiry_timestamp_seconds"].keys() == {"serving", "authority"}
        metrics = telemetry.Telemetry()
        metrics.watch(telemetry.States(made.subject.gauges))
        assert b'outrider_watched_objects{collection="settings"} 1.0' in metrics.render()

    running(tmp_path, work)
