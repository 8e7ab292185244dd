# SPDX-License-Identifier: Apache-2.0
"""What kube-proxy is to a Service: a TCP forwarder that gives each new connection to one of the targets that listen.

In a thread of its own. A connection stays with its target; targets may change at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Sequence
from typing import Any

Target = tuple[str, int]
_CHUNK_BYTES = 65_536


class Balancer:
    """`start` it, give it `targets`, `close` it."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self._targets: list[Target] = []
        self._next = 0
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="balancer", daemon=True)

    def start(self, port: int = 0, host: str = "127.0.0.1") -> Balancer:
        """Listens; port 0 lets the kernel choose."""
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._accepted, host, port))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def targets(self, given: Sequence[Target]) -> None:
        self._targets = list(given)

    def cut(self) -> None:
        """Ends every connection there is, as a network does that goes away."""
        self._loop.call_soon_threadsafe(lambda: [each.cancel() for each in self._open])

    def close(self) -> None:
        if not self._thread.is_alive():
            return
        self._run(self._closed())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _closed(self) -> None:
        if self._server is not None:
            self._server.close()
        for each in self._open:
            each.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        self.connections += 1
        try:
            await self._joined(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._open.discard(task)
            writer.close()

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(len(self._targets)):
            self._next += 1
            host, port = self._targets[self._next % len(self._targets)]
            with contextlib.suppress(OSError):
                inner, outer = await asyncio.open_connection(host, port)
                try:
                    both = (_pump(reader, outer), _pump(inner, writer))
                    await asyncio.gather(*both)
                finally:
                    outer.transport.abort()
                return
        writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
