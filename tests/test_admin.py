# SPDX-License-Identifier: Apache-2.0
"""The admin port: three pages to read, and nothing that can be changed or kept busy."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from outrider_sidecar import admin, telemetry


class Port:
    """A running admin port; `ready` is set by the test."""

    def __init__(self) -> None:
        self.ready = True
        self.number = 0

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.number)

    async def ask(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        reader, writer = await self.connect()
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(), 10)  # until it is closed: one answer per connection
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body

    async def get(self, target: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        return await self.ask(f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


def run(scenario: Callable[[Port], Awaitable[None]]) -> None:
    async def main() -> None:
        port = Port()
        metrics = telemetry.Telemetry()
        desk = await admin.serve(host="127.0.0.1", port=0, ready=lambda: port.ready, render=metrics.render)
        port.number = desk.port
        try:
            await scenario(port)
        finally:
            await desk.close()
        with pytest.raises(ConnectionRefusedError):
            await port.connect()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_health_is_being_alive_and_readiness_is_having_a_configuration() -> None:
    async def scenario(port: Port) -> None:
        for ready, status in ((True, 200), (False, 503), (True, 200)):
            port.ready = ready
            assert (await port.get("/healthz"))[0] == 200
            assert (await port.get("/readyz"))[0] == status
        port.ready = False
        assert (await port.get("/readyz"))[2] == b"no configuration yet\n"

    run(scenario)


@pytest.mark.parametrize("target", ["/metrics", "/metrics?name[]=x"])
def test_metrics_are_what_prometheus_reads(target: str) -> None:
    async def scenario(port: Port) -> None:
        status, headers, body = await port.get(target)
        assert (status, headers["content-type"].split(";")[0]) == (200, "text/plain")
        assert int(headers["content-length"]) == len(body)
        assert b"# TYPE outrider_" in body

    run(scenario)


@pytest.mark.parametrize(
    "target", ["/", "/mcp", "/healthz/", "/HEALTHZ", "/metrics/../healthz", "//healthz", "*"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_anything_else_is_not_there(target: str, method: str) -> None:
    async def scenario(port: Port) -> None:
        assert (await port.get(target, method))[0] == 404

    run(scenario)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "get", "OPTIONS"])
def test_it_can_only_be_read(method: str) -> None:
    """R5."""

    async def scenario(port: Port) -> None:
        status, headers, _ = await port.get("/healthz", method)
        assert (status, headers["allow"]) == (405, "GET")

    run(scenario)


@pytest.mark.parametrize("data", [b"\r\n\r\n", b"\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"GET /healthz\r\n\r\n"])
def test_garbage_is_answered_or_dropped_and_the_next_caller_is_served(data: bytes) -> None:
    async def scenario(port: Port) -> None:
        assert (await port.ask(data))[0] in (200, 404)
        assert (await port.get("/healthz"))[0] == 200

    run(scenario)


def test_a_head_without_end_is_cut_off() -> None:
    async def scenario(port: Port) -> None:
        reader, writer = await port.connect()
        writer.write(b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 100_000)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        assert (await port.get("/healthz"))[0] == 200

    run(scenario)


def test_callers_who_say_nothing_keep_nobody_else_waiting() -> None:
    """R12."""

    async def scenario(port: Port) -> None:
        silent = [await port.connect() for _ in range(50)]
        assert (await port.get("/healthz"))[0] == 200
        for _, writer in silent:
            writer.transport.abort()

    run(scenario)
