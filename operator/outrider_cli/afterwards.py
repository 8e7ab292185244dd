# SPDX-License-Identifier: Apache-2.0
"""`outrider doctor`: whether the installation on this cluster does what it is there for.

Called by doctor. Reads only, with the user's rights. Refuses to repeat what a condition or an Event says in full: it names them.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import Any

from outrider import manifests, names, podnotes
from outrider.resources import kinds
from outrider_cli import beforehand, diagnosis, kubectl, lent, output, proxy_status, trusted

_POLICIES = "validatingadmissionpolicies.admissionregistration.k8s.io"
_BINDINGS = "validatingadmissionpolicybindings.admissionregistration.k8s.io"
_EXPIRES_SOON_SECONDS = 7 * 86_400
_OPERATORS = "app.kubernetes.io/name=outrider,app.kubernetes.io/component=operator"
_PROBERS = "app.kubernetes.io/name=outrider,app.kubernetes.io/component=prober"
_PLURALS = {kind.name: kind.plural for kind in kinds.KINDS}
_UPGRADE = "bring the chart up to date: helm upgrade"


def definitions(kube: kubectl.Kubectl) -> Iterator[diagnosis.Finding]:
    """The kinds are served, in the revision that this command is of."""
    for kind in kinds.KINDS:
        name = f"{kind.plural}.{names.GROUP}"
        try:
            found = kube.read(
                "customresourcedefinition", name, what=f"the definition of {name} cannot be read"
            )
        except kubectl.Failed as failed:
            if failed.kind is not kubectl.Kind.NOT_FOUND:
                raise
            yield diagnosis.bad(
                f"the API server does not know {name}", "its definition is not there", then=f"{_UPGRADE} (with crds.enabled)"
            )  # fmt: skip
            continue
        conditions = found.get("status", {}).get("conditions") or ()
        established = any(each["type"] == "Established" and each["status"] == "True" for each in conditions)
        revision = (found["metadata"].get("labels") or {}).get(kinds.REVISION_LABEL, "none")
        if found["metadata"].get("deletionTimestamp"):
            yield diagnosis.bad(
                f"{name} is being deleted", "its objects go with it; the operator stays on what it knew",
                then="keep a copy (kubectl get outrider -A -o yaml), let it end, and apply the definitions again",
            )  # fmt: skip
        elif not established:
            yield diagnosis.bad(
                f"{name} is not served", "the API server has not established it", then=f"kubectl describe crd {name}"
            )  # fmt: skip
        elif revision != str(kinds.REVISION):
            yield diagnosis.bad(
                f"{name} is of revision {revision}", f"this outrider is of {kinds.REVISION}",
                then=f"{_UPGRADE}, or use the outrider of its version",
            )  # fmt: skip
        else:
            yield diagnosis.ok(f"{name} is served, revision {revision}")


def policies(kube: kubectl.Kubectl) -> Iterator[diagnosis.Finding]:
    """The admission policies without which a missing operator would mean missing checks, each with its binding."""
    wanted = {f"outrider-unknown-fields-{kind.plural}" for kind in kinds.KINDS} | {
        f"{kube.where.release}-pods"
    }
    there = kube.items(_POLICIES, what="the admission policies cannot be read")
    bound = {
        each["spec"]["policyName"] for each in kube.items(_BINDINGS, what="the bindings of admission policies cannot be read")
    }  # fmt: skip
    missing = wanted - {each["metadata"]["name"] for each in there}
    for name in sorted(missing):
        yield diagnosis.bad(
            f"admission policy {name} is not there", "what it refuses is let in", then=_UPGRADE
        )
    for name in sorted(wanted - missing - bound):
        yield diagnosis.bad(f"admission policy {name} has no binding", "so it refuses nothing", then=_UPGRADE)
    for each in there:
        name = each["metadata"]["name"]
        warnings = (each.get("status", {}).get("typeChecking") or {}).get("expressionWarnings") or ()
        if name in wanted and warnings:
            yield diagnosis.note(
                f"the API server doubts admission policy {name}", str(warnings[0].get("warning", ""))[:200],
                then=f"kubectl get validatingadmissionpolicy {name} -o yaml",
            )  # fmt: skip
    if wanted <= bound and not missing:
        yield diagnosis.ok(
            f"{diagnosis.counted(len(wanted), 'admission policy', 'admission policies')} in force"
        )


def webhooks(kube: kubectl.Kubectl) -> Iterator[diagnosis.Finding]:
    """The API server knows the operator's webhooks and by which CA to believe them."""
    name = kube.where.release
    for kind in ("mutatingwebhookconfiguration", "validatingwebhookconfiguration"):
        try:
            found = kube.read(kind, name, what=f"the {kind} {name} cannot be read")
        except kubectl.Failed as failed:
            if failed.kind is not kubectl.Kind.NOT_FOUND:
                raise
            why = (
                "new pods get no sidecar; the pod policy refuses those that need one"
                if kind[0] == "m"
                else ""
            )
            yield diagnosis.bad(f"there is no {kind} {name}", why, then=_UPGRADE)
            continue
        pem = trusted.of_webhook(found)
        if not pem:
            yield diagnosis.bad(
                f"{kind} {name} has no CA", "the API server believes no certificate of the operator's",
                then="see the operator's log; its leader writes the CA within seconds",
            )  # fmt: skip
            continue
        yield _certified(f"{kind} {name}", pem)


