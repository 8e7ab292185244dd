# SPDX-License-Identifier: Apache-2.0
"""The admin port: `GET /healthz`, `/readyz` and `/metrics`, nothing else.

Served by main. Readiness is local state only: never an upstream, a Vault or the control plane, so that their outage
cannot take agents down with it. It changes nothing (R5).
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

_REQUEST_BYTES_MAX = 8_192
_REQUEST_SECONDS = 5.0
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclasses.dataclass(slots=True)
class Desk:
    """A running admin port."""

    server: asyncio.Server
    port: int

    async def close(self) -> None:
        self.server.close()
        await self.server.wait_closed()


async def serve(*, host: str, port: int, ready: Callable[[], bool], render: Callable[[], bytes]) -> Desk:
    """Listens. `render` gives the metrics page; `ready` whether a configuration is in force."""

    def answer(line: bytes) -> tuple[str, str, bytes]:
        method, _, rest = line.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if path not in (b"/healthz", b"/readyz", b"/metrics"):
            return "404 Not Found", "text/plain", b"not found\n"
        if method != b"GET":
            return "405 Method Not Allowed", "text/plain", b"GET only\n"
        if path == b"/metrics":
            return "200 OK", _METRICS_TYPE, render()
        if path == b"/readyz" and not ready():
            return "503 Service Unavailable", "text/plain", b"no configuration yet\n"
        return "200 OK", "text/plain", b"ok\n"

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _REQUEST_SECONDS)
            status, kind, body = answer(head.partition(b"\r\n")[0])
            allow = "allow: GET\r\n" if status.startswith("405") else ""
            fields = (
                f"content-type: {kind}\r\ncontent-length: {len(body)}\r\n{allow}connection: close\r\n\r\n"
            )
            writer.write(f"HTTP/1.1 {status}\r\n{fields}".encode() + body)
            await asyncio.wait_for(writer.drain(), _REQUEST_SECONDS)
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            writer.transport.abort()
        finally:
            writer.close()

    server = await asyncio.start_server(handle, host, port, limit=_REQUEST_BYTES_MAX)
    return Desk(server, server.sockets[0].getsockname()[1])
