# SPDX-License-Identifier: Apache-2.0
"""Sessions of handshake-era agents: whose they are, what a cancellation finds in them, and how they end."""

from __future__ import annotations

import asyncio

import pytest
from tests import proxies
from tests.servers import mcp

from outrider import audit, names, testing

CANCELLED = "notifications/cancelled"
OTHER = names.ServerId("crm", "other")


def cancellation(request: object) -> dict[str, object]:
    return proxies.request(CANCELLED, {"requestId": request, "reason": "changed my mind"}, id_=None)


@pytest.mark.parametrize("session", ["nobody's", "", "x" * 5000])
def test_an_unknown_session_is_what_the_official_sdks_say(session: str) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        told = await world.call("echo", id_="a", modern=False, session=session)
        assert (told.status, told.last["id"]) == (404, "a")
        assert told.last["error"] == {"code": -32001, "message": "Session not found"}
        assert world.refusals[-1].reason == "SessionUnknown"
        assert peer.calls == []

    proxies.run(scenario)


def test_a_session_is_good_for_the_endpoint_it_was_opened_at() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        world.apply(proxies.a_view(peer), proxies.a_view(peer, id=OTHER))
        session = await world.open_session()
        assert (await world.call("echo", modern=False, session=session)).status == 200
        for path in ("/mcp", "/crm/other/mcp"):
            assert (await world.call("echo", modern=False, session=session, path=path)).status == 404

    proxies.run(scenario)


def test_a_session_outlives_a_change_of_configuration() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        session = await world.open_session()
        world.apply(proxies.a_view(peer, testing.allow(), testing.deny("errs"), generation=2))
        assert (await world.call("echo", modern=False, session=session)).status == 200

    proxies.run(scenario)


@pytest.mark.parametrize("id_", [7, "7"])
def test_a_cancellation_finds_the_call_and_the_server_hears_of_it_under_its_own_id(id_: object) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        session = await world.open_session()
        await world.call("echo", id_=1, modern=False, session=session)
        asking = await world.calling("waits", id_=id_, modern=False, session=session)
        await peer.called.wait()
        told = await world.ask(cancellation(id_), modern=False, session=session)
        assert told.status == 202
        answer = await asking.answer()
        assert (answer.status, answer.reason, answer.last["id"]) == (200, "Cancelled", id_)
        await peer.told.wait()
        await world.ask(cancellation(id_), modern=False, session=session)  # of a call that is over: nothing
        await world.settled()
        (note,) = peer.of(CANCELLED)
        assert note.body["params"]["requestId"] == peer.calls[-1].body["id"]
        assert note.headers["mcp-session-id"] == peer.calls[-1].headers["mcp-session-id"]
        assert (world.outcomes[-1].reason, world.outcomes[-1].status) == ("Cancelled", audit.Status.FAILED)

    proxies.run(scenario, era="legacy", limits=(testing.a_limit(calls=9),))


@pytest.mark.parametrize("how", ["another session", "no session", "another type", "modern", "an object"])
def test_a_cancellation_finds_no_call_but_its_own_sessions(how: str) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        mine, other = await world.open_session(), await world.open_session()
        asking = await world.calling("waits", id_=7, modern=False, session=mine)
        await peer.called.wait()
        if how == "modern":
            told = await world.ask(cancellation(7))
        elif how == "no session":
            told = await world.ask(cancellation(7), modern=False)
        else:
            wanted = {"another type": "7", "an object": {"a": 7}}.get(how, 7)
            session = other if how == "another session" else mine
            told = await world.ask(cancellation(wanted), modern=False, session=session)
        assert told.status == 202
        peer.go_on.set()
        assert (await asking.answer()).reason is None
        assert peer.of(CANCELLED) == []

    proxies.run(scenario, era="legacy")


def test_without_a_session_nobodys_call_is_cancelled() -> None:
    """Two agents without sessions may use the same ids: a cancellation of one must not hit the other (R23)."""

    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        asking = await world.calling("waits", id_=1, modern=False)
        await peer.called.wait()
        assert (await world.ask(cancellation(1), modern=False)).status == 202
        peer.go_on.set()
        assert (await asking.answer()).reason is None

    proxies.run(scenario)


