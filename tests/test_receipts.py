# SPDX-License-Identifier: Apache-2.0
"""What is known of a pod's proxy, in one replica's book and in all of them together."""

from __future__ import annotations

import dataclasses

from outrider_operator import receipts, reviewer

WHO = reviewer.Principal("agents", "bot", "bot-1", "uid-1")
OTHER = reviewer.Principal("agents", "bot", "bot-2", "uid-2")
OLD, NEW = "a" * 64, "b" * 64
AT_1, AT_2 = {"servers": 1}, {"servers": 2}
NO = receipts.Refusal("no", "$.servers[0]", "MCPServer crm/x")


@dataclasses.dataclass
class Time:
    now: float = 1000.0

    def __call__(self):
        return self.now


def book(time=None, *, stream=True, offered=(), accepted=(), refused=()):
    """A book that saw these in this order; each is (version, position)."""
    made = receipts.Book(wall=time or Time())
    if stream:
        made.opened(WHO, 2, "0.1.0", "")
    for version, position in offered:
        made.offered(WHO, version, position, ())
    for version, position in accepted:
        made.answered(WHO, version, position, None)
    for version, position in refused:
        made.answered(WHO, version, position, NO)
    return made


def together(**books):
    return receipts.joined(
        [(name, made.records["uid-1"]) for name, made in books.items() if "uid-1" in made.records]
    )


def test_a_book_says_what_was_offered_and_acknowledged() -> None:
    made = book(offered=[(OLD, AT_1)], accepted=[(OLD, AT_1)])
    found = together(a=made)
    assert found == receipts.Receipt(
        subject=("agents", "bot"), pod="bot-1", namespace="agents", schema=2, offered=OLD, acked=OLD,
        connected=True, software="0.1.0", since=1000.0, replica="a",
    )  # fmt: skip


def test_a_laptop_leaves_no_records() -> None:
    made = receipts.Book()
    made.opened(reviewer.LAPTOP, 2, "", "")
    made.answered(reviewer.LAPTOP, OLD, AT_1, None)
    assert (made.records, made.revision) == ({}, 0)


def test_an_answer_at_another_replica_counts_for_what_was_offered() -> None:
    found = together(a=book(offered=[(NEW, AT_2)]), b=book(stream=False, accepted=[(NEW, AT_2)]))
    assert (found.offered, found.acked, found.connected, found.replica) == (NEW, NEW, True, "a")


def test_clocks_of_replicas_may_differ() -> None:
    early, late = Time(1000.0), Time(2000.0)
    one = book(early, offered=[(NEW, AT_2)], accepted=[(NEW, AT_2)])
    two = book(late, stream=False, accepted=[(OLD, AT_1)])
    assert together(a=one, b=two).acked == NEW


def test_the_same_content_again_is_not_acknowledged_by_an_answer_of_old() -> None:
    again = {"servers": 9}
    one = book(offered=[(OLD, again)], accepted=[(NEW, AT_2)])
    two = book(Time(10.0), stream=False, accepted=[(OLD, AT_1)])
    assert together(a=one, b=two).acked == NEW


def test_a_refusal_shows_while_what_was_refused_is_offered() -> None:
    refused = book(offered=[(OLD, AT_1), (NEW, AT_2)], accepted=[(OLD, AT_1)], refused=[(NEW, AT_2)])
    found = together(a=refused)
    assert (found.acked, found.refusal) == (OLD, NO)
    refused.offered(WHO, OLD, {"servers": 3}, ())
    assert together(a=refused).refusal is None


def test_a_refusal_is_over_once_the_same_was_accepted() -> None:
    time = Time()
    made = book(time, offered=[(NEW, AT_2)], refused=[(NEW, AT_2)])
    time.now += 1
    made.answered(WHO, NEW, AT_2, None)
    assert (together(a=made).acked, together(a=made).refusal) == (NEW, None)


