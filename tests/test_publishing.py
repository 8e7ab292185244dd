# SPDX-License-Identifier: Apache-2.0
"""Versions are counted durably, offered once, and answered for."""

from __future__ import annotations

import json

import pytest

from outrider import identity, snapshot, wire
from outrider_operator import publishing

DIGEST = "ab" * 32


def made(name="bot", epoch=1):
    return snapshot.Snapshot(
        epoch=epoch, workload=identity.Workload(namespace="agents", service_account=name)
    )


@pytest.fixture
def publisher(tmp_path):
    return publishing.Publisher(publishing.Counter(tmp_path / "position.json"))


def listening(publisher, peer="a"):
    one = publishing.Sidecar(subject="laptop", peer=peer)
    one.offered = publisher.offer.version if publisher.offer else ""
    publisher.sidecars.append(one)
    return one


def ack(version, *, ok=True, error="", path=""):
    return wire.Ack(version=version, position={"files": 1}, ok=ok, error=error, path=path)


def test_the_counter_grows_with_the_version_and_survives(tmp_path) -> None:
    file = tmp_path / "position.json"
    first = publishing.Counter(file)
    first.advance("a")
    first.advance("a")
    first.advance("b")
    assert first.position == {"files": 2}
    again = publishing.Counter(file)
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
    one, two = publishing.Counter(file), publishing.Counter(file)
    assert one.position == {"files": 0}
    assert one.epoch > 0
    assert one.epoch != two.epoch


def test_a_position_that_cannot_be_kept_is_not_counted(tmp_path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    counter = publishing.Counter(folder / "position.json")
    folder.rmdir()
    with pytest.raises(publishing.StateError, match="cannot be written"):
        counter.advance("a")
    assert (counter.position, counter.version) == ({"files": 0}, "")
    folder.mkdir()
    counter.advance("a")
    assert counter.position == {"files": 1}


def test_a_new_version_is_offered_and_wakes_every_stream(publisher) -> None:
    one = listening(publisher)
    assert publisher.publish(made(), ())
    assert one.changed.is_set()
    offer = wire.decode(publisher.offer.line)
    assert wire.decode_snapshot(bytes(offer.content)) == made()
    assert offer.version == publisher.offer.version == snapshot.digest(snapshot.canonical(made()))
    one.changed.clear()
    assert not publisher.publish(made(), ())
    assert not one.changed.is_set()
    assert publisher.publish(made("cat"), ())
    assert publisher.offer.position == {"files": 2}


def test_an_answer_counts_only_for_what_was_offered(publisher) -> None:
    assert not publisher.acknowledge(ack(DIGEST), "laptop")
    publisher.publish(made(), ())
    one = listening(publisher)
    version = publisher.offer.version
    assert not publisher.acknowledge(ack(DIGEST), "laptop")
    assert not publisher.acknowledge(ack(version), "somebody-else")
    assert publisher.acknowledge(ack(version), "laptop")
    assert one.acked == version
    assert json.loads(json.dumps(publisher.status()))["sidecars"][0]["acked"] == version


def test_a_refusal_is_shown_and_what_was_acked_before_stays(publisher) -> None:
    publisher.publish(made(), ())
    one = listening(publisher)
    first = publisher.offer.version
    publisher.acknowledge(ack(first), "laptop")
    publisher.publish(made("cat"), ())
    one.offered = publisher.offer.version
    publisher.acknowledge(ack(one.offered, ok=False, error="no", path="$.servers[0]"), "laptop")
    shown = publisher.status()["sidecars"][0]
    assert shown["acked"] == first
    assert shown["refusal"] == {"error": "no", "path": "$.servers[0]"}
    assert publisher.status()["answers"][-1]["ok"] is False


def test_of_two_streams_each_answer_counts_for_one(publisher) -> None:
    publisher.publish(made(), ())
    one, two = listening(publisher, "a"), listening(publisher, "b")
    version = publisher.offer.version
    publisher.acknowledge(ack(version), "laptop")
    assert (one.acked, two.acked) == (version, "")
    publisher.acknowledge(ack(version), "laptop")
    assert (one.acked, two.acked) == (version, version)


def test_answers_are_remembered_up_to_a_bound(publisher) -> None:
    publisher.publish(made(), ())
    listening(publisher)
    for _ in range(200):
        publisher.acknowledge(ack(publisher.offer.version), "laptop")
    assert len(publisher.status()["answers"]) == 64


def test_draining_wakes_everybody(publisher) -> None:
    one = listening(publisher)
    publisher.drain()
    assert publisher.draining
    assert one.changed.is_set()
