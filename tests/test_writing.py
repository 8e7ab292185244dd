# SPDX-License-Identifier: Apache-2.0
"""A line has left this process before the next begins, with and without TLS; a reader that takes nothing costs one line."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from asyncio import sslproto

import pytest
from aiohttp import web

from outrider_operator import certificates, writing


def contexts(folder):
    """A server's and a client's that trust each other."""
    kept = certificates.planned(certificates.Kept(), certificates.Wishes(("localhost",)), time.time())
    (folder / "crt").write_bytes(kept.tls_cert)
    (folder / "key").write_bytes(kept.tls_key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "crt", folder / "key")
    return server, ssl.create_default_context(cadata=kept.bundle)


@contextlib.asynccontextmanager
async def connected(folder, talk, *, secure):
    """A server that runs `talk(line, transport)` for its one client; gives the client's ends."""
    done = asyncio.get_running_loop().create_future()

    async def door(request):
        response = web.StreamResponse()
        writer = await response.prepare(request)
        try:
            done.set_result(
                await talk(writing.Line(writer, request.transport, seconds_max=1.0), request.transport)
            )
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever it is, the test is told
            done.set_result(error)
        return response

    app = web.Application()
    app.router.add_get("/", door)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    server, client = contexts(folder) if secure else (None, None)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server).start()
    named = {"server_hostname": "localhost"} if secure else {}
    reader, writer = await asyncio.open_connection(*runner.addresses[0], ssl=client, limit=1024, **named)
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    try:
        yield reader, writer, done
    finally:
        writer.transport.abort()
        await runner.cleanup()


def beneath(transport):
    """Bytes anywhere on the way from us to the kernel."""
    secure = getattr(transport, "_ssl_protocol", None)
    return transport.get_write_buffer_size() + (secure._transport.get_write_buffer_size() if secure else 0)


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("line_bytes", [40_000, 300_000])
def test_nothing_of_a_line_is_left_with_us_when_the_next_may_begin(tmp_path, secure, line_bytes) -> None:
    async def talk(line, transport):
        left = []
        with contextlib.suppress(TimeoutError):
            for _ in range(10_000):
                await line.send(b"x" * line_bytes + b"\n")
                left.append(beneath(transport))
        return left, beneath(transport)

    async def run():
        async with connected(tmp_path, talk, secure=secure) as (_, _, done):
            return await asyncio.wait_for(done, 30)

    left, stuck = asyncio.run(run())
    assert len(left) > 3
    assert max(left) <= 64, "the end of a line at most"
    assert 0 < stuck < 1.2 * line_bytes + 1000, "one line, never two"


@pytest.mark.parametrize("secure", [False, True])
def test_a_reader_that_takes_its_time_gets_everything(tmp_path, secure) -> None:
    async def talk(line, _transport):
        for number in range(40):
            await line.send(b"%d" % number * 200_000 + b"\n")

    async def run():
        async with connected(tmp_path, talk, secure=secure) as (reader, _, done):
            taken, tail = 0, b""
            while not tail.endswith(b"0\r\n\r\n"):
                chunk = await asyncio.wait_for(reader.read(2**18), 10)
                taken, tail = taken + len(chunk), (tail + chunk)[-5:]
                await asyncio.sleep(0.001)
            await done
            return taken

    assert asyncio.run(run()) > 10 * 200_000 + 30 * 400_000


@pytest.mark.parametrize("secure", [False, True])
def test_a_reader_that_left_is_noticed(tmp_path, secure) -> None:
    async def talk(line, _transport):
        for _ in range(1000):
            await line.send(b"x\n")
            await asyncio.sleep(0.001)

    async def run():
        async with connected(tmp_path, talk, secure=secure) as (_, writer, done):
            await asyncio.sleep(0.05)
            writer.transport.abort()
            return await asyncio.wait_for(done, 10)

    assert isinstance(asyncio.run(run()), ConnectionError | asyncio.CancelledError)


def test_connections_read_through_small_buffers(monkeypatch) -> None:
    monkeypatch.setattr(sslproto.SSLProtocol, "max_size", 256 * 1024)
    writing.spare_memory()
    assert sslproto.SSLProtocol.max_size == writing.TLS_BUFFER_BYTES
