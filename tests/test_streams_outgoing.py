# SPDX-License-Identifier: Apache-2.0
"""The choice between one JSON body and an event stream, with timers fired by hand and then over a real door."""

from __future__ import annotations

import asyncio

import pytest

from outrider_sidecar import door, exchange, streams

Event = streams.Event


def parse(text):
    return streams.SseParser(5_000_000, 100_000_000).feed(text)


class Clock:
    """Timers that fire when told."""

    def __init__(self):
        self.now = 0.0
        self.timers = []

    def call_later(self, seconds, callback):
        timer = Timer(self.now + seconds, callback)
        self.timers.append(timer)
        return timer

    def advance(self, seconds):
        until = self.now + seconds
        while due := sorted(
            (t for t in self.timers if not t.cancelled and t.at <= until), key=lambda t: t.at
        ):
            self.now = due[0].at
            self.timers.remove(due[0])
            due[0].callback()
        self.now = until

    @property
    def armed(self):
        return [timer for timer in self.timers if not timer.cancelled]


class Timer:
    def __init__(self, at, callback):
        self.at, self.callback, self.cancelled = at, callback, False

    def cancel(self):
        self.cancelled = True


class Wire:
    """An agent's connection whose room is set by hand; holds `exchange.Reply` to its word."""

    def __init__(self):
        self.status = None
        self.headers = {}
        self.length = None
        self.body = b""
        self.ended = self.aborted = False
        self.full = False
        self.room_then = []
        self.gone_then = []

    def start(self, status, headers, length=None):
        assert self.status is None
        self.status, self.headers, self.length = status, dict(headers), length

    def write(self, chunk):
        assert self.status is not None
        assert not self.ended
        self.body += chunk
        return not self.full

    def on_room(self, then):
        self.room_then.append(then)

    def on_gone(self, then):
        self.gone_then.append(then)

    def end(self, chunk=b""):
        assert not self.ended
        self.body += chunk
        self.ended = True

    def abort(self):
        self.aborted = True

    def drain(self):
        self.full = False
        then, self.room_then = self.room_then, []
        for each in then:
            each()

    def leave(self):
        for each in self.gone_then:
            each()


class Flight:
    def __init__(self):
        self.resumed = 0

    def resume(self):
        self.resumed += 1

    def cancel(self):
        raise AssertionError("nobody here cancels")


BOTH = streams.Accepted(json=True, sse=True)


def outgoing(accepts=BOTH, **options):
    wire, clock = Wire(), Clock()
    made = streams.Outgoing(wire, accepts=accepts, call_later=clock.call_later, **options)
    return made, wire, clock


def test_an_answer_without_notifications_is_json_with_its_length_and_leaves_no_timer():
    out, wire, clock = outgoing(headers=((b"mcp-session-id", b"s"),))
    clock.advance(9.9)
    out.answer(b'{"id":1}', status=400)
    assert (wire.status, wire.length, wire.body, wire.ended) == (400, 8, b'{"id":1}', True)
    assert wire.headers == {b"content-type": b"application/json", b"mcp-session-id": b"s"}
    assert (out.streaming, out.ended, clock.armed) == (False, True, [])


def test_the_first_notification_makes_it_a_stream_that_ends_with_the_answer():
    out, wire, clock = outgoing(headers=((b"mcp-session-id", b"s"),))
    assert out.notify(b'{"method":"n"}')
    assert out.notify(b'{"method":"m"}')
    out.answer(b'{"id":1}')
    assert (wire.status, wire.length, wire.ended) == (200, None, True)
    assert wire.headers[b"content-type"] == b"text/event-stream"
    assert wire.headers[b"mcp-session-id"] == b"s"
    assert parse(wire.body) == [Event(b'{"method":"n"}'), Event(b'{"method":"m"}'), Event(b'{"id":1}')]
    assert clock.armed == []


def test_ten_silent_seconds_make_it_a_stream_with_a_comment_every_fifteen():
    out, wire, clock = outgoing()
    clock.advance(9.99)
    assert wire.status is None
    clock.advance(0.01)
    assert wire.headers[b"content-type"] == b"text/event-stream"
    assert wire.body == b""
    clock.advance(15)
    assert wire.body == b":\n\n"
    clock.advance(30)
    assert wire.body == b":\n\n" * 3
    out.answer(b"{}")
    assert parse(wire.body) == [Event(b"{}")]
    clock.advance(1000)
    assert wire.body.count(b":\n\n") == 3


def test_a_stream_that_speaks_needs_no_comment():
    out, wire, clock = outgoing()
    for _ in range(10):
        out.notify(b"{}")
        clock.advance(14)
    assert b"\n:\n" not in wire.body


@pytest.mark.parametrize(
    ("accepts", "options"),
    [(streams.Accepted(json=True, sse=False), {}), (BOTH, {"keep_json": True})],
)
def test_who_can_only_have_json_gets_json_and_no_notifications(accepts, options):
    out, wire, clock = outgoing(accepts, **options)
    assert out.mute
    assert out.notify(b"{}")
    clock.advance(1000)
    assert wire.status is None
    out.answer(b'{"id":1}')
    assert (wire.body, wire.length) == (b'{"id":1}', 8)


def test_before_the_answer_is_out_something_else_can_be_said_and_after_it_nothing():
    out, _, _ = outgoing()
    assert not out.mute
    out.answer(b"{}")
    assert out.mute


