# SPDX-License-Identifier: Apache-2.0
"""What checking arguments may cost is known before it begins, and never too low."""

from __future__ import annotations

from typing import Any

import pytest

from outrider import effort


def doubling(levels: int, keyword: str = "anyOf") -> dict[str, Any]:
    """2^levels evaluations of one value in a schema of about 70 bytes a level."""
    steps = {f"a{i}": {keyword: [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(levels)}
    return {"$defs": {**steps, f"a{levels}": {"type": "integer"}}, "$ref": "#/$defs/a0"}


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf", "allOf"])
@pytest.mark.parametrize("levels", [16, 30])
def test_references_that_double_at_every_step_are_refused(keyword: str, levels: int) -> None:
    with pytest.raises(effort.TooMuch, match="more than 10000 times"):
        effort.Effort(doubling(levels, keyword))


@pytest.mark.parametrize("schema", [{"$ref": "#"}, {"allOf": [{"anyOf": [{"$ref": "#"}]}]}, {"$dynamicRef": "#a", "$dynamicAnchor": "a"}, {"$recursiveRef": "#"}, {"if": {"not": {"$ref": "#/if"}}}])  # fmt: skip
def test_a_reference_to_itself_for_the_same_value_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(effort.TooMuch, match="without end"):
        effort.Effort(schema)


@pytest.mark.parametrize("reference", ["https://example.com/s", "other.json", "#/$defs/none", "#none", 7])
def test_a_reference_to_anything_else_is_refused(reference: Any) -> None:
    with pytest.raises(effort.TooMuch):
        effort.Effort({"properties": {"a": {"$ref": reference}}})


def test_a_tree_is_accepted_and_costs_what_its_arguments_have() -> None:
    tree = effort.Effort({"properties": {"kids": {"items": {"$ref": "#"}}, "left": {"$ref": "#"}}})
    small, large = ({"kids": [{"left": {}}] * count} for count in (10, 5_000))
    assert tree.units(small) < 3_000
    assert tree.units(large) < effort.UNITS_MAX


def test_branches_that_recurse_are_bounded_by_the_arguments() -> None:
    subject = effort.Effort({"anyOf": [{"properties": {"x": {"$ref": "#"}}}] * 2})

    def nested(levels: int) -> Any:
        value: Any = 1
        for _ in range(levels):
            value = {"x": value}
        return value

    assert subject.units(nested(5)) < 5_000
    assert subject.units(nested(60)) > effort.UNITS_MAX


@pytest.mark.parametrize(
    ("schema", "arguments"),
    [
        ({"uniqueItems": True}, [2**70 + i for i in range(2_000)]),
        ({"pattern": "(a|b)*a(a|b){500}c"}, "ab" * 20_000),
        ({"items": {"enum": [{"x": i} for i in range(1_000)]}}, [{"x": 1}] * 5_000),
        ({"items": {"anyOf": [{"type": "string"}] * 1_000}}, [1] * 19_000),
        ({"items": {"multipleOf": 1e-300}}, [1e300] * 19_000),
        ({"patternProperties": {f"x{i}": True for i in range(100)}}, {f"k{i}": 1 for i in range(19_000)}),
        ({"propertyNames": {"pattern": "(a|b){500}"}}, {"a" * 20_000: 1}),
    ],
)
def test_what_was_measured_to_be_slow_is_above_the_limit(schema: dict[str, Any], arguments: Any) -> None:
    assert effort.Effort(schema).units(arguments) > effort.UNITS_MAX


def test_what_is_large_and_plain_is_within_the_limit() -> None:
    row = {
        "type": "object",
        "properties": {f"c{i}": {"type": "string"} for i in range(20)},
        "required": ["c1"],
    }
    subject = effort.Effort({"properties": {"rows": {"items": row}, "path": {"pattern": "^[a-z/]+$"}}})
    rows = [{f"c{i}": "x" for i in range(18)} for _ in range(1_000)]
    assert subject.units({"rows": rows, "path": "a/b", "content": "x" * 4_000_000}) < effort.UNITS_MAX


def test_evaluating_again_for_what_was_left_over_counts_at_every_level() -> None:
    schema: dict[str, Any] = {"patternProperties": {"^k": {"type": "integer"}}}
    for _ in range(12):
        schema = {"allOf": [schema], "unevaluatedProperties": False}
    with pytest.raises(effort.TooMuch):
        effort.Effort(schema)


def test_the_same_arguments_are_judged_alike_the_second_time() -> None:
    subject = effort.Effort({"properties": {"a": {"items": {"type": "string"}}}})
    first, second = subject.units({"a": ["x"]}), subject.units({"a": ["x"]})
    assert second <= first < 1_000
