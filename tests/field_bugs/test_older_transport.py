# SPDX-License-Identifier: Apache-2.0
"""Field bug 25, the part about HTTP+SSE (2024-11-05): where a server behind a prefix wants its messages."""

from __future__ import annotations

import asyncio
import json
import pathlib
import tempfile

import pytest
from tests import proxies
from tests.field_bugs import ground
from tests.servers import instalments, sse, stages

INTRODUCED = {
    "protocolVersion": "2024-11-05",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "older", "version": "1"},
}


class Older(sse.Server):
    """A small server of one tool, with a stream for each session: whoever posts is told on the stream that said where."""

    def __init__(self, place: str) -> None:
        super().__init__(place=place)
        self.said: list[asyncio.Queue[str]] = []

    async def act(self, line: instalments.Line, seen: instalments.Seen) -> None:
        if seen.verb == "POST":
            self.posted.append(message := json.loads(seen.body))
            await line.status(202, b"Accepted")
            results = {
                "initialize": INTRODUCED,
                "tools/list": {"tools": [stages.tool("query")]},
                "tools/call": stages.text(json.dumps(message.get("params", {}).get("arguments"))),
            }
            if "id" in message and message.get("method") in results:
                told = {"jsonrpc": "2.0", "id": message["id"], "result": results[message["method"]]}
                self.said[int(seen.target.rpartition("=")[2])].put_nowait(json.dumps(told))
            return
        self.said.append(mine := asyncio.Queue())
        await line.event(f"{self.place}?session={len(self.said) - 1}", event="endpoint")
        while True:
            await line.event(await mine.get(), event="message")


@ground.both_agents
@pytest.mark.parametrize(
    ("place", "posted"),
    [
        ("messages", "/behind/a/prefix/messages"),
        ("/behind/a/prefix/messages", "/behind/a/prefix/messages"),
        ("/messages", "/messages"),
        ("../messages", "/behind/a/messages"),
    ],
)
def test_bug_25_messages_go_where_the_stream_says_as_a_browser_would_read_it(
    modern: bool, place: str, posted: str
) -> None:
    """python-sdk#412: the path of the `endpoint` event, behind a proxy's prefix."""

    async def main() -> None:
        server = Older(place)
        with tempfile.TemporaryDirectory() as folder:
            async with sse.serving(server), proxies.running(pathlib.Path(folder)) as world:
                url = server.url.replace("/sse", "/behind/a/prefix/sse")
                world.apply(proxies.a_view(None, endpoint={"url": url, "transport": "SSE"}))
                options = await ground.agent(world, modern=modern)
                told = await world.call("query", {"n": 1}, **options)
                assert json.loads(told.text) == {"n": 1}
                assert {seen.target.partition("?")[0] for seen in server.posts} == {posted}

    asyncio.run(asyncio.wait_for(main(), 30))
