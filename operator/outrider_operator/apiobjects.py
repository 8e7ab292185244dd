# SPDX-License-Identifier: Apache-2.0
"""The API server's own kinds as JSON: what is asked, and what an answer says.

Called by cluster, which asks. Does no I/O and reads no clock.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from outrider import names

REPORTING_CONTROLLER = "outrider.dev/operator"
EVENT_BYTES_MAX = 1_024
"""Of an event's note; the API server refuses more."""

_ACCOUNT = "system:serviceaccount:"
_POD_NAME = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"


@dataclasses.dataclass(frozen=True, slots=True)
class Review:
    """Whose token it is. `pod` and `pod_uid` are "" for a token that is not bound to a pod."""

    username: str
    groups: tuple[str, ...]
    uid: str
    pod: str
    pod_uid: str

    @property
    def account(self) -> tuple[str, str] | None:
        """Namespace and name of the ServiceAccount; None for anybody else."""
        namespace, colon, name = self.username.removeprefix(_ACCOUNT).partition(":")
        return (namespace, name) if colon and self.username.startswith(_ACCOUNT) else None


class Attributes(TypedDict, total=False):
    """What somebody may or may not do. Without `namespace` all of them are meant."""

    verb: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Secret:
    """A Secret as it was read; `version` is its resourceVersion."""

    namespace: str
    name: str
    version: str
    data: Mapping[str, bytes]
    annotations: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Regarding:
    """What an event is about."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str = ""


class CrdState(enum.StrEnum):
    """Whether the objects of a kind can be believed. ABSENT includes a CRD that is not served yet."""

    ESTABLISHED = "Established"
    TERMINATING = "Terminating"
    ABSENT = "Absent"


def token_review(token: str, audience: str) -> dict[str, Any]:
    """The question whose token it is."""
    return {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": [audience]},
    }


def review(answer: Mapping[str, Any], audience: str) -> Review | None:
    """What a TokenReview found. A server that knows nothing of audiences names none, and has then not checked ours."""
    status = answer.get("status") or {}
    if not status.get("authenticated") or audience not in (status.get("audiences") or ()):
        return None
    user = status.get("user") or {}
    extra = user.get("extra") or {}
    return Review(
        username=user.get("username", ""),
        groups=tuple(user.get("groups") or ()),
        uid=user.get("uid", ""),
        pod=_first(extra.get(_POD_NAME)),
        pod_uid=_first(extra.get(_POD_UID)),
    )


def access_review(username: str, groups: Sequence[str], about: Attributes) -> dict[str, Any]:
    """The question whether somebody may."""
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": username, "groups": list(groups), "resourceAttributes": dict(about)},
    }


def event(regarding: Regarding, *, type_: str, reason: str, action: str, note: str) -> dict[str, Any]:
    """An Event without its time and instance. The same said of the same object has the same name, whoever says it."""
    note = note.encode()[:EVENT_BYTES_MAX].decode(errors="ignore")
    said = repr((regarding.kind, regarding.uid, type_, reason, action, note))
    name = f"{regarding.name[:200].rstrip('.-')}.{hashlib.sha256(said.encode()).hexdigest()[:16]}"
    about = {
        "apiVersion": regarding.api_version,
        "kind": regarding.kind,
        "name": regarding.name,
        "namespace": regarding.namespace,
        "uid": regarding.uid,
    }
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": regarding.namespace or "default"},
        "type": type_,
        "reason": reason,
        "action": action,
        "note": note,
        "reportingController": REPORTING_CONTROLLER,
        "regarding": {key: value for key, value in about.items() if value},
    }


def status(kind: str, namespace: str, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The whole status of one of our objects. A uid beside it would be ignored on a status, so none is given."""
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata, "status": given}


def ca_bundle(kind: str, name: str, ca_pem: str, webhooks: Sequence[str]) -> dict[str, Any]:
    """Of a webhook configuration, only whom the API server trusts when it calls."""
    bundle = {"caBundle": base64.b64encode(ca_pem.encode()).decode()}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name},
        "webhooks": [{"name": each, "clientConfig": bundle} for each in webhooks],
    }


def secret(found: Mapping[str, Any]) -> Secret:
    metadata = found["metadata"]
    return Secret(
        namespace=metadata["namespace"],
        name=metadata["name"],
        version=metadata["resourceVersion"],
        data={key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()},
        annotations=dict(metadata.get("annotations") or {}),
    )


def secret_patch(before: Secret, data: Mapping[str, bytes], annotations: Mapping[str, str]) -> dict[str, Any]:
    """A merge patch: `data` instead of what was there, if nobody wrote since."""
    gone: dict[str, str | None] = {key: None for key in before.data if key not in data}
    given = {key: base64.b64encode(value).decode() for key, value in data.items()}
    metadata = {"resourceVersion": before.version, "annotations": dict(annotations)}
    return {"metadata": metadata, "data": {**gone, **given}}


def crd_state(found: Mapping[str, Any] | None) -> CrdState:
    """Of a CustomResourceDefinition as it was read; None when there is none."""
    if found is None:
        return CrdState.ABSENT
    conditions = (found.get("status") or {}).get("conditions") or ()
    holds = {each.get("type") for each in conditions if each.get("status") == "True"}
    if found["metadata"].get("deletionTimestamp") or "Terminating" in holds:
        return CrdState.TERMINATING
    return CrdState.ESTABLISHED if "Established" in holds else CrdState.ABSENT


def _first(given: Any) -> str:
    return str(given[0]) if isinstance(given, list) and given else ""
