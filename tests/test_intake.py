# SPDX-License-Identifier: Apache-2.0
"""A request is placed before anything is looked up: its era, its session, and whose it is not."""

from __future__ import annotations

import pytest
from tests import proxies
from tests.servers import idp, mcp

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


def test_a_request_is_whose_token_it_brings_and_waits_only_for_keys_that_are_not_there() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        async with idp.running() as provider:
            world.providers = (provider.settings(),)
            world.apply(proxies.a_view(peer))
            for number in range(3):
                told = await world.call("echo", outrider_user=provider.token(f"u{number}"))
                assert told.reason is None
            assert [each.principal.user for each in world.intents] == ["okta:u0", "okta:u1", "okta:u2"]
            assert provider.fetches == 1
            assert len(world.users) == 3

    proxies.run(scenario)


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"outrider-user": ""}, "0 characters"),
        ({"outrider-user": "a", "Outrider-User": "a"}, "2 headers"),
        ({"outrider-user": "caf\u00e9"}, "not ASCII"),
    ],
)
def test_a_header_that_is_no_token_is_not_nobody(headers: dict[str, str], said: str) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        asking = await world.start(proxies.request("tools/call", {"name": "echo"}), **headers)
        told = await asking.answer()
        assert told.reason == "UserTokenInvalid"
        [record] = world.refusals
        assert said in record.detail
        assert peer.calls == []

    proxies.run(scenario)
