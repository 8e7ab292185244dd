# SPDX-License-Identifier: Apache-2.0
"""Schemas from servers nobody vouches for (R20)."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from typing import Any

import pytest

from outrider import schemas


def validator(schema: Any) -> schemas.Validator:
    return schemas.Validator(json.dumps(schema).encode())


def test_arguments_that_fit_have_no_objection_and_others_say_where() -> None:
    subject = validator(
        {
            "type": "object",
            "properties": {"deal": {"type": "object", "properties": {"amount": {"type": "number"}}}},
        }
    )
    assert subject.objection({"deal": {"amount": 1}}) is None
    assert "/deal/amount" in (subject.objection({"deal": {"amount": "x"}}) or "")


def test_a_pattern_that_backtracks_elsewhere_is_decided_in_linear_time() -> None:
    subject = validator({"properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}})
    assert subject.objection({"a": "a" * 50_000 + "!"}) is not None


@pytest.mark.parametrize("schema", [{"type": "objekt"}, {"$schema": "https://example.com/mine", "type": "object"}, {"properties": {"a": {"pattern": "(?<=x)y"}}}, {"properties": {"a": {"pattern": "(" }}}])  # fmt: skip
def test_a_schema_that_cannot_be_used_refuses_instead_of_passing(schema: Any) -> None:
    assert schemas.flaw(json.dumps(schema).encode())
    with pytest.raises(schemas.SchemaRefused):
        validator(schema).objection({"a": "y"})


def test_a_schema_above_the_limit_is_not_compiled() -> None:
    huge = b'{"description":"' + b"x" * schemas.SCHEMA_BYTES_MAX + b'"}'
    assert "larger than" in (schemas.flaw(huge) or "")
    with pytest.raises(schemas.SchemaRefused, match="larger than"):
        schemas.Validator(huge).objection({})


def test_no_reference_is_ever_fetched(tmp_path: Any) -> None:
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    local = tmp_path / "schema.json"
    local.write_text("{}")
    try:
        for uri in (f"http://127.0.0.1:{server.server_port}/s.json", local.as_uri()):
            assert "never fetched" in (schemas.flaw(json.dumps({"$ref": uri}).encode()) or "")
            with pytest.raises(schemas.SchemaRefused):
                validator({"$ref": uri}).objection({})
    finally:
        server.shutdown()
    assert asked == []


def test_a_small_schema_that_stands_for_a_billion_evaluations_is_never_evaluated() -> None:
    steps = {f"a{i}": {"anyOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(30)}
    schema = {
        "type": "object",
        "$defs": {**steps, "a30": {"type": "integer"}},
        "properties": {"a": {"$ref": "#/$defs/a0"}},
    }
    assert "more than" in (schemas.flaw(json.dumps(schema).encode()) or "")


def test_a_reference_that_is_spelled_with_escapes_is_counted_too() -> None:
    assert "without end" in (schemas.flaw(rb'{"\u0024r\u0065f":"#"}') or "")


def test_arguments_that_would_take_too_long_are_refused_unchecked_and_the_model_told_to_send_less() -> None:
    subject = validator({"properties": {"a": {"uniqueItems": True}}})
    assert subject.objection({"a": [2**70 + number for number in range(300)]}) is not None
    assert "send less" in (subject.objection({"a": [2**70 + number for number in range(19_000)]}) or "")
    assert subject.objection({"a": list(range(19_000))}) is None


def test_no_error_is_made_that_would_copy_large_arguments_for_every_branch() -> None:
    subject = validator({"properties": {"a": {"anyOf": [{"type": "integer"}] * 200}}})
    assert "which part" in (subject.objection({"a": ["x" * 200] * 19_000}) or "")
    assert "/a" in (
        validator({"properties": {"a": {"anyOf": [{"type": "integer"}] * 2}}}).objection({"a": "x"}) or ""
    )


def test_a_format_says_and_does_not_demand() -> None:
    draft = "http://json-schema.org/draft-07/schema#"
    assert (
        validator({"$schema": draft, "properties": {"a": {"format": "regex"}}}).objection({"a": "("}) is None
    )


def test_judging_a_schema_loads_the_library_so_that_no_call_waits_for_it() -> None:
    code = "import sys; from outrider import schemas; a = 'jsonschema_rs' in sys.modules; schemas.flaw(b'{}'); print(a, 'jsonschema_rs' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
