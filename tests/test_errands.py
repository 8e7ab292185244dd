# SPDX-License-Identifier: Apache-2.0
"""Requests of the proxy's own: what one that fails says, and what it tells the breaker."""

from __future__ import annotations

import asyncio

import pytest
from tests import proxies
from tests.servers import mcp

from outrider import decide, decision
from outrider_sidecar import breaker, errands, legs, modern

_R = decision.Reason


async def run(world: proxies.World, seconds: float = 5.0) -> tuple[errands.Heard, legs.Server]:
    """Asks the world's server what it is."""
    bound = world.current.bound
    permit = decide.permit_listing(bound, proxies.API)
    server = legs.Server(permit.server.endpoint)
    lent = await world.parts.credentials.lend(permit)
    errand = errands.Errand(server, permit, lent, world.parts.clock() + seconds)
    head, body = modern.discover(server.mint())
    return await world.parts.servers.errands.run(errand, head, body, "server/discover"), server


@pytest.mark.parametrize(
    ("status", "reason"), [(401, _R.UPSTREAM_UNAUTHORIZED), (418, _R.UPSTREAM_PROTOCOL_ERROR)]
)
def test_a_status_without_an_answer_says_which(status: int, reason: decision.Reason) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        peer.broken = status
        heard, _ = await run(world)
        failure = errands.no_leg(heard)
        assert (heard.answer, failure.reason) == (None, reason)
        assert str(status) in str(failure)

    proxies.run(scenario)


def test_an_answer_is_heard_whole_and_an_error_is_no_leg() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        heard, _ = await run(world)
        assert heard.failed is None
        assert modern.speaks(heard.answer)
        peer.era = "legacy"
        heard, _ = await run(world)
        assert errands.no_leg(heard).reason is _R.UPSTREAM_PROTOCOL_ERROR

    proxies.run(scenario)


def test_silence_fails_at_the_deadline_and_counts_against_the_server() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        peer.mute = True
        heard, server = await run(world, 0.05)
        assert heard.failed is not None
        assert heard.failed.reason is _R.UPSTREAM_TIMEOUT
        now = world.parts.clock()
        for _ in range(breaker.FAILURES_TO_OPEN - 1):
            assert server.breaker.allow(now)
            server.breaker.failed(now)
        assert not server.breaker.allow(now)

    proxies.run(scenario)


def test_whoever_gives_up_takes_his_request_along() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        peer.mute = True
        asking = asyncio.create_task(run(world))
        await peer.muted.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    proxies.run(scenario)
