# SPDX-License-Identifier: Apache-2.0
"""The installation's settings as a ConfigMap holds them: one key with one document of kind Settings.

Called by `kubernetes`. Refuses to guess: an absent ConfigMap is a problem like a broken one, for teams say whom a Deny is about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from outrider import manifests, resources

KEY = "settings.yaml"

Found = Mapping[tuple[str, str], Mapping[str, Any]]
"""ConfigMaps by (namespace, name)."""


def trim(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A ConfigMap, less what `read` does not look at."""
    metadata, data = raw.get("metadata") or {}, raw.get("data") or {}
    kept = {name: metadata[name] for name in ("name", "namespace", "resourceVersion") if name in metadata}
    return {"metadata": kept, "data": {name: data[name] for name in (KEY,) if name in data}}


def read(found: Found, namespace: str, name: str) -> resources.Settings | tuple[manifests.Problem, ...]:
    """The settings, or every problem, never none."""
    place = f"ConfigMap {namespace}/{name}"
    given = found.get((namespace, name))
    if given is None:
        return (manifests.Problem(place, 0, "", "does not exist; the Helm chart makes it"),)
    text = given["data"].get(KEY)
    if not isinstance(text, str):
        return (manifests.Problem(place, 0, KEY, "is missing; it holds one document of kind Settings"),)
    return manifests.settings(text, file=f"{place} {KEY}")
