# SPDX-License-Identifier: Apache-2.0
"""The proxy's own requests: what is never asked (R15, R16), what is never read, and how long anybody is waited for."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from tests.kube import certs
from tests.servers import flights, upstreams

from outrider import snapshot
from outrider_sidecar import fetcher, fetching

T = fetching.Trouble
CANARY = "canary-83ab10"


def by(network=flights.LAPTOP, own=frozenset()):
    return fetcher.AiohttpFetcher(asyncio.get_running_loop(), network=lambda: network, own=own)


def asked(url, *, seconds=60.0, method="POST", **more):
    more.setdefault("headers", (("authorization", f"Basic {CANARY}"),))
    more.setdefault("body", f"client_secret={CANARY}".encode())
    return fetching.Ask(method, url, asyncio.get_running_loop().time() + seconds, **more)


async def refused(with_it, ask):
    with pytest.raises(fetching.FetchFailed) as failed:
        await with_it.fetch(ask)
    assert CANARY not in str(failed.value) + repr(failed.value) + repr(ask)
    assert "hunter2" not in str(failed.value)
    assert failed.value.__cause__ is None
    return failed.value


def one(name, *, seconds=60.0, network=flights.LAPTOP, **more):
    """One request to one scenario that is expected to fail: (the failure, what the server saw)."""

    async def main():
        async with upstreams.running(name) as served:
            failure = await refused(by(network), asked(served.url, seconds=seconds, **more))
            if served.connections:
                async with asyncio.timeout(10):
                    await served.left.wait()  # a failed request's connection is always closed
            return failure, served

    return asyncio.run(main())


def test_an_answer_comes_whole_and_its_connection_is_not_kept():
    async def main():
        async with upstreams.running("json") as served:
            answer = await by().fetch(asked(served.url, body=b"grant_type=x"))
            async with asyncio.timeout(10):
                await served.left.wait()
            return answer, served

    answer, served = asyncio.run(main())
    assert (answer.status, answer.body) == (200, upstreams.JSON)
    assert answer.media_type() == "application/json"
    assert answer.header(b"x-dup") == ""
    assert answer.header(b"absent") == ""
    head, _, body = served.requests[0].partition(b"\r\n\r\n")
    assert body == b"grant_type=x"
    lines = {line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:]}
    assert lines <= {
        b"host", b"authorization", b"accept", b"accept-encoding", b"content-length", b"connection", b"content-type",
    }  # fmt: skip
    assert b"accept-encoding: identity" in head.lower()
    assert CANARY not in repr(answer)


def test_statuses_of_errors_are_answers_too():
    async def main():
        async with upstreams.running("early") as served:
            answer = await by().fetch(asked(served.url, body=b""))
            return answer.status, answer.body

    assert asyncio.run(main()) == (413, b"{}")


ADDRESSES = [
    ("https://169.254.169.254/token", "169.254.169.254: link-local"),
    ("https://[fd00:ec2::254]/token", "fd00:ec2::254: metadata"),
    ("https://10.1.2.3/token", "10.1.2.3: "),
    ("https://[::ffff:10.1.2.3]/token", "10.1.2.3: "),
    ("https://127.0.0.1:{port}/token", "127.0.0.1: loopback"),
    ("https://localhost:{port}/token", ": loopback"),
]


@pytest.mark.parametrize(("url", "why"), ADDRESSES)
def test_addresses_that_nobody_may_dial_are_not_dialled_and_the_text_names_them(url, why):
    async def main():
        async with upstreams.running("json") as served:
            failure = await refused(by(snapshot.Network()), asked(url.format(port=served.port)))
            return failure, served.connections

    failure, connections = asyncio.run(main())
    assert (failure.reason, connections) == (T.ADDRESS_REFUSED, 0)
    assert why in str(failure)
    assert str(failure).startswith("https://")


def test_the_proxys_own_port_is_not_asked_even_on_a_laptop():
    async def main():
        async with upstreams.running("json") as served:
            own = frozenset({f"127.0.0.1:{served.port}"})
            return await refused(by(own=own), asked(served.url)), served.connections

    failure, connections = asyncio.run(main())
    assert (failure.reason, connections) == (T.ADDRESS_REFUSED, 0)


def test_without_tls_only_loopback_is_asked_and_only_on_a_laptop():
    failure, served = one("json", network=snapshot.Network())
    assert (failure.reason, served.connections) == (T.UNFIT, 0)
    assert "use https" in str(failure)

    async def main():
        return await refused(by(), asked("http://192.0.43.10/token"))

    failure = asyncio.run(main())
    assert failure.reason is T.ADDRESS_REFUSED
    assert "use https" in str(failure)


UNFIT = [
    "ftp://as.example/token",
    "http:///token",
    "https://user:hunter2@as.example/token",
    "https://as.example/token#fragment",
    "https://as.example/to ken",
    "https://as.example/\ntoken",
    "https://as.example/t\N{LATIN SMALL LETTER O WITH DIAERESIS}ken",
    "https://[/token",
    "https://as.example:port/token",
    "https://as.example/" + "a" * 3000,
    "nonsense",
    "",
]


@pytest.mark.parametrize("url", UNFIT)
def test_what_is_no_plain_url_is_refused_before_anything_is_asked(url):
    async def main():
        return await refused(by(), asked(url))

    failure = asyncio.run(main())
    assert failure.reason is T.UNFIT
    assert len(str(failure)) < 400
    assert "\n" not in str(failure)


BAD = [
    ("redirect", T.REDIRECTED, "redirects are never followed"),
    ("upgrade", T.MALFORMED, "status 101"),
    ("bomb", T.MALFORMED, "compressed"),
    ("huge", T.TOO_LARGE, "more than 1000 bytes"),
    ("announced", T.TOO_LARGE, "more than 1000 bytes"),
    ("big_head", T.MALFORMED, "as HTTP demands"),
    ("ambiguous", T.MALFORMED, "as HTTP demands"),
    ("two_lengths", T.MALFORMED, "as HTTP demands"),
    ("half_close", T.MALFORMED, "as HTTP demands"),
    ("half_chunk", T.MALFORMED, "as HTTP demands"),
    ("garbage", T.MALFORMED, "as HTTP demands"),
    ("reset", T.MALFORMED, "as HTTP demands"),
]


@pytest.mark.parametrize(("name", "reason", "says"), BAD)
def test_a_bad_answer_is_told_in_words_of_ours_and_asked_for_once(name, reason, says):
    failure, served = one(name, bytes_max=1000)
    assert (failure.reason, len(served.requests)) == (reason, 1)
    assert str(failure).startswith(f"http://127.0.0.1:{served.port}/mcp ")
    assert says in str(failure)


@pytest.mark.parametrize("name", ["hang", "slow_head", "trickle"])
def test_nobody_is_waited_for_after_the_deadline(name):
    failure, served = one(name, seconds=0.3, method="GET", body=b"")
    assert failure.reason is T.TIMEOUT
    assert served.sent_bytes < fetching.BYTES_MAX


def test_a_deadline_that_is_over_asks_nobody():
    failure, served = one("json", seconds=-1.0)
    assert (failure.reason, served.connections) == (T.TIMEOUT, 0)


def test_without_a_deadline_there_is_one_all_the_same(monkeypatch):
    monkeypatch.setattr(fetcher, "SECONDS_MAX", 0.2)
    failure, _ = one("hang", seconds=float("inf"))
    assert failure.reason is T.TIMEOUT


def test_an_address_without_a_server_and_a_name_without_an_address_are_unreachable():
    async def main():
        async with upstreams.running("json") as served:
            url = served.url
        gone = await refused(by(), asked(url))
        unknown = await refused(by(), asked("https://no-such-host.invalid/token"))
        return gone, unknown

    gone, unknown = asyncio.run(main())
    assert (gone.reason, unknown.reason) == (T.UNREACHABLE, T.UNREACHABLE)
    assert "ECONNREFUSED" in str(gone)
    assert str(unknown) == "https://no-such-host.invalid/token has a name that does not resolve"


def test_tls_trusts_the_given_bundle_and_nothing_else(tmp_path):
    made, stranger = (certs.Authority.make(tmp_path / name, ["127.0.0.1"]) for name in ("made", "stranger"))
    trusted, other = made.ca_file.read_text(), stranger.ca_file.read_text()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.server_cert, made.server_key)

    async def main():
        async with upstreams.running("json", tls=context) as served:
            url = served.url.replace("http:", "https:")
            answer = await by().fetch(asked(url, ca_bundle=trusted))
            failures = [
                await refused(by(), asked(url, ca_bundle=bundle)) for bundle in (other, None, "no PEM")
            ]
            return answer.status, failures, served

    status, (other_ca, no_ca, unfit), served = asyncio.run(main())
    assert (status, len(served.requests)) == (200, 1)
    assert (other_ca.reason, no_ca.reason, unfit.reason) == (T.UNREACHABLE, T.UNREACHABLE, T.UNFIT)
    assert "has a certificate that is not trusted: " in str(no_ca)
    assert "caBundle" in str(unfit)


def test_a_proxy_of_the_environment_and_its_passwords_are_not_used(monkeypatch, tmp_path):
    async def main():
        async with upstreams.running("json") as served, upstreams.running("json") as proxy:
            for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
                monkeypatch.setenv(name, proxy.url)
            (tmp_path / ".netrc").write_text("machine 127.0.0.1 login x password hunter2\n")
            monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
            await by().fetch(asked(served.url, headers=()))
            return served, proxy

    served, proxy = asyncio.run(main())
    assert (len(served.requests), proxy.connections) == (1, 0)
    assert b"uthorization" not in served.requests[0]


def test_one_slow_origin_keeps_no_other_from_being_asked_and_is_not_flooded(monkeypatch):
    monkeypatch.setattr(fetcher, "AT_ONCE_MAX", 3)

    async def main():
        async with upstreams.running("hang") as slow, upstreams.running("json") as quick:
            one_of_them = by()
            waiting = [asyncio.create_task(one_of_them.fetch(asked(slow.url, seconds=30))) for _ in range(10)]
            async with asyncio.timeout(10):
                while len(slow.requests) < 3:
                    await asyncio.sleep(0.01)
            answer = await one_of_them.fetch(asked(quick.url))
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            return answer.status, slow.connections, len(one_of_them._lanes)

    status, connections, lanes = asyncio.run(main())
    assert (status, connections) == (200, 3)
    assert lanes == 0
