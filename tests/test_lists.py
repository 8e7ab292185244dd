# SPDX-License-Identifier: Apache-2.0
"""The observed catalogue: one fetch at a time, stale served, failures kept to themselves."""

from __future__ import annotations

import asyncio
from typing import Any

from outrider import catalog, decision, names, testing
from outrider_sidecar import lists

A, B = names.ServerId("x", "a"), names.ServerId("x", "b")


class Source:
    """A server under the test's control."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked: list[names.ServerId] = []
        self.down: set[names.ServerId] = set()
        self.ttl: float | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.seen: dict[names.ServerId, catalog.Definitions] = {}
        self.lists = lists.Lists(fetch=self.fetch, observed=self.seen.__setitem__, clock=lambda: self.now)

    async def fetch(self, server: names.ServerId) -> lists.Listing:
        self.asked.append(server)
        await self.gate.wait()
        if server in self.down:
            raise lists.ListingFailed(decision.Reason.UPSTREAM_UNREACHABLE, "connection refused")
        return lists.Listing(testing.tools("query"), self.ttl)


def run(scenario: Any) -> None:
    async def main() -> None:
        source = Source()
        await scenario(source)
        await source.lists.close()

    asyncio.run(main())


def test_everyone_who_waits_shares_one_fetch() -> None:
    async def scenario(source: Source) -> None:
        source.gate.clear()
        waiting = [asyncio.create_task(source.lists.ensure(A)) for _ in range(20)]
        await asyncio.sleep(0)
        source.gate.set()
        assert await asyncio.gather(*waiting) == [None] * 20
        assert source.asked == [A]
        assert [tool.name for tool in source.seen[A].tools] == ["query"]

    run(scenario)


def test_a_fresh_list_is_not_asked_for_and_a_stale_one_is() -> None:
    async def scenario(source: Source) -> None:
        await source.lists.ensure(A)
        source.now = lists.TTL_SECONDS - 1
        source.lists.touch(A)
        assert source.asked == [A]
        source.now = lists.TTL_SECONDS + 1
        source.lists.touch(A)
        await source.lists.ensure(A)
        assert source.asked == [A, A]

    run(scenario)


def test_a_server_says_for_how_long_within_a_bound() -> None:
    async def scenario(source: Source) -> None:
        source.ttl = 1e9
        await source.lists.ensure(A)
        source.now = lists.TTL_SECONDS_MAX - 1
        source.lists.touch(A)
        assert source.asked == [A]
        source.now = lists.TTL_SECONDS_MAX + 1
        assert await source.lists.ensure(A) is None
        assert source.asked == [A, A]

    run(scenario)


def test_a_dead_server_is_left_alone_for_a_moment_and_says_why() -> None:
    async def scenario(source: Source) -> None:
        source.down.add(A)
        assert str(await source.lists.ensure(A)) == "UpstreamUnreachable: connection refused"
        assert str(await source.lists.ensure(A)) == "UpstreamUnreachable: connection refused"
        assert source.asked == [A]
        source.down.clear()
        source.now = lists.RETRY_SECONDS + 0.1
        assert await source.lists.ensure(A) is None

    run(scenario)


def test_one_dead_server_keeps_no_other_from_being_warmed() -> None:
    async def scenario(source: Source) -> None:
        source.down.add(A)
        await source.lists.warm([A, B])
        assert list(source.seen) == [B]

    run(scenario)


def test_a_server_that_left_the_snapshot_is_forgotten() -> None:
    async def scenario(source: Source) -> None:
        await source.lists.warm([A, B])
        source.lists.keep([A, B], moved=[B])
        source.lists.touch(A)
        source.lists.touch(B)
        await source.lists.ensure(B)
        assert source.asked == [A, B, B]

    run(scenario)


def test_a_bug_is_told_to_whoever_waits_logged_once_and_not_repeated_at_once(caplog: Any) -> None:
    async def scenario(source: Source) -> None:
        async def broken(server: names.ServerId) -> lists.Listing:
            source.asked.append(server)
            raise TypeError("secret")

        for subject in (
            lists.Lists(fetch=broken, observed=source.seen.__setitem__, clock=lambda: source.now),
            lists.Lists(fetch=source.fetch, observed=lambda *_: [].pop(), clock=lambda: source.now),
        ):
            source.asked.clear()
            source.now = 0.0
            caplog.clear()
            for _ in range(3):
                failed = await subject.ensure(A)
                assert failed is not None
                assert failed.reason is decision.Reason.INTERNAL
            assert source.asked == [A]
            source.now = lists.RETRY_SECONDS + 0.1
            assert await subject.ensure(A) is not None
            assert source.asked == [A, A]
            assert len(caplog.records) == 1
            assert "secret" not in str(caplog.records[0].__dict__)
            await subject.close()

    run(scenario)
