# SPDX-License-Identifier: Apache-2.0
"""A token endpoint that says exactly what it is told to, byte for byte: for answers that no real one gives."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import urllib.parse
from collections.abc import AsyncIterator

from tests.servers import upstreams


@dataclasses.dataclass
class Canned:
    """`says` are whole HTTP answers, the last one for ever; `forms` and `heads` are what came."""

    says: list[bytes]
    port: int = 0
    forms: list[dict[str, str]] = dataclasses.field(default_factory=list)
    heads: list[bytes] = dataclasses.field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/token"


def said(
    body: object, *headers: bytes, status: bytes = b"200 OK", media: bytes = b"application/json"
) -> bytes:
    """One answer; a body that is no bytes is JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return upstreams.answer(raw, b"content-type: " + media, *headers, status=status)


def token(value: str = "canned", **more: object) -> bytes:
    """A proper one."""
    return said({"access_token": value, "token_type": "Bearer", "expires_in": 3600, **more})


@contextlib.asynccontextmanager
async def serving(*says: bytes) -> AsyncIterator[Canned]:
    """In this loop, on a free port, until the block ends."""
    canned = Canned(list(says))

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await upstreams.read_request(upstreams.Served(), reader)
            head, _, body = request.partition(b"\r\n\r\n")
            canned.heads.append(head)
            canned.forms.append(dict(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True)))
            writer.write(canned.says.pop(0) if len(canned.says) > 1 else canned.says[0])
            await writer.drain()
            await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    canned.port = server.sockets[0].getsockname()[1]
    try:
        yield canned
    finally:
        server.close()
