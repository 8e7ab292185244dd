# SPDX-License-Identifier: Apache-2.0
"""Versions of files are counted durably, offered once, and answered for."""

from __future__ import annotations

import json

import pytest

from outrider import identity, reports, snapshot, wire
from outrider_operator import laptop, publishing, reviewer


def made(name="bot", epoch=1):
    return snapshot.Snapshot(
        epoch=epoch, workload=identity.Workload(namespace="agents", service_account=name)
    )


@pytest.fixture
def desk(tmp_path):
    return laptop.Laptop(laptop.Counter(tmp_path / "position.json"))


def listening(desk, peer="a"):
    one = publishing.Stream(principal=reviewer.LAPTOP, peer=peer)
    desk.publisher.opened(one)
    if (offer := desk.publisher.newest(one)) is not None:
        desk.publisher.offering(one, offer, held=False)
    return one


def answer(desk, version, *, ok=True, error="", path=""):
    ack = wire.Ack(version=version, position={"files": 1}, ok=ok, error=error, path=path)
    return desk.publisher.acknowledge(ack, reviewer.LAPTOP)


def test_the_counter_grows_with_the_version_and_survives(tmp_path) -> None:
    file = tmp_path / "position.json"
    first = laptop.Counter(file)
    first.advance("a")
    first.advance("a")
    first.advance("b")
    assert first.position == {"files": 2}
    again = laptop.Counter(file)
    assert (again.epoch, again.position, again.version) == (first.epoch, {"files": 2}, "b")
    again.advance("b")
    assert again.position == {"files": 2}
    again.advance("a")
    assert again.position == {"files": 3}
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["position.json"]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"epoch":0,"files":1,"version":""}', b'{"epoch":1,"files":true}']
)
def test_a_counter_that_was_lost_begins_a_new_epoch(tmp_path, content) -> None:
    file = tmp_path / "position.json"
    file.write_bytes(content)
    one, two = laptop.Counter(file), laptop.Counter(file)
    assert one.position == {"files": 0}
    assert one.epoch > 0
    assert one.epoch != two.epoch


def test_a_position_that_cannot_be_kept_is_not_counted(tmp_path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    counter = laptop.Counter(folder / "position.json")
    folder.rmdir()
    with pytest.raises(laptop.StateError, match="cannot be written"):
        counter.advance("a")
    assert (counter.position, counter.version) == ({"files": 0}, "")
    folder.mkdir()
    counter.advance("a")
    assert counter.position == {"files": 1}


def test_a_new_version_is_offered_and_wakes_every_stream(desk) -> None:
    one = listening(desk)
    assert desk.publisher.newest(one) is None
    assert desk.publish(made(), ())
    assert one.changed.is_set()
    offer = desk.publisher.newest(one)
    assert wire.decode_snapshot(offer.content) == made()
    assert offer.version == desk.version == snapshot.digest(snapshot.canonical(made()))
    desk.publisher.offering(one, offer, held=False)
    one.changed.clear()
    assert not desk.publish(made(), ())
    assert not one.changed.is_set()
    assert desk.publish(made("cat"), ())
    assert desk.position == {"files": 2}


def test_an_older_reader_has_a_version_of_its_own(desk) -> None:
    desk.publish(made(), ())
    old, new = (desk.offer(reviewer.LAPTOP.subject, schema) for schema in (1, snapshot.SCHEMA))
    assert old.version != new.version
    assert old.position == new.position
    assert b'"schema":1}' in old.content


def test_an_answer_counts_only_for_what_was_offered(desk) -> None:
    assert not answer(desk, "ab" * 32)
    desk.publish(made(), ())
    one = listening(desk)
    assert not answer(desk, "ab" * 32)
    assert answer(desk, desk.version)
    assert one.acked == desk.version
    assert json.loads(json.dumps(desk.status()))["sidecars"][0]["acked"] == desk.version


def test_a_refusal_is_shown_and_what_was_acked_before_stays(desk) -> None:
    desk.publish(made(), ())
    one = listening(desk)
    first = desk.version
    answer(desk, first)
    desk.publish(made("cat"), ())
    desk.publisher.offering(one, desk.publisher.newest(one), held=False)
    answer(desk, desk.version, ok=False, error="no", path="$.servers[0]")
    shown = desk.status()["sidecars"][0]
    assert shown["acked"] == first
    assert shown["refusal"] == {"error": "no", "path": "$.servers[0]"}
    assert desk.status()["answers"][-1]["ok"] is False


def test_answers_are_remembered_up_to_a_bound(desk) -> None:
    desk.publish(made(), ())
    listening(desk)
    for _ in range(200):
        answer(desk, desk.version)
    assert len(desk.status()["answers"]) == 64


def test_what_was_noticed_is_kept_with_the_position_it_came_with(desk) -> None:
    desk.publish(made(), ())
    desk.notice([{"message": str(number)} for number in range(100)])
    shown = desk.status()["notices"]
    assert (len(shown), shown[-1]) == (64, {"message": "99", "files": 1})


def test_what_the_proxy_says_of_its_credentials_is_shown_and_replaced_by_what_it_says_next(desk) -> None:
    row = reports.Lending(server="crm/s", credential="org", state="Failing", why="sealed")
    answer = desk.reported(reviewer.LAPTOP, reports.encode(reports.Report(credentials=(row,))))
    assert reports.decode_wanted(answer) == reports.Wanted()
    [shown] = desk.status()["troubles"]
    assert (shown["server"], shown["credential"], shown["why"]) == ("crm/s", "org", "sealed")
    desk.reported(reviewer.LAPTOP, reports.encode(reports.Report(credentials=())))
    assert desk.status()["troubles"] == []
    with pytest.raises(wire.WireError):
        desk.reported(reviewer.LAPTOP, b"[]")
