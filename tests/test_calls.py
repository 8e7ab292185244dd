# SPDX-License-Identifier: Apache-2.0
"""Governed requests are decided alike, whichever they are; what is hidden looks unknown in the agent's era."""

from __future__ import annotations

from typing import Any

import pytest
from tests import proxies
from tests.servers import mcp

from outrider import testing

both_agents = pytest.mark.parametrize("modern", [True, False], ids=["modern-agent", "legacy-agent"])


@both_agents
@pytest.mark.parametrize("path", [proxies.PATH, "/mcp"])
@pytest.mark.parametrize(
    ("method", "params", "codes"),
    [
        ("prompts/get", {"name": "hidden"}, (-32602, -32602)),
        ("resources/read", {"uri": "file:///hidden"}, (-32602, -32002)),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "hidden"}, "argument": {"name": "a", "value": ""}}, (-32602, -32602)),
    ],
)  # fmt: skip
def test_what_no_rule_allows_looks_unknown_in_its_era(
    modern: bool, path: str, method: str, params: dict[str, Any], codes: tuple[int, int]
) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        named = {"mcp_name": params["uri"] if "uri" in params else params.get("name", "")} if modern else {}
        told = await world.ask(proxies.request(method, params), modern=modern, path=path, **named)
        error = told.last["error"]
        assert (told.status, error["code"]) == (200, codes[0 if modern else 1])
        assert set(told.refusal) == {"reason", "requestId"}
        (record,) = world.refusals
        assert (record.method, record.visible, record.event) == (method, False, told.refusal["requestId"])
        assert peer.of(method) == []

    proxies.run(scenario, testing.allow("echo"))


def test_a_name_that_the_header_does_not_repeat_is_refused() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        for method, params in (("prompts/get", {"name": "p"}), ("resources/read", {"uri": "a://b"})):
            for header in ({}, {"mcp_name": "other"}):
                told = await world.ask(proxies.request(method, params), **header)
                assert (told.status, told.last["error"]["code"]) == (400, -32020)

    proxies.run(scenario)


def test_more_calls_than_there_is_room_for_are_told_to_come_back() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        first = await world.calling("waits", id_=1)
        await peer.called.wait()
        told = await world.call("echo", id_=2)
        assert told.reason == "Overloaded"
        assert told.refusal["retryAfterSeconds"] == 1
        peer.go_on.set()
        assert (await first.answer()).text == "late"

    proxies.run(scenario, calls_max=1)
