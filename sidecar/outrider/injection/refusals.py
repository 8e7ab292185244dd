# SPDX-License-Identifier: Apache-2.0
"""Pods beside which the proxy would protect nothing: each check a function that returns its sentence, or nothing.

Called by pods, before anything is written. The ValidatingAdmissionPolicy of the chart says the same again, for pods that the
webhook never saw; a check belongs in both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from outrider.injection import given, shapes

_ALL_PODS = ["var", "lib", "kubelet", "pods"]
_PROCESSES = "proc"

TAKING_APART = frozenset(
    {"ALL", "SYS_PTRACE", "SYS_ADMIN", "SYS_MODULE", "BPF", "PERFMON", "DAC_READ_SEARCH"}
)
"""Capabilities that reach past a container into another's memory or files: by tracing, mounting, the kernel itself, or file handles."""

Check = Callable[[Mapping[str, Any], given.Facts, given.Options], str | None]


def _shares_the_nodes_network(pod: Mapping[str, Any], _f: given.Facts, _o: given.Options) -> str | None:
    """On the host's network everything on the node could call the proxy (R3)."""
    if shapes.spec(pod).get("hostNetwork"):
        return (
            "hostNetwork puts the proxy's port on the node, where everybody could use it; remove hostNetwork"
        )
    return None


def _sees_our_processes(pod: Mapping[str, Any], _f: given.Facts, _o: given.Options) -> str | None:
    """Another container could read tokens and credentials out of the proxy's /proc."""
    for field in ("hostPID", "shareProcessNamespace"):
        if shapes.spec(pod).get(field):
            return f"{field} lets other containers read the proxy's memory; remove {field}"
    return None


def _can_take_any_process_apart(pod: Mapping[str, Any], _f: given.Facts, _o: given.Options) -> str | None:
    for container in shapes.others(pod):
        context = shapes.mapping(container, "securityContext")
        if context.get("privileged"):
            return f"container {shapes.name(container)} is privileged and could read the proxy's memory; remove privileged"
        for word in shapes.sequence(shapes.mapping(context, "capabilities"), "add"):
            if str(word).upper().removeprefix("CAP_") in TAKING_APART:
                return (
                    f"container {shapes.name(container)} has the capability {word} and could read the proxy's memory "
                    "or files; remove it"
                )
    return None


def _runs_as_us(pod: Mapping[str, Any], _f: given.Facts, options: given.Options) -> str | None:
    """On OpenShift the namespace's range gives the uid, ours too, and nothing is compared."""
    for container in () if options.openshift else shapes.others(pod):
        if shapes.uid(pod, container) == given.UID:
            return f"container {shapes.name(container)} runs as uid {given.UID}, which is the proxy's; choose another"
    return None


def _takes_our_name(pod: Mapping[str, Any], _f: given.Facts, _o: given.Options) -> str | None:
    for container in shapes.objects(shapes.spec(pod), "containers"):
        if shapes.name(container) == given.CONTAINER:
            return f"a container is named {given.CONTAINER}, which is the proxy's name; rename it"
    return None


def _takes_our_ports(pod: Mapping[str, Any], _f: given.Facts, _o: given.Options) -> str | None:
    for container in shapes.others(pod):
        for port in shapes.objects(container, "ports"):
            if port.get("containerPort") == given.ADMIN_PORT:
                return (
                    f"container {shapes.name(container)} has port {given.ADMIN_PORT}, which is the proxy's for probes and "
                    "metrics; give the container another"
                )
    return None


def _mounts_what_is_ours(pod: Mapping[str, Any], _f: given.Facts, _o: given.Options) -> str | None:
    """The agent's volume is mounted by us where it belongs; every other of ours is the proxy's alone."""
    for container in shapes.others(pod):
        for mount in shapes.objects(container, "volumeMounts"):
            volume = mount.get("name")
            if given.is_ours(volume) and volume != given.AGENT_VOLUME:
                return f"container {shapes.name(container)} mounts {volume}, which only the proxy may; remove the mount"
            where = str(mount.get("mountPath", "")).rstrip("/")
            if where == given.AGENT_PATH and volume != given.AGENT_VOLUME:
                return (
                    f"container {shapes.name(container)} mounts {volume} at {given.AGENT_PATH}, where the agent finds the "
                    "proxy; mount it elsewhere"
                )
    return None


def _reaches_every_pods_files(pod: Mapping[str, Any], _f: given.Facts, _o: given.Options) -> str | None:
    """The node keeps the volumes of all pods in one folder."""
    for volume in shapes.objects(shapes.spec(pod), "volumes"):
        path = str(shapes.mapping(volume, "hostPath").get("path") or "")
        # By its parts: `/var/./lib` is the same folder, and an expression would take a minute for a megabyte of slashes.
        parts = [part for part in path.split("/") if part not in ("", ".")]
        shared = parts[:4] == _ALL_PODS[: len(parts)] or parts[0] == _PROCESSES
        if path and shared:
            return (
                f"volume {volume.get('name')} reaches the files of every pod on the node, the proxy's too; mount a narrower "
                "folder than its hostPath"
            )
    return None


def _projects_our_tokens(pod: Mapping[str, Any], _f: given.Facts, _o: given.Options) -> str | None:
    """With such a token another container would be the proxy, towards the control plane or towards Vault."""
    for volume in shapes.objects(shapes.spec(pod), "volumes"):
        if volume.get("name") == given.TOKENS_VOLUME:
            continue
        for source in shapes.objects(shapes.mapping(volume, "projected"), "sources"):
            audience = shapes.mapping(source, "serviceAccountToken").get("audience")
            if audience in given.AUDIENCES:
                return (
                    f"volume {volume.get('name')} projects a token for {audience}, which only the proxy may have; "
                    "remove it"
                )
    return None


def _waits_for_a_proxy_that_waits_for_us(
    pod: Mapping[str, Any], _f: given.Facts, _o: given.Options
) -> str | None:
    for container in shapes.objects(shapes.spec(pod), "containers"):
        if shapes.name(container) in given.MESHES:
            return (
                f"container {shapes.name(container)} carries the pod's traffic but starts after the proxy, which needs the "
                "network first; let the mesh inject its native sidecar (Istio: sidecar.istio.io/nativeSidecar: "
                '"true"; Linkerd: config.alpha.linkerd.io/proxy-enable-native-sidecar: "true")'
            )
    return None


def _may_make_tokens(pod: Mapping[str, Any], facts: given.Facts, _o: given.Options) -> str | None:
    """The agent could make itself a token for Vault, or be another workload."""
    if facts.may_mint:
        return (
            f"ServiceAccount {shapes.account(pod)} may create tokens (serviceaccounts/token), so the agent could be "
            "anybody; take the right away or use another ServiceAccount"
        )
    return None


def _has_no_image(_pod: Mapping[str, Any], _f: given.Facts, options: given.Options) -> str | None:
    if not options.image:
        return "no image of the proxy is set; the installation's settings must say injection.image"
    return None


CHECKS: tuple[Check, ...] = (
    _has_no_image,
    _shares_the_nodes_network,
    _sees_our_processes,
    _can_take_any_process_apart,
    _runs_as_us,
    _takes_our_name,
    _takes_our_ports,
    _mounts_what_is_ours,
    _reaches_every_pods_files,
    _projects_our_tokens,
    _waits_for_a_proxy_that_waits_for_us,
    _may_make_tokens,
)


def objection(pod: Mapping[str, Any], facts: given.Facts, options: given.Options) -> str | None:
    """The first check's sentence that applies."""
    return next(filter(None, (check(pod, facts, options) for check in CHECKS)), None)
