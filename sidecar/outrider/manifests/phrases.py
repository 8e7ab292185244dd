# SPDX-License-Identifier: Apache-2.0
"""What pydantic objects to, in the words of the person who wrote the file.

Called by manifests. Refuses to echo a value, which may be a secret; names what is allowed instead.
"""

from __future__ import annotations

import difflib
from typing import Any

import pydantic
import pydantic_core

from outrider.manifests import tree
from outrider.manifests.problem import Problem
from outrider.resources import schemas

_WORDS = {
    "missing": "required field is missing",
    "string_type": "must be a string; put it in quotes",
    "int_type": "must be a whole number without quotes",
    "bool_type": "must be true or false without quotes",
    "tuple_type": "must be a list",
    "dict_type": "must be an object of names and values",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
}


def dotted(path: tuple[str | int, ...]) -> str:
    """`spec.rules[0].from` of a path."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.removeprefix(".")


def problems(file: str, document: tree.Node, kind: str, error: pydantic.ValidationError) -> list[Problem]:
    """Every objection of `error` about `document`, each on its line."""
    found = []
    details = error.errors(include_url=False, include_input=False)
    paths = [detail["loc"] for detail in details]
    for detail in details:
        path = detail["loc"]
        if detail["type"] == "too_short" and any(p[: len(path)] == path and p != path for p in paths):
            continue  # Its entries were there, but none was sound: they have problems of their own.
        field, message, allowed = _phrase(kind, detail)
        path = (
            detail["loc"] if detail["type"] != "outrider" else detail["loc"] + _steps(detail["ctx"]["field"])
        )
        found.append(Problem(file, document.line_of(path), field, message, allowed))
    return found


def _phrase(kind: str, detail: pydantic_core.ErrorDetails) -> tuple[str, str, tuple[str, ...]]:
    """(field, message, what is allowed) of one objection."""
    path, context = detail["loc"], detail.get("ctx", {})
    field, type_ = dotted(path), detail["type"]
    if type_ == "outrider":
        inner = context["field"]
        joint = "." if field and inner and not inner.startswith("[") else ""
        return f"{field}{joint}{inner}", context["text"], ()
    if type_ == "extra_forbidden":
        allowed = tuple(sorted(schemas.at(kind, path[:-1]).get("properties", {})))
        near = difflib.get_close_matches(str(path[-1]), allowed, n=1)
        return field, f'unknown field; did you mean "{near[0]}"?' if near else "unknown field.", allowed
    if type_ in ("enum", "literal_error"):
        node = schemas.at(kind, path)
        allowed = tuple(str(value) for value in node.get("enum", [node.get("const")]))
        return field, "is not one of the allowed values.", allowed
    return field, _WORDS.get(type_) or _bound(type_, context) or detail["msg"], ()


def _bound(type_: str, context: dict[str, Any]) -> str | None:
    """A sentence about a length, a size or a pattern."""
    if type_ == "string_pattern_mismatch":
        return f"does not match {context['pattern']}"
    if type_ in ("too_short", "string_too_short"):
        return f"is too short: at least {context['min_length']}"
    if type_ in ("too_long", "string_too_long"):
        return f"is too long: at most {context['max_length']}"
    return None


def _steps(field: str) -> tuple[str | int, ...]:
    """The path of a dotted field; a header's name may hold points, but then its parent's line is near enough."""
    steps: list[str | int] = []
    for part in field.replace("[", ".[").split("."):
        if part.startswith("[") and part.endswith("]"):
            steps.append(int(part[1:-1]))
        elif part:
            steps.append(part)
    return tuple(steps)
