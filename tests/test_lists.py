# SPDX-License-Identifier: Apache-2.0
"""The observed catalogue: one fetch at a time, stale served, failures kept to themselves."""

from __future__ import annotations

import asyncio
from typing import Any

from outrider import call, catalog, decision, identity, names, testing
from outrider_sidecar import introductions, lists, local

A, B = names.ServerId("x", "a"), names.ServerId("x", "b")
TOOL, PROMPT, RESOURCE = call.Kind
MET = introductions.Introduction("a", "1", (), frozenset({"tools"}))


class Source:
    """A server under the test's control."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked: list[names.ServerId] = []
        self.kinds: list[call.Kind] = []
        self.users: list[identity.User | None] = []
        self.down: set[names.ServerId] = set()
        self.ttl: float | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.seen: dict[names.ServerId, catalog.Definitions] = {}
        self.met: dict[bool, introductions.Introduction] = {}
        self.lists = self.listed(fetch=self.fetch, observed=self.seen.__setitem__)

    def listed(self, **given: Any) -> lists.Lists:
        return lists.Lists(**given, met=lambda _, modern: self.met.get(modern), clock=lambda: self.now)

    async def fetch(
        self, server: names.ServerId, kind: call.Kind, user: identity.User | None
    ) -> lists.Listing:
        self.asked.append(server)
        self.users.append(user)
        self.kinds.append(kind)
        await self.gate.wait()
        if server in self.down:
            raise lists.ListingFailed(decision.Reason.UPSTREAM_UNREACHABLE, "connection refused")
        return lists.Listing(testing.tools("query"), self.ttl, MET)


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
        await source.lists.warm([(A, TOOL), (B, TOOL)])
        assert list(source.seen) == [B]

    run(scenario)


def test_a_server_that_left_the_snapshot_is_forgotten() -> None:
    async def scenario(source: Source) -> None:
        await source.lists.warm([(A, TOOL), (B, TOOL)])
        source.lists.keep([A, B], moved=[B])
        source.lists.touch(A)
        source.lists.touch(B)
        await source.lists.ensure(B)
        assert source.asked == [A, B, B]

    run(scenario)


def test_a_bug_is_told_to_whoever_waits_logged_once_and_not_repeated_at_once(caplog: Any) -> None:
    async def scenario(source: Source) -> None:
        async def broken(server: names.ServerId, *_: object) -> lists.Listing:
            source.asked.append(server)
            raise TypeError("secret")

        for subject in (
            source.listed(fetch=broken, observed=source.seen.__setitem__),
            source.listed(fetch=source.fetch, observed=lambda *_: [].pop()),
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


def test_each_kind_is_fetched_for_itself_and_the_slow_one_keeps_no_other_waiting() -> None:
    async def scenario(source: Source) -> None:
        assert await source.lists.ensure(A, TOOL) is None
        source.gate.clear()
        assert (
            await source.lists.ensure(A, PROMPT, seconds=0.01)
        ).reason is decision.Reason.UPSTREAM_NOT_READY
        assert await source.lists.ensure(A, TOOL, seconds=0.01) is None
        source.gate.set()
        assert await source.lists.ensure(A, PROMPT) is None
        assert source.kinds == [TOOL, PROMPT]

    run(scenario)


def test_a_list_that_changed_is_fetched_again_and_one_that_nobody_knows_is_not() -> None:
    async def scenario(source: Source) -> None:
        source.lists.changed(A, PROMPT)
        await source.lists.ensure(A, TOOL)
        source.now = 30.0
        source.lists.changed(A, PROMPT)
        source.lists.changed(A, TOOL)
        await asyncio.sleep(0.01)
        assert source.kinds == [TOOL, TOOL]

    run(scenario)


def test_a_change_while_a_list_is_under_way_makes_it_be_fetched_once_more() -> None:
    async def scenario(source: Source) -> None:
        source.gate.clear()
        source.lists.touch(A)
        await asyncio.sleep(0)
        for _ in range(3):
            source.lists.changed(A, TOOL)
        source.now = 10.0
        source.gate.set()
        await source.lists.ensure(A)
        await asyncio.sleep(0.01)
        await source.lists.ensure(A)
        assert source.kinds == [TOOL, TOOL]

    run(scenario)


def test_a_server_that_cries_change_all_the_time_is_asked_no_more_than_once_a_second() -> None:
    async def scenario(source: Source) -> None:
        await source.lists.ensure(A)
        for tenths in range(1, 10):
            source.now = tenths / 10
            source.lists.changed(A, TOOL)
            await asyncio.sleep(0)
        assert source.kinds == [TOOL]
        source.now = lists.CHANGED_SECONDS_MIN
        source.lists.touch(A)
        await source.lists.ensure(A)
        assert source.kinds == [TOOL, TOOL]

    run(scenario)


def test_what_a_server_said_of_itself_is_known_until_it_leaves() -> None:
    async def scenario(source: Source) -> None:
        assert source.lists.introduction(A, modern=True).capabilities is None
        await source.lists.ensure(A)
        assert source.lists.introduction(A, modern=True) is MET
        source.lists.keep([A], moved=[A])
        assert source.lists.introduction(A, modern=True).capabilities is None

    run(scenario)


def test_what_a_server_said_in_the_era_of_whoever_asks_counts_before_what_it_said_with_its_list() -> None:
    async def scenario(source: Source) -> None:
        await source.lists.ensure(A)
        source.met[False] = introductions.Introduction("a", "2", (), frozenset({"prompts"}))
        assert source.lists.introduction(A, modern=False) is source.met[False]
        assert source.lists.introduction(A, modern=True) is MET

    run(scenario)


def test_a_list_that_its_server_calls_stale_at_once_is_asked_for_again_after_the_floor_and_not_before() -> (
    None
):
    async def scenario(source: Source) -> None:
        source.ttl = 0.0
        await source.lists.ensure(A)
        source.now = lists.TTL_SECONDS_MIN - 0.1
        source.lists.touch(A)
        assert source.asked == [A]
        source.now = lists.TTL_SECONDS_MIN
        await source.lists.ensure(A)
        assert source.asked == [A, A]

    run(scenario)


def test_agents_are_told_no_shorter_time_than_servers_are_given() -> None:
    assert lists.TTL_SECONDS_MIN == local.LIST_TTL_MILLISECONDS / 1000


def test_a_fresh_list_is_renewed_once_per_floor_for_all_who_wait() -> None:
    async def scenario(source: Source) -> None:
        await source.lists.ensure(A)
        await source.lists.renewed(A, TOOL, seconds=1)
        assert source.asked == [A]
        for floors in (1, 2):
            source.now = floors * lists.TTL_SECONDS_MIN
            await asyncio.gather(*(source.lists.renewed(A, TOOL, seconds=1) for _ in range(20)))
            assert source.asked == [A] * (1 + floors)
            assert not source.lists.aged(A, TOOL)

    run(scenario)


def test_a_renewal_that_fails_or_hangs_is_waited_for_no_longer_than_said_and_not_tried_again_at_once() -> (
    None
):
    async def scenario(source: Source) -> None:
        await source.lists.ensure(A)
        source.down.add(A)
        source.now = lists.TTL_SECONDS_MIN
        await source.lists.renewed(A, TOOL, seconds=1)
        await source.lists.renewed(A, TOOL, seconds=1)
        assert source.asked == [A, A]
        source.gate.clear()
        source.now = 2 * lists.TTL_SECONDS_MIN
        await source.lists.renewed(A, TOOL, seconds=0.01)
        assert source.asked == [A, A, A]
        assert source.lists.aged(A, TOOL)

    run(scenario)


def test_a_kind_that_is_learned_joins_what_is_known_of_the_others() -> None:
    def part(kind: call.Kind, **found: Any) -> catalog.Definitions:
        dropped = (catalog.Dropped(f"bad {kind.value}", catalog.findings.Reason.DUPLICATE_NAME, "", kind),)
        return catalog.Definitions(**found, dropped=dropped, unobserved=frozenset(call.Kind) - {kind})

    tool, prompt, other = (catalog.Definition(name, b"{}", None) for name in ("tool", "prompt", "other"))
    tools, prompts = part(TOOL, tools=(tool,)), part(PROMPT, prompts=(prompt,))
    assert lists.joined(None, tools) == tools
    both = lists.joined(tools, prompts)
    assert (both.tools, both.prompts, both.unobserved) == ((tool,), (prompt,), {RESOURCE})
    assert [each.name for each in both.dropped] == ["bad Tool", "bad Prompt"]
    again = lists.joined(both, part(TOOL, tools=(other,)))
    assert (again.tools, again.prompts, len(again.dropped)) == ((other,), (prompt,), 2)
    whole = catalog.Definitions(tools=(tool,))
    assert lists.joined(both, whole) is whole
    assert lists.joined(whole, prompts).unobserved == frozenset()


ALICE = identity.User(id="okta:alice", names=frozenset({"okta:alice"}))


def test_a_list_that_takes_a_user_is_fetched_at_once_when_there_is_one() -> None:
    async def scenario(source: Source) -> None:
        fetch = source.fetch

        async def personal(
            server: names.ServerId, kind: call.Kind, user: identity.User | None
        ) -> lists.Listing:
            if user is None:
                raise lists.ListingFailed(decision.Reason.USER_REQUIRED, "in nobody's name")
            return await fetch(server, kind, user)

        subject = source.listed(fetch=personal, observed=source.seen.__setitem__)
        failed = await subject.ensure(testing.CRM)
        assert failed is not None
        assert failed.reason is decision.Reason.USER_REQUIRED
        assert await subject.ensure(testing.CRM) is failed  # not due yet
        assert await subject.ensure(testing.CRM, user=ALICE) is None
        source.now += 100
        await subject.renewed(testing.CRM, call.Kind.TOOL, seconds=1, user=ALICE)
        await subject.patiently([testing.CRM], seconds=1, user=ALICE)
        assert source.users == [ALICE, ALICE]
        await subject.close()

    run(scenario)
