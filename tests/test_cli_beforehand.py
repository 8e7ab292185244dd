# SPDX-License-Identifier: Apache-2.0
"""`outrider doctor --pre` on a real API server: what would get in the way of an installation is found before it."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from tests.kube import apiserver, asked

from outrider.resources import kinds
from outrider_cli import beforehand, diagnosis, kubectl

SYSTEM = "bf-system"


@pytest.fixture(autouse=True)
def _node(tmp_path: pathlib.Path) -> Iterator[None]:
    with asked.kubectl_on_path(tmp_path / "bin"):
        yield


def at(file: object, namespace: str = SYSTEM, release: str = "bfr") -> kubectl.Kubectl:
    return kubectl.Kubectl(kubectl.Site(kubeconfig=str(file), system_namespace=namespace, release=release))


def found(kube: kubectl.Kubectl, name: str) -> list[tuple[str, str]]:
    """(level, line) of one check."""
    checks = [(each, check) for each, check in beforehand.CHECKS if each == name]
    return [(each.level.value, each.line()) for each in diagnosis.gone_through(kube, checks)]


def hook(name: str, kind: str, service: tuple[str, str], **more: Any) -> dict[str, Any]:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    made = {
        "name": f"{name}.example.com", "clientConfig": {"service": {"namespace": service[0], "name": service[1]}}, "rules": [rule],
        "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail",
        # It must keep nobody else's pods of this API server from being made.
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "bf-nowhere"}}, **more,
    }  # fmt: skip
    return {
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "webhooks": [made],
    }  # fmt: skip


def test_the_version_is_new_enough(cluster: apiserver.Cluster) -> None:
    [(level, line)] = found(at(cluster.kubeconfig), "version")
    assert level == "ok"
    assert line.startswith("Kubernetes v1.36")


@pytest.mark.parametrize(
    ("said", "level", "words"),
    [
        ("v1.31.9", "bad", "is too old: native sidecars"),
        ("v1.32.0-eks-1", "ok", "v1.32.0"),
        ("odd", "note", "not understood"),
    ],
)
def test_a_version_is_held_against_what_is_needed(
    monkeypatch: pytest.MonkeyPatch, said: str, level: str, words: str
) -> None:
    kube = at("none")
    monkeypatch.setattr(kube, "raw", lambda path, what: {"gitVersion": said})
    [(seen, line)] = found(kube, "version")
    assert seen == level
    assert words in line


def test_who_may_not_install_is_told_what_is_missing(cluster: apiserver.Cluster) -> None:
    assert found(at(cluster.kubeconfig), "rights") == [("ok", "you may install the chart")]
    cluster.namespace(SYSTEM)
    cluster.service_account(SYSTEM, "nobody")
    stranger = at(cluster.kubeconfig_token(cluster.token(SYSTEM, "nobody", cluster.audience)))
    [(level, line)] = found(stranger, "rights")
    assert level == "bad"
    assert "clusterroles.rbac.authorization.k8s.io" in line
    assert line.endswith("Next: install as a cluster administrator")


def test_other_peoples_kinds_of_the_same_name_are_named(cluster: apiserver.Cluster) -> None:
    cluster.install_crds()
    foreign = {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "mcpservers.kagent.example"},
        "spec": {
            "group": "kagent.example", "scope": "Namespaced", "names": {"kind": "MCPServer", "plural": "mcpservers"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    }  # fmt: skip
    cluster.apply(foreign)
    try:
        [(level, line)] = found(at(cluster.kubeconfig), "kinds")
        assert level == "note"
        assert "of kagent.example" in line
        assert "write mcpservers.outrider.dev (or orsrv)" in line
    finally:
        cluster.kubectl("delete", "crd", "mcpservers.kagent.example", "--wait=false")


def test_kinds_of_a_newer_version_are_not_gone_back_behind(
    monkeypatch: pytest.MonkeyPatch, cluster: apiserver.Cluster
) -> None:
    cluster.install_crds()
    monkeypatch.setattr(kinds, "REVISION", kinds.REVISION - 1)
    lines = found(at(cluster.kubeconfig), "kinds")
    assert lines[0][0] == "bad"
    assert "newer than this outrider's" in lines[0][1]


def test_the_namespace_is_looked_at(cluster: apiserver.Cluster) -> None:
    [(level, line)] = found(at(cluster.kubeconfig, "bf-none"), "namespace")
    assert (level, "is not there yet" in line) == ("ok", True)
    cluster.namespace("bf-restricted", **{"pod-security.kubernetes.io__enforce": "restricted"})
    [(level, line)] = found(at(cluster.kubeconfig, "bf-restricted"), "namespace")
    assert (level, "Pod Security restricted, which our pods pass" in line) == ("ok", True)
    cluster.namespace("bf-ending")
    cluster.kubectl("delete", "namespace", "bf-ending", "--wait=false")
    [(level, line)] = found(at(cluster.kubeconfig, "bf-ending"), "namespace")
    assert (level, "is being deleted" in line) == ("bad", True)


def test_a_webhook_whose_service_is_gone_keeps_pods_from_being_made(cluster: apiserver.Cluster) -> None:
    cluster.apply(hook("bf-orphan", "ValidatingWebhookConfiguration", ("bf-none", "gone")))
    try:
        lines = found(at(cluster.kubeconfig), "webhooks")
        [line] = [text for level, text in lines if level == "bad" and "bf-orphan" in text]
        assert "its Service bf-none/gone is not there, and it fails closed" in line
        assert "kubectl delete validatingwebhookconfiguration bf-orphan" in line
    finally:
        cluster.kubectl("delete", "validatingwebhookconfiguration", "bf-orphan")


def test_one_that_fails_open_or_is_about_something_else_is_nobodys_business(
    cluster: apiserver.Cluster,
) -> None:
    other = {
        "apiGroups": ["apps"],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["deployments"],
    }
    cluster.apply(
        hook("bf-open", "MutatingWebhookConfiguration", ("bf-none", "gone"), failurePolicy="Ignore"),
        hook("bf-other", "MutatingWebhookConfiguration", ("bf-none", "gone"), rules=[other]),
    )
    try:
        lines = [text for _, text in found(at(cluster.kubeconfig), "webhooks")]
        assert not any("bf-open" in text or "bf-other" in text for text in lines)
    finally:
        cluster.kubectl("delete", "mutatingwebhookconfiguration", "bf-open", "bf-other")


def test_an_installation_elsewhere_is_found(cluster: apiserver.Cluster) -> None:
    cluster.apply(
        hook("bf-here", "MutatingWebhookConfiguration", ("bf-elsewhere", "bf-here"), failurePolicy="Ignore")
    )
    try:
        lines = found(at(cluster.kubeconfig, release="bf-here"), "webhooks")
        [line] = [text for level, text in lines if level == "bad" and "bf-here" in text]
        assert "an installation named bf-here is in namespace bf-elsewhere already" in line
    finally:
        cluster.kubectl("delete", "mutatingwebhookconfiguration", "bf-here")


def test_a_cluster_with_nothing_of_ours_is_well(own_cluster: apiserver.Cluster) -> None:
    ran = asked.outrider("doctor", "--pre", "--kubeconfig", own_cluster.kubeconfig)
    assert ran.exit_code == 0, ran.output
    assert [line.split()[:2] for line in ran.stdout.splitlines()] == [
        ["ok", name] for name, _ in beforehand.CHECKS
    ]
    assert "5 results, nothing bad." in ran.stderr


@pytest.mark.parametrize(
    ("text", "level", "words"),
    [
        ("", "ok", "can be used"),
        ("operator: {replicas: 2}", "ok", "can be used"),
        ("settings:\n  vault: {address: 'https://vault.example'}", "ok", "can be used"),
        ("settings:\n  vault: {adress: 'https://vault.example'}", "bad", "adress"),
        ("settings:\n  vault: {address: 'http://vault.example'}", "bad", "https"),
        ("settings:\n  identityProviders: [{name: okta}]", "bad", "issuer"),
        ("settings: 5", "bad", "is no object"),
        ("settings: {a: [", "bad", "cannot be read"),
    ],
)
def test_the_settings_in_values_are_looked_at_before_they_are_installed(
    text: str, level: str, words: str, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(text)
    found = list(beforehand.values(file)(at("/nowhere")))
    assert found[0].level.value == level
    assert any(words in each.line() for each in found), found


def test_what_is_wrong_in_values_is_placed_in_that_file(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "values-prod.yaml"
    text = "# ours\nsettings:\n  currency: euro\n  identityProviders: [{name: okta, issuer: 'http://okta.example', audience: o, jwksUri: 'https://o/k'}]\n"
    file.write_text(text)
    found = [each.line() for each in beforehand.values(file)(at("/nowhere"))]
    assert f"{file}: settings.currency: must be" in found[0]
    assert f"{file}: settings.identityProviders[0].issuer: must be an https URL" in found[1]
    assert "settings.yaml" not in " ".join(found)


def test_values_that_are_not_there_are_said(tmp_path: pathlib.Path) -> None:
    [found] = beforehand.values(tmp_path / "none.yaml")(at("/nowhere"))
    assert "cannot be read" in found.line()
