# SPDX-License-Identifier: Apache-2.0
"""Many calls at once, from one loop, over as many connections; every one of them is accounted for.

`calls` gives each call's result, or None for one whose connection broke before there was an answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import aiohttp
from tests import laptop


async def calls(
    agent: laptop.Agent, server: str, asked: Iterable[tuple[str, dict[str, Any], int | str]], *, at_once: int
) -> list[dict[str, Any] | None]:
    """The answers (whole JSON-RPC messages) to (tool, arguments, id), in the order they were asked."""
    connector = aiohttp.TCPConnector(limit=at_once)
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        return await asyncio.gather(*(one(session, agent, server, *each) for each in asked))


async def one(
    session: aiohttp.ClientSession, agent: laptop.Agent, server: str, *asked: Any
) -> dict[str, Any] | None:
    where, body, head = agent.request(server, *asked)
    try:
        async with session.post(f"http://127.0.0.1:{agent.port}{where}", data=body, headers=head) as answer:
            content = await answer.read()
            assert answer.status == 200, (answer.status, content)
            if answer.content_type == "text/event-stream":
                return laptop.Reply(200, {"content-type": "text/event-stream"}, content).messages[-1]
            return json.loads(content)
    except (aiohttp.ClientError, ConnectionError):
        return None
