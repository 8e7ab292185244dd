# SPDX-License-Identifier: Apache-2.0
"""The CustomResourceDefinitions, made of the models.

Called by the operator's `crds` module, which writes `crds/`, and by the test that they are fresh. Refuses (by assertion)
what a structural schema cannot hold. Objects of the spec keep unknown fields: `unknown_fields` refuses them by name, where
dropping them would turn a typo into another meaning.
"""

from __future__ import annotations

from typing import Any

import yaml

from outrider import names
from outrider.resources import fields, forms, kinds, schemas, status

_DROPPED = (
    "title",
    "additionalProperties",
    "default",
    "const",
    fields.FILES_ONLY_MARK,
    fields.CHECKED_LAST_MARK,
)
_AS_THEY_ARE = (fields.ACCOUNT_PATTERN, fields.PRINCIPAL_PATTERN)
_UNKNOWN_KEPT = "x-kubernetes-preserve-unknown-fields"


def crds() -> dict[str, str]:
    """File name to YAML text of every CRD; the same bytes each time."""
    return {f"{names.GROUP}_{kind.plural}.yaml": _text(_definition(kind)) for kind in kinds.KINDS}


def _text(definition: dict[str, Any]) -> str:
    body = yaml.safe_dump(definition, sort_keys=False, width=110, allow_unicode=True)
    return f"# SPDX-License-Identifier: Apache-2.0\n# Generated from outrider.resources; `python -m outrider_operator.crds` writes it anew.\n{body}"


def _definition(kind: kinds.Kind) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{names.GROUP}",
            "labels": {kinds.REVISION_LABEL: str(kinds.REVISION)},
        },
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
            "versions": [
                {
                    "name": kinds.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _columns(kind),
                    "schema": {"openAPIV3Schema": _whole(kind)},
                }
            ],
        },
    }


def _columns(kind: kinds.Kind) -> list[dict[str, Any]]:
    made = []
    for column in kind.columns:
        shown: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.path}
        made.append({**shown, "priority": 1} if column.wide else shown)
    return [*made, {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]


def _whole(kind: kinds.Kind) -> dict[str, Any]:
    model = schemas.schema(kind.name)
    # An object's name is half of a rule's or a server's name everywhere: a label, not just any DNS name.
    named = {
        "rule": fields.matches("self.metadata.name", fields.LABEL_PATTERN),
        "message": f"must be {forms.FORMS[fields.LABEL_PATTERN]}",
        "fieldPath": ".metadata.name",
    }
    return {
        "type": "object",
        "description": model["description"],
        _UNKNOWN_KEPT: True,
        "required": ["spec"],
        "x-kubernetes-validations": [named],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 63}}},
            "spec": _structural(model["properties"]["spec"], in_list=False),
            "status": status.schema(kind.name),
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
    if node.get("pattern") not in (None, *_AS_THEY_ARE):
        _in_words(made)
    if "properties" in node:
        made[_UNKNOWN_KEPT] = True
        kept = {
            name: child for name, child in node["properties"].items() if not child.get(fields.FILES_ONLY_MARK)
        }
        made["properties"] = {name: _structural(child, in_list=in_list) for name, child in kept.items()}
        if not in_list:
            _default_parents(made["properties"], kept, set(node.get("required", ())))
        required = [name for name in node.get("required", ()) if name in kept]
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


def _in_words(made: dict[str, Any]) -> None:
    """A pattern as a CEL rule: the API server would quote the expression to people, and this says what it allows.

    Not those of _AS_THEY_ARE: in lists within lists they would cost more than an API server allows.
    """
    pattern = made.pop("pattern")
    rule = {"rule": fields.matches("self", pattern), "message": f"must be {forms.FORMS[pattern]}"}
    made["x-kubernetes-validations"] = [rule, *made.get("x-kubernetes-validations", ())]


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
