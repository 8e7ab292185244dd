# SPDX-License-Identifier: Apache-2.0
"""The CA by which the operator is believed: from the webhook configuration, from an injected pod, or from a file; never none."""

from __future__ import annotations

import base64
import pathlib
from collections.abc import Iterator

import pytest
from tests import laptop
from tests.kube import apiserver, asked

from outrider_cli import kubectl, output, trusted

CA = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"


@pytest.fixture(autouse=True)
def _node(tmp_path: pathlib.Path) -> Iterator[None]:
    with asked.kubectl_on_path(tmp_path / "bin"):
        yield


def at(file: object, release: str) -> kubectl.Kubectl:
    return kubectl.Kubectl(kubectl.Site(kubeconfig=str(file), release=release))


def webhooks(release: str, bundle: str) -> dict[str, object]:
    rule = {
        "apiGroups": ["none.example"],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["none"],
    }
    client = {
        "service": {"namespace": "x", "name": release},
        "caBundle": base64.b64encode(bundle.encode()).decode(),
    }
    hook = {
        "name": "a.outrider.dev", "clientConfig": client, "rules": [rule], "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "failurePolicy": "Ignore",
    }  # fmt: skip
    return {
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": release}, "webhooks": [hook],
    }  # fmt: skip


def test_the_ca_is_that_of_the_webhook(cluster: apiserver.Cluster) -> None:
    cluster.apply(webhooks("tr-one", cluster.ca_pem))
    assert trusted.authorities(at(cluster.kubeconfig, "tr-one"), None).strip() == cluster.ca_pem.strip()


def test_whoever_may_not_see_webhooks_finds_it_in_an_injected_pod(cluster: apiserver.Cluster) -> None:
    cluster.namespace("tr-pods")
    cluster.service_account("tr-pods", "reader")
    reader = at(cluster.kubeconfig_token(cluster.token("tr-pods", "reader", cluster.audience)), "tr-two")
    with pytest.raises(output.Stop, match="the CA of the operator cannot be read") as caught:
        trusted.authorities(reader, None)
    assert "cannot get resource" in caught.value.message
    assert "--ca-file" in caught.value.then
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "tr-reader"},
    }
    cluster.apply({**role, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]})
    account = {"kind": "ServiceAccount", "name": "reader", "namespace": "tr-pods"}
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "tr-reader"}
    cluster.apply({**role, "kind": "ClusterRoleBinding", "roleRef": ref, "subjects": [account]})
    cluster.service_account("tr-pods", "default")
    metadata = {
        "name": "agent", "namespace": "tr-pods", "labels": {"outrider.dev/injected": "true"},
        "annotations": {"outrider.dev/ca": CA},
    }  # fmt: skip
    spec = {"containers": [{"name": "agent", "image": "agent:1"}]}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    def found() -> str:
        """What the API server has just been told about rights it knows a moment later."""
        try:
            return trusted.authorities(reader, None)
        except output.Stop:
            return ""

    try:
        assert "BEGIN CERTIFICATE" in laptop.until(found, "the CA is found in the pod", 30)
    finally:
        cluster.kubectl("delete", "pod", "agent", "-n", "tr-pods", "--grace-period=0", "--force")


def test_a_file_is_believed_when_it_holds_one(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(CA)
    assert trusted.authorities(at("none", "x"), str(file)) == CA
    for content in ("nothing of the kind", None):
        file.write_text(content) if content else file.unlink()
        with pytest.raises(output.Stop) as caught:
            trusted.authorities(at("none", "x"), str(file))
        assert caught.value.exit_code == output.USAGE


@pytest.mark.parametrize(
    "bundle", ["", "!!!", base64.b64encode(b"no PEM").decode(), base64.b64encode(b"\xff").decode()]
)
def test_a_configuration_without_a_usable_ca_has_none(bundle: str) -> None:
    assert trusted.of_webhook({"webhooks": [{"clientConfig": {"caBundle": bundle}}]}) == ""
    assert trusted.of_webhook({}) == ""