def _certified(what: str, pem: str) -> diagnosis.Finding:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=pem)
        ends = max(ssl.cert_time_to_seconds(str(each["notAfter"])) for each in context.get_ca_certs())
    except (ssl.SSLError, ValueError, KeyError):
        return diagnosis.bad(
            f"the CA in {what} cannot be read",
            "it is no certificate of an authority",
            then="correct webhook.certs",
        )
    left = ends - time.time()
    if left < _EXPIRES_SOON_SECONDS:
        said = "has expired" if left < 0 else f"expires within {int(left // 86_400) + 1} days"
        return diagnosis.bad(
            f"the CA in {what} {said}", "then nothing new can be injected",
            then="renew it (webhook.certs.mode provided), or see why the operator's leader does not",
        )  # fmt: skip
    return diagnosis.ok(f"{what} has a CA")


def settings(kube: kubectl.Kubectl) -> Iterator[diagnosis.Finding]:
    """The settings can be used as they are."""
    name = f"{kube.where.release}-settings"
    what = f"ConfigMap {kube.where.system_namespace}/{name}"
    try:
        held = kube.read("configmap", name, "-n", kube.where.system_namespace, what=f"{what} cannot be read")
    except kubectl.Failed as failed:
        if failed.kind is not kubectl.Kind.NOT_FOUND:
            raise
        yield diagnosis.bad(
            f"{what} is not there", "is this the right installation?", then="name it with --system-namespace and --release"
        )  # fmt: skip
        return
    read = manifests.settings(str((held.get("data") or {}).get("settings.yaml", "")))
    if isinstance(read, tuple):
        yield diagnosis.bad(
            f"the settings in {what} are not in force", str(read[0]), then="correct them in the chart's values and helm upgrade"
        )  # fmt: skip
    else:
        yield diagnosis.ok("the settings can be read")
        yield from lent.of_settings(read)


