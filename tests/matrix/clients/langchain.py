# SPDX-License-Identifier: Apache-2.0
"""langchain-mcp-adapters on the SDK 1.x: visits servers and tells on stdout what an agent of LangChain saw.

See tests/matrix/script.py for both formats. Usage: langchain.py < visits. It opens a session for each call, and does what its
documentation shows: tools, prompts, resources, progress, elicitation.
"""

from __future__ import annotations

import visiting
from langchain_mcp_adapters.callbacks import Callbacks
from langchain_mcp_adapters.client import MultiServerMCPClient
from mcp import types
from mcp.shared.exceptions import McpError

SERVER = "it"


class Visitor:
    """A client of LangChain and what was heard."""

    def __init__(self, visit):
        self.visit = visit
        self.logged = []
        self.progress = []
        connection = {"transport": "streamable_http", "url": visit["url"], "headers": visit["headers"]}
        heard = Callbacks(
            on_progress=self.progressed, on_logging_message=self.log, on_elicitation=self.filled
        )
        self.client = MultiServerMCPClient({SERVER: connection}, callbacks=heard)

    async def progressed(self, done, total, message, context):
        self.progress.append([done, total, message])

    async def log(self, params, context):
        self.logged.append([params.level, params.data])

    async def filled(self, context, params, where):
        return types.ElicitResult(
            action="accept", content=visiting.form(getattr(params, "requestedSchema", None))
        )

    async def run(self):
        self.known = {tool.name: tool for tool in await self.client.get_tools(server_name=SERVER)}
        return {"version": None, "told": await visiting.steps(self, McpError)}

    async def tools(self, step):
        return {
            "listed": [
                [tool.name, tool.description, tool.args_schema, tool.metadata]
                for tool in await self.client.get_tools(server_name=SERVER)
            ]
        }

    async def call(self, step):
        self.progress.clear()
        call = {"type": "tool_call", "id": "1", "name": step["name"], "args": step["arguments"]}
        told = await self.known[step["name"]].ainvoke(call)
        return {
            "result": [_unnumbered(told.content), _unnumbered(told.artifact), told.status],
            "progress": list(self.progress),
        }

    async def get(self, step):
        told = await self.client.get_prompt(SERVER, step["name"], arguments=step["arguments"])
        return {"result": [[each.type, each.content] for each in told]}

    async def read(self, step):
        blobs = await self.client.get_resources(SERVER, uris=[step["uri"]])
        return {"result": [[each.mimetype, each.as_string()] for each in blobs]}


def _unnumbered(value):
    """Without the ids that LangChain makes up for blocks of content."""
    if isinstance(value, dict):
        return {key: _unnumbered(each) for key, each in value.items() if key != "id"}
    return [_unnumbered(each) for each in value] if isinstance(value, list) else value


if __name__ == "__main__":
    visiting.main(Visitor)
