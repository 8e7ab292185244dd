# SPDX-License-Identifier: Apache-2.0
"""ValidatingAdmissionPolicies that refuse a field which does not exist, by its path.

Called by whatever prints `crds/`. An API server drops an unknown field without a word where nobody asks it to be strict, and a
rule with `form:` for `from:` would then be about everyone. So the CRDs keep unknown fields, and these policies, which need none
of our processes, refuse them. Refuses (by assertion) a shape it could not look into. The expressions use only what an API
server 1.32 knows: no comprehensions with two variables, no ranges.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import yaml

from outrider import names
from outrider.resources import fields, kinds, schemas

_TOP = ("apiVersion", "kind", "metadata", "spec", "status")
"""Of these only `spec` is looked into: the metadata is the API server's own, and a status is dropped from what is written here."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where objects with named fields stand: the way to it, each step with the most entries if it is a list, 0 if not."""

    steps: tuple[tuple[str, int], ...]
    allowed: tuple[str, ...]
    laptop: tuple[str, ...] = ()
    """Fields that exist in files of a laptop only."""

    @property
    def name(self) -> str:
        return "in_" + ("_".join(step for step, _ in self.steps) or "object")


def field_policies() -> dict[str, str]:
    """File name to YAML text of the policy of every kind with its binding; the same bytes each time."""
    return {f"unknown-fields_{kind.plural}.yaml": _text(kind) for kind in kinds.KINDS}


def places(kind: str) -> tuple[Place, ...]:
    """Every place of a kind, from the outside in."""
    top = Place((), _TOP)
    spec = schemas.schema(kind)["properties"]["spec"]
    return (top, *_below(spec, (("spec", 0),)))


def _below(node: dict[str, Any], steps: tuple[tuple[str, int], ...]) -> Iterator[Place]:
    node = schemas.plain(node)
    if "properties" not in node:
        inner = node.get("additionalProperties")
        assert not isinstance(inner, dict) or inner.get("type") == "string", (
            "a map of objects is not looked into"
        )
        return
    laptop = tuple(n for n, child in node["properties"].items() if child.get(fields.FILES_ONLY_MARK))
    kept = {n: schemas.plain(child) for n, child in node["properties"].items() if n not in laptop}
    yield Place(steps, tuple(sorted(kept)), laptop)
    for name, child in kept.items():
        if "items" in child:
            yield from _below(child["items"], (*steps, (name, child["maxItems"])))
        else:
            yield from _below(child, (*steps, (name, 0)))


def _text(kind: kinds.Kind) -> str:
    head = "# SPDX-License-Identifier: Apache-2.0\n# Generated from outrider.resources; `python -m outrider_operator.crds` writes it anew.\n"
    documents = (_policy(kind), _binding(kind))
    return head + yaml.safe_dump_all(documents, sort_keys=False, width=110, allow_unicode=True)


def _about(kind: kinds.Kind) -> dict[str, Any]:
    return {
        "name": f"outrider-unknown-fields-{kind.plural}",
        "labels": {kinds.REVISION_LABEL: str(kinds.REVISION)},
    }


def _binding(kind: kinds.Kind) -> dict[str, Any]:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": _about(kind),
        "spec": {"policyName": _about(kind)["name"], "validationActions": ["Deny"]},
    }


def _policy(kind: kinds.Kind) -> dict[str, Any]:
    found = places(kind.name)
    # `dyn`: the declared fields are not all there may be, which is the point.
    whole = {"name": "whole", "expression": "dyn(object)"}
    bounds = sorted({most for place in found for _, most in place.steps if most})
    counts = [
        {"name": f"to_{most}", "expression": f"[{', '.join(str(number) for number in range(most))}]"}
        for most in bounds
    ]
    each = [{"name": place.name, "expression": _unknown(place)} for place in found]
    together = {"name": "unknown", "expression": " + ".join(f"variables.{place.name}" for place in found)}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": _about(kind),
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "matchPolicy": "Equivalent",
                "namespaceSelector": {},
                "objectSelector": {},
                "resourceRules": [
                    {
                        "apiGroups": [names.GROUP],
                        "apiVersions": [kinds.VERSION],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": [kind.plural],
                        "scope": "*",
                    }
                ],
            },
            # What is being deleted must stay deletable, whatever it holds.
            "matchConditions": [
                {"name": "not-being-deleted", "expression": "!has(object.metadata.deletionTimestamp)"}
            ],
            "variables": [whole, *counts, *each, together],
            "validations": [
                {
                    "expression": "size(variables.unknown) == 0",
                    "messageExpression": "variables.unknown.join('; ')",
                    "message": "it has more unknown fields than can be listed, or one with a strange name; "
                    f"`kubectl explain {kind.plural}.{names.GROUP} --recursive` lists those that exist",
                    "reason": "Invalid",
                }
            ],
        },
    }


def _unknown(place: Place) -> str:
    """CEL: a text for every unknown field of the place."""
    return _walk(place, "variables.whole", "''", 0)


def _walk(place: Place, value: str, path: str, at: int) -> str:
    """The same from step `at` on, which stands at `value` (CEL) and is called `path` (CEL of a text)."""
    if at == len(place.steps):
        return _among(place, value, path)
    name, entries_max = place.steps[at]
    inner, called = f"{value}.{name}", _joined(path, f"{'.' if at else ''}{name}")
    if not entries_max:
        return f"(has({inner}) ? {_walk(place, inner, called, at + 1)} : [])"
    index = f"i{at}"
    called = f"{_joined(called, '[')} + string({index}) + ']'"
    entry = _walk(place, f"{inner}[{index}]", called, at + 1)
    return (
        f"(has({inner}) ? variables.to_{entries_max}.filter({index}, {index} < size({inner}))"
        f".map({index}, {entry}.join('; ')).filter(t, t != '') : [])"
    )


def _among(place: Place, value: str, path: str) -> str:
    known = ", ".join(f"'{name}'" for name in place.allowed)
    text = f"': unknown field; allowed: {', '.join(place.allowed)}'"
    if place.laptop:
        only = ", ".join(f"'{name}'" for name in place.laptop)
        text = f"(k in [{only}] ? ': exists only in files that outrider dev reads; remove it' : {text})"
    called = _joined(path, "." if place.steps else "")
    return f"{value}.filter(k, !(k in [{known}])).map(k, {called} + string(k) + {text})"


def _joined(path: str, more: str) -> str:
    """CEL of the text `path` with `more` after it; literals side by side become one."""
    return f"{path[:-1]}{more}'" if path.endswith("'") else f"{path} + '{more}'"
