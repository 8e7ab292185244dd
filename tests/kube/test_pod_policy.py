# SPDX-License-Identifier: Apache-2.0
"""No webhook is here at all: the API server alone keeps what is not Outrider's sidecar out, and lets everything else pass.

Each way round the webhook that control-plane.md names, and those found since, is a test. Pods come from `outrider.injection`, which
writes what the webhook would, and are then bent.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests import pods
from tests.kube import apiserver, policed

from outrider.injection import refusals
from outrider.podnotes import Annotation

Pod = dict[str, Any]
Bend = Callable[[Pod], object]


@pytest.fixture(scope="module")
def place(cluster: apiserver.Cluster) -> Iterator[policed.Place]:
    yield from policed.place(cluster)


def bent(bend: Bend, given: Pod | None = None, **options: Any) -> Pod:
    made = copy.deepcopy(pods.injected(given or pods.pod(), **options))
    bend(made)
    return made


def other(made: Pod) -> Pod:
    found: Pod = made["spec"]["containers"][0]
    return found


def volume(made: Pod, name: str) -> Pod:
    found: Pod = next(each for each in made["spec"]["volumes"] if each["name"] == name)
    return found


def into_ours(**more: Any) -> Bend:
    return lambda made: pods.ours(made).update(more)


def into_other(**more: Any) -> Bend:
    return lambda made: other(made).update(more)


def into_spec(**more: Any) -> Bend:
    return lambda made: made["spec"].update(more)


def argument(old: str, new: str) -> Bend:
    def bend(made: Pod) -> None:
        ours = pods.ours(made)
        assert old in ours["args"]
        ours["args"] = [new if each == old else each for each in ours["args"]]

    return bend


def projecting(audience: str) -> dict[str, Any]:
    source = {"serviceAccountToken": {"audience": audience, "path": "t", "expirationSeconds": 600}}
    return {"name": "mine", "projected": {"sources": [source]}}


def with_volume(made_of: dict[str, Any]) -> Bend:
    return lambda made: made["spec"]["volumes"].append(made_of)


def instead(name: str, **source: Any) -> Bend:
    def bend(made: Pod) -> None:
        found = volume(made, name)
        found.clear()
        found.update({"name": name, **source})

    return bend


def test_a_pod_that_opted_in_and_was_not_injected_is_refused_with_what_to_do(place: policed.Place) -> None:
    said = place.create(pods.pod())
    assert "has no sidecar: the webhook did not see it" in said
    assert "kubectl get pods -n outrider-system" in said


WAYS_ROUND: dict[str, tuple[Bend, str]] = {
    "a fake container of our name": (
        into_ours(image="busybox", command=["sleep"], args=["1"]), "image is not one that this installation allows"
    ),
    "another image": (into_ours(image="evil/outrider-sidecar:test"), "image is not one that"),
    "our image that runs something else": (into_ours(command=["python"]), "not as Outrider writes it (command"),
    "our image with a hook": (
        into_ours(lifecycle={"postStart": {"exec": {"command": ["cp"]}}}), "not as Outrider writes it"
    ),
    "our image with a probe that runs something": (
        into_ours(startupProbe={"exec": {"command": ["cat", "/var/run/outrider/tokens/vault"]}}),
        "not as Outrider writes it",
    ),
    "our image that nobody restarts": (
        lambda made: pods.ours(made).pop("restartPolicy") and pods.ours(made).pop("startupProbe"),
        "not as Outrider writes it",
    ),
    "our image at another control plane": (
        argument(f"--operator={pods.OPERATOR_URL}", "--operator=https://evil.example:8443"),
        "arguments are not as Outrider writes them",
    ),
    "our image with one more argument": (
        lambda made: pods.ours(made)["args"].append("--operator=https://evil.example:8443"),
        "arguments are not as Outrider writes them",
    ),
    "our image with code from elsewhere": (
        lambda made: pods.ours(made)["env"].append({"name": "PYTHONPATH", "value": "/var/run/secrets/x"}),
        "environment variable that would change what it runs",
    ),
    "our image behind a proxy": (
        lambda made: pods.ours(made)["env"].append({"name": "https_proxy", "value": "http://evil"}),
        "environment variable that would change",
    ),
    "our image that trusts others": (
        lambda made: pods.ours(made)["env"].append({"name": "SSL_CERT_FILE", "value": "/x"}),
        "environment variable that would change",
    ),
    "variables from a ConfigMap": (
        into_ours(envFrom=[{"configMapRef": {"name": "x"}}]), "not as Outrider writes it"
    ),
    "other code mounted over ours": (
        lambda made: (
            with_volume({"name": "code", "emptyDir": {}})(made),
            pods.ours(made)["volumeMounts"].append({"name": "code", "mountPath": "/opt/outrider"}),
        ),
        "mounts something that is not its own",
    ),
    "other code mounted over ours by a path that goes back": (
        lambda made: (
            with_volume({"name": "code", "emptyDir": {}})(made),
            pods.ours(made)["volumeMounts"].append({"name": "code", "mountPath": "/var/run/secrets/../../../opt/outrider"}),
        ),
        "mounts something that is not its own",
    ),
    "our image as root": (
        lambda made: pods.ours(made)["securityContext"].update(runAsUser=0, runAsNonRoot=False),
        "security context is not as Outrider writes it",
    ),
    "a second container named outrider": (
        lambda made: made["spec"]["containers"].append(pods.container("outrider2")) or None, ""
    ),
    "a container that mounts our tokens": (
        into_other(volumeMounts=[{"name": "outrider-tokens", "mountPath": "/t"}]), "mounts a volume that is the sidecar's"
    ),
    "an init container that mounts our journal": (
        lambda made: made["spec"]["initContainers"].append(
            pods.container("i", volumeMounts=[{"name": "outrider-journal", "mountPath": "/j"}])
        ),
        "mounts a volume that is the sidecar's",
    ),
    "an agent that may write its own address": (
        into_other(volumeMounts=[{"name": "outrider-agent", "mountPath": "/etc/outrider"}]), "with readOnly: true"
    ),
    "a second projection of our audience": (
        with_volume(projecting("config.outrider.dev")), "projects a token for config.outrider.dev"
    ),
    "a projection of Vault's audience": (
        with_volume(projecting("vault.outrider.dev")), "projects a token for config.outrider.dev, vault"
    ),
    "a projection of the audience of exchanges": (
        with_volume(projecting("exchange.outrider.dev")), "or exchange.outrider.dev, which only the sidecar may have"
    ),
    "our memory on a disk that others share": (
        instead("outrider-memory", persistentVolumeClaim={"claimName": "shared"}), "so that somebody else could read it"
    ),
    "our journal in a folder of the node": (
        instead("outrider-journal", hostPath={"path": "/tmp/x"}), "so that somebody else could read it"
    ),
    "the node's folder of all pods": (
        with_volume({"name": "all", "hostPath": {"path": "/var/lib/kubelet/pods/"}}), "mount a narrower folder"
    ),
    "the whole node": (with_volume({"name": "all", "hostPath": {"path": "/"}}), "mount a narrower folder"),
    "the whole node, written otherwise": (
        with_volume({"name": "all", "hostPath": {"path": "/./"}}), "mount a narrower folder"
    ),
    "the node's folder of all pods, written otherwise": (
        with_volume({"name": "all", "hostPath": {"path": "/var/./lib/kubelet/./pods/."}}), "mount a narrower folder"
    ),
    "the host's network": (into_spec(hostNetwork=True), "hostNetwork, hostPID and shareProcessNamespace"),
    "the host's processes": (into_spec(hostPID=True), "hostNetwork, hostPID and shareProcessNamespace"),
    "shared processes": (into_spec(shareProcessNamespace=True), "hostNetwork, hostPID and shareProcessNamespace"),
    "a privileged neighbour": (
        into_other(securityContext={"privileged": True}), "is privileged or has a capability"
    ),
    "a neighbour that traces": (
        into_other(securityContext={"capabilities": {"add": ["SYS_PTRACE"]}}), "is privileged or has a capability"
    ),
    **{
        f"a neighbour with {word}": (
            into_other(securityContext={"capabilities": {"add": ["CHOWN", word]}}), "is privileged or has a capability"
        )
        for word in (*sorted(refusals.TAKING_APART), "CAP_SYS_ADMIN", "cap_bpf")
    },
    "a neighbour of our uid": (into_other(securityContext={"runAsUser": 64150}), "runs as uid 64150"),
    "a pod of our uid": (into_spec(securityContext={"runAsUser": 64150}), "runs as uid 64150"),
    "open loopback with two containers": (
        lambda made: made["spec"]["containers"].append(pods.container("second")),
        "no second container may share its loopback",
    ),
    "the label without the sidecar": (
        lambda made: made["spec"].update(initContainers=[], volumes=[], containers=[pods.container()]),
        "has no sidecar",
    ),
    "the sidecar without the label": (
        lambda made: made["metadata"]["labels"].pop("outrider.dev/injected"), "has no sidecar"
    ),
}  # fmt: skip
WAYS_ROUND.pop("a second container named outrider")  # names are unique to the API server itself


@pytest.mark.parametrize("way", WAYS_ROUND)
def test_a_way_round_the_webhook_is_refused(place: policed.Place, way: str) -> None:
    bend, words = WAYS_ROUND[way]
    said = place.create(bent(bend))
    assert "ValidatingAdmissionPolicy" in said, said
    assert words in said


def test_a_container_among_the_agents_named_like_the_sidecar_is_no_sidecar(place: policed.Place) -> None:
    assert "has no sidecar" in place.create(pods.pod(pods.container("outrider")))


@pytest.mark.parametrize("audience", ["config.outrider.dev", "vault.outrider.dev", "exchange.outrider.dev"])
def test_nobody_who_did_not_opt_in_projects_our_audiences(place: policed.Place, audience: str) -> None:
    given = pods.pod(volumes=[projecting(audience)])
    assert "for pods that opted in" in place.create(given, place.silent)
    given["metadata"]["labels"]["outrider.dev/inject"] = "disabled"
    assert "for pods that opted in" in place.create(given, place.enabled), "the label trick"
    given["metadata"]["labels"]["outrider.dev/inject"] = "enabled"
    assert "for pods that opted in" in place.create(given, place.disabled)
    assert "has no sidecar" in place.create(given, place.silent)


def test_nobody_who_did_not_opt_in_claims_to_be_injected(place: policed.Place) -> None:
    """Whole and as the webhook writes it, but its certificates are its author's: it may trust another control plane."""
    assert "for pods that opted in" in place.create(pods.injected(pods.pod()), place.silent)


