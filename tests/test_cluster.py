# SPDX-License-Identifier: Apache-2.0
"""What the operator asks and writes, at a real API server: reviews, status, events, Lease, Secret, CA bundles, outages."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from outrider_operator import access
from outrider_operator import cluster as api

AUDIENCE = "config.outrider.dev"
_names = itertools.count()


def asked(kubeconfig, question: Callable[[api.Cluster], Any], *, seconds: float = 60) -> Any:
    """The answer to one coroutine of a Cluster that is closed afterwards."""

    async def main() -> Any:
        subject = api.Cluster(access.load(kubeconfig), instance="outrider-0")
        try:
            return await asyncio.wait_for(question(subject), seconds)
        finally:
            subject.close()

    return asyncio.run(main())


@pytest.fixture
def place(cluster) -> str:
    return cluster.namespace(f"cluster-test-{next(_names)}")


def pod(given, namespace: str, name: str) -> dict[str, Any]:
    given.service_account(namespace, "bot")
    spec = {"serviceAccountName": "bot", "containers": [{"name": "a", "image": "a:1"}]}
    given.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec}
    )
    return given.get("pod", name, namespace)


def config_map(given, namespace: str, name: str, **data: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    given.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    return given.get("configmap", name, namespace)


# Tokens and rights ----------------------------------------------------------------------------------------------------


def test_a_token_of_a_pod_says_whose_it_is(cluster, place):
    made = pod(cluster, place, "p")
    token = cluster.token(place, "bot", AUDIENCE, pod=made)
    found = asked(cluster.kubeconfig, lambda subject: subject.review_token(token, AUDIENCE))
    assert found.account == (place, "bot")
    assert (found.pod, found.pod_uid) == ("p", made["metadata"]["uid"])
    assert f"system:serviceaccounts:{place}" in found.groups


def test_a_token_for_another_audience_proves_nothing(cluster, place):
    token = cluster.token(place, "bot", "vault.outrider.dev", pod=pod(cluster, place, "p"))
    assert asked(cluster.kubeconfig, lambda subject: subject.review_token(token, AUDIENCE)) is None
    assert asked(cluster.kubeconfig, lambda subject: subject.review_token("nonsense", AUDIENCE)) is None


def test_a_token_that_no_pod_has_is_told_apart(cluster, place):
    pod(cluster, place, "p")
    token = cluster.token(place, "bot", AUDIENCE)
    found = asked(cluster.kubeconfig, lambda subject: subject.review_token(token, AUDIENCE))
    assert (found.pod, found.pod_uid) == ("", "")


def test_rights_are_what_the_authorizer_says(cluster, place):
    role = {"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]}
    metadata = {"name": "minter", "namespace": place}
    kind = {"apiVersion": "rbac.authorization.k8s.io/v1"}
    subject = {"kind": "ServiceAccount", "name": "bot", "namespace": place}
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "minter"}
    cluster.apply(
        {**kind, "kind": "Role", "metadata": metadata, "rules": [role]},
        {**kind, "kind": "RoleBinding", "metadata": metadata, "roleRef": ref, "subjects": [subject]},
    )

    async def both(each):
        about = {"verb": "create", "resource": "serviceaccounts", "subresource": "token", "namespace": place}
        who = f"system:serviceaccount:{place}:"
        return await each.may(f"{who}bot", [], **about), await each.may(f"{who}other", [], **about)

    assert asked(cluster.kubeconfig, both) == (True, False)


# Status and events ----------------------------------------------------------------------------------------------------


def server(given, namespace: str, name: str = "files") -> dict[str, Any]:
    given.install_crds()
    spec = {"description": "For a test.", "endpoint": {"url": "https://files.example.com/mcp"}}
    about = {"apiVersion": "outrider.dev/v1alpha1", "kind": "MCPServer"}
    given.apply({**about, "metadata": {"name": name, "namespace": namespace}, "spec": spec})
    return given.get("mcpserver", name, namespace)


def condition(status: str) -> dict[str, Any]:
    about = {"type": "Ready", "reason": "Fine", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    return {"observedGeneration": 1, "conditions": [{**about, "status": status}]}


def test_a_status_is_applied_whole_and_the_same_again_changes_nothing(cluster, place):
    server(cluster, place)

    async def twice(subject):
        await subject.apply_status("MCPServer", place, "files", condition("True"))
        first = await asyncio.to_thread(cluster.get, "mcpserver", "files", place)
        await subject.apply_status("MCPServer", place, "files", condition("True"))
        return first

    first = asked(cluster.kubeconfig, twice)
    after = cluster.get("mcpserver", "files", place)
    assert after["status"]["conditions"][0]["status"] == "True"
    assert after["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    managers = {
        each["manager"]: each["operation"]
        for each in json.loads(
            cluster.kubectl(
                "get", "mcpserver", "files", "-n", place, "-o", "json", "--show-managed-fields"
            ).stdout
        )["metadata"]["managedFields"]
    }
    assert managers["outrider-operator"] == "Apply"


def test_a_status_of_what_is_gone_is_not_found_and_makes_nothing(cluster, place):
    cluster.install_crds()
    with pytest.raises(api.ClusterError) as caught:
        asked(cluster.kubeconfig, lambda s: s.apply_status("MCPServer", place, "nobody", condition("True")))
    assert caught.value.status == 404
    assert cluster.kubectl("get", "mcpserver", "nobody", "-n", place, check=False).returncode == 1


def test_an_event_said_again_is_counted_not_repeated(cluster, place):
    made = config_map(cluster, place, "thing")
    about = regarding(made)

    async def thrice(subject):
        for _ in range(3):
            await subject.post_event(about, reason="Rejected", action="Programming", note="a sidecar said no")
        await subject.post_event(about, reason="Rejected", action="Programming", note="another said no")

    asked(cluster.kubeconfig, thrice)
    listed = json.loads(cluster.kubectl("get", "events.v1.events.k8s.io", "-n", place, "-o", "json").stdout)
    counts = {each["note"]: each.get("series", {}).get("count", 1) for each in listed["items"]}
    assert counts == {"a sidecar said no": 3, "another said no": 1}
    described = cluster.kubectl("describe", "configmap", "thing", "-n", place).stdout
    assert "Rejected" in described
    assert "a sidecar said no" in described


def regarding(made: dict[str, Any]) -> api.Regarding:
    metadata = made["metadata"]
    return api.Regarding(
        made["apiVersion"], made["kind"], metadata["namespace"], metadata["name"], metadata["uid"]
    )


def test_an_event_said_by_another_replica_before_is_counted_on_it(cluster, place):
    about = regarding(config_map(cluster, place, "thing"))

    async def once(subject):
        await subject.post_event(about, reason="Frozen", action="Watching", note="x" * 3000, type_="Normal")

    asked(cluster.kubeconfig, once)
    asked(cluster.kubeconfig, once)
    listed = json.loads(cluster.kubectl("get", "events.v1.events.k8s.io", "-n", place, "-o", "json").stdout)
    assert [each["series"]["count"] for each in listed["items"]] == [2]
    assert len(listed["items"][0]["note"]) == 1024


# Lease, Secret, certificates ------------------------------------------------------------------------------------------


def test_a_lease_is_written_by_the_first_who_read_it(cluster, place):
    async def both(subject):
        assert await subject.get_lease(place, "outrider") is None
        await subject.create_lease(place, "outrider", {"holderIdentity": "a", "leaseDurationSeconds": 15})
        with pytest.raises(api.ClusterError) as again:
            await subject.create_lease(place, "outrider", {"holderIdentity": "b"})
        read = await subject.get_lease(place, "outrider")
        await subject.replace_lease({**read, "spec": {**read["spec"], "holderIdentity": "b"}})
        with pytest.raises(api.ClusterError) as late:
            await subject.replace_lease({**read, "spec": {**read["spec"], "holderIdentity": "c"}})
        return again.value, late.value

    again, late = asked(cluster.kubeconfig, both)
    assert (again.status, again.reason) == (409, "AlreadyExists")
    assert (late.status, late.reason) == (409, "Conflict")
    assert cluster.get("lease", "outrider", place)["spec"]["holderIdentity"] == "b"


def test_a_secret_is_replaced_by_the_first_who_read_it_and_keeps_what_is_not_ours(cluster, place):
    metadata = {"name": "certs", "namespace": place, "labels": {"app": "outrider"}, "annotations": {"a": "1"}}
    given = {"ca.crt": base64.b64encode(b"old").decode(), "gone": ""}
    cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": given})

    async def replaced(subject):
        read = await subject.read_secret(place, "certs")
        assert read.data == {"ca.crt": b"old", "gone": b""}
        new = await subject.replace_secret(read, data={"ca.crt": b"new"}, annotations={"b": "2"})
        assert new.data == {"ca.crt": b"new"}
        with pytest.raises(api.ClusterError) as late:
            await subject.replace_secret(read, data={"ca.crt": b"late"})
        return late.value, await subject.read_secret(place, "nobody")

    late, nobody = asked(cluster.kubeconfig, replaced)
    assert (late.status, late.reason) == (409, "Conflict")
    assert nobody is None
    after = cluster.get("secret", "certs", place)
    assert base64.b64decode(after["data"]["ca.crt"]) == b"new"
    assert after["metadata"]["labels"] == {"app": "outrider"}
    assert after["metadata"]["annotations"] == {"a": "1", "b": "2"}


def webhooks(name: str, *hooks: str) -> dict[str, Any]:
    service = {"namespace": "default", "name": "outrider", "path": "/inject"}
    one = {"clientConfig": {"service": service}, "sideEffects": "None", "admissionReviewVersions": ["v1"]}
    never = {"matchLabels": {"never": "never"}}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name}, "webhooks": [{"name": each, "namespaceSelector": never, **one} for each in hooks],
    }  # fmt: skip


def test_a_ca_bundle_is_still_there_after_who_owns_the_configuration_applies_it_again(cluster, place):
    made = webhooks(place, "a.outrider.dev", "b.outrider.dev")
    kind = made["kind"]
    cluster.apply(made)
    asked(cluster.kubeconfig, lambda s: s.apply_ca_bundle(kind, place, cluster.ca_pem))
    cluster.apply(made)
    found = cluster.get(kind, place)["webhooks"]
    wanted = base64.b64encode(cluster.ca_pem.encode()).decode()
    assert [each["clientConfig"]["caBundle"] for each in found] == [wanted, wanted]
    assert [each["clientConfig"]["service"]["name"] for each in found] == ["outrider", "outrider"]
    cluster.kubectl("delete", kind, place)


def test_a_ca_bundle_makes_no_configuration_that_is_not_there(cluster):
    kind = "ValidatingWebhookConfiguration"
    with pytest.raises(api.ClusterError) as caught:
        asked(cluster.kubeconfig, lambda s: s.apply_ca_bundle(kind, "nobody", cluster.ca_pem, ["a.b.c"]))
    assert caught.value.status == 422
    with pytest.raises(api.ClusterError) as caught:
        asked(cluster.kubeconfig, lambda s: s.apply_ca_bundle(kind, "nobody", cluster.ca_pem))
    assert caught.value.status == 404


# What kind of cluster -------------------------------------------------------------------------------------------------


def test_a_cluster_is_known_by_kube_systems_uid(cluster):
    found = asked(cluster.kubeconfig, lambda subject: subject.kube_system_uid())
    assert found == cluster.get("namespace", "kube-system")["metadata"]["uid"]


def test_an_api_server_says_where_its_endpoints_are(cluster):
    assert asked(cluster.kubeconfig, lambda subject: subject.api_servers()) == (cluster.advertised,)


def crd(group: str, *, finalizer: bool = False) -> dict[str, Any]:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    metadata: dict[str, Any] = {"name": f"things.{group}"}
    if finalizer:
        metadata["finalizers"] = ["example.com/stays"]
    spec = {
        "group": group, "scope": "Namespaced", "versions": [version],
        "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
    }  # fmt: skip
    about = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    return {**about, "metadata": metadata, "spec": spec}


def test_a_kind_is_absent_established_or_going_away(cluster, place):
    group = f"{place}.example.com"
    name = f"things.{group}"

    def state() -> api.CrdState:
        return asked(cluster.kubeconfig, lambda subject: subject.crd_state(name))

    assert state() is api.CrdState.ABSENT
    cluster.apply(crd(group, finalizer=True))
    cluster.kubectl("wait", "--for=condition=Established", "crd", name)
    assert state() is api.CrdState.ESTABLISHED
    cluster.kubectl("delete", "crd", name, "--wait=false")
    assert state() is api.CrdState.TERMINATING
    gone = '{"metadata":{"finalizers":null}}'
    cluster.kubectl("patch", "crd", name, "--type=merge", "-p", gone)
    cluster.kubectl("wait", "--for=delete", "crd", name)
    assert state() is api.CrdState.ABSENT


# Outages --------------------------------------------------------------------------------------------------------------


def test_who_may_not_is_told_so_in_kubernetes_words(cluster, place):
    nobody = cluster.kubeconfig_for("nobody")
    with pytest.raises(api.ClusterError, match='User "nobody" cannot get resource "secrets"') as caught:
        asked(nobody, lambda subject: subject.read_secret(place, "certs"))
    assert (caught.value.status, caught.value.reason) == (403, "Forbidden")


def test_an_api_server_that_is_away_is_an_error_and_back_again_is_no_error(own_cluster):
    async def across(subject):
        before = await subject.kube_system_uid()
        await asyncio.to_thread(own_cluster.stop_api)
        with pytest.raises(api.ClusterError) as away:
            await subject.kube_system_uid()
        await asyncio.to_thread(own_cluster.start_api)
        return before, away.value, await subject.kube_system_uid()

    before, away, after = asked(own_cluster.kubeconfig, across, seconds=200)
    assert (away.status, away.reason) == (0, "NoAnswer")
    assert before == after


def test_two_hundred_questions_at_once_are_answered_and_too_many_refused(cluster, monkeypatch):
    async def storm(subject):
        found = await asyncio.gather(*(subject.kube_system_uid() for _ in range(200)))
        monkeypatch.setattr(api, "WAITING_MAX", 3)
        rest = await asyncio.gather(*(subject.kube_system_uid() for _ in range(5)), return_exceptions=True)
        return found, rest

    found, rest = asked(cluster.kubeconfig, storm)
    assert len(set(found)) == 1
    assert [type(each) for each in rest] == [str, str, str, api.ClusterError, api.ClusterError]
    assert "wait already" in str(rest[-1])


def test_a_storm_of_reviews_is_not_in_the_way_of_the_lease(cluster, place):
    async def storm(subject):
        reviews = [asyncio.create_task(subject.review_token(f"nonsense-{n}", AUDIENCE)) for n in range(400)]
        await asyncio.sleep(0)
        began = time.monotonic()
        await subject.get_lease(place, "outrider")
        lease = time.monotonic() - began
        await asyncio.gather(*reviews)
        return lease, time.monotonic() - began

    lease, storm_seconds = asked(cluster.kubeconfig, storm)
    print(f"400 reviews in {storm_seconds:.2f} s, the Lease in {lease:.2f} s")
    assert lease < storm_seconds / 2


def test_asking_loads_no_models_and_no_api_classes(cluster):
    """They would be some 20 MiB more."""
    code = f"""
import asyncio, pathlib, sys
from outrider_operator import access, cluster

async def main():
    subject = cluster.Cluster(access.load(pathlib.Path({str(cluster.kubeconfig)!r})))
    await subject.kube_system_uid()
    subject.close()

asyncio.run(main())
loaded = [name for name in sys.modules if name.startswith(("kubernetes.client.models.", "kubernetes.client.api."))]
print(len(loaded), "kopf" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["0", "False"]
