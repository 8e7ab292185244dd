# SPDX-License-Identifier: Apache-2.0
"""The checks of `outrider doctor` on a real API server: each thing that can be wrong with an installation, and its next command.

A whole installation that is well is looked at in tests/kube/test_command_line.py.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from tests import test_cli_beforehand as before
from tests.kube import apiserver, asked, certs

from outrider.resources import kinds
from outrider_cli import afterwards, diagnosis, kubectl

SYSTEM, RELEASE = "af-system", "afr"


@pytest.fixture(autouse=True)
def _node(tmp_path: pathlib.Path) -> Iterator[None]:
    with asked.kubectl_on_path(tmp_path / "bin"):
        yield


@pytest.fixture
def kube(cluster: apiserver.Cluster) -> kubectl.Kubectl:
    cluster.install_crds()
    cluster.namespace(SYSTEM)
    return before.at(cluster.kubeconfig, SYSTEM, RELEASE)


def found(kube: kubectl.Kubectl, name: str) -> list[tuple[str, str]]:
    """(level, line) of one check."""
    checks = [(each, check) for each, check in afterwards.CHECKS if each == name]
    assert checks
    return [(each.level.value, each.line()) for each in diagnosis.gone_through(kube, checks)]


def test_kinds_that_are_served_in_our_revision_are_well(kube: kubectl.Kubectl) -> None:
    assert [level for level, _ in found(kube, "kinds")] == ["ok"] * 3


def test_kinds_of_another_revision_are_named(kube: kubectl.Kubectl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "REVISION", 99)
    lines = found(kube, "kinds")
    assert [level for level, _ in lines] == ["bad"] * 3
    assert "mcpservers.outrider.dev is of revision" in lines[0][1]
    assert "helm upgrade" in lines[0][1]


def test_kinds_that_are_missing_or_going_are_named(own_cluster: apiserver.Cluster) -> None:
    lines = found(before.at(own_cluster.kubeconfig), "kinds")
    assert [level for level, _ in lines] == ["bad"] * 3
    assert "the API server does not know mcpservers.outrider.dev" in lines[0][1]
    own_cluster.install_crds()
    finalizer = json.dumps({"metadata": {"finalizers": ["example.com/keep"]}})
    own_cluster.kubectl("patch", "crd", "mcpbudgets.outrider.dev", "--type=merge", "-p", finalizer)
    own_cluster.kubectl("delete", "crd", "mcpbudgets.outrider.dev", "--wait=false")
    [line] = [line for level, line in found(before.at(own_cluster.kubeconfig), "kinds") if level == "bad"]
    assert "mcpbudgets.outrider.dev is being deleted" in line
    assert "kubectl get outrider -A -o yaml" in line


def test_a_pod_policy_that_is_missing_or_bound_to_nothing_is_named(
    cluster: apiserver.Cluster, kube: kubectl.Kubectl
) -> None:
    [line] = [line for level, line in found(kube, "policies") if level == "bad"]
    assert (
        line
        == "admission policy afr-pods is not there: what it refuses is let in. Next: bring the chart up to date: helm upgrade"
    )
    rule = {
        "apiGroups": ["none.example"],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["none"],
    }
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "afr-pods"},
        "spec": {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "true"}]},
    }  # fmt: skip
    cluster.apply(policy)
    [line] = [line for level, line in found(kube, "policies") if level == "bad"]
    assert "admission policy afr-pods has no binding: so it refuses nothing" in line
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "afr-pods"},
        "spec": {"policyName": "afr-pods", "validationActions": ["Deny"]},
    }  # fmt: skip
    cluster.apply(binding)
    assert found(kube, "policies") == [("ok", "4 admission policies are in force")]


def test_webhooks_that_are_missing_or_have_no_ca_are_named(
    cluster: apiserver.Cluster, kube: kubectl.Kubectl, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(afterwards, "_EXPIRES_SOON_SECONDS", 3_600)
    lines = found(kube, "webhooks")
    assert [level for level, _ in lines] == ["bad", "bad"]
    assert "there is no mutatingwebhookconfiguration afr: new pods get no sidecar" in lines[0][1]
    pair = [
        before.hook(RELEASE, kind, (SYSTEM, RELEASE), failurePolicy="Ignore")
        for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
    ]
    cluster.apply(*pair)
    assert "mutatingwebhookconfiguration afr has no CA" in found(kube, "webhooks")[0][1]
    ca = certs.Authority.make(tmp_path / "ca", ["x"]).ca_file.read_bytes()
    for each in pair:
        each["webhooks"][0]["clientConfig"]["caBundle"] = base64.b64encode(ca).decode()
    cluster.apply(*pair)
    assert [level for level, _ in found(kube, "webhooks")] == ["ok", "ok"]


def test_a_ca_that_expires_is_said_in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setattr(afterwards, "_EXPIRES_SOON_SECONDS", 3_600)
    pem = certs.Authority.make(tmp_path / "ca", ["x"]).ca_file.read_text()
    assert afterwards._certified("it", pem).level is diagnosis.Level.OK
    monkeypatch.setattr(
        afterwards.time, "time", lambda: dt.datetime.now(dt.UTC).timestamp() + 50 * 365 * 86_400
    )
    assert "the CA in it has expired" in afterwards._certified("it", pem).line()
    assert "cannot be read" in afterwards._certified("it", "-----BEGIN CERTIFICATE-----\nx").line()


def test_settings_that_are_not_in_force_are_told_with_their_line(
    cluster: apiserver.Cluster, kube: kubectl.Kubectl
) -> None:
    metadata = {"name": "afr-settings", "namespace": SYSTEM}
    whole = "apiVersion: outrider.dev/v1alpha1\nkind: Settings\n"
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": {"settings.yaml": f"{whole}curency: EUR\n"},
    }
    cluster.apply(config)
    [(level, line)] = found(kube, "settings")
    assert level == "bad"
    assert "curency" in line
    cluster.apply({**config, "data": {"settings.yaml": whole}})
    assert found(kube, "settings") == [("ok", "the settings can be read")]


def test_replicas_are_counted_by_those_that_are_ready(
    cluster: apiserver.Cluster, kube: kubectl.Kubectl
) -> None:
    lines = found(kube, "replicas")
    assert [level for level, _ in lines] == ["bad", "note"]
    assert "no operator is ready: there is no pod of it" in lines[0][1]
    assert lines[1][1].startswith("there is no prober")
    cluster.service_account(SYSTEM, "default")
    for component, index in (("operator", 0), ("operator", 1), ("prober", 0)):
        pod(
            cluster,
            SYSTEM,
            f"{component}-{index}",
            {"app.kubernetes.io/name": "outrider", "app.kubernetes.io/component": component},
        )
    ready(cluster, "operator-0")
    lines = found(kube, "replicas")
    assert lines[0][0] == "note"
    assert "1 of 2 pods of the operator ready: operator-1 is not ready" in lines[0][1]
    assert lines[1][0] == "bad"
    for name in ("operator-1", "prober-0"):
        ready(cluster, name)
    assert [level for level, _ in found(kube, "replicas")] == ["ok", "ok"]


def pod(cluster: apiserver.Cluster, namespace: str, name: str, labels: dict[str, str]) -> None:
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    spec = {"containers": [{"name": "c", "image": "c:1"}]}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


def ready(cluster: apiserver.Cluster, name: str) -> None:
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    patch = json.dumps({"status": status})
    cluster.kubectl("patch", "pod", name, "-n", SYSTEM, "--subresource=status", "--type=merge", "-p", patch)


@pytest.mark.parametrize(
    ("holder", "age", "said"),
    [
        ("outrider-0/10.0.0.1:8443", 1, ("ok", "outrider-0 leads")),
        ("outrider-0/10.0.0.1:8443", 600, ("bad", "outrider-0 leads and has not said so for 60")),
        ("", 1, ("bad", "nobody leads")),
    ],
)
def test_a_leader_says_so_again_and_again(
    cluster: apiserver.Cluster, kube: kubectl.Kubectl, holder: str, age: int, said: tuple[str, str]
) -> None:
    renewed = (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=age)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed}
    metadata = {"name": RELEASE, "namespace": SYSTEM}
    cluster.apply(
        {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
    )
    [(seen, line)] = found(kube, "leader")
    assert (seen, said[1] in line) == (said[0], True), line


def test_without_a_lease_nobody_has_ever_led(cluster: apiserver.Cluster) -> None:
    [(level, line)] = found(before.at(cluster.kubeconfig, SYSTEM, "never"), "leader")
    assert (level, "no operator has ever led" in line) == ("bad", True)


def test_objects_are_named_by_what_is_not_true_of_them(own_cluster: apiserver.Cluster) -> None:
    kube = before.at(own_cluster.kubeconfig)
    own_cluster.install_crds()
    assert found(kube, "objects")[0][0] == "note"
    own_cluster.namespace("crm")
    own_cluster.apply(asked.server("crm", "a"), asked.server("crm", "b"), asked.server("crm", "c"))
    [(level, line)] = found(kube, "objects")
    assert (level, "nobody has looked at MCPServer crm/a, MCPServer crm/b" in line) == ("bad", True)
    say(own_cluster, "a", Ready=("True", "Ready"), Programmed=("True", "Programmed"))
    say(
        own_cluster,
        "b",
        Ready=("False", "Programmed"),
        Programmed=("False", "Rejected"),
        Reachable=("False", "Unreachable"),
    )
    say(own_cluster, "c", Accepted=("True", "Frozen"), Ready=("True", "Ready"))
    lines = found(kube, "objects")
    assert (
        "bad",
        "Programmed is not true (Rejected) of MCPServer crm/b. Next: kubectl describe mcpservers.outrider.dev -n crm b",
    ) in lines
    assert any(level == "note" and "Reachable is not true (Unreachable)" in line for level, line in lines)
    assert any(
        level == "bad" and "frozen on what it knew of MCPServer crm/c" in line for level, line in lines
    )
    for name in ("b", "c"):
        say(
            own_cluster,
            name,
            Ready=("True", "Ready"),
            Programmed=("True", "Programmed"),
            Accepted=("True", "Accepted"),
            Reachable=("True", "Reachable"),
        )
    assert found(kube, "objects") == [("ok", "3 objects are in force")]
    own_cluster.apply(asked.policy("crm", asked.allow("query"), name="p", server="a"))
    say(own_cluster, "p", short="orpol", Ready=("True", "Ready"), Enforceable=("False", "NeverMatches"))
    [(_, line)] = found(kube, "objects")
    assert line.endswith("Next: kubectl describe mcptoolpolicies.outrider.dev -n crm p")


def say(
    cluster: apiserver.Cluster, name: str, *, short: str = "orsrv", **conditions: tuple[str, str]
) -> None:
    when = "2026-01-01T00:00:00Z"
    made: list[dict[str, Any]] = [
        {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": "",
            "lastTransitionTime": when,
            "observedGeneration": 1,
        }
        for kind, (status, reason) in conditions.items()
    ]
    patch = json.dumps({"status": {"conditions": made}})
    cluster.kubectl("patch", short, name, "-n", "crm", "--subresource=status", "--type=merge", "-p", patch)


def test_pods_that_are_older_than_the_opt_in_are_found(own_cluster: apiserver.Cluster) -> None:
    kube = before.at(own_cluster.kubeconfig)
    [(level, line)] = found(kube, "injection")
    assert (level, "no namespace has opted in" in line) == ("note", True)
    own_cluster.namespace("agents", **{"outrider.dev__injection": "enabled"})
    own_cluster.service_account("agents", "default")
    pod(own_cluster, "agents", "out", {"outrider.dev/inject": "disabled"})
    pod(own_cluster, "agents", "in", {"outrider.dev/injected": "true"})
    assert found(kube, "injection")[0][0] == "ok"
    pod(own_cluster, "agents", "late", {})
    [(level, line)] = found(kube, "injection")
    assert level == "bad"
    assert "pods without a sidecar: 1, in agents" in line
    assert "kubectl rollout restart deployment,statefulset,daemonset -n agents" in line


def test_what_sidecars_enforce_is_unseen_when_the_operator_cannot_be_asked(kube: kubectl.Kubectl) -> None:
    [(level, line)] = found(kube, "sidecars")
    assert level == "unseen"
    assert line.startswith("what sidecars enforce could not be asked")
