# SPDX-License-Identifier: Apache-2.0
"""How servers misbehave while they are fuzzed: one manner for each request that arrives, well-behaved ones among them.

A manner takes a line and what was heard; False leaves the answer to the stage. `Unruly` hands them out in turn.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
from collections.abc import Awaitable, Callable
from typing import Any

from tests.servers import mcp, stages

Manner = Callable[[stages.Stage, mcp.Line, stages.Heard], Awaitable[bool]]
MANNERS: dict[str, Manner] = {}
ASKED: list[Any] = ["q1", 7, "", -1, 2**60, "\u00fc"]
"""Ids of requests that servers make during calls."""
_FORM = {"type": "object", "properties": {"colour": {"type": "string"}}}
QUESTIONS: tuple[tuple[str, Any], ...] = (
    ("ping", {}),
    ("roots/list", {}),
    ("sampling/createMessage", {"messages": [], "maxTokens": 1}),
    ("elicitation/create", {"message": "?", "requestedSchema": _FORM}),
    ("elicitation/create", {"mode": "url", "url": "https://good.example/", "message": "?", "elicitationId": "e"}),
    ("elicitation/create", {"mode": "url", "url": "https://evil.example/", "message": "?", "elicitationId": "e"}),
    ("elicitation/create", {"Mode": "url", "url": "https://evil.example/", "message": "?", "requestedSchema": _FORM}),
    ("elicitation/create", {"message": "canary-hidden", "requestedSchema": {"properties": {"password": {}}}}),
    ("sampling/createMessage", [1]),
    ("tools/call", {"name": "canary-hidden"}),
    ("x/y", None),
)  # fmt: skip
"""What servers ask in the middle of a call; what may not be asked names what must not reach an agent."""


def header(text: str) -> str:
    """A name as a header value, in base64 when it must be."""
    plain = text.isascii() and text.isprintable() and text.strip() == text and not text.startswith("=?")
    return text if plain else f"=?base64?{base64.b64encode(text.encode('utf-8', 'replace')).decode()}?="


def manner(function: Manner) -> Manner:
    MANNERS[function.__name__] = function
    return function


@manner
async def fine(_stage: stages.Stage, _line: mcp.Line, _heard: stages.Heard) -> bool:
    return False


@manner
async def hangs(_stage: stages.Stage, line: mcp.Line, _heard: stages.Heard) -> bool:
    await line.until_gone()
    raise ConnectionResetError


@manner
async def cuts(_stage: stages.Stage, _line: mcp.Line, _heard: stages.Heard) -> bool:
    raise ConnectionResetError


@manner
async def half_closes(_stage: stages.Stage, line: mcp.Line, _heard: stages.Heard) -> bool:
    line.writer.write(
        b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{"json'
    )
    line.writer.write_eof()
    await line.until_gone()
    raise ConnectionResetError


@manner
async def slow_stream(stage: stages.Stage, line: mcp.Line, heard: stages.Heard) -> bool:
    """Progress, a log line, list_changed, requests of its own, and then the answer."""
    if heard.id is None or heard.verb != "POST":
        return False
    await line.events()
    token = (
        heard.params.get("_meta", {}).get("progressToken")
        if isinstance(heard.params.get("_meta"), dict)
        else None
    )
    for method, params in (
        ("notifications/progress", {"progressToken": token, "progress": 1}),
        ("notifications/progress", {"progressToken": "somebody's", "progress": "x"}),
        ("notifications/message", {"level": "error", "data": "canary-log"}),
        ("notifications/tools/list_changed", {}),
        ("notifications/cancelled", {"requestId": heard.id}),
        ("notifications/x", []),
    ):
        await line.event({"jsonrpc": "2.0", "method": method, "params": params})
    for id_ in (*ASKED[:3], None, 1.5, {"a": 1}):
        at = ASKED.index(id_) if id_ in ASKED else 1
        method, params = QUESTIONS[(heard.id + at if isinstance(heard.id, int) else at) % len(QUESTIONS)]
        await line.event({"jsonrpc": "2.0", "id": id_, "method": method, "params": params})
    await asyncio.sleep(0.01)
    await line.event(stages.answer(stage, heard))
    await line.over()
    return True


@manner
async def asks_for_input(_stage: stages.Stage, line: mcp.Line, heard: stages.Heard) -> bool:
    if heard.method not in ("tools/call", "prompts/get", "resources/read", "tools/list"):
        return False
    asks = {
        "a": {"method": "elicitation/create", "params": {"mode": "form", "message": "?", "requestedSchema": {"type": "object"}}},
        "b": {"method": "elicitation/create", "params": {"mode": "url", "url": "https://evil.example/", "message": "?"}},
        "c": {"method": "x/y", "params": 5},
        "": "no request",
    }  # fmt: skip
    value = {"resultType": "input_required", "inputRequests": asks, "requestState": "s" * 100}
    await line.json({"jsonrpc": "2.0", "id": heard.id, "result": value})
    return True


@manner
async def huge(_stage: stages.Stage, line: mcp.Line, heard: stages.Heard) -> bool:
    if heard.id is None or heard.verb != "POST":
        return False
    await line.json(stages.result(heard, stages.text("x" * 6_000_000)))
    return True


def _saying(name: str, body: bytes, *headers: bytes, status: bytes = b"200 OK") -> None:
    async def said(_stage: stages.Stage, line: mcp.Line, heard: stages.Heard) -> bool:
        id_ = json.dumps(heard.id).encode()
        await line.say(body.replace(b"@", id_), *headers, status=status)
        return True

    MANNERS[name] = said


JSON, SSE = b"content-type: application/json", b"content-type: text/event-stream"
_GOOD = b'{"jsonrpc":"2.0","id":@,"result":{"resultType":"complete","content":[]}}'
_saying("garbage", b'{"jsonrpc":"2.0","id":', JSON)
_saying("bytes", bytes(range(128, 256)), JSON)
_saying("page", b"<html>", b"content-type: text/html")
_saying("empty", b"", JSON)
_saying("wrong_id", b'{"jsonrpc":"2.0","id":"another","result":{}}', JSON)
_saying(
    "null_id",
    b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"no"}}',
    JSON,
    status=b"400 Bad Request",
)
_saying("a_list", b"[" + _GOOD + b"]", JSON)
_saying("result_is_text", b'{"jsonrpc":"2.0","id":@,"result":"x"}', JSON)
_saying("result_is_null", b'{"jsonrpc":"2.0","id":@,"result":null}', JSON)
_saying("both", b'{"jsonrpc":"2.0","id":@,"result":{},"error":{"code":1,"message":"x"}}', JSON)
_saying("error_is_odd", b'{"jsonrpc":"2.0","id":@,"error":{"code":"x"}}', JSON)
_saying("twice", b'{"jsonrpc":"2.0","id":@,"result":{"content":[],"content":5},"result":{}}', JSON)
_saying("nan", b'{"jsonrpc":"2.0","id":@,"result":{"a":NaN,"content":[]}}', JSON)
_saying("surrogate", b'{"jsonrpc":"2.0","id":@,"result":{"\\ud800":1,"content":[]}}', JSON)
_saying("deep", b'{"jsonrpc":"2.0","id":@,"result":{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}}", JSON)
_saying("type_unknown", b'{"jsonrpc":"2.0","id":@,"result":{"resultType":["x"]}}', JSON)
_saying(
    "tools_are_odd",
    b'{"jsonrpc":"2.0","id":@,"result":{"tools":[1,{},{"name":5},{"name":"query"}],"prompts":5,"nextCursor":{}}}',
    JSON,
)
_saying("sse_two", b"data: " + _GOOD + b"\n\ndata: " + _GOOD + b"\n\n", SSE)
_saying("sse_then_garbage", b"data: " + _GOOD + b"\n\ndata: {{{\n\n", SSE)
_saying("sse_cr", b"id: 5\rretry: 1\rdata: " + _GOOD + b"\r\r", SSE)
_saying("sse_unfinished", b"data: " + _GOOD, SSE)
_saying("sse_priming", b"id: 1\nretry: 1\ndata:\n\n", SSE)
_saying("sse_bytes", b"\xff\xfe\n\ndata: \xff\n\n", SSE)
_saying("sse_forever_id", b"id: " + b"9" * 5_000 + b"\ndata: " + _GOOD + b"\n\n", SSE)
_saying("notes_only", b'data: {"jsonrpc":"2.0","method":"notifications/progress"}\n\n', SSE)
for _status in (
    b"202 Accepted",
    b"204 No Content",
    b"301 Moved",
    b"401 No",
    b"404 Not Found",
    b"405 No",
    b"429 Busy",
    b"503 Down",
):
    _saying(
        f"status_{_status[:3].decode()}",
        b"",
        b"location: http://127.0.0.1:1/x",
        b"retry-after: 0",
        status=_status,
    )
_saying(
    "unspoken",
    b'{"jsonrpc":"2.0","id":@,"error":{"code":-32022,"message":"v","data":{"supported":[]}}}',
    JSON,
    status=b"400 No",
)
_saying("mismatch", b'{"jsonrpc":"2.0","id":@,"error":{"code":-32020,"message":"v"}}', JSON, status=b"400 No")
_saying("odd_session", _GOOD, JSON, b"mcp-session-id: a b\tc\x80")
_saying("long_session", _GOOD, JSON, b"mcp-session-id: " + b"s" * 6_000)
_saying("not_http", b"", b"x" * 20_000)


@dataclasses.dataclass
class Unruly:
    """Hands out manners in turn. The first requests to a stage are let alone as often as chance gave `fine`."""

    turn: list[str] = dataclasses.field(default_factory=lambda: ["fine"])
    at: int = 0

    def acting(self, stage: stages.Stage) -> stages.Act:
        async def act(line: mcp.Line, heard: stages.Heard) -> bool:
            name = self.turn[self.at % len(self.turn)]
            self.at += 1
            return await MANNERS[name](stage, line, heard)

        return act
