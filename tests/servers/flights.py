# SPDX-License-Identifier: Apache-2.0
"""Requests on the way out, and a sink that watches their every step."""

from __future__ import annotations

import asyncio
import contextlib

from tests.servers import upstreams

from outrider import call, decision, names, snapshot
from outrider_sidecar import exchange, upstream

CANARY = b"Bearer canary-5f2d9c"


LENT = exchange.Lent(((b"authorization", CANARY),))


HEAD = ((b"content-type", b"application/json"), (b"accept", b"application/json, text/event-stream"))


LAPTOP = snapshot.Network(loopback=True)


class Sink:
    """Collects an answer; `greedy` False refuses every chunk until resumed."""

    def __init__(self, *, greedy: bool = True):
        self.status = 0
        self.headers: exchange.Headers = ()
        self.body = b""
        self.ends: list[exchange.Complete | exchange.Failed] = []
        self.greedy = greedy
        self.started = asyncio.Event()
        self.some = asyncio.Event()
        self.ended = asyncio.Event()

    def head(self, status, headers):
        assert not self.status
        self.status, self.headers = status, headers
        self.started.set()

    def data(self, chunk):
        assert not self.ends
        self.body += chunk
        self.some.set()
        return self.greedy

    def done(self, end):
        self.ends.append(end)
        self.ended.set()

    async def end(self):
        async with asyncio.timeout(10):
            await self.ended.wait()
        # One more turn of the loop, so that a second `done` would be seen.
        await asyncio.sleep(0)
        assert len(self.ends) == 1
        return self.ends[0]


def permit(url, **endpoint):
    server = names.ServerId("crm", "api")
    view = snapshot.ServerView(id=server, generation=1, endpoint=snapshot.Endpoint(url=url, **endpoint))
    return decision.Permit(call.Call(server, "search"), view, None)


@contextlib.asynccontextmanager
async def way_out(network=LAPTOP, own=frozenset()):
    out = upstream.AiohttpUpstream(asyncio.get_running_loop(), network=lambda: network, own_addresses=own)
    try:
        yield out
    finally:
        await out.close()


def send(out, to, sink, *, seconds=5.0, head=HEAD, lent=LENT, body=b'{"a":1}', method="POST"):
    deadline = asyncio.get_running_loop().time() + seconds
    return out.send(to, lent, head, body, sink, deadline=deadline, method=method)


def one(name, *, seconds=5.0, body=b'{"a":1}', **endpoint):
    """One request to one scenario: (sink, end, served)."""

    async def main():
        async with upstreams.running(name) as served, way_out() as out:
            sink = Sink()
            send(out, permit(served.url, **endpoint), sink, seconds=seconds, body=body)
            end = await sink.end()
            if isinstance(end, exchange.Failed):
                async with asyncio.timeout(10):
                    await served.left.wait()  # a failed request's connection is always closed
            return sink, end, served

    return asyncio.run(main())
