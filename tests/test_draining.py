# SPDX-License-Identifier: Apache-2.0
"""What servers list is drained whole: pages, sessions that end half-way, lists without end, entries that cannot be used."""

from __future__ import annotations

import asyncio
import json
import pathlib
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests import proxies
from tests.servers import mcp, stages

from outrider import call, catalog, testing
from outrider_sidecar import lists

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


# Kinds ------------------------------------------------------------------------------------------------------------------


def full(era: str = "dual", **more: Any) -> stages.Stage:
    """A server of all four lists, each longer than its pages."""
    return stages.Stage(
        era,
        tools=[stages.tool(f"t{n}") for n in range(5)],
        prompts=[stages.prompt(f"p {n}", title="é", _meta={"x": [1.5]}) for n in range(5)],
        resources=[stages.resource(f"file:///r{n}", size=n) for n in range(5)],
        templates=[stages.template(f"file:///{n}/{{path}}") for n in range(5)],
        page=2,
        **more,
    )


def drain(stage: stages.Stage, scenario: Callable[[proxies.World], Awaitable[None]], **endpoint: Any) -> None:
    """One proxy before one stage."""

    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with stages.playing(stage), proxies.running(pathlib.Path(folder)) as world:
                world.apply(proxies.a_view(None, endpoint={"url": stage.url, **endpoint}))
                await scenario(world)

    asyncio.run(asyncio.wait_for(main(), 60))


async def listing(world: proxies.World, kind: call.Kind) -> lists.Listing:
    return await world.parts.servers.listing(proxies.API, kind)


def named(found: tuple[catalog.Definition, ...]) -> list[str]:
    return [each.name for each in found]


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_each_kind_is_drained_by_its_own_lists_in_order_and_byte_for_byte(era: str) -> None:
    stage = full(era)

    async def scenario(world: proxies.World) -> None:
        tools, prompts, resources = [(await listing(world, kind)).definitions for kind in call.Kind]
        assert named(tools.tools) == [f"t{n}" for n in range(5)]
        assert tools.unobserved == {call.Kind.PROMPT, call.Kind.RESOURCE}
        assert [json.loads(each.raw) for each in prompts.prompts] == stage.prompts
        assert [json.loads(each.raw) for each in resources.resources] == stage.resources
        assert [json.loads(each.raw) for each in resources.templates] == stage.templates
        assert (prompts.tools, prompts.dropped, resources.prompts) == ((), (), ())
        assert [len(stage.of(method)) for method in stages.LISTS] == [3, 3, 3, 3]
        assert len(stage.of("server/discover")) + len(stage.of("initialize")) <= 2

    drain(stage, scenario)


def saying(capabilities: dict[str, Any]) -> stages.Act:
    """Introduces itself with these capabilities."""

    async def act(line: mcp.Line, heard: stages.Heard) -> bool:
        if heard.method != "server/discover":
            return False
        value = {"supportedVersions": [mcp.MODERN], "capabilities": capabilities}
        await line.json(stages.result(heard, value))
        return True

    return act


@pytest.mark.parametrize(
    ("capabilities", "asked"),
    [
        ({"tools": {}}, ["tools/list"]),
        ({"prompts": {}}, ["prompts/list"]),
        ({"resources": {}}, ["resources/list", "resources/templates/list"]),
        ({"logging": {}}, ["tools/list"]),
        ({}, ["tools/list"]),
    ],
)
def test_a_server_is_asked_only_for_what_it_says_it_has(
    capabilities: dict[str, Any], asked: list[str]
) -> None:
    stage = full("modern", act=saying(capabilities))

    async def scenario(world: proxies.World) -> None:
        for kind in call.Kind:
            found = await listing(world, kind)
            assert found.introduction.capabilities == frozenset(capabilities)
        assert list(dict.fromkeys(heard.method for heard in stage.heard)) == ["server/discover", *asked]

    drain(stage, scenario)


def breaking(method: str, answer: Callable[[stages.Heard], dict[str, Any]]) -> stages.Act:
    async def act(line: mcp.Line, heard: stages.Heard) -> bool:
        if heard.method == method:
            await line.json(answer(heard))
        return heard.method == method

    return act


def test_resources_without_templates_are_resources() -> None:
    unknown = breaking("resources/templates/list", lambda heard: stages.error(heard, -32601, "no"))

    async def scenario(world: proxies.World) -> None:
        found = (await listing(world, call.Kind.RESOURCE)).definitions
        assert (len(found.resources), found.templates) == (5, ())

    drain(full(act=unknown), scenario)


def test_a_list_that_fails_is_its_own_kinds_failure_alone() -> None:
    async def scenario(world: proxies.World) -> None:
        with pytest.raises(lists.ListingFailed, match="error"):
            await listing(world, call.Kind.PROMPT)
        assert len((await listing(world, call.Kind.TOOL)).definitions.tools) == 5
        told = await world.ask(LISTED)
        assert len(told.result["tools"]) == 5
        assert not world.current.bound.servers[proxies.API].observed(call.Kind.PROMPT)

    drain(full(act=breaking("prompts/list", lambda heard: stages.error(heard, -32603, "boom"))), scenario)


