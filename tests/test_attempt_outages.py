# SPDX-License-Identifier: Apache-2.0
"""What a call becomes when its server misbehaves or is gone: one clean answer, the right reason, units settled once."""

from __future__ import annotations

import asyncio
import socket

import pytest
from tests import proxies
from tests.servers import mcp

from outrider import audit, budgets, testing

FAILED, NOT_SENT = audit.Status.FAILED, audit.Status.NOT_SENT
LIMITS = (testing.a_limit(calls=100),)
ERAS = ["modern", "legacy"]
all_peers = pytest.mark.parametrize("era", ERAS)
both_agents = pytest.mark.parametrize("modern", [True, False], ids=["modern-agent", "legacy-agent"])


def spent(world: proxies.World) -> int:
    rows = world.parts.ledger.standing(0)
    assert [row.reserved for row in rows] == [0] * len(rows)
    return sum(row.spent for row in rows) // budgets.MICRO


@all_peers
@both_agents
@pytest.mark.parametrize(
    ("tool", "reason", "words"),
    [
        ("cuts", "UpstreamProtocolError", "unknown"),
        ("garbage", "UpstreamProtocolError", "unknown"),
        ("page", "UpstreamProtocolError", "unknown"),
        ("wrong_id", "UpstreamProtocolError", "unknown"),
        ("silent_ok", "UpstreamProtocolError", "unknown"),
        ("cut_stream", "UpstreamProtocolError", "unknown"),
        ("huge", "UpstreamTooLarge", "Ask for less"),
        ("redirects", "UpstreamRedirects", "/else"),
        ("unauthorized", "UpstreamUnauthorized", "Do not try again"),
        ("dies", "UpstreamProtocolError", "unknown"),
        ("teapot", "UpstreamProtocolError", "unknown"),
    ],
)  # fmt: skip
def test_a_server_that_misbehaves_gives_one_clean_error_that_is_charged(
    era: str, modern: bool, tool: str, reason: str, words: str
) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        told = await world.call(tool, id_="x", modern=modern)
        assert (told.status, told.last["id"], told.result["isError"]) == (200, "x", True)
        assert told.reason == reason
        assert words in told.text
        assert told.refusal["requestId"] in told.text
        assert "structuredContent" not in told.result
        assert b"hunter2" not in told.body
        assert b"127.0.0.1" not in told.body
        (outcome,) = world.outcomes
        assert (outcome.reason, outcome.status) == (reason, FAILED)
        assert spent(world) == 1
        assert len(peer.calls) == 1
        assert (await world.call("echo", modern=modern)).reason is None  # the next call is none the worse

    proxies.run(scenario, era=era, limits=LIMITS, endpoint={"result_bytes_max": 100_000})


@all_peers
@both_agents
def test_a_server_that_asks_for_what_its_client_cannot_give_ends_the_call_and_is_charged(
    era: str, modern: bool
) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        told = await world.call("asks", modern=modern)
        stateless = era == "modern"  # in the handshake era there is no such result
        assert told.reason == ("AskRefused" if stateless else "UpstreamProtocolError")
        assert ("asked" if stateless else "asks its client for input") in told.text
        (outcome,) = [each for each in world.outcomes if each.event == told.refusal["requestId"]]
        assert (outcome.reason, outcome.status) == (told.reason, FAILED)
        assert spent(world) == 1
        assert len(peer.calls) == 1
        refusals = [(each.reason, each.method) for each in world.refusals]
        assert refusals == ([("AskRefused", "elicitation/create")] if stateless and modern else [])

    proxies.run(scenario, era=era, limits=LIMITS)


@all_peers
def test_a_server_that_hangs_times_out_and_is_charged(era: str) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        told = await world.call("hangs")
        assert told.reason == "UpstreamTimeout"
        assert "unknown" in told.text
        await peer.left.wait()  # its connection is not used again
        (outcome,) = world.outcomes
        assert (outcome.reason, outcome.status) == ("UpstreamTimeout", FAILED)
        assert spent(world) == 1

    proxies.run(scenario, era=era, limits=LIMITS, endpoint={"call_seconds": 0.4})


def test_a_server_that_is_not_there_is_unreachable_and_costs_nothing() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        await world.call("echo")
        world.apply(proxies.a_view(peer, limits=LIMITS, endpoint={"url": closed_port()}))
        world.current.observed(proxies.API, testing.tools("echo"))
        told = await world.call("echo")
        assert told.reason == "UpstreamUnreachable"
        assert "nothing was sent" in told.text
        outcome = world.outcomes[-1]
        assert (outcome.reason, outcome.status, outcome.cost) == ("UpstreamUnreachable", NOT_SENT, 0)
        assert spent(world) == 1  # of the call that arrived

    proxies.run(scenario, limits=LIMITS)


