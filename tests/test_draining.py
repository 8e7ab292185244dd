# SPDX-License-Identifier: Apache-2.0
"""What servers list is drained whole: pages, sessions that end half-way, lists without end, entries that cannot be used."""

from __future__ import annotations

import pytest
from tests import proxies
from tests.servers import mcp

from outrider import testing

LISTED = proxies.request("tools/list")


async def tools(world: proxies.World, **options: object) -> list[str]:
    told = await world.ask(LISTED, **options)
    return [tool["name"] for tool in told.result["tools"]]


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
