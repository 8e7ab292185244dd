# SPDX-License-Identifier: Apache-2.0
"""Schemas from servers nobody vouches for (R20)."""

from __future__ import annotations

import http.server
import json
import threading
from typing import Any

import pytest

from outrider import catalog, schemas


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
    assert "inputSchema cannot be used" in (validator(schema).objection({"a": "y"}) or "")


def test_a_schema_above_the_limit_is_not_compiled() -> None:
    huge = b'{"description":"' + b"x" * catalog.SCHEMA_BYTES_MAX + b'"}'
    assert "larger than" in (schemas.Validator(huge).objection({}) or "")


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
            assert "cannot be used" in (validator({"$ref": uri}).objection({}) or "")
    finally:
        server.shutdown()
    assert asked == []
