# SPDX-License-Identifier: Apache-2.0
"""A server that answers as an API server does when it is in trouble: pages that expire, garbage, silence, half a line.

For what a real one cannot be made to do on demand. `script` is asked first; what it does not answer is answered from `items`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web

from outrider_operator import access

Script = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


def thing(name: str, version: int, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "crm", "uid": name, "resourceVersion": str(version)}
    return {"apiVersion": "v1", "kind": "Thing", "metadata": metadata, "spec": spec}


def status(code: int, reason: str, message: str = "because", **headers: str) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "reason": reason, "message": message, "code": code}
    return web.json_response(body, status=code, headers=headers)


class FakeApi:
    """`items` at `version`; a watch is open until `end` and says what is given to `tell`."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Any]] = {}
        self.version = 10
        self.script: Script | None = None
        self.requests: list[web.Request] = []
        self.lists = self.watches = 0
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()

    def put(self, name: str, version: int, **spec: Any) -> dict[str, Any]:
        """Changes what a list or a look finds; nobody is told."""
        self.version = version
        self.items[name] = thing(name, version, **spec)
        return self.items[name]

    def tell(self, kind: str, made: Any) -> None:
        self.write(json.dumps({"type": kind, "object": made}).encode() + b"\n")

    def write(self, raw: bytes) -> None:
        self._lines.put_nowait(raw)

    def end(self) -> None:
        self._lines.put_nowait(None)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if self.script is not None and (answer := await self.script(request)) is not None:
            return answer
        if "watch" in request.query:
            return await self._watch(request)
        name = request.path.rpartition("/")[2]
        if name != "things":
            found = self.items.get(name)
            return web.json_response(found) if found else status(404, "NotFound")
        self.lists += 1
        metadata = {"resourceVersion": str(self.version)}
        return web.json_response({"kind": "ThingList", "metadata": metadata, "items": [*self.items.values()]})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        self.watches += 1
        answer = web.StreamResponse()
        await answer.prepare(request)
        while (line := await self._lines.get()) is not None:
            await answer.write(line)
        return answer


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[FakeApi, access.Access]]:
    """The server, and the access to it."""
    made = FakeApi()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made._answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield made, access.Access(f"http://127.0.0.1:{runner.addresses[0][1]}", access._Parts())
    finally:
        await runner.cleanup()
