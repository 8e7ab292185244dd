# SPDX-License-Identifier: Apache-2.0
"""A server of 2024-11-05 looks like one of Streamable HTTP to everybody who sends it something."""

from __future__ import annotations

import asyncio
import json
import os

import pytest
from tests.servers import flights, sse, upstreams

from outrider import decision
from outrider_sidecar import exchange, ssetransport

R = decision.Reason
INITIALIZE = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}


class World:
    """The transport, and one server behind it."""

    def __init__(self, transport, server):
        self.transport, self.server = transport, server
        self.to = flights.permit(server.url, transport="SSE")

    def send(self, message, *, session=None, method="POST", seconds=5.0):
        sink = flights.Sink()
        head = flights.HEAD if session is None else (*flights.HEAD, (b"mcp-session-id", session))
        body = b"" if message is None else json.dumps(message).encode()
        sink.flight = flights.send(
            self.transport, self.to, sink, head=head, body=body, method=method, seconds=seconds
        )
        return sink

    async def ask(self, message, **options):
        sink = self.send(message, **options)
        return sink, await sink.end()

    async def session(self):
        sink, end = await self.ask(INITIALIZE)
        assert end == exchange.Complete()
        return dict(sink.headers)[b"mcp-session-id"]


def messages(sink):
    assert dict(sink.headers)[b"content-type"] == b"text/event-stream"
    events = [each for each in sink.body.split(b"\n\n") if each]
    return [json.loads(each.partition(b"data: ")[2]) for each in events]


def run(scenario, server=None):
    async def main():
        async with sse.serving(server or sse.Server()) as served, flights.way_out() as out:
            clock = asyncio.get_running_loop().time
            made = ssetransport.EitherTransport(out, clock=clock, entropy=os.urandom)
            await scenario(World(made, served))
            await made.close()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_the_handshake_opens_a_session_whose_id_is_ours():
    async def scenario(world):
        sink, end = await world.ask(INITIALIZE)
        assert (sink.status, end) == (200, exchange.Complete())
        assert messages(sink) == [{"jsonrpc": "2.0", "id": 1, "result": {"was": "initialize"}}]
        session = dict(sink.headers)[b"mcp-session-id"]
        (get, post) = world.server.served.seen
        assert (get.verb, get.target, get.headers["accept"]) == ("GET", "/sse", "text/event-stream")
        assert (post.verb, post.target) == ("POST", "/messages?session_id=abc")
        assert get.headers["authorization"] == post.headers["authorization"] == flights.CANARY.decode()
        later, end = await world.ask({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}, session=session)
        assert messages(later)[0]["result"] == {"was": "tools/list"}
        assert "mcp-session-id" not in world.server.posts[-1].headers
        assert world.server.streams == 1

    run(scenario)


def test_a_notification_is_over_when_it_was_accepted():
    async def scenario(world):
        session = await world.session()
        note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        sink, end = await world.ask(note, session=session)
        assert (sink.status, sink.body, end) == (200, b"", exchange.Complete())
        assert world.server.posted[-1] == note

    run(scenario)


def test_what_is_asked_without_a_session_is_not_sent():
    async def scenario(world):
        discover = {"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {}}
        sink, end = await world.ask(discover)
        assert (sink.status, end, world.server.served.seen) == (405, exchange.Complete(), [])

    run(scenario)


def test_a_session_of_nobody_or_of_another_server_is_unknown():
    async def scenario(world):
        session = await world.session()
        call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call"}
        assert (await world.ask(call, session=b"made-up"))[0].status == 404
        world.to = flights.permit(world.server.url + "2", transport="SSE")
        assert (await world.ask(call, session=session))[0].status == 404
        assert len(world.server.posted) == 1

    run(scenario)


def test_a_session_ends_with_delete_and_the_server_learns_it():
    async def scenario(world):
        session = await world.session()
        sink, _ = await world.ask(None, session=session, method="DELETE")
        assert sink.status == 200
        assert len(world.transport) == 0
        assert (await world.ask({"jsonrpc": "2.0", "id": 2, "method": "ping"}, session=session))[
            0
        ].status == 404
        assert len(world.server.served.seen) == 2  # no DELETE goes to such a server: its stream has ended

    run(scenario)


def test_a_stream_that_the_server_ended_is_an_unknown_session():
    async def scenario(world):
        session = await world.session()
        world.server.hang_up()
        while len(world.transport):
            await asyncio.sleep(0.005)
        assert (await world.ask({"jsonrpc": "2.0", "id": 2, "method": "ping"}, session=session))[
            0
        ].status == 404

    run(scenario)


def test_the_session_unused_for_longest_makes_room(monkeypatch):
    monkeypatch.setattr(ssetransport, "LINES_MAX", 2)

    async def scenario(world):
        first, second = await world.session(), await world.session()
        call = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
        assert (await world.ask(call, session=first))[0].status == 200
        await world.session()
        assert (await world.ask(call, session=second))[0].status == 404
        assert (await world.ask(call, session=first))[0].status == 200

    run_many(scenario)


def run_many(scenario):
    """As `run`, with a server whose every stream has a place and answers of its own."""

    class Many(sse.Server):
        async def act(self, line, seen):
            if seen.verb == "GET":
                self.streams += 1
                queue = self.queues[str(self.streams)] = asyncio.Queue()
                await line.event(f"/m/{self.streams}", event="endpoint")
                gone = asyncio.ensure_future(line.until_gone())
                while not gone.done():
                    saying = asyncio.ensure_future(queue.get())
                    await asyncio.wait((saying, gone), return_when=asyncio.FIRST_COMPLETED)
                    if saying.done():
                        await line.event(saying.result(), event="message")
                return
            body = json.loads(seen.body)
            await line.status(202)
            answered = {"jsonrpc": "2.0", "id": body["id"], "result": {}}
            self.queues[seen.target.rpartition("/")[2]].put_nowait(json.dumps(answered))

    server = Many()
    server.queues = {}
    run(scenario, server)


@pytest.mark.parametrize("status", [401, 404, 500])
def test_a_stream_that_is_not_to_be_had_answers_the_handshake_with_its_status(status):
    class Refusing(sse.Server):
        async def act(self, line, seen):
            await line.status(status, b"no")

    async def scenario(world):
        sink, end = await world.ask(INITIALIZE)
        assert (sink.status, end) == (status, exchange.Complete())
        assert [seen.verb for seen in world.server.served.seen] == ["GET"]
        assert len(world.transport) == 0

    run(scenario, Refusing())


def test_servers_of_streamable_http_are_passed_straight_on():
    async def main():
        async with upstreams.running("json") as served, flights.way_out() as out:
            clock = asyncio.get_running_loop().time
            made = ssetransport.EitherTransport(out, clock=clock, entropy=os.urandom)
            sink = flights.Sink()
            flights.send(made, flights.permit(served.url), sink)
            assert await sink.end() == exchange.Complete()
            assert sink.body == upstreams.JSON
            assert len(made) == 0

    asyncio.run(main())


def test_closing_ends_every_stream_and_every_wait():
    async def silent(server, message):
        if message["method"] == "initialize":
            await sse.at_once(server, message)

    async def scenario(world):
        session = await world.session()
        waiting = world.send({"jsonrpc": "2.0", "id": 2, "method": "tools/call"}, session=session)
        while len(world.server.posted) < 2:
            await asyncio.sleep(0.005)
        await world.transport.close()
        end = await waiting.end()
        assert end.sent is exchange.Sent.MAYBE_SENT
        assert len(world.transport) == 0

    run(scenario, sse.Server(silent))
