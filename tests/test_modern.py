# SPDX-License-Identifier: Apache-2.0
"""The stateless era, with the official SDK as the other end. What must be refused: tests/corpus."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import hypothesis
import mcp_types
import pytest
from hypothesis import strategies as st
from mcp import types
from mcp.client import client as sdk
from mcp.shared import inbound
from tests import asking
from tests.corpus import capture

from outrider_sidecar import asked, conventions, exchange, jsonrpc, modern

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = conventions.Trace(PARENT, "vendor=1,other=2")
NO_TRACE = conventions.Trace()
NAMES = st.from_regex(r"[A-Za-z0-9_.-]{1,128}", fullmatch=True)


async def talk(url: str, mode: str) -> tuple[Any, Any, Any]:
    async with sdk.Client(url, mode=mode) as client:
        listed = await client.list_tools()
        return (
            listed,
            await client.call_tool("query", {"amount": 1}, progress_callback=_no_progress),
            await client.call_tool("no_such", {}),
        )


async def _no_progress(progress: float, total: float | None, message: str | None) -> None:
    raise AssertionError("nobody made progress")


# Inbound --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["auto", "2026-07-28"])
def test_what_a_modern_client_sends_is_taken_and_our_answers_are_read(mode: str) -> None:
    with capture.serving() as kept:
        listed, refused, unknown = asyncio.run(talk(kept.url, mode))
    assert kept.refused == []
    posts = [each for each in kept.kept if each.method == "POST"]
    assert {capture.judge(each).version for each in posts} == {"2026-07-28"}
    assert all(capture.judge(each).modern for each in posts)
    call = capture.judge(kept.posts("tools/call")[0])
    assert call.message.arguments_raw == b'{"amount":1}'
    assert call.progress_token is not None
    assert [tool.name for tool in listed.tools] == ["query"]
    assert refused.is_error
    assert refused.content[0].text == (
        "Refused by policy crm/sales-only: Deals above 50,000 go through the deal desk. "
        f"Request {capture.REQUEST_ID}."
    )
    assert refused.meta["dev.outrider/refusal"]["policy"] == "crm/sales-only"
    assert (unknown.is_error, unknown.content[0].text) == (True, "Unknown tool: no_such")


def test_a_client_falls_back_to_the_handshake_when_the_modern_era_is_not_offered() -> None:
    with capture.serving(offer_modern=False) as kept:
        _, refused, _ = asyncio.run(talk(kept.url, "auto"))
    assert kept.refused == []
    assert [each.message.method for each in kept.kept if each.method == "POST"][:3] == [
        "server/discover",
        "initialize",
        "notifications/initialized",
    ]
    assert refused.is_error


def test_what_a_legacy_server_answered_is_read_by_a_modern_client() -> None:
    wrapped = b'{"content":[{"type":"text","text":"42"}],"structuredContent":{"n":42},"_meta":{"com.example/x":[1]}}'
    with capture.serving(wrapped=wrapped) as kept:
        _, found, _ = asyncio.run(talk(kept.url, "2026-07-28"))
    assert (found.content[0].text, found.structured_content, found.result_type) == (
        "42",
        {"n": 42},
        "complete",
    )
    assert found.meta["com.example/x"] == [1]


def test_a_name_that_fits_no_header_is_read_from_base64() -> None:
    with capture.serving() as kept:

        async def ask() -> Any:
            async with sdk.Client(kept.url, mode="2026-07-28") as client:
                return await client.call_tool(" löschen ", {})

        told = asyncio.run(ask())
    (head,) = [value for name, value in kept.posts("tools/call")[0].headers if name == b"mcp-name"]
    assert head.startswith(b"=?base64?")
    assert kept.refused == []
    assert told.content[0].text == "Unknown tool:  löschen "


# Outbound: what we send must be what the SDK's server takes -----------------------------------------------------------


def taken(head: exchange.Headers, body: bytes) -> mcp_types.JSONRPCRequest:
    """Classified by the SDK's own ladder, on raw headers, duplicates included."""
    pairs = [(name.decode(), value.decode()) for name, value in head]
    assert inbound.find_duplicated_routing_header(pairs) is None
    verdict = inbound.classify_inbound_request(json.loads(body), headers=dict(pairs))
    assert isinstance(verdict, inbound.InboundModernRoute), verdict
    assert verdict.client_info == {"name": "outrider", "version": conventions.CLIENT_VERSION}
    assert verdict.client_capabilities == {}
    assert dict(pairs)["accept"] == "application/json, text/event-stream"
    assert dict(pairs)["content-type"] == "application/json"
    return mcp_types.JSONRPCRequest.model_validate_json(body)


@hypothesis.given(
    st.integers(1, 2**53), NAMES, st.none() | st.dictionaries(st.text("abc", max_size=3), st.integers()), st.booleans()
)  # fmt: skip
def test_a_call_of_ours_is_what_the_sdk_takes(
    id_: int, name: str, arguments: dict[str, int] | None, progress: bool
) -> None:
    given = {"name": name, "_meta": {"progressToken": 7} if progress else {}}
    given |= {} if arguments is None else {"arguments": arguments}
    subject = asking.subject(params=given, trace=TRACE)
    request = taken(*modern.request(id_, subject, asking.permit(subject)))
    assert (request.id, request.method) == (id_, "tools/call")
    params = request.params
    assert params is not None
    assert params["name"] == name
    assert params.get("arguments") == arguments
    assert params["_meta"].get("progressToken") == (id_ if progress else None)
    assert (params["_meta"]["traceparent"], params["_meta"]["tracestate"]) == (PARENT, "vendor=1,other=2")
    assert types.CallToolRequestParams.model_validate(params).name == name


