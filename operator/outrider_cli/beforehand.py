# SPDX-License-Identifier: Apache-2.0
"""`outrider doctor --pre`: whether an installation on this cluster would work, before anything is installed; with whose values.

Called by doctor. Reads only. Refuses to guess at what the user's rights do not show.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from outrider import manifests, names
from outrider.resources import kinds
from outrider_cli import diagnosis, kubectl, lent

VERSION_MIN = (1, 32)
"""Native sidecars and what the admission policies use are there, and on, from this version on."""

_ABOVE = (
    "namespaces", "customresourcedefinitions.apiextensions.k8s.io",
    "clusterroles.rbac.authorization.k8s.io", "clusterrolebindings.rbac.authorization.k8s.io",
    "mutatingwebhookconfigurations.admissionregistration.k8s.io", "validatingwebhookconfigurations.admissionregistration.k8s.io",
    "validatingadmissionpolicies.admissionregistration.k8s.io", "validatingadmissionpolicybindings.admissionregistration.k8s.io",
)  # fmt: skip
_WITHIN = (
    "deployments.apps", "services", "serviceaccounts", "secrets", "configmaps", "poddisruptionbudgets.policy",
    "networkpolicies.networking.k8s.io", "roles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io",
)  # fmt: skip
_BESIDE = ("roles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io")
"""In namespace `default`, where the API server says where its endpoints are."""

_DEFINITIONS = (
    '{range .items[*]}{.metadata.name}{"\\t"}{.spec.group}{"\\t"}{.spec.names.kind}{"\\t"}'
    r'{.metadata.labels.outrider\.dev/crd-revision}{"\n"}{end}'
)
_LEVEL = "pod-security.kubernetes.io/enforce"


def version(kube: kubectl.Kubectl) -> Iterator[diagnosis.Finding]:
    """The API server answers, and is of a version that has what is needed."""
    found = kube.raw("/version", what="the API server cannot be asked for its version")
    text = str(found.get("gitVersion", ""))
    parts = re.match(r"v?(\d+)\.(\d+)", text)
    if parts is None:
        yield diagnosis.note(f"the API server says it is of version {text!r}", "which is not understood here")
    elif (int(parts[1]), int(parts[2])) < VERSION_MIN:
        least = ".".join(map(str, VERSION_MIN))
        yield diagnosis.bad(
            f"Kubernetes {text} is too old", f"native sidecars and admission policies need {least}",
            then=f"upgrade the cluster to {least} or newer",
        )  # fmt: skip
    else:
        yield diagnosis.ok(f"Kubernetes {text}")


def rights(kube: kubectl.Kubectl) -> Iterator[diagnosis.Finding]:
    """Whether whoever runs this may install the chart."""
    wanted = [(resource, "") for resource in _ABOVE]
    wanted += [(resource, kube.where.system_namespace) for resource in _WITHIN]
    wanted += [(resource, "default") for resource in _BESIDE]
    asked = [(each.partition(".")[2], each.partition(".")[0], where) for each, where in wanted]
    allowed = kube.allowed(asked)
    refused = [each for each, may in zip(wanted, allowed, strict=True) if not may]
    missing = [f"{each} in namespace default" if where == "default" else each for each, where in refused]
    if missing:
        yield diagnosis.bad(
            "you may not install the chart", f"you may not create {diagnosis.several(missing, 20)}",
            then="install as a cluster administrator",
        )  # fmt: skip
    else:
        yield diagnosis.ok("you may install the chart")


def definitions(kube: kubectl.Kubectl) -> Iterator[diagnosis.Finding]:
    """Kinds that are there already: ours of another revision, and other people's of the same name."""
    text = kube.run(
        "get", "customresourcedefinitions", "-o", f"jsonpath={_DEFINITIONS}", what="the cluster's kinds cannot be read"
    )  # fmt: skip
    rows = [(line.split("\t") + [""] * 4)[:4] for line in text.splitlines() if line.strip()]
    ours = {row[0]: row[3] for row in rows if row[1] == names.GROUP}
    newer = [name for name, revision in ours.items() if revision.isdigit() and int(revision) > kinds.REVISION]
    if newer:
        yield diagnosis.bad(
            f"the kinds here are newer than this outrider's ({diagnosis.several(newer)})",
            f"their revision is above {kinds.REVISION}", then="use the chart and command of the newer version",
        )  # fmt: skip
    foreign = sorted({row[1] for row in rows if row[2] == "MCPServer"} - {names.GROUP})
    if foreign:
        yield diagnosis.note(
            f"another kind MCPServer is here, of {diagnosis.several(foreign)}",
            "which of them a bare `mcpserver` means is kubectl's choice",
            then="write mcpservers.outrider.dev (or orsrv) in commands, RBAC and scripts",
        )  # fmt: skip
    if not newer and not foreign:
        yield diagnosis.ok("no other kind gets in the way" if not ours else "the kinds of Outrider are here")


