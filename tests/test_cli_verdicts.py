# SPDX-License-Identifier: Apache-2.0
"""The verdict on a journal, beside the proxy that writes it and without it."""

from __future__ import annotations

import pytest
from tests import journals

from outrider_cli import attempts, verdicts


def of(place, key, **given):
    return verdicts.of(place, key, **{"first": 1, "expect": None, "content": False} | given)


@pytest.fixture
def book(tmp_path):
    made = journals.opened(tmp_path / "j")
    made.intent(journals.intent())
    yield made
    made.close()


def test_the_key_lies_beside_the_folder_or_where_it_is_named(book, tmp_path, monkeypatch):
    key = (tmp_path / "journal-key").read_bytes()
    assert verdicts.key(tmp_path / "j", None) == key
    monkeypatch.chdir(tmp_path / "j")
    assert verdicts.key(type(tmp_path)("."), None) == key, "a relative folder has a parent too"
    assert verdicts.key(tmp_path / "elsewhere" / "j", None) is None
    with pytest.raises(FileNotFoundError):
        verdicts.key(tmp_path / "j", tmp_path / "none")
    (tmp_path / "short").write_bytes(b"x")
    with pytest.raises(attempts.JournalUnreadable, match="it has 1 bytes, not 32"):
        verdicts.key(tmp_path / "j", tmp_path / "short")


def test_a_journal_that_is_being_written_is_whole_and_vouched_for(book, tmp_path):
    found = of(tmp_path / "j", verdicts.key(tmp_path / "j", None))
    assert (found["ok"], found["authenticated"], found["records"]) == (True, True, 2)
    assert verdicts.in_words(found) == (
        f"ok: 2 records in 1 segments, 1 calls under way\ndigest: {found['digest']}", "",
    )  # fmt: skip


def test_a_head_that_moved_while_the_segments_were_read_is_no_damage(book, tmp_path, monkeypatch):
    """What was read last is older than the head: a proxy that started in between closed nothing."""
    book.close()
    real, again = attempts.segments, []

    def meanwhile(folder):
        if not again:
            again.append(journals.opened(folder))
        return real(folder)

    monkeypatch.setattr(attempts, "segments", meanwhile)
    found = of(tmp_path / "j", verdicts.key(tmp_path / "j", None))
    again[0].close()
    assert found["ok"], found


def test_nobody_vouching_is_told_apart_from_damage(book, tmp_path):
    found = of(tmp_path / "j", None)
    said, advice = verdicts.in_words(found)
    assert said.startswith("not certain: the head could not be authenticated")
    assert "could have cut off what followed" in advice
    assert of(tmp_path / "j", None, content=True)["ok"]
    assert of(tmp_path / "j", bytes(32))["why"].startswith("the head file was changed")
    assert of(tmp_path / "j", None, content=True, expect=bytes(31) + b"x")["why"].startswith("no record has")