def test_a_stream_that_moved_is_where_it_was_opened_last() -> None:
    time = Time()
    one = book(time, offered=[(OLD, AT_1)], accepted=[(OLD, AT_1)])
    time.now += 5
    two = book(time, offered=[(NEW, AT_2)])
    assert together(a=one, b=two).replica == "b"
    one.closed(WHO)
    assert (together(a=one, b=two).connected, together(a=one, b=two).acked) == (True, OLD)


def test_a_pod_without_a_stream_still_enforces_what_it_acknowledged() -> None:
    made = book(offered=[(OLD, AT_1)], accepted=[(OLD, AT_1)])
    made.closed(WHO)
    found = together(a=made)
    assert (found.connected, found.acked) == (False, OLD)
    made.keep({"uid-9"})
    assert made.records == {}


def test_two_streams_of_one_pod_end_one_after_the_other() -> None:
    made = book()
    made.opened(WHO, 2, "0.1.0", "")
    made.closed(WHO)
    assert together(a=made).connected
    made.keep(())
    assert made.records, "it has a stream, whatever the API server says"


def test_books_are_bounded_and_the_connected_stay(monkeypatch) -> None:
    monkeypatch.setattr(receipts, "_PODS_MAX", 2)
    made = receipts.Book()
    for number in range(5):
        made.answered(reviewer.Principal("n", "s", "p", f"uid-{number}"), OLD, AT_1, None)
    assert list(made.records) == ["uid-3", "uid-4"]
    for number in (3, 4):
        made.opened(reviewer.Principal("n", "s", "p", f"uid-{number}"), 2, "", "")
    made.opened(WHO, 2, "", "")
    assert list(made.records) == ["uid-3", "uid-4"]


def gathered(time):
    own = receipts.Book(wall=time)
    return own, receipts.Gathering(own, replica="a", clock=time)


def test_all_books_make_one_and_every_change_is_seen() -> None:
    time = Time()
    own, all_of_them = gathered(time)
    own.opened(WHO, 2, "", "")
    before = all_of_them.revision
    theirs = receipts.Book(wall=time)
    theirs.opened(OTHER, 1, "", "")
    assert all_of_them.heard("b", theirs.records.values())
    assert all_of_them.revision > before
    assert {uid: each.replica for uid, each in all_of_them.receipts().items()} == {"uid-1": "a", "uid-2": "b"}
    assert all_of_them.receipts() is all_of_them.receipts()


def test_a_silent_replica_loses_its_streams_and_not_what_its_pods_hold() -> None:
    time = Time()
    _, all_of_them = gathered(time)
    all_of_them.heard("b", book(time, offered=[(OLD, AT_1)], accepted=[(OLD, AT_1)]).records.values())
    time.now += receipts.SILENT_SECONDS_MAX
    assert all_of_them.receipts()["uid-1"].connected
    before = all_of_them.revision
    time.now += 1
    assert all_of_them.revision > before
    found = all_of_them.receipts()["uid-1"]
    assert (found.connected, found.acked) == (False, OLD)
    all_of_them.keep(())
    assert all_of_them.receipts() == {}
    assert all_of_them.heard("b", ())


def test_who_has_a_stream_at_another_replica_is_kept_though_no_injected_pod() -> None:
    _, all_of_them = gathered(Time())
    all_of_them.heard("b", book(accepted=[(OLD, AT_1)]).records.values())
    all_of_them.keep(())
    assert all_of_them.receipts()["uid-1"].connected


def test_a_new_holder_knows_when_everybody_was_heard() -> None:
    time = Time()
    _, all_of_them = gathered(time)
    time.now += 100
    assert not all_of_them.settling
    all_of_them.begin()
    assert all_of_them.settling
    time.now += receipts.SETTLING_SECONDS
    assert not all_of_them.settling


def test_there_is_a_bound_on_replicas() -> None:
    _, all_of_them = gathered(Time())
    assert [all_of_them.heard(f"r{number}", ()) for number in range(17)] == [True] * 16 + [False]
    assert all_of_them.heard("r3", ())
    assert all_of_them.heard("a", ()), "our own book is known"
