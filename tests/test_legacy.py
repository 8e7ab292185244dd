# SPDX-License-Identifier: Apache-2.0
"""The handshake era, with the official SDKs of both lines as the other end. What must be refused: tests/corpus."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from typing import Any

import mcp_types
import pytest
from mcp import types
from mcp.client import client as sdk
from tests import asking
from tests.corpus import capture

from outrider_sidecar import conventions, exchange, jsonrpc, legacy

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

# Runs under the interpreter of the 1.x line: says what that client made of our answers.
OLD_CLIENT = """
import asyncio, json, sys
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

async def main():
    async with streamablehttp_client(sys.argv[1]) as (read, write, session_id):
        async with ClientSession(read, write) as session:
            started = await session.initialize()
            await session.send_ping()
            listed = await session.list_tools()
            called = await session.call_tool("query", {"amount": 1})
            unknown = await session.call_tool("no_such", None)
            print(json.dumps({
                "version": started.protocolVersion, "tools": [tool.model_dump() for tool in listed.tools],
                "error": called.isError, "text": called.content[0].text, "unknown": unknown.content[0].text,
                "refusal": called.meta["dev.outrider/refusal"], "session": session_id(),
            }))

asyncio.run(main())
"""


def old_client(url: str) -> dict[str, Any]:
    ran = subprocess.run(
        [os.environ["OUTRIDER_LEGACY_PYTHON"], "-c", OLD_CLIENT, url],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return capture.conversation(ran.stdout)


# Inbound --------------------------------------------------------------------------------------------------------------


def assert_taken(kept: capture.Capture) -> None:
    assert kept.refused == []
    posts = [each for each in kept.kept if each.method == "POST"]
    judged = [capture.judge(each) for each in posts]
    assert {(each.modern, each.version) for each in judged} == {(False, "2025-11-25")}
    assert [each.message.method for each in judged][:2] == ["initialize", "notifications/initialized"]
    assert judged[-2].message.arguments_raw == b'{"amount":1}'
    assert {each.method for each in kept.kept} == {"POST", "GET", "DELETE"}


def test_what_the_1x_client_sends_is_taken_and_our_answers_are_read() -> None:
    with capture.serving() as kept:
        told = old_client(kept.url)
    assert_taken(kept)
    assert kept.posts("tools/call")[1].message.arguments_raw is None
    assert told["version"] == "2025-11-25"
    assert [(tool["name"], tool["x-kept"]) for tool in told["tools"]] == [("query", 1.0)]
    assert told["error"] is True
    assert told["text"].startswith("Refused by policy crm/sales-only: Deals above 50,000")
    assert told["refusal"] == {
        "reason": "Denied",
        "requestId": capture.REQUEST_ID,
        "policy": "crm/sales-only",
        "rule": "big",
    }
    assert told["unknown"] == "Unknown tool: no_such"
    assert told["session"]


def test_what_the_2x_client_sends_in_its_legacy_mode_is_taken_and_our_answers_are_read() -> None:
    async def talk(url: str) -> Any:
        async with sdk.Client(url, mode="legacy") as client:
            await client.list_tools()
            called = await client.call_tool("query", {"amount": 1})
            await client.call_tool("no_such", {})
            return called

    with capture.serving() as kept:
        called = asyncio.run(talk(kept.url))
    assert_taken(kept)
    assert called.is_error
    assert called.meta["dev.outrider/refusal"]["reason"] == "Denied"


def test_what_a_modern_server_answered_is_read_by_the_1x_client() -> None:
    wrapped = (
        b'{"resultType":"complete","content":[{"type":"text","text":"42"}],'
        b'"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"},"dev.outrider/refusal":1}}'
    )
    with capture.serving(wrapped=wrapped) as kept:
        told = old_client(kept.url)
    assert (told["text"], told["error"], told["refusal"]) == ("42", False, 1)


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ("2025-03-26", "2025-03-26"), ("2025-06-18", "2025-06-18"), ("2025-11-25", "2025-11-25"),
        ("2024-11-05", "2025-11-25"), ("2026-07-28", "2025-11-25"), ("", "2025-11-25"), (None, "2025-11-25"),
        (5, "2025-11-25"), (["2025-03-26"], "2025-11-25"), ({}, "2025-11-25"),
    ],
)  # fmt: skip
def test_a_known_version_is_chosen_and_otherwise_the_newest(wanted: Any, chosen: str) -> None:
    assert legacy.chosen_version({"protocolVersion": wanted}) == chosen
    assert legacy.chosen_version({}) == "2025-11-25"


def test_without_a_version_header_the_oldest_that_has_none_is_spoken() -> None:
    assert legacy.version_of(()) == "2025-03-26"
    assert legacy.version_of(((b"mcp-protocol-version", b"2025-06-18"),)) == "2025-06-18"


@pytest.mark.parametrize("stated", [b"2024-11-05", b"2026-07-28", b"", b"latest", b"2025-06-18, 2025-11-25"])
def test_a_version_nobody_knows_is_refused_with_those_that_are(stated: bytes) -> None:
    with pytest.raises(jsonrpc.Malformed) as caught:
        legacy.version_of(((b"mcp-protocol-version", stated),))
    assert caught.value.code == conventions.VERSION_UNSUPPORTED
    assert caught.value.data == {
        "supported": ["2025-11-25", "2025-06-18", "2025-03-26"],
        "requested": stated.decode(),
    }


# Outbound -------------------------------------------------------------------------------------------------------------


def message(body: bytes) -> Any:
    """Read by the SDK's own models."""
    return mcp_types.jsonrpc_message_adapter.validate_json(body, by_name=False)


