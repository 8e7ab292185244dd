# SPDX-License-Identifier: Apache-2.0
"""An agent on the SDK 1.x, run by the interpreter that has it: one session, a list, some calls, told as JSON on stdout.

Usage: older_agent.py '{"url": ..., "headers": {...}, "calls": [[tool, arguments], ...]}'
"""

import asyncio
import json
import sys
import time

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client


async def visit(url, headers, calls):
    async with (
        streamablehttp_client(url, headers=headers) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        greeting = await session.initialize()
        listed = await session.list_tools()
        told = []
        for tool, arguments in calls:
            progress = []

            async def heard(done, total, message, progress=progress):
                progress.append({"at": time.monotonic(), "done": done, "total": total})

            result = await session.call_tool(tool, arguments, progress_callback=heard)
            dumped = result.model_dump(mode="json", by_alias=True)
            told.append({"result": dumped, "progress": progress, "ended": time.monotonic()})
        return {
            "version": greeting.protocolVersion,
            "tools": [tool.model_dump(mode="json", by_alias=True) for tool in listed.tools],
            "calls": told,
        }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(visit(**json.loads(sys.argv[1])))))