def test_a_trace_goes_into_headers_and_meta_or_into_neither() -> None:
    bare = asking.subject(params={"name": "t"}, trace=TRACE)
    head, body = modern.request(1, bare, asking.permit(bare))
    assert dict(head)[b"traceparent"] == PARENT.encode()
    assert dict(head)[b"tracestate"] == b"vendor=1,other=2"
    bare = asking.subject(params={"name": "t"}, trace=NO_TRACE)
    head, body = modern.request(1, bare, asking.permit(bare))
    assert b"trace" not in body
    assert not [name for name, _ in head if name.startswith(b"trace")]


def test_discover_and_lists_of_ours_are_what_the_sdk_takes() -> None:
    assert taken(*modern.discover(3)).method == "server/discover"
    first, later = (taken(*modern.page_of(id_, "tools/list", at)) for id_, at in ((4, None), (5, "")))
    assert first.params is not None
    assert later.params is not None
    assert "cursor" not in first.params
    assert later.params["cursor"] == ""  # an empty cursor is one, as the spec says


@pytest.mark.parametrize(
    ("result", "speaks"),
    [
        (b'{"supportedVersions":["2026-07-28"]}', True), (b'{"supportedVersions":["2025-11-25","2026-07-28"]}', True),
        (b'{"supportedVersions":["2025-11-25"]}', False), (b'{"supportedVersions":"2026-07-28"}', False),
        (b'{"supportedVersions":[["2026-07-28"]]}', False), (b"{}", False), (b'{"tools":[]}', False),
    ],
)  # fmt: skip
def test_a_server_speaks_this_era_when_it_lists_it(result: bytes, speaks: bool) -> None:
    assert modern.speaks(jsonrpc.answer(b'{"id":1,"result":' + result + b"}")) is speaks


# Between the eras -----------------------------------------------------------------------------------------------------

_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=6)
RESULTS = st.dictionaries(
    _TEXT | st.sampled_from(["content", "structuredContent", "isError", "tools", "resultType", "ttlMs", "cacheScope"]),
    st.none() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT | st.lists(st.integers(), max_size=2),
    max_size=5,
)  # fmt: skip
METAS = st.none() | st.dictionaries(
    _TEXT | st.sampled_from([conventions.META_SERVER_INFO]), st.integers(), max_size=3
)


@hypothesis.given(RESULTS, METAS)
def test_adapting_changes_nothing_but_what_the_eras_differ_in(
    result: dict[str, Any], meta: dict[str, int] | None
) -> None:
    whole = result if meta is None else {**result, "_meta": meta}
    raw = json.dumps(whole).encode()
    assert json.loads(modern.adapted(raw, modern=True, method="tools/call")) == {
        "resultType": "complete",
        **whole,
    }
    kept = {key: value for key, value in whole.items() if key not in ("resultType", "ttlMs", "cacheScope")}
    if meta and conventions.META_SERVER_INFO in meta:
        rest = {key: value for key, value in meta.items() if key != conventions.META_SERVER_INFO}
        kept = {key: value for key, value in kept.items() if key != "_meta"} | (
            {"_meta": rest} if rest else {}
        )
    assert json.loads(modern.adapted(raw, modern=False, method="tools/call")) == kept


def test_members_that_both_eras_know_keep_their_very_bytes() -> None:
    raw = b'{"content":[ {"type":"text","text":"\\u00e9"} ],"n":1.00,"resultType":"complete","ttlMs":5}'
    assert modern.adapted(raw, modern=True, method="tools/call") is raw
    assert (
        modern.adapted(raw, modern=False, method="tools/call")
        == b'{"content":[ {"type":"text","text":"\\u00e9"} ],"n":1.00}'
    )
    plain = b'{ "content" : [] }'
    assert modern.adapted(plain, modern=False, method="tools/call") is plain
    assert b'"content":[]' in modern.adapted(plain, modern=True, method="tools/call")


def test_a_resource_of_the_handshake_era_may_not_be_kept_by_agents_of_the_other() -> None:
    plain = b'{"contents":[]}'
    told = json.loads(modern.adapted(plain, modern=True, method="resources/read"))
    assert told == {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "contents": []}
    assert modern.adapted(plain, modern=False, method="resources/read") is plain
    said = b'{"contents":[],"ttlMs":5,"cacheScope":"public"}'
    assert json.loads(modern.adapted(said, modern=True, method="resources/read"))["ttlMs"] == 5


@pytest.mark.parametrize(
    ("result", "asks"),
    [
        (b'{"content":[]}', False), (b'{"resultType":"complete"}', False), (b'{"resultType":"input_required"}', True),
        (b'{"resultType":"task"}', True), (b'{"resultType":7}', True), (b'{"resultType":null}', True),
        (b'{"content":[{"resultType":"task"}]}', False), (b'{"result\\u0054ype":"input_required"}', True),
    ],
)  # fmt: skip
def test_a_result_that_is_a_question_is_told_from_an_answer(result: bytes, asks: bool) -> None:
    assert modern.asks_for_input(result) is asks


def test_trace_context_of_meta_wins_over_the_headers_and_garbage_is_none() -> None:
    other = "00-11111111111111111111111111111111-2222222222222222-00"
    headers = ((b"traceparent", other.encode()), (b"tracestate", b"a=1"))
    body = {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"_meta": {"traceparent": PARENT}}}
    assert asked.trace(headers, jsonrpc.parse(json.dumps(body).encode())).parent == PARENT
    bare = jsonrpc.parse(b'{"jsonrpc":"2.0","id":1,"method":"ping"}')
    assert asked.trace(headers, bare) == conventions.Trace(other, "a=1")
    assert asked.trace(((b"traceparent", b"00-x\r\n"),), bare) == NO_TRACE
    assert asked.trace(headers, bare).id == "1" * 32
