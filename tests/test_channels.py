# SPDX-License-Identifier: Apache-2.0
"""The stream of a legacy agent: what it gets, in what order, what is kept for it and what is refused; timers fired by hand."""

from __future__ import annotations

from tests.test_streams_outgoing import Clock, Wire, parse

from outrider_sidecar import channels

ONE, TWO, THREE = (b'{"method":"%b"}' % each for each in (b"one", b"two", b"three"))


def channel():
    clock, changes = Clock(), []
    made = channels.Channel(
        call_later=clock.call_later, clock=lambda: clock.now, changed=lambda: changes.append(made.attached)
    )
    return made, clock, changes


def heard(wire):
    return [event.data for event in parse(wire.body)]


def test_messages_come_in_order_as_a_stream_without_event_ids():
    made, _, changes = channel()
    made.attach(wire := Wire())
    assert made.offer(ONE)
    assert made.offer(TWO)
    assert (wire.status, wire.length, wire.ended) == (200, None, False)
    assert wire.headers[b"content-type"] == b"text/event-stream"
    assert heard(wire) == [ONE, TWO]
    assert b"id:" not in wire.body
    assert changes == [True]


def test_what_came_a_moment_before_the_stream_is_sent_on_it_and_what_is_old_is_not():
    made, clock, _ = channel()
    assert made.offer(ONE)
    clock.advance(channels.KEPT_SECONDS - 1)
    assert made.offer(TWO)
    clock.advance(2)
    made.attach(wire := Wire())
    assert heard(wire) == [TWO]


def test_the_newest_stream_wins_and_the_one_before_ends_in_order():
    made, _, changes = channel()
    made.attach(first := Wire())
    made.attach(second := Wire())
    made.offer(ONE)
    assert (first.ended, first.aborted, heard(first)) == (True, False, [])
    assert heard(second) == [ONE]
    first.leave()  # whatever becomes of its connection now
    assert made.attached
    assert changes == [True, True]


def test_whoever_left_gets_what_came_since_on_his_next_stream():
    made, _, changes = channel()
    made.attach(wire := Wire())
    wire.leave()
    assert not made.attached
    made.offer(ONE)
    made.attach(again := Wire())
    assert heard(again) == [ONE]
    assert changes == [True, False, True]


def test_a_silent_stream_carries_a_comment_every_fifteen_seconds():
    made, clock, _ = channel()
    made.attach(wire := Wire())
    clock.advance(15)
    assert wire.body == b":\n\n"
    made.offer(ONE)
    clock.advance(15)
    assert wire.body.count(b":\n\n") == 1
    clock.advance(15)
    assert wire.body.count(b":\n\n") == 2


def test_a_reader_that_makes_no_room_is_waited_for_and_then_refused():
    made, _, _ = channel()
    made.attach(wire := Wire())
    wire.full = True
    # one more than fits: it is in the connection's own buffer
    assert all(made.offer(ONE) for _ in range(channels.FRAMES_MAX + 1))
    assert not made.offer(TWO)
    wire.drain()
    assert heard(wire) == [ONE] * (channels.FRAMES_MAX + 1)
    assert made.offer(TWO)


def test_too_many_bytes_are_refused_whether_anybody_reads_or_not():
    made, _, _ = channel()
    assert made.offer(b"x" * (channels.BYTES_MAX // 2))
    assert not made.offer(b"x" * (channels.BYTES_MAX // 2))
    assert made.offer(ONE)


def test_a_stream_ends_after_an_hour_so_that_the_next_one_is_opened():
    made, clock, changes = channel()
    made.attach(wire := Wire())
    clock.advance(channels.STREAM_SECONDS)
    assert (wire.ended, wire.aborted, made.attached) == (True, False, False)
    assert clock.armed == []
    assert changes == [True, False]


def test_nothing_follows_the_end_of_a_session():
    made, clock, _ = channel()
    made.attach(wire := Wire())
    made.close()
    assert wire.ended
    assert not made.offer(ONE)
    made.attach(late := Wire())
    assert (late.status, late.ended, heard(late)) == (200, True, [])
    assert clock.armed == []


def test_a_stream_can_be_ended_without_ending_what_comes_after_it():
    made, clock, changes = channel()
    made.part()
    made.attach(wire := Wire())
    made.part()
    assert (wire.ended, clock.armed, changes) == (True, [], [True, False])
    made.attach(again := Wire())
    made.offer(ONE)
    assert heard(again) == [ONE]