def replicas(kube: kubectl.Kubectl) -> Iterator[diagnosis.Finding]:
    """Enough of the operator and the prober is running."""
    where = kube.where.system_namespace
    for label, name, least in ((_OPERATORS, "operator", 2), (_PROBERS, "prober", 1)):
        pods = kube.items("pods", "-n", where, "-l", label, what=f"the {name}'s pods cannot be read")
        ready = [pod for pod in pods if _is_ready(pod)]
        why = diagnosis.several(f"{pod['metadata']['name']} is not ready" for pod in pods if pod not in ready)
        look = f"kubectl describe pods -n {where} -l {label}"
        if not pods and name == "prober":
            yield diagnosis.note(
                "there is no prober", "so servers are not listed unless a sidecar calls them"
            )
        elif not ready:
            yield diagnosis.bad(f"no {name} is ready", why or "there is no pod of it", then=look)
        elif len(ready) < least or len(ready) < len(pods):
            single = "with one replica a restart is a gap" if len(pods) < least else why
            yield diagnosis.note(f"{len(ready)} of {len(pods)} pods of the {name} ready", single, then=look)
        else:
            yield diagnosis.ok(f"{len(ready)} of {len(pods)} pods of the {name} ready")


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def lease(kube: kubectl.Kubectl) -> Iterator[diagnosis.Finding]:
    """One replica leads: it writes statuses and certificates."""
    name = kube.where.release
    what = f"Lease {kube.where.system_namespace}/{name}"
    look = f"kubectl logs -n {kube.where.system_namespace} -l {_OPERATORS}"
    try:
        spec = (
            kube.read("lease", name, "-n", kube.where.system_namespace, what=f"{what} cannot be read").get(
                "spec"
            )
            or {}
        )
    except kubectl.Failed as failed:
        if failed.kind is not kubectl.Kind.NOT_FOUND:
            raise
        yield diagnosis.bad(f"{what} is not there", "no operator has ever led", then=look)
        return
    holder = str(spec.get("holderIdentity") or "").partition("/")[0]
    try:
        age = (
            dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(str(spec.get("renewTime")))
        ).total_seconds()
    except ValueError:
        age = float("inf")
    if not holder:
        yield diagnosis.bad("nobody leads", f"{what} has no holder; no status is written", then=look)
    elif age > 2 * float(spec.get("leaseDurationSeconds") or 15):
        since = "" if age == float("inf") else f" for {int(age)} s"
        yield diagnosis.bad(
            f"{holder} leads and has not said so{since}", "its statuses are old (or this machine's clock is wrong)", then=look
        )  # fmt: skip
    else:
        yield diagnosis.ok(f"{holder} leads")


def objects(kube: kubectl.Kubectl) -> Iterator[diagnosis.Finding]:
    """What servers, policies and budgets say of themselves."""
    everything = ",".join(f"{kind.plural}.{names.GROUP}" for kind in kinds.KINDS)
    found = kube.items(everything, "-A", what="the servers, policies and budgets cannot be read")
    reasons: dict[tuple[str, str], list[str]] = {}
    silent = []
    for each in found:
        place = f"{each['kind']} {each['metadata']['namespace']}/{each['metadata']['name']}"
        said = {one["type"]: one for one in each.get("status", {}).get("conditions") or ()}
        if not said:
            silent.append(place)
        for one in said.values():
            if one["type"] != "Stalled" and one["status"] != "True":
                reasons.setdefault((one["type"], one["reason"]), []).append(place)
            elif one.get("reason") == "Frozen":
                reasons.setdefault(("Frozen", "Frozen"), []).append(place)
    if silent:
        yield diagnosis.bad(
            f"nobody has looked at {diagnosis.several(silent)}", "they have no status", then="see whether an operator leads"
        )  # fmt: skip
    if frozen := [place for (_, reason), places in reasons.items() if reason == "Frozen" for place in places]:
        yield diagnosis.bad(
            f"the operator is frozen on what it knew of {diagnosis.several(set(frozen))}", "it cannot read the API server reliably",
            then="read their conditions: kubectl describe outrider -A",
        )  # fmt: skip
    for (type_, reason), places in sorted(reasons.items()):
        if reason in ("Frozen", "NotLent") or type_ == "Ready":
            continue  # that no credential was needed yet is nothing to mend
        make = diagnosis.bad if type_ in ("Accepted", "Programmed") and reason != "Pending" else _noted
        first = min(places).partition(" ")
        yield make(
            f"{type_} is not true ({reason}) of {diagnosis.several(places)}",
            then=f"kubectl describe {_PLURALS[first[0]]}.{names.GROUP} -n {first[2].replace('/', ' ')}",
        )
    if found and not silent and not reasons:
        yield diagnosis.ok(f"{diagnosis.counted(len(found), 'object', 'objects')} in force")
    if not found:
        yield diagnosis.note(
            "there is no server, policy or budget yet, so nothing is allowed",
            then=f"apply some; their fields: kubectl explain mcpservers.{names.GROUP}.spec --recursive",
        )


