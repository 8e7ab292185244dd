# SPDX-License-Identifier: Apache-2.0
"""Other people's servers of HTTP+SSE (2024-11-05), each a process of its own: server-everything and one on the Python SDK 1.x."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator

from tests.scenarios import servers

_ON_SDK_1 = """\
import sys
from mcp.server.fastmcp import Context, FastMCP
served = FastMCP("older", host="127.0.0.1", port=int(sys.argv[1]), mount_path="/")

@served.tool()
def add(a: int, b: int) -> int:
    return a + b

@served.tool()
async def count(to: int, ctx: Context) -> str:
    for number in range(to):
        await ctx.report_progress(number + 1, to)
    return "counted to " + str(to)

@served.tool()
def fails() -> str:
    raise ValueError("no such deal")

@served.tool()
async def more(ctx: Context) -> str:
    served.add_tool(lambda: "new", name="grown", description="It was not there before.")
    await ctx.session.send_tool_list_changed()
    return "there is more now"

served.run(transport="sse")
"""


@contextlib.contextmanager
def everything(logs: pathlib.Path) -> Iterator[str]:
    """server-everything in its `sse` mode."""
    program = pathlib.Path(os.environ["OUTRIDER_NODE_MODULES"]) / (
        "@modelcontextprotocol/server-everything/dist/index.js"
    )
    node = pathlib.Path(sys.executable).with_name("node")
    servers.needed(program)
    servers.needed(node)
    with servers.on_a_free_port("everything-sse", [str(node), str(program), "sse"], logs) as url:
        yield url.replace("/mcp", "/sse")


@contextlib.contextmanager
def older(logs: pathlib.Path) -> Iterator[str]:
    """A server on the SDK 1.x, which offers this transport by itself."""
    interpreter = pathlib.Path(os.environ["OUTRIDER_LEGACY_PYTHON"])
    servers.needed(interpreter)
    with servers.on_a_free_port("older-sse", [str(interpreter), "-c", _ON_SDK_1, "{port}"], logs) as url:
        yield url.replace("/mcp", "/sse")
