# SPDX-License-Identifier: Apache-2.0
"""ValidatingAdmissionPolicies that refuse a field which does not exist, by its path, and after that what was left out.

Called by whatever prints `crds/`. An API server drops an unknown field without a word where nobody asks it to be strict, and a
rule with `form:` for `from:` would then be about everyone. So the CRDs keep unknown fields, and these policies, which need none
of our processes, refuse them. What a misspelling makes look forgotten (`fields.checked_last`) is told after it. Refuses (by assertion) a shape it could not look into. The expressions use only what an API
server 1.32 knows: no comprehensions with two variables, no ranges.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from outrider import names
from outrider.resources import fields, kinds, schemas

_SELF = re.compile(r"\bself\b")

_TOP = ("apiVersion", "kind", "metadata", "spec", "status")
"""Of these only `spec` is looked into: the metadata is the API server's own, and a status is dropped from what is written here."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where objects with named fields stand: the way to it, each step with the most entries if it is a list, 0 if not."""

    steps: tuple[tuple[str, int], ...]
    allowed: tuple[str, ...]
    laptop: tuple[str, ...] = ()
    """Fields that exist in files of a laptop only."""
    last: tuple[tuple[str, str], ...] = ()
    """(CEL rule about `self`, message) pairs."""

    @property
    def name(self) -> str:
        return "_".join(step for step, _ in self.steps) or "object"


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
    last = tuple((each["rule"], each["message"]) for each in node.get(fields.CHECKED_LAST_MARK, ()))
    yield Place(steps, tuple(sorted(kept)), laptop, last)
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
    unknown = [{"name": f"in_{place.name}", "expression": _walk(place, _among)} for place in found]
    missing = [
        {"name": f"of_{place.name}", "expression": _walk(place, _against)} for place in found if place.last
    ]
    together = [_together("unknown", unknown), _together("missing", missing)]
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
            "variables": [whole, *counts, *unknown, *missing, *together],
            "validations": [
                {
                    "expression": "size(variables.unknown) == 0",
                    "messageExpression": "variables.unknown.join('; ')",
                    "message": "it has more unknown fields than can be listed, or one with a strange name; "
                    f"`kubectl explain {kind.plural}.{names.GROUP} --recursive` lists those that exist",
                    "reason": "Invalid",
                },
                {
                    "expression": "size(variables.missing) == 0",
                    "messageExpression": "variables.missing.join('; ')",
                    "message": f"it leaves out what is needed; `kubectl explain {kind.plural}.{names.GROUP} --recursive` lists the fields",
                    "reason": "Invalid",
                },
            ],
        },
    }


def _together(name: str, parts: list[dict[str, str]]) -> dict[str, str]:
    return {"name": name, "expression": " + ".join(f"variables.{part['name']}" for part in parts) or "[]"}


_Complaints = Callable[[Place, str, str], str]
"""CEL of a list of texts about the object at a value (CEL), which is called by a path (CEL of a text)."""


def _walk(
    place: Place, complaints: _Complaints, value: str = "variables.whole", path: str = "''", at: int = 0
) -> str:
    """CEL: the complaints about every object of a place, from step `at` of the way on."""
    if at == len(place.steps):
        return complaints(place, value, path)
    name, entries_max = place.steps[at]
    inner, called = f"{value}.{name}", _joined(path, f"{'.' if at else ''}{name}")
    if not entries_max:
        return f"(has({inner}) ? {_walk(place, complaints, inner, called, at + 1)} : [])"
    index = f"i{at}"
    called = f"{_joined(called, '[')} + string({index}) + ']'"
    entry = _walk(place, complaints, f"{inner}[{index}]", called, at + 1)
    return (
        f"(has({inner}) ? variables.to_{entries_max}.filter({index}, {index} < size({inner}))"
        f".map({index}, {entry}.join('; ')).filter(t, t != '') : [])"
    )


def _among(place: Place, value: str, path: str) -> str:
    """A text for every unknown field."""
    known = ", ".join(f"'{name}'" for name in place.allowed)
    text = f"': unknown field; allowed: {', '.join(place.allowed)}'"
    if place.laptop:
        only = ", ".join(f"'{name}'" for name in place.laptop)
        text = f"(k in [{only}] ? ': exists only in files that outrider dev reads; remove it' : {text})"
    called = _joined(path, "." if place.steps else "")
    return f"{value}.filter(k, !(k in [{known}])).map(k, {called} + string(k) + {text})"


def _against(place: Place, value: str, path: str) -> str:
    """A text for every rule of `last` that does not hold."""
    found = []
    for rule, message in place.last:
        quoted = message.replace("\\", "\\\\").replace("'", "\\'")
        found.append(f"({_SELF.sub(value, rule)} ? [] : [{_joined(path, f': {quoted}')}])")
    return " + ".join(found)


def _joined(path: str, more: str) -> str:
    """CEL of the text `path` with `more` after it; literals side by side become one."""
    return f"{path[:-1]}{more}'" if path.endswith("'") else f"{path} + '{more}'"