def _noted(what: str, *, then: str) -> diagnosis.Finding:
    return diagnosis.note(what, then=then)


def injection(kube: kubectl.Kubectl) -> Iterator[diagnosis.Finding]:
    """Who opted in, and which pods came before that."""
    label = podnotes.Label.INJECTION
    enabled = kube.names("namespaces", "-l", f"{label}=enabled", what="the namespaces cannot be read")
    if not enabled:
        yield diagnosis.note(
            "no namespace has opted in", "pods get a sidecar only where somebody wants it",
            then=f"kubectl label namespace NAME {label}=enabled",
        )  # fmt: skip
        return
    selector = f"{podnotes.Label.INJECTED}!=true,{podnotes.Label.INJECT}!=disabled"
    late: dict[str, int] = {}
    for name in sorted(enabled):
        pods = kube.items(
            "pods", "-n", name, "-l", selector, "--field-selector", "status.phase!=Succeeded,status.phase!=Failed",
            what=f"the pods of namespace {name} cannot be read",
        )  # fmt: skip
        if pods:
            late[name] = len(pods)
    if late:
        count, first = sum(late.values()), min(late)
        yield diagnosis.bad(
            f"pods without a sidecar: {count}, in {diagnosis.several(late)}", "they are older than the label, and nothing governs them",
            then=f"make them anew: kubectl rollout restart deployment,statefulset,daemonset -n {first}",
        )  # fmt: skip
    else:
        yield diagnosis.ok(f"opted in: {diagnosis.several(enabled)}; every pod there has a sidecar")


def sidecars(kube: kubectl.Kubectl) -> Iterator[diagnosis.Finding]:
    """Every proxy, sidecars and probers, enforces what is in force, and has what it is to lend."""
    try:
        answer = proxy_status.asked(kube, "")
    except output.Stop as stop:
        yield diagnosis.Finding(
            diagnosis.Level.UNSEEN, "", "what sidecars enforce could not be asked", stop.message, stop.then
        )
        return
    rows = answer["sidecars"]
    states: dict[str, list[str]] = {}
    for row in rows:
        states.setdefault(proxy_status.state(row), []).append(f"{row['namespace']}/{row['pod']}")
    for state, pods in sorted(states.items()):
        if state != proxy_status.SYNCED:
            yield diagnosis.bad(
                f"{len(pods)} of {len(rows)} proxies are {state.lower()}", diagnosis.several(pods),
                then="outrider proxy-status -A",
            )  # fmt: skip
    if not answer.get("complete", False):
        yield diagnosis.note(
            "not every replica has been heard", str(answer.get("why", "")), then="outrider proxy-status -A"
        )
    if set(states) <= {proxy_status.SYNCED}:
        yield diagnosis.ok(
            f"{diagnosis.counted(len(rows), 'proxy', 'proxies')} in sync"
            if rows
            else "no sidecar is running yet"
        )
    amiss = [dataclasses.replace(found, check="lending") for found in lent.of_proxies(rows)]
    yield from amiss
    if rows and not amiss:
        yield diagnosis.Finding(diagnosis.Level.OK, "lending", "no proxy misses a credential or a key")


CHECKS: tuple[tuple[str, diagnosis.Check], ...] = (
    ("version", beforehand.version),
    ("kinds", definitions),
    ("policies", policies),
    ("webhooks", webhooks),
    ("settings", settings),
    ("replicas", replicas),
    ("leader", lease),
    ("objects", objects),
    ("injection", injection),
    ("sidecars", sidecars),
)
