# SPDX-License-Identifier: Apache-2.0
"""A raw MCP server that offers every kind, in either era or both, and keeps each request as the bytes that arrived.

A test puts its own behaviour in `act`; whatever that leaves alone is answered as a well-behaved server would. `push` sends a
message down every open GET and listen stream. Tests of the corpus, the field bugs, the fuzzer and bench.streams use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tests.servers import mcp

CAPABILITIES = {
    "tools": {"listChanged": True},
    "prompts": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "completions": {},
    "logging": {},
}
LISTS = {
    "tools/list": "tools", "prompts/list": "prompts", "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Heard:
    """One request. `head` holds every header line in order, names in lower case; `body` is None when it was no JSON."""

    verb: str
    target: str
    head: tuple[tuple[str, str], ...]
    raw: bytes
    body: Any

    @property
    def headers(self) -> dict[str, str]:
        return dict(self.head)

    @property
    def modern(self) -> bool:
        return self.headers.get("mcp-protocol-version") == mcp.MODERN

    @property
    def method(self) -> str:
        return str(self.body.get("method", "")) if isinstance(self.body, dict) else ""

    @property
    def id(self) -> Any:
        return self.body.get("id") if isinstance(self.body, dict) else None

    @property
    def params(self) -> dict[str, Any]:
        found = self.body.get("params", {}) if isinstance(self.body, dict) else {}
        return found if isinstance(found, dict) else {}

    @property
    def name(self) -> Any:
        return self.params.get("uri" if self.method.startswith("resources/") else "name")


Act = Callable[[mcp.Line, Heard], Awaitable[bool]]
"""True when it answered itself."""


@dataclasses.dataclass(eq=False)
class Stage:
    """`era` is "modern", "legacy" or "dual"; `label` is in every answer, to tell servers apart.

    `asked` are the ids of what its `act` asks of clients: answers with other ids are complained about.
    """

    era: str = "dual"
    label: str = "stage"
    tools: list[Any] = dataclasses.field(default_factory=list)
    prompts: list[Any] = dataclasses.field(default_factory=list)
    resources: list[Any] = dataclasses.field(default_factory=list)
    templates: list[Any] = dataclasses.field(default_factory=list)
    page: int = 1000
    act: Act | None = None
    asked: list[Any] = dataclasses.field(default_factory=list)
    port: int = 0
    heard: list[Heard] = dataclasses.field(default_factory=list)
    sessions: dict[str, set[mcp.Line]] = dataclasses.field(default_factory=dict)
    listeners: dict[mcp.Line, Any] = dataclasses.field(default_factory=dict)
    opened: int = 0
    crashes: list[BaseException] = dataclasses.field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def of(self, method: str) -> list[Heard]:
        """Every request of one method, oldest first."""
        return [each for each in self.heard if each.method == method]

    async def push(self, method: str, params: dict[str, Any] | None = None) -> int:
        """One notification down every open stream; the number of them."""
        streams = [(line, None) for each in self.sessions.values() for line in each]
        for line, subscription in (*streams, *self.listeners.items()):
            extra = {} if subscription is None else {"_meta": {mcp_key("subscriptionId"): subscription}}
            with contextlib.suppress(ConnectionError):
                await line.event({"jsonrpc": "2.0", "method": method, "params": {**(params or {}), **extra}})
        return len(streams) + len(self.listeners)

    async def until(self, what: Callable[[], Any], seconds: float = 10.0) -> Any:
        """Waits for what another task does: the first true value."""
        async with asyncio.timeout(seconds):
            while not (found := what()):
                await asyncio.sleep(0.005)
        return found


def mcp_key(name: str) -> str:
    return f"io.modelcontextprotocol/{name}"


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "description": f"{name}.", "inputSchema": {"type": "object"}, **more}


def prompt(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "arguments": [{"name": "who"}], **more}


def resource(uri: str, **more: Any) -> dict[str, Any]:
    return {"uri": uri, "name": uri.rpartition("/")[2] or "x", **more}


def template(text: str, **more: Any) -> dict[str, Any]:
    return {"uriTemplate": text, "name": "t", **more}


def result(heard: Heard, value: dict[str, Any]) -> dict[str, Any]:
    extra = {"resultType": "complete"} if heard.modern else {}
    return {"jsonrpc": "2.0", "id": heard.id, "result": {**value, **extra}}


def error(heard: Heard, code: int, words: str, **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": heard.id, "error": {"code": code, "message": words, **more}}


def text(words: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": words}]}


def answer(stage: Stage, heard: Heard) -> dict[str, Any]:
    """What a well-behaved server says to a request of either era."""
    params, told = (
        heard.params,
        {"by": stage.label, "name": heard.name, "arguments": heard.params.get("arguments")},
    )
    words = json.dumps(told)
    kept = {"ttlMs": 60_000, "cacheScope": "private"} if heard.modern else {}
    match heard.method:
        case "server/discover":
            info = {mcp_key("serverInfo"): {"name": stage.label, "version": "1"}}
            value = {"supportedVersions": [mcp.MODERN], "capabilities": CAPABILITIES, "_meta": info, **kept}
        case "initialize":
            info = {"name": stage.label, "version": "1"}
            version = params["protocolVersion"]
            value = {"protocolVersion": version, "capabilities": CAPABILITIES, "serverInfo": info}
        case "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list":
            value = _page(stage, heard) | kept
        case "tools/call":
            value = text(words)
        case "prompts/get":
            value = {"messages": [{"role": "user", "content": {"type": "text", "text": words}}]}
        case "resources/read":
            value = {"contents": [{"uri": params["uri"], "text": words}], **kept}
        case "completion/complete":
            value = {"completion": {"values": [stage.label], "total": 1, "hasMore": False}}
        case "resources/subscribe" | "resources/unsubscribe" | "logging/setLevel" | "ping":
            value = {}
        case _:
            return error(heard, -32601, "Method not found")
    return result(heard, value)


def _page(stage: Stage, heard: Heard) -> dict[str, Any]:
    member = LISTS[heard.method]
    all_of_it = {"resourceTemplates": stage.templates}.get(member) or getattr(stage, member, [])
    at = int(heard.params.get("cursor") or "0")
    more = {"nextCursor": str(at + stage.page)} if at + stage.page < len(all_of_it) else {}
    return {member: all_of_it[at : at + stage.page], **more}


async def _read(line: mcp.Line, stage: Stage) -> Heard:
    head = await line.reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    pairs = tuple((name.lower(), value.strip()) for name, _, value in (each.partition(":") for each in lines))
    raw = await line.reader.readexactly(int(dict(pairs).get("content-length", 0)))
    verb, target, _ = first.split(" ")
    try:
        body = json.loads(raw) if raw else None
    except ValueError:
        body = None
    heard = Heard(verb, target, pairs, raw, body)
    stage.heard.append(heard)
    return heard


async def _stream(line: mcp.Line, stage: Stage, heard: Heard, session: str) -> None:
    """A GET stream of the handshake era, or a listen stream of the stateless one, until the client leaves."""
    await line.events()
    if heard.modern:
        stage.listeners[line] = heard.id
        honoured = {
            "notifications": heard.params.get("notifications", {}),
            "_meta": {mcp_key("subscriptionId"): heard.id},
        }
        await line.event(
            {"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": honoured}
        )
    else:
        stage.sessions[session].add(line)
    try:
        await line.until_gone()
    finally:
        stage.listeners.pop(line, None)
        stage.sessions.get(session, set()).discard(line)
    raise ConnectionResetError


async def _legacy(line: mcp.Line, stage: Stage, heard: Heard) -> None:
    session = heard.headers.get("mcp-session-id", "")
    if heard.method == "initialize":
        stage.opened += 1
        stage.sessions[made := f"{stage.label}-{stage.opened}"] = set()
        await line.json(answer(stage, heard), b"mcp-session-id: " + made.encode())
    elif not session:
        await line.json(error(heard, -32000, "Bad Request: Missing session ID"), status=b"400 Bad Request")
    elif session not in stage.sessions:
        refused = {**error(heard, -32001, "Session not found"), "id": None}
        await line.json(refused, status=b"404 Not Found")
    elif heard.verb == "DELETE":
        del stage.sessions[session]
        await line.say(b"")
    elif heard.verb == "GET":
        await _stream(line, stage, heard, session)
    elif heard.id is None or not heard.method:
        await line.say(b"", status=b"202 Accepted")
    else:
        await line.json(answer(stage, heard))


async def _modern(line: mcp.Line, stage: Stage, heard: Heard) -> None:
    if not heard.modern:
        refused = error(heard, -32022, "Unsupported protocol version", data={"supported": [mcp.MODERN]})
        await line.json(refused, status=b"400 Bad Request")
    elif heard.verb != "POST":
        await line.say(b"", b"allow: POST", status=b"405 Method Not Allowed")
    elif heard.method == "subscriptions/listen":
        await _stream(line, stage, heard, "")
    elif heard.id is None:
        await line.say(b"", status=b"202 Accepted")
    else:
        await line.json(answer(stage, heard))


@contextlib.asynccontextmanager
async def playing(stage: Stage) -> AsyncIterator[Stage]:
    """Serves until the block ends. Its own crashes fail the test that it serves."""
    tasks: set[Any] = set()
    peer = mcp.Peer(stage.era)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(task := asyncio.current_task())
        line = mcp.Line(peer, reader, writer)
        try:
            while True:
                heard = await _read(line, stage)
                if stage.act is not None and await stage.act(line, heard):
                    continue
                era = _modern if stage.era == "modern" or (stage.era == "dual" and heard.modern) else _legacy
                await era(line, stage, heard)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except Exception as crash:  # noqa: BLE001 -- shown by the test
            stage.crashes.append(crash)
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", stage.port, backlog=1024, limit=2**23)
    stage.port = server.sockets[0].getsockname()[1]
    try:
        yield stage
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert stage.crashes == []
