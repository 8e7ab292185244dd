# SPDX-License-Identifier: Apache-2.0
"""What agents are shown: every list in both eras, introductions that wait a little, servers that are down or slow or change."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tests import proxies
from tests.servers import mcp, stages

from outrider import call, names, rules, testing
from outrider_sidecar import lists

OTHER = names.ServerId("crm", "other")
EVERYTHING = testing.allow(prompts=("*",), resources=("*",))
ERAS = pytest.mark.parametrize("modern", [True, False], ids=["modern-agent", "legacy-agent"])


def a_stage(label: str = "one", era: str = "dual", **more: Any) -> stages.Stage:
    given: dict[str, Any] = {
        "tools": [stages.tool("t")],
        "prompts": [stages.prompt("greet", title="é"), stages.prompt("a b")],
        "resources": [stages.resource("file:///a", size=1)],
        "templates": [stages.template("file:///{path}")],
    }
    return stages.Stage(era, label, **{**given, **more})


def a_view(stage: stages.Stage, *chosen: rules.Rule, **more: Any) -> Any:
    endpoint = {"url": stage.url, **more.pop("endpoint", {})}
    return proxies.a_view(None, *(chosen or (EVERYTHING,)), endpoint=endpoint, **more)


@contextlib.asynccontextmanager
async def before(*served: stages.Stage) -> AsyncIterator[proxies.World]:
    """A proxy before these servers: the first is crm/api, the second crm/other; everything allowed."""
    with tempfile.TemporaryDirectory() as folder:
        async with contextlib.AsyncExitStack() as stack:
            for stage in served:
                await stack.enter_async_context(stages.playing(stage))
            world = await stack.enter_async_context(proxies.running(pathlib.Path(folder)))
            world.apply(
                *(a_view(stage, id=id_) for id_, stage in zip((proxies.API, OTHER), served, strict=False))
            )
            yield world


def run(scenario: Callable[[proxies.World], Awaitable[None]], *served: stages.Stage) -> None:
    async def main() -> None:
        async with before(*served) as world:
            await scenario(world)

    asyncio.run(asyncio.wait_for(main(), 60))


async def shown(world: proxies.World, method: str, **options: Any) -> Any:
    told = await world.ask(proxies.request(method), **options)
    return told.result[stages.LISTS[method]]


def initialize(version: str = mcp.LEGACY) -> dict[str, Any]:
    info = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    return proxies.request("initialize", info)


# Lists ------------------------------------------------------------------------------------------------------------------


@ERAS
@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_all_four_lists_reach_agents_of_both_eras_as_the_server_wrote_them(era: str, *, modern: bool) -> None:
    stage = a_stage(era=era)

    async def scenario(world: proxies.World) -> None:
        for method, member in stages.LISTS.items():
            told = await world.ask(proxies.request(method), modern=modern)
            written = stage.templates if member == "resourceTemplates" else getattr(stage, member)
            assert told.result[member] == written
            assert ("resultType" in told.result, "cacheScope" in told.result) == (modern, modern)
            assert len(stage.of(method)) == 1

    run(scenario, stage)


@ERAS
def test_2500_of_every_kind_come_in_pages_and_a_made_up_cursor_is_unknown(*, modern: bool) -> None:
    stage = a_stage(
        tools=[stages.tool(f"t{n}") for n in range(2500)],
        prompts=[stages.prompt(f"p{n}") for n in range(2500)],
        resources=[stages.resource(f"file:///{n}") for n in range(2500)],
        templates=[stages.template(f"x{n}:///{{y}}") for n in range(2500)],
        page=700,
    )

    async def scenario(world: proxies.World) -> None:
        cursors, foreign = set(), "AA=="
        for method, member in stages.LISTS.items():
            found, params, pages = [], {}, 0
            while True:
                told = await world.ask(proxies.request(method, params), modern=modern)
                found += told.result[member]
                pages += 1
                if (cursor := told.result.get("nextCursor")) is None:
                    break
                cursors.add(cursor)
                params = {"cursor": cursor}
            written = stage.templates if member == "resourceTemplates" else getattr(stage, member)
            assert (pages, found) == (3, written)
            assert len(stage.of(method)) == 4
            for wrong in ("", "x", 5, foreign):
                odd = await world.ask(proxies.request(method, {"cursor": wrong}), modern=modern)
                assert odd.last["error"]["code"] == -32602
            foreign = params["cursor"]
        assert len(cursors) == 8  # one list's cursors are no other's

    run(scenario, stage)


@ERAS
def test_what_policy_hides_is_in_no_list_and_a_swap_changes_what_is_seen_at_once(*, modern: bool) -> None:
    stage = a_stage(prompts=[stages.prompt("greet"), stages.prompt("secret")])

    async def scenario(world: proxies.World) -> None:
        assert [each["name"] for each in await shown(world, "prompts/list", modern=modern)] == [
            "greet",
            "secret",
        ]
        world.apply(a_view(stage, testing.allow(prompts=("greet",))))
        assert [each["name"] for each in await shown(world, "prompts/list", modern=modern)] == ["greet"]
        assert await shown(world, "resources/list", modern=modern) == []
        assert stage.of("resources/list") == []  # what nobody could read is not asked for
        world.apply(a_view(stage, EVERYTHING, testing.deny("no", prompts=("GREET",))))
        assert [each["name"] for each in await shown(world, "prompts/list", modern=modern)] == ["secret"]

    run(scenario, stage)


@ERAS
def test_where_servers_are_merged_prompts_have_exposed_names_and_resources_are_not_there(
    *, modern: bool
) -> None:
    one, two = a_stage("one"), a_stage("two", "legacy")

    async def scenario(world: proxies.World) -> None:
        options = {"path": "/mcp", "modern": modern}
        prompts = [each["name"] for each in await shown(world, "prompts/list", **options)]
        assert prompts[0::2] == ["api__greet", "other__greet"]
        assert [name[:10] for name in prompts[1::2]] == ["api__a_b_" + prompts[1][9], "other__a_b"]
        assert await shown(world, "resources/list", **options) == []
        assert await shown(world, "resources/templates/list", **options) == []
        assert one.of("resources/list") == two.of("resources/list") == []

    run(scenario, one, two)


@ERAS
def test_a_dead_server_is_left_out_of_the_merged_lists_and_that_is_recorded(*, modern: bool) -> None:
    one = a_stage("one")

    async def scenario(world: proxies.World) -> None:
        dead = proxies.a_view(None, EVERYTHING, id=OTHER, endpoint={"url": "http://127.0.0.1:9/mcp"})
        world.apply(a_view(one), dead)
        for method, wanted in (("tools/list", ["api__t"]), ("prompts/list", ["api__greet"])):
            found = await shown(world, method, path="/mcp", modern=modern)
            assert [each["name"] for each in found][:1] == wanted
            (record,) = [each for each in world.refusals if method in each.detail]
            assert (record.server, record.reason) == ("crm/other", "UpstreamUnreachable")
        told = await world.ask(proxies.request("prompts/list"), path="/crm/other/mcp", modern=modern)
        assert told.last["error"]["data"]["dev.outrider/refusal"]["reason"] == "UpstreamUnreachable"

    run(scenario, one)


def holding(method: str, go_on: asyncio.Event) -> stages.Act:
    """Answers one method only when the test lets it."""

    async def act(_line: mcp.Line, heard: stages.Heard) -> bool:
        if heard.method == method:
            await go_on.wait()
        return False

    return act


@pytest.mark.parametrize("slow", ["prompts/list", "resources/list"])
def test_a_list_that_hangs_hides_no_other_kind(slow: str) -> None:
    async def scenario() -> None:
        go_on = asyncio.Event()
        stage = a_stage(act=holding(slow, go_on))
        async with before(stage) as world:
            loop = asyncio.get_running_loop()
            hanging = await world.start(proxies.request(slow))
            began = loop.time()
            for method in stages.LISTS:
                if not method.startswith(slow.partition("/")[0]):
                    assert await shown(world, method)
            assert loop.time() - began < lists.LOOK_SECONDS_MAX / 2
            late = await hanging.answer()
            assert late.last["error"]["data"]["dev.outrider/refusal"]["reason"] == "UpstreamNotReady"
            go_on.set()
            await world.lists.ensure(proxies.API, call.Kind.PROMPT)
            await world.lists.ensure(proxies.API, call.Kind.RESOURCE)
            assert await shown(world, slow)

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_list_that_changed_is_seen_without_waiting_for_its_time() -> None:
    stage = a_stage()

    async def scenario(world: proxies.World) -> None:
        assert len(await shown(world, "prompts/list")) == 2
        stage.prompts = [*stage.prompts, stages.prompt("new")]
        assert len(await shown(world, "prompts/list")) == 2  # fresh, for all that is known
        world.lists.changed(proxies.API, call.Kind.PROMPT)
        await stage.until(lambda: len(stage.of("prompts/list")) == 2)
        await world.lists.ensure(proxies.API, call.Kind.PROMPT)
        assert [each["name"] for each in await shown(world, "prompts/list")][-1] == "new"
        assert len(stage.of("tools/list")) == 0

    run(scenario, stage)


def test_a_session_of_many_agents_costs_one_list() -> None:
    stage = a_stage()

    async def scenario(world: proxies.World) -> None:
        for _ in range(5):
            session = await world.open_session()
            for method in stages.LISTS:
                await shown(world, method, modern=False, session=session)
        assert [len(stage.of(method)) for method in stages.LISTS] == [1, 1, 1, 1]

    run(scenario, stage)


# Introductions ----------------------------------------------------------------------------------------------------------


@ERAS
def test_an_introduction_says_what_the_server_has_and_this_caller_could_reach(*, modern: bool) -> None:
    stage = a_stage()
    asked = proxies.request("server/discover") if modern else initialize()

    async def scenario(world: proxies.World) -> None:
        said = (await world.ask(asked, modern=modern)).result["capabilities"]
        assert {"tools", "prompts", "resources"} <= set(said)
        world.apply(a_view(stage, testing.allow(prompts=("greet",))))
        said = (await world.ask(asked, modern=modern)).result["capabilities"]
        assert "resources" not in said
        assert {"tools", "prompts"} <= set(said)
        said = (await world.ask(asked, modern=modern, path="/mcp")).result["capabilities"]
        assert {"tools", "prompts"} <= set(said)
        assert "resources" not in said
        assert not {"tasks", "experimental", "extensions"} & set(said)

    run(scenario, stage)


@ERAS
def test_a_server_that_has_less_is_not_said_to_have_more(*, modern: bool) -> None:
    async def act(line: mcp.Line, heard: stages.Heard) -> bool:
        said = {"tools": {"listChanged": False}, "tasks": {"list": {}}, "experimental": {"x": {}}}
        if heard.method == "server/discover":
            await line.json(stages.result(heard, {"supportedVersions": [mcp.MODERN], "capabilities": said}))
        return heard.method == "server/discover"

    async def scenario(world: proxies.World) -> None:
        asked = proxies.request("server/discover") if modern else initialize()
        said = (await world.ask(asked, modern=modern)).result["capabilities"]
        assert set(said) == {"tools"}
        assert await shown(world, "prompts/list", modern=modern) == []

    run(scenario, a_stage(era="modern", act=act))


@ERAS
def test_a_server_that_is_slow_to_meet_delays_its_introduction_by_a_bounded_time(*, modern: bool) -> None:
    async def scenario() -> None:
        go_on = asyncio.Event()
        async with before(a_stage(act=holding("tools/list", go_on))) as world:
            asked = proxies.request("server/discover") if modern else initialize()
            loop = asyncio.get_running_loop()
            began = loop.time()
            told = await world.ask(asked, modern=modern)
            assert lists.LOOK_SECONDS_MAX - 0.1 < loop.time() - began < lists.LOOK_SECONDS_MAX * 2
            assert {"tools", "prompts", "resources"} <= set(told.result["capabilities"])
            began = loop.time()
            await world.ask(asked, modern=modern, path="/mcp")
            assert loop.time() - began < 1.0  # where servers are merged nobody waits for one of them
            go_on.set()
            await world.lists.ensure(proxies.API)

    asyncio.run(asyncio.wait_for(scenario(), 60))


@ERAS
def test_instructions_reach_agents_only_when_the_entry_passes_them(*, modern: bool) -> None:
    async def act(line: mcp.Line, heard: stages.Heard) -> bool:
        if heard.method in ("server/discover", "initialize"):
            made = stages.answer(stages.Stage(), heard)
            made["result"]["instructions"] = "Use greet first."
            await line.json(made, b"mcp-session-id: one-0")
        return heard.method in ("server/discover", "initialize")

    stage = a_stage(act=act, sessions={"one-0": set()})
    asked = proxies.request("server/discover") if modern else initialize()

    async def scenario(world: proxies.World) -> None:
        assert "instructions" not in (await world.ask(asked, modern=modern)).result
        world.apply(a_view(stage, instructions=True))
        assert (await world.ask(asked, modern=modern)).result["instructions"] == "Use greet first."
        assert "instructions" not in (await world.ask(asked, modern=modern, path="/mcp")).result

    run(scenario, stage)


def test_a_disabled_server_is_neither_met_nor_waited_for() -> None:
    stage = a_stage()

    async def scenario(world: proxies.World) -> None:
        world.apply(a_view(stage, lifecycle=testing.snapshot.Lifecycle.DISABLED))
        told = await world.ask(initialize(), modern=False)
        assert "tools" in told.result["capabilities"]
        for method in stages.LISTS:
            assert await shown(world, method, modern=False) == []
        assert stage.heard == []

    run(scenario, stage)


def test_how_long_agents_may_keep_what_they_are_shown_is_less_than_we_keep_it() -> None:
    stage = a_stage()

    async def scenario(world: proxies.World) -> None:
        told = await world.ask(proxies.request("prompts/list"))
        assert told.result["ttlMs"] / 1000 < lists.TTL_SECONDS
        assert json.loads(told.body)["result"]["cacheScope"] == "private"

    run(scenario, stage)


def test_within_a_session_a_list_comes_as_an_event_to_whoever_takes_events_and_as_json_to_all_others() -> (
    None
):
    stage = a_stage(prompts=[stages.prompt("p", description="x" * 600_000)])

    async def scenario(world: proxies.World) -> None:
        session = await world.open_session()
        kinds = {}
        for method in ("tools/list", "prompts/list"):
            for accept in ("application/json, text/event-stream", "application/json"):
                options = {"modern": False, "session": session, "accept": accept}
                told = await world.ask(proxies.request(method), **options)
                assert told.result[stages.LISTS[method]]
                kinds[method, "event" in accept] = told.headers["content-type"]
        assert set(kinds.values()) == {"text/event-stream", "application/json"}
        assert {kind for (_, events), kind in kinds.items() if not events} == {"application/json"}
        stage.prompts.append(stages.prompt("q", description="x" * 600_000))
        world.lists.changed(proxies.API, call.Kind.PROMPT)
        await stage.until(lambda: len(stage.of("prompts/list")) == 2)
        await world.lists.ensure(proxies.API, call.Kind.PROMPT)
        told = await world.ask(proxies.request("prompts/list"), modern=False, session=session)
        assert told.headers["content-type"] == "application/json"  # clients cap events at a megabyte
        assert (await world.ask(proxies.request("tools/list"))).headers["content-type"] == "application/json"

    run(scenario, stage)
