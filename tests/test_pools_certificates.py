# SPDX-License-Identifier: Apache-2.0
"""Client certificates against a real TLS server that demands one: lent, rotated under way, never shared, never on a disk."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pathlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tests import authorities, lending
from tests.servers import flights

from outrider import decision, snapshot
from outrider_sidecar import credentials, exchange, loans, upstream

R = decision.Reason
CA = authorities.Authority()
ISSUED = snapshot.ClientCertificate(
    role="r", path="outrider/servers/crm/salesforce/pki/issue/agent", common_name="agent"
)


@dataclasses.dataclass
class Served:
    """A server that answers every request with an empty object, a slow one when told to; `peers` are who connected."""

    port: int = 0
    peers: list[str] = dataclasses.field(default_factory=list)
    requests: list[str] = dataclasses.field(default_factory=list)
    resumed: list[bool] = dataclasses.field(default_factory=list)
    slow: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    arrived: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls = writer.get_extra_info("ssl_object")
        peer = tls.getpeercert() or {}
        who = dict(pair[0] for pair in peer.get("subject", ())).get("commonName", "nobody")
        self.peers.append(who)
        self.resumed.append(bool(tls.session_reused))
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (
                        int(line[16:])
                        for line in head.lower().split(b"\r\n")
                        if line.startswith(b"content-length: ")
                    ),
                    0,
                )
                await reader.readexactly(length)
                self.requests.append(who)
                self.arrived.set()
                await self.slow.wait()
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
                )
        writer.close()


@dataclasses.dataclass
class Way:
    served: Served
    place: lending.Place
    lender: credentials.Credentials
    out: upstream.AiohttpUpstream
    permit: decision.Permit

    def issue(self, name: str) -> None:
        """The next certificate, as a source would have it after a renewal."""
        made = CA.client(name)
        self.place.loan, self.place.seen = loans.Loan(b"", made.version, certificate=made), None

    async def send(self, *, waits: bool = True, **more: Any) -> flights.Sink:
        sink = flights.Sink()
        lent = await self.lender.lend(self.permit)
        flights.send(self.out, self.permit, sink, lent=lent, **more)
        if waits:
            await sink.end()
        return sink


@contextlib.asynccontextmanager
async def way(folder: pathlib.Path, *, demands: bool = True, url: str = "") -> AsyncIterator[Way]:
    served = Served()
    served.slow.set()
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0, ssl=CA.server(folder, clients=demands))
    served.port = server.sockets[0].getsockname()[1]
    permit = lending.a_permit(
        lending.entry(ISSUED), url=url or f"https://127.0.0.1:{served.port}/mcp", ca_bundle=CA.bundle
    )
    place, loop = lending.Place(), asyncio.get_running_loop()
    lender = credentials.Credentials({snapshot.ClientCertificate: place}, clock=loop.time)
    async with server, flights.way_out() as out:
        yield Way(served, place, lender, out, permit)


def run(folder: pathlib.Path, act: Callable[[Way], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with way(folder, **options) as made:
            await act(made)

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_server_that_demands_a_certificate_sees_the_one_that_was_issued(tmp_path: pathlib.Path) -> None:
    async def act(way: Way) -> None:
        way.issue("agent-1")
        for _ in range(3):
            assert (await way.send()).ends == [exchange.Complete()]
        assert way.served.peers == ["agent-1"]  # one connection for all

    run(tmp_path, act)


def test_without_one_there_is_no_connection(tmp_path: pathlib.Path) -> None:
    async def act(way: Way) -> None:
        sink = flights.Sink()
        flights.send(way.out, way.permit, sink, lent=exchange.Lent())
        assert isinstance(await sink.end(), exchange.Failed)
        assert way.served.requests == []

    run(tmp_path, act)


def test_a_renewed_certificate_gets_connections_of_its_own_and_what_is_under_way_ends_well(
    tmp_path: pathlib.Path,
) -> None:
    async def act(way: Way) -> None:
        way.issue("agent-1")
        way.served.slow.clear()
        under_way = await way.send(waits=False)
        await way.served.arrived.wait()
        way.issue("agent-2")
        way.served.arrived.clear()
        second = await way.send(waits=False)
        await way.served.arrived.wait()
        way.served.slow.set()
        assert await under_way.end() == await second.end() == exchange.Complete()
        await way.send()
        assert way.served.requests == ["agent-1", "agent-2", "agent-2"]
        assert way.served.peers == ["agent-1", "agent-2"]
        assert way.served.resumed == [False, False]

    run(tmp_path, act)


def test_requests_with_and_without_a_certificate_share_no_connection(tmp_path: pathlib.Path) -> None:
    async def act(way: Way) -> None:
        way.issue("agent-1")
        await way.send()
        sink = flights.Sink()
        flights.send(way.out, way.permit, sink, lent=exchange.Lent())
        await sink.end()
        await way.send()
        assert way.served.requests == ["agent-1", "nobody", "agent-1"]

    run(tmp_path, act, demands=False)


def test_the_context_is_made_off_the_loop_and_is_at_hand_afterwards(tmp_path: pathlib.Path) -> None:
    async def act(way: Way) -> None:
        way.issue("agent-1")
        way.place.seen = way.place.loan
        assert way.lender.at_hand(way.permit) is None  # a source that renewed it by itself: not made yet
        lent = await way.lender.lend(way.permit)
        assert way.lender.at_hand(way.permit) is lent
        assert isinstance(lent.identity and lent.identity.context, ssl.SSLContext)
        assert lent.headers == ()

    run(tmp_path, act)


def test_a_certificate_is_never_meant_for_plain_http(tmp_path: pathlib.Path) -> None:
    async def act(way: Way) -> None:
        way.issue("agent-1")
        with pytest.raises(loans.Unavailable, match="the endpoint is not https") as refused:
            await way.lender.lend(way.permit)
        assert refused.value.reason is R.CREDENTIAL_UNAVAILABLE

    run(tmp_path, act, url="http://127.0.0.1:9/mcp")


def test_a_401_does_not_make_a_certificate_be_issued_anew(tmp_path: pathlib.Path) -> None:
    async def act(way: Way) -> None:
        way.issue("agent-1")
        lent = await way.lender.lend(way.permit)
        assert (
            await way.lender.renewed(way.permit, lent, deadline=asyncio.get_running_loop().time() + 9) is None
        )
        assert len(way.place.fetched) == 1

    run(tmp_path, act)


def test_the_private_key_is_in_no_repr(tmp_path: pathlib.Path) -> None:
    async def act(way: Way) -> None:
        way.issue("agent-1")
        lent = await way.lender.lend(way.permit)
        assert way.place.loan.certificate is not None
        key = way.place.loan.certificate.key.decode()
        assert key not in f"{lent!r} {lent.identity!r} {way.place.loan!r}"

    run(tmp_path, act)
