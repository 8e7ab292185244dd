# SPDX-License-Identifier: Apache-2.0
"""One proxy before some stages, and what the tests of field bugs do with it: drain lists, hold streams, run an official client.

Server number n of `run` is `crm/api`, `crm/other`, `crm/third`; whatever arrived at any of them is held against the witness.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import httpx2
import pytest
from mcp.client import client as clients
from mcp.client import streamable_http
from tests import proxies
from tests.servers import stages, witness

from outrider import names, rules, testing

IDS = (proxies.API, names.ServerId("crm", "other"), names.ServerId("crm", "third"))
MERGED = "/mcp"
both_agents = pytest.mark.parametrize("modern", [True, False], ids=["modern-agent", "legacy-agent"])
both_servers = pytest.mark.parametrize("era", ["modern", "legacy"], ids=["modern-server", "legacy-server"])
both_endpoints = pytest.mark.parametrize("path", [proxies.PATH, MERGED], ids=["own", "merged"])

Scenario = Callable[..., Awaitable[None]]


def run(
    scenario: Scenario,
    *played: stages.Stage,
    chosen: Sequence[rules.Rule] = (),
    seconds: float = 60,
    **view: Any,
) -> None:
    """`scenario(world, *stages)`. Every server is allowed whole, unless rules are `chosen` for them."""

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            for stage in played:
                await stack.enter_async_context(stages.playing(stage))
            world = await stack.enter_async_context(proxies.running(pathlib.Path(folder)))
            show(world, *played, chosen=chosen, **view)
            await scenario(world, *played)

    asyncio.run(asyncio.wait_for(main(), seconds))
    for stage in played:
        given = {"asked": stage.asked, "secrets": [proxies.TOKEN.decode()]}
        assert [said for each in stage.heard for said in witness.complaints(each, **given)] == []


def show(world: proxies.World, *played: stages.Stage, chosen: Sequence[rules.Rule] = (), **view: Any) -> None:
    """Puts a configuration in force in which these are the servers."""
    endpoint = view.pop("endpoint", {})
    given = chosen or (testing.allow(prompts=("*",), resources=("*",)),)
    views = [
        proxies.a_view(None, *given, id=id_, endpoint={"url": stage.url, **endpoint}, **view)
        for id_, stage in zip(IDS, played, strict=False)
    ]
    world.apply(*views)


def named(path: str, name: str, alias: str = "api") -> str:
    """A tool's or prompt's name at an endpoint."""
    return f"{alias}__{name}" if path == MERGED else name


async def agent(world: proxies.World, *, modern: bool, path: str = proxies.PATH) -> dict[str, Any]:
    """The options by which an agent of an era asks; a legacy one has its session."""
    session = None if modern else await world.open_session(path)
    return {"modern": modern, "path": path, "session": session}


async def drained(world: proxies.World, method: str, member: str, **options: Any) -> list[Any]:
    """Every page of a list, by cursors, as a client collects them. It must end."""
    found: list[Any] = []
    cursor: dict[str, Any] = {}
    for _ in range(50):
        told = await world.ask(proxies.request(method, cursor), **options)
        assert told.status == 200, told
        found += told.result[member]
        if "nextCursor" not in told.result:
            return found
        cursor = {"cursor": told.result["nextCursor"]}
    pytest.fail("the list never ends")


@contextlib.asynccontextmanager
async def official(
    world: proxies.World, *, modern: bool, path: str = proxies.PATH, **more: Any
) -> AsyncIterator[Any]:
    """The client of the official Python SDK at the proxy; `more` are its callbacks."""
    url = f"http://127.0.0.1:{world.door.port}{path}"
    head = {"Authorization": f"Bearer {proxies.TOKEN.decode()}"}
    async with httpx2.AsyncClient(headers=head, timeout=30, trust_env=False) as http:
        transport = streamable_http.streamable_http_client(url, http_client=http)
        async with clients.Client(transport, mode="auto" if modern else "legacy", **more) as session:
            yield session


async def frames(asking: proxies.Asking) -> AsyncIterator[bytes]:
    """The chunks of an event stream as they come, comments too."""
    while chunk := await asking.chunk():
        yield chunk


async def messages(asking: proxies.Asking, seconds: float = 10.0) -> AsyncIterator[Any]:
    """The messages of an event stream as they come; ends with the stream, or after that much silence."""
    kept = b""
    while True:
        try:
            async with asyncio.timeout(seconds):
                chunk = await asking.chunk()
        except (TimeoutError, asyncio.IncompleteReadError):
            return
        if not chunk:
            return
        kept += chunk
        while b"\n\n" in kept:
            event, _, kept = kept.partition(b"\n\n")
            data = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
            if any(data):  # an event that only primes has none
                yield json.loads(b"\n".join(data))
