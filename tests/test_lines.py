# SPDX-License-Identifier: Apache-2.0
"""One stream for many messages: whose each is, where to post, and what a server can do wrong on it."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.servers import flights, sse
from tests.test_ssetransport import INITIALIZE, messages, run

from outrider import decision
from outrider_sidecar import exchange, lines

R = decision.Reason
NOT_SENT, MAYBE_SENT = exchange.Sent.NOT_SENT, exchange.Sent.MAYBE_SENT


async def greets(server, message):
    """Answers the handshake and nothing else."""
    if message.get("method") == "initialize":
        await sse.at_once(server, message)


def call(id_):
    return {"jsonrpc": "2.0", "id": id_, "method": "tools/call", "params": {}}


def note(method, **params):
    return {"jsonrpc": "2.0", "method": method, "params": params}


async def until(true):
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.005)


async def calling(world, *ids):
    """A session with calls under way, each of which the server has."""
    session = await world.session()
    sinks = [world.send(call(id_), session=session) for id_ in ids]
    await until(lambda: len(world.server.posted) == 1 + len(ids))
    return session, sinks


# Whose a message is -----------------------------------------------------------------------------------------------------


def test_answers_go_to_the_call_with_their_id_in_whatever_order():
    async def scenario(world):
        _, (first, second) = await calling(world, 2, 3)
        world.server.say({"jsonrpc": "2.0", "id": 3, "result": {"n": 3}})
        world.server.say({"jsonrpc": "2.0", "id": 2, "error": {"code": -1, "message": "no"}})
        assert (await second.end(), await first.end()) == (exchange.Complete(), exchange.Complete())
        assert messages(first) == [{"jsonrpc": "2.0", "id": 2, "error": {"code": -1, "message": "no"}}]
        assert messages(second) == [{"jsonrpc": "2.0", "id": 3, "result": {"n": 3}}]

    run(scenario, sse.Server(greets))


def test_an_answer_to_nothing_is_dropped():
    async def scenario(world):
        _, (sink,) = await calling(world, 2)
        for id_ in ("2", 99, None, [2], True):
            world.server.say({"jsonrpc": "2.0", "id": id_, "result": {"not": "yours"}})
        world.server.say({"jsonrpc": "2.0", "id": 2, "result": {}})
        await sink.end()
        assert messages(sink) == [{"jsonrpc": "2.0", "id": 2, "result": {}}]

    run(scenario, sse.Server(greets))


def test_progress_goes_to_the_call_whose_token_it_carries():
    async def scenario(world):
        _, sinks = await calling(world, 2, 3)
        told = [note("notifications/progress", progressToken=token, progress=1) for token in (3, 2, 99)]
        for each in told:
            world.server.say(each)
        for id_ in (2, 3):
            world.server.say({"jsonrpc": "2.0", "id": id_, "result": {}})
        ends = [await sink.end() for sink in sinks]
        assert ends == [exchange.Complete()] * 2
        assert messages(sinks[0])[:-1] == [told[1]]
        assert messages(sinks[1])[:-1] == [told[0]]

    run(scenario, sse.Server(greets))


def test_what_is_said_or_asked_during_the_only_call_belongs_to_it():
    async def scenario(world):
        session, (sink,) = await calling(world, 2)
        asks = {"jsonrpc": "2.0", "id": "s1", "method": "elicitation/create", "params": {}}
        log = note("notifications/message", level="info", data="x")
        world.server.say(asks)
        world.server.say(log)
        await until(lambda: b"notifications/message" in sink.body)
        answer = {"jsonrpc": "2.0", "id": "s1", "result": {"action": "decline"}}
        told, end = await world.ask(answer, session=session)
        assert (told.status, end) == (200, exchange.Complete())
        assert world.server.posted[-1] == answer
        world.server.say({"jsonrpc": "2.0", "id": 2, "result": {}})
        await sink.end()
        assert messages(sink)[:-1] == [asks, log]

    run(scenario, sse.Server(greets))


def test_changes_go_to_whoever_follows_the_session_and_never_to_a_call():
    async def scenario(world):
        session, (sink,) = await calling(world, 2)
        follower = world.send(None, session=session, method="GET")
        changes = [
            note("notifications/tools/list_changed"),
            note("notifications/resources/updated", uri="a:b"),
        ]
        for each in changes:
            world.server.say(each)
        await until(lambda: b"updated" in follower.body)
        assert messages(follower) == changes
        assert follower.status == 200
        newest = world.send(None, session=session, method="GET")
        assert await follower.end() == exchange.Complete()
        world.server.say(changes[0])
        await until(lambda: newest.body)
        assert sink.body == b""
        newest.flight.cancel()
        assert (await newest.end()).reason is R.CANCELLED

    run(scenario, sse.Server(greets))


def test_a_question_during_several_calls_goes_to_the_follower_or_else_to_the_latest():
    async def scenario(world):
        session, (first, second) = await calling(world, 2, 3)
        asks = {"jsonrpc": "2.0", "id": 1, "method": "roots/list"}
        world.server.say(asks)
        await until(lambda: second.body)
        assert (first.body, messages(second)) == (b"", [asks])
        follower = world.send(None, session=session, method="GET")
        await follower.started.wait()
        world.server.say(asks)
        await until(lambda: follower.body)
        assert first.body == b""

    run(scenario, sse.Server(greets))


def test_a_ping_is_answered_here_and_a_question_for_nobody_with_an_error():
    async def scenario(world):
        await world.session()
        world.server.say({"jsonrpc": "2.0", "id": 7, "method": "ping"})
        world.server.say({"jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage", "params": {}})
        await until(lambda: len(world.server.posted) == 3)
        told = {each["id"]: each for each in world.server.posted[1:]}
        assert told[7] == {"jsonrpc": "2.0", "id": 7, "result": {}}
        assert told["q"]["error"]["code"] == -32601

    run(scenario, sse.Server(greets))


# Where to post ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "posted"),
    [
        ("/messages?session_id=1", "/messages?session_id=1"),
        ("messages?session_id=1", "/messages?session_id=1"),
        ("?session_id=1", "/sse?session_id=1"),
        ("http://127.0.0.1:{port}/deep/er?x=%2F#part", "/deep/er?x=%2F"),
        ("//127.0.0.1:{port}/m", "/m"),
    ],
)
def test_a_place_is_read_as_a_browser_would(says, posted):
    class Placed(sse.Server):
        async def act(self, line, seen):
            self.place = says.format(port=self.served.port)
            await super().act(line, seen)

    async def scenario(world):
        await world.session()
        assert [seen.target for seen in world.server.posts] == [posted]

    run(scenario, Placed())


@pytest.mark.parametrize(
    "place",
    [
        "http://elsewhere.example/m", "https://127.0.0.1:{port}/m", "//elsewhere.example/m", "http://127.0.0.1:1/m",
        "http://u:p@127.0.0.1:{port}/m", "file:///etc/passwd", "/a b", "/é", "/" + "a" * 3000, "http://[/",
    ],
)  # fmt: skip
def test_a_place_at_another_origin_is_refused_and_nothing_is_posted(place):
    class Placed(sse.Server):
        async def act(self, line, seen):
            self.place = place.format(port=self.served.port)
            await super().act(line, seen)

    async def scenario(world):
        _, end = await world.ask(INITIALIZE)
        assert (end.reason, end.sent) == (R.UPSTREAM_ADDRESS_REFUSED, NOT_SENT)
        assert world.server.posts == []
        assert len(world.transport) == 0

    run(scenario, Placed())


def test_only_the_first_place_counts():
    async def scenario(world):
        session = await world.session()
        await world.ask({"jsonrpc": "2.0", "id": 2, "method": "ping"}, session=session)
        assert {seen.target for seen in world.server.posts} == {"/messages?session_id=abc"}

    class Twice(sse.Server):
        async def act(self, line, seen):
            if seen.verb == "GET":
                await line.event(self.place, event="endpoint")
                self.place = "/elsewhere"
            await super().act(line, seen)

    run(scenario, Twice())


# What can go wrong ------------------------------------------------------------------------------------------------------


def test_a_stream_that_never_says_where_to_post_times_out_unsent():
    async def scenario(world):
        _, end = await world.ask(INITIALIZE, seconds=0.2)
        assert (end.reason, end.sent) == (R.UPSTREAM_TIMEOUT, NOT_SENT)

    run(scenario, sse.Server(place=""))


def test_a_call_without_an_answer_times_out_as_sent_and_the_session_goes_on():
    async def scenario(world):
        session = await world.session()
        _, end = await world.ask(call(2), session=session, seconds=0.2)
        assert (end.reason, end.sent) == (R.UPSTREAM_TIMEOUT, MAYBE_SENT)
        world.server.answer = sse.at_once
        world.server.say({"jsonrpc": "2.0", "id": 2, "result": {"late": True}})
        sink, end = await world.ask(call(3), session=session)
        assert (end, messages(sink)[0]["id"]) == (exchange.Complete(), 3)

    run(scenario, sse.Server(greets))


def test_a_stream_that_ends_fails_the_calls_it_owes_an_answer():
    async def scenario(world):
        _, sinks = await calling(world, 2, 3)
        world.server.hang_up()
        ends = [await sink.end() for sink in sinks]
        assert {(end.reason, end.sent) for end in ends} == {(R.UPSTREAM_PROTOCOL_ERROR, MAYBE_SENT)}
        assert len(world.transport) == 0

    run(scenario, sse.Server(greets))


@pytest.mark.parametrize(
    ("said", "reason"),
    [('{"jsonrpc":', R.UPSTREAM_PROTOCOL_ERROR), ("x" * 200_000, R.UPSTREAM_TOO_LARGE)],
)
def test_what_cannot_be_read_ends_the_stream(said, reason):
    async def scenario(world):
        world.to = flights.permit(world.server.url, transport="SSE", result_bytes_max=100_000)
        _, (sink,) = await calling(world, 2)
        world.server.say(said)
        end = await sink.end()
        assert (end.reason, end.sent) == (reason, MAYBE_SENT)

    run(scenario, sse.Server(greets))


def test_a_message_that_is_refused_where_it_is_posted_has_that_answer():
    async def scenario(world):
        session = await world.session()
        world.server.accepts = 400
        sink, end = await world.ask(call(2), session=session)
        assert (sink.status, sink.body, end) == (400, b"Accepted", exchange.Complete())
        assert len(world.transport) == 1
        world.server.accepts = 404
        assert (await world.ask(call(3), session=session))[0].status == 404
        assert len(world.transport) == 0  # the server does not know the session any more

    run(scenario, sse.Server(greets))


def test_a_session_that_nobody_uses_ends():
    async def scenario(world):
        world.to = flights.permit(world.server.url, transport="SSE", stream_seconds=0.1)
        await world.session()
        await until(lambda: not len(world.transport))

    run(scenario)


def test_a_stream_that_carried_much_is_replaced_when_nobody_waits_on_it(monkeypatch):
    monkeypatch.setattr(lines, "_BYTES_TIMES", 0)

    async def scenario(world):
        session = await world.session()
        assert (await world.ask(call(2), session=session))[0].status == 404

    run(scenario)


def test_more_messages_than_may_wait_are_refused_unsent(monkeypatch):
    monkeypatch.setattr(lines, "WAITING_MAX", 2)

    async def scenario(world):
        session, _ = await calling(world, 2, 3)
        _, end = await world.ask(call(4), session=session)
        assert (end.reason, end.sent) == (R.OVERLOADED, NOT_SENT)
        assert len(world.server.posted) == 3

    run(scenario, sse.Server(greets))


def test_giving_up_ends_one_call_and_nothing_else():
    async def scenario(world):
        _, (first, second) = await calling(world, 2, 3)
        first.flight.cancel()
        end = await first.end()
        assert (end.reason, end.sent) == (R.CANCELLED, MAYBE_SENT)
        world.server.say({"jsonrpc": "2.0", "id": 2, "result": {}})
        world.server.say(json.dumps({"jsonrpc": "2.0", "id": 3, "result": {}}))
        assert await second.end() == exchange.Complete()

    run(scenario, sse.Server(greets))
