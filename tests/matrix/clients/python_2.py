# SPDX-License-Identifier: Apache-2.0
"""The client of the SDK 2.x: visits servers and tells on stdout what it saw. See tests/matrix/script.py for both formats.

Usage: python_2.py ERA < visits; ERA is `auto` (asks for the stateless era first) or `legacy`.
"""

from __future__ import annotations

import asyncio
import sys

import httpx2
import visiting
from mcp import types
from mcp.client import client as clients
from mcp.client import streamable_http
from mcp.shared import exceptions
from visiting import plain


class Visitor:
    """One session and what was heard in it."""

    def __init__(self, visit):
        self.visit = visit
        self.heard = asyncio.Queue()
        self.logged = []

    async def sampled(self, context, params):
        said = params.messages[-1].content.text
        content = types.TextContent(type="text", text=f"sampled: {said}")
        return types.CreateMessageResult(role="assistant", content=content, model="none")

    async def filled(self, context, params):
        return types.ElicitResult(
            action="accept", content=visiting.form(getattr(params, "requested_schema", None))
        )

    async def rooted(self, context):
        return types.ListRootsResult(roots=[types.Root(uri="file:///matrix", name="matrix")])

    async def told(self, message):
        if isinstance(message, types.ResourceUpdatedNotification):
            self.heard.put_nowait(["updated", str(message.params.uri)])
        elif isinstance(message, types.ToolListChangedNotification):
            self.heard.put_nowait(["changed", "tools"])

    async def log(self, params):
        self.logged.append([params.level, params.data])

    async def run(self):
        async with httpx2.AsyncClient(
            headers=self.visit["headers"], timeout=visiting.SECONDS, trust_env=False
        ) as http:
            transport = streamable_http.streamable_http_client(self.visit["url"], http_client=http)
            async with clients.Client(
                transport, mode=sys.argv[1], sampling_callback=self.sampled, elicitation_callback=self.filled,
                list_roots_callback=self.rooted, logging_callback=self.log, log_level="debug",
                message_handler=self.told, read_timeout_seconds=visiting.SECONDS,
            ) as self.client:  # fmt: skip
                self.modern = self.client.protocol_version >= "2026"
                return {
                    "version": self.client.protocol_version,
                    "capabilities": plain(self.client.server_capabilities),
                    "instructions": self.client.instructions,
                    "told": await visiting.steps(self, exceptions.MCPError),
                }

    async def _pages(self, ask, field):
        return await visiting.pages(lambda cursor: ask(cursor=cursor), field, "next_cursor")

    async def tools(self, step):
        return await self._pages(self.client.list_tools, "tools")

    async def prompts(self, step):
        return await self._pages(self.client.list_prompts, "prompts")

    async def resources(self, step):
        return await self._pages(self.client.list_resources, "resources")

    async def templates(self, step):
        return await self._pages(self.client.list_resource_templates, "resource_templates")

    async def call(self, step):
        progress = []

        async def heard(done, total, message):
            progress.append([done, total, message])

        result = await self.client.call_tool(step["name"], step["arguments"], progress_callback=heard)
        return {"result": plain(result), "progress": progress}

    async def get(self, step):
        return {"result": plain(await self.client.get_prompt(step["name"], step["arguments"]))}

    async def read(self, step):
        return {"result": plain(await self.client.read_resource(step["uri"]))}

    async def complete(self, step):
        ref = types.PromptReference(type="ref/prompt", name=step["prompt"])
        return {"result": plain(await self.client.complete(ref, step["argument"]))}

    async def level(self, step):
        return {"result": plain(await self.client.set_logging_level(step["level"]))}

    async def cancel(self, step):
        begun = asyncio.Event()

        async def heard(done, total, message):
            begun.set()

        call = self.client.call_tool(step["name"], step["arguments"], progress_callback=heard)
        return await visiting.cancelled(call, begun)

    async def subscribe(self, step):
        uri = step["uri"]
        if self.modern:
            async with self.client.listen(resource_subscriptions=[uri]) as events:
                await self.client.call_tool(step["by"], step.get("arguments", {}))
                return {"heard": ["updated", (await anext(aiter(events))).uri]}
        await self.client.subscribe_resource(uri)
        await self.client.call_tool(step["by"], step.get("arguments", {}))
        heard = await visiting.news(self.heard, "updated")
        await self.client.unsubscribe_resource(uri)
        return heard

    async def changed(self, step):
        if self.modern:
            async with self.client.listen(tools_list_changed=True) as events:
                await self.client.call_tool(step["by"], {})
                await anext(aiter(events))
                return {"heard": ["changed", "tools"]}
        await self.client.call_tool(step["by"], {})
        return await visiting.news(self.heard, "changed")


if __name__ == "__main__":
    visiting.main(Visitor)
