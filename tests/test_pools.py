# SPDX-License-Identifier: Apache-2.0
"""Who shares a connection, who gets none, and what is never dialled (R15)."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import oid
from tests.servers import flights, upstreams

from outrider import decision, snapshot
from outrider_sidecar import exchange, pools, upstream

R = decision.Reason
NOT_SENT, MAYBE_SENT = exchange.Sent.NOT_SENT, exchange.Sent.MAYBE_SENT


def test_a_connection_is_reused_after_complete_answers_only():
    async def main():
        async with upstreams.running("json") as served, flights.way_out() as out:
            for _ in range(3):
                sink = flights.Sink()
                flights.send(out, flights.permit(served.url), sink)
                await sink.end()
            return served

    served = asyncio.run(main())
    assert (served.connections, len(served.requests)) == (1, 3)


def test_an_idle_connection_is_dropped_after_pool_idle():
    async def main():
        async with upstreams.running("json") as served, flights.way_out() as out:
            sink = flights.Sink()
            flights.send(out, flights.permit(served.url, pool_idle_seconds=0.05), sink)
            await sink.end()
            async with asyncio.timeout(10):
                await served.left.wait()
            return served

    assert asyncio.run(main()).connections == 1


def test_bytes_nobody_asked_for_are_never_the_next_answer():
    async def main():
        async with upstreams.running("unasked") as served, flights.way_out() as out:
            first, second = flights.Sink(), flights.Sink()
            flights.send(out, flights.permit(served.url), first)
            assert await first.end() == exchange.Complete()
            served.go_on.set()
            await served.left.wait()
            await asyncio.sleep(0.05)  # the stolen answer has to have arrived: nothing tells of it
            flights.send(out, flights.permit(served.url), second)
            await second.end()
            return second, served

    second, served = asyncio.run(main())
    assert second.body == upstreams.JSON
    assert served.connections == 2


HOSTS = ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "127.1", "localhost."]


@pytest.mark.parametrize("host", HOSTS)
def test_loopback_is_never_dialled_in_a_cluster_however_it_is_spelled(host):
    async def main():
        async with upstreams.running("json") as served, flights.way_out(snapshot.Network()) as out:
            sink = flights.Sink()
            flights.send(out, flights.permit(f"http://{host}:{served.port}/mcp"), sink)
            return await sink.end(), served

    end, served = asyncio.run(main())
    assert served.connections == 0
    assert end.sent is NOT_SENT
    assert end.reason in (R.UPSTREAM_ADDRESS_REFUSED, R.UPSTREAM_UNREACHABLE)
    if host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
        assert end.reason is R.UPSTREAM_ADDRESS_REFUSED


def test_metadata_is_refused_at_once_and_the_reason_names_the_address():
    async def main():
        async with flights.way_out() as out:
            sink = flights.Sink()
            flights.send(out, flights.permit("http://169.254.169.254/latest"), sink)
            return await sink.end()

    end = asyncio.run(main())
    assert (end.reason, end.sent) == (R.UPSTREAM_ADDRESS_REFUSED, NOT_SENT)
    assert end.detail.startswith("169.254.169.254: ")


def test_the_api_servers_endpoint_is_not_dialled_whatever_the_name_that_leads_there():
    """What is told where the servers are is asked and answers with an address that the snapshot refuses."""

    async def main():
        network = snapshot.Network(loopback=True, refused=("127.0.0.1", "::1"))
        async with upstreams.running("json") as served, flights.way_out(network) as out:
            found = []
            for host, service in (("localhost", True), ("localhost", False), ("127.0.0.1", False)):
                sink = flights.Sink()
                flights.send(out, flights.permit(f"http://{host}:{served.port}/mcp", service=service), sink)
                found.append(await sink.end())
            return found, served

    ends, served = asyncio.run(main())
    assert served.connections == 0
    assert [(end.reason, end.sent) for end in ends] == [(R.UPSTREAM_ADDRESS_REFUSED, NOT_SENT)] * 3
    assert all("an address of the API server" in end.detail for end in ends)


def test_the_proxys_own_port_is_refused_even_on_a_laptop():
    async def main():
        async with (
            upstreams.running("json") as served,
            flights.way_out(own=frozenset((f"127.0.0.1:{served.port}",))) as out,
        ):
            sink = flights.Sink()
            flights.send(out, flights.permit(served.url), sink)
            return await sink.end(), served

    end, served = asyncio.run(main())
    assert (end.reason, served.connections) == (R.UPSTREAM_ADDRESS_REFUSED, 0)


def test_a_change_of_the_network_rules_ends_the_use_of_open_connections():
    async def main():
        network = [flights.LAPTOP]
        out = upstream.AiohttpUpstream(asyncio.get_running_loop(), network=lambda: network[0])
        async with upstreams.running("json") as served:
            first, second = flights.Sink(), flights.Sink()
            flights.send(out, flights.permit(served.url), first)
            assert await first.end() == exchange.Complete()
            network[0] = snapshot.Network()
            flights.send(out, flights.permit(served.url), second)
            end = await second.end()
            await out.close()
            return end, served

    end, served = asyncio.run(main())
    assert end.reason is R.UPSTREAM_ADDRESS_REFUSED
    assert len(served.requests) == 1


def test_a_flood_waits_for_its_turn_and_times_out_unsent_when_none_comes(monkeypatch):
    monkeypatch.setattr(pools, "CONNECTIONS_PER_POOL", 100)

    async def main():
        async with upstreams.running("hang") as served, flights.way_out() as out:
            first, queued = [flights.Sink() for _ in range(100)], [flights.Sink() for _ in range(5)]
            for sink in first:
                flights.send(out, flights.permit(served.url), sink)
            for sink in queued:
                flights.send(out, flights.permit(served.url), sink, seconds=0.3)
            listening = flights.Sink()  # what the server may say on its own has connections of its own
            flights.send(out, flights.permit(served.url), listening, method="GET", body=b"", seconds=0.3)
            assert (await listening.end()).sent is MAYBE_SENT
            return [await sink.end() for sink in queued], served, first

    ends, served, first = asyncio.run(main())
    assert {(end.reason, end.sent) for end in ends} == {(R.UPSTREAM_TIMEOUT, NOT_SENT)}
    assert {end.detail for end in ends} == {"waiting for a free connection"}
    assert served.connections == 100 + 1
    assert {sink.ends[0].reason for sink in first} == {R.CANCELLED}


@pytest.mark.parametrize(
    "url", ["ftp://x/", "http:///x", "http://u:hunter2@127.0.0.1/", "nonsense", "http://[/"]
)
def test_an_endpoint_that_is_no_plain_http_url_is_refused(url):
    async def main():
        async with flights.way_out() as out:
            sink = flights.Sink()
            flights.send(out, flights.permit(url), sink)
            return await sink.end()

    end = asyncio.run(main())
    assert (end.reason, end.sent) == (R.UPSTREAM_UNREACHABLE, NOT_SENT)
    assert "hunter2" not in end.detail


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
        async with upstreams.running("json", tls=context) as served, flights.way_out() as out:
            ends = []
            for bundle in (trusted, other, None, "not a certificate"):
                sink = flights.Sink()
                flights.send(
                    out, flights.permit(served.url.replace("http:", "https:"), ca_bundle=bundle), sink
                )
                ends.append(await sink.end())
            return ends, served

    (good, *bad), served = asyncio.run(main())
    assert good == exchange.Complete()
    assert [(end.reason, end.sent) for end in bad] == [(R.UPSTREAM_UNREACHABLE, NOT_SENT)] * 3
    assert len(served.requests) == 1


def test_an_event_stream_may_be_many_results_long_but_not_endless():
    async def main():
        async with upstreams.running("events") as served, flights.way_out() as out:
            sink = flights.Sink()
            flights.send(out, flights.permit(served.url, result_bytes_max=1000), sink, method="GET", body=b"")
            return await sink.end(), sink

    end, sink = asyncio.run(main())
    assert end.reason is R.UPSTREAM_TOO_LARGE
    assert len(sink.body) > 10 * (1000 + upstream.ENVELOPE_BYTES)


def test_another_path_is_asked_at_the_same_origin_only():
    async def main():
        async with upstreams.running("json") as served, flights.way_out() as out:
            later = asyncio.get_running_loop().time() + 5
            ends = []
            for place in (
                "/messages?session_id=%2F1",
                "//elsewhere.example/mcp",
                "http://elsewhere.example/",
            ):
                sink = flights.Sink()
                to = flights.permit(served.url)
                out.send(to, flights.LENT, flights.HEAD, b"{}", sink, deadline=later, place=place)
                ends.append(await sink.end())
            return ends, served

    ends, served = asyncio.run(main())
    assert ends[0] == exchange.Complete()
    assert [end.sent for end in ends[1:]] == [NOT_SENT, NOT_SENT]
    assert [request.split(b" ", 2)[1] for request in served.requests] == [b"/messages?session_id=%2F1"]
