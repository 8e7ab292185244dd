# SPDX-License-Identifier: Apache-2.0
"""Reading pods that nobody has checked: every field may be missing, null or of another type.

Called by the modules of injection. What is not of the expected type reads as empty; the API server refuses it afterwards,
in its own words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from outrider import podnotes
from outrider.injection import given


def mapping(holder: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = holder.get(name)
    return found if isinstance(found, Mapping) else {}


def sequence(holder: Mapping[str, Any], name: str) -> list[Any]:
    found = holder.get(name)
    return found if isinstance(found, list) else []


def objects(holder: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """Those members of a list that are objects."""
    return [each for each in sequence(holder, name) if isinstance(each, Mapping)]


def spec(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    return mapping(pod, "spec")


def notes(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """The pod's annotations."""
    return mapping(mapping(pod, "metadata"), "annotations")


def label(pod: Mapping[str, Any], which: podnotes.Label) -> Any:
    return mapping(mapping(pod, "metadata"), "labels").get(which)


def name(container: Mapping[str, Any]) -> str:
    found = container.get("name")
    return found if isinstance(found, str) else ""


def others(pod: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The containers and init containers that are not ours."""
    yield from (each for each in objects(spec(pod), "initContainers") if name(each) != given.CONTAINER)
    yield from objects(spec(pod), "containers")


def uid(pod: Mapping[str, Any], container: Mapping[str, Any]) -> int | None:
    """The uid a container is said to run as: its own word or the pod's; None when it is left to the image."""
    for holder in (container, spec(pod)):
        found = mapping(holder, "securityContext").get("runAsUser")
        if isinstance(found, int):
            return found
    return None


def account(pod: Mapping[str, Any]) -> str:
    """The pod's ServiceAccount."""
    found = spec(pod).get("serviceAccountName")
    return found if isinstance(found, str) and found else "default"
