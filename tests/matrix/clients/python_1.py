# SPDX-License-Identifier: Apache-2.0
"""The client of the SDK 1.x, which speaks the handshake era: visits servers and tells on stdout what it saw.

See tests/matrix/script.py for both formats. Usage: python_1.py < visits
"""

from __future__ import annotations

import asyncio
import datetime as dt

import visiting
from mcp import ClientSession, types
from mcp.client.streamable_http import streamablehttp_client
from mcp.shared.exceptions import McpError
from pydantic import AnyUrl
from visiting import plain


class Visitor:
    """One session and what was heard in it."""

    def __init__(self, visit):
        self.visit = visit
        self.heard = asyncio.Queue()
        self.logged = []

    async def sampled(self, context, params):
        content = types.TextContent(type="text", text=f"sampled: {params.messages[-1].content.text}")
        return types.CreateMessageResult(role="assistant", content=content, model="none")

    async def filled(self, context, params):
        return types.ElicitResult(
            action="accept", content=visiting.form(getattr(params, "requestedSchema", None))
        )

    async def rooted(self, context):
        return types.ListRootsResult(roots=[types.Root(uri="file:///matrix", name="matrix")])

    async def told(self, message):
        message = getattr(message, "root", message)
        if isinstance(message, types.ResourceUpdatedNotification):
            self.heard.put_nowait(["updated", str(message.params.uri)])
        elif isinstance(message, types.ToolListChangedNotification):
            self.heard.put_nowait(["changed", "tools"])

    async def log(self, params):
        self.logged.append([params.level, params.data])

    async def run(self):
        async with (
            streamablehttp_client(self.visit["url"], headers=self.visit["headers"]) as (read, write, _),
            ClientSession(
                read, write, read_timeout_seconds=dt.timedelta(seconds=visiting.SECONDS),
                sampling_callback=self.sampled, elicitation_callback=self.filled,
                list_roots_callback=self.rooted, logging_callback=self.log, message_handler=self.told,
            ) as self.session,
        ):  # fmt: skip
            greeting = await self.session.initialize()
            return {
                "version": greeting.protocolVersion,
                "capabilities": plain(greeting.capabilities),
                "instructions": greeting.instructions,
                "told": await visiting.steps(self, McpError),
            }

    async def _pages(self, ask, field):
        def page(cursor):
            return ask(params=types.PaginatedRequestParams(cursor=cursor))

        return await visiting.pages(page, field, "nextCursor")

    async def tools(self, step):
        return await self._pages(self.session.list_tools, "tools")

    async def prompts(self, step):
        return await self._pages(self.session.list_prompts, "prompts")

    async def resources(self, step):
        return await self._pages(self.session.list_resources, "resources")

    async def templates(self, step):
        return await self._pages(self.session.list_resource_templates, "resourceTemplates")

    async def call(self, step):
        progress = []

        async def heard(done, total, message):
            progress.append([done, total, message])

        result = await self.session.call_tool(step["name"], step["arguments"], progress_callback=heard)
        return {"result": plain(result), "progress": progress}

    async def get(self, step):
        return {"result": plain(await self.session.get_prompt(step["name"], step["arguments"]))}

    async def read(self, step):
        return {"result": plain(await self.session.read_resource(AnyUrl(step["uri"])))}

    async def complete(self, step):
        ref = types.PromptReference(type="ref/prompt", name=step["prompt"])
        return {"result": plain(await self.session.complete(ref, step["argument"]))}

    async def level(self, step):
        return {"result": plain(await self.session.set_logging_level(step["level"]))}

    async def cancel(self, step):
        """This client says nothing when it gives up waiting, so it is told to say it."""
        begun = asyncio.Event()
        number = self.session._request_id  # the id that the next request gets

        async def heard(done, total, message):
            params = types.CancelledNotificationParams(requestId=number, reason="enough")
            said = types.CancelledNotification(method="notifications/cancelled", params=params)
            await self.session.send_notification(types.ClientNotification(said))
            begun.set()

        call = self.session.call_tool(step["name"], step["arguments"], progress_callback=heard)
        return await visiting.cancelled(call, begun)

    async def subscribe(self, step):
        await self.session.subscribe_resource(AnyUrl(step["uri"]))
        await self.session.call_tool(step["by"], step.get("arguments", {}))
        heard = await visiting.news(self.heard, "updated")
        await self.session.unsubscribe_resource(AnyUrl(step["uri"]))
        return heard

    async def changed(self, step):
        await self.session.call_tool(step["by"], {})
        return await visiting.news(self.heard, "changed")


if __name__ == "__main__":
    visiting.main(Visitor)
