# SPDX-License-Identifier: Apache-2.0
"""Raw HTTP servers with named scenarios, for everything that talks to an upstream.

`running(name)` serves one scenario on a free loopback port in the current event loop; `in_thread(name)` in a thread of
its own. They speak bytes, not a library's HTTP, so that they can be wrong in exactly one way.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gzip
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

JSON = b'{"jsonrpc":"2.0","id":1,"result":{}}'
BOMB = gzip.compress(bytes(200_000_000 // 1000)) * 1000
"""About 200 KB that inflate to 200 MB."""

Scenario = Callable[["Served", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {}


@dataclasses.dataclass
class Served:
    """What happened at the server so far; `left` is set whenever a connection's other end is gone."""

    port: int = 0
    connections: int = 0
    sent_bytes: int = 0
    requests: list[bytes] = dataclasses.field(default_factory=list)
    seen: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    left: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    go_on: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


@contextlib.asynccontextmanager
async def running(name: str, *, tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[Served]:
    """Serves `SCENARIOS[name]` until the block ends, then cuts every connection."""
    served, tasks = Served(), set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.connections += 1
        tasks.add(asyncio.current_task())
        try:
            await SCENARIOS[name](served, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            served.left.set()
        finally:
            served.left.set()
            writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", port, ssl=tls)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def in_thread(name: str) -> Iterator[Served]:
    """The same, for tests that have no loop of their own. Read `requests` only after the block."""
    started, stop, served = threading.Event(), [], []

    async def main() -> None:
        async with running(name) as here:
            ended = asyncio.Event()
            stop.append((asyncio.get_running_loop(), ended))
            served.append(here)
            started.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()), name=f"server-{name}")
    thread.start()
    assert started.wait(10)
    try:
        yield served[0]
    finally:
        loop, ended = stop[0]
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)


