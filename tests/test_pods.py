# SPDX-License-Identifier: Apache-2.0
"""Of a pod is kept what is needed, and nothing that could be a secret."""

from __future__ import annotations

from outrider_operator import pods

RAW = {
    "metadata": {
        "name": "a", "namespace": "agents", "uid": "u", "resourceVersion": "7", "labels": {"x": "y"}, "annotations": {"k": "v"},
    },
    "spec": {
        "serviceAccountName": "bot", "nodeName": "n1", "containers": [{"name": "agent", "env": [{"name": "KEY", "value": "s3cret"}]}],
        "initContainers": [{"name": "setup", "image": "i"}, {"name": "outrider", "image": "o:1", "env": [{"name": "T", "value": "s3cret"}]}],
    },
    "status": {"phase": "Running", "podIP": "10.0.0.1"},
}  # fmt: skip


def test_a_pod_is_trimmed_to_what_is_read() -> None:
    trimmed = pods.trim(RAW)
    assert "s3cret" not in str(trimmed)
    assert pods.trim(trimmed) == trimmed
    made = pods.pod(trimmed)
    assert made == pods.Pod("u", "agents", "a", "bot", phase="Running", image="o:1", node="n1")
    assert (made.subject, made.running, str(made)) == (("agents", "bot"), True, "agents/a")


def test_a_pod_that_is_going_or_not_there_yet_does_not_run() -> None:
    going = RAW | {"metadata": RAW["metadata"] | {"deletionTimestamp": "2026-01-01T00:00:00Z"}}
    assert not pods.pod(pods.trim(going)).running
    assert not pods.pod(pods.trim(RAW | {"status": {"phase": "Pending"}})).running


def test_a_pod_of_which_little_is_said_is_a_pod_all_the_same() -> None:
    made = pods.pod(pods.trim({"metadata": {"name": "a", "namespace": "b"}}))
    assert (made.service_account, made.image, made.running) == ("default", "", False)


def test_what_injection_wrote_and_who_makes_the_pod_is_kept_and_no_more_of_either() -> None:
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "u-j", "controller": True}
    others = [{"kind": "Other", "name": "o"}, {**owner, "blockOwnerDeletion": True}]
    about = {
        "name": "a",
        "namespace": "b",
        "ownerReferences": others,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    notes = {"outrider.dev/status": "{}", "outrider.dev/ca": "PEM"}
    kept = pods.trim({"metadata": {**about, "annotations": notes}})
    assert kept["metadata"] == {
        **about,
        "ownerReferences": [owner],
        "annotations": {"outrider.dev/status": "{}"},
    }
    assert pods.trim(kept) == kept
    again = pods.trim({"metadata": {**about, "annotations": {"outrider.dev/status": "x" * 8_193}}})
    assert "annotations" not in again["metadata"]
