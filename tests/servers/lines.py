# SPDX-License-Identifier: Apache-2.0
"""One connection of a raw server, from the answering side: whole bodies, events one by one, and nothing in between."""

from __future__ import annotations

import asyncio
import json
from typing import Any


class Line:
    """The answering side of one connection."""

    def __init__(self, peer: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peer, self.reader, self.writer = peer, reader, writer

    async def say(self, body: bytes, *headers: bytes, status: bytes = b"200 OK") -> None:
        head = (b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers, b"", b"")
        self.writer.write(b"\r\n".join(head) + body)
        await self.writer.drain()

    async def json(self, message: Any, *headers: bytes, status: bytes = b"200 OK") -> None:
        raw = message if isinstance(message, bytes) else json.dumps(message).encode()
        await self.say(raw, b"content-type: application/json", *headers, status=status)

    async def events(self) -> None:
        self.writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        await self.writer.drain()

    async def event(self, message: Any) -> None:
        frame = b"data: " + json.dumps(message).encode() + b"\n\n"
        self.writer.write(b"%x\r\n%b\r\n" % (len(frame), frame))
        await self.writer.drain()

    async def over(self) -> None:
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    async def until_gone(self) -> None:
        while await self.reader.read(65536):
            pass
