# SPDX-License-Identifier: Apache-2.0
"""Answers that come in instalments: a server that closes its stream to be polled, and what can go wrong between two of them."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.servers import flights, instalments

from outrider import decision
from outrider_sidecar import exchange, legs, polling, reading

R = decision.Reason


def asked(act, *, seconds=5.0, cancel_when=None, session=b"s1"):
    """One call to a server that answers as `act` says: (messages heard, how it ended, what the server saw)."""

    async def main():
        async with instalments.serving(act) as served, flights.way_out() as out:
            heard, ended = [], asyncio.get_running_loop().create_future()

            def said(message):
                heard.append(message)
                if message.method == "":
                    into.linger()
                return True

            into = reading.Reading(result_bytes_max=100_000, on_message=said, on_end=ended.set_result)
            loop = asyncio.get_running_loop()
            to = legs.Session("k", session, "2025-11-25")
            way = polling.Way(out, flights.permit(served.url), flights.LENT, to, loop.time)
            flight = polling.send(way, flights.HEAD, b'{"id":7}', into, deadline=loop.time() + seconds)
            into.flight = flight
            if cancel_when is not None:
                await cancel_when(served)
                flight.cancel()
                flight.cancel()
            async with asyncio.timeout(10):
                return heard, await ended, served

    return asyncio.run(main())


def result(**value):
    return json.dumps({"jsonrpc": "2.0", "id": 7, "result": value})


def test_a_stream_that_the_server_closed_is_taken_up_until_the_answer_is_there():
    async def act(line, seen):
        if seen.verb == "POST":
            await line.event("", id="a1", retry=10)
            await line.event('{"jsonrpc":"2.0","method":"notifications/progress","params":{}}', id="a2")
        elif seen.headers["last-event-id"] == "a2":
            await line.event("", id="a3")
        else:
            await line.event(result(done=True), id="a4")

    heard, failed, served = asked(act)
    assert failed is None
    assert [each.method for each in heard] == ["notifications/progress", ""]
    assert json.loads(heard[-1].payload) == {"done": True}
    assert [(seen.verb, seen.headers.get("last-event-id")) for seen in served.seen] == [
        ("POST", None), ("GET", "a2"), ("GET", "a3"),
    ]  # fmt: skip
    later = served.seen[1].headers
    assert later["mcp-session-id"] == "s1"
    assert later["mcp-protocol-version"] == "2025-11-25"
    assert later["authorization"] == flights.CANARY.decode()
    assert later["accept"] == "text/event-stream"


def test_a_connection_that_breaks_is_taken_up_and_the_request_is_not_repeated():
    async def act(line, seen):
        if seen.verb == "POST":
            await line.event("", id="a1", retry=10)
            raise ConnectionResetError
        await line.event(result(n=1), id="a2")

    heard, failed, served = asked(act)
    assert failed is None
    assert len(heard) == 1
    assert [seen.verb for seen in served.seen] == ["POST", "GET"]


def test_without_event_ids_a_stream_that_ends_early_has_failed_at_once():
    async def act(line, seen):
        await line.event('{"jsonrpc":"2.0","method":"notifications/progress","params":{}}')

    heard, failed, served = asked(act)
    assert failed is None  # it ended in order; that it holds no answer is for whoever asked to see
    assert [each.method for each in heard] == ["notifications/progress"]
    assert len(served.seen) == 1


def test_a_server_that_keeps_no_sessions_cannot_be_polled():
    async def act(line, seen):
        await line.event("", id="a1", retry=10)

    _, failed, served = asked(act, session=None)
    assert failed is None
    assert len(served.seen) == 1


@pytest.mark.parametrize("status", [404, 405, 500])
def test_a_rest_that_is_not_to_be_had_is_a_failure_of_a_request_that_was_sent(status):
    async def act(line, seen):
        if seen.verb == "POST":
            await line.event("", id="a1", retry=10)
        else:
            await line.status(status)

    _, failed, served = asked(act)
    assert (failed.reason, failed.sent) == (R.UPSTREAM_PROTOCOL_ERROR, exchange.Sent.MAYBE_SENT)
    assert str(status) in failed.detail
    assert len(served.seen) == 2


def test_a_pause_beyond_the_deadline_is_not_waited_for():
    async def act(line, seen):
        await line.event("", id="a1", retry=60_000)

    _, failed, served = asked(act)
    assert (failed.reason, failed.sent) == (R.UPSTREAM_TIMEOUT, exchange.Sent.MAYBE_SENT)
    assert len(served.seen) == 1


def test_a_server_that_never_answers_is_polled_until_the_deadline_only():
    async def act(line, seen):
        await line.event("", id=f"a{len(line.served.seen)}", retry=0)

    _, failed, served = asked(act, seconds=0.5)
    assert (failed.reason, failed.sent) == (R.UPSTREAM_TIMEOUT, exchange.Sent.MAYBE_SENT)
    assert 2 <= len(served.seen) <= 1 + 0.5 / polling.RETRY_SECONDS_MIN


def test_giving_up_between_two_streams_ends_it_once():
    async def act(line, seen):
        await line.event("", id="a1", retry=2_000)

    async def closed(served):
        await served.over.wait()
        await asyncio.sleep(0.05)  # the end has to have arrived: nothing tells of it

    _, failed, served = asked(act, cancel_when=closed)
    assert (failed.reason, failed.sent) == (R.CANCELLED, exchange.Sent.MAYBE_SENT)
    assert len(served.seen) == 1


def test_giving_up_during_a_later_stream_ends_it_once():
    async def act(line, seen):
        await line.event("", id="a1", retry=10)
        if seen.verb == "GET":
            await line.until_gone()

    async def polled(served):
        while len(served.seen) < 2:
            await asyncio.sleep(0.01)

    _, failed, _ = asked(act, cancel_when=polled)
    assert (failed.reason, failed.sent) == (R.CANCELLED, exchange.Sent.MAYBE_SENT)


def test_what_the_streams_hold_in_all_is_bounded():
    async def act(line, seen):
        await line.event("x" * 90_000, id="a1", retry=0, event="heartbeat")

    _, failed, _ = asked(act)
    assert failed.reason is R.UPSTREAM_TOO_LARGE
