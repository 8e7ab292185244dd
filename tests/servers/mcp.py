# SPDX-License-Identifier: Apache-2.0
"""A raw MCP server of either era whose tools are ways to behave: the name of the tool called decides what happens.

It speaks bytes, so that it can be wrong in exactly one way; what it was asked stands in `seen`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tests.servers.lines import Line

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
SSE = b"text/event-stream"


@dataclasses.dataclass
class Seen:
    """One request as it arrived; `body` None when there was none."""

    verb: str
    headers: dict[str, str]
    raw: bytes
    body: Any

    @property
    def method(self) -> str:
        return "" if self.body is None else self.body.get("method", "")


@dataclasses.dataclass
class Peer:
    """`era` is "modern", "legacy" or "sessionless". `broken` answers every request with that status and nothing else.

    `mute` reads requests and never answers. `accepts`, if not None, are the values of Authorization that are not refused (401);
    `refused` are those that were.
    """

    era: str = "modern"
    tools: list[Any] = dataclasses.field(default_factory=list)
    page: int = 1000
    broken: int = 0
    mute: bool = False
    accepts: set[str] | None = None
    refused: list[Seen] = dataclasses.field(default_factory=list)
    port: int = 0
    seen: list[Seen] = dataclasses.field(default_factory=list)
    sessions: set[str] = dataclasses.field(default_factory=set)
    opened: int = 0
    called: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    left: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    go_on: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    muted: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    told: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    responses: asyncio.Queue[Any] = dataclasses.field(default_factory=asyncio.Queue)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def of(self, method: str) -> list[Seen]:
        """Every request of one method, oldest first."""
        return [each for each in self.seen if each.method == method]

    @property
    def calls(self) -> list[Seen]:
        return self.of("tools/call")


Behaviour = Callable[[Line, Seen], Awaitable[None]]
BEHAVIOURS: dict[str, Behaviour] = {}


def behaviour(function: Behaviour) -> Behaviour:
    BEHAVIOURS[function.__name__] = function
    return function


def result(seen: Seen, value: dict[str, Any], **envelope: Any) -> dict[str, Any]:
    extra = {"resultType": "complete"} if seen.headers.get("mcp-protocol-version") == MODERN else {}
    return {"jsonrpc": "2.0", "id": seen.body["id"], "result": {**value, **extra}, **envelope}


def failure(id_: Any, words: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id_, "error": {"code": -32600, "message": words}}


def text(words: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": words}]}


def progress(token: Any, at: int) -> dict[str, Any]:
    params = {"progressToken": token, "progress": at, "message": "half", "unknown": {"a": 1}}
    return {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}


def token_of(seen: Seen) -> Any:
    return seen.body["params"].get("_meta", {}).get("progressToken")


@behaviour
async def echo(line, seen):
    await line.json(result(seen, text(json.dumps(seen.body["params"].get("arguments")))))


@behaviour
async def odd(line, seen):
    """A result with everything a relay likes to lose."""
    raw = (
        b'{"content":[ {"type":"text","text":"\\u00e9","annotations":{"x":1.50}} ],"structuredContent":{"big":12345678901234567890,'
        b'"$defs":{}},"_meta":{"com.example/x":[1]},"future":null,"isError":false}'
    )
    await line.json(b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (seen.body["id"], raw))


@behaviour
async def fails(line, seen):
    await line.json(result(seen, {**text("no such deal"), "isError": True}))


@behaviour
async def errs(line, seen):
    error = {"code": -32050, "message": "busy", "data": {"x": 1}}
    await line.json({"jsonrpc": "2.0", "id": seen.body["id"], "error": error})


@behaviour
async def streams(line, seen):
    """Progress for this call, for another, a log line, a request of its own; then the answer when it may."""
    await line.events()
    await line.event(progress(token_of(seen), 1))
    await line.event(progress("somebody else's", 2))
    await line.event({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info"}})
    await line.event({"jsonrpc": "2.0", "id": "s1", "method": "sampling/createMessage", "params": {}})
    line.peer.called.set()
    await line.peer.go_on.wait()
    await line.event(progress(token_of(seen), 3))
    await line.event(result(seen, text("done")))
    await line.over()


@behaviour
async def quiet_stream(line, seen):
    """The answer as the only event of a stream."""
    await line.events()
    await line.event(result(seen, text("done")))
    await line.over()


@behaviour
async def open_stream(line, seen):
    """Answers, and never closes the stream behind it."""
    await line.events()
    await line.event(result(seen, text("done")))
    await line.until_gone()
    raise ConnectionResetError


@behaviour
async def cut_stream(line, seen):
    """Ends its stream without an answer."""
    await line.events()
    await line.event(progress(token_of(seen), 1))
    await line.over()


@behaviour
async def waits(line, seen):
    """Answers when the test lets it."""
    line.peer.called.set()
    gone = asyncio.ensure_future(line.reader.read(1))
    going = asyncio.ensure_future(line.peer.go_on.wait())
    await asyncio.wait((gone, going), return_when=asyncio.FIRST_COMPLETED)
    going.cancel()
    if gone.done():
        line.peer.left.set()
        raise ConnectionResetError
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    await line.json(result(seen, text("late")))


@behaviour
async def demands(line, seen):
    """Asks its client twice before it answers with what it was told."""
    await line.events()
    told = []
    for id_, method in ((7, "ping"), ("s-1", "sampling/createMessage")):
        await line.event({"jsonrpc": "2.0", "id": id_, "method": method, "params": {}})
        told.append(await line.peer.responses.get())
    await line.event(result(seen, text(json.dumps(told))))
    await line.over()


@behaviour
async def hangs(line, seen):
    line.peer.called.set()
    await line.until_gone()


@behaviour
async def cuts(line, seen):
    raise ConnectionResetError


@behaviour
async def wrong_id(line, seen):
    await line.json({"jsonrpc": "2.0", "id": str(seen.body["id"]), "result": text("not yours")})


@behaviour
async def huge(line, seen):
    await line.json(result(seen, text("x" * 1_000_000)))


@behaviour
async def unauthorized(line, seen):
    await line.json({"error": "invalid_token"}, b"www-authenticate: Bearer", status=b"401 Unauthorized")


@behaviour
async def teapot(line, seen):
    await line.say(b"busy", status=b"429 Too Many Requests")


@behaviour
async def dies(line, seen):
    await line.say(b"", status=b"503 Service Unavailable")


@behaviour
async def asks(line, seen):
    """For what nobody declared."""
    ask = {"method": "elicitation/create", "params": {"message": "?", "requestedSchema": {"properties": {}}}}
    value = {"resultType": "input_required", "inputRequests": {"who": ask}, "requestState": "s"}
    await line.json({"jsonrpc": "2.0", "id": seen.body["id"], "result": value})


@behaviour
async def surrogate(line, seen):
    """A result with a key that is no text."""
    await line.json(b'{"jsonrpc":"2.0","id":%d,"result":{"\\ud800":1,"content":[]}}' % seen.body["id"])


def _saying(name: str, body: bytes, *headers: bytes, status: bytes = b"200 OK") -> None:
    async def said(line: Line, _seen: Seen) -> None:
        await line.say(body, *headers, status=status)

    BEHAVIOURS[name] = said


_LEADS_AWAY = b"location: http://127.0.0.1:1/else?token=hunter2"
_saying("redirects", b"", _LEADS_AWAY, status=b"307 Temporary Redirect")
_saying("garbage", b'{"jsonrpc":"2.0","id":', b"content-type: application/json")
_saying("page", b"<html>welcome", b"content-type: text/html")
_saying("silent_ok", b"")


async def _read(line: Line) -> Seen:
    head = await line.reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
    raw = await line.reader.readexactly(int(headers.get("content-length", 0)))
    seen = Seen(first.split(" ")[0], headers, raw, json.loads(raw) if raw else None)
    line.peer.seen.append(seen)
    return seen


async def _answer(line: Line, seen: Seen) -> None:
    peer = line.peer
    if peer.mute:
        peer.muted.set()
        await line.until_gone()
        raise ConnectionResetError
    if peer.accepts is not None and seen.headers.get("authorization", "") not in peer.accepts:
        peer.refused.append(seen)
        await BEHAVIOURS["unauthorized"](line, seen)
    elif peer.broken:
        await line.say(b"", status=b"%d Broken" % peer.broken)
    elif peer.era == "modern":
        await _modern(line, seen)
    else:
        await _legacy(line, seen)


def _page(peer: Peer, seen: Seen) -> dict[str, Any]:
    at = int(seen.body.get("params", {}).get("cursor", "0"))
    more = {"nextCursor": str(at + peer.page)} if at + peer.page < len(peer.tools) else {}
    return {"tools": peer.tools[at : at + peer.page], **more}


async def _modern(line: Line, seen: Seen) -> None:
    if seen.headers.get("mcp-protocol-version") != MODERN:
        error = {"code": -32022, "message": "unsupported", "data": {"supported": [MODERN]}}
        message = {"jsonrpc": "2.0", "id": seen.body.get("id"), "error": error}
        await line.json(message, status=b"400 Bad Request")
    elif seen.method == "server/discover":
        await line.json(result(seen, {"supportedVersions": [MODERN], "capabilities": {"tools": {}}}))
    elif seen.method == "tools/list":
        await line.json(result(seen, {**_page(line.peer, seen), "ttlMs": 60000, "cacheScope": "private"}))
    else:
        await BEHAVIOURS[seen.body["params"]["name"]](line, seen)


async def _legacy(line: Line, seen: Seen) -> None:
    peer, session = line.peer, seen.headers.get("mcp-session-id", "")
    keeps = peer.era == "legacy"
    if seen.verb == "DELETE":
        peer.sessions.discard(session)
        peer.told.set()
        await line.say(b"")
    elif seen.method == "initialize":
        peer.opened += 1
        peer.sessions.add(f"s{peer.opened}")
        head = (b"mcp-session-id: s%d" % peer.opened,) if keeps else ()
        info = {"name": "p", "version": "1"}
        made = {"protocolVersion": LEGACY, "capabilities": {"tools": {}}, "serverInfo": info}
        await line.json({"jsonrpc": "2.0", "id": seen.body["id"], "result": made}, *head)
    elif seen.headers.get("mcp-protocol-version") == MODERN or (keeps and not session):
        await line.json(
            failure("server-error", "Bad Request: no valid session id provided"), status=b"400 Bad Request"
        )
    elif keeps and session not in peer.sessions:
        await line.json(failure(None, "Session not found"), status=b"404 Not Found")
    elif not seen.method:
        peer.responses.put_nowait(seen.body)
        await line.say(b"", status=b"202 Accepted")
    elif "id" not in seen.body:
        if seen.method == "notifications/cancelled":
            peer.told.set()
        await line.say(b"", status=b"202 Accepted")
    elif seen.method == "tools/list":
        await line.json(result(seen, _page(peer, seen)))
    else:
        await BEHAVIOURS[seen.body["params"]["name"]](line, seen)


def a_tool(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}, **more}


@contextlib.asynccontextmanager
async def serving(peer: Peer) -> AsyncIterator[Peer]:
    """Serves until the block ends; a peer without tools offers every behaviour. A port that is set is used again."""
    peer.tools = peer.tools or [a_tool(name) for name in BEHAVIOURS]
    tasks: set[Any] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        line = Line(peer, reader, writer)
        try:
            while True:
                await _answer(line, await _read(line))
        except (ConnectionError, asyncio.IncompleteReadError):
            peer.left.set()
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", peer.port)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
