# SPDX-License-Identifier: Apache-2.0
"""An injected pod, as far as anybody here needs it.

Made by the source from what it watches; read by the reviewer of tokens (is this pod known?), by fleet (who should enforce this?), by
arrivals (what did it get?) and by the command line's status. Refuses to keep anything else of a pod: its environment and volumes are
not our business.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

from outrider import podnotes
from outrider.injection import given

INJECTED_LABEL = podnotes.Label.INJECTED.value
CONTAINER = given.CONTAINER
STATUS_CHARACTERS_MAX = 8_192
"""Of the annotation; a longer one is not as injection writes it, and is not kept."""

_OWNER = ("apiVersion", "kind", "name", "uid")


@dataclasses.dataclass(frozen=True, slots=True)
class Pod:
    """`image` is that of our container, '' when it has none; `phase` as Kubernetes says it."""

    uid: str
    namespace: str
    name: str
    service_account: str
    phase: str = ""
    image: str = ""
    node: str = ""
    deleting: bool = False

    @property
    def subject(self) -> tuple[str, str]:
        return self.namespace, self.service_account

    @property
    def running(self) -> bool:
        """True while agents may be calling from it."""
        return self.phase == "Running" and not self.deleting

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def trim(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A pod as the API server returns it, less everything that `pod` and arrivals do not read."""
    metadata, spec = raw.get("metadata") or {}, raw.get("spec") or {}
    kept = ("name", "namespace", "uid", "resourceVersion", "deletionTimestamp", "creationTimestamp")
    containers = [each for each in spec.get("initContainers") or () if each.get("name") == CONTAINER]
    return {
        "metadata": {**{name: metadata[name] for name in kept if name in metadata}, **_origin(metadata)},
        "spec": {
            "serviceAccountName": spec.get("serviceAccountName") or "default",
            "nodeName": spec.get("nodeName") or "",
            "initContainers": [{"name": CONTAINER, "image": each.get("image", "")} for each in containers],
        },
        "status": {"phase": (raw.get("status") or {}).get("phase", "")},
    }


def _origin(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What injection wrote, and the controller; pods of one controller share the words."""
    found: dict[str, Any] = {}
    status = (metadata.get("annotations") or {}).get(podnotes.Annotation.STATUS.value, "")
    if status and len(status) <= STATUS_CHARACTERS_MAX:
        found["annotations"] = {podnotes.Annotation.STATUS.value: sys.intern(status)}
    owner = next((each for each in metadata.get("ownerReferences") or () if each.get("controller")), None)
    if owner is not None:
        words = {name: sys.intern(str(owner.get(name, ""))) for name in _OWNER}
        found["ownerReferences"] = [{**words, "controller": True}]
    return found


def pod(raw: Mapping[str, Any]) -> Pod:
    """The Pod of what `trim` left."""
    metadata, spec = raw["metadata"], raw["spec"]
    containers = spec["initContainers"]
    return Pod(
        uid=metadata.get("uid", ""),
        namespace=metadata.get("namespace", ""),
        name=metadata.get("name", ""),
        service_account=spec["serviceAccountName"],
        phase=raw["status"]["phase"],
        image=containers[0]["image"] if containers else "",
        node=spec["nodeName"],
        deleting="deletionTimestamp" in metadata,
    )
