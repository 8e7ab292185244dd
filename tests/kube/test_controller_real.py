# SPDX-License-Identifier: Apache-2.0
"""A replica at a real API server: what it does when rights, settings, kinds, the Lease or the API server itself come and go."""

from __future__ import annotations

import base64
import json
import pathlib
import signal
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from tests import laptop
from tests.kube import apiserver, helm, installation, scenarios

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
NAMESPACE, NAME = installation.NAMESPACE, installation.NAME
SECONDS = 60.0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[installation.Installation]:
    """The chart's objects on a cluster of its own, and no replica yet."""
    folder = tmp_path_factory.mktemp("controller")
    (folder / "cluster").mkdir()
    cluster = apiserver.Cluster(folder / "cluster")
    made = installation.Installation(cluster, folder / "installation")
    try:
        cluster.start()
        made.wire.start()
        made.let_operators_back()
        helm.Helm(cluster.kubeconfig).install(NAME, "charts/outrider", NAMESPACE, {})
        cluster.namespace("crm")
        yield made
    finally:
        made.close()
        cluster.close()


@pytest.fixture
def started(home: installation.Installation) -> Iterator[list[installation.Operator]]:
    """Whatever a test starts is stopped after it."""
    before = len(home.operators)
    yield home.operators
    for each in home.operators[before:]:
        assert each.process is not None
        each.process.stop()
        print(each.process.tail())


def said(replica: installation.Operator) -> list[dict[str, Any]]:
    assert replica.process is not None
    return [json.loads(each) for each in replica.process.text().splitlines()]


def messages(replica: installation.Operator) -> list[str]:
    return [each["message"] for each in said(replica)]


def leads(replica: installation.Operator) -> bool:
    return "outrider_leader 1.0" in replica.desk("/metrics")[1]


def asked(home: installation.Installation, replica: installation.Operator, resource: str, made: Any) -> str:
    """What admission answers to the API server's own words; the certificate is one that the Secret's authority signed."""
    secret = home.cluster.get("secret", f"{NAME}-certs", NAMESPACE)
    trusting = ssl.create_default_context(cadata=base64.b64decode(secret["data"]["ca.crt"]).decode())
    about = {"group": "outrider.dev", "version": "v1alpha1", "resource": resource}
    request = {
        "uid": "1",
        "operation": "CREATE",
        "resource": about,
        "namespace": "crm",
        "object": made,
        "userInfo": {},
    }
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    url = f"https://127.0.0.1:{replica.ports['webhook']}/validate"
    try:
        with urllib.request.urlopen(
            url, data=json.dumps(review).encode(), timeout=10, context=trusting
        ) as answer:
            response = json.load(answer)["response"]
    except urllib.error.HTTPError as error:
        return error.read().decode()
    except urllib.error.URLError as error:
        return f"nobody answers: {error.reason}"
    return "" if response["allowed"] else str(response["status"]["message"])


def status_generation(home: installation.Installation, name: str) -> int:
    found = home.cluster.get("mcpserver", name, "crm").get("status", {})
    return int(found.get("observedGeneration", 0))


def a_server(name: str) -> dict[str, Any]:
    spec = {"description": "Records", "endpoint": {"url": "https://records.example/mcp"}}
    return scenarios.obj("MCPServer", name, spec)


def test_an_api_server_that_comes_late_is_waited_for(home, started) -> None:
    home.cut_operators_off()
    replica = home.operator(ready=False)
    laptop.until(lambda: "does not answer" in replica.ready()[1], "it has found nobody", SECONDS)
    assert replica.desk("/healthz")[0] == 200
    home.let_operators_back()
    replica.until_ready()
    assert messages(replica).count("listening") == 1
    assert "certificates are seen to again" in messages(replica)
    assert not [each for each in said(replica) if each["level"] in ("error", "critical")]


def test_who_stops_says_so_serves_on_for_a_moment_and_gives_the_lease_back(home, started) -> None:
    replica = home.operator()
    laptop.until(lambda: leads(replica), "it leads", SECONDS)
    assert replica.process is not None
    replica.process._process.send_signal(signal.SIGTERM)
    laptop.until(lambda: replica.ready() == (503, "stopping\n"), "readiness says that it stops", 5)
    assert asked(home, replica, "mcpservers", a_server("late")) == ""
    assert replica.process._process.wait(20) == 0
    lease = home.cluster.get("lease", NAME, NAMESPACE)["spec"]
    assert not lease.get("holderIdentity")
    assert not [each for each in said(replica) if each["level"] in ("warning", "error", "critical")]


