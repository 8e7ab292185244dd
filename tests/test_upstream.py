# SPDX-License-Identifier: Apache-2.0
"""The way out against servers that hang, lie, break off and never end, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import logging
import socket
import ssl
import tracemalloc

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import oid
from tests.servers import upstreams

from outrider import call, decision, names, snapshot
from outrider_sidecar import exchange, upstream

CANARY = b"Bearer canary-5f2d9c"
LENT = exchange.Lent(((b"authorization", CANARY),))
HEAD = ((b"content-type", b"application/json"), (b"accept", b"application/json, text/event-stream"))
LAPTOP = snapshot.Network(loopback=True)
R = decision.Reason
NOT_SENT, MAYBE_SENT = exchange.Sent.NOT_SENT, exchange.Sent.MAYBE_SENT


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


def test_an_answer_arrives_with_status_headers_and_body_as_sent():
    sink, end, _ = one("json")
    assert (end, sink.status, sink.body) == (exchange.Complete(), 200, upstreams.JSON)
    assert sink.headers[1:] == (
        (b"content-type", b"application/json"), (b"x-dup", b"a"), (b"x-dup", b"b"),
    )  # fmt: skip


def test_the_request_holds_exactly_the_given_headers_and_the_framing():
    async def main():
        async with upstreams.running("json") as served, way_out() as out:
            sink = Sink()
            to = permit(
                served.url + "/a%2Fb?q=%7e", headers=(("X-Region", "eu"), ("Content-Type", "text/evil"))
            )
            head = (
                *HEAD,
                (b"authorization", b"agent's own"),
                (b"host", b"evil"),
                (b"accept-encoding", b"gzip"),
            )
            send(out, to, sink, head=head)
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
            b"authorization: " + CANARY.lower(),
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
        _, end, served = one(name, seconds=seconds)
    assert (end.reason, end.sent) == (reason, MAYBE_SENT)
    assert len(served.requests) == served.connections == 1
    assert b"canary" not in end.detail.encode()
    assert "canary" not in caplog.text
    assert "hunter2" not in end.detail


def test_a_redirect_is_told_by_its_path_only():
    _, end, _ = one("redirect")
    assert end.detail == "status 307 to path '/else/where'"


def test_an_answer_without_end_stops_at_the_byte_cap():
    sink, end, _ = one("huge", result_bytes_max=1_000_000)
    assert end.reason is R.UPSTREAM_TOO_LARGE
    assert len(sink.body) <= 1_000_000 + upstream.ENVELOPE_BYTES


def test_a_compressed_bomb_is_refused_without_being_inflated():
    tracemalloc.start()
    try:
        sink, end, _ = one("bomb")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert end.reason is R.UPSTREAM_PROTOCOL_ERROR
    assert sink.body == b""
    assert peak < 16 * 1024 * 1024


def test_a_body_that_ends_with_its_connection_is_complete():
    sink, end, _ = one("until_close")
    assert (end, sink.body) == (exchange.Complete(), upstreams.JSON)


def test_an_answer_before_the_body_was_read_is_delivered():
    sink, _, served = one("early", body=b"x" * 4_000_000)
    assert sink.status == 413
    assert len(served.requests) == 1


def test_a_body_of_megabytes_goes_out_whole():
    _, end, served = one("json", body=b"y" * 3_000_000)
    assert end == exchange.Complete()
    assert served.requests[0].endswith(b"\r\n\r\n" + b"y" * 3_000_000)


def test_a_connection_is_reused_after_complete_answers_only():
    async def main():
        async with upstreams.running("json") as served, way_out() as out:
            for _ in range(3):
                sink = Sink()
                send(out, permit(served.url), sink)
                await sink.end()
            return served

    served = asyncio.run(main())
    assert (served.connections, len(served.requests)) == (1, 3)


def test_an_idle_connection_is_dropped_after_pool_idle():
    async def main():
        async with upstreams.running("json") as served, way_out() as out:
            sink = Sink()
            send(out, permit(served.url, pool_idle_seconds=0.05), sink)
            await sink.end()
            async with asyncio.timeout(10):
                await served.left.wait()
            return served

    assert asyncio.run(main()).connections == 1


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
def test_a_stale_pooled_connection_is_maybe_sent_and_nothing_is_repeated(method):
    async def main():
        async with upstreams.running("stale") as served, way_out() as out:
            first, second = Sink(), Sink()
            send(out, permit(served.url), first)
            assert await first.end() == exchange.Complete()
            send(out, permit(served.url), second, method=method, body=b"")
            return await second.end(), served

    end, served = asyncio.run(main())
    assert (end.reason, end.sent) == (R.UPSTREAM_PROTOCOL_ERROR, MAYBE_SENT)
    assert (served.connections, len(served.requests)) == (1, 2)


def test_bytes_nobody_asked_for_are_never_the_next_answer():
    async def main():
        async with upstreams.running("unasked") as served, way_out() as out:
            first, second = Sink(), Sink()
            send(out, permit(served.url), first)
            assert await first.end() == exchange.Complete()
            served.go_on.set()
            await served.left.wait()
            await asyncio.sleep(0.05)  # the stolen answer has to have arrived: nothing tells of it
            send(out, permit(served.url), second)
            await second.end()
            return second, served

    second, served = asyncio.run(main())
    assert second.body == upstreams.JSON
    assert served.connections == 2


def test_nothing_listening_is_unreachable_and_not_sent():
    async def main():
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            async with way_out() as out:
                sink = Sink()
                send(out, permit(f"http://127.0.0.1:{unused.getsockname()[1]}/"), sink)
                return await sink.end()

    end = asyncio.run(main())
    assert (end.reason, end.sent) == (R.UPSTREAM_UNREACHABLE, NOT_SENT)
    assert "ECONNREFUSED" in end.detail


def test_a_name_that_does_not_resolve_is_unreachable_and_not_sent():
    async def main():
        async with way_out() as out:
            sink = Sink()
            send(out, permit("http://nobody.invalid/mcp"), sink)
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
            async with way_out() as out:
                sink = Sink()
                send(out, permit(url, connect_seconds=connect), sink, seconds=total)
                return await sink.end()

    end = asyncio.run(main())
    assert (end.reason, end.sent) == (reason, NOT_SENT)


HOSTS = ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "127.1", "localhost."]


@pytest.mark.parametrize("host", HOSTS)
def test_loopback_is_never_dialled_in_a_cluster_however_it_is_spelled(host):
    async def main():
        async with upstreams.running("json") as served, way_out(snapshot.Network()) as out:
            sink = Sink()
            send(out, permit(f"http://{host}:{served.port}/mcp"), sink)
            return await sink.end(), served

    end, served = asyncio.run(main())
    assert served.connections == 0
    assert end.sent is NOT_SENT
    assert end.reason in (R.UPSTREAM_ADDRESS_REFUSED, R.UPSTREAM_UNREACHABLE)
    if host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
        assert end.reason is R.UPSTREAM_ADDRESS_REFUSED


def test_metadata_is_refused_at_once_and_the_reason_names_the_address():
    async def main():
        async with way_out() as out:
            sink = Sink()
            send(out, permit("http://169.254.169.254/latest"), sink)
            return await sink.end()

    end = asyncio.run(main())
    assert (end.reason, end.sent) == (R.UPSTREAM_ADDRESS_REFUSED, NOT_SENT)
    assert end.detail.startswith("169.254.169.254: ")


def test_the_proxys_own_port_is_refused_even_on_a_laptop():
    async def main():
        async with (
            upstreams.running("json") as served,
            way_out(own=frozenset((f"127.0.0.1:{served.port}",))) as out,
        ):
            sink = Sink()
            send(out, permit(served.url), sink)
            return await sink.end(), served

    end, served = asyncio.run(main())
    assert (end.reason, served.connections) == (R.UPSTREAM_ADDRESS_REFUSED, 0)


def test_a_change_of_the_network_rules_ends_the_use_of_open_connections():
    async def main():
        network = [LAPTOP]
        out = upstream.AiohttpUpstream(asyncio.get_running_loop(), network=lambda: network[0])
        async with upstreams.running("json") as served:
            first, second = Sink(), Sink()
            send(out, permit(served.url), first)
            assert await first.end() == exchange.Complete()
            network[0] = snapshot.Network()
            send(out, permit(served.url), second)
            end = await second.end()
            await out.close()
            return end, served

    end, served = asyncio.run(main())
    assert end.reason is R.UPSTREAM_ADDRESS_REFUSED
    assert len(served.requests) == 1


def test_cancel_closes_the_connection_and_done_follows_once():
    async def main():
        async with upstreams.running("hang") as served, way_out() as out:
            sink = Sink()
            flight = send(out, permit(served.url), sink)
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
        async with upstreams.running("endless") as served, way_out() as out:
            sink = Sink()
            flight = send(out, permit(served.url), sink)
            await sink.some.wait()
            flight.cancel()
            end = await sink.end()
            await asyncio.wait_for(served.left.wait(), 10)
            return end

    end = asyncio.run(main())
    assert (end.reason, end.sent) == (R.CANCELLED, MAYBE_SENT)


def test_cancel_right_after_send_is_not_sent_and_done_follows():
    async def main():
        async with upstreams.running("json") as served, way_out() as out:
            sink = Sink()
            send(out, permit(served.url), sink).cancel()
            return await sink.end(), served

    end, served = asyncio.run(main())
    assert (end.reason, end.sent, served.requests) == (R.CANCELLED, NOT_SENT, [])


def test_a_sink_without_room_stops_the_server_and_resume_loses_nothing():
    async def main():
        async with upstreams.running("counted") as served, way_out() as out:
            sink = Sink(greedy=False)
            flight = send(out, permit(served.url, result_bytes_max=16_000_000), sink)
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
        async with upstreams.running("counted") as served, way_out() as out:
            sink = Sink(greedy=False)
            send(out, permit(served.url, result_bytes_max=16_000_000), sink, seconds=0.3)
            return await sink.end()

    assert asyncio.run(main()).reason is R.UPSTREAM_TIMEOUT


def test_a_resume_from_within_data_is_not_lost():
    async def main():
        async with upstreams.running("json") as served, way_out() as out:
            sink = Sink(greedy=False)
            flight = None
            plain = sink.data

            def data(chunk):
                flight.resume()
                return plain(chunk)

            sink.data = data
            flight = send(out, permit(served.url), sink)
            return await sink.end()

    assert asyncio.run(main()) == exchange.Complete()


def test_a_sink_that_raises_ends_its_flight_as_internal_without_its_text():
    async def main():
        async with upstreams.running("json") as served, way_out() as out:
            sink = Sink()

            def head(_status, _headers):
                raise KeyError("canary")

            sink.head = head
            send(out, permit(served.url), sink)
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
        async with upstreams.running("json") as served, way_out() as out:
            sink = Sink()
            send(out, permit(served.url), sink, head=head, lent=exchange.Lent(lent))
            return await sink.end(), served

    end, served = asyncio.run(main())
    assert (end.reason, end.sent, served.connections) == (reason, NOT_SENT, 0)
    assert "canary" not in end.detail


@pytest.mark.parametrize(
    "url", ["ftp://x/", "http:///x", "http://u:hunter2@127.0.0.1/", "nonsense", "http://[/"]
)
def test_an_endpoint_that_is_no_plain_http_url_is_refused(url):
    async def main():
        async with way_out() as out:
            sink = Sink()
            send(out, permit(url), sink)
            return await sink.end()

    end = asyncio.run(main())
    assert (end.reason, end.sent) == (R.UPSTREAM_UNREACHABLE, NOT_SENT)
    assert "hunter2" not in end.detail


def test_close_ends_every_flight_and_later_ones_at_once():
    async def main():
        async with upstreams.running("hang") as served:
            out = upstream.AiohttpUpstream(asyncio.get_running_loop(), network=lambda: LAPTOP)
            under_way, late = Sink(), Sink()
            send(out, permit(served.url), under_way)
            await served.seen.wait()
            await out.close()
            assert len(under_way.ends) == 1
            send(out, permit(served.url), late)
            return under_way.ends[0], await late.end()

    under_way, late = asyncio.run(main())
    assert (under_way.reason, under_way.sent) == (R.CANCELLED, MAYBE_SENT)
    assert (late.reason, late.sent) == (R.CANCELLED, NOT_SENT)


def test_a_flood_waits_for_its_turn_and_times_out_unsent_when_none_comes():
    async def main():
        async with upstreams.running("hang") as served, way_out() as out:
            first, queued = [Sink() for _ in range(100)], [Sink() for _ in range(5)]
            for sink in first:
                send(out, permit(served.url), sink)
            for sink in queued:
                send(out, permit(served.url), sink, seconds=0.3)
            return [await sink.end() for sink in queued], served, first

    ends, served, first = asyncio.run(main())
    assert {(end.reason, end.sent) for end in ends} == {(R.UPSTREAM_TIMEOUT, NOT_SENT)}
    assert {end.detail for end in ends} == {"waiting for a free connection"}
    assert served.connections == 100
    assert {sink.ends[0].reason for sink in first} == {R.CANCELLED}


def certificate():
    """A self-signed certificate for 127.0.0.1: (PEM of the certificate, PEM with the key)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(oid.NameOID.COMMON_NAME, "upstream")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made.public_bytes(pem).decode(), made.public_bytes(pem) + private


def test_tls_trusts_the_given_bundle_and_nothing_else(tmp_path):
    trusted, both = certificate()
    other, _ = certificate()
    (tmp_path / "both.pem").write_bytes(both)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")

    async def main():
        async with upstreams.running("json", tls=context) as served, way_out() as out:
            ends = []
            for bundle in (trusted, other, None, "not a certificate"):
                sink = Sink()
                send(out, permit(served.url.replace("http:", "https:"), ca_bundle=bundle), sink)
                ends.append(await sink.end())
            return ends, served

    (good, *bad), served = asyncio.run(main())
    assert good == exchange.Complete()
    assert [(end.reason, end.sent) for end in bad] == [(R.UPSTREAM_UNREACHABLE, NOT_SENT)] * 3
    assert len(served.requests) == 1