def closed_port() -> str:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{held.getsockname()[1]}/mcp"


def test_the_breaker_opens_after_five_failures_and_one_probe_closes_it() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        for _ in range(5):
            assert (await world.call("cuts")).reason == "UpstreamProtocolError"
        told = await world.call("echo")
        assert told.reason == "UpstreamBreakerOpen"
        assert "Trying again later may help" in told.text
        assert len(peer.calls) == 5
        assert (world.outcomes[-1].status, spent(world)) == (NOT_SENT, 5)
        server = world.parts.servers._servers[proxies.API]
        await asyncio.sleep(server.breaker.retry_after(world.parts.clock()))
        probe = await world.calling("waits")
        await peer.called.wait()
        assert (await world.call("echo")).reason == "UpstreamBreakerOpen"  # one probe at a time
        peer.go_on.set()
        assert (await probe.answer()).reason is None
        assert (await world.call("echo")).reason is None

    proxies.run(scenario, limits=LIMITS)


def test_a_probe_that_is_cancelled_gives_its_place_to_the_next() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        for _ in range(5):
            await world.call("cuts")
        server = world.parts.servers._servers[proxies.API]
        await asyncio.sleep(server.breaker.retry_after(world.parts.clock()))
        probe = await world.calling("waits")
        await peer.called.wait()
        probe.leave()
        await peer.left.wait()
        await world.settled()
        assert (await world.call("echo")).reason is None

    proxies.run(scenario)


@pytest.mark.parametrize("tool", ["fails", "errs", "asks", "teapot", "unauthorized", "redirects", "huge"])
def test_what_a_server_says_never_opens_its_breaker(tool: str) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        for _ in range(6):
            await world.call(tool)
        assert (await world.call("echo")).reason is None

    proxies.run(scenario, endpoint={"result_bytes_max": 100_000})


def test_a_session_the_server_forgot_is_opened_again_once_and_the_call_repeated() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        await world.call("echo")
        opened = peer.opened
        peer.sessions.clear()
        told = await world.call("echo", {"n": 1})
        assert (told.reason, told.text) == (None, '{"n": 1}')
        assert peer.opened == opened + 1
        assert len(peer.calls) == 3  # the first, the one that was not looked at, and its repetition
        assert (len(world.intents), len(world.outcomes), spent(world)) == (2, 2, 2)

    proxies.run(scenario, era="legacy", limits=LIMITS)


def test_a_server_that_forgets_every_session_is_not_asked_twice_again() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        await world.call("echo")
        before, calls = peer.opened, len(peer.calls)

        class Amnesia(set):
            def __contains__(self, session: object) -> bool:
                return False

        peer.sessions = Amnesia()
        told = await world.call("echo")
        assert told.reason == "UpstreamProtocolError"
        assert (peer.opened, len(peer.calls)) == (before + 1, calls + 2)
        assert world.outcomes[-1].http_status == 404

    proxies.run(scenario, era="legacy", limits=LIMITS)


@both_agents
def test_a_result_whose_keys_are_no_text_is_no_result(modern: bool) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        told = await world.call("surrogate", modern=modern)
        assert (told.status, told.last["id"], told.reason) == (200, 1, "UpstreamProtocolError")

    proxies.run(scenario)


@pytest.mark.parametrize(("before", "after"), [("legacy", "modern"), ("modern", "legacy")])
def test_a_server_replaced_by_one_of_the_other_era_is_met_again(before: str, after: str) -> None:
    """Behind one URL, without any change of the configuration: at most one call pays for finding out."""

    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        assert (await world.call("echo")).reason is None
        peer.era = after
        peer.sessions.clear()
        await world.call("echo")
        for number in range(2):
            assert (await world.call("echo", {"n": number})).text == f'{{"n": {number}}}'

    proxies.run(scenario, era=before)


def test_a_server_replaced_by_a_newer_one_is_met_again_when_a_new_session_cannot_be_opened() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        assert (await world.call("echo")).reason is None
        peer.era = "modern"
        session = await world.open_session()  # with no session at the server yet
        first = await world.call("echo", modern=False, session=session)
        assert (first.reason, world.outcomes[-1].status) == ("UpstreamNotReady", NOT_SENT)
        told = await world.call("echo", {"n": 1}, modern=False, session=session)
        assert told.text == '{"n": 1}'

    proxies.run(scenario, era="legacy")
