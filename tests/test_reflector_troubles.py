# SPDX-License-Identifier: Apache-2.0
"""Reflectors at an API server in trouble: expired positions, silence, garbage, watches that end at once; and looks at one object."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.kube import fakeapi
from tests.kube.watching import FROZEN, SYNCED, WAITING, Seen

from outrider_operator import apiobjects, collection, listwatch, reflector

THINGS = reflector.Watched("example.com", "v1", "things")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(reflector, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(reflector, "RETRY_SECONDS_MAX", 0.2)
    monkeypatch.setattr(reflector, "NUDGE_SECONDS", 0.02)
    monkeypatch.setattr(reflector, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(reflector, "OUTAGE_SECONDS", 0.3)


def with_fake(main: Callable[[fakeapi.FakeApi, Seen], Awaitable[Any]], **more: Any) -> Any:
    async def whole() -> Any:
        async with fakeapi.serving() as (fake, given), given.session() as session:
            fake.put("a", 10)
            seen = Seen(given, session, THINGS, **more)
            try:
                return await main(fake, seen)
            finally:
                seen.task.cancel()
                await asyncio.gather(seen.task, return_exceptions=True)

    return asyncio.run(asyncio.wait_for(whole(), 30))


def test_a_position_that_has_expired_leads_to_a_list_and_is_nobodys_news():
    async def main(fake, seen):
        await seen.until_synced()
        fake.put("b", 30)
        fake.tell("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"})
        fake.end()
        await seen.until(lambda: seen.names == {"a", "b"})
        assert [state.phase for state in seen.states] == [SYNCED]
        assert fake.lists == 2

    with_fake(main)


def test_a_watch_on_which_nothing_comes_leads_to_a_list(monkeypatch):
    monkeypatch.setattr(listwatch, "SILENCE_SECONDS_MAX", 0.2)

    async def main(fake, seen):
        await seen.until_synced()
        del fake.items["a"]
        fake.put("b", 30)
        await seen.until(lambda: seen.names == {"b"})
        assert seen.phase is SYNCED

    with_fake(main)


def test_a_watch_that_says_garbage_changes_nothing_and_is_opened_again():
    async def main(fake, seen):
        await seen.until_synced()
        fake.write(b'{"type":"DELETED","object":{"metadata":{"name":"a"}}}\n')
        fake.end()
        await seen.until(lambda: fake.watches == 2)
        assert seen.names == {"a"}

    with_fake(main)


def test_a_watch_that_ends_at_once_again_and_again_is_not_opened_in_a_hurry(monkeypatch):
    monkeypatch.setattr(reflector, "RETRY_SECONDS_MAX", 2.0)

    async def main(fake, seen):
        for _ in range(100):
            fake.end()
        await asyncio.sleep(1.2)
        assert 2 <= fake.watches <= 4

    with_fake(main)


def test_an_outage_is_told_when_it_lasts_and_back_off_grows():
    async def main(fake, seen):
        await seen.until_synced()
        asked = []

        async def broken(_request):
            asked.append(time.monotonic())
            return fakeapi.status(503, "ServiceUnavailable")

        fake.script = broken
        fake.end()
        await seen.until(lambda: asked)
        assert seen.phase is SYNCED
        await seen.until(lambda: seen.phase is FROZEN)
        assert seen.subject.state.reason is reflector.Reason.UNREACHABLE
        assert "503 ServiceUnavailable: because" in seen.subject.state.why
        assert time.monotonic() - asked[0] >= 0.25
        assert len(asked) < 15, "pauses grow"
        assert seen.names == {"a"}
        fake.script = None
        await seen.until_synced()

    with_fake(main)


def test_a_server_that_says_when_to_come_back_is_left_alone_until_then(monkeypatch):
    async def main(fake, seen):
        asked = []

        async def busy(_request):
            asked.append(time.monotonic())
            return fakeapi.status(429, "TooManyRequests", **{"Retry-After": "1"}) if len(asked) == 1 else None

        fake.script = busy
        monkeypatch.setattr(reflector, "RETRY_SECONDS_MAX", 1.0)
        await seen.until_synced()
        assert asked[1] - asked[0] > 0.95

    with_fake(main)


def test_what_was_listed_is_the_last_good_state_though_it_cannot_be_watched():
    async def main(fake, seen):
        async def unwatchable(request):
            return fakeapi.status(403, "Forbidden", "no watch") if "watch" in request.query else None

        fake.script = unwatchable
        await seen.until(lambda: seen.phase is FROZEN)
        assert seen.names == {"a"}
        assert "no watch" in seen.subject.state.why
        fake.put("b", 11)
        await seen.until(lambda: seen.names == {"a", "b"})
        assert [state.phase for state in seen.states] == [FROZEN], "it does not come and go"

    with_fake(main)


def test_a_bug_of_ours_freezes_and_is_tried_again():
    broken = True

    def trim(raw):
        if broken and raw["metadata"]["name"] == "b":
            raise ZeroDivisionError
        return raw

    async def main(fake, seen):
        nonlocal broken
        await seen.until_synced()
        fake.tell("ADDED", fake.put("b", 11))
        await seen.until(lambda: seen.phase is FROZEN)
        assert seen.subject.state.reason is reflector.Reason.BUG
        assert seen.names == {"a"}
        broken = False
        await seen.until(lambda: seen.names == {"a", "b"})
        await seen.until_synced()

    with_fake(main, trim=trim)


def test_more_objects_than_can_be_kept_freeze(monkeypatch):
    monkeypatch.setattr(collection, "OBJECTS_MAX", 2)

    async def main(fake, seen):
        await seen.until_synced()
        for version, name in enumerate("bc", 11):
            fake.tell("ADDED", fake.put(name, version))
        await seen.until(lambda: seen.phase is FROZEN)
        assert seen.subject.state.reason is reflector.Reason.TOO_MANY_OBJECTS
        assert seen.names <= {"a", "b"}
        del fake.items["c"]
        fake.version = 20
        await seen.until_synced()
        assert seen.names == {"a", "b"}

    with_fake(main)


def test_a_position_that_goes_back_in_a_watch_freezes_until_reset():
    looked = []

    async def main(fake, seen):
        await seen.until_synced()
        fake.tell("MODIFIED", fake.put("a", 9))
        await seen.until(lambda: seen.subject.state.reason is reflector.Reason.POSITION_WENT_BACK)
        await seen.until(lambda: looked)
        assert looked[-1]["crm", "a"]["metadata"]["resourceVersion"] == "9"
        assert seen.subject.resource_version == 10
        seen.subject.reset()
        assert seen.subject.resource_version == 0
        await seen.until_synced()
        assert seen.subject.resource_version == 9

    with_fake(main, looked=looked.append)


def test_a_reset_may_come_from_who_is_told():
    holder: list[Seen] = []

    async def main(fake, seen):
        holder.append(seen)
        await seen.until_synced()
        fake.tell("MODIFIED", fake.put("a", 9))
        await seen.until(lambda: seen.subject.resource_version == 9)
        await seen.until_synced()

    with_fake(main, looked=lambda _found: holder[0].subject.reset())


# Positions that somebody claims --------------------------------------------------------------------------------------


@pytest.fixture
def claims(monkeypatch):
    monkeypatch.setattr(reflector, "RELIST_SECONDS", 0.02)
    monkeypatch.setattr(reflector, "CLAIM_SECONDS", 1.0)


@pytest.mark.usefixtures("claims")
def test_who_claims_a_position_that_nobody_has_seen_costs_one_list_in_a_while():
    async def main(fake, seen):
        await seen.until_synced()
        seen.subject.relist(10)
        await asyncio.sleep(0.1)
        assert fake.lists == 1, "it is there already"
        for turn in range(50):
            seen.subject.relist(2**62 + turn)
            await asyncio.sleep(0.01)
        assert (fake.lists, fake.watches) == (2, 2)
        await asyncio.sleep(1.0)
        assert (fake.lists, fake.watches) == (3, 3), "looked at again, once"
        await asyncio.sleep(1.2)
        assert fake.lists == 3, "what a list has shown to be wrong is forgotten"

    with_fake(main)


@pytest.mark.usefixtures("claims")
def test_a_claim_that_has_to_wait_is_settled_by_the_watch_or_else_by_a_list():
    async def main(fake, seen):
        await seen.until_synced()
        seen.subject.relist(2**62)
        await seen.until(lambda: fake.watches == 2)
        seen.subject.relist(12)
        fake.tell("ADDED", fake.put("b", 12))
        await seen.until(lambda: seen.names == {"a", "b"})
        await asyncio.sleep(1.2)
        assert fake.lists == 2
        fake.put("c", 13)
        seen.subject.relist(13)
        await seen.until(lambda: seen.names == {"a", "b", "c"})
        assert fake.lists == 3

    with_fake(main)


# Looks at one object --------------------------------------------------------------------------------------------------


def test_what_somebody_heard_of_is_looked_up_when_the_watch_does_not_bring_it():
    async def main(fake, seen):
        await seen.until_synced()
        made = fake.put("b", 12, x=1)
        seen.subject.nudge(("crm", "b"), "12")
        await seen.until(lambda: seen.names == {"a", "b"})
        assert seen.subject.resource_version == 10, "what else happened until 12 is not known"
        fake.tell("ADDED", made)
        await seen.until(lambda: seen.subject.resource_version == 12)
        assert [len(batch) for batch in seen.batches] == [1, 1], "the watch's own word of it is no change"
        del fake.items["b"]
        seen.subject.nudge(("crm", "b"), 13)
        await seen.until(lambda: seen.names == {"a"})

    with_fake(main)


def test_what_the_watch_has_brought_already_is_not_looked_up():
    async def main(fake, seen):
        await seen.until_synced()
        asked = len(fake.requests)
        seen.subject.nudge(("crm", "a"), "10")
        seen.subject.nudge(("crm", "a"), "nonsense")
        fake.tell("ADDED", fake.put("b", 11))
        seen.subject.nudge(("crm", "b"), "11")
        await seen.until(lambda: seen.names == {"a", "b"})
        await asyncio.sleep(0.1)
        assert len(fake.requests) == asked

    with_fake(main)


def test_a_look_that_is_refused_or_finds_a_kind_going_away_changes_nothing():
    state = apiobjects.CrdState.ESTABLISHED

    async def crd_state():
        return state

    async def main(fake, seen):
        nonlocal state
        await seen.until_synced()

        async def refusing(_request):
            return fakeapi.status(403, "Forbidden")

        fake.script = refusing
        seen.subject.nudge(("crm", "a"), 12)
        await asyncio.sleep(0.1)
        fake.script = None
        state = apiobjects.CrdState.TERMINATING
        del fake.items["a"]
        seen.subject.nudge(("crm", "a"), 13)
        await asyncio.sleep(0.1)
        assert seen.names == {"a"}
        assert seen.phase is SYNCED
        state = apiobjects.CrdState.ESTABLISHED
        seen.subject.nudge(("crm", "a"), 14)
        await seen.until(lambda: not seen.names)

    with_fake(main, crd_state=crd_state)


def test_before_anything_was_read_nobody_is_looked_up():
    async def main(fake, seen):
        async def broken(_request):
            return fakeapi.status(503, "ServiceUnavailable")

        fake.script = broken
        await seen.until(lambda: seen.subject.state.reason is reflector.Reason.UNREACHABLE)
        seen.subject.nudge(("crm", "a"), 12)
        seen.subject.relist(2**62)
        await asyncio.sleep(0.1)
        assert seen.phase is WAITING
        assert seen.batches == []

    with_fake(main)
