# SPDX-License-Identifier: Apache-2.0
"""A cluster as can-i and explain see it: its objects, its settings, and what its servers were last seen to list.

Read through kubectl with the user's rights. Refuses to make up what may not be read: without every policy there is no answer.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

from outrider import call, catalog, findings, manifests, names, resources, snapshot
from outrider_cli import kubectl, output

PLURALS = ("mcpservers", "mcptoolpolicies", "mcpbudgets")
TOOLS_LISTED_MAX = 500
"""A status names so many tools; of a server with more, no name is unknown."""

_ALL = ",".join(f"{plural}.{names.GROUP}" for plural in PLURALS)


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """One reading of a cluster. `left_out`: objects that are not valid as they are; the operator may hold an earlier generation.

    `epoch` 0: not known, so versions of snapshots cannot be compared.
    """

    world: resources.World
    definitions: Mapping[names.ServerId, catalog.Definitions]
    left_out: tuple[str, ...]
    epoch: int
    place: str


def view(kube: kubectl.Kubectl) -> View:
    """Reads everything that decisions depend on. Raises Stop."""
    where = kube.where
    chosen = settings(kube)
    raws = kube.items(_ALL, "-A", what="the servers, policies and budgets cannot be read")
    found: dict[str, list[Any]] = {kind: [] for kind in ("MCPServer", "MCPToolPolicy", "MCPBudget")}
    left_out, definitions = [], {}
    for raw in sorted(raws, key=_name):
        made = manifests.kubernetes_object(raw)
        if isinstance(made, tuple):
            namespace, name = _name(raw)
            left_out.append(f"{raw.get('kind')} {namespace}/{name}: {made[0]}")
            continue
        found[str(raw["kind"])].append(resources.Placed(made))
        if isinstance(made, resources.MCPServer) and (listed := _listed(raw)) is not None:
            definitions[made.id] = listed
    api_servers = _api_servers(kube)
    world = resources.World(
        servers=tuple(found["MCPServer"]),
        policies=tuple(found["MCPToolPolicy"]),
        budgets=tuple(found["MCPBudget"]),
        settings=chosen,
        namespaces=_labels(kube) if chosen.team_from_namespace_label else {},
        api_servers=api_servers or (),
    )
    context = kube.context()
    place = f"context {context}" if context else "this cluster"
    return View(
        world,
        definitions,
        tuple(left_out),
        0 if api_servers is None else _epoch(kube, chosen),
        f"{place}, {where.system_namespace}/{where.release}",
    )


def settings(kube: kubectl.Kubectl) -> resources.Settings:
    """The installation's settings. Raises Stop when they cannot be read or used."""
    where = kube.where
    name = f"{where.release}-settings"
    what = f"the settings (ConfigMap {where.system_namespace}/{name}) cannot be read"
    try:
        held = kube.read("configmap", name, "-n", where.system_namespace, what=what)
    except kubectl.Failed as failed:
        if failed.kind is not kubectl.Kind.NOT_FOUND:
            raise
        raise output.Stop(
            output.UNREACHABLE, what, why="there is none",
            then="name the installation with --system-namespace and --release (`helm list -A` shows both)",
        ) from None  # fmt: skip
    read = manifests.settings(str((held.get("data") or {}).get("settings.yaml", "")))
    if isinstance(read, tuple):
        raise output.Stop(
            output.UNREACHABLE, f"the settings in ConfigMap {name} cannot be used", why=str(read[0]),
            then="correct them in the chart's values and `helm upgrade`; the operator stays on the ones before",
        )  # fmt: skip
    return read


def _labels(kube: kubectl.Kubectl) -> dict[str, dict[str, str]]:
    what = "the namespaces' labels, which name teams here, cannot be read"
    found = kube.items("namespaces", what=what)
    return {each["metadata"]["name"]: dict(each["metadata"].get("labels") or {}) for each in found}


def _api_servers(kube: kubectl.Kubectl) -> tuple[str, ...] | None:
    """Addresses that every snapshot says are never dialled (R15); None for somebody who may not see them. No decision hangs on them."""
    what = "the API server's endpoints cannot be read"
    try:
        found = kube.read("endpointslices.discovery.k8s.io", "kubernetes", "-n", "default", what=what)
    except kubectl.Failed as failed:
        return () if failed.kind is kubectl.Kind.NOT_FOUND else None
    return manifests.endpoint_addresses(found)[: snapshot.REFUSED_MAX]


def _epoch(kube: kubectl.Kubectl, chosen: resources.Settings) -> int:
    """As the operator makes it; 0 for somebody who may not see kube-system."""
    try:
        found = kube.read("namespace", "kube-system", what="the cluster's identity cannot be read")
    except kubectl.Failed:
        return 0
    digest = hashlib.sha256(f"{found['metadata']['uid']}/{chosen.epoch}".encode()).digest()
    return int.from_bytes(digest[:6], "big") or 1


def _name(raw: Mapping[str, Any]) -> tuple[str, str]:
    metadata = raw.get("metadata") or {}
    return str(metadata.get("namespace", "")), str(metadata.get("name", ""))


def _listed(raw: Mapping[str, Any]) -> catalog.Definitions | None:
    """The names in an object's status, without their definitions; None when not all of its tools are there.

    A status names tools and prompts. Which resources there are it does not say.
    """
    status = raw.get("status") or {}
    tools = _whole(status, "tools", "toolCount")
    if tools is None:
        return None
    prompts = _whole(status, "prompts", "promptCount")
    unobserved = {call.Kind.RESOURCE} | ({call.Kind.PROMPT} if prompts is None else set())
    dropped = tuple(
        catalog.Dropped(name, findings.Reason.UNUSABLE_TOOL_NAME)
        for name in tools
        if not names.is_tool_name(name)
    )
    return catalog.Definitions(
        tools=tuple(catalog.Definition(name, b"{}", None) for name in tools if names.is_tool_name(name)),
        prompts=tuple(catalog.Definition(name, b"{}", None) for name in prompts or ()),
        dropped=dropped,
        unobserved=frozenset(unobserved),
    )


def _whole(status: Mapping[str, Any], member: str, count: str) -> list[str] | None:
    """The names of one list of a status; None when it is not there, or not all of it is."""
    listed, total = status.get(member), status.get(count)
    if not isinstance(listed, list):
        listed = [] if total == 0 else None
    if listed is None or not isinstance(total, int) or total > len(listed):
        return None
    return [str(each.get("name", "")) for each in listed if isinstance(each, Mapping)]
