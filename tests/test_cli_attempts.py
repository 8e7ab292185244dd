# SPDX-License-Identifier: Apache-2.0
"""Reading a journal from its files: beside a running proxy, once each, joined into attempts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import journals

from outrider import audit
from outrider_cli import attempts


def rows(folder):
    under_way = {}
    ended = list(attempts.rows(attempts.Reader(folder).entries(), under_way))
    return ended, list(under_way.values())


def test_an_intent_and_its_outcome_are_one_row(tmp_path):
    book = journals.opened(tmp_path / "j")
    book.intent(journals.intent("e1", cost_max=5_000_000, credential="crm-token"))
    book.outcome(journals.outcome("e1", cost=2_500_000, ours_micros=700, upstream_micros=9_000))
    ((row,), under_way) = rows(tmp_path / "j")
    assert under_way == []
    assert (row["requestId"], row["principal"], row["server"]) == ("e1", "agents/bot", "crm/s")
    assert (row["decision"], row["status"], row["reason"]) == ("Allowed", "Completed", "Allowed")
    assert (row["cost"], row["costMicros"], row["credential"]) == ("2.5", 2_500_000, "crm-token")
    assert (row["oursMicros"], row["upstreamMicros"]) == (700, 9_000)
    json.dumps(row)
    book.close()


def test_a_call_under_way_is_open_and_a_refusal_is_a_row_of_its_own(tmp_path):
    book = journals.opened(tmp_path / "j")
    book.intent(journals.intent("e1"))
    book.refusal(
        journals.refusal("NotAllowed", visible=False, rule=audit.Ruling(policy="a/b", rule="r", generation=3))
    )
    ((refused,), (under_way,)) = rows(tmp_path / "j")
    assert (under_way["status"], under_way["requestId"]) == ("Open", "e1")
    assert (refused["decision"], refused["reason"], refused["visible"]) == ("Refused", "NotAllowed", False)
    assert refused["rule"] == {"policy": "a/b", "rule": "r", "generation": 3}
    assert refused["principal"] == ""
    book.close()


def test_a_row_says_who_the_user_was_and_nothing_where_there_was_none(tmp_path):
    book = journals.opened(tmp_path / "j")
    ada = {
        "user": "okta:ada",
        "names": ["okta:a@x"],
        "client": "okta:c",
        "actor": "okta:b",
        "groups": ["okta:g"],
        "groupsLeftOut": 2,
    }
    whole = {"groups_left_out" if name == "groupsLeftOut" else name: each for name, each in ada.items()}
    tuples = {name: tuple(each) if isinstance(each, list) else each for name, each in whole.items()}
    book.refusal(journals.refusal(principal=audit.Principal(workload="agents/bot", **tuples)))
    book.refusal(journals.refusal(principal=audit.Principal(workload="agents/bot")))
    first, second = json.loads(json.dumps(rows(tmp_path / "j")[0]))
    assert {field: first[field] for field in attempts.USER_FIELDS} == ada
    assert {field: second[field] for field in attempts.USER_FIELDS} == dict(attempts.USER_FIELDS)
    book.close()


def test_what_was_only_counted_is_a_row_per_reason(tmp_path):
    book = journals.opened(tmp_path / "j")
    book.refusal(audit.Summary(since=1.0, until=61.0, counts={"HostRefused": 5, "LocalAuthRefused": 7}))
    found, _ = rows(tmp_path / "j")
    assert [(row["reason"], row["count"], row["time"]) for row in found] == [
        ("HostRefused", 5, 1.0),
        ("LocalAuthRefused", 7, 1.0),
    ]
    book.close()


def test_a_reader_gives_each_record_once_over_segments_and_beside_the_writer(tmp_path):
    book = journals.opened(tmp_path / "j", segment_bytes_max=700)
    reader, seen = attempts.Reader(tmp_path / "j"), []
    for number in range(30):
        book.intent(journals.intent(f"e{number}"))
        if number % 4 == 0:
            seen += [entry.sequence for entry in reader.entries()]
    seen += [entry.sequence for entry in reader.entries()]
    assert len(attempts.segments(tmp_path / "j")) > 3
    assert seen == list(range(1, book.records + 1))
    assert list(reader.entries()) == []
    book.close()


def test_a_record_that_is_half_written_is_read_when_it_is_whole(tmp_path):
    book = journals.opened(tmp_path / "j")
    book.intent(journals.intent("e1"))
    book.close()
    path = tmp_path / "j" / "00000001.seg"
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    reader = attempts.Reader(tmp_path / "j")
    assert len(list(reader.entries())) == 1
    path.write_bytes(content)
    assert [entry.record.event for entry in reader.entries()] == ["e1"]
    assert reader.breaks == []


def test_a_reader_goes_on_after_the_oldest_segments_were_removed(tmp_path):
    book = journals.opened(tmp_path / "j", segment_bytes_max=500)
    for number in range(10):
        book.intent(journals.intent(f"e{number}"))
    (tmp_path / "j" / "00000001.seg").unlink()
    entries = list(attempts.Reader(tmp_path / "j").entries())
    assert entries[0].record.segment == 2
    assert entries[-1].record.event == "e9"
    book.close()


def test_a_broken_chain_is_told_and_the_next_segment_still_read(tmp_path):
    book = journals.opened(tmp_path / "j", segment_bytes_max=500)
    for number in range(10):
        book.intent(journals.intent(f"e{number}"))
    book.close()
    path = tmp_path / "j" / "00000002.seg"
    opening = next(iter(journals.frames(path.read_bytes())))
    path.write_bytes(path.read_bytes()[: opening.end] + (tmp_path / "j" / "00000001.seg").read_bytes())
    reader = attempts.Reader(tmp_path / "j")
    assert "e9" in [getattr(entry.record, "event", "") for entry in reader.entries()]
    assert [(found.segment, found.offset) for found in reader.breaks] == [(2, opening.end)]


def test_the_journal_is_found_where_dev_keeps_it_or_where_it_is_named(tmp_path):
    book = journals.opened(tmp_path / ".outrider" / "journal")
    place = tmp_path / ".outrider" / "journal"
    assert attempts.place(tmp_path, None) == place
    assert attempts.place(place, None) == place
    assert attempts.place(tmp_path / "elsewhere", place) == place
    with pytest.raises(attempts.JournalUnreadable, match=r"no journal in .*start `outrider dev`"):
        attempts.place(tmp_path / "elsewhere", None)
    book.close()


@given(st.integers(-(10**15), 10**15))
def test_money_is_exact(micros):
    text = attempts.money(micros)
    whole, _, rest = text.lstrip("-").partition(".")
    assert (-1 if text.startswith("-") else 1) * int(whole + rest.ljust(6, "0")) == micros
    assert not rest.endswith("0")
