# SPDX-License-Identifier: Apache-2.0
"""How upstream servers are met and listed: eras, pages, sessions, and what a server can do wrong before the first call."""

from __future__ import annotations

import asyncio
import json
import pathlib

import pytest
from tests import proxies
from tests.servers import mcp

from outrider import snapshot, testing

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
        assert [seen.method for seen in peer.seen] == [*methods, *["tools/call"] * 3]

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


# Lists ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize("modern", [True, False], ids=["modern-agent", "legacy-agent"])
def test_2500_tools_are_drained_page_by_page_and_shown_page_by_page(era: str, modern: bool) -> None:
    peer = mcp.Peer(era, tools=[mcp.a_tool(f"t{number:04}") for number in range(2500)], page=300)

    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        found, cursor, pages = [], None, 0
        while True:
            params = {} if cursor is None else {"cursor": cursor}
            told = await world.ask(proxies.request("tools/list", params), modern=modern)
            found += told.result["tools"]
            pages += 1
            assert (told.result.get("cacheScope") == "private") is modern
            if (cursor := told.result.get("nextCursor")) is None:
                break
        assert (pages, found) == (3, peer.tools)  # in order, every member as it came
        assert len(peer.of("tools/list")) == 9
        for wrong in ("", "0", "x" * 200, 5, {}):
            odd = await world.ask(proxies.request("tools/list", {"cursor": wrong}), modern=modern)
            assert odd.last["error"]["code"] == -32602

    proxies.run(scenario, peer=peer)


def test_a_cursor_of_another_list_is_unknown() -> None:
    peer = mcp.Peer(tools=[mcp.a_tool(f"t{number:04}") for number in range(1500)])

    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        cursor = (await world.ask(LISTED)).result["nextCursor"]
        asked = proxies.request("tools/list", {"cursor": cursor})
        assert len((await world.ask(asked)).result["tools"]) == 500
        assert (await world.ask(asked, path="/mcp")).last["error"]["code"] == -32602
        world.apply(proxies.a_view(peer, testing.allow(), testing.deny("t0001")))
        assert (await world.ask(asked)).last["error"]["code"] == -32602

    proxies.run(scenario, peer=peer)


def test_a_list_shows_what_may_be_called_and_nothing_else() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        assert await tools(world) == ["echo"]
        assert await tools(world, path="/mcp", modern=False) == ["api__echo"]
        assert (await world.call("api__echo", path="/mcp")).reason is None

    proxies.run(scenario, testing.allow("echo", "errs"), testing.deny("ERRS"))


def test_a_list_without_end_is_cut_off() -> None:
    peer = mcp.Peer(tools=[mcp.a_tool(f"t{number:04}") for number in range(1000)], page=1)

    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        told = await world.ask(LISTED)
        assert told.last["error"]["code"] == 403
        assert len(peer.of("tools/list")) == 200

    proxies.run(scenario, peer=peer)


def test_a_session_forgotten_while_listing_is_opened_again_once_and_the_list_begun_again() -> None:
    class Forgetful(set):
        """Forgets its first session after one use of it."""

        uses = 0

        def __contains__(self, session: object) -> bool:
            self.uses += 1
            return session != "s1" or self.uses <= 2

    peer = mcp.Peer("legacy", tools=[mcp.a_tool(f"t{n}") for n in range(6)], page=2, sessions=Forgetful())

    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        assert await tools(world) == [f"t{n}" for n in range(6)]
        assert peer.opened == 2
        assert world.current.definitions[proxies.API].dropped == ()  # none came twice

    proxies.run(scenario, peer=peer)


def test_a_server_that_forgets_every_session_is_listed_at_most_twice() -> None:
    class Amnesia(set):
        def __contains__(self, session: object) -> bool:
            return False

    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        told = await world.ask(LISTED)
        assert told.last["error"]["code"] == 403
        assert (peer.opened, len(peer.of("tools/list"))) == (2, 2)

    proxies.run(scenario, peer=mcp.Peer("legacy", sessions=Amnesia()))


def test_tools_a_server_may_not_have_are_neither_listed_nor_callable() -> None:
    odd = [
        mcp.a_tool("a b"),
        mcp.a_tool("x" * 129),
        {"name": 5},
        "text",
        mcp.a_tool("echo"),
        mcp.a_tool("echo"),
    ]

    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        assert await tools(world) == ["echo"]
        assert (await world.call("a b")).reason == "ToolUnknown"

    proxies.run(scenario, peer=mcp.Peer(tools=odd))


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
        server.modern, peer.mute = None, True  # it has to be met again, and says nothing
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
