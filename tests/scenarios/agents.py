# SPDX-License-Identifier: Apache-2.0
"""Three official clients behind one question: what does an agent see at this URL, and what do its calls give?

`visit(client, url, ...)` runs the SDK 2.x client in this process, in either era, or the SDK 1.x client in its own
environment. All of them are used as their documentation says; nothing is patched.
"""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2
import pytest
from mcp.client import client as clients
from mcp.client import streamable_http

CLIENTS = ("2.x modern", "2.x legacy", "1.x")
_PROGRAM = pathlib.Path(__file__).with_name("older_agent.py")
_ERA_MEMBERS = ("resultType", "ttlMs", "cacheScope")


def visit(
    client: str, url: str, headers: Mapping[str, str], calls: Sequence[tuple[str, dict[str, Any]]]
) -> dict[str, Any]:
    """`version`, `tools` and `calls` (each with `result`, `progress` and when it `ended`) of one session."""
    if client == "1.x":
        return _older(url, headers, calls)
    return asyncio.run(_newer(url, headers, calls, mode="auto" if client == "2.x modern" else "legacy"))


def _older(
    url: str, headers: Mapping[str, str], calls: Sequence[tuple[str, dict[str, Any]]]
) -> dict[str, Any]:
    interpreter = os.environ["OUTRIDER_LEGACY_PYTHON"]
    if not pathlib.Path(interpreter).exists():
        pytest.skip("the environment with the SDK 1.x is not installed: run `make install`")
    asked = json.dumps({"url": url, "headers": dict(headers), "calls": calls})
    ran = subprocess.run(
        [interpreter, _PROGRAM, asked], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


async def _newer(
    url: str, headers: Mapping[str, str], calls: Sequence[tuple[str, dict[str, Any]]], *, mode: str
) -> dict[str, Any]:
    async with httpx2.AsyncClient(headers=dict(headers), timeout=30, trust_env=False) as http:
        transport = streamable_http.streamable_http_client(url, http_client=http)
        async with clients.Client(transport, mode=mode) as session:
            told = []
            for tool, arguments in calls:
                progress: list[dict[str, Any]] = []

                async def heard(done, total, message, progress=progress):
                    progress.append({"at": time.monotonic(), "done": done, "total": total})

                result = await session.call_tool(tool, arguments, progress_callback=heard)
                dumped = result.model_dump(mode="json", by_alias=True)
                told.append({"result": dumped, "progress": progress, "ended": time.monotonic()})
            listed = await session.list_tools()
            tools = [tool.model_dump(mode="json", by_alias=True) for tool in listed.tools]
            return {"version": session.protocol_version, "tools": tools, "calls": told}


def plain(value: Any) -> Any:
    """A result or a definition without members of one era and without what is absent in another SDK's words."""
    if isinstance(value, dict):
        return {
            key: plain(each) for key, each in value.items() if each is not None and key not in _ERA_MEMBERS
        }
    return [plain(each) for each in value] if isinstance(value, list) else value
