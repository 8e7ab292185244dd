# SPDX-License-Identifier: Apache-2.0
"""The client of FastMCP: visits servers and tells on stdout what it saw. See tests/matrix/script.py for both formats.

Usage: fast_mcp.py < visits. It asks for the stateless era first. What it has no word for it does not do.
"""

from __future__ import annotations

import asyncio

import visiting
from fastmcp import Client
from fastmcp.client import elicitation
from fastmcp.client.transports import StreamableHttpTransport
from mcp import types
from mcp.shared import exceptions
from visiting import plain


class Visitor:
    """One session and what was heard in it."""

    def __init__(self, visit):
        self.visit = visit
        self.logged = []

    async def sampled(self, messages, params, context):
        return f"sampled: {messages[-1].content.text}"

    async def filled(self, message, response_type, params, context):
        schema = getattr(params, "requested_schema", None)
        return elicitation.ElicitResult(action="accept", content=visiting.form(schema))

    async def log(self, message):
        self.logged.append([message.level, message.data])

    async def run(self):
        transport = StreamableHttpTransport(self.visit["url"], headers=self.visit["headers"])
        async with Client(
            transport, roots=["file:///matrix"], sampling_handler=self.sampled,
            elicitation_handler=self.filled, log_handler=self.log, timeout=visiting.SECONDS,
        ) as self.client:  # fmt: skip
            return {
                "version": self.client.protocol_version,
                "capabilities": plain(self.client.server_capabilities),
                "instructions": self.client.instructions,
                "told": await visiting.steps(self, exceptions.MCPError),
            }

    async def _listed(self, ask):
        return {"listed": [plain(each) for each in await ask()]}

    async def tools(self, step):
        return await self._listed(self.client.list_tools)

    async def prompts(self, step):
        return await self._listed(self.client.list_prompts)

    async def resources(self, step):
        return await self._listed(self.client.list_resources)

    async def templates(self, step):
        return await self._listed(self.client.list_resource_templates)

    async def call(self, step):
        progress = []

        async def heard(done, total, message):
            progress.append([done, total, message])

        result = await self.client.call_tool_mcp(step["name"], step["arguments"], progress_handler=heard)
        return {"result": plain(result), "progress": progress}

    async def get(self, step):
        return {"result": plain(await self.client.get_prompt_mcp(step["name"], step["arguments"]))}

    async def read(self, step):
        return {"result": plain(await self.client.read_resource_mcp(step["uri"]))}

    async def complete(self, step):
        ref = types.PromptReference(type="ref/prompt", name=step["prompt"])
        return {"result": plain(await self.client.complete_mcp(ref, step["argument"]))}

    async def cancel(self, step):
        begun = asyncio.Event()

        async def heard(done, total, message):
            begun.set()

        call = self.client.call_tool_mcp(step["name"], step["arguments"], progress_handler=heard)
        return await visiting.cancelled(call, begun)


if __name__ == "__main__":
    visiting.main(Visitor)
