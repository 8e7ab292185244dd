# SPDX-License-Identifier: Apache-2.0
"""An upstream of long streams: `python -m bench.streams_upstream FILE`, started by `bench.streams`; writes its port to FILE.

Its one tool, `echo`, sends progress as often as its arguments say, each event numbered and with the moment it was sent, and answers
with how many there were. A client that does not read holds up its own stream and no other.
"""

from __future__ import annotations

import asyncio
import json
import pathlib
import sys
import time
from typing import Any

MODERN = "2026-07-28"
_TOOL = {"name": "echo", "inputSchema": {"type": "object"}}


async def _say(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    body = json.dumps(message).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    writer.write(head + body)
    await writer.drain()


async def _event(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    frame = b"data: " + json.dumps(message).encode() + b"\n\n"
    writer.write(b"%x\r\n%b\r\n" % (len(frame), frame))
    await writer.drain()


async def _stream(writer: asyncio.StreamWriter, asked: dict[str, Any]) -> None:
    """One call: progress until its time is over, then the answer."""
    params = asked["params"]
    given, token = params["arguments"], params["_meta"]["progressToken"]
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    began, number, pad = time.monotonic(), 0, "x" * given["bytes"]
    while time.monotonic() - began < given["seconds"]:
        number += 1
        told = {"progressToken": token, "progress": number, "message": f"{time.monotonic_ns()} {pad}"}
        await _event(writer, {"jsonrpc": "2.0", "method": "notifications/progress", "params": told})
        await asyncio.sleep(max(0.0, began + number * given["every"] - time.monotonic()))
    result = {"resultType": "complete", "content": [{"type": "text", "text": str(number)}]}
    await _event(writer, {"jsonrpc": "2.0", "id": asked["id"], "result": result})
    writer.write(b"0\r\n\r\n")
    await writer.drain()


async def _connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            asked = json.loads(await reader.readexactly(length))
            if asked["method"] == "tools/call":
                await _stream(writer, asked)
                continue
            result: dict[str, Any] = {"resultType": "complete", "ttlMs": 3_600_000, "cacheScope": "public"}
            if asked["method"] == "server/discover":
                result |= {"supportedVersions": [MODERN], "capabilities": {"tools": {}}}
            else:
                result |= {"tools": [_TOOL]}
            await _say(writer, {"jsonrpc": "2.0", "id": asked["id"], "result": result})
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def main(file: pathlib.Path) -> None:
    """Serves until it is ended."""
    server = await asyncio.start_server(_connected, "127.0.0.1", 0, backlog=1024)
    temporary = file.with_suffix(".new")
    temporary.write_text(str(server.sockets[0].getsockname()[1]))
    temporary.rename(file)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(pathlib.Path(sys.argv[1])))
