# SPDX-License-Identifier: Apache-2.0
"""A raw server of HTTP+SSE (2024-11-05): one stream by GET, messages by POST to where the stream says; wrong where a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tests.servers import instalments

Answer = Callable[["Server", dict[str, Any]], Awaitable[None]]


async def at_once(server: Server, message: dict[str, Any]) -> None:
    """Answers every request with what it was."""
    if "id" in message and "method" in message:
        server.say({"jsonrpc": "2.0", "id": message["id"], "result": {"was": message["method"]}})


class Server:
    """`place` is what the stream says; `accepts` the status of POSTs; `answer` what follows one. `posted` are their bodies."""

    def __init__(
        self, answer: Answer = at_once, *, place: str = "/messages?session_id=abc", accepts: int = 202
    ) -> None:
        self.answer, self.place, self.accepts = answer, place, accepts
        self.served = instalments.Served()
        self.posted: list[dict[str, Any]] = []
        self.streams = 0
        self._queue: asyncio.Queue[str | None] = asyncio.Queue()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.served.port}/sse"

    @property
    def posts(self) -> list[instalments.Seen]:
        return [seen for seen in self.served.seen if seen.verb == "POST"]

    def say(self, message: Any) -> None:
        """Puts a message on the stream."""
        self._queue.put_nowait(message if isinstance(message, str) else json.dumps(message))

    def hang_up(self) -> None:
        """Ends the stream."""
        self._queue.put_nowait(None)

    async def act(self, line: instalments.Line, seen: instalments.Seen) -> None:
        if seen.verb == "POST":
            self.posted.append(json.loads(seen.body))
            await line.status(self.accepts, b"Accepted")
            await self.answer(self, self.posted[-1])
            return
        self.streams += 1
        if self.place:
            await line.event(self.place, event="endpoint")
        else:
            await line.begin()
        gone = asyncio.ensure_future(line.until_gone())
        try:
            while True:
                saying = asyncio.ensure_future(self._queue.get())
                await asyncio.wait((saying, gone), return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    saying.cancel()
                    raise ConnectionResetError
                if (data := saying.result()) is None:
                    return
                await line.event(data, event="message")
        finally:
            gone.cancel()


@contextlib.asynccontextmanager
async def serving(server: Server) -> AsyncIterator[Server]:
    async with instalments.serving(server.act) as served:
        server.served = served
        yield server
