# SPDX-License-Identifier: Apache-2.0
"""What official clients see of real servers through the real proxy: every kind, page by page, with others dead or silent."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest
from mcp.client import client as clients
from mcp.client import streamable_http
from mcp.shared import exceptions
from tests import journals, laptop
from tests.scenarios import agents, servers, shelves

from outrider import audit

LIBRARY, EVERYTHING, DEAD, SILENT = "crm/library", "crm/everything", "far/dead", "far/silent"
MODES = pytest.mark.parametrize("mode", ["auto", "legacy"])
KINDS = ("tools", "prompts", "resources", "resource_templates")


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """Takes connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"


@pytest.fixture(scope="module")
def urls(tmp_path_factory) -> Iterator[dict[str, str]]:
    logs = tmp_path_factory.mktemp("logs")
    with contextlib.ExitStack() as stack:
        yield {
            LIBRARY: stack.enter_context(servers.shelves(logs)),
            EVERYTHING: stack.enter_context(servers.everything(logs)),
            DEAD: "http://127.0.0.1:9/mcp",
            SILENT: stack.enter_context(silent()),
        }


@pytest.fixture(scope="module")
def home(tmp_path_factory, urls) -> Iterator[laptop.Laptop]:
    allowed = {**laptop.allow(), "prompts": ["*"], "resources": ["*"]}
    hidden = {"name": "hidden", "effect": "Deny", "prompts": ["SUM UP 7"], "resources": ["book://shelf/9*"]}
    each = []
    for name, url in urls.items():
        more = {"instructions": "Pass"} if name == LIBRARY else {}
        each.append(laptop.server(name, url, **more))
        rules = (allowed, hidden) if name == LIBRARY else (allowed,)
        each.append(laptop.policy(f"outrider-system/{name.partition('/')[2]}", name, *rules))
    with laptop.running(tmp_path_factory.mktemp("catalogues"), {"all.yaml": laptop.documents(*each)}) as made:
        yield made


@contextlib.asynccontextmanager
async def session(url: str, mode: str, token: str = "") -> AsyncIterator[Any]:
    head = {"Authorization": f"Bearer {token}"} if token else {}
    async with httpx2.AsyncClient(headers=head, timeout=30, trust_env=False) as http:
        transport = streamable_http.streamable_http_client(url, http_client=http)
        async with clients.Client(transport, mode=mode) as made:
            yield made


def refusals(home: laptop.Laptop) -> set[tuple[str, str]]:
    """(server, reason) of everything that was refused."""
    kept = journals.records(home.journal)
    return {(each.server, each.reason) for each in kept if isinstance(each, audit.RefusalRecord)}


def through(home: laptop.Laptop, server: str) -> tuple[str, str]:
    return f"http://127.0.0.1:{home.port}{laptop.path(server)}", home.agent.token


async def all_of(made: Any, kind: str) -> tuple[list[Any], int]:
    """Everything of one kind and in how many pages it came."""
    found, cursor, pages = [], None, 0
    while True:
        told = await getattr(made, f"list_{kind}")(cursor=cursor)
        found += [agents.plain(each.model_dump(mode="json", by_alias=True)) for each in getattr(told, kind)]
        pages += 1
        if (cursor := told.next_cursor) is None:
            return found, pages


def seen(url: str, mode: str, token: str = "") -> dict[str, tuple[list[Any], int]]:
    async def whole() -> dict[str, tuple[list[Any], int]]:
        async with session(url, mode, token) as made:
            return {kind: await all_of(made, kind) for kind in KINDS}

    return asyncio.run(whole())


