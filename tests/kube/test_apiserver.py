# SPDX-License-Identifier: Apache-2.0
"""The cluster that tests use is a real one: it knows its version, its tokens, its administrators, and comes back from a backup."""

from __future__ import annotations

import json


def test_it_is_kubernetes_and_says_which(cluster) -> None:
    assert (
        json.loads(cluster.kubectl("version", "-o", "json").stdout)["serverVersion"]["gitVersion"]
        == "v1.36.4"
    )


def test_a_token_is_bound_to_its_pod_and_audience(cluster) -> None:
    namespace = cluster.namespace("tokens")
    cluster.service_account(namespace, "bot")
    spec = {"serviceAccountName": "bot", "containers": [{"name": "a", "image": "a:1"}]}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": namespace}, "spec": spec}
    )
    pod = cluster.get("pod", "p", namespace)
    token = cluster.token(namespace, "bot", "config.outrider.dev", pod=pod)
    review = {
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": token, "audiences": ["config.outrider.dev"]},
    }  # fmt: skip
    made = cluster.kubectl("create", "-f", "-", "-o", "json", input=json.dumps(review)).stdout
    user = json.loads(made)["status"]["user"]
    assert user["username"] == "system:serviceaccount:tokens:bot"
    assert user["extra"]["authentication.kubernetes.io/pod-uid"] == [pod["metadata"]["uid"]]


def test_a_person_without_rights_is_refused(cluster) -> None:
    ran = cluster.kubectl("get", "pods", check=False, kubeconfig=cluster.kubeconfig_for("nobody"))
    assert ran.returncode == 1
    assert 'User "nobody" cannot list resource "pods"' in ran.stderr


def test_it_comes_back_as_it_was_at_a_backup(own_cluster) -> None:
    own_cluster.namespace("before")
    backup = own_cluster.save_etcd()
    own_cluster.namespace("after")
    own_cluster.restore_etcd(backup)
    found = own_cluster.kubectl("get", "ns", "-o", "name").stdout
    assert "namespace/before" in found
    assert "namespace/after" not in found


def test_what_was_asked_is_in_its_audit_log(cluster) -> None:
    cluster.kubectl("get", "nodes")
    found = [each for each in cluster.audit_log() if each.get("objectRef", {}).get("resource") == "nodes"]
    assert found[-1]["verb"] == "list"
    assert found[-1]["user"]["username"] == "admin"
