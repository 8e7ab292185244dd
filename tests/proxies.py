# SPDX-License-Identifier: Apache-2.0
"""A whole proxy in one event loop: real door, pipeline, journal, ledger and way out; and an agent that speaks bytes.

When a world ends, what must hold after every call is checked: no unit is held, every intent has exactly one outcome.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from tests import journals
from tests.servers import mcp

from outrider import audit, bind, call, names, rules, snapshot, testing
from outrider_sidecar import (
    caller,
    credentials,
    current,
    door,
    fetcher,
    ids,
    journal,
    ledger,
    lenders,
    lists,
    loans,
    orders,
    pacing,
    pipeline,
    records,
    servers,
    sessions,
    ssetransport,
    states,
    telemetry,
    upstream,
    users,
)

TOKEN = b"agent-token"
API = names.ServerId("crm", "api")
PATH = "/crm/api/mcp"
KEY = bytes(range(32))
META = {
    "io.modelcontextprotocol/protocolVersion": mcp.MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}


@dataclasses.dataclass
class Told:
    """An answer: `messages` are the JSON body, or the events of a stream in order."""

    status: int
    headers: dict[str, str]
    body: bytes
    messages: list[Any]

    @property
    def last(self) -> Any:
        return self.messages[-1]

    @property
    def result(self) -> Any:
        return self.last["result"]

    @property
    def refusal(self) -> Any:
        """What a program reads of a refusal; None when this is none."""
        said = self.last.get("result", self.last.get("error", {}).get("data", {}))
        return said.get("_meta", said).get("dev.outrider/refusal")

    @property
    def reason(self) -> Any:
        return (self.refusal or {}).get("reason")

    @property
    def text(self) -> str:
        return str(self.result["content"][0]["text"])


def parsed(status: int, headers: dict[str, str], body: bytes) -> Told:
    kind = headers.get("content-type", "")
    if kind == "text/event-stream":
        events = [part for part in body.split(b"\n\n") if part and not part.startswith(b":")]
        messages = [
            json.loads(data)
            for event in events
            if (data := b"".join(each[6:] for each in event.split(b"\n") if each.startswith(b"data: ")))
        ]
    else:
        messages = [json.loads(body)] if kind == "application/json" else []
    return Told(status, headers, body, messages)


def request(method: str, params: dict[str, Any] | None = None, *, id_: Any = 1) -> dict[str, Any]:
    body: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    return body | ({} if params is None else {"params": params}) | ({} if id_ is None else {"id": id_})


class Asking:
    """One request under way on a connection of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def leave(self) -> None:
        self.writer.transport.abort()

    async def head(self) -> tuple[int, dict[str, str]]:
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n"))[:-4].decode("latin-1").split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        return int(first.split()[1]), {name.lower(): value for name, value in pairs}

    async def chunk(self) -> bytes:
        size = int(await self.reader.readline(), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def answer(self) -> Told:
        async with asyncio.timeout(15):
            status, headers = await self.head()
            body = b""
            if "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
            elif headers.get("transfer-encoding") == "chunked":
                while chunk := await self.chunk():
                    body += chunk
        self.leave()
        return parsed(status, headers, body)


@dataclasses.dataclass
class World:
    """Everything of one proxy; `apply` puts a configuration in force."""

    folder: pathlib.Path
    parts: orders.Parts
    current: current.Current
    lists: lists.Lists
    pipeline: pipeline.Pipeline
    door: Any = None
    tasks: set[asyncio.Task[None]] = dataclasses.field(default_factory=set)
    users: users.Users = dataclasses.field(kw_only=True)
    providers: tuple[snapshot.IdentityProvider, ...] = ()

    def apply(self, *views: snapshot.ServerView) -> None:
        held = self.current.bound
        moved = [
            view.id
            for view in views
            if held is None
            or view.id not in held.servers
            or held.servers[view.id].view.endpoint != view.endpoint
        ]
        kept = {key: found for key, found in self.current.definitions.items() if key not in moved}
        network = snapshot.Network(loopback=True)
        bound = bind.bound(testing.a_snapshot(*views, network=network, providers=self.providers), kept)
        self.users.configure(self.providers)
        self.current.swap(bound)
        self.lists.keep(bound.servers, moved=moved)
        self.parts.servers.keep(bound)
        self.parts.credentials.keep(bound)
        self.pipeline.listeners.configured(bound)

    async def send(self, verb: str, path: str, body: bytes, headers: dict[str, str]) -> Asking:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.door.port, limit=2**24)
        head = {
            "host": "localhost", "authorization": f"Bearer {TOKEN.decode()}", "content-length": str(len(body)),
            **headers,
        }  # fmt: skip
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        writer.write(f"{verb} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body)
        return Asking(reader, writer)

    async def start(
        self, body: Any, *, path: str = PATH, modern: bool = True, session: str | None = None, **headers: str
    ) -> Asking:
        """Sends one message as a well-behaved agent of its era; returns before the answer."""
        head = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        if modern:
            if "id" in body:
                params = body.get("params", {})
                body = {**body, "params": {**params, "_meta": {**META, **params.get("_meta", {})}}}
            head |= {"mcp-protocol-version": mcp.MODERN, "mcp-method": body["method"]}
            if body["method"] == "tools/call":
                head["mcp-name"] = body["params"]["name"]
        elif body.get("method") != "initialize":
            head["mcp-protocol-version"] = mcp.LEGACY
        if session is not None:
            head["mcp-session-id"] = session
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.send("POST", path, json.dumps(body).encode(), head | given)

    async def ask(self, body: Any, **options: Any) -> Told:
        return await (await self.start(body, **options)).answer()

    async def call(
        self, tool: str, arguments: Any = None, *, id_: Any = 1, token: Any = None, **options: Any
    ) -> Told:
        return await (await self.calling(tool, arguments, id_=id_, token=token, **options)).answer()

    async def calling(
        self, tool: str, arguments: Any = None, *, id_: Any = 1, token: Any = None, **options: Any
    ) -> Asking:
        params = {"name": tool, "arguments": {} if arguments is None else arguments}
        if token is not None:
            params["_meta"] = {"progressToken": token}
        return await self.start(request("tools/call", params, id_=id_), **options)

    async def open_session(self, path: str = PATH, version: str = mcp.LEGACY, **capabilities: Any) -> str:
        client = {"name": "t", "version": "1"}
        info = {"protocolVersion": version, "capabilities": capabilities, "clientInfo": client}
        told = await self.ask(request("initialize", info), path=path, modern=False)
        assert told.status == 200, told
        return told.headers["mcp-session-id"]

    @property
    def records(self) -> list[audit.Record]:
        return journals.records(self.folder / "journal")

    @property
    def outcomes(self) -> list[audit.Outcome]:
        return [each for each in self.records if isinstance(each, audit.Outcome)]

    @property
    def intents(self) -> list[audit.Intent]:
        return [each for each in self.records if isinstance(each, audit.Intent)]

    @property
    def refusals(self) -> list[audit.RefusalRecord]:
        return [each for each in self.records if isinstance(each, audit.RefusalRecord)]

    async def settled(self) -> None:
        """Returns once nothing of any call is under way: the last thing an attempt does is to leave the pipeline."""
        async with asyncio.timeout(15):
            while self.parts.ledger.holds or self.tasks or len(self.pipeline.calls):
                await asyncio.sleep(0.005)

    def check(self) -> None:
        """What must hold whatever happened."""
        assert self.parts.ledger.holds == 0
        ended = collections.Counter(each.event for each in self.outcomes)
        assert set(ended.values()) <= {1}
        assert {each.event for each in self.intents} == set(ended)
        assert journals.report(self.folder / "journal").damage is None


def a_view(peer: mcp.Peer | None, *chosen: rules.Rule, **more: Any) -> snapshot.ServerView:
    """A server entry for a peer, everything allowed unless rules are given. `endpoint` holds fields of Endpoint."""
    given = {"url": "http://127.0.0.1:9/mcp" if peer is None else peer.url, **more.pop("endpoint", {})}
    view = {"id": API, "generation": 1, "rules": chosen or (testing.allow(),), **more}
    return snapshot.ServerView(endpoint=snapshot.Endpoint(**given), **view)


def _gate(known: lists.Lists, verifier: users.Users) -> pipeline.Gate:
    return pipeline.Gate(
        guard=caller.Guard(TOKEN),
        sealer=sessions.Sealer(KEY, entropy=os.urandom, wall=time.time),
        states=states.States(KEY, entropy=os.urandom, wall=time.time),
        users=verifier,
        ids=ids.Ids(wall=time.time, entropy=os.urandom),
        catalogue=known,
        call_later=asyncio.get_running_loop().call_later,
    )


def _places(
    loop: asyncio.AbstractEventLoop, asks: fetcher.AiohttpFetcher, more: Mapping[type, loans.Source]
) -> dict[type, loans.Source]:
    times = pacing.Timing(loop.time, time.time, random.random)
    return {**lenders.Lenders(times, asks, lenders.Files()).sources, **more}


@contextlib.asynccontextmanager
async def running(
    folder: pathlib.Path, *, calls_max: int = 2048, sources: Mapping[type, loans.Source] | None = None, **limits: Any
) -> AsyncIterator[World]:  # fmt: skip
    """A proxy without a configuration. `sources`: where secrets come from, besides files."""
    loop = asyncio.get_running_loop()
    held, tele = current.Current(), telemetry.Telemetry()
    kept = journal.Journal.open(
        folder / "journal", clock=time.time, boot_id="boot", instance_random=os.urandom(8), **limits
    )
    kept.start()
    network = lambda: held.bound.snapshot.network if held.bound else snapshot.Network()  # noqa: E731 -- one line
    out = ssetransport.EitherTransport(
        upstream.AiohttpUpstream(loop, network=network), clock=loop.time, entropy=os.urandom
    )
    asks = fetcher.AiohttpFetcher(loop, network=network)
    lender = credentials.Credentials(_places(loop, asks, sources or {}), clock=loop.time)
    met = servers.Servers(upstream=out, credentials=lender, current=held, telemetry=tele, clock=loop.time)

    def observed(server: names.ServerId, found: Any) -> None:
        held.observed(server, found)
        served.listeners.observed(server, set(call.Kind) - found.unobserved)

    known = lists.Lists(fetch=met.listing, observed=observed, met=met.introduction, clock=loop.time)
    tasks: set[asyncio.Task[None]] = set()
    failed: list[BaseException] = []

    def spawn(work: Any) -> None:
        tasks.add(task := loop.create_task(work))
        task.add_done_callback(over)

    def over(task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            failed.append(error)

    parts = orders.Parts(
        ledger=ledger.Ledger(), journal=kept, credentials=lender, upstream=out, servers=met,
        writer=records.Writer(kept.key), telemetry=tele, clock=loop.time, wall=time.time, spawn=spawn,
    )  # fmt: skip
    limits_ = pipeline.Limits(calls_max=calls_max)
    verifier = users.Users(asks, clock=loop.time, wall=time.time)
    served = pipeline.Pipeline(parts, _gate(known, verifier), current=held, limits=limits_)
    made = World(folder, parts, held, known, served, tasks=tasks, users=verifier)
    made.door = await door.serve(served, host="127.0.0.1", port=0, limits=door.DoorLimits())
    try:
        yield made
        await made.settled()
    finally:
        served.listeners.drain()
        await made.door.close(0.0)
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await served.listeners.close()
        await known.close()
        verifier.close()
        await out.close()
        kept.close()
    assert failed == []
    made.check()


def run(
    scenario: Callable[[World, mcp.Peer], Awaitable[None]],
    *chosen: rules.Rule,
    era: str = "modern",
    peer: mcp.Peer | None = None,
    calls_max: int = 2048,
    sources: Mapping[type, loans.Source] | None = None,
    **view: Any,
) -> None:
    """One proxy before one server of an era, everything allowed unless rules are given."""

    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with (
                mcp.serving(peer or mcp.Peer(era)) as served,
                running(pathlib.Path(folder), calls_max=calls_max, sources=sources) as world,
            ):
                world.apply(a_view(served, *chosen, **view))
                await scenario(world, served)

    asyncio.run(asyncio.wait_for(main(), 60))
