# SPDX-License-Identifier: Apache-2.0
"""Answers that need no server: paths, pages and cursors."""

from __future__ import annotations

import base64
import json
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from outrider import bind, catalog, names, snapshot, testing
from outrider_sidecar import local

OTHER = names.ServerId("sales", "crm")


def bound_with(count: int, **more: Any) -> bind.Bound:
    return testing.bound_to(testing.a_server(testing.allow(), **more), *(f"t{n:05}" for n in range(count)))


def page(bound: bind.Bound, cursor: object = None, *, modern: bool = True) -> dict[str, Any]:
    raw = local.page(bound, testing.CRM, cursor, modern=modern)
    assert raw is not None
    return json.loads(raw)


@pytest.mark.parametrize(
    ("path", "server"),
    [
        ("/crm/salesforce/mcp", "crm/salesforce"), ("/mcp", None), ("/", None), ("", None), ("/a/b/c/mcp", None),
        ("/a/b/mcp/", None), ("/a/b/MCP", None), ("//b/mcp", None), ("/a//mcp", None), ("/A/b/mcp", None),
        ("/a/b%2fc/mcp", None), ("/../b/mcp", None), ("/a/b\n/mcp", None), ("x/a/b/mcp", None), ("/a/b_c/mcp", None),
    ],
)  # fmt: skip
def test_a_path_names_one_server_or_none(path: str, server: str | None) -> None:
    found = local.server_of(path)
    assert (None if found is None else str(found)) == server


@hypothesis.given(st.integers(0, 2600))
@hypothesis.settings(max_examples=12)
def test_pages_join_to_the_list_in_order(count: int) -> None:
    bound = bound_with(count)
    found: list[str] = []
    cursor: object = None
    while True:
        told = page(bound, cursor)
        assert len(told["tools"]) <= local.PAGE_TOOLS_MAX
        found += [tool["name"] for tool in told["tools"]]
        if (cursor := told.get("nextCursor")) is None:
            break
    assert found == [f"t{n:05}" for n in range(count)]


def test_only_a_modern_list_says_how_long_it_may_be_kept_and_by_whom() -> None:
    told = page(bound_with(1))
    assert (told["resultType"], told["ttlMs"], told["cacheScope"]) == ("complete", 5000, "private")
    assert set(page(bound_with(1), modern=False)) == {"tools"}


@hypothesis.given(st.text(max_size=140) | st.integers() | st.lists(st.integers()) | st.booleans())
def test_a_cursor_nobody_was_given_opens_nothing(cursor: object) -> None:
    assert local.page(bound_with(1500), testing.CRM, cursor, modern=True) is None


@pytest.mark.parametrize("offset", ["0", "-1", "1000", "2000", "999999999", "١٠٠٠", " 1000", "1e3", ""])
def test_a_cursor_for_another_list_opens_nothing_whatever_its_offset(offset: str) -> None:
    text = base64.urlsafe_b64encode(f"{offset}.{'0' * 16}".encode()).decode()
    assert local.page(bound_with(1500), testing.CRM, text, modern=True) is None


def test_a_cursor_dies_with_the_list_it_was_made_of() -> None:
    cursor = page(bound_with(1500))["nextCursor"]
    assert len(page(bound_with(1500), cursor)["tools"]) == 500
    for other in (bound_with(1501), bound_with(1499), bound_with(1500, exclude=("t00003",))):
        assert local.page(other, testing.CRM, cursor, modern=True) is None
    assert local.page(bound_with(1500), None, cursor, modern=True) is None


def test_definitions_are_shown_as_the_bytes_they_are_and_renamed_only_where_servers_meet() -> None:
    raw = '{ "name":"query","inputSchema":{"type":"object","$defs":{"x":{"const":1.50}}},"annotations":{"é":[1]},"future":null}'.encode()
    found = catalog.definitions([raw])
    views = (testing.a_server(testing.allow()), testing.a_server(testing.allow(), server=OTHER))
    bound = bind.bound(testing.a_snapshot(*views), {testing.CRM: found, OTHER: found})
    assert b'"tools":[' + raw + b"]" in (local.page(bound, OTHER, None, modern=True) or b"")
    merged = local.page(bound, None, None, modern=True) or b""
    assert [tool["name"] for tool in json.loads(merged)["tools"]] == ["salesforce__query", "sales_crm__query"]
    assert merged.count(b'"inputSchema":{"type":"object","$defs":{"x":{"const":1.50}}}') == 2
    assert merged.count('"annotations":{"é":[1]},"future":null'.encode()) == 2


def test_who_we_are_is_what_the_entry_says() -> None:
    view = testing.a_server(testing.allow(), title="Salesforce", version="7.1")
    info = {"name": "salesforce", "version": "7.1", "title": "Salesforce"}
    assert json.loads(local.initialized(view, "2025-06-18")) == {
        "protocolVersion": "2025-06-18",
        "capabilities": {"tools": {}},
        "serverInfo": info,
    }
    discovered = json.loads(local.discovered(view))
    assert discovered["_meta"] == {"io.modelcontextprotocol/serverInfo": info}
    assert discovered["supportedVersions"] == ["2026-07-28"]
    assert (
        json.loads(local.discovered(None))["_meta"]["io.modelcontextprotocol/serverInfo"]["name"]
        == "outrider"
    )


def test_a_disabled_server_shows_nothing() -> None:
    assert page(bound_with(3, lifecycle=snapshot.Lifecycle.DISABLED))["tools"] == []
