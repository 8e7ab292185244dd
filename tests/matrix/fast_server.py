# SPDX-License-Identifier: Apache-2.0
"""A server on FastMCP, in both eras, run by the interpreter that has it. Usage: fast_server.py PORT"""

from __future__ import annotations

import asyncio
import json
import sys

from fastmcp import Context, FastMCP

server = FastMCP("fast", instructions="A server on FastMCP.")


@server.tool
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@server.tool
async def slowly(steps: int, ctx: Context) -> str:
    """Step by step."""
    for step in range(steps):
        await ctx.report_progress(step + 1, steps, f"step {step + 1}")
        await asyncio.sleep(0.05)
    return "there"


@server.tool
async def logging(text: str, ctx: Context) -> str:
    """Logs a line."""
    await ctx.info(text)
    return "logged"


@server.tool
def fail() -> str:
    """Fails."""
    raise ValueError("it failed")


@server.tool
async def ask(ctx: Context) -> str:
    """Asks the user for a name."""
    said = await ctx.elicit("Who?", response_type=str)
    return f"{said.action} {getattr(said, 'data', None)}"


@server.prompt
def greeting(name: str) -> str:
    """A greeting."""
    return f"Hello, {name}."


@server.resource("data://settings")
def settings() -> str:
    return json.dumps({"theme": "dark"})


@server.resource("data://users/{number}")
def user(number: str) -> str:
    return json.dumps({"number": number})


if __name__ == "__main__":
    server.run(transport="http", host="127.0.0.1", port=int(sys.argv[1]), show_banner=False)
