# SPDX-License-Identifier: Apache-2.0
"""Many proxies' ends of the config stream in one process: `python -m bench.fleet_clients FILE`, started by `bench.fleet`.

FILE is JSON: `url`, `ca_file`, `folder`, `readers`, `server`, `tool`, `tokens`. As proxies (`readers` false) they are what the real
process runs, `snapshots.Config` with binding and decision; as readers they only take bytes, so that what is measured is the push.
Prints a line of JSON for each event: what is allowed now (proxies) or that a line has arrived (readers), and when (monotonic).
"""

from __future__ import annotations

import asyncio
import functools
import json
import pathlib
import random
import ssl
import sys
import time
import urllib.parse
from typing import Any

from outrider import bind, call, decide, decision, names, snapshot, testing
from outrider_sidecar import current, snapshots

DIALLING_AT_ONCE = 32


def said(**event: Any) -> None:
    """One event, at once."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


class Proxies:
    """As many real ends as there are tokens."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._given = given
        namespace, name = given["server"].split("/")
        self._server = names.ServerId(namespace, name)
        self._asked = call.Call(self._server, given["tool"], {})

    async def run(self) -> None:
        await asyncio.gather(*(self._one(index, token) for index, token in enumerate(self._given["tokens"])))

    async def _one(self, index: int, token: str) -> None:
        folder = pathlib.Path(self._given["folder"]) / str(index)
        folder.mkdir(parents=True)
        (folder / "token").write_text(token)
        held = current.Current()
        dial = snapshots.Dial(
            self._given["url"], folder / "token", folder, pathlib.Path(self._given["ca_file"])
        )
        changed = functools.partial(self._changed, index, held)
        await asyncio.sleep(random.random() * len(self._given["tokens"]) / 100)
        await snapshots.Config(held, dial, changed=changed, jitter=random.random).follow()

    def _changed(self, index: int, held: current.Current, bound: bind.Bound) -> None:
        """In force from now on; the server's tools are known, as they are to a proxy that serves calls."""
        if self._server in bound.servers and bound.servers[self._server].targets is None:
            held.observed(self._server, testing.tools(self._asked.name))
            assert held.bound is not None, "it is the one that changed"
            bound = held.bound
        verdict = decide.decide(bound, self._asked, {}, now=time.time())
        said(proxy=index, allowed=isinstance(verdict, decision.Permit), at=time.monotonic())


class Reader(asyncio.Protocol):
    """Takes a stream's bytes and says when a snapshot has arrived whole."""

    def __init__(self, index: int, request: bytes) -> None:
        self._index = index
        self._request = request
        self._line = b""
        self._began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._began = self._began or time.monotonic()
        self._line += data
        if self._line.endswith(b"\n\r\n"):
            at = time.monotonic()
            if b'"type":"deflated"' in self._line:
                said(reader=self._index, bytes=len(self._line), began=self._began, at=at)
            self._line, self._began = b"", 0.0

    def connection_lost(self, exc: Exception | None) -> None:
        said(reader=self._index, lost=str(exc))


async def readers(given: dict[str, Any]) -> None:
    """As many connections as there are tokens."""
    url = urllib.parse.urlsplit(given["url"])
    context = ssl.create_default_context(cafile=given["ca_file"])
    turn = asyncio.Semaphore(DIALLING_AT_ONCE)
    loop = asyncio.get_running_loop()

    async def one(index: int, token: str) -> None:
        request = f"GET /v1/config/stream?schema={snapshot.SCHEMA}&deflate=1 HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer {token}\r\n\r\n"
        async with turn:
            await loop.create_connection(
                lambda: Reader(index, request.encode()), url.hostname, url.port, ssl=context
            )

    await asyncio.gather(*(one(index, token) for index, token in enumerate(given["tokens"])))
    await asyncio.Event().wait()


def main() -> None:
    """Runs until it is killed."""
    given = json.loads(pathlib.Path(sys.argv[1]).read_bytes())
    asyncio.run(readers(given) if given["readers"] else Proxies(given).run())


if __name__ == "__main__":
    main()