@MODES
def test_thousands_of_every_kind_are_what_the_server_lists_less_what_is_denied(home, urls, mode) -> None:
    directly, ours = seen(urls[LIBRARY], mode), seen(through(home, LIBRARY)[0], mode, home.agent.token)
    assert [pages for _, pages in directly.values()] == [16] * 4
    assert [pages for _, pages in ours.values()] == [3, 3, 3, 3]
    denied = {"sum up 7"} | {f"book-{n}" for n in range(shelves.EACH) if str(n).startswith("9")}
    for kind in KINDS:
        assert ours[kind][0] == [each for each in directly[kind][0] if each["name"] not in denied]
    assert len(ours["resources"][0]) == shelves.EACH - 111


@MODES
def test_a_server_of_the_typescript_sdk_is_seen_as_it_is(home, urls, mode) -> None:
    directly, ours = seen(urls[EVERYTHING], mode), seen(through(home, EVERYTHING)[0], mode, home.agent.token)
    for kind in ("prompts", "resources", "resource_templates"):
        assert ours[kind][0] == directly[kind][0]
        assert ours[kind][0]
    assert {tool["name"] for tool in directly["tools"][0]} <= {tool["name"] for tool in ours["tools"][0]}


@MODES
def test_a_session_says_what_the_server_can_do_and_how_it_wants_to_be_used(home, mode) -> None:
    async def said(server: str) -> tuple[dict[str, Any], str | None]:
        async with session(through(home, server)[0], mode, home.agent.token) as made:
            return made.server_capabilities.model_dump(exclude_none=True), made.instructions

    capabilities, instructions = asyncio.run(said(LIBRARY))
    assert {"tools", "prompts", "resources", "completions"} <= set(capabilities)
    assert "tasks" not in capabilities
    assert instructions == shelves.INSTRUCTIONS
    assert asyncio.run(said(EVERYTHING))[1] is None
    capabilities, instructions = asyncio.run(said(""))
    assert "resources" not in capabilities
    assert instructions is None


@MODES
def test_the_merged_endpoint_is_useful_while_one_server_is_dead_and_another_silent(home, mode) -> None:
    async def visit() -> tuple[list[str], list[str], Any, Any]:
        async with session(through(home, "")[0], mode, home.agent.token) as made:
            tools = [tool["name"] for tool in (await all_of(made, "tools"))[0]]
            prompts = [prompt["name"] for prompt in (await all_of(made, "prompts"))[0]]
            last = next(name for name in prompts if name.startswith("crm_library__sum_up_2299_"))
            with pytest.raises(exceptions.MCPError):
                await made.get_prompt(next(name for name in prompts if "sum_up_5" in name) + "x")
            return (
                tools,
                prompts,
                await made.get_prompt(last),
                await made.call_tool("crm_library__read-2299", {}),
            )

    began = time.monotonic()
    tools, prompts, got, called = asyncio.run(visit())
    assert time.monotonic() - began < 20
    assert [name for name in tools if "library" in name] == [
        f"crm_library__read-{n}" for n in range(shelves.EACH)
    ]
    assert any(name.startswith("crm_everything__") for name in tools)
    assert len([name for name in prompts if "library" in name]) == shelves.EACH - 1
    assert got.messages[0].content.text == "sum up 2299"
    assert called.content[0].text == "read-2299"
    assert not [name for name in (*tools, *prompts) if name.startswith("far")]
    laptop.until(lambda: ("far/dead", "UpstreamUnreachable") in refusals(home), "the dead server is recorded")
    laptop.until(lambda: "far/silent" in {server for server, _ in refusals(home)}, "and the silent one")


@MODES
def test_completions_find_their_prompt_by_its_exposed_name(home, mode) -> None:
    async def visit() -> list[str]:
        async with session(through(home, "")[0], mode, home.agent.token) as made:
            names = [prompt["name"] for prompt in (await all_of(made, "prompts"))[0]]
            name = next(each for each in names if each.startswith("crm_library__sum_up_2_"))
            told = await made.complete(
                {"type": "ref/prompt", "name": name}, {"name": "tone", "value": "warm"}
            )
            return told.completion.values

    assert asyncio.run(visit()) == ["warm!"]
