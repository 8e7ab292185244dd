# SPDX-License-Identifier: Apache-2.0
"""The way out against servers that hang, lie, break off and never end, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import tracemalloc

import pytest
from tests.servers import flights, upstreams

from outrider import decision
from outrider_sidecar import exchange, upstream

R = decision.Reason
NOT_SENT, MAYBE_SENT = exchange.Sent.NOT_SENT, exchange.Sent.MAYBE_SENT


def test_an_answer_arrives_with_status_headers_and_body_as_sent():
    sink, end, _ = flights.one("json")
    assert (end, sink.status, sink.body) == (exchange.Complete(), 200, upstreams.JSON)
    assert sink.headers[1:] == (
        (b"content-type", b"application/json"), (b"x-dup", b"a"), (b"x-dup", b"b"),
    )  # fmt: skip


def test_the_request_holds_exactly_the_given_headers_and_the_framing():
    async def main():
        async with upstreams.running("json") as served, flights.way_out() as out:
            sink = flights.Sink()
            to = flights.permit(
                served.url + "/a%2Fb?q=%7e", headers=(("X-Region", "eu"), ("Content-Type", "text/evil"))
            )
            head = (
                *flights.HEAD,
                (b"authorization", b"agent's own"),
                (b"host", b"evil"),
                (b"accept-encoding", b"gzip"),
            )
            flights.send(out, to, sink, head=head)
            assert await sink.end() == exchange.Complete()
            return served

    served = asyncio.run(main())
    head, _, body = served.requests[0].partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    assert line == b"POST /mcp/a%2Fb?q=%7e HTTP/1.1"
    assert body == b'{"a":1}'
    assert sorted(header.lower() for header in headers) == sorted(
        [
            b"host: 127.0.0.1:%d" % served.port,
            b"content-type: application/json",
            b"accept: application/json, text/event-stream",
            b"authorization: " + flights.CANARY.lower(),
            b"x-region: eu",
            b"accept-encoding: identity",
            b"content-length: 7",
        ]
    )


FAILURES = [
    ("hang", R.UPSTREAM_TIMEOUT, 0.2),
    ("slow_head", R.UPSTREAM_TIMEOUT, 0.3),
    ("endless", R.UPSTREAM_TIMEOUT, 0.3),
    ("half_close", R.UPSTREAM_PROTOCOL_ERROR, 5),
    ("half_chunk", R.UPSTREAM_PROTOCOL_ERROR, 5),
    ("garbage", R.UPSTREAM_PROTOCOL_ERROR, 5),
    ("reset", R.UPSTREAM_PROTOCOL_ERROR, 5),
    ("ambiguous", R.UPSTREAM_PROTOCOL_ERROR, 5),
    ("two_lengths", R.UPSTREAM_PROTOCOL_ERROR, 5),
    ("upgrade", R.UPSTREAM_PROTOCOL_ERROR, 5),
    ("big_head", R.UPSTREAM_PROTOCOL_ERROR, 5),
    ("bomb", R.UPSTREAM_PROTOCOL_ERROR, 5),
    ("huge", R.UPSTREAM_TOO_LARGE, 5),
    ("announced", R.UPSTREAM_TOO_LARGE, 5),
    ("redirect", R.UPSTREAM_REDIRECTS, 5),
]


@pytest.mark.parametrize(("name", "reason", "seconds"), FAILURES)
def test_a_misbehaving_server_is_one_clean_failure_and_its_connection_is_closed(
    name, reason, seconds, caplog
):
    with caplog.at_level(logging.DEBUG):
        _, end, served = flights.one(name, seconds=seconds)
    assert (end.reason, end.sent) == (reason, MAYBE_SENT)
    assert len(served.requests) == served.connections == 1
    assert b"canary" not in end.detail.encode()
    assert "canary" not in caplog.text
    assert "hunter2" not in end.detail


def test_a_redirect_is_told_by_its_path_only():
    _, end, _ = flights.one("redirect")
    assert end.detail == "status 307 to path '/else/where'"


def test_an_answer_without_end_stops_at_the_byte_cap():
    sink, end, _ = flights.one("huge", result_bytes_max=1_000_000)
    assert end.reason is R.UPSTREAM_TOO_LARGE
    assert len(sink.body) <= 1_000_000 + upstream.ENVELOPE_BYTES


def test_a_compressed_bomb_is_refused_without_being_inflated():
    tracemalloc.start()
    try:
        sink, end, _ = flights.one("bomb")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert end.reason is R.UPSTREAM_PROTOCOL_ERROR
    assert sink.body == b""
    assert peak < 16 * 1024 * 1024


def test_a_body_that_ends_with_its_connection_is_complete():
    sink, end, _ = flights.one("until_close")
    assert (end, sink.body) == (exchange.Complete(), upstreams.JSON)


def test_an_answer_before_the_body_was_read_is_delivered():
    sink, _, served = flights.one("early", body=b"x" * 4_000_000)
    assert sink.status == 413
    assert len(served.requests) == 1


def test_a_body_of_megabytes_goes_out_whole():
    _, end, served = flights.one("json", body=b"y" * 3_000_000)
    assert end == exchange.Complete()
    assert served.requests[0].endswith(b"\r\n\r\n" + b"y" * 3_000_000)


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
def test_a_stale_pooled_connection_is_maybe_sent_and_nothing_is_repeated(method):
    async def main():
        async with upstreams.running("stale") as served, flights.way_out() as out:
            first, second = flights.Sink(), flights.Sink()
            before = "GET" if method == "GET" else "POST"  # connections of GETs are theirs alone
            flights.send(out, flights.permit(served.url), first, method=before)
            assert await first.end() == exchange.Complete()
            flights.send(out, flights.permit(served.url), second, method=method, body=b"")
            return await second.end(), served

    end, served = asyncio.run(main())
    assert (end.reason, end.sent) == (R.UPSTREAM_PROTOCOL_ERROR, MAYBE_SENT)
    assert (served.connections, len(served.requests)) == (1, 2)


def test_nothing_listening_is_unreachable_and_not_sent():
    async def main():
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            async with flights.way_out() as out:
                sink = flights.Sink()
                flights.send(out, flights.permit(f"http://127.0.0.1:{unused.getsockname()[1]}/"), sink)
                return await sink.end()

    end = asyncio.run(main())
    assert (end.reason, end.sent) == (R.UPSTREAM_UNREACHABLE, NOT_SENT)
    assert "ECONNREFUSED" in end.detail


def test_a_name_that_does_not_resolve_is_unreachable_and_not_sent():
    async def main():
        async with flights.way_out() as out:
            sink = flights.Sink()
            flights.send(out, flights.permit("http://nobody.invalid/mcp"), sink)
            return await sink.end()

    end = asyncio.run(main())
    assert (end.reason, end.sent) == (R.UPSTREAM_UNREACHABLE, NOT_SENT)


@contextlib.contextmanager
def deaf():
    """A port that takes no connection: its backlog is full."""
    with socket.socket() as server, contextlib.ExitStack() as stack:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


@pytest.mark.parametrize(
    ("connect", "total", "reason"),
    [(0.1, 5.0, R.UPSTREAM_UNREACHABLE), (5.0, 0.1, R.UPSTREAM_TIMEOUT)],
)
def test_a_connection_that_does_not_come_about_was_not_sent(connect, total, reason):
    async def main():
        with deaf() as url:
            async with flights.way_out() as out:
                sink = flights.Sink()
                flights.send(out, flights.permit(url, connect_seconds=connect), sink, seconds=total)
                return await sink.end()

    end = asyncio.run(main())
    assert (end.reason, end.sent) == (reason, NOT_SENT)


def test_cancel_closes_the_connection_and_done_follows_once():
    async def main():
        async with upstreams.running("hang") as served, flights.way_out() as out:
            sink = flights.Sink()
            flight = flights.send(out, flights.permit(served.url), sink)
            await served.seen.wait()
            flight.cancel()
            assert sink.ends == []
            flight.cancel()
            end = await sink.end()
            await asyncio.wait_for(served.left.wait(), 10)
            flight.cancel()
            return end

    end = asyncio.run(main())
    assert (end.reason, end.sent) == (R.CANCELLED, MAYBE_SENT)


def test_cancel_in_the_middle_of_an_answer_ends_it():
    async def main():
        async with upstreams.running("endless") as served, flights.way_out() as out:
            sink = flights.Sink()
            flight = flights.send(out, flights.permit(served.url), sink)
            await sink.some.wait()
            flight.cancel()
            end = await sink.end()
            await asyncio.wait_for(served.left.wait(), 10)
            return end

    end = asyncio.run(main())
    assert (end.reason, end.sent) == (R.CANCELLED, MAYBE_SENT)


def test_cancel_right_after_send_is_not_sent_and_done_follows():
    async def main():
        async with upstreams.running("json") as served, flights.way_out() as out:
            sink = flights.Sink()
            flights.send(out, flights.permit(served.url), sink).cancel()
            return await sink.end(), served

    end, served = asyncio.run(main())
    assert (end.reason, end.sent, served.requests) == (R.CANCELLED, NOT_SENT, [])


def test_a_sink_without_room_stops_the_server_and_resume_loses_nothing():
    async def main():
        async with upstreams.running("counted") as served, flights.way_out() as out:
            sink = flights.Sink(greedy=False)
            flight = flights.send(out, flights.permit(served.url, result_bytes_max=16_000_000), sink)
            await sink.some.wait()
            held = len(sink.body)
            await asyncio.sleep(0.2)  # time in which it must not go on
            assert len(sink.body) == held
            assert held < 1_000_000
            assert served.sent_bytes == 0
            resumed = 0
            while not sink.ends:
                sink.some.clear()
                flight.resume()
                resumed += 1
                waits = [asyncio.ensure_future(event.wait()) for event in (sink.some, sink.ended)]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                for wait in waits:
                    wait.cancel()
            return sink, await sink.end(), resumed

    sink, end, resumed = asyncio.run(main())
    assert end == exchange.Complete()
    assert resumed > 10
    assert sink.body == b"".join(b"%07d\n" % number for number in range(1_000_000))


def test_the_deadline_holds_while_paused():
    async def main():
        async with upstreams.running("counted") as served, flights.way_out() as out:
            sink = flights.Sink(greedy=False)
            flights.send(out, flights.permit(served.url, result_bytes_max=16_000_000), sink, seconds=0.3)
            return await sink.end()

    assert asyncio.run(main()).reason is R.UPSTREAM_TIMEOUT


def test_a_resume_from_within_data_is_not_lost():
    async def main():
        async with upstreams.running("json") as served, flights.way_out() as out:
            sink = flights.Sink(greedy=False)
            flight = None
            plain = sink.data

            def data(chunk):
                flight.resume()
                return plain(chunk)

            sink.data = data
            flight = flights.send(out, flights.permit(served.url), sink)
            return await sink.end()

    assert asyncio.run(main()) == exchange.Complete()


def test_a_sink_that_raises_ends_its_flight_as_internal_without_its_text():
    async def main():
        async with upstreams.running("json") as served, flights.way_out() as out:
            sink = flights.Sink()

            def head(_status, _headers):
                raise KeyError("canary")

            sink.head = head
            flights.send(out, flights.permit(served.url), sink)
            return await sink.end()

    end = asyncio.run(main())
    assert (end.reason, end.sent, end.detail) == (R.INTERNAL, MAYBE_SENT, "KeyError")


BAD_HEADERS = [
    ((), ((b"authorization", b"a\r\nx-evil: 1"),), R.CREDENTIAL_MALFORMED),
    ((), ((b"authorization", b"canary\x00"),), R.CREDENTIAL_MALFORMED),
    ((), ((b"authorization", b"\xff\xfe"),), R.CREDENTIAL_MALFORMED),
    ((), ((b"host", b"else.where"),), R.CREDENTIAL_MALFORMED),
    (((b"bad name", b"x"),), (), R.INTERNAL),
    (((b"x-a", b"line\nend"),), (), R.INTERNAL),
]


@pytest.mark.parametrize(("head", "lent", "reason"), BAD_HEADERS)
def test_a_header_that_cannot_be_sent_is_refused_before_anything_leaves(head, lent, reason):
    async def main():
        async with upstreams.running("json") as served, flights.way_out() as out:
            sink = flights.Sink()
            flights.send(out, flights.permit(served.url), sink, head=head, lent=exchange.Lent(lent))
            return await sink.end(), served

    end, served = asyncio.run(main())
    assert (end.reason, end.sent, served.connections) == (reason, NOT_SENT, 0)
    assert "canary" not in end.detail


def test_close_ends_every_flight_and_later_ones_at_once():
    async def main():
        async with upstreams.running("hang") as served:
            out = upstream.AiohttpUpstream(asyncio.get_running_loop(), network=lambda: flights.LAPTOP)
            under_way, late = flights.Sink(), flights.Sink()
            flights.send(out, flights.permit(served.url), under_way)
            await served.seen.wait()
            await out.close()
            assert len(under_way.ends) == 1
            flights.send(out, flights.permit(served.url), late)
            return under_way.ends[0], await late.end()

    under_way, late = asyncio.run(main())
    assert (under_way.reason, under_way.sent) == (R.CANCELLED, MAYBE_SENT)
    assert (late.reason, late.sent) == (R.CANCELLED, NOT_SENT)


def test_a_server_in_a_thread_of_its_own_is_called_as_well():
    async def main(url):
        async with flights.way_out() as out:
            sink = flights.Sink()
            flights.send(out, flights.permit(url), sink)
            return await sink.end()

    with upstreams.in_thread("json") as served:
        assert asyncio.run(main(served.url)) == exchange.Complete()
    assert len(served.requests) == 1
