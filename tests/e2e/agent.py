# SPDX-License-Identifier: Apache-2.0
"""The agent of the end-to-end test, on the official SDK. It knows what its environment and mcp.json say, and nothing else.

agent.py                              waits, so that calls can be made in its container
agent.py TOOL '{"arguments": ...}'    one session, one call; says as JSON what there is and what came of it
agent.py TOOL ARGUMENTS --times N     the same N times in one session, one line each
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import time

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client


async def visit(tool, arguments, times):
    with open(os.environ["MCP_CONFIG"]) as opened:  # noqa: PTH123 - before anything else runs
        ((name, entry),) = json.load(opened)["mcpServers"].items()
    assert name == "outrider"
    async with (
        streamablehttp_client(entry["url"], headers=entry.get("headers", {})) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        listed = await session.list_tools()
        tools = sorted(each.name for each in listed.tools)
        for _ in range(times):
            result = await session.call_tool(tool, arguments)
            refusal = (result.meta or {}).get("dev.outrider/refusal", {}).get("reason", "")
            text = "".join(getattr(each, "text", "") for each in result.content)
            verdict = refusal or ("failed" if result.isError else "allowed")
            said = {"at": time.time(), "tools": tools, "verdict": verdict, "text": text}
            print(json.dumps(said), flush=True)
            if refusal == "" and result.isError:
                return 1
    return 0


if __name__ == "__main__":
    asked = argparse.ArgumentParser()
    asked.add_argument("tool", nargs="?")
    asked.add_argument("arguments", nargs="?", default="{}", type=json.loads)
    asked.add_argument("--times", type=int, default=1)
    given = asked.parse_args()
    if given.tool is None:
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
        sys.exit(0)
    sys.exit(asyncio.run(visit(given.tool, given.arguments, given.times)))
