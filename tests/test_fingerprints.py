# SPDX-License-Identifier: Apache-2.0
"""Fingerprints: canonical JSON by the vectors of RFC 8785, and what must and must not change a fingerprint."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from outrider import fingerprints

NUMBERS = [
    ("0000000000000000", "0"),
    ("8000000000000000", "0"),
    ("0000000000000001", "5e-324"),
    ("8000000000000001", "-5e-324"),
    ("7fefffffffffffff", "1.7976931348623157e+308"),
    ("ffefffffffffffff", "-1.7976931348623157e+308"),
    ("4340000000000000", "9007199254740992"),
    ("c340000000000000", "-9007199254740992"),
    ("4430000000000000", "295147905179352830000"),
    ("44b52d02c7e14af5", "9.999999999999997e+22"),
    ("44b52d02c7e14af6", "1e+23"),
    ("44b52d02c7e14af7", "1.0000000000000001e+23"),
    ("444b1ae4d6e2ef4e", "999999999999999700000"),
    ("444b1ae4d6e2ef4f", "999999999999999900000"),
    ("444b1ae4d6e2ef50", "1e+21"),
    ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
    ("3eb0c6f7a0b5ed8d", "0.000001"),
    ("41b3de4355555553", "333333333.3333332"),
    ("41b3de4355555554", "333333333.33333325"),
    ("41b3de4355555555", "333333333.3333333"),
    ("41b3de4355555556", "333333333.3333334"),
    ("41b3de4355555557", "333333333.33333343"),
    ("becbf647612f3696", "-0.0000033333333333333333"),
    ("43143ff3c1cb0959", "1424953923781206.2"),
]
"""RFC 8785, appendix B."""

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


def tool(**members: Any) -> bytes:
    return json.dumps({"name": "query", "inputSchema": {"type": "object"}, **members}).encode()


@pytest.mark.parametrize(("bits", "text"), NUMBERS)
def test_numbers_are_written_as_the_rfc_writes_them(bits: str, text: str) -> None:
    assert fingerprints.canonical(struct.unpack(">d", bytes.fromhex(bits))[0]) == text


def test_the_example_of_the_rfc_is_canonical_as_the_rfc_says() -> None:
    source = rb"""{
      "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
      "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
      "literals": [null, true, false]
    }"""
    expected = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert fingerprints.canonical(json.loads(source)) == expected
    assert fingerprints.of(source) == f"sha256:{hashlib.sha256(expected.encode()).hexdigest()}"


def test_members_are_in_the_order_of_their_utf_16_code_units() -> None:
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    ordered = ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    made = fingerprints.canonical({name: ordered.index(name) for name in names})
    assert list(json.loads(made)) == ordered


@hypothesis.given(VALUES)
def test_canonical_json_says_the_same_and_is_its_own_canonical_form(value: Any) -> None:
    made = fingerprints.canonical(value)
    read = json.loads(made, parse_int=float)
    assert read == value
    assert fingerprints.canonical(read) == made


@hypothesis.given(st.floats(allow_nan=False, allow_infinity=False))
def test_no_number_loses_anything(value: float) -> None:
    assert float(fingerprints.canonical(value)) == value


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_what_is_no_number_of_json_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        fingerprints.canonical(value)


def test_order_of_members_blanks_and_the_writing_of_a_number_change_nothing() -> None:
    one = b'{"name":"t","inputSchema":{"type":"object","maximum":10}}'
    other = b'{ "inputSchema" : {"maximum": 1.0e1, "type":"object"}, "name" : "\\u0074"}'
    assert fingerprints.of(one) == fingerprints.of(other)


def test_how_a_tool_likes_to_be_run_is_not_part_of_what_it_is() -> None:
    assert fingerprints.of(tool(execution={"taskSupport": "optional"})) == fingerprints.of(tool())
    nested = {"type": "object", "properties": {"execution": {"type": "string"}}}
    assert fingerprints.of(tool(inputSchema=nested)) != fingerprints.of(tool(inputSchema={"type": "object"}))


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "query2"},
        {"description": "Reads"},
        {"description": "Rea\u200bds"},
        {"inputSchema": {"type": "object", "required": ["a"]}},
        {"_meta": {"a": 1}},
        {"annotations": {"readOnlyHint": True}},
    ],
)
def test_anything_that_a_model_or_client_could_notice_changes_it(changed: dict[str, Any]) -> None:
    assert fingerprints.of(tool(**changed)) != fingerprints.of(tool())


def test_a_hidden_character_changes_it() -> None:
    assert fingerprints.of(tool(description="Reads")) != fingerprints.of(tool(description="Rea\u200bds"))


@pytest.mark.parametrize(
    "raw",
    [
        b'{"name":"t","description":"a","description":"b"}',
        b'{"name":"t","inputSchema":{"maximum":1e400}}',
        b'{"name":"t","inputSchema":{"maximum":' + b"9" * 5000 + b"}}",
        b'{"name":"t","inputSchema":{"maximum":NaN}}',
        b'{"name":"t","description":"\\ud800"}',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_what_two_parsers_could_read_differently_is_known_by_its_bytes(raw: bytes) -> None:
    assert fingerprints.of(raw) == f"sha256:{hashlib.sha256(raw).hexdigest()}"


def test_the_digest_of_a_list_does_not_depend_on_its_order_but_on_everything_in_it() -> None:
    tools = [("a", "sha256:1"), ("b", "sha256:2")]
    assert fingerprints.digest(tools) == fingerprints.digest(reversed(tools))
    assert fingerprints.digest(tools) != fingerprints.digest(tools[:1])
    assert fingerprints.digest(tools) != fingerprints.digest([("a", "sha256:2"), ("b", "sha256:1")])
