# SPDX-License-Identifier: Apache-2.0
"""Admission in a replica: when it begins, that it comes back when kopf gives up, and how it ends; at a real API server."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import pathlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
import yaml
from tests import pods
from tests.kube import apiserver, certs

from outrider import manifests, resources
from outrider_operator import access, admitting, listening
from outrider_operator import cluster as api

SETTINGS = "apiVersion: outrider.dev/v1alpha1\nkind: Settings\nplatformNamespace: outrider-system\n"
MISSING = "this replica has not read everything yet"


@dataclasses.dataclass
class Replica:
    """What admission is given. `missing` and `settings` may be changed while it runs."""

    subject: admitting.Admitting
    port: int
    trusting: ssl.SSLContext
    missing: str = ""
    settings: resources.Settings | None = None

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(40):
            while not condition():
                await asyncio.sleep(0.02)

    async def asked(self, resource: str = "pods") -> str:
        """What a pod that asks for a proxy is told."""
        group = "" if resource == "pods" else "outrider.dev"
        version = "v1" if resource == "pods" else "v1alpha1"
        request = {
            "uid": "1", "operation": "CREATE", "namespace": "agents", "object": pods.pod(), "userInfo": {},
            "resource": {"group": group, "version": version, "resource": resource},
        }  # fmt: skip
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
        path = "inject" if resource == "pods" else "validate"
        url = f"https://127.0.0.1:{self.port}/{path}"
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, json=review, ssl=self.trusting) as answer,
        ):
            assert answer.status == 200, await answer.text()
            response = (await answer.json())["response"]
            return "" if response["allowed"] else str(response["status"]["message"])


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> certs.Authority:
    return certs.Authority.make(tmp_path_factory.mktemp("admitting"), ["127.0.0.1"])


@contextlib.asynccontextmanager
async def replica(kubeconfig: pathlib.Path, keys: certs.Authority) -> AsyncIterator[Replica]:
    """A replica whose admission runs until the block ends."""
    reached = access.load(kubeconfig)
    client = api.Cluster(reached)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys.server_cert, keys.server_key)
    parts = admitting.Parts(
        settings=lambda: made.settings, bundle=lambda: pods.CA, missing=lambda: made.missing, may=client.may,
        told=lambda *_what: None, nudge=lambda *_what: None,
    )  # fmt: skip
    with listening.bound("127.0.0.1", 0, "webhook") as kept:
        port = kept.getsockname()[1]
        subject = admitting.Admitting(reached, parts, again_seconds=0.2)
        made = Replica(subject, port, ssl.create_default_context(cafile=str(keys.ca_file)), missing=MISSING)
        place = admitting.Place("127.0.0.1", port, operator_url="https://outrider.outrider-system.svc:8443")
        serving = asyncio.create_task(subject.run(place, context))
        try:
            yield made
            assert not serving.done()
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            client.close()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "kopf"]


def running(
    kubeconfig: pathlib.Path, keys: certs.Authority, work: Callable[[Replica], Awaitable[None]]
) -> None:
    async def run() -> None:
        others = set(threads())
        async with replica(kubeconfig, keys) as made:
            await work(made)
            port = made.port
        async with asyncio.timeout(60):  # it is given up on after five seconds, and a busy machine needs more
            while set(threads()) - others:
                await asyncio.sleep(0.05)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))

    asyncio.run(run())


def test_it_waits_for_what_is_missing_and_then_answers_at_the_port_that_was_kept(
    cluster: apiserver.Cluster, keys: certs.Authority
) -> None:
    cluster.install_crds()

    async def work(made: Replica) -> None:
        assert made.subject.problem == "admission is not served yet"
        await asyncio.sleep(0.5)
        assert made.subject.problem == f"not served: {MISSING}"
        with pytest.raises(aiohttp.ClientConnectorError):
            await made.asked()
        made.missing = ""
        await made.until(lambda: not made.subject.problem)
        assert "its settings have not been read; try again" in await made.asked()
        given = manifests.settings(SETTINGS)
        assert isinstance(given, resources.Settings)
        made.settings = given
        assert "its settings have not been read" not in await made.asked()

    running(cluster.kubeconfig, keys, work)


def test_after_kopf_has_given_up_it_is_started_again_until_it_is_let_in(
    cluster: apiserver.Cluster,
    keys: certs.Authority,
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster.install_crds()
    whole = yaml.safe_load(cluster.kubeconfig.read_text())
    account = cluster.namespace("admitting-test")
    cluster.service_account(account, "operator")
    token = tmp_path / "token"
    token.write_text("not-a-token")
    whole["users"][0]["user"] = {"tokenFile": str(token)}
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(whole))
    cluster.kubectl(
        "create", "clusterrolebinding", "admitting-test", "--clusterrole=cluster-admin",
        f"--serviceaccount={account}:operator",
    )  # fmt: skip

    async def work(made: Replica) -> None:
        made.missing = ""
        await made.until(lambda: "it is started again" in made.subject.problem)
        assert made.subject.problem.startswith("admission has ended: ")
        assert "{" not in made.subject.problem, "a sentence, and no answer as a dict behind it"
        token.write_text(cluster.token(account, "operator", cluster.audience))
        await made.until(lambda: not made.subject.problem)
        assert "its settings have not been read" in await made.asked()
        await made.until(lambda: "admission is served" in said())

    def said() -> list[str]:
        return [each.message for each in caplog.records if each.name == "outrider.operator"]

    try:
        with caplog.at_level(logging.INFO):
            running(kubeconfig, keys, work)
    finally:
        cluster.kubectl("delete", "clusterrolebinding", "admitting-test")
    assert said()[0] == "admission is not served"


def test_when_a_kind_is_there_again_kopf_looks_again_too(
    own_cluster: apiserver.Cluster, keys: certs.Authority
) -> None:
    """It knows only what it found at its start: a kind that came later would be no kind it serves."""

    async def work(made: Replica) -> None:
        made.missing = ""
        await made.until(lambda: not made.subject.problem)
        with pytest.raises(AssertionError, match="not an AdmissionReview of a kind that is served here"):
            await made.asked("mcpservers")
        await asyncio.to_thread(own_cluster.install_crds)
        made.missing = "servers: the CRD mcpservers.outrider.dev does not exist or is not served yet"
        await asyncio.sleep(1)
        assert made.subject.problem == "", "what works goes on working meanwhile"
        made.missing = ""
        await asyncio.sleep(1)
        await made.until(lambda: not made.subject.problem)
        assert "apiVersion" in await made.asked("mcpservers")

    running(own_cluster.kubeconfig, keys, work)