def test_windows_is_no_way_to_our_tokens(place: policed.Place) -> None:
    given = pods.pod(os={"name": "windows"}, volumes=[projecting("vault.outrider.dev")])
    assert "has no sidecar" in place.create(given)


def test_a_mirror_pod_is_a_kubelets_only(place: policed.Place) -> None:
    given = pods.pod(notes={"kubernetes.io/config.mirror": "x"})
    given["spec"]["nodeName"] = "one"
    del given["spec"]["serviceAccountName"]
    assert "has no sidecar" in place.create(given)
    node = place.cluster.kubeconfig_for("system:node:one", ["system:nodes", "system:masters"])
    assert place.create(given, who=node) == ""


def test_a_service_account_that_may_create_tokens_gets_no_sidecar(place: policed.Place) -> None:
    given = pods.injected(pods.pod(serviceAccountName="minter"))
    assert place.create(given) == ""
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": "mint", "namespace": place.enabled},
    }
    rules = [{"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]}]
    subject = {"kind": "ServiceAccount", "name": "minter", "namespace": place.enabled}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "mint"}
    place.cluster.apply(
        {**role, "kind": "Role", "rules": [{**rules[0], "resourceNames": ["minter"]}]},
        {**role, "kind": "RoleBinding", "subjects": [subject], "roleRef": reference},
    )
    until(lambda: "ServiceAccount minter may create tokens" in place.create(given))
    place.cluster.apply({**role, "kind": "Role", "rules": rules})
    until(lambda: "ServiceAccount minter may create tokens" in place.create(given))
    assert place.create(pods.injected(pods.pod())) == "", "another ServiceAccount is not meant"


def until(condition: Callable[[], bool]) -> None:
    for _ in range(50):
        if condition():
            return
    raise AssertionError("it never came true")


TAKEN: dict[str, Pod] = {
    "one container": pods.pod(),
    "two containers": pods.pod(pods.container(), pods.container("other")),
    "init containers": pods.pod(initContainers=[pods.container("a"), pods.container("b")]),
    "a mesh": pods.pod(
        initContainers=[pods.container("istio-init"), pods.container("istio-proxy", restartPolicy="Always")]
    ),
    "a socket": pods.pod(securityContext={"runAsUser": 1000}, notes={Annotation.LOCAL_AUTH: "Socket"}),
    "every annotation": pods.pod(
        pods.container(),
        pods.container("other"),
        notes={
            Annotation.SIDECAR_IMAGE: policed.OLD_IMAGE, Annotation.LOG_LEVEL: "warning", Annotation.CPU_REQUEST: "10m",
            Annotation.CPU_LIMIT: "1", Annotation.MEMORY_REQUEST: "64Mi", Annotation.MEMORY_LIMIT: "128Mi",
            Annotation.LISTEN_PORT: "16000", Annotation.LOCAL_AUTH: "Token", Annotation.AGENT_CONTAINERS: "other",
        },
    ),
    "the default account": pods.pod(serviceAccountName="default", automountServiceAccountToken=False),
    "volumes of its own": pods.pod(
        volumes=[
            {"name": "socket", "hostPath": {"path": "/var/run/agent"}}, {"name": "logs", "hostPath": {"path": "/var/log"}},
            projecting("api.corp.example"), {"name": "data", "emptyDir": {}},
        ]
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", TAKEN)
def test_a_pod_as_the_webhook_writes_it_is_taken(place: policed.Place, kind: str) -> None:
    options = {"allowed_images": (policed.OLD_IMAGE,), "image_pull_policy": "IfNotPresent"}
    assert place.create(pods.injected(TAKEN[kind], **options)) == ""


def test_what_other_webhooks_add_to_every_container_is_taken(place: policed.Place) -> None:
    def bend(made: Pod) -> None:
        ours = pods.ours(made)
        ours["env"] += [
            {"name": "AWS_ROLE_ARN", "value": "arn"},
            {"name": "OTEL_SERVICE_NAME", "value": "x"},
        ]
        made["spec"]["volumes"].append({"name": "aws", "emptyDir": {}})
        ours["volumeMounts"].append(
            {"name": "aws", "mountPath": "/var/run/secrets/eks.amazonaws.com/serviceaccount"}
        )

    assert place.create(bent(bend)) == ""


STRANGERS: dict[str, Pod] = {
    "plain": pods.pod(),
    "privileged": pods.pod(
        pods.container(securityContext={"privileged": True}), hostNetwork=True, hostPID=True
    ),
    "a container of that name": pods.pod(pods.container("outrider")),
    "an init container of that name": pods.pod(initContainers=[pods.container("outrider")]),
    "uid 64150": pods.pod(securityContext={"runAsUser": 64150}),
    "its own annotations": pods.pod(notes={"outrider.dev/anything": "x"}),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_pods_that_did_not_opt_in_are_not_looked_at(place: policed.Place, kind: str) -> None:
    given = copy.deepcopy(STRANGERS[kind])
    assert place.create(given, place.silent) == ""
    assert place.create(given, place.disabled) == ""
    given["metadata"]["labels"]["outrider.dev/inject"] = "disabled"
    assert place.create(given, place.enabled) == ""
    given["metadata"]["labels"]["outrider.dev/inject"] = "enabled"
    assert place.create(given, place.disabled) == ""


def test_windows_pods_need_no_sidecar(place: policed.Place) -> None:
    assert place.create(pods.pod(os={"name": "windows"})) == ""
    assert place.create(pods.pod(nodeSelector={"kubernetes.io/os": "windows"})) == ""