def namespace(kube: kubectl.Kubectl) -> Iterator[diagnosis.Finding]:
    """The namespace of the installation."""
    name = kube.where.system_namespace
    try:
        found = kube.read("namespace", name, what=f"namespace {name} cannot be read")
    except kubectl.Failed as failed:
        if failed.kind is not kubectl.Kind.NOT_FOUND:
            raise
        yield diagnosis.ok(f"namespace {name} is not there yet; `helm install --create-namespace` makes it")
        return
    labels = found["metadata"].get("labels") or {}
    if found.get("status", {}).get("phase") == "Terminating":
        yield diagnosis.bad(
            f"namespace {name} is being deleted", "nothing can be installed into it",
            then=f"wait for it, or see what keeps it: kubectl get namespace {name} -o yaml",
        )  # fmt: skip
        return
    level = labels.get(_LEVEL, "")
    said = f", Pod Security {level}, which our pods pass" if level else ""
    yield diagnosis.ok(f"namespace {name} is there{said}")


def webhooks(kube: kubectl.Kubectl) -> Iterator[diagnosis.Finding]:
    """Webhooks that would keep pods from being made, and an installation that is here already."""
    what = "the cluster's webhooks cannot be read"
    found = kube.items("mutatingwebhookconfigurations,validatingwebhookconfigurations", what=what)
    services: set[tuple[str, str]] | None = None
    clean = True
    for configuration in found:
        name = configuration["metadata"]["name"]
        for webhook in configuration.get("webhooks") or ():
            service = (webhook.get("clientConfig") or {}).get("service")
            if service is None:
                continue
            place = (str(service.get("namespace")), str(service.get("name")))
            if name == kube.where.release and place[0] != kube.where.system_namespace:
                clean = False
                yield diagnosis.bad(
                    f"an installation named {name} is in namespace {place[0]} already",
                    "several side by side are not offered", then=f"upgrade that one, or `helm uninstall {name} -n {place[0]}` first",
                )  # fmt: skip
                break
            if webhook.get("failurePolicy", "Fail") != "Fail" or not _is_about_pods(webhook):
                continue
            if services is None:
                services = _services(kube)
            if services is not None and place not in services:
                clean = False
                yield diagnosis.bad(
                    f"webhook {webhook.get('name')} of {configuration['kind']} {name} keeps pods from being made",
                    f"its Service {place[0]}/{place[1]} is not there, and it fails closed",
                    then=f"repair what it belongs to, or remove it: kubectl delete {configuration['kind'].lower()} {name}",
                )  # fmt: skip
    if clean:
        yield diagnosis.ok("no webhook gets in the way of pods")


def _is_about_pods(webhook: dict[str, Any]) -> bool:
    for rule in webhook.get("rules") or ():
        groups, resources = rule.get("apiGroups") or (), rule.get("resources") or ()
        if {"", "*"} & set(groups) and {"pods", "*", "*/*"} & set(resources):
            return True
    return False


def _services(kube: kubectl.Kubectl) -> set[tuple[str, str]] | None:
    template = "{range .items[*]}{.metadata.namespace}/{.metadata.name} {end}"
    try:
        text = kube.run(
            "get", "services", "-A", "-o", f"jsonpath={template}", what="the services cannot be read"
        )
    except kubectl.Failed as failed:
        if failed.kind is not kubectl.Kind.FORBIDDEN:
            raise
        return None
    return {(first, second) for first, _, second in (each.partition("/") for each in text.split())}


def values(file: pathlib.Path) -> diagnosis.Check:
    """A check of the `settings` in a file of values for the chart."""

    def check(kube: kubectl.Kubectl) -> Iterator[diagnosis.Finding]:
        import yaml  # only here: the import costs more than most commands

        try:
            given = yaml.safe_load(file.read_text())
        except (OSError, ValueError, yaml.YAMLError) as error:
            why = " ".join(str(error).split())[:200]
            yield diagnosis.bad(f"{file} cannot be read", why, then="give the file that you give to helm")
            return
        settings = given.get("settings") if isinstance(given, dict) else None
        if settings is not None and not isinstance(settings, dict):
            yield diagnosis.bad(
                f"settings in {file} is no object", then="write fields below it, or leave it out"
            )
            return
        fixed = {
            "apiVersion": names.API_VERSION,
            "kind": "Settings",
            "platformNamespace": kube.where.system_namespace,
        }
        read = manifests.settings(json.dumps({**fixed, **(settings or {})}))
        if isinstance(read, tuple):
            for problem in read:
                # Where it stands in what was made of them is nowhere in the file.
                at = ".".join(filter(None, ("settings", problem.field)))
                told = dataclasses.replace(problem, file=str(file), line=0, field=at)
                yield diagnosis.bad(f"the settings in {file} cannot be used", str(told), then="correct them")
            return
        yield diagnosis.ok(f"the settings in {file} can be used")
        yield from lent.of_settings(read)

    return check


CHECKS: tuple[tuple[str, diagnosis.Check], ...] = (
    ("version", version),
    ("rights", rights),
    ("kinds", definitions),
    ("namespace", namespace),
    ("webhooks", webhooks),
)
