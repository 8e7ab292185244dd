# SPDX-License-Identifier: Apache-2.0
"""What people are told about a value that does not fit: words, never a regular expression, never Python's spelling."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from outrider import manifests, resources
from outrider.resources import forms, schemas

Path = tuple[str | int, ...]

UNFIT: dict[str, list[Any]] = {
    "string": ["\u0001\n", "Bad_Name {x}/~", "", "-1", "\u00e4" * 70_000, 5, None, True, [], {}],
    "integer": [-1, 0, 10**17, 2.5, "5", None, True, [], {}],
    "boolean": ["yes", 1, [], {}],
    "array": ["x", 5, {}, [], [{"no": 1}] * 6000],
    "object": ["x", 5, [], {"no such field": 1}, {f"k{n}": "v" for n in range(70)}],
}
PYTHON = re.compile(
    r"\b(True|False|None|Input should|should be|valid (string|integer|boolean|tuple|dictionary)|tuple|dict|str|int)\b"
)
REGEX = re.compile(r"\^\w|\^\[|\\x|\\\.|\[\^|A-Z|a-z|0-9\]|\{\d+,\d*\}|\)\?|\)\*|\]\*|\]\+|\$$")


def nodes(node: dict[str, Any], path: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every place of a schema."""
    node = schemas.plain(node)
    if path:
        yield path, node
    for name, inner in node.get("properties", {}).items():
        yield from nodes(inner, (*path, name))
    if "items" in node:
        yield from nodes(node["items"], (*path, 0))
    if isinstance(node.get("additionalProperties"), dict):
        yield from nodes(node["additionalProperties"], (*path, "x-key"))


PLACES = [
    (kind, path, node)
    for kind in resources.KINDS
    for path, node in nodes(schemas.schema(kind))
    if path[0] not in ("apiVersion", "kind")
]


def told(kind: str, path: Path, value: Any) -> list[manifests.Problem]:
    """The problems of an object that has nothing but `value` at `path`."""
    for step in reversed(path):
        value = [value] if isinstance(step, int) else {step: value}
    text = json.dumps({"apiVersion": "outrider.dev/v1alpha1", "kind": kind, **value})
    try:
        manifests.load({"a.yaml": text.encode()}, folder="/etc/o")
    except manifests.ManifestError as error:
        return list(error.problems)
    return []


def test_every_pattern_of_every_kind_has_a_sentence_without_a_regular_expression() -> None:
    patterns = {node["pattern"] for _, _, node in PLACES if "pattern" in node}
    assert len(patterns) > 15
    assert patterns == set(forms.FORMS)
    assert [text for text in forms.FORMS.values() if REGEX.search(text) or PYTHON.search(text)] == []


@pytest.mark.parametrize(
    ("kind", "path", "node"), PLACES, ids=[f"{k}-{'.'.join(map(str, p))}" for k, p, _ in PLACES]
)
def test_no_message_about_any_field_shows_a_pattern_or_python(
    kind: str, path: Path, node: dict[str, Any]
) -> None:
    said = [
        str(found)
        for value in UNFIT.get(node.get("type", "boolean"), ["x", 5])
        for found in told(kind, path, value)
    ]
    assert said
    for text in said:
        assert not PYTHON.search(text), text
        assert not REGEX.search(text), text
        assert node.get("pattern", "no pattern") not in text


@pytest.mark.parametrize(
    ("kind", "path", "value", "expected"),
    [
        ("MCPServer", ("spec", "endpoint", "url"), "file:///etc/passwd", "must be a URL such as https://"),
        ("MCPServer", ("spec", "endpoint", "timeouts", "call"), "3 seconds", "such as 500ms, 3s or 10m"),
        ("MCPServer", ("spec", "endpoint", "timeouts", "call"), "3 h", "such as 500ms, 3s or 10m"),
        ("MCPBudget", ("spec", "limits", 0, "quota", "amount"), "-1", 'such as "25" or "0.005": not negative'),
        ("MCPToolPolicy", ("metadata", "name"), "Bad_Name", "lower-case letters, digits and hyphens"),
        ("MCPToolPolicy", ("metadata", "name"), "a" * 64, "at most 63 characters"),
        ("MCPBudget", ("spec", "limits", 0, "quota", "warnAt"), [500], "must be a whole number from 1 to 100"),
        ("MCPToolPolicy", ("spec", "rules", 0, "from", 0, "anyone"), False, "Allowed: true"),
        ("MCPToolPolicy", ("spec", "rules", 0, "message"), "a\tb", "no line break, tab or other control"),
        ("MCPToolPolicy", ("spec", "rules", 0, "tools"), ["a\tb"], "such as get_*"),
        ("MCPBudget", ("spec", "tools"), ["a b"], "letters, digits, _ . - and * only"),
        ("MCPBudget", ("spec", "limits"), [], "has too few entries: at least 1"),
        ("MCPServer", ("spec", "endpoint", "headers"), {"x-a": "a\u0001"}, "text of printable ASCII characters"),
    ],
)  # fmt: skip
def test_a_mistake_people_make_is_answered_with_the_form_to_write(
    kind: str, path: Path, value: Any, expected: str
) -> None:
    texts = [str(found) for found in told(kind, path, value)]
    assert any(expected in text for text in texts), texts
