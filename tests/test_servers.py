# SPDX-License-Identifier: Apache-2.0
"""How upstream servers are met: eras, sessions, and what a server can do wrong before the first call."""

from __future__ import annotations

import asyncio
import json
import pathlib

import pytest
from tests import lending, proxies
from tests.servers import mcp

from outrider import decide, decision, identity, snapshot, testing
from outrider_sidecar import legs, loans

LISTED = proxies.request("tools/list")


async def tools(world: proxies.World, **options: object) -> list[str]:
    told = await world.ask(LISTED, **options)
    return [tool["name"] for tool in told.result["tools"]]


@pytest.mark.parametrize(
    ("era", "methods"),
    [
        ("modern", ["server/discover", "tools/list"]),
        ("legacy", ["server/discover", "initialize", "notifications/initialized", "tools/list"]),
        ("sessionless", ["server/discover", "initialize", "notifications/initialized", "tools/list"]),
    ],
)
def test_a_server_is_met_once_in_the_newest_era_it_speaks(era: str, methods: list[str]) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        assert await tools(world) == list(mcp.BEHAVIOURS)
        assert [seen.method for seen in peer.seen] == methods
        for _ in range(3):
            await world.call("echo")
            assert await tools(world) == list(mcp.BEHAVIOURS)
        greeted = (
            [] if era == "modern" else ["initialize", "notifications/initialized"]
        )  # lists have a session of their own
        assert [seen.method for seen in peer.seen] == [*methods, *greeted, *["tools/call"] * 3]

    proxies.run(scenario, era=era)


@pytest.mark.parametrize(("protocol", "first"), [(mcp.MODERN, "server/discover"), (mcp.LEGACY, "initialize")])
def test_an_entry_that_fixes_a_revision_is_believed(protocol: str, first: str) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        assert (await world.call("echo")).reason is None
        assert peer.seen[0].method == first
        assert len({seen.method for seen in peer.seen} & {"server/discover", "initialize"}) == 1

    proxies.run(
        scenario, era="modern" if protocol == mcp.MODERN else "legacy", endpoint={"protocol": protocol}
    )


def test_a_fixed_modern_server_that_is_none_is_not_greeted_in_the_other_era() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        assert (await world.call("echo")).reason == "UpstreamNotReady"
        assert peer.of("initialize") == []

    proxies.run(scenario, era="legacy", endpoint={"protocol": mcp.MODERN})


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_many_who_come_at_once_meet_a_server_once(era: str) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        world.current.observed(proxies.API, testing.tools("echo"))
        askings = [await world.calling("echo", {"n": number}) for number in range(20)]
        assert [(await each.answer()).reason for each in askings] == [None] * 20
        assert len(peer.of("server/discover")) == 1
        assert len(peer.of("initialize")) == (1 if era == "legacy" else 0)

    proxies.run(scenario, era=era)


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "UpstreamUnauthorized"), (403, "UpstreamUnauthorized"), (500, "UpstreamNotReady")]
)  # fmt: skip
def test_a_server_that_cannot_be_met_says_why_and_nothing_is_charged(status: int, reason: str) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        peer.broken = status
        world.current.observed(proxies.API, testing.tools("echo"))
        told = await world.call("echo")
        assert told.reason == reason
        (outcome,) = world.outcomes
        assert (outcome.status.value, outcome.cost) == ("NotSent", 0)
        assert [row.spent for row in world.parts.ledger.standing(0)] == [0]

    proxies.run(scenario, limits=(testing.a_limit(calls=9),))


# Change -----------------------------------------------------------------------------------------------------------------


def test_a_server_that_moved_is_met_anew_at_its_new_place() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        await world.call("echo")
        async with mcp.serving(mcp.Peer("legacy", tools=[mcp.a_tool("quiet_stream")])) as other:
            world.apply(proxies.a_view(other))
            assert await tools(world) == ["quiet_stream"]
            world.apply(proxies.a_view(other, generation=2))  # the old place's tools must not come back
            assert await tools(world) == ["quiet_stream"]
            assert (await world.call("quiet_stream")).reason is None
            assert (await world.call("echo")).reason == "ToolUnknown"
            assert len(peer.calls) == 1

    proxies.run(scenario)


