# SPDX-License-Identifier: Apache-2.0
"""Who is woken, what is encoded how often, and whose answer counts for what."""

from __future__ import annotations

import asyncio

from outrider import snapshot, wire
from outrider_operator import publishing, receipts, reviewer

BOT, CAT = ("agents", "bot"), ("agents", "cat")


class Sourced:
    """What is in force, by workload; counts how often it is asked."""

    epoch = 7

    def __init__(self, **texts):
        self.texts, self.asked, self.at = texts, [], 1

    def offer(self, subject, schema):
        self.asked.append((subject, schema))
        text = self.texts.get(subject[1])
        if text is None:
            return None
        content = b'{"says":"%s","schema":%d}' % (text.encode(), schema)
        return publishing.Offer(snapshot.digest(content), {"servers": self.at}, content)


def listening(publisher, subject=BOT, *, pod="p", schema=snapshot.SCHEMA):
    one = publishing.Stream(reviewer.Principal(*subject, pod, f"uid-{pod}" if pod else ""), "peer", schema)
    publisher.opened(one)
    if (offer := publisher.newest(one)) is not None:
        publisher.offering(one, offer, held=False)
    return one


def offered(publisher, one):
    offer = publisher.newest(one)
    publisher.offering(one, offer, held=False)
    one.changed.clear()
    return offer


def ack(one, *, ok=True, **more):
    return wire.Ack(version=one.offered, position=dict(one.position), ok=ok, **more)


def test_only_the_streams_whose_offer_differs_are_woken() -> None:
    source = Sourced(bot="a", cat="b")
    publisher = publishing.Publisher(source)
    bots = [listening(publisher, pod=str(number)) for number in range(3)]
    cat = listening(publisher, CAT)
    source.texts["bot"] = "c"
    assert asyncio.run(publisher.refresh()) == 3
    assert [each.changed.is_set() for each in (*bots, cat)] == [True, True, True, False]
    for each in bots:
        offered(publisher, each)
    assert asyncio.run(publisher.refresh()) == 0
    source.texts["cat"] = "d"
    assert asyncio.run(publisher.refresh([BOT, ("nobody", "listens")])) == 0
    assert asyncio.run(publisher.refresh([CAT])) == 1


def test_who_looked_before_everybody_was_told_keeps_nobody_else_from_being_told() -> None:
    source = Sourced(bot="a")
    publisher = publishing.Publisher(source)
    early, *others = [listening(publisher, pod=str(number)) for number in range(3)]
    source.texts["bot"] = "b"
    offered(publisher, early)
    assert asyncio.run(publisher.refresh()) == 2
    assert [each.changed.is_set() for each in (early, *others)] == [False, True, True]


def test_a_position_that_moves_alone_wakes_nobody() -> None:
    source = Sourced(bot="a")
    publisher = publishing.Publisher(source)
    listening(publisher)
    source.at = 9
    assert asyncio.run(publisher.refresh()) == 0


def test_each_schema_has_its_own_offer() -> None:
    source = Sourced(bot="a")
    publisher = publishing.Publisher(source)
    old, new = listening(publisher, schema=1), listening(publisher, pod="q")
    assert old.offered != new.offered
    assert publisher.versions == 2
    source.texts["bot"] = "b"
    assert asyncio.run(publisher.refresh()) == 2


def test_a_line_is_encoded_once_for_all_who_are_due_and_then_forgotten() -> None:
    source = Sourced(bot="a")
    publisher = publishing.Publisher(source)
    streams = [listening(publisher, pod=str(number)) for number in range(3)]
    source.texts["bot"] = "b"
    asyncio.run(publisher.refresh())
    lines = []
    for one in streams:
        offer = offered(publisher, one)
        with publisher.line(one, offer) as line:
            lines.append(line)
    assert lines[0] is lines[1] is lines[2]
    message = wire.decode(lines[0])
    assert (message.version, message.position) == (streams[0].offered, {"servers": 1})
    again = publisher.newest(streams[0])
    with publisher.line(streams[0], again) as line:
        assert line == lines[0]
        assert line is not lines[0]


