# SPDX-License-Identifier: Apache-2.0
"""A raw server whose every answer is an event stream written by the test, ids and pauses included."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable


@dataclasses.dataclass
class Seen:
    """One request as it arrived."""

    verb: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclasses.dataclass
class Served:
    """What happened so far; `over` is set when a stream has been ended by the server."""

    port: int = 0
    seen: list[Seen] = dataclasses.field(default_factory=list)
    over: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    lines: list[Line] = dataclasses.field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"


class Line:
    """The answering side of one request."""

    def __init__(self, served: Served, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.served, self._reader, self._writer = served, reader, writer
        self._began = self._whole = False

    async def status(self, status: int, body: bytes = b"", kind: bytes = b"text/plain") -> None:
        self._began = self._whole = True
        head = b"HTTP/1.1 %d Said\r\ncontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self._writer.write(head % (status, kind, len(body)) + body)
        await self._writer.drain()

    async def begin(self) -> None:
        self._began = True
        self._writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        await self._writer.drain()

    async def event(self, data: str | None, **fields: object) -> None:
        """One event; `data` None has no such field."""
        if not self._began:
            await self.begin()
        lines = [f"{name}: {value}" for name, value in fields.items()]
        lines += [] if data is None else [f"data: {data}"]
        frame = ("\n".join(lines) + "\n\n").encode()
        self._writer.write(b"%x\r\n%b\r\n" % (len(frame), frame))
        await self._writer.drain()

    async def until_gone(self) -> None:
        while await self._reader.read(65_536):
            pass

    async def end(self) -> None:
        if self._whole:
            return
        if not self._began:
            await self.begin()
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()
        self.served.over.set()


Act = Callable[[Line, Seen], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(act: Act) -> AsyncIterator[Served]:
    """Serves until the block ends: `act` writes each answer, which ends when it returns and is cut when it raises."""
    served, tasks = Served(), set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            first, *lines = (await reader.readuntil(b"\r\n\r\n"))[:-4].decode("latin-1").split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)
            }
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            verb, target, _ = first.split(" ")
            served.seen.append(seen := Seen(verb, target, headers, body))
            served.lines.append(line := Line(served, reader, writer))
            await act(line, seen)
            await line.end()
            writer.close()
            await writer.wait_closed()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
