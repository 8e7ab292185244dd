# SPDX-License-Identifier: Apache-2.0
"""The CustomResourceDefinitions, made of the models.

Called by the operator's `crds` module, which writes `crds/`, and by the test that they are fresh. Refuses (by assertion)
what a structural schema cannot hold.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import yaml

from outrider import names
from outrider.resources import schemas

_DROPPED = (
    "title",
    "additionalProperties",
    "default",
    "const",
    "x-outrider-files-only",
    "x-outrider-crd-required",
)


@dataclasses.dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    plural: str
    short: str
    columns: tuple[tuple[str, str, str], ...]


_KINDS = (
    _Kind(
        "MCPServer",
        "mcpservers",
        "orsrv",
        (
            ("Version", "string", ".spec.version"),
            ("Lifecycle", "string", ".spec.lifecycle"),
            ("Url", "string", ".spec.endpoint.url"),
        ),
    ),
    _Kind("MCPToolPolicy", "mcptoolpolicies", "orpol", (("Mode", "string", ".spec.mode"),)),
    _Kind("MCPBudget", "mcpbudgets", "orbud", (("OnExceeded", "string", ".spec.onExceeded"),)),
)


def crds() -> dict[str, str]:
    """File name to YAML text of every CRD; the same bytes each time."""
    return {f"{names.GROUP}_{kind.plural}.yaml": _text(_definition(kind)) for kind in _KINDS}


def _text(definition: dict[str, Any]) -> str:
    body = yaml.safe_dump(definition, sort_keys=False, width=110, allow_unicode=True)
    return f"# SPDX-License-Identifier: Apache-2.0\n# Generated from outrider.resources; `python -m outrider_operator.crds` writes it anew.\n{body}"


def _definition(kind: _Kind) -> dict[str, Any]:
    columns = [{"name": name, "type": type_, "jsonPath": path} for name, type_, path in kind.columns]
    columns.append({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"})
    model = schemas.schema(kind.name)
    version = {
        "name": names.API_VERSION.rpartition("/")[2],
        "served": True,
        "storage": True,
        "additionalPrinterColumns": columns,
        "schema": {
            "openAPIV3Schema": {
                "type": "object",
                "description": model["description"],
                "required": ["spec"],
                "properties": {
                    "apiVersion": {"type": "string"},
                    "kind": {"type": "string"},
                    "metadata": {"type": "object"},
                    "spec": _structural(model["properties"]["spec"], in_list=False),
                },
            }
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short],
                "categories": ["outrider"],
            },
            "versions": [version],
        },
    }


def _structural(node: dict[str, Any], *, in_list: bool) -> dict[str, Any]:
    """A structural schema of `node`: no references, unions, titles; defaults only outside list items."""
    node = schemas.plain(node)
    made = {
        key: value for key, value in node.items() if key not in (*_DROPPED, "properties", "items", "required")
    }
    if "const" in node:
        made["enum"] = [node["const"]]
        made["type"] = "boolean" if isinstance(node["const"], bool) else "string"
    if "properties" in node:
        kept = {
            name: child
            for name, child in node["properties"].items()
            if not child.get("x-outrider-files-only")
        }
        made["properties"] = {name: _structural(child, in_list=in_list) for name, child in kept.items()}
        if not in_list:
            _default_parents(made["properties"], kept, set(node.get("required", ())))
        required = [name for name in node.get("required", ()) if name in kept]
        required += node.get("x-outrider-crd-required", [])
        if required:
            made["required"] = required
    elif isinstance(node.get("additionalProperties"), dict):
        made["additionalProperties"] = _structural(node["additionalProperties"], in_list=True)
    if "items" in node:
        made["items"] = _structural(node["items"], in_list=True)
        made.setdefault("x-kubernetes-list-type", "atomic")
    default = node.get("default")
    if default is not None and not in_list and default != []:
        made["default"] = default
    return made


def _default_parents(made: dict[str, Any], given: dict[str, Any], required: set[str]) -> None:
    """An absent object whose fields have defaults defaults to {}: the API server fills in nothing below what is absent."""
    for name, child in given.items():
        if (
            name not in required
            and child.get("type") == "object"
            and "properties" in child
            and "default" not in child
        ):
            made[name]["default"] = {}