def test_a_line_carries_the_position_it_is_sent_at() -> None:
    source = Sourced(bot="a")
    publisher = publishing.Publisher(source)
    one, two = listening(publisher), listening(publisher, pod="q")
    source.texts["bot"] = "b"
    asyncio.run(publisher.refresh())
    with publisher.line(one, offered(publisher, one)) as line:
        assert wire.decode(line).position == {"servers": 1}
    source.at = 2
    with publisher.line(two, offered(publisher, two)) as line:
        assert wire.decode(line).position == {"servers": 2}


def test_nobody_who_left_is_woken_and_nothing_of_them_stays() -> None:
    source = Sourced(bot="a")
    publisher = publishing.Publisher(source)
    one, two = listening(publisher), listening(publisher, pod="q")
    publisher.closed(one)
    source.texts["bot"] = "b"
    assert asyncio.run(publisher.refresh()) == 1
    publisher.closed(two)
    assert not publisher.subjects
    assert not publisher.streams
    assert [each.streams for each in publisher.book.records.values()] == [0, 0]


def test_an_answer_is_of_the_pod_that_gives_it() -> None:
    heard = []
    publisher = publishing.Publisher(
        Sourced(bot="a"), answered=lambda given, seconds: heard.append((given.ok, seconds))
    )
    one, two = listening(publisher), listening(publisher, pod="q")
    assert publisher.acknowledge(ack(two), two.principal)
    assert (one.acked, two.acked) == ("", two.offered)
    assert publisher.acknowledge(ack(one, ok=False, error="no", source="MCPToolPolicy crm/x"), one.principal)
    assert one.refusal == receipts.Refusal("no", "", "MCPToolPolicy crm/x")
    assert [(ok, seconds is not None) for ok, seconds in heard] == [(True, True), (False, True)]
    records = publisher.book.records
    assert records["uid-q"].accepted.version == two.offered
    assert records["uid-p"].accepted is None


def test_an_answer_that_reaches_another_replica_is_written_down_there() -> None:
    publisher = publishing.Publisher(Sourced(bot="a"))
    who = reviewer.Principal(*BOT, "elsewhere", "uid-elsewhere")
    given = wire.Ack(version="ab" * 32, position={"servers": 3}, ok=True)
    assert publisher.acknowledge(given, who)
    assert publisher.book.records["uid-elsewhere"].accepted.version == "ab" * 32
    assert not publisher.acknowledge(given, reviewer.LAPTOP)


def test_of_two_streams_of_one_principal_each_answer_counts_for_one() -> None:
    publisher = publishing.Publisher(Sourced(laptop="a"))
    one, two = (listening(publisher, reviewer.LAPTOP.subject, pod="") for _ in range(2))
    publisher.acknowledge(ack(one), reviewer.LAPTOP)
    assert (one.acked, two.acked) == (one.offered, "")
    publisher.acknowledge(ack(one), reviewer.LAPTOP)
    assert two.acked == two.offered


def test_draining_sends_everybody_away_over_some_time_and_newcomers_at_once() -> None:
    publisher = publishing.Publisher(Sourced(bot="a"))
    streams = [listening(publisher, pod=str(number)) for number in range(4)]

    async def run():
        started = asyncio.get_running_loop().time()
        await publisher.drain(0.2)
        return asyncio.get_running_loop().time() - started

    assert 0.15 < asyncio.run(run()) < 2
    assert {each.leaving.spread_ms for each in streams} == {200}
    assert listening(publisher, pod="late").leaving is not None


def test_new_authorities_wake_everybody_and_whoever_trusts_them_says_so() -> None:
    publisher = publishing.Publisher(Sourced(bot="a"))
    one = listening(publisher)
    publisher.trust("PEM")
    assert one.changed.is_set()
    publisher.trusted("ab" * 32, one.principal)
    assert one.trust == publisher.book.records["uid-p"].trust == "ab" * 32