def assert_head(head: exchange.Headers, session: bytes | None, version: str | None) -> None:
    found = dict(head)
    assert len(found) == len(head)
    assert found[b"accept"] == b"application/json, text/event-stream"
    assert found[b"content-type"] == b"application/json"
    assert found.get(b"mcp-session-id") == session
    assert found.get(b"mcp-protocol-version") == (None if version is None else version.encode())
    assert b"mcp-method" not in found


def test_our_handshake_is_what_the_sdk_takes() -> None:
    head, body = legacy.initialize(1, "2025-11-25")
    assert_head(head, None, None)
    params = types.InitializeRequestParams.model_validate(message(body).params)
    assert (params.protocol_version, params.client_info.name) == ("2025-11-25", "outrider")
    assert params.capabilities.model_dump(exclude_none=True) == {}
    head, body = legacy.initialized(session=b"s1", version="2025-06-18")
    assert_head(head, b"s1", "2025-06-18")
    assert message(body).method == "notifications/initialized"


def test_our_lists_and_cancellations_are_what_the_sdk_takes() -> None:
    head, body = legacy.page_of(5, "tools/list", None, session=None, version="2025-03-26")
    assert_head(head, None, "2025-03-26")
    assert (message(body).id, message(body).params) == (5, None)
    _, body = legacy.page_of(6, "tools/list", 'a"b', session=b"s", version="2025-03-26")
    assert message(body).params["cursor"] == 'a"b'
    told = message(legacy.cancelled(6)).params
    assert types.CancelledNotificationParams.model_validate(told).request_id == 6
    assert json.loads(legacy.level(7, "info"))["params"] == {"level": "info"}


def test_a_call_carries_arguments_token_and_trace_and_no_modern_member() -> None:
    trace = conventions.Trace(PARENT, "")
    raw = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"query","arguments":{"a": 1.0},"_meta":%b}}'
    given = asking.subject(raw=raw % b'{"progressToken":"t"}', trace=trace)
    head, body = legacy.request(8, given, asking.permit(given), session=b"s", version="2025-11-25")
    assert b'"arguments":{"a": 1.0}' in body
    sent = message(body)
    assert sent.params["_meta"] == {"progressToken": 8, "traceparent": PARENT}
    assert types.CallToolRequestParams.model_validate(sent.params).arguments == {"a": 1.0}
    assert_head(head, b"s", "2025-11-25")
    assert dict(head)[b"traceparent"] == PARENT.encode()
    bare = asking.subject(params={"name": "query"})
    _, body = legacy.request(8, bare, asking.permit(bare), session=None, version="2025-11-25")
    assert json.loads(body)["params"] == {"name": "query"}


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        (b'{"id":1,"result":{"protocolVersion":"2025-06-18","capabilities":{}}}', "2025-06-18"),
        (b'{"id":1,"result":{"protocolVersion":"2024-11-05"}}', "2024-11-05"), (b'{"id":1,"result":{"protocolVersion":1}}', None),
        (b'{"id":1,"result":{"protocolVersion":["2025-06-18"]}}', None), (b'{"id":1,"result":{}}', None),
        (b'{"id":1,"error":{"code":1,"message":"protocolVersion"}}', None),
    ],
)  # fmt: skip
def test_the_version_of_a_server_is_one_we_know_or_none(answer: bytes, version: str | None) -> None:
    assert legacy.negotiated(jsonrpc.answer(answer)) == version
