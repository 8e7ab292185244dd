# SPDX-License-Identifier: Apache-2.0
"""The pod that comes out: ours taken off, what is left looked at, ours put on again.

Called through the package by admission and by `outrider inject`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from outrider import podnotes
from outrider.injection import agents, container, given, refusals, shapes
from outrider.podnotes import Annotation, Label

_EVICTION = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
_MIRROR = "kubernetes.io/config.mirror"
_OS_LABELS = ("kubernetes.io/os", "beta.kubernetes.io/os")


@dataclasses.dataclass(frozen=True, slots=True)
class Injected:
    """`summary` says in a sentence what was done. The pod shares parts with the one that was given; change neither."""

    pod: dict[str, Any]
    local_auth: str
    summary: str


@dataclasses.dataclass(frozen=True, slots=True)
class Refused:
    """Why no proxy can protect this pod, and what to do."""

    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class LeftAlone:
    """Why this pod gets no proxy, and may start without one."""

    why: str


def inject(
    pod: Mapping[str, Any], facts: given.Facts, options: given.Options
) -> Injected | Refused | LeftAlone:
    """The pod with the proxy beside its agents. Total: any JSON object has an answer."""
    if why := _not_for_us(pod):
        return LeftAlone(why)
    wishes = podnotes.read(shapes.notes(pod))
    if isinstance(wishes, str):
        return Refused(wishes)
    problem = refusals.objection(pod, facts, options) or _of_wishes(pod, wishes, options)
    if problem is not None:
        return Refused(problem)
    before, after = _around(pod)
    reaching = [each for each in after if isinstance(each, Mapping)]
    reaching += shapes.objects(shapes.spec(pod), "containers")
    callers = agents.callers(pod, reaching, wishes, options.local_auth)
    if isinstance(callers, str):
        return Refused(callers)
    ours = container.container(options, wishes, callers)
    equip = _Equipping(callers, frozenset(callers.containers), wishes.listen_port or options.listen_port)
    spec = {
        **shapes.spec(pod),
        "initContainers": [*equip.all(before), ours, *equip.all(after)],
        "containers": equip.all(shapes.sequence(shapes.spec(pod), "containers")),
        "volumes": _volumes(pod, container.volumes(options, wishes)),
    }
    if options.image_pull_secrets:
        spec["imagePullSecrets"] = _pull_secrets(pod, options)
    local = [str(volume["name"]) for volume in container.volumes(options, wishes) if "emptyDir" in volume]
    metadata = _metadata(pod, facts, local, json.dumps(_status(options, ours, callers)))
    made = {**pod, "metadata": metadata, "spec": spec}
    summary = f"sidecar {ours['image']} beside {', '.join(callers.containers)}; local-auth is {callers.auth}: {callers.why}"
    if wishes.secrets:
        lent = ", ".join(f"{secret} for {server}" for server, secret in wishes.secrets)
        summary = f"{summary}; it alone has the Secrets {lent}"
    return Injected(made, callers.auth, summary)


def _not_for_us(pod: Mapping[str, Any]) -> str | None:
    if shapes.label(pod, Label.INJECT) == "disabled":
        return f"its label {Label.INJECT} is disabled"
    if _MIRROR in shapes.notes(pod):
        return "it is the mirror of a static pod, which runs already"
    spec = shapes.spec(pod)
    systems = [shapes.mapping(spec, "os").get("name")]
    systems += [shapes.mapping(spec, "nodeSelector").get(label) for label in _OS_LABELS]
    return "it is a Windows pod" if "windows" in systems else None


def _of_wishes(pod: Mapping[str, Any], wishes: podnotes.Wishes, options: given.Options) -> str | None:
    allowed = (options.image, *options.allowed_images)
    if wishes.sidecar_image is not None and wishes.sidecar_image not in allowed:
        return (
            f"annotation {Annotation.SIDECAR_IMAGE}: {wishes.sidecar_image[:200]!r} is not allowed; the installation's "
            f"settings allow {', '.join(allowed)}"
        )
    port = wishes.listen_port or options.listen_port
    for each in shapes.others(pod):
        if any(one.get("containerPort") == port for one in shapes.objects(each, "ports")):
            return (
                f"container {shapes.name(each)} has port {port}, where the proxy is to listen; choose another by the "
                f"annotation {Annotation.LISTEN_PORT}"
            )
    return None


def _around(pod: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """The init containers before and after ours: only what a mesh needs comes before."""
    kept = [
        each
        for each in shapes.sequence(shapes.spec(pod), "initContainers")
        if not (isinstance(each, Mapping) and shapes.name(each) == given.CONTAINER)
    ]
    last = max(
        (
            index
            for index, each in enumerate(kept, start=1)
            if isinstance(each, Mapping)
            and shapes.name(each) in given.MESHES
            and each.get("restartPolicy") == "Always"
        ),
        default=0,
    )
    return kept[:last], kept[last:]


@dataclasses.dataclass(frozen=True, slots=True)
class _Equipping:
    """Gives agents what they need, and takes from others what is not theirs."""

    callers: agents.Callers
    agents: frozenset[str]
    port: int

    def all(self, listed: Sequence[Any]) -> list[Any]:
        return [self._one(each) if isinstance(each, Mapping) else each for each in listed]

    def _one(self, each: Mapping[str, Any]) -> dict[str, Any]:
        if shapes.name(each) not in self.agents:
            return agents.bare(each)
        return agents.equipped(each, port=self.port, socket=self.callers.auth == "Socket")


def _volumes(pod: Mapping[str, Any], ours: Sequence[Mapping[str, Any]]) -> list[Any]:
    listed = shapes.sequence(shapes.spec(pod), "volumes")
    theirs = [each for each in listed if not (isinstance(each, Mapping) and given.is_ours(each.get("name")))]
    return [*theirs, *ours]


def _pull_secrets(pod: Mapping[str, Any], options: given.Options) -> list[Any]:
    there = shapes.sequence(shapes.spec(pod), "imagePullSecrets")
    missing = [{"name": name} for name in options.image_pull_secrets if {"name": name} not in there]
    return [*there, *missing]


def _status(options: given.Options, ours: Mapping[str, Any], callers: agents.Callers) -> dict[str, Any]:
    return {
        "version": options.version,
        "image": ours["image"],
        "localAuth": callers.auth,
        "agentContainers": list(callers.containers),
    }


def _metadata(
    pod: Mapping[str, Any], facts: given.Facts, local: Sequence[str], status: str
) -> dict[str, Any]:
    """`local`: the names of our volumes that a node may empty."""
    metadata = shapes.mapping(pod, "metadata")
    there = [name for name in str(shapes.notes(pod).get(_EVICTION) or "").split(",") if name]
    notes = {
        **shapes.notes(pod),
        Annotation.STATUS.value: status,
        Annotation.CA.value: facts.ca_pem,
        _EVICTION: ",".join([*there, *(name for name in local if name not in there)]),
    }
    labels = {**shapes.mapping(metadata, "labels"), Label.INJECTED.value: "true"}
    return {**metadata, "labels": labels, "annotations": notes}