def test_who_accepts_only_streams_gets_even_a_lone_answer_as_one():
    out, wire, _ = outgoing(streams.Accepted(json=False, sse=True))
    out.answer(b'{"id":1}')
    assert parse(wire.body) == [Event(b'{"id":1}')]
    assert wire.ended


def test_a_full_connection_pauses_the_flight_and_room_resumes_it_in_order():
    out, wire, _ = outgoing()
    flight = Flight()
    out.feeding(flight)
    wire.full = True
    assert not out.notify(b"1")
    assert not out.notify(b"2")
    assert not out.notify(b"3")
    assert parse(wire.body) == [Event(b"1")]
    assert flight.resumed == 0
    wire.drain()
    assert flight.resumed == 1
    assert out.notify(b"4")
    wire.drain()
    assert flight.resumed == 1
    assert [event.data for event in parse(wire.body)] == [b"1", b"2", b"3", b"4"]


def test_an_answer_waits_behind_what_is_queued_and_then_ends_the_stream():
    out, wire, clock = outgoing()
    wire.full = True
    out.notify(b"1")
    out.notify(b"2")
    out.answer(b"answer")
    assert not wire.ended
    assert out.notify(b"too late")
    clock.advance(60)
    wire.drain()
    assert wire.ended
    assert [event.data for event in parse(wire.body)] == [b"1", b"2", b"answer"]
    assert clock.armed == []


@pytest.mark.parametrize("frame", [b"x", b"x" * 300_000])
def test_a_reader_that_never_makes_room_is_cut_off_at_the_bound(frame):
    out, wire, clock = outgoing()
    gone = []
    out.on_gone(lambda: gone.append(True))
    wire.full = True
    sent = 0
    while not wire.aborted:
        out.notify(frame)
        sent += 1
    assert 1 < sent <= streams.FRAMES_MAX + 2
    assert sent * len(frame) <= streams.FRAME_BYTES_MAX + 3 * 300_000
    assert (gone, out.ended, clock.armed) == ([True], True, [])
    wire.leave()
    assert gone == [True]


def test_an_answer_larger_than_the_queue_is_still_delivered():
    out, wire, _ = outgoing()
    wire.full = True
    out.notify(b"1")
    out.answer(b"y" * 4_000_000)
    wire.drain()
    assert wire.ended
    assert not wire.aborted
    assert len(wire.body) > 4_000_000


def test_a_client_that_leaves_is_told_once_and_gets_nothing_more():
    out, wire, clock = outgoing()
    gone = []
    out.on_gone(lambda: gone.append(True))
    out.notify(b"1")
    wire.leave()
    before = wire.body
    assert out.notify(b"2")
    out.answer(b"{}")
    out.abort()
    clock.advance(1000)
    assert (wire.body, wire.ended, wire.aborted, gone) == (before, False, False, [True])


def test_leaving_after_the_answer_is_no_news():
    out, wire, _ = outgoing()
    gone = []
    out.on_gone(lambda: gone.append(True))
    out.answer(b"{}")
    wire.leave()
    assert gone == []


def test_an_aborted_answer_is_cut_and_over():
    out, wire, clock = outgoing()
    out.notify(b"1")
    out.abort()
    out.answer(b"{}")
    assert (wire.aborted, wire.ended, out.ended, clock.armed) == (True, False, True, [])


def test_a_second_answer_while_the_first_waits_is_a_bug():
    out, wire, _ = outgoing()
    wire.full = True
    out.notify(b"1")
    out.answer(b"{}")
    with pytest.raises(AssertionError, match="once"):
        out.answer(b"{}")


def test_the_wire_of_these_tests_speaks_the_whole_reply_protocol():
    names = {name for name in vars(exchange.Reply) if not name.startswith("_")}
    assert names <= set(dir(Wire()))


class Talk:
    """A pipeline over a real door: notifies as often as the target says, then answers."""

    def __init__(self):
        self.notified = 0
        self.paused = 0
        self.resumed = asyncio.Event()

    def admit(self, _method, _target, _headers, _reply):
        return True

    async def begin(self, request, reply):
        call_later = asyncio.get_running_loop().call_later
        out = streams.Outgoing(reply, accepts=streams.accepted(request.headers), call_later=call_later)
        out.feeding(self)
        for number in range(int(request.target[1:])):
            self.notified += 1
            if not out.notify(b"%d " % number + b"n" * 10_000):
                self.paused += 1
                self.resumed.clear()
                await self.resumed.wait()
        out.answer(b'{"id":1}')

    def resume(self):
        self.resumed.set()

    def cancel(self):
        raise AssertionError("nobody here cancels")


@pytest.mark.parametrize(("count", "kind"), [(0, b"application/json"), (2000, b"text/event-stream")])
def test_over_a_real_door_the_answer_arrives_whole_and_a_slow_reader_slows_the_sender(count, kind):
    async def main():
        talk = Talk()
        opened = await door.serve(talk, host="127.0.0.1", port=0)
        reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
        accept = b"Accept: application/json, text/event-stream"
        writer.write(b"GET /%d HTTP/1.0\r\n%b\r\n\r\n" % (count, accept))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        held = talk.notified
        body = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        await opened.close(1.0)
        return head, body, held, talk

    head, body, held, talk = asyncio.run(main())
    assert b"content-type: " + kind in head
    if count == 0:
        assert body == b'{"id":1}'
    else:
        events = parse(body)
        assert [int(event.data.split()[0]) for event in events[:-1]] == list(range(count))
        assert events[-1].data == b'{"id":1}'
        assert held < count
        assert talk.paused > 0
