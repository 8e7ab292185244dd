# SPDX-License-Identifier: Apache-2.0
"""The corpus: what an agent may send to confuse two readers, and what each must be told. The data files are the table."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from outrider_sidecar import answers, asked, exchange, jsonrpc, legacy, modern

HERE = pathlib.Path(__file__).parent
BODIES = json.loads((HERE / "bodies.json").read_bytes())
HEADS = json.loads((HERE / "heads.json").read_bytes())


def what(case: dict[str, Any]) -> str:
    return str(case["what"])


@pytest.mark.parametrize("case", BODIES["hostile"], ids=what)
def test_a_hostile_body_gets_the_answer_in_the_table(case: dict[str, Any]) -> None:
    body = case["body"].encode("latin-1") * case.get("times", 1)
    with pytest.raises(jsonrpc.Malformed) as caught:
        jsonrpc.parse(body)
    error = caught.value
    assert (error.status, error.code, error.reason.value, error.id) == (
        case["status"], case["code"], "MalformedRequest", case.get("id"),
    )  # fmt: skip
    told = json.loads(answers.malformed(error).body)
    assert told["id"] == case.get("id")
    assert told["error"]["code"] == case["code"]


def test_no_two_cases_are_the_same() -> None:
    names = [case["what"] for case in BODIES["hostile"] + HEADS["cases"]]
    assert len(names) - len(set(names)) <= 1  # UTF-16 is wrong in a body and in a header
    assert len(names) > 90


def head_of(case: dict[str, Any]) -> exchange.Headers:
    chosen = {**HEADS["bases"][case["base"]], **case.get("set", {})}
    for name in case.get("drop", ()):
        del chosen[name]
    pairs = [*chosen.items(), *case.get("add", {}).items()]
    return tuple((name.encode(), value.encode("latin-1")) for name, value in pairs)


def era(headers: exchange.Headers, body: bytes) -> str:
    """What the pipeline asks before it looks at a method. Raises Malformed."""
    jsonrpc.check_content_type(headers)
    message = jsonrpc.parse(body)
    if asked.is_modern(headers, message):
        modern.check(headers, message)
        return "modern"
    assert legacy.version_of(headers)
    return "legacy"


@pytest.mark.parametrize("case", HEADS["cases"], ids=what)
def test_a_head_and_a_body_are_told_apart_or_refused_as_in_the_table(case: dict[str, Any]) -> None:
    headers, body = head_of(case), json.dumps(HEADS["bodies"][case["body"]]).encode()
    if "era" in case:
        assert era(headers, body) == case["era"]
        return
    with pytest.raises(jsonrpc.Malformed) as caught:
        era(headers, body)
    error = caught.value
    assert (error.status, error.code, error.reason.value) == (case["status"], case["code"], case["reason"])


def test_an_unsupported_version_is_told_what_is_spoken() -> None:
    case = next(case for case in HEADS["cases"] if case["what"] == "a version nobody speaks yet")
    with pytest.raises(jsonrpc.Malformed) as caught:
        era(head_of(case), json.dumps(HEADS["bodies"][case["body"]]).encode())
    data = json.loads(answers.malformed(caught.value).body)["error"]["data"]
    assert data["requested"] == "2031-01-01"
    assert data["supported"] == [
        "2026-07-28"
    ]  # as `server/discover` says; the others are spoken after `initialize`
