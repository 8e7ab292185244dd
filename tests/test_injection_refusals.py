# SPDX-License-Identifier: Apache-2.0
"""Pods beside which the proxy would protect nothing are refused with what to do."""

from __future__ import annotations

import time
from typing import Any

import pytest
from tests import pods

from outrider import injection
from outrider.podnotes import Annotation


def _with(**context: Any) -> dict[str, Any]:
    return pods.pod(pods.container(securityContext=context))


def _token(audience: str) -> dict[str, Any]:
    source = {"serviceAccountToken": {"audience": audience, "path": "t"}}
    return {"name": "mine", "projected": {"sources": [source]}}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (pods.pod(hostNetwork=True), "remove hostNetwork"),
        (pods.pod(hostPID=True), "remove hostPID"),
        (pods.pod(shareProcessNamespace=True), "remove shareProcessNamespace"),
        (_with(privileged=True), "container agent is privileged"),
        (_with(capabilities={"add": ["SYS_PTRACE"]}), "has the capability SYS_PTRACE"),
        (_with(capabilities={"add": ["CAP_SYS_PTRACE"]}), "has the capability CAP_SYS_PTRACE"),
        (_with(capabilities={"add": ["ALL"]}), "has the capability ALL"),
        *(
            (_with(capabilities={"add": ["CHOWN", word]}), f"has the capability {word}")
            for word in ("SYS_ADMIN", "SYS_MODULE", "BPF", "PERFMON", "DAC_READ_SEARCH", "CAP_SYS_ADMIN", "cap_bpf")
        ),
        (pods.pod(initContainers=[pods.container("i", securityContext={"privileged": True})]), "container i is"),
        (_with(runAsUser=64150), "runs as uid 64150, which is the proxy's"),
        (pods.pod(securityContext={"runAsUser": 64150}), "runs as uid 64150"),
        (pods.pod(pods.container("outrider")), "rename it"),
        (pods.pod(pods.container(ports=[{"containerPort": 15100}])), "annotation outrider.dev/listen-port"),
        (pods.pod(pods.container(ports=[{"containerPort": 15101}])), "give the container another"),
        (
            pods.pod(pods.container(volumeMounts=[{"name": "outrider-tokens", "mountPath": "/t"}])),
            "mounts outrider-tokens, which only the proxy may",
        ),
        (
            pods.pod(pods.container(volumeMounts=[{"name": "data", "mountPath": "/etc/outrider/"}])),
            "mount it elsewhere",
        ),
        *(
            (pods.pod(volumes=[{"name": "all", "hostPath": {"path": path}}]), "mount a narrower folder")
            for path in (
                "/", "/var/lib/kubelet/pods/x", "//var/lib/", "/proc/1", "/./", "/.", "/./var", "/var/./lib/.", "/.//proc/./1",
            )
        ),
        (pods.pod(volumes=[_token("config.outrider.dev")]), "projects a token for config.outrider.dev"),
        (pods.pod(volumes=[_token("vault.outrider.dev")]), "projects a token for vault.outrider.dev"),
        (pods.pod(volumes=[_token("exchange.outrider.dev")]), "projects a token for exchange.outrider.dev"),
        (
            pods.pod(pods.container(volumeMounts=[{"name": "outrider-secret-3", "mountPath": "/s"}])),
            "mounts outrider-secret-3, which only the proxy may",
        ),
        (pods.pod(notes={Annotation.SECRETS: "salesforce"}), "write SERVER-NAMESPACE/SERVER=SECRET"),
        (pods.pod(pods.container(), pods.container("istio-proxy")), "native sidecar"),
        (pods.pod(notes={Annotation.SIDECAR_IMAGE: "evil:1"}), f"settings allow {pods.IMAGE}"),
        (pods.pod(notes={Annotation.LOG_LEVEL: "loud"}), "one of debug"),
    ],
)  # fmt: skip
def test_it_is_refused_with_the_remedy(given: dict[str, Any], words: str) -> None:
    assert words in pods.refusal(given)


def test_a_service_account_that_may_create_tokens_is_refused_by_name() -> None:
    text = pods.refusal(pods.pod(), injection.Facts(pods.CA, may_mint=True))
    assert "ServiceAccount agent may create tokens" in text


def test_without_an_image_nothing_is_injected_and_the_setting_is_named() -> None:
    assert "injection.image" in pods.refusal(pods.pod(), image="")


@pytest.mark.parametrize(
    "given",
    [
        _with(capabilities={"add": ["NET_BIND_SERVICE", "NET_RAW", "NET_ADMIN"], "drop": ["ALL"]}),
        _with(runAsUser=65532),
        pods.pod(volumes=[_token("api.corp.example")]),
        pods.pod(hostNetwork=False, hostPID=False, shareProcessNamespace=False),
        pods.pod(
            volumes=[{"name": "logs", "hostPath": {"path": "/var/log"}}, {"name": "data", "hostPath": {}}]
        ),
        pods.pod(automountServiceAccountToken=False),
        pods.pod(pods.container(ports=[{"containerPort": 8080}], livenessProbe={"httpGet": {"port": 8080}})),
        pods.pod(pods.container(volumeMounts=[{"name": "data", "mountPath": "/etc/outrider.d"}])),
        pods.pod(pods.container(volumeMounts=[{"name": "outrider-secret-config", "mountPath": "/c"}])),
    ],
)
def test_ordinary_pods_are_not_refused(given: dict[str, Any]) -> None:
    assert pods.injected(given)


def test_where_openshift_gives_uids_none_is_ours() -> None:
    assert pods.injected(_with(runAsUser=64150), openshift=True)


def test_a_path_of_slashes_alone_does_not_hold_up_everybodys_pods() -> None:
    """The loop of admission is one for all: 100,000 of them took 45 s."""
    began = time.process_time()
    for path in ("/" * 100_000 + "x", "/." * 100_000 + "x", "/proc" + "/" * 100_000 + "\n"):
        injection.inject(
            pods.pod(volumes=[{"name": "x", "hostPath": {"path": path}}]), pods.FACTS, pods.options()
        )
    assert time.process_time() - began < 1
