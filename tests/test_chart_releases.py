# SPDX-License-Identifier: Apache-2.0
"""The charts on a real API server: accepted object by object, installed, upgraded, rolled back and uninstalled by Helm.

There are no controllers: Deployments are accepted, not run. What runs under the chart's rights is in test_chart_rights, and an upgrade
under calls in tests/kube/test_scenario_*.
"""

from __future__ import annotations

import base64
import json
import pathlib
import subprocess
from collections.abc import Iterator
from typing import Any

import helm_python
import pytest
from tests import laptop, test_charts
from tests.kube import apiserver, helm

ROOT = pathlib.Path(__file__).resolve().parents[1]
NAME, NAMESPACE = "outrider", "outrider-system"
REVISION = "outrider.dev/crd-revision"
KINDS = ("mcpservers.outrider.dev", "mcptoolpolicies.outrider.dev", "mcpbudgets.outrider.dev")
OF_OTHERS = ("cert-manager.io/", "monitoring.coreos.com/")
"""Groups of kinds that this cluster does not have."""


@pytest.fixture(scope="module")
def place(module_cluster: apiserver.Cluster) -> apiserver.Cluster:
    """A cluster of this module's: a chart is the only one of its kind in a cluster."""
    return module_cluster


@pytest.fixture
def installer(place: apiserver.Cluster) -> Iterator[helm.Helm]:
    """Helm; what a test left installed is uninstalled."""
    made = helm.Helm(place.kubeconfig)
    yield made
    made.uninstall(NAME, NAMESPACE, ignore_not_found=True)


def test_an_api_server_accepts_every_object_of_every_combination(
    place: apiserver.Cluster, installer: helm.Helm
) -> None:
    installer.install(NAME, helm.OUTRIDER, NAMESPACE)
    for namespace in ("outrider-test", "gate-test"):
        place.namespace(namespace)
    for name, values in test_charts.MATRIX.items():
        objects = helm.objects(installer.render(helm.OUTRIDER, values))
        ours = [each for each in objects if not each["apiVersion"].startswith(OF_OTHERS)]
        assert len(ours) >= 20
        ran = accepted(place, ours)
        assert ran.returncode == 0, f"{name}: {ran.stderr}"


def test_an_api_server_accepts_every_object_of_the_demo(
    place: apiserver.Cluster, installer: helm.Helm
) -> None:
    installer.install(NAME, helm.OUTRIDER, NAMESPACE)
    for namespace in ("demo-crm", "demo-agents"):
        place.namespace(namespace)
    ran = accepted(place, helm.objects(helm.template(helm.DEMO, name="demo")))
    assert ran.returncode == 0, ran.stderr


