# SPDX-License-Identifier: Apache-2.0
"""Who has to go when not everybody fits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outrider_sidecar import places


class Guest:
    def __init__(self, name, *, busy=False):
        self.name, self.busy = name, busy


def full(*, known=0, strangers=0):
    room = places.Places(known + strangers)
    guests = [Guest(number) for number in range(known + strangers)]
    for guest in guests:
        assert room.enter(guest) == (True, None)
    for guest in guests[:known]:
        room.admitted(guest)
        room.idle(guest)
    return room, guests


def leavers(room, count):
    return [room.enter(Guest("new", busy=True))[1].name for _ in range(count)]


def test_strangers_go_first_the_oldest_first_then_those_longest_idle():
    room, guests = full(known=3, strangers=2)
    room.idle(guests[0])
    room.idle(guests[4])
    assert leavers(room, 5) == [3, 4, 1, 2, 0]


def test_nobody_with_a_request_goes_and_the_newcomer_stays_outside():
    room, guests = full(known=2, strangers=1)
    for guest in guests:
        guest.busy = True
    assert room.enter(Guest("new")) == (False, None)
    assert len(room) == 3
    guests[1].busy = False
    assert leavers(room, 1) == [1]


def test_who_has_left_does_not_come_back_with_a_late_word():
    room, guests = full(known=1, strangers=1)
    for guest in guests:
        room.leave(guest)
        room.admitted(guest)
        room.idle(guest)
        room.leave(guest)
    assert (len(room), list(room)) == (0, [])


@given(
    st.lists(
        st.tuples(st.sampled_from(["enter", "admitted", "idle", "leave", "busy"]), st.integers(0, 9)),
        max_size=80,
    )
)
def test_there_are_never_more_than_fit_and_a_busy_one_is_never_named(steps):
    room, guests = places.Places(4), {}
    for step, name in steps:
        guest = guests.setdefault(name, Guest(name))
        if step == "busy":
            guest.busy = not guest.busy
        elif step == "enter":
            if guest not in list(room):
                before = set(room)
                has_place, leaving = room.enter(guest)
                assert leaving is None or (leaving in before and not leaving.busy)
                assert has_place or all(each.busy for each in before)
        else:
            getattr(room, step)(guest)
        assert len(room) == len(set(room)) <= 4
