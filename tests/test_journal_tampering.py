# SPDX-License-Identifier: Apache-2.0
"""Somebody else writes in the journal's folder: while the proxy runs, and while it does not."""

from __future__ import annotations

import asyncio
import os

import msgspec
import pytest
from tests import journals

from outrider import audit, chain
from outrider_sidecar import journal, segments


@pytest.mark.parametrize("how", ["cut", "rename", "delete"])
def test_a_running_proxy_notices_its_own_segment_and_lets_no_call_through(tmp_path, how, caplog):
    path = tmp_path / "j" / "00000001.seg"

    async def scenario():
        book = journals.opened(tmp_path / "j")
        book.start()
        book.intent(journals.intent("before"))
        await book.synced()
        if how == "cut":
            os.truncate(path, path.stat().st_size - 100)
        else:
            path.rename(path.with_suffix(".old")) if how == "rename" else path.unlink()
        book.intent(journals.intent("unnoticed"))
        with pytest.raises(journal.JournalDamaged, match="while the proxy wrote it"):
            await book.synced()
        for event in ("e1", "e2"):
            with pytest.raises(journal.JournalDamaged, match="move the folder aside"):
                book.intent(journals.intent(event))
        book.outcome(journals.outcome("before"))
        book.refusal(journals.refusal("AuditUnavailable"))
        await book.synced()
        assert "while the proxy wrote it" in book.problem
        book.close()

    asyncio.run(scenario())
    assert [each.levelname for each in caplog.records] == ["CRITICAL"]
    assert "no call is let through from now on" in caplog.text
    number, data = journals.files(tmp_path / "j")[-1]
    kept = [audit.decode(each.body).record for each in journals.frames(data)]
    assert number == 2
    assert [type(each) for each in kept] == [audit.Opening, audit.Outcome, audit.RefusalRecord], (
        "still evidence"
    )
    with pytest.raises(journal.JournalDamaged, match="does not verify"):
        journals.opened(tmp_path / "j")


def test_records_that_no_sync_had_reached_are_missed_by_the_next_start_too(tmp_path):
    async def scenario():
        book = journals.opened(tmp_path / "j")
        book.start()
        synced = (tmp_path / "j" / "00000001.seg").stat().st_size
        book.intent(journals.intent())
        os.truncate(tmp_path / "j" / "00000001.seg", synced)
        with pytest.raises(journal.JournalDamaged):
            await book.synced()
        book.close()

    asyncio.run(scenario())
    with pytest.raises(journal.JournalDamaged, match="does not verify"):
        journals.opened(tmp_path / "j")


@pytest.mark.parametrize("how", ["plain", "other key"])
def test_records_cut_off_together_with_a_head_made_by_hand_are_found(tmp_path, how):
    book = journals.opened(tmp_path / "j")
    for number in range(3):
        book.intent(journals.intent(f"e{number}"))
    book.close()
    path = tmp_path / "j" / "00000001.seg"
    content = path.read_bytes()
    last = journals.frames(content)[-2]
    path.write_bytes(content[: last.end])
    head = chain.Head(1, last.end, last.digest.hex(), closed=True)
    forged = msgspec.json.encode(head) if how == "plain" else chain.seal(head, bytes(32))
    (tmp_path / "j" / "head.json").write_bytes(forged)
    assert journals.report(tmp_path / "j").damage is None, "the chain alone cannot tell"
    with pytest.raises(journal.JournalDamaged, match="do not belong together"):
        journals.opened(tmp_path / "j")


def test_a_start_that_came_to_nothing_leaves_no_closed_head_behind(tmp_path):
    journals.opened(tmp_path / "j").close()
    held = segments.Folder.open(tmp_path / "j", reserve_bytes=8192)
    head, _ = segments.recover(held)
    assert head.closed
    assert held.head() == msgspec.structs.replace(head, closed=False)
    held.close()
    journals.opened(tmp_path / "j").close()
    assert journals.report(tmp_path / "j").damage is None