async def read_request(served: Served, reader: asyncio.StreamReader) -> bytes:
    """One request as raw bytes, its body by Content-Length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    request = head + await reader.readexactly(length)
    served.requests.append(request)
    served.seen.set()
    return request


def answer(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    lines = (b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers)
    return b"\r\n".join((*lines, b"", body))


async def _gone(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        pass


@scenario
async def json(served, reader, writer):
    """Answers every request properly and keeps the connection."""
    while True:
        await read_request(served, reader)
        writer.write(answer(JSON, b"Content-Type: application/json", b"X-Dup: a", b"X-Dup: b"))
        await writer.drain()


@scenario
async def hang(served, reader, writer):
    """Reads the request and never says a word."""
    await read_request(served, reader)
    await _gone(reader)


@scenario
async def half_close(served, reader, writer):
    """Promises 100 bytes, sends ten, closes."""
    await read_request(served, reader)
    writer.write(answer(JSON).replace(b"content-length: %d" % len(JSON), b"content-length: 100"))
    await writer.drain()


@scenario
async def half_chunk(served, reader, writer):
    """A chunked answer that stops inside a chunk."""
    await read_request(served, reader)
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n20\r\nhalf")
    await writer.drain()


@scenario
async def garbage(served, reader, writer):
    """Not HTTP; quotes the credential it got, as debug pages do."""
    request = await read_request(served, reader)
    writer.write(b"\x00\x01\x02 %b\r\n\r\n" % request.replace(b"\r\n", b" "))
    await writer.drain()
    await _gone(reader)


@scenario
async def reset(served, reader, writer):
    """Cuts the connection instead of answering."""
    await read_request(served, reader)


@scenario
async def stale(served, reader, writer):
    """Answers the first request of a connection and cuts it on the second."""
    await read_request(served, reader)
    writer.write(answer(JSON))
    await read_request(served, reader)


@scenario
async def huge(served, reader, writer):
    """A body without end, chunked."""
    await read_request(served, reader)
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        await writer.drain()
        served.sent_bytes += 65536


@scenario
async def announced(served, reader, writer):
    """Announces a gigabyte."""
    await read_request(served, reader)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
    await _gone(reader)


@scenario
async def redirect(served, reader, writer):
    """Points elsewhere, with a secret in the query."""
    await read_request(served, reader)
    where = b"location: http://user:hunter2@127.0.0.1:%d/else/where?token=hunter2" % served.port
    writer.write(answer(b"", where, status=b"307 Temporary Redirect"))
    await _gone(reader)


@scenario
async def endless(served, reader, writer):
    """An event stream that never ends, a small event at a time."""
    await read_request(served, reader)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    event = b'data: {"jsonrpc":"2.0","method":"notifications/progress"}\n\n'
    while True:
        writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        await writer.drain()
        served.sent_bytes += len(event)
        await asyncio.sleep(0)


@scenario
async def events(served, reader, writer):
    """An event stream without an end, as fast as it is read."""
    await read_request(served, reader)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
    while True:
        writer.write(b"data: {}\n\n" * 1000)
        await writer.drain()


@scenario
async def slow_head(served, reader, writer):
    """Dribbles its head, a byte at a time, for ever."""
    await read_request(served, reader)
    writer.write(b"HTTP/1.1 200 OK\r\nx-padding: ")
    while True:
        writer.write(b"a")
        await writer.drain()
        await asyncio.sleep(0.01)


@scenario
async def big_head(served, reader, writer):
    """A head of a megabyte."""
    await read_request(served, reader)
    writer.write(answer(JSON, *(b"x-padding-%d: %b" % (i, b"a" * 1000) for i in range(1000))))
    await _gone(reader)


@scenario
async def bomb(served, reader, writer):
    """A compressed answer, though none was asked for."""
    await read_request(served, reader)
    writer.write(answer(BOMB, b"content-encoding: gzip"))
    await _gone(reader)


@scenario
async def ambiguous(served, reader, writer):
    """Both Content-Length and Transfer-Encoding."""
    await read_request(served, reader)
    writer.write(answer(b"2\r\n{}\r\n0\r\n\r\n", b"transfer-encoding: chunked"))
    await _gone(reader)


@scenario
async def two_lengths(served, reader, writer):
    """Content-Length twice, differing."""
    await read_request(served, reader)
    writer.write(answer(JSON, b"content-length: 2"))
    await _gone(reader)


@scenario
async def unasked(served, reader, writer):
    """After its answer it sends another that nobody asked for, on the idle connection."""
    await read_request(served, reader)
    writer.write(answer(JSON))
    await writer.drain()
    await served.go_on.wait()
    writer.write(answer(b'{"stolen":true}'))
    await writer.drain()
    served.left.set()
    await _gone(reader)


@scenario
async def upgrade(served, reader, writer):
    """Switches protocols without having been asked."""
    await read_request(served, reader)
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: else\r\nconnection: upgrade\r\n\r\nbytes")
    await _gone(reader)


@scenario
async def until_close(served, reader, writer):
    """A body that ends where the connection does."""
    await read_request(served, reader)
    writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + JSON)
    await writer.drain()


@scenario
async def early(served, reader, writer):
    """Answers from the head alone and never reads the body."""
    served.requests.append(await reader.readuntil(b"\r\n\r\n"))
    writer.write(answer(b"{}", status=b"413 Content Too Large"))
    await writer.drain()
    await served.go_on.wait()


@scenario
async def counted(served, reader, writer):
    """Eight megabytes of numbered lines."""
    await read_request(served, reader)
    body = b"".join(b"%07d\n" % number for number in range(1_000_000))
    writer.write(answer(body))
    await writer.drain()
    served.sent_bytes = len(body)
    await _gone(reader)


@scenario
async def trickle(served, reader, writer):
    """A body without end, a byte every now and then."""
    await read_request(served, reader)
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1\r\n{\r\n")
        await writer.drain()
        served.sent_bytes += 1
        await asyncio.sleep(0.01)
