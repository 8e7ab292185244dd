# SPDX-License-Identifier: Apache-2.0
"""What pydantic objects to, in the words of the person who wrote the file.

Called by manifests. Refuses to echo a value, which may be a secret; names what is allowed instead.
"""

from __future__ import annotations

import difflib
import json
from typing import Any

import pydantic
import pydantic_core

from outrider.manifests import tree
from outrider.manifests.problem import Problem
from outrider.resources import fields, forms, schemas

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


def problems(
    file: str,
    document: tree.Node | None,
    kind: str,
    error: pydantic.ValidationError,
    *,
    laptop: bool = True,
) -> list[Problem]:
    """Every objection of `error` about `document`, each on its line; line 0 when it came from no file.

    Unless `laptop`, fields that exist in files only are not among what is allowed.
    """
    found = []
    details = error.errors(include_url=False, include_input=False)
    paths = [detail["loc"] for detail in details]
    for detail in details:
        path = detail["loc"]
        if detail["type"] == "too_short" and any(p[: len(path)] == path and p != path for p in paths):
            continue  # Its entries were there, but none was sound: they have problems of their own.
        field, message, allowed = _phrase(kind, detail, laptop=laptop)
        path = (
            detail["loc"] if detail["type"] != "outrider" else detail["loc"] + _steps(detail["ctx"]["field"])
        )
        line = document.line_of(path) if document else 0
        found.append(Problem(file, line, field, message, allowed))
    return found


def _phrase(
    kind: str, detail: pydantic_core.ErrorDetails, *, laptop: bool
) -> tuple[str, str, tuple[str, ...]]:
    """(field, message, what is allowed) of one objection."""
    path, context = detail["loc"], detail.get("ctx", {})
    field, type_ = dotted(path), detail["type"]
    if type_ == "outrider":
        inner = context["field"]
        joint = "." if field and inner and not inner.startswith("[") else ""
        return f"{field}{joint}{inner}", context["text"], ()
    if type_ == "extra_forbidden":
        here = schemas.at(kind, path[:-1]).get("properties", {})
        allowed = tuple(sorted(n for n in here if laptop or not here[n].get(fields.FILES_ONLY_MARK)))
        near = difflib.get_close_matches(str(path[-1]), allowed, n=1)
        return field, f'unknown field; did you mean "{near[0]}"?' if near else "unknown field.", allowed
    if type_ in ("enum", "literal_error"):
        node = schemas.at(kind, path)
        allowed = tuple(_as_written(value) for value in node.get("enum", [node.get("const")]))
        return field, "is not one of the allowed values.", allowed
    return field, _WORDS.get(type_) or _form(schemas.at(kind, path), type_, context), ()


def _as_written(value: Any) -> str:
    """A value as it stands in a file: `true`, not `True`."""
    return value if isinstance(value, str) else json.dumps(value)


def _form(node: dict[str, Any], type_: str, context: dict[str, Any]) -> str:
    """What is allowed at a place of the schema `node`: the form of a text, the bounds of a number, the length of a list."""
    if type_.startswith("string_"):
        what = forms.FORMS.get(node.get("pattern", ""), "text")
        least, most = node.get("minLength", 0), node.get("maxLength")
        if type_ == "string_too_long" and most is not None:
            return f"must be {what} (at most {most} characters)"
        return (
            f"must be {what} (at least {least} characters)"
            if type_ == "string_too_short"
            else f"must be {what}"
        )
    if type_ in ("too_short", "too_long"):
        few = type_ == "too_short"
        bound = f"at least {context['min_length']}" if few else f"at most {context['max_length']}"
        return f"has too {'few' if few else 'many'} entries: {bound}"
    if node.get("type") == "integer":
        return f"must be a whole number{_between(node.get('minimum'), node.get('maximum'))}"
    return "is not what is allowed here; docs/reference/resources.md describes every field"


def _between(least: int | None, most: int | None) -> str:
    if least is not None and most is not None:
        return f" from {least} to {most}"
    if least is not None:
        return f", at least {least}"
    return "" if most is None else f", at most {most}"


def _steps(field: str) -> tuple[str | int, ...]:
    """The path of a dotted field; a header's name may hold points, but then its parent's line is near enough."""
    steps: list[str | int] = []
    for part in field.replace("[", ".[").split("."):
        if part.startswith("[") and part.endswith("]"):
            steps.append(int(part[1:-1]))
        elif part:
            steps.append(part)
    return tuple(steps)
