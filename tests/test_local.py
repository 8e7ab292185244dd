# SPDX-License-Identifier: Apache-2.0
"""Answers that need no server: paths, pages and cursors."""

from __future__ import annotations

import base64
import json
from typing import Any

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from outrider import bind, catalog, identity, names, snapshot, testing
from outrider_sidecar import introductions, local

OTHER = names.ServerId("sales", "crm")


EVERYTHING = (
    "tools", "prompts", "resources", "resources.subscribe", "resources.listChanged", "completions", "logging",
)  # fmt: skip
ALL = frozenset({*EVERYTHING, local.LIST_CHANGED})
PROMPTS_ONLY = msgspec.structs.replace(testing.allow(), tools=(), prompts=("p",))
ALLOW_ALL = testing.allow(prompts=("*",), resources=("*",))


def met(*capabilities: str, instructions: str = "") -> local.Met:
    """Every server has said this."""
    said = introductions.Introduction("x", "1", (), frozenset(capabilities), instructions)
    return lambda _server: said


def unmet(_server: names.ServerId) -> introductions.Introduction:
    return introductions.Introduction()


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
        assert len(told["tools"]) <= local.PAGE_ENTRIES_MAX
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
    bound = testing.bound_to(testing.a_server(testing.allow(), title="Salesforce", version="7.1"), "t")
    info = {"name": "salesforce", "version": "7.1", "title": "Salesforce"}
    assert json.loads(local.initialized(bound, testing.CRM, met("tools"), version="2025-06-18")) == {
        "protocolVersion": "2025-06-18",
        "capabilities": {"tools": {"listChanged": True}},
        "serverInfo": info,
    }
    discovered = json.loads(local.discovered(bound, testing.CRM, met("tools")))
    assert discovered["_meta"] == {"io.modelcontextprotocol/serverInfo": info}
    assert discovered["supportedVersions"] == ["2026-07-28"]
    merged = json.loads(local.discovered(bound, None, met("tools")))
    assert merged["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "outrider"


def test_a_disabled_server_shows_nothing() -> None:
    assert page(bound_with(3, lifecycle=snapshot.Lifecycle.DISABLED))["tools"] == []


# What is declared -------------------------------------------------------------------------------------------------------


def declared(
    bound: bind.Bound, who: local.Met, *, merged: bool = False, relayed: Any = ALL
) -> dict[str, Any]:
    return local.capabilities(bound, None if merged else testing.CRM, who, relayed=relayed)


def test_what_is_declared_is_what_the_server_has_and_we_relay_and_this_caller_could_reach() -> None:
    everything = met(*EVERYTHING)
    changed = {"listChanged": True}
    whole = {
        "tools": changed, "prompts": changed, "resources": {**changed, "subscribe": True}, "completions": {}, "logging": {},
    }  # fmt: skip
    bound = testing.bound_to(testing.a_server(ALLOW_ALL))
    assert declared(bound, everything) == whole
    assert declared(bound, met("tools", "prompts")) == {"tools": changed, "prompts": changed}
    assert declared(bound, everything, relayed={"tools", "prompts"}) == {"tools": {}, "prompts": {}}
    tools_only = testing.bound_to(testing.a_server(testing.allow()))
    assert declared(tools_only, everything) == {"tools": changed, "logging": {}}
    prompts_only = testing.bound_to(testing.a_server(PROMPTS_ONLY))
    assert declared(prompts_only, everything) == {"prompts": changed, "completions": {}, "logging": {}}


def test_a_server_nobody_has_met_counts_as_one_that_has_everything_it_could_be_asked_for() -> None:
    bound = testing.bound_to(testing.a_server(testing.allow(resources=("file:///*",))))
    assert declared(bound, unmet, relayed={"tools", "resources", "prompts"}) == {"tools": {}, "resources": {}}


def test_a_server_that_names_no_kind_is_taken_to_have_tools() -> None:
    bound = testing.bound_to(testing.a_server(ALLOW_ALL))
    assert declared(bound, met(), relayed={"tools", "prompts"}) == {"tools": {}}
    assert declared(bound, met("logging"), relayed=ALL) == {"tools": {"listChanged": True}, "logging": {}}


def test_where_servers_are_merged_there_are_no_resources_and_always_tools() -> None:
    bound = testing.bound_to(testing.a_server(ALLOW_ALL))
    told = declared(bound, met(*EVERYTHING), merged=True)
    assert set(told) == {"tools", "prompts", "completions", "logging"}
    assert declared(bound, met("resources"), merged=True, relayed={"tools", "resources"}) == {"tools": {}}


def test_nothing_is_declared_that_is_not_relayed() -> None:
    bound = testing.bound_to(testing.a_server(ALLOW_ALL))
    assert set(local.capabilities(bound, testing.CRM, met(*EVERYTHING))) == {
        name for name in local.RELAYED if "." not in name and name != local.LIST_CHANGED
    }


@pytest.mark.parametrize(
    ("passes", "merged", "there"), [(True, False, True), (False, False, False), (True, True, False)]
)
def test_instructions_are_told_only_when_the_entry_passes_them_and_never_where_servers_are_merged(
    passes: bool, merged: bool, there: bool
) -> None:
    bound = testing.bound_to(testing.a_server(testing.allow(), instructions=passes))
    who, server = met("tools", instructions="Use é\nfirst."), None if merged else testing.CRM
    for raw in (
        local.initialized(bound, server, who, version="2025-11-25"),
        local.discovered(bound, server, who),
    ):
        assert json.loads(raw).get("instructions") == ("Use é\nfirst." if there else None)
    assert b"instructions" not in local.discovered(bound, server, met("tools"))


# Other lists ------------------------------------------------------------------------------------------------------------


def of_all_kinds(*chosen: Any, **more: Any) -> bind.Bound:
    found = catalog.definitions(
        [json.dumps({"name": "t", "inputSchema": {"type": "object"}}).encode()],
        prompts=[b'{ "name":"greet","title":"\\u00e9","x":1.50 }', b'{"name":"a b"}'],
        resources=[b'{"uri":"file:///a","name":"a","future":null}', b'{"uri":"file:///secret/b","name":"b"}'],
        templates=[b'{"uriTemplate":"file:///{path}","name":"t"}', b'{"uriTemplate":"db://{x}","name":"d"}'],
    )
    view = testing.a_server(*(chosen or (ALLOW_ALL,)), **more)
    return bind.bound(testing.a_snapshot(view), {view.id: found})


def entries(bound: bind.Bound, form: catalog.Form, *, merged: bool = False, modern: bool = True) -> list[Any]:
    raw = local.page(bound, None if merged else testing.CRM, None, modern=modern, form=form)
    assert raw is not None
    told = json.loads(raw)
    assert set(told) - {"resultType", "ttlMs", "cacheScope"} == {form.value}
    assert ("ttlMs" in told) is modern
    return [each.get("name") if form is catalog.Form.PROMPTS else each for each in told[form.value]]


def test_every_list_shows_its_kind_alone_byte_for_byte() -> None:
    bound = of_all_kinds()
    raw = local.page(bound, testing.CRM, None, modern=False, form=catalog.Form.PROMPTS)
    assert raw == b'{"prompts":[{ "name":"greet","title":"\\u00e9","x":1.50 },{"name":"a b"}]}'
    raw = local.page(bound, testing.CRM, None, modern=False, form=catalog.Form.RESOURCES)
    assert raw is not None
    assert b'{"uri":"file:///a","name":"a","future":null}' in raw
    assert [each["uriTemplate"] for each in entries(bound, catalog.Form.TEMPLATES)] == [
        "file:///{path}",
        "db://{x}",
    ]
    assert [each["name"] for each in entries(bound, catalog.Form.TOOLS)] == ["t"]


def test_prompts_are_called_by_their_exposed_names_where_servers_are_merged_and_resources_are_not_there() -> (
    None
):
    bound = of_all_kinds()
    (greet, spaced) = entries(bound, catalog.Form.PROMPTS, merged=True, modern=False)
    assert greet == "salesforce__greet"
    assert spaced.startswith("salesforce__a_b_")
    assert entries(bound, catalog.Form.RESOURCES, merged=True) == []
    assert entries(bound, catalog.Form.TEMPLATES, merged=True, modern=False) == []


def test_what_could_not_be_got_or_read_is_not_shown() -> None:
    bound = of_all_kinds(
        testing.allow("t", prompts=("greet",), resources=("file:///*",)),
        testing.deny("none", resources=("FILE:///secret/*",)),
    )
    assert entries(bound, catalog.Form.PROMPTS) == ["greet"]
    assert [each["uri"] for each in entries(bound, catalog.Form.RESOURCES)] == ["file:///a"]
    assert [each["uriTemplate"] for each in entries(bound, catalog.Form.TEMPLATES)] == ["file:///{path}"]
    silent = of_all_kinds(testing.allow("t"))
    for form in (catalog.Form.PROMPTS, catalog.Form.RESOURCES, catalog.Form.TEMPLATES):
        assert entries(silent, form) == []


def test_a_cursor_of_one_list_or_principal_is_none_of_another() -> None:
    raws = [json.dumps({"name": f"n{n:04}"}).encode() for n in range(1200)]
    tools = [
        json.dumps({"name": f"n{n:04}", "inputSchema": {"type": "object"}}).encode() for n in range(1200)
    ]
    view = testing.a_server(ALLOW_ALL)
    found = {view.id: catalog.definitions(tools, prompts=raws)}
    bound = bind.bound(testing.a_snapshot(view), found)
    other = bind.bound(
        testing.a_snapshot(view, workload=identity.Workload(namespace="crm", service_account="x")), found
    )
    cursor = page(bound)["nextCursor"]
    assert len(page(bound, cursor)["tools"]) == 200
    assert local.page(bound, view.id, cursor, modern=True, form=catalog.Form.PROMPTS) is None
    assert local.page(other, view.id, cursor, modern=True) is None
