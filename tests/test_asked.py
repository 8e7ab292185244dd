# SPDX-License-Identifier: Apache-2.0
"""Which era was asked in, with what token and trace. Heads that do not add up: tests/corpus/heads.json."""

from __future__ import annotations

import json
from typing import Any

import pytest

from outrider_sidecar import asked, conventions, jsonrpc

PARENT = f"00-{'ab' * 16}-{'cd' * 8}-01"
OTHER = f"00-{'12' * 16}-{'34' * 8}-00"


def message(meta: dict[str, Any] | None = None) -> jsonrpc.Message:
    params = {} if meta is None else {"_meta": meta}
    return jsonrpc.parse(
        json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params}).encode()
    )


def trace(meta: dict[str, Any] | None = None, **headers: str) -> conventions.Trace:
    return asked.trace(
        tuple((name.encode(), value.encode("latin-1")) for name, value in headers.items()), message(meta)
    )


@pytest.mark.parametrize(
    ("version", "modern"),
    [(None, False), (b"2025-03-26", False), (b"2025-06-18", False), (b"2025-11-25", False), (b"2026-07-28", True), (b"?", True)],
)  # fmt: skip
def test_the_version_header_tells_the_era_and_mcp_method_never_does(
    version: bytes | None, modern: bool
) -> None:
    headers = ((b"mcp-method", b"tools/list"),) + (
        () if version is None else ((conventions.HEADER_VERSION, version),)
    )
    meta = {conventions.META_VERSION: "2026-07-28"} if modern else None
    assert asked.is_modern(headers, message(meta)) is modern


@pytest.mark.parametrize(
    ("token", "seen"), [(1, 1), ("1", "1"), (0, 0), ("", ""), (True, None), (1.5, None), (None, None), ([], None)]
)  # fmt: skip
def test_a_progress_token_is_a_string_or_an_integer_and_nothing_else(token: Any, seen: Any) -> None:
    found = asked.Asked(
        True, "2026-07-28", message({"progressToken": token}), conventions.Trace()
    ).progress_token
    assert (found, type(found)) == (seen, type(seen))


def test_a_header_that_is_there_twice_is_refused_whatever_it_says() -> None:
    twice = ((b"mcp-name", b"a"), (b"x", b"y"), (b"mcp-name", b"a"))
    with pytest.raises(jsonrpc.Malformed) as caught:
        asked.header(twice, b"mcp-name")
    assert (caught.value.status, caught.value.code) == (400, -32020)
    assert asked.header(twice, b"x") == "y"
    assert asked.header(twice, b"z") is None


def test_a_trace_of_meta_wins_over_one_of_the_headers() -> None:
    assert trace({"traceparent": OTHER, "tracestate": "b=2"}, traceparent=PARENT, tracestate="a=1") == (
        conventions.Trace(OTHER, "b=2")
    )
    assert trace(traceparent=PARENT, tracestate="a=1") == conventions.Trace(PARENT, "a=1")


def test_a_state_belongs_to_the_parent_it_came_with() -> None:
    assert trace({"traceparent": OTHER}, traceparent=PARENT, tracestate="a=1") == conventions.Trace(OTHER)
    assert trace({"tracestate": "b=2"}, traceparent=PARENT) == conventions.Trace(PARENT)
    assert trace({"tracestate": "b=2"}) == conventions.Trace()


@pytest.mark.parametrize(
    "bad",
    [
        "", "x", PARENT.upper(), PARENT + "-00", PARENT + "\n", "ff" + PARENT[2:], PARENT[:3] + "0" * 32 + PARENT[35:],
        PARENT[:36] + "0" * 16 + PARENT[52:], 5, None, [], {"a": 1},
    ],
    ids=range(12),
)  # fmt: skip
def test_a_parent_that_is_malformed_is_as_if_absent(bad: Any) -> None:
    assert trace({"traceparent": bad}) == conventions.Trace()
    assert trace({"traceparent": bad}, traceparent=PARENT) == conventions.Trace(PARENT)
    if isinstance(bad, str):
        assert trace(traceparent=bad) == conventions.Trace()


@pytest.mark.parametrize("bad", ["a" * 513, "a=\x7f", "a=\n", "é", 5, [], None])
def test_a_state_that_is_malformed_is_dropped_and_its_parent_kept(bad: Any) -> None:
    assert trace({"traceparent": PARENT, "tracestate": bad}) == conventions.Trace(PARENT)