def test_equal_ids_in_one_session_are_two_calls() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        session = await world.open_session()
        first = await world.calling("waits", id_=1, modern=False, session=session)
        await peer.called.wait()
        second = await world.call("echo", {"n": 2}, id_=1, modern=False, session=session)
        assert (second.last["id"], second.text) == (1, '{"n": 2}')
        assert (await world.ask(cancellation(1), modern=False, session=session)).status == 202
        assert (await first.answer()).reason == "Cancelled"

    proxies.run(scenario)


def test_every_agents_session_has_a_session_of_its_own_at_the_server() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        one, two = await world.open_session(), await world.open_session()
        for session in (one, two, one, two):
            await world.call("echo", modern=False, session=session)
        used = [seen.headers["mcp-session-id"] for seen in peer.calls]
        assert used[0] == used[2] != used[1] == used[3]
        assert peer.opened == 3  # the proxy's own, for the list, and one each

    proxies.run(scenario, era="legacy")


def test_delete_ends_the_session_here_and_at_the_server_and_its_calls() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        session, other = await world.open_session(), await world.open_session()
        await world.call("echo", modern=False, session=other)
        asking = await world.calling("waits", modern=False, session=session)
        await peer.called.wait()
        theirs = peer.calls[-1].headers["mcp-session-id"]
        head = {"mcp-session-id": session, "mcp-protocol-version": mcp.LEGACY}
        told = await (await world.send("DELETE", proxies.PATH, b"", head)).answer()
        assert (told.status, told.body) == (200, b"")
        assert (await asking.answer()).reason == "Cancelled"
        await world.settled()
        (farewell,) = [seen for seen in peer.seen if seen.verb == "DELETE"]
        assert farewell.headers["mcp-session-id"] == theirs
        assert (await world.call("echo", modern=False, session=session)).status == 404
        again = await (await world.send("DELETE", proxies.PATH, b"", head)).answer()
        assert again.status == 404
        assert (await world.call("echo", modern=False, session=other)).status == 200

    proxies.run(scenario, era="legacy")


def test_ending_sessions_is_no_failure_of_the_server() -> None:
    """An empty 200 without a Content-Type is how TypeScript servers answer a DELETE."""

    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        sessions = [await world.open_session() for _ in range(6)]
        for session in sessions:
            await world.call("echo", modern=False, session=session)
        for session in sessions:
            await (await world.send("DELETE", proxies.PATH, b"", {"mcp-session-id": session})).answer()
        await world.settled()
        assert (await world.call("echo")).reason is None
        assert len([seen for seen in peer.seen if seen.verb == "DELETE"]) == 6

    proxies.run(scenario, era="legacy")


def test_delete_without_a_session_is_not_allowed() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        told = await (await world.send("DELETE", proxies.PATH, b"", {})).answer()
        assert (told.status, told.headers["allow"]) == (405, "POST")

    proxies.run(scenario)


def test_many_agents_leave_at_once_and_nothing_is_left_behind() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        await world.call("echo")
        askings = [await world.calling("waits", id_=number) for number in range(30)]
        async with asyncio.timeout(10):
            while len(peer.calls) < 31:
                await asyncio.sleep(0.005)
        for each in askings:
            each.leave()
        await world.settled()
        assert [each.reason for each in world.outcomes].count("Cancelled") == 30

    proxies.run(scenario, limits=(testing.a_limit(calls=100),))


def test_a_call_cancelled_many_times_is_cancelled_once() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        session = await world.open_session()
        for id_ in range(5):
            peer.called.clear()
            asking = await world.calling("waits", id_=id_, modern=False, session=session)
            await peer.called.wait()
            notes = [await world.start(cancellation(id_), modern=False, session=session) for _ in range(8)]
            assert {(await each.answer()).status for each in notes} == {202}
            assert (await asking.answer()).reason == "Cancelled"
        await world.settled()
        told = [seen.body["params"]["requestId"] for seen in peer.of(CANCELLED)]
        assert sorted(told) == sorted(seen.body["id"] for seen in peer.calls)

    proxies.run(scenario, era="legacy")
