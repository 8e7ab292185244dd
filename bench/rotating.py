# SPDX-License-Identifier: Apache-2.0
"""Secrets that are replaced every few seconds, and a server that refuses an old one once its grace is over.

Used by vaulted. The server is the judge: it carries nothing out for a secret that is too old, and counts who tried.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

_MODERN = "2026-07-28"


@dataclasses.dataclass
class Secret:
    """What one server accepts. `ends` says until when (monotonic seconds) each older value is good."""

    name: str
    current: str = ""
    number: int = 0
    ends: dict[str, float] = dataclasses.field(default_factory=dict)
    accepted: int = 0
    refused: int = 0
    unknown: int = 0
    late: list[float] = dataclasses.field(default_factory=list)
    """How long after its end an old value was still shown, for each time that it was."""

    def next(self) -> str:
        """The value that comes now; `replaced` once it is stored."""
        return f"secret-{self.name}-{self.number + 1}"

    def replaced(self, grace_seconds: float) -> None:
        """The next value is stored: the one before is good for so long yet."""
        now = time.monotonic()
        if self.current:
            self.ends[self.current] = now + grace_seconds
        self.number += 1
        self.current = f"secret-{self.name}-{self.number}"
        for old in [value for value, end in self.ends.items() if end < now - 600]:
            del self.ends[old]

    def takes(self, value: str) -> bool:
        """The judgement of one request."""
        end = self.ends.get(value)
        # The next one may be stored already though nobody heard of it: Vault was killed in between.
        if value in (self.current, self.next()) or (end is not None and time.monotonic() < end):
            self.accepted += 1
            return True
        if end is None:
            self.unknown += 1
        else:
            self.late.append(time.monotonic() - end)
        self.refused += 1
        return False


class Upstream:
    """One MCP server per secret, at /<name>/mcp."""

    def __init__(self, secrets: dict[str, Secret]) -> None:
        self._secrets = secrets
        self.calls: dict[str, int] = dict.fromkeys(secrets, 0)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """At a port of this machine, until the block ends."""
        app = web.Application()
        app.router.add_post("/{name}/mcp", self._mcp)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        try:
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()

    async def _mcp(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        shown = request.headers.get("Authorization", "").removeprefix("Bearer ")
        message = json.loads(await request.read())
        if not self._secrets[name].takes(shown):
            return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"})
        return web.json_response(
            {"jsonrpc": "2.0", "id": message["id"], "result": self._result(name, message)}
        )

    def _result(self, name: str, message: dict[str, Any]) -> dict[str, Any]:
        whole = {"resultType": "complete", "ttlMs": 600_000, "cacheScope": "private"}
        if message["method"] == "server/discover":
            info = {"name": "rotating", "version": "1"}
            return {
                **whole,
                "supportedVersions": [_MODERN],
                "capabilities": {"tools": {}},
                "serverInfo": info,
            }
        if message["method"] == "tools/list":
            tools = [{"name": tool, "inputSchema": {"type": "object"}} for tool in ("read", "write")]
            return {**whole, "tools": tools}
        self.calls[name] += 1
        return {"resultType": "complete", "content": [{"type": "text", "text": "done"}]}


async def rotate(
    secrets: dict[str, Secret],
    store: Callable[[str, str], None],
    *,
    every_seconds: float,
    grace_seconds: float,
) -> None:
    """For ever. What cannot be stored is not replaced: whoever rotates a secret stores the new one first."""
    loop = asyncio.get_running_loop()
    while True:
        for secret in secrets.values():
            await asyncio.sleep(every_seconds / len(secrets))
            try:
                await loop.run_in_executor(None, store, secret.name, secret.next())
            except Exception:  # noqa: BLE001 - Vault is away: that is what the run is about
                continue
            secret.replaced(grace_seconds)
