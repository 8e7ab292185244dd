# SPDX-License-Identifier: Apache-2.0
"""An answer in instalments, as an agent sees it: ids once the server has them, what waits for it, and who may take it up."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import pytest
from tests import hearing_agents as hearing
from tests.servers import stages
from tests.test_streams_outgoing import BOTH, Clock, Flight, Wire

from outrider import identity
from outrider_sidecar import agents, ids, resuming, streams

PROGRESS = b'{"method":"notifications/progress"}'
ANSWER = b'{"id":1}'


def events(wire):
    return streams.SseParser(5_000_000, 100_000_000).feed(wire.body)


def said(wire):
    """What a stream that was taken up says behind its first event, which primes it again."""
    first, *rest = events(wire)
    assert (first.data, bool(first.id)) == (b"", True)
    return rest


class World:
    """One answer of one agent."""

    def __init__(self, **options):
        self.clock, self.wire = Clock(), Wire()
        names = ids.Ids(
            wall=lambda: 0.0, entropy=lambda count: bytes(range(count % 256)) + bytes(count - count % 256)
        )
        self.store = resuming.Answers(names, self.clock.call_later)
        self.agent = agents.Agent("k", "2025-11-25", "/crm/api/mcp", {})
        self.out = resuming.Resumable(self.wire, self.store, self.agent, accepts=BOTH, **options)

    def polled(self, retry=0.5):
        self.out.prime(retry)
        self.out.pause(retry)
        return events(self.wire)[0].id

    def take_up(self, last, agent=None):
        wire = Wire()
        return self.store.take_up(agent or self.agent, last, wire), wire


def test_an_answer_is_taken_up_by_the_user_of_its_call_alone():
    alice, bob = (identity.User(id=f"okta:{name}", names=frozenset()) for name in ("alice", "bob"))
    again = dataclasses.replace(alice, expires_at=5.0, token="fresh")
    for whose, strangers, own in ((alice, (bob, None), again), (None, (alice,), None)):
        world = World(user=whose)
        last = world.polled()
        for each in strangers:
            assert not world.store.take_up(world.agent, last, Wire(), user=each)
        assert world.store.take_up(world.agent, last, Wire(), user=own)


def test_until_the_server_primes_its_stream_it_is_a_plain_answer():
    world = World()
    world.out.answer(ANSWER)
    assert (world.wire.headers[b"content-type"], world.wire.body) == (b"application/json", ANSWER)
    world = World()
    world.out.notify(PROGRESS)
    world.out.prime(1.0)  # too late: something was said without an id
    world.out.answer(ANSWER)
    assert b"id:" not in world.wire.body
    assert len(world.store) == 0


def test_a_primed_stream_has_ids_of_ours_and_one_answer_ends_it():
    world = World()
    world.out.prime(0.25)
    world.out.prime(0.25)
    world.out.notify(PROGRESS)
    world.out.answer(ANSWER)
    first, second, third = events(world.wire)
    assert (first.data, first.retry) == (b"", 250)
    token = first.id.removesuffix(".0")
    assert (second.id, third.id) == (f"{token}.1", f"{token}.2")
    assert (second.data, third.data) == (PROGRESS, ANSWER)
    assert world.wire.ended
    assert world.out.ended
    assert len(world.store) == 0


def test_when_the_server_closes_its_stream_ours_ends_in_order_and_what_comes_waits():
    world = World()
    last = world.polled()
    assert (world.wire.ended, world.wire.aborted) == (True, False)
    assert b"retry: 500" in world.wire.body
    world.out.notify(PROGRESS)
    assert not world.out.ended
    found, wire = world.take_up(last)
    assert found
    assert [each.data for each in said(wire)] == [PROGRESS]
    world.out.answer(ANSWER)
    assert [each.data for each in said(wire)] == [PROGRESS, ANSWER]
    assert wire.ended
    assert len(world.store) == 0


def test_an_answer_that_came_meanwhile_is_taken_up_whole_and_once():
    world = World()
    last = world.polled()
    world.out.notify(PROGRESS)
    world.out.answer(ANSWER)
    found, wire = world.take_up(last)
    assert found
    assert [each.data for each in said(wire)] == [PROGRESS, ANSWER]
    assert wire.ended
    assert world.take_up(last)[0] is False


def test_nothing_is_said_twice_to_who_has_heard_it():
    world = World()
    last = world.polled()
    token = last.removesuffix(".0")
    world.out.notify(PROGRESS)
    world.out.answer(ANSWER)
    _, wire = world.take_up(f"{token}.1")
    assert [each.data for each in said(wire)] == [ANSWER]


@pytest.mark.parametrize(
    "last", ["", ".0", "made-up.0", "{token}", "{token}.x", "{token}.-1", "{token}.99999999999"]
)
def test_a_made_up_place_is_unknown(last):
    world = World()
    token = world.polled().removesuffix(".0")
    assert world.take_up(last.format(token=token))[0] is False


def test_another_agents_answer_is_unknown():
    world = World()
    last = world.polled()
    other = agents.Agent("other", "2025-11-25", "/crm/api/mcp", {})
    assert world.take_up(last, other)[0] is False
    world.store.end(other)
    assert world.take_up(last)[0] is True


def test_what_waits_of_all_answers_is_bounded_and_the_oldest_gives_way(monkeypatch):
    monkeypatch.setattr(resuming, "WAITING_BYTES_MAX", 150_000)
    first, second = World(), World()
    second.out._store = first.store  # one sidecar
    first_last, second_last = first.polled(), second.polled()
    for world in (first, second):
        world.out.notify(b"x" * 100_000)
    assert first.take_up(first_last)[0] is False
    first.out.answer(ANSWER)  # nobody will come for it
    assert not first.out.waiting
    found, wire = first.store.take_up(second.agent, second_last, kept := Wire()), None
    assert (found, wire) == (True, None)
    assert [each.data for each in said(kept)] == [b"x" * 100_000]


def test_what_waits_is_bounded_and_the_answer_is_never_what_is_dropped():
    world = World()
    last = world.polled()
    for _ in range(streams.FRAMES_MAX + 10):
        assert world.out.notify(PROGRESS)
    world.out.answer(b"x" * (streams.FRAME_BYTES_MAX + 1))
    _, wire = world.take_up(last)
    assert [len(each.data) for each in said(wire)] == [streams.FRAME_BYTES_MAX + 1]


def test_what_nobody_takes_up_is_forgotten():
    world = World()
    last = world.polled()
    world.out.answer(ANSWER)
    world.clock.advance(resuming.KEPT_SECONDS)
    assert world.take_up(last)[0] is False
    assert world.clock.armed == []
    world = World()
    world.polled()
    world.store.end(world.agent)
    assert len(world.store) == 0


def test_a_connection_that_breaks_is_one_that_may_be_taken_up_and_the_server_is_read_on():
    world = World()
    flight = Flight()
    world.out.feeding(flight)
    gone = []
    world.out.on_gone(lambda: gone.append(1))
    world.out.prime(None)
    last = events(world.wire)[0].id
    world.wire.leave()
    assert (gone, flight.resumed) == ([], 1)
    world.out.answer(ANSWER)
    _, wire = world.take_up(last)
    assert [each.data for each in said(wire)] == [ANSWER]


def test_who_was_given_no_id_has_gone_when_he_has_gone():
    world = World()
    gone = []
    world.out.on_gone(lambda: gone.append(1))
    world.wire.leave()
    assert gone == [1]
    assert world.out.ended


def test_the_newest_stream_wins():
    world = World()
    last = world.polled()
    _, first = world.take_up(last)
    _, second = world.take_up(last)
    assert first.ended
    world.out.answer(ANSWER)
    assert [each.data for each in said(second)] == [ANSWER]


def test_more_answers_than_can_be_kept_come_in_one_stream(monkeypatch):
    monkeypatch.setattr(resuming, "ANSWERS_MAX", 0)
    world = World()
    world.out.prime(1.0)
    world.out.pause(1.0)
    world.out.notify(PROGRESS)
    world.out.answer(ANSWER)
    assert [each.id for each in events(world.wire)] == [None, None]


def test_a_client_that_takes_json_only_is_never_primed():
    world = World(keep_json=True)
    world.out.prime(1.0)
    world.out.pause(1.0)
    world.out.answer(ANSWER)
    assert world.wire.body == ANSWER


# Before a whole proxy ---------------------------------------------------------------------------------------------------


class Polled(stages.Stage):
    """A legacy server that closes the stream of every call to be polled, and answers when the test lets it."""

    def __init__(self):
        super().__init__("legacy", tools=[stages.tool("t")])
        self.act = self.polled
        self.go_on = asyncio.Event()
        self.polls = []

    async def polled(self, line, heard):
        last = heard.headers.get("last-event-id", "")
        if heard.method == "tools/call":
            self.call = heard
            await line.events()
            await frame(line, b"id: s-0\nretry: 50\ndata: \n\n")
            await line.over()
            return True
        if heard.verb == "GET" and last:
            self.polls.append(last)
            await line.events()
            if not self.go_on.is_set():
                await frame(line, b"id: s-%d\ndata: \n\n" % len(self.polls))
            else:
                answer = json.dumps(stages.result(self.call, stages.text("at last"))).encode()
                await frame(line, b"id: s-end\ndata: " + answer + b"\n\n")
            await line.over()
            return True
        return False


async def frame(line, data):
    line.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
    await line.writer.drain()


@pytest.mark.parametrize("came", ["before", "after"])
def test_an_agent_polls_as_its_server_is_polled_and_gets_the_answer_once(came):
    stage = Polled()

    async def scenario(world):
        session = await world.open_session()
        told = await world.call("t", modern=False, session=session, id_=9)
        assert (told.status, told.headers["content-type"]) == (200, "text/event-stream")
        (primed,) = [part for part in told.body.split(b"\n\n") if part.startswith(b"id: ")]
        assert b"retry: 50" in told.body
        assert b'"result"' not in told.body
        last = primed.split(b"\n")[0][4:].decode()
        if came == "before":
            stage.go_on.set()
            await world.settled()
        stream = await hearing.get(world, session, **{"last-event-id": last})
        stage.go_on.set()
        message = await stream.next()
        assert (message["id"], message["result"]["content"][0]["text"]) == (9, "at last")
        assert await stream.next() is None
        assert [each.reason for each in world.outcomes] == ["Allowed"]
        assert len(stage.of("tools/call")) == 1
        other = await world.open_session()
        unknown = await hearing.get(world, other, **{"last-event-id": last})
        assert await unknown.quiet(0.1)  # it is the stream of its session, and nothing of somebody else's

    hearing.run(scenario, stage)


@pytest.mark.parametrize("modern", [True, False])
def test_who_cannot_poll_gets_the_answer_in_one_stream_or_body(modern):
    stage = Polled()

    async def scenario(world):
        stage.go_on.set()
        told = await world.call("t", modern=modern)
        assert told.text == "at last"
        assert b"id: " not in told.body

    hearing.run(scenario, stage)