@pytest.mark.parametrize("cursor", ["", "2", "\u00e9"])
def test_a_list_that_goes_round_in_circles_is_no_list(cursor: str) -> None:
    def round_again(heard: stages.Heard) -> dict[str, Any]:
        return stages.result(heard, {"prompts": [], "nextCursor": cursor})

    stage = full(act=breaking("prompts/list", round_again))

    async def scenario(world: proxies.World) -> None:
        with pytest.raises(lists.ListingFailed, match="same cursor twice"):
            await listing(world, call.Kind.PROMPT)
        assert len(stage.of("prompts/list")) == 2

    drain(stage, scenario)


def test_a_list_of_too_many_bytes_is_given_up() -> None:
    big = stages.prompt("p", description="x" * 3_000_000)

    def more(heard: stages.Heard) -> dict[str, Any]:
        at = int(heard.params.get("cursor", "0"))
        return stages.result(heard, {"prompts": [{**big, "name": f"p{at}"}], "nextCursor": str(at + 1)})

    async def scenario(world: proxies.World) -> None:
        with pytest.raises(lists.ListingFailed, match="UpstreamTooLarge"):
            await listing(world, call.Kind.PROMPT)

    drain(full(act=breaking("prompts/list", more)), scenario)


def test_more_entries_than_anybody_reads_are_cut_off_and_told() -> None:
    stage = full()
    stage.prompts = [stages.prompt(f"p{n}") for n in range(catalog.TOOLS_MAX + 500)]
    stage.page = 1000

    async def scenario(world: proxies.World) -> None:
        found = (await listing(world, call.Kind.PROMPT)).definitions
        assert len(found.prompts) == catalog.TOOLS_MAX
        assert {(one.kind, one.reason.value) for one in found.dropped} == {(call.Kind.PROMPT, "TooManyTools")}

    drain(stage, scenario)


@pytest.mark.parametrize(
    ("said", "seconds"), [(1500, 1.5), (0, 0.0), ("soon", None), (None, None), (True, None), (-1, None)]
)
def test_how_long_a_list_is_fresh_is_a_number_or_nothing(said: Any, seconds: float | None) -> None:
    def timed(heard: stages.Heard) -> dict[str, Any]:
        return stages.result(heard, {"tools": [], "ttlMs": said})

    async def scenario(world: proxies.World) -> None:
        assert (await listing(world, call.Kind.TOOL)).ttl_seconds == seconds

    drain(full(act=breaking("tools/list", timed)), scenario)


@pytest.mark.parametrize(
    "answer", [{}, {"prompts": None}, {"prompts": {}}, {"prompts": [], "nextCursor": 7}, {"tools": []}]
)
def test_what_is_no_page_is_no_list(answer: dict[str, Any]) -> None:
    async def scenario(world: proxies.World) -> None:
        with pytest.raises(lists.ListingFailed, match="UpstreamProtocolError"):
            await listing(world, call.Kind.PROMPT)

    drain(full(act=breaking("prompts/list", lambda heard: stages.result(heard, answer))), scenario)


def test_entries_that_clients_could_not_read_are_left_out_of_every_kind() -> None:
    stage = full()
    stage.prompts = [stages.prompt("ok"), {"name": 5}, stages.prompt("a\nb"), stages.prompt("ok"), "text"]
    stage.resources = [
        stages.resource("file:///ok"),
        {"uri": "file:///x"},
        stages.resource("file:///a/../b"),
        stages.resource("ho ho"),
    ]
    stage.templates = [stages.template("file:///{ok}"), {"uriTemplate": 7, "name": "x"}]

    async def scenario(world: proxies.World) -> None:
        prompts = (await listing(world, call.Kind.PROMPT)).definitions
        assert (named(prompts.prompts), len(prompts.dropped)) == (["ok"], 4)
        resources = (await listing(world, call.Kind.RESOURCE)).definitions
        assert (named(resources.resources), named(resources.templates)) == (["file:///ok"], ["file:///{ok}"])
        assert len(resources.dropped) == 4

    stage.page = 100
    drain(stage, scenario)


def test_servers_are_listed_by_a_session_that_declares_what_the_entry_permits_and_called_by_others() -> None:
    stage = full("legacy")

    async def scenario(world: proxies.World) -> None:
        await listing(world, call.Kind.TOOL)
        await listing(world, call.Kind.PROMPT)
        assert (await world.call("t1")).reason is None  # by an agent of the other era: nobody could be asked
        listed, called = (heard.params["capabilities"] for heard in stage.of("initialize"))
        assert (listed, called) == ({"elicitation": {"form": {}}}, {})
        sessions = [
            heard.headers["mcp-session-id"] for heard in stage.heard if heard.method.endswith("/list")
        ]
        assert set(sessions) == {"stage-1"}
        assert [heard.headers["mcp-session-id"] for heard in stage.of("tools/call")] == ["stage-2"]

    drain(stage, scenario)


def test_a_stateless_server_that_has_more_by_now_is_found_out() -> None:
    capabilities: dict[str, Any] = {"tools": {}}
    stage = full("modern", act=saying(capabilities))

    async def scenario(world: proxies.World) -> None:
        await asyncio.gather(*(listing(world, kind) for kind in call.Kind))
        assert len(stage.of("server/discover")) == 1
        assert (await listing(world, call.Kind.PROMPT)).definitions.prompts == ()
        capabilities["prompts"] = {}
        found = await listing(world, call.Kind.PROMPT)
        assert len(found.definitions.prompts) == 5
        assert found.introduction.has("prompts")
        asked = len(stage.of("server/discover"))
        await listing(world, call.Kind.PROMPT)
        await listing(world, call.Kind.TOOL)
        assert len(stage.of("server/discover")) == asked == 3

    drain(stage, scenario)
