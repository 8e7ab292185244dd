# SPDX-License-Identifier: Apache-2.0
"""JSON schemas of the kinds with every reference written out.

Called by manifests (which names the fields that exist where an unknown one stands) and by crd. Refuses nothing: our models
do not recurse, so writing references out ends.
"""

from __future__ import annotations

import functools
from typing import Any

from outrider.resources import world


@functools.cache
def schema(kind: str) -> dict[str, Any]:
    """The JSON schema of `kind` (a key of world.KINDS), references inlined. Callers must not change it."""
    raw = world.KINDS[kind].model_json_schema(by_alias=True, mode="validation")
    inlined = _inlined(raw, raw.get("$defs", {}))
    assert isinstance(inlined, dict)
    return inlined


def at(kind: str, path: tuple[str | int, ...]) -> dict[str, Any]:
    """The schema of what stands at `path` in an object of `kind`; {} where there is none."""
    found: dict[str, Any] = schema(kind)
    for step in path:
        found = plain(found)
        named = found.get("properties", {}).get(step, found.get("additionalProperties"))
        inner = found.get("items") if isinstance(step, int) else named
        if not isinstance(inner, dict):
            return {}
        found = inner
    return plain(found)


def plain(node: dict[str, Any]) -> dict[str, Any]:
    """`node` without pydantic's way of saying optional: X for anyOf [X, null], with the description kept."""
    options = [option for option in node.get("anyOf", ()) if option.get("type") != "null"]
    if not options:
        return node
    assert len(options) == 1, "a union of two types has no place in a structural schema"
    rest = {key: value for key, value in node.items() if key not in ("anyOf", "default")}
    return {**options[0], **rest}


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inlined(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = _inlined(definitions[node["$ref"].rpartition("/")[2]], definitions)
        return {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    return {key: _inlined(value, definitions) for key, value in node.items() if key != "$defs"}
