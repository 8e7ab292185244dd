# SPDX-License-Identifier: Apache-2.0
"""A server on the official SDK 2.x with more of every kind than fits a page of ours, listed in pages of its own.

`python -m tests.scenarios.shelves FD` serves on an open socket; `servers.shelves` starts it so.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

import uvicorn
from mcp import types
from mcp.server import lowlevel

EACH = 2_300
PAGE = 150
INSTRUCTIONS = "Take book-0 first; è buono."

_SCHEMA = {"type": "object", "properties": {"page": {"type": "integer"}}}
_TOOLS = [
    types.Tool(name=f"read-{n}", description="Reads.", input_schema=_SCHEMA, _meta={"shelf": n / 4})
    for n in range(EACH)
]
_PROMPTS = [
    types.Prompt(name=f"sum up {n}", title=f"Résumé {n}", arguments=[types.PromptArgument(name="tone")])
    for n in range(EACH)
]
_RESOURCES = [types.Resource(uri=f"book://shelf/{n}", name=f"book-{n}", size=n) for n in range(EACH)]
_TEMPLATES = [
    types.ResourceTemplate(uri_template=f"book{n}://{{page}}", name=f"pages-{n}") for n in range(EACH)
]


def _page(everything: list[Any], params: types.PaginatedRequestParams | None) -> tuple[list[Any], str | None]:
    at = int((params.cursor if params else None) or 0)
    return everything[at : at + PAGE], str(at + PAGE) if at + PAGE < len(everything) else None


async def _tools(_ctx: Any, params: Any) -> types.ListToolsResult:
    shown, after = _page(_TOOLS, params)
    return types.ListToolsResult(tools=shown, next_cursor=after)


async def _prompts(_ctx: Any, params: Any) -> types.ListPromptsResult:
    shown, after = _page(_PROMPTS, params)
    return types.ListPromptsResult(prompts=shown, next_cursor=after)


async def _resources(_ctx: Any, params: Any) -> types.ListResourcesResult:
    shown, after = _page(_RESOURCES, params)
    return types.ListResourcesResult(resources=shown, next_cursor=after)


async def _templates(_ctx: Any, params: Any) -> types.ListResourceTemplatesResult:
    shown, after = _page(_TEMPLATES, params)
    return types.ListResourceTemplatesResult(resource_templates=shown, next_cursor=after)


async def _call(_ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=params.name)])


async def _get(_ctx: Any, params: types.GetPromptRequestParams) -> types.GetPromptResult:
    said = types.TextContent(type="text", text=params.name)
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=said)])


async def _read(_ctx: Any, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
    told = types.TextResourceContents(uri=params.uri, text=str(params.uri))
    return types.ReadResourceResult(contents=[told])


async def _complete(_ctx: Any, params: types.CompleteRequestParams) -> types.CompleteResult:
    return types.CompleteResult(completion=types.Completion(values=[f"{params.argument.value}!"]))


def server() -> lowlevel.Server[Any]:
    return lowlevel.Server(
        "library", version="4.2", instructions=INSTRUCTIONS,
        on_list_tools=_tools, on_list_prompts=_prompts, on_list_resources=_resources,
        on_list_resource_templates=_templates, on_call_tool=_call, on_get_prompt=_get, on_read_resource=_read,
        on_completion=_complete,
    )  # fmt: skip


if __name__ == "__main__":
    listening = socket.socket(fileno=int(sys.argv[1]))
    running = uvicorn.Config(server().streamable_http_app(), log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(running).run(sockets=[listening])