def test_calls_with_another_credential_use_another_session(tmp_path: pathlib.Path) -> None:
    entries = []
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"secret-of-{name}")
        source = snapshot.FileSecret(path=str(tmp_path / name))
        tool = {"one": "echo", "two": "quiet_stream"}[name]
        entries.append(snapshot.Credential(name=name, source=source, tools=(tool,)))

    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        await world.call("echo")
        await world.call("quiet_stream")
        first, second = peer.calls
        assert first.headers["mcp-session-id"] != second.headers["mcp-session-id"]
        assert first.headers["authorization"] == "secret-of-one"
        assert second.headers["authorization"] == "secret-of-two"

    proxies.run(scenario, era="legacy", credentials=tuple(entries), credential_required=True)


def test_whoever_waits_for_one_that_gives_up_meets_the_server_himself() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        peer.go_on.clear()
        world.current.observed(proxies.API, testing.tools("echo"))
        met = world.parts.servers
        server = met._server(world.current.bound.servers[proxies.API].view)
        listing = asyncio.create_task(met.listing(proxies.API))  # it meets the server first
        while not server.meeting:
            await asyncio.sleep(0)
        asking = await world.calling("echo", {"n": 1})
        while not world.parts.ledger.holds:
            await asyncio.sleep(0.001)
        listing.cancel()
        told = await asking.answer()
        assert (told.reason, json.loads(told.text)) == (None, {"n": 1})

    proxies.run(scenario, era="legacy")


def test_a_probe_of_our_own_that_is_given_up_does_not_leave_the_breaker_shut() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        for _ in range(5):
            await world.call("cuts")
        server = world.parts.servers._servers[proxies.API]
        await asyncio.sleep(server.breaker.retry_after(world.parts.clock()))
        server.speaks_modern, peer.mute = None, True  # it has to be met again, and says nothing
        listing = asyncio.create_task(world.parts.servers.listing(proxies.API))
        await peer.muted.wait()
        assert (
            await world.call("echo")
        ).reason == "UpstreamNotReady"  # at its own deadline, not at the list's
        listing.cancel()
        await asyncio.gather(listing, return_exceptions=True)
        peer.mute = False
        assert (await world.call("echo")).reason is None

    proxies.run(scenario, endpoint={"call_seconds": 0.4})


def test_a_session_that_is_one_users_own_is_taken_leave_of_with_that_users_credential() -> None:
    place = lending.Place(b"of-ann")
    entry = lending.entry(
        snapshot.TokenExchange(token_url="https://as.example/t", client=snapshot.OAuthClient(id="c"))
    )
    ann, bob = (
        identity.User(f"okta:{name}", frozenset(), token=f"token-of-{name}") for name in ("ann", "bob")
    )

    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        bound, servers = world.current.bound, world.parts.servers
        assert bound is not None
        client, until = legs.Proxy(modern=False, session_key="agent"), asyncio.get_running_loop().time() + 9
        for user, value in ((ann, b"of-ann"), (bob, b"of-bob")):
            place.loan = loans.Loan(value, "1")
            permit = decide.permit_listing(bound, proxies.API, user=user)
            assert isinstance(permit, decision.Permit)
            leg, _ = await servers.met(permit, client, deadline=until)
            assert leg.session is not None
            assert leg.session.user is user
        assert len(peer.sessions) == 2
        await servers.end_sessions(bound, "agent")
        left = {each.headers["authorization"] for each in peer.seen if each.verb == "DELETE"}
        assert [each.user for each in place.wanted[-2:]] == [ann, bob]
        assert (left, peer.sessions) == ({"Bearer of-bob"}, set())

    proxies.run(
        scenario, era="legacy", sources={snapshot.TokenExchange: place}, credential_required=True, credentials=(entry,)
    )  # fmt: skip