def accepted(place: apiserver.Cluster, objects: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    """The answer to what an upgrade to these objects would send, as Helm, which is the manager of their fields."""
    options = ["--dry-run=server", "--server-side", "--force-conflicts", f"--field-manager={manager(place)}"]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    return place.kubectl("apply", *options, "-f", "-", input=text, check=False)


def manager(place: apiserver.Cluster) -> str:
    """Helm calls itself after the program it runs in."""
    path = "jsonpath={.metadata.managedFields[0].manager}"
    service = ("get", "service", NAME, "-n", NAMESPACE, "--show-managed-fields", "-o", path)
    return place.kubectl(*service, "--ignore-not-found").stdout or "helm"


def test_every_pod_of_both_charts_is_restricted(place: apiserver.Cluster) -> None:
    space = place.namespace("restricted", **{"pod-security.kubernetes.io/enforce": "restricted"})
    place.service_account(space, "default")
    for chart in (helm.OUTRIDER, helm.DEMO):
        for name, pod in test_charts.pods(helm.objects(helm.template(chart))):
            spec = {**pod["spec"], "serviceAccountName": "default"}
            metadata = {"name": name, "namespace": space}
            ran = accepted(place, [{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}])
            assert ran.returncode == 0, ran.stderr


def test_a_misspelt_value_is_refused_before_anything_is_made(
    place: apiserver.Cluster, installer: helm.Helm
) -> None:
    with pytest.raises(helm_python.HelmError, match=r"/prober.*additional properties 'replica' not allowed"):
        installer.install(NAME, helm.OUTRIDER, NAMESPACE, {"prober": {"replica": 2}})
    assert place.kubectl("get", "clusterrole", "outrider", check=False).returncode == 1


def test_what_the_operator_wrote_survives_upgrade_and_rollback(
    place: apiserver.Cluster, installer: helm.Helm
) -> None:
    installer.install(NAME, helm.OUTRIDER, NAMESPACE)
    assert "data" not in place.get("secret", "outrider-certs", NAMESPACE)
    data = {"ca.crt": base64.b64encode(b"ours").decode()}
    place.kubectl(
        "patch", "secret", "outrider-certs", "-n", NAMESPACE, "--type=merge", "-p", json.dumps({"data": data})
    )
    bundle = base64.b64encode(place.ca_pem.encode()).decode()
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        webhooks = [
            {"name": each["name"], "clientConfig": {"caBundle": bundle}}
            for each in place.get(kind, NAME)["webhooks"]
        ]
        patch = {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
            "metadata": {"name": NAME}, "webhooks": webhooks,
        }  # fmt: skip
        place.kubectl(
            "apply", "--server-side", "--field-manager=outrider-operator", "-f", "-", input=json.dumps(patch)
        )

    def kept() -> None:
        assert place.get("secret", "outrider-certs", NAMESPACE)["data"] == data
        for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
            for each in place.get(kind, NAME)["webhooks"]:
                assert each["clientConfig"]["caBundle"] == bundle
                assert each["clientConfig"]["service"]["name"] == NAME

    installer.upgrade(
        NAME, helm.OUTRIDER, NAMESPACE, {"webhook": {"timeoutSeconds": 7}, "operator": {"replicas": 3}}
    )
    assert place.get("MutatingWebhookConfiguration", NAME)["webhooks"][0]["timeoutSeconds"] == 7
    assert place.get("deployment", NAME, NAMESPACE)["spec"]["replicas"] == 3
    kept()
    installer.rollback(NAME, NAMESPACE, 1)
    assert place.get("MutatingWebhookConfiguration", NAME)["webhooks"][0]["timeoutSeconds"] == 10
    assert place.get("deployment", NAME, NAMESPACE)["spec"]["replicas"] == 2
    kept()
    assert [each["status"] for each in installer.history(NAME, NAMESPACE)][-1] == "deployed"


def test_an_upgrade_from_the_chart_before_this_one_keeps_objects_and_restarts_nobody(
    place: apiserver.Cluster, installer: helm.Helm, tmp_path: pathlib.Path
) -> None:
    installer.install(NAME, helm.before(tmp_path), NAMESPACE)
    space = place.namespace("crm")
    endpoint = {"url": "https://crm.example/mcp"}
    server = {
        "apiVersion": "outrider.dev/v1alpha1", "kind": "MCPServer",
        "metadata": {"name": "crm", "namespace": space},
        "spec": {
            "description": "A CRM.", "endpoint": endpoint,
            "credentials": [{"name": "open", "from": [{"anyone": True}], "none": True}],
        },
    }  # fmt: skip
    place.apply(server)
    uid = place.get("mcpservers.outrider.dev", "crm", space)["metadata"]["uid"]
    installer.upgrade(NAME, helm.OUTRIDER, NAMESPACE)
    assert place.get("mcpservers.outrider.dev", "crm", space)["metadata"]["uid"] == uid
    assert installer.status(NAME, NAMESPACE)["status"] == "deployed"
    installer.rollback(NAME, NAMESPACE, 1)
    assert place.get("mcpservers.outrider.dev", "crm", space)["metadata"]["uid"] == uid


def test_going_back_behind_the_clusters_kinds_is_refused_on_every_way(
    place: apiserver.Cluster, installer: helm.Helm
) -> None:
    installer.install(NAME, helm.OUTRIDER, NAMESPACE)
    ours = place.get("crd", KINDS[0])["metadata"]["labels"][REVISION]
    place.kubectl("label", "crd", KINDS[0], f"{REVISION}=1000", "--overwrite")
    try:
        with pytest.raises(
            helm_python.HelmError, match=rf"has revision 1000 of {KINDS[0]}.*crds.enabled=false"
        ):
            installer.upgrade(NAME, helm.OUTRIDER, NAMESPACE)
        apply = ("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
        # A policy is in force a moment after it was installed: the API server watches it like everybody else.
        laptop.until(
            lambda: place.kubectl(*apply, "--dry-run=server", check=False).returncode,
            "the policy is in force", 30,
        )  # fmt: skip
        applied = place.kubectl(*apply, check=False)
        assert applied.returncode == 1
        assert f"revision {ours} of this CRD is older than revision 1000 in the cluster" in applied.stderr
        installer.upgrade(NAME, helm.OUTRIDER, NAMESPACE, {"crds": {"enabled": False}})
        assert place.get("crd", KINDS[0])["metadata"]["labels"][REVISION] == "1000"
    finally:
        place.kubectl("label", "crd", KINDS[0], f"{REVISION}={ours}", "--overwrite", check=False)


def test_the_demo_needs_the_kinds_and_comes_and_goes(own_cluster: apiserver.Cluster) -> None:
    made = helm.Helm(own_cluster.kubeconfig)
    with pytest.raises(helm_python.HelmError, match='no matches for kind "MCP'):
        made.install("demo", helm.DEMO, "demo")
    made.install(NAME, helm.OUTRIDER, NAMESPACE)
    made.install("demo", helm.DEMO, "demo")
    listed = own_cluster.kubectl("get", "outrider", "-A", "-o", "name").stdout.split()
    assert sorted(listed) == [
        "mcpbudget.outrider.dev/exports", "mcpserver.outrider.dev/crm",
        "mcptoolpolicy.outrider.dev/access", "mcptoolpolicy.outrider.dev/our-tools",
    ]  # fmt: skip
    made.uninstall("demo", "demo")
    assert own_cluster.kubectl("get", "outrider", "-A", "-o", "name").stdout == ""


def test_an_uninstall_leaves_nothing_but_the_kept_kinds_and_a_reinstall_finds_them(
    own_cluster: apiserver.Cluster,
) -> None:
    made = helm.Helm(own_cluster.kubeconfig)
    own_cluster.namespace(NAMESPACE)
    before = cluster_wide(own_cluster)
    made.install(NAME, helm.OUTRIDER, NAMESPACE, test_charts.merged({"networkPolicy": {"enabled": True}}))
    assert len(cluster_wide(own_cluster) - before) > 10
    own_cluster.kubectl(
        "patch",
        "secret",
        "outrider-certs",
        "-n",
        NAMESPACE,
        "--type=merge",
        "-p",
        '{"stringData": {"ca.crt": "ours"}}',
    )
    made.uninstall(NAME, NAMESPACE)
    kept = {f"customresourcedefinition.apiextensions.k8s.io/{kind}" for kind in KINDS}
    kept.add(
        "apiservice.apiregistration.k8s.io/v1alpha1.outrider.dev"
    )  # the API server's own entry for a group it serves
    assert cluster_wide(own_cluster) - before == kept
    assert in_namespace(own_cluster) == {"secret/outrider-certs"}

    made.install(NAME, helm.OUTRIDER, NAMESPACE, {"crds": {"keep": False}})
    assert "ca.crt" in own_cluster.get("secret", "outrider-certs", NAMESPACE)["data"]
    made.uninstall(NAME, NAMESPACE)
    laptop.until(lambda: cluster_wide(own_cluster) <= before, "the kinds are gone")


def cluster_wide(place: apiserver.Cluster) -> set[str]:
    """Every cluster-scoped object that can be listed."""
    kinds = place.kubectl("api-resources", "--namespaced=false", "--verbs=list", "-o", "name").stdout.split()
    return set(place.kubectl("get", ",".join(kinds), "-o", "name").stdout.split())


def in_namespace(place: apiserver.Cluster) -> set[str]:
    kinds = place.kubectl("api-resources", "--namespaced=true", "--verbs=list", "-o", "name").stdout.split()
    named = place.kubectl("get", ",".join(kinds), "-n", NAMESPACE, "-o", "name").stdout.split()
    return {each for each in named if "event" not in each}
