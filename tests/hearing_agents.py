# SPDX-License-Identifier: Apache-2.0
"""Agents that hold a stream open, of either era, before a whole proxy and a server that tells of changes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tests import proxies
from tests.servers import mcp, stages

from outrider import names, rules, testing

OTHER = names.ServerId("crm", "other")
EVERYTHING = testing.allow(prompts=("*",), resources=("*",))
LEGACY_HEAD = {"mcp-protocol-version": mcp.LEGACY, "accept": "text/event-stream"}


def a_stage(era: str = "dual", **more: Any) -> stages.Stage:
    given: dict[str, Any] = {
        "tools": [stages.tool("t")],
        "prompts": [stages.prompt("greet")],
        "resources": [stages.resource("file:///a"), stages.resource("file:///b")],
    }
    return stages.Stage(era, **{**given, **more})


def a_view(stage: stages.Stage, *chosen: rules.Rule, **more: Any) -> Any:
    endpoint = {"url": stage.url, **more.pop("endpoint", {})}
    return proxies.a_view(None, *(chosen or (EVERYTHING,)), endpoint=endpoint, **more)


@contextlib.asynccontextmanager
async def before(*served: stages.Stage, chosen: tuple[rules.Rule, ...] = ()) -> AsyncIterator[proxies.World]:
    """A proxy before these servers, the first is crm/api, the second crm/other; everything allowed unless rules are given."""
    with tempfile.TemporaryDirectory() as folder:
        async with contextlib.AsyncExitStack() as stack:
            for stage in served:
                await stack.enter_async_context(stages.playing(stage))
            world = await stack.enter_async_context(proxies.running(pathlib.Path(folder)))
            both = zip((proxies.API, OTHER), served, strict=False)
            world.apply(*(a_view(stage, *chosen, id=id_) for id_, stage in both))
            yield world


def run(
    scenario: Callable[[proxies.World], Awaitable[None]],
    *served: stages.Stage,
    chosen: tuple[rules.Rule, ...] = (),
) -> None:
    async def main() -> None:
        async with before(*served, chosen=chosen) as world:
            await scenario(world)

    asyncio.run(asyncio.wait_for(main(), 60))


class Hearing:
    """One stream: its events as they come."""

    def __init__(self, asking: proxies.Asking) -> None:
        self._asking = asking
        self.status = 0
        self.headers: dict[str, str] = {}
        self.raw = b""
        self._left = b""

    async def begin(self) -> Hearing:
        async with asyncio.timeout(15):
            self.status, self.headers = await self._asking.head()
        return self

    async def next(self, seconds: float = 10.0) -> Any:
        """The next message; None when the stream has ended in order."""
        async with asyncio.timeout(seconds):
            while True:
                event, found, rest = self._left.partition(b"\n\n")
                if found:
                    self._left = rest
                    data = b"".join(line[6:] for line in event.split(b"\n") if line.startswith(b"data: "))
                    if data:
                        return json.loads(data)
                    continue
                chunk = await self._asking.chunk()
                if not chunk:
                    return None
                self.raw += chunk
                self._left += chunk

    async def quiet(self, seconds: float = 0.3) -> bool:
        """Whether nothing comes for a while."""
        with contextlib.suppress(TimeoutError):
            return await self.next(seconds) is None and False
        return True

    def leave(self) -> None:
        self._asking.leave()


async def listen(
    world: proxies.World,
    notifications: dict[str, Any],
    *,
    id_: Any = "l1",
    path: str = proxies.PATH,
    **head: str,
) -> tuple[Hearing, Any]:
    """A modern agent's stream, and what of it was acknowledged."""
    body = proxies.request("subscriptions/listen", {"notifications": notifications}, id_=id_)
    hearing = await Hearing(await world.start(body, path=path, **head)).begin()
    assert hearing.status == 200, await hearing._asking.answer()
    first = await hearing.next()
    assert first["method"] == "notifications/subscriptions/acknowledged"
    assert tag(first) == id_
    return hearing, first["params"]["notifications"]


async def get(world: proxies.World, session: str | None, *, path: str = proxies.PATH, **head: str) -> Hearing:
    """A legacy agent's stream."""
    given = LEGACY_HEAD | ({} if session is None else {"mcp-session-id": session}) | head
    return await Hearing(await world.send("GET", path, b"", given)).begin()


def tag(message: Any) -> Any:
    return message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"]
