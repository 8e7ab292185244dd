# SPDX-License-Identifier: Apache-2.0
"""Arguments repeated in headers: read from schemas, made from bodies, checked against them."""

from __future__ import annotations

import json
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from outrider import catalog, findings, mirrors

SCHEMA = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "deal": {"type": "object", "properties": {"size": {"type": "integer", "x-mcp-header": "Deal-Size"}}},
        "dry": {"type": "boolean", "x-mcp-header": "Dry"},
        "note": {"type": "string"},
    },
}
READ = mirrors.read(json.dumps(SCHEMA).encode())


def test_annotations_are_read_from_chains_of_properties() -> None:
    assert [(each.path, each.header) for each in READ] == [
        (("region",), b"mcp-param-region"),
        (("deal", "size"), b"mcp-param-deal-size"),
        (("dry",), b"mcp-param-dry"),
    ]
    assert mirrors.read(b'{"type":"object"}') == mirrors.read(None) == ()


def test_headers_are_made_from_the_body_and_absent_arguments_have_none() -> None:
    made = mirrors.headers(READ, {"region": "eu", "deal": {"size": 7}, "dry": False, "note": "x"})
    assert made == (
        (b"mcp-param-region", b"eu"),
        (b"mcp-param-deal-size", b"7"),
        (b"mcp-param-dry", b"false"),
    )
    assert mirrors.headers(READ, {"region": None, "deal": []}) == mirrors.headers(READ, None) == ()


@pytest.mark.parametrize("value", [" eu", "eu ", "caf\u00e9", "a\nb", "", "=?base64?eA==?=", "\x7f"])
def test_what_is_not_safe_in_a_header_is_encoded(value: str) -> None:
    ((_, sent),) = mirrors.headers(READ, {"region": value})
    assert sent.startswith(b"=?base64?")
    assert mirrors.objection(READ, {"region": value}, [(b"mcp-param-region", sent)]) is None


@hypothesis.given(
    region=st.none() | st.text(),
    size=st.none() | st.integers(-(10**18), 10**18),
    dry=st.none() | st.booleans(),
)
def test_what_we_make_is_what_we_accept(region: str | None, size: int | None, dry: bool | None) -> None:
    arguments: dict[str, Any] = {"region": region, "deal": {"size": size}, "dry": dry}
    if region is not None:
        hypothesis.assume(region.encode("utf-8", "ignore").decode() == region)
    assert mirrors.objection(READ, arguments, mirrors.headers(READ, arguments)) is None


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"region": "eu"}, []),
        ({"region": "eu"}, [(b"mcp-param-region", b"us")]),
        ({"region": "eu"}, [(b"mcp-param-region", b"eu"), (b"mcp-param-region", b"eu")]),
        ({}, [(b"mcp-param-region", b"eu")]),
        ({"deal": {"size": 7}}, [(b"mcp-param-deal-size", b"7.0")]),
        ({"dry": True}, [(b"mcp-param-dry", b"True")]),
        ({"region": "eu"}, [(b"mcp-param-region", b"=?base64?!!?=")]),
    ],
)
def test_a_header_that_says_something_else_is_an_objection(
    arguments: dict[str, Any], received: list[tuple[bytes, bytes]]
) -> None:
    assert mirrors.objection(READ, arguments, received) is not None


def test_integers_compare_as_numbers() -> None:
    assert mirrors.objection(READ, {"deal": {"size": 7}}, [(b"mcp-param-deal-size", b"007")]) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"type": "object", "x-mcp-header": "A"}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": "not a token"}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": 1}}},
        {"properties": {"a": {"type": ["string", "null"], "x-mcp-header": "A"}}},
        {"properties": {"a": {"type": {}, "x-mcp-header": "A"}}},
        {
            "properties": {
                "a": {"type": "string", "x-mcp-header": "X"},
                "b": {"type": "string", "x-mcp-header": "x"},
            }
        },
        {"allOf": [{"properties": {"a": {"type": "string", "x-mcp-header": "A"}}}]},
        {"properties": {"a": {"type": "array", "items": {"type": "string", "x-mcp-header": "A"}}}},
    ],
)
def test_a_tool_with_an_annotation_that_is_not_allowed_is_dropped(schema: dict[str, Any]) -> None:
    with pytest.raises(mirrors.MirrorRefused):
        mirrors.read(json.dumps(schema).encode())
    found = catalog.definitions(
        [json.dumps({"name": "t", "inputSchema": {"type": "object", **schema}}).encode()]
    )
    assert found.tools == ()
    assert [(each.name, each.reason) for each in found.dropped] == [
        ("t", findings.Reason.DEFINITIONS_REFUSED)
    ]


@pytest.mark.parametrize("schema", [b'{"x-mcp-header":1e999}', b'{"x-mcp-header":%s}' % (b"9" * 5_000), b'{"x-mcp-header"', b'{"x-mcp-header":"\\ud800"}', b'{"x-mcp-header":' + b"[" * 5_000])  # fmt: skip
def test_a_schema_that_cannot_be_read_is_refused_like_any_other(schema: bytes) -> None:
    with pytest.raises(mirrors.MirrorRefused):
        mirrors.read(schema)


def test_an_annotation_spelled_with_escapes_is_read() -> None:
    schema = rb'{"properties":{"a":{"type":"string","x-mcp-h\u0065ader":"A"}}}'
    assert [each.header for each in mirrors.read(schema)] == [b"mcp-param-a"]


@pytest.mark.parametrize("keyword", ["default", "examples", "const", "enum"])
def test_what_is_data_in_a_schema_is_no_annotation(keyword: str) -> None:
    schema = {"properties": {"a": {"type": "object", keyword: [{"x-mcp-header": "A"}]}}}
    assert mirrors.read(json.dumps(schema).encode()) == ()
    within = {"allOf": [{"properties": {keyword: {"type": "string", "x-mcp-header": "A"}}}]}
    with pytest.raises(mirrors.MirrorRefused):
        mirrors.read(json.dumps(within).encode())
