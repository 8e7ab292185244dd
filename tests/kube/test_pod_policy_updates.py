# SPDX-License-Identifier: Apache-2.0
"""What may be changed of a pod that has the sidecar, and of one that has none; ephemeral containers beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests import pods
from tests.kube import apiserver, policed

from outrider.podnotes import Annotation


@pytest.fixture(scope="module")
def place(cluster: apiserver.Cluster) -> Iterator[policed.Place]:
    yield from policed.place(cluster)


def metadata(**more: Any) -> dict[str, Any]:
    return {"metadata": more}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (metadata(labels={"outrider.dev/injected": None}), "leave it as it is"),
        (metadata(labels={"outrider.dev/injected": "false"}), "leave it as it is"),
        (metadata(annotations={"outrider.dev/ca": "forged"}), "leave them as they are"),
        (metadata(annotations={"outrider.dev/status": "{}"}), "leave them as they are"),
        (
            {"spec": {"initContainers": [{"name": "outrider", "image": "evil:1"}]}},
            "can only be changed to one that this installation allows",
        ),
    ],
)
def test_an_update_does_not_take_the_sidecar_out_of_sight_or_out_of_force(
    place: policed.Place, change: dict[str, Any], words: str
) -> None:
    name = place.running(pods.injected(pods.pod()))
    assert words in place.patch(name, change)


def test_an_injected_pod_is_still_anybodys_to_label_and_to_delete(place: policed.Place) -> None:
    name = place.running(pods.injected(pods.pod()))
    assert place.patch(name, metadata(labels={"team": "a", "outrider.dev/inject": "disabled"})) == ""
    assert place.patch(name, metadata(annotations={"seen": "yes"}, finalizers=["example.com/x"])) == ""
    assert place.patch(name, {"spec": {"containers": [{"name": "agent", "image": "agent:2"}]}}) == ""
    assert (
        place.patch(name, {"spec": {"initContainers": [{"name": "outrider", "image": policed.OLD_IMAGE}]}})
        == ""
    )
    status = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    assert place.patch(name, status, "--subresource=status") == ""
    place.cluster.kubectl("delete", "pod", name, "-n", place.enabled, "--wait=false")
    assert place.patch(name, metadata(finalizers=None)) == ""


def test_a_pod_injected_by_an_older_release_is_not_measured_by_a_newer_one(place: policed.Place) -> None:
    """Its image is no longer among the allowed ones and its arguments may be others; it goes on as it is."""
    old = pods.injected(pods.pod())
    pods.ours(old)["image"] = "outrider-sidecar:ancient"
    name = place.elsewhere(old)
    assert place.patch(name, metadata(labels={"team": "a"})) == ""


def test_a_pod_that_was_there_before_its_namespace_opted_in_goes_on(place: policed.Place) -> None:
    late = place.cluster.namespace("policy-late", **{"outrider-test": "pod-policy"})
    name = place.running(pods.pod(), late)
    place.cluster.kubectl("label", "namespace", late, "outrider.dev/injection=enabled")
    for _ in range(100):  # the API server's own watch of namespaces takes a moment to bring the label in
        if place.create(pods.pod(), late):
            break
    assert place.patch(name, metadata(labels={"team": "a"}), namespace=late) == ""
    said = place.patch(name, metadata(labels={"outrider.dev/injected": "true"}), namespace=late)
    assert "is written when a pod is created" in said


def debug(place: policed.Place, name: str, namespace: str = "", **more: Any) -> str:
    """What is said against an ephemeral container, which `kubectl debug` would add the same way."""
    change = {"spec": {"ephemeralContainers": [{"name": "debug", "image": "busybox", **more}]}}
    return place.patch(name, change, "--subresource=ephemeralcontainers", namespace=namespace)


def test_an_ephemeral_container_beside_an_open_sidecar_is_refused_with_what_to_do(
    place: policed.Place,
) -> None:
    said = debug(place, place.running(pods.injected(pods.pod())))
    assert "asks no token (local-auth Open)" in said
    assert "outrider.dev/local-auth to Token" in said


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"targetContainerName": "outrider"}, "targets the sidecar"),
        (
            {"volumeMounts": [{"name": "outrider-tokens", "mountPath": "/t"}]},
            "mounts a volume that is the sidecar's",
        ),
        (
            {"volumeMounts": [{"name": "outrider-secret-0", "mountPath": "/t", "readOnly": True}]},
            "mounts a volume that is the sidecar's",
        ),
        ({"volumeMounts": [{"name": "outrider-agent", "mountPath": "/t"}]}, "with readOnly: true"),
        ({"securityContext": {"privileged": True}}, "is privileged"),
        ({"securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}}, "SYS_PTRACE"),
        ({"securityContext": {"runAsUser": 64150}}, "runs as uid 64150"),
    ],
)
def test_an_ephemeral_container_reaches_nothing_of_ours(
    place: policed.Place, more: dict[str, Any], words: str
) -> None:
    notes = {Annotation.LOCAL_AUTH: "Token", Annotation.SECRETS: "crm/salesforce=chosen"}
    name = place.running(pods.injected(pods.pod(notes=notes)))
    assert words in debug(place, name, **more)


def test_an_ephemeral_container_that_needs_a_token_like_everybody_may_help(place: policed.Place) -> None:
    name = place.running(pods.injected(pods.pod(notes={Annotation.LOCAL_AUTH: "Token"})))
    assert debug(place, name, targetContainerName="agent") == ""
    stranger = place.running(pods.pod(), place.silent)
    assert debug(place, stranger, place.silent, securityContext={"privileged": True}) == ""


def test_the_policy_has_no_warnings_of_its_own(place: policed.Place) -> None:
    """What the API server says of its expressions when it takes it: errors would refuse every pod there is."""
    found = place.cluster.get("validatingadmissionpolicy", policed.NAME)
    assert json.dumps(found.get("status", {})).count("warning") == 0
