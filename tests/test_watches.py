# SPDX-License-Identifier: Apache-2.0
"""A subscription as the journal and the ledger see it: one intent, one outcome, one call where calls are counted."""

from __future__ import annotations

import asyncio

import pytest
from tests import hearing_agents as hearing
from tests import proxies

from outrider import budgets, call, decide, decision, snapshot, testing
from outrider_sidecar import journal, records, watches


def world_of(scenario, **view):
    stage = hearing.a_stage()

    async def inside(world):
        world.apply(hearing.a_view(stage, **view))
        await scenario(world)

    hearing.run(inside, stage)


def permit(world, uri="file:///a"):
    subject = call.Call(proxies.API, uri, None, call.Kind.RESOURCE, call.Method.SUBSCRIBE)
    found = decide.decide(world.current.bound, subject, world.parts.ledger, now=world.parts.wall())
    assert isinstance(found, decision.Permit), found
    return found


def about(event="event-1"):
    return records.About(event, None, "", "2025-11-25", "resources/subscribe", "")


def test_it_is_recorded_once_when_it_begins_and_once_when_it_ends():
    async def scenario(world):
        watch = watches.begun(world.parts, about(), permit(world), watches.Room())
        assert watch.uri == "file:///a"
        assert [(each.event, each.tool) for each in world.intents] == [("event-1", "file:///a")]
        watch.close(decision.Reason.NOT_ALLOWED, detail="policy has changed")
        watch.close()
        assert [(each.event, each.reason, each.cost) for each in world.outcomes] == [
            ("event-1", "NotAllowed", 0)
        ]

    world_of(scenario)


def test_it_counts_as_one_call_and_holds_nothing_while_it_lasts():
    async def scenario(world):
        watch = watches.begun(world.parts, about(), permit(world), watches.Room())
        assert world.parts.ledger.holds == 0
        assert [row.spent for row in world.parts.ledger.standing(0)] == [budgets.MICRO]
        verdict = decide.decide(
            world.current.bound, permit(world).call, world.parts.ledger, now=world.parts.wall()
        )
        assert isinstance(verdict, decision.Permit)
        watch.close()
        assert [row.spent for row in world.parts.ledger.standing(0)] == [budgets.MICRO]

    world_of(scenario, limits=(testing.a_limit(calls=2),))


@pytest.mark.parametrize("deny", [True, False])
def test_what_cannot_be_recorded_begins_only_where_the_entry_says_so(monkeypatch, deny):
    async def scenario(world):
        def broken(_record):
            raise journal.JournalUnavailable("full")

        monkeypatch.setattr(world.parts.journal, "intent", broken)
        if deny:
            with pytest.raises(watches.Unrecorded):
                watches.begun(world.parts, about(), permit(world), watches.Room())
        else:
            watches.begun(world.parts, about(), permit(world), watches.Room()).close()
        assert world.parts.ledger.holds == 0
        assert world.outcomes == []
        await asyncio.sleep(0)

    world_of(scenario, audit=snapshot.AuditRules(on_unavailable_deny=deny))


def test_there_is_room_for_so_many_and_an_ended_one_makes_some(monkeypatch):
    monkeypatch.setattr(watches, "WATCHES_MAX", 2)

    async def scenario(world):
        room = watches.Room()
        held = [watches.begun(world.parts, about(f"e{n}"), permit(world), room) for n in range(2)]
        assert room.full
        held[0].close()
        held[0].close()
        assert (room.full, room.taken) == (False, 1)
        held[1].close()

    world_of(scenario)
