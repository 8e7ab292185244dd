# SPDX-License-Identifier: Apache-2.0
"""A real door with a small real pipeline behind it, and a client that speaks bytes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import socket

from outrider_sidecar import door

BIG = b"".join(b"%07d\n" % number for number in range(1_000_000))


class Echo:
    """A small real pipeline; the target says what it does."""

    def __init__(self):
        self.admitted: list[bytes] = []
        self.begun = []
        self.replies = []
        self.gone: list[bytes] = []
        self.wrote_false = 0
        self.hung = asyncio.Event()
        self.left = asyncio.Event()
        self.release = asyncio.Event()
        self.coroutine_ended = asyncio.Event()

    def admit(self, method, target, headers, reply):
        self.admitted.append(target)
        if target.startswith(b"/deny"):
            reply.start(401, ((b"x-why", b"denied"),), 6)
            reply.end(b"denied")
            return False
        return target != b"/admit-silent"

    def begin(self, request, reply):
        self.begun.append(request)
        self.replies.append(reply)
        reply.on_gone(lambda: (self.gone.append(request.target), self.left.set()))
        name = request.target.split(b"?")[0].strip(b"/").split(b"/")[0].decode()
        return getattr(self, "do_" + name.replace("-", "_"))(request, reply)

    def do_echo(self, request, reply):
        body = json.dumps(
            {
                "method": request.method,
                "target": request.target.decode("latin-1"),
                "headers": [[n.decode(), v.decode("latin-1")] for n, v in request.headers],
                "body": request.body.decode("latin-1"),
                "peer": request.peer,
            }
        ).encode()
        reply.start(200, ((b"content-type", b"application/json"),), len(body))
        reply.end(body)

    def do_stream(self, request, reply):
        reply.start(200, ((b"content-type", b"text/event-stream"),))
        for part in (b"one", b"", b"two"):
            assert reply.write(part)
        reply.end(b"three")

    def do_head_only(self, request, reply):
        reply.start(200, ((b"content-type", b"text/event-stream"),))

    def do_hang(self, request, reply):
        self.hung.set()

    async def do_wait(self, request, reply):
        self.hung.set()
        await self.release.wait()
        self.coroutine_ended.set()
        reply.start(200, (), 4)
        reply.end(b"late")

    def do_nothing(self, request, reply):
        reply.start(202, (), 0)
        reply.end()

    def do_empty(self, request, reply):
        reply.start(204, ())
        reply.end()

    def do_boom(self, request, reply):
        raise KeyError("canary-in-exception")

    async def do_boom_later(self, request, reply):
        await asyncio.sleep(0)
        raise ValueError("canary-in-exception")

    def do_boom_after_start(self, request, reply):
        reply.start(200, (), 10)
        reply.write(b"12345")
        raise RuntimeError("canary-in-exception")

    def do_short(self, request, reply):
        reply.start(200, (), 10)
        reply.end(b"12345")

    def do_split(self, request, reply):
        reply.start(200, ((b"x-bad", b"a\r\nx-injected: 1"),), 0)

    def do_abort(self, request, reply):
        reply.start(200, ())
        reply.write(b"half")
        reply.abort()

    def do_big(self, request, reply):
        reply.start(200, (), len(BIG))
        self._pump(reply, 0)

    def do_trickle(self, request, reply):
        """Never above the high-water mark: what a client leaves unread then is bounded by time alone."""
        reply.start(200, (), 4_000_000)
        reply.write(b"x" * 4_000_000)
        self.hung.set()

    def _pump(self, reply, at):
        while at < len(BIG):
            room = reply.write(BIG[at : at + 50_000])
            at += 50_000
            if not room:
                self.wrote_false += 1
                self.hung.set()
                reply.on_room(functools.partial(self._pump, reply, at))
                return
        reply.end()


class Client:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    def send(self, data):
        self.writer.write(data)

    async def answer(self, *, head=False):
        """One answer: (status, headers, body)."""
        async with asyncio.timeout(10):
            raw = await self.reader.readuntil(b"\r\n\r\n")
            line, *lines = raw[:-4].split(b"\r\n")
            headers = dict(line.split(b": ", 1) for line in lines)
            body = b""
            if b"content-length" in headers and not head:
                body = await self.reader.readexactly(int(headers[b"content-length"]))
            elif headers.get(b"transfer-encoding") == b"chunked" and not head:
                while size := int(await self.reader.readline(), 16):
                    body += (await self.reader.readexactly(size + 2))[:-2]
                await self.reader.readline()
            return int(line.split()[1]), headers, body

    async def rest(self):
        """Everything until the connection is closed."""
        async with asyncio.timeout(10):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""


class World:
    def __init__(self, opened, pipeline):
        self.door, self.pipeline, self.clients = opened, pipeline, []

    async def client(self, **options):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.door.port, **options)
        self.clients.append(writer)
        return Client(reader, writer)

    async def once(self, data):
        client = await self.client()
        client.send(data)
        return await client.answer()


@contextlib.asynccontextmanager
async def world(**limits):
    pipeline = Echo()
    opened = await door.serve(pipeline, host="127.0.0.1", port=0, limits=door.DoorLimits(**limits))
    made = World(opened, pipeline)
    try:
        yield made
    finally:
        for writer in made.clients:
            writer.transport.abort()
        pipeline.release.set()
        await opened.close(0.0)


def run(test, **limits):
    async def main():
        async with world(**limits) as made:
            return await test(made)

    return asyncio.run(main())


def get(target=b"/echo", *headers, method=b"GET", version=b"1.1"):
    return b"\r\n".join((method + b" " + target + b" HTTP/" + version, b"Host: a", *headers, b"", b""))


def post(target=b"/echo", body=b"{}", *headers):
    return get(target, b"Content-Length: %d" % len(body), *headers, method=b"POST") + body


def narrow(sock):
    """A client whose kernel holds little, so that what it does not read stays with the door."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return sock


async def deaf_client(it, target):
    sock = narrow(socket.socket())
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", it.door.port))
    await asyncio.get_running_loop().sock_sendall(sock, get(target))
    return sock