def test_settings_that_are_broken_keep_a_new_replica_out_until_they_are_mended(home, started) -> None:
    first = home.operator()
    held = home.cluster.get("configmap", f"{NAME}-settings", NAMESPACE)["data"]["settings.yaml"]

    def write(text: str) -> None:
        patch = json.dumps({"data": {"settings.yaml": text}})
        home.cluster.kubectl(
            "patch", "configmap", f"{NAME}-settings", "-n", NAMESPACE, "--type=merge", "-p", patch
        )

    write(held + "curency: USD\n")
    try:
        laptop.until(lambda: "settings not used" in messages(first), "the settings were read", SECONDS)
        second = home.operator(ready=False)
        laptop.until(lambda: "curency" in second.ready()[1], "readiness names the field", SECONDS)
        place = f"settings: ConfigMap {NAMESPACE}/{NAME}-settings settings.yaml:"
        assert second.ready()[1].startswith(place), second.ready()
        assert 'did you mean "currency"?' in second.ready()[1]
        assert first.ready()[0] == 200, "who knew better ones goes on with them"
    finally:
        write(held)
    second.until_ready()


def test_rights_that_are_missing_are_named_and_used_when_they_are_there(
    home, started, tmp_path: pathlib.Path
) -> None:
    home.cluster.kubectl(
        "patch", "clusterrolebinding", NAME, "--type=json", "-p", '[{"op": "remove", "path": "/subjects"}]'
    )
    try:
        replica = home.operator(ready=False)
        laptop.until(lambda: replica.ready()[1].count("forbidden") >= 5, "it was told no", SECONDS)
        text = replica.ready()[1]
        account = f"system:serviceaccount:{NAMESPACE}:{NAME}"
        assert f'User "{account}" cannot list resource "mcpservers" in API group "outrider.dev"' in text
        assert "give the operator's ServiceAccount get, list and watch (the Helm chart does)" in text
        assert "NoneType" not in text
    finally:
        subject = {"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}
        patch = json.dumps({"subjects": [subject]})
        home.cluster.kubectl("patch", "clusterrolebinding", NAME, "--type=merge", "-p", patch)
    replica.until_ready()


def test_a_kind_that_was_away_is_watched_and_admitted_again(home, started) -> None:
    replica = home.operator()
    wrong = a_server("wrong")
    wrong["spec"]["endpoint"]["url"] = "ftp://records.example"
    assert "spec.endpoint.url" in asked(home, replica, "mcpservers", wrong)
    home.cluster.kubectl("delete", "crd", "mcpservers.outrider.dev")
    laptop.until(lambda: replica.ready()[0] == 503, "it is not ready", SECONDS)
    assert "servers: " in replica.ready()[1]
    assert replica.desk("/healthz")[0] == 200
    home.cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(apiserver.ROOT / "crds"))
    replica.until_ready()
    laptop.until(
        lambda: replica.ready()[0] == 200 and "spec.endpoint.url" in asked(home, replica, "mcpservers", wrong),
        "admission knows the kind again", SECONDS,
    )  # fmt: skip
    home.cluster.apply(a_server("back"))
    laptop.until(lambda: status_generation(home, "back") == 1, "its status is written", SECONDS)


def test_whose_lease_is_taken_writes_nothing_until_it_has_it_back(home, started) -> None:
    replica = home.operator()
    laptop.until(lambda: leads(replica), "it leads", SECONDS)
    now = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
    spec = {"holderIdentity": "stranger/127.0.0.1:1", "leaseDurationSeconds": 15, "renewTime": now}
    home.cluster.kubectl(
        "patch", "lease", NAME, "-n", NAMESPACE, "--type=merge", "-p", json.dumps({"spec": spec})
    )
    laptop.until(lambda: not leads(replica), "it has seen that", SECONDS)
    home.cluster.apply(a_server("meanwhile"))
    time.sleep(4)
    assert status_generation(home, "meanwhile") == 0
    assert replica.ready()[0] == 200, "everything else it does goes on"
    laptop.until(lambda: leads(replica), "the stranger's time is over", SECONDS)
    laptop.until(lambda: status_generation(home, "meanwhile") == 1, "the status is written", SECONDS)
    assert [each for each in messages(replica) if "leading" in each] == [
        "leading",
        "no longer leading",
        "leading",
    ]


def test_a_leader_that_stood_still_does_not_write_what_it_had_planned(home, started) -> None:
    first, second = home.operator(), home.operator()
    laptop.until(lambda: leads(first) or leads(second), "one leads", SECONDS)
    old, new = (first, second) if leads(first) else (second, first)
    assert old.process is not None
    old.process._process.send_signal(signal.SIGSTOP)
    try:
        laptop.until(lambda: leads(new), "the other takes over", SECONDS)
    finally:
        old.process._process.send_signal(signal.SIGCONT)
    laptop.until(lambda: "no longer leading" in messages(old), "it has noticed", SECONDS)
    home.cluster.apply(a_server("after-a-pause"))
    laptop.until(lambda: status_generation(home, "after-a-pause") == 1, "the new one writes", SECONDS)
    assert leads(new)
    assert not leads(old)
    assert old.ready()[0] == 200
