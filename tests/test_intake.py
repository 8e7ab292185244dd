# SPDX-License-Identifier: Apache-2.0
"""A request is placed before anything is looked up: its era, its session, and whose it is not."""

from __future__ import annotations

import pytest
from tests import proxies
from tests.servers import mcp

from outrider import testing


def test_a_request_belongs_to_the_session_it_names_and_to_no_other() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        first, second = [await world.open_session(), await world.open_session()]
        for session in (first, second, first):
            assert (await world.call("echo", modern=False, session=session)).status == 200
        assert {seen.headers["mcp-session-id"] for seen in peer.calls} == {
            "s2",
            "s3",
        }  # s1 is our own, for the list
        assert len(world.pipeline.agents) == 2

    proxies.run(scenario, era="legacy")


@pytest.mark.parametrize("method", ["tools/call", "tools/list", "ping", "x/y"])
def test_an_unknown_session_is_404_whatever_was_asked(method: str) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        elsewhere = await world.open_session(path="/mcp")
        for session in ("nonsense", elsewhere, elsewhere[:-2] + "xx"):
            told = await world.ask(proxies.request(method, {"name": "echo"}), modern=False, session=session)
            assert (told.status, told.last["error"]["code"], told.last["id"]) == (404, -32001, 1)
        assert {each.reason for each in world.refusals} == {"SessionUnknown"}
        assert peer.calls == []

    proxies.run(scenario)


def test_a_session_ends_once_and_only_for_whom_it_is() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        session = await world.open_session()
        for path, headers, status in (
            (proxies.PATH, {}, 405), ("/mcp", {"mcp-session-id": session}, 404), (proxies.PATH, {"mcp-session-id": session}, 200),
            (proxies.PATH, {"mcp-session-id": session}, 404),
        ):  # fmt: skip
            told = await (await world.send("DELETE", path, b"", headers)).answer()
            assert told.status == status
        assert (await world.call("echo", modern=False, session=session)).status == 404

    proxies.run(scenario, testing.allow())
