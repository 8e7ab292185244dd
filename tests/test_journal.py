# SPDX-License-Identifier: Apache-2.0
"""The journal on a real disk: intents before calls, one outcome each, and exact sums after any death."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import shutil
import time

import pytest
from tests import journals

from outrider import audit, budgets, chain
from outrider_sidecar import doorman, journal, segments


def test_an_intent_is_in_the_file_when_the_call_may_leave(tmp_path):
    book = journals.opened(tmp_path / "j")
    book.intent(journals.intent())
    assert journals.records(tmp_path / "j")[-1] == journals.intent()
    book.close()


def test_a_new_journal_has_nothing_to_replay_and_its_head_stands_before_the_first_call(tmp_path):
    book = journals.opened(tmp_path / "j")
    assert book.replay == journal.Replay((), None, 0, 0, loss_possible=False)
    assert journals.report(tmp_path / "j").damage is None
    assert journals.report(tmp_path / "j").records == 1
    book.close()


def test_what_was_settled_is_replayed_as_it_was_settled(tmp_path):
    book = journals.opened(tmp_path / "j")
    book.intent(journals.intent(amount=9))
    book.outcome(journals.outcome(amount=4))
    book.close()
    again = journals.opened(tmp_path / "j")
    assert again.replay == journal.Replay((journals.charge(4),), journals.NOW, 0, 0, loss_possible=False)
    again.close()
    assert journals.report(tmp_path / "j").damage is None


def test_a_call_under_way_is_charged_at_its_maximum_and_closed_once(tmp_path):
    book = journals.opened(tmp_path / "j")
    book.intent(journals.intent("e1", amount=9, cost_max=7))
    book.intent(journals.intent("e2", amount=5))
    book.outcome(journals.outcome("e2", amount=0))
    book.close()
    for _ in range(2):
        again = journals.opened(tmp_path / "j")
        assert again.replay.spent == (journals.charge(9),)
        again.close()
    closed = [
        each
        for each in journals.records(tmp_path / "j")
        if isinstance(each, audit.Outcome) and each.event == "e1"
    ]
    assert [(each.status, each.reason, each.cost) for each in closed] == [
        (audit.Status.UNKNOWN, audit.INTERRUPTED, 7)
    ]


def test_periods_that_ended_while_the_proxy_was_down_are_not_carried_on(tmp_path):
    book = journals.opened(tmp_path / "j")
    book.intent(journals.intent())
    book.outcome(journals.outcome())
    book.close()
    clock = journals.Clock()
    clock.now += 2 * journals.DAY
    again = journals.opened(tmp_path / "j", clock)
    assert again.replay.spent == ()
    assert again.replay.latest == journals.NOW
    again.close()


def test_a_new_segment_carries_all_that_a_replay_needs(tmp_path):
    book = journals.opened(tmp_path / "j", segment_bytes_max=600)
    for number in range(20):
        book.intent(journals.intent(f"e{number}"))
        if number % 5:
            book.outcome(journals.outcome(f"e{number}", amount=budgets.MICRO // 2))
    book.close()
    whole = journals.report(tmp_path / "j")
    assert whole.segments > 5
    for number, path in [(int(path.stem), path) for path in sorted((tmp_path / "j").glob("*.seg"))]:
        if number < whole.last:
            path.unlink()
    again = journals.opened(tmp_path / "j")
    assert again.replay.spent == (journals.charge(16 * budgets.MICRO // 2 + 4 * budgets.MICRO),)
    assert again.replay.interrupted == 4
    again.close()


def test_two_proxies_never_share_a_journal(tmp_path):
    book = journals.opened(tmp_path / "j")
    with pytest.raises(journal.JournalUnavailable, match="another proxy"):
        journals.opened(tmp_path / "j")
    book.close()
    journals.opened(tmp_path / "j").close()


def test_a_torn_end_is_cut_and_told_and_the_chain_goes_on(tmp_path):
    book = journals.opened(tmp_path / "j")
    book.close()
    with (tmp_path / "j" / "00000001.seg").open("ab") as file:
        file.write(b"\0\0\1\0half a frame")
    again = journals.opened(tmp_path / "j")
    again.close()
    assert again.replay.torn_bytes == 16
    assert journals.records(tmp_path / "j")[-1].torn_bytes == 16
    assert journals.report(tmp_path / "j").damage is None


def test_a_segment_that_was_only_begun_is_replaced(tmp_path):
    book = journals.opened(tmp_path / "j")
    book.intent(journals.intent(amount=9))
    book.close()
    (tmp_path / "j" / "00000002.seg").write_bytes(b"\0\0")
    again = journals.opened(tmp_path / "j")
    assert again.replay.spent == (journals.charge(9),)
    again.close()
    assert journals.report(tmp_path / "j").damage is None


@pytest.mark.parametrize("damage", ["edit", "cut", "head", "segment"])
def test_a_journal_that_was_tampered_with_is_refused_and_left_as_it_is(tmp_path, damage):
    book = journals.opened(tmp_path / "j")
    book.intent(journals.intent())
    book.close()
    path = tmp_path / "j" / "00000001.seg"
    content = path.read_bytes()
    if damage == "edit":
        path.write_bytes(content.replace(b"query", b"other"))
    elif damage == "cut":
        path.write_bytes(content[:-200])
    else:
        (path if damage == "segment" else tmp_path / "j" / "head.json").unlink()
    before = journals.files(tmp_path / "j")
    with pytest.raises(journal.JournalDamaged, match="move the folder aside as evidence"):
        journals.opened(tmp_path / "j")
    assert journals.files(tmp_path / "j") == before


def test_a_restart_of_the_machine_is_told_unless_the_proxy_had_ended_in_peace(tmp_path):
    journals.opened(tmp_path / "j").close()
    book = journals.opened(tmp_path / "j", boot_id="boot-2")
    assert not book.replay.loss_possible
    book._folder.close()  # the process dies: nothing is closed, and only the lock goes
    again = journals.opened(tmp_path / "j", boot_id="boot-3")
    assert again.replay.loss_possible
    assert journals.records(tmp_path / "j")[-1].loss_possible
    again.close()


def test_a_full_journal_refuses_intents_and_goes_on_once_segments_are_removed(tmp_path):
    clock = journals.Clock()
    book = journals.opened(tmp_path / "j", clock, segment_bytes_max=1000, journal_bytes_max=4000)
    number = 0
    while book.problem is None:
        with contextlib.suppress(journal.JournalUnavailable):
            book.intent(journals.intent(f"e{number}"))
        number += 1
    book.outcome(journals.outcome("e0"))
    book.refusal(journals.refusal())
    assert "outrider audit export" in book.problem
    assert book.unavailable == 2
    (tmp_path / "j" / "00000001.seg").unlink()
    with pytest.raises(journal.JournalUnavailable):
        book.intent(journals.intent("within the same second"))
    clock.now += 1
    book.intent(journals.intent("later"))
    assert book.problem is None
    assert [type(each) for each in records_of_last(tmp_path / "j", 2)] == [audit.RefusalRecord, audit.Intent]
    book.close()


def records_of_last(folder, count):
    """The newest records, read from the newest segment's own claim on."""
    number, data = journals.files(folder)[-1]
    previous = bytes.fromhex(chain.opening(data).previous)
    found = [audit.decode(item.body).record for item in chain.scan(data, previous)]
    assert number >= 1
    return [each for each in found if not isinstance(each, audit.Opening)][-count:]


def test_no_more_calls_are_under_way_than_completion_space_was_set_aside_for(tmp_path):
    book = journals.opened(tmp_path / "j", reserve_bytes=2 * journal.OUTCOME_BYTES_MAX)
    book.intent(journals.intent("e1"))
    book.intent(journals.intent("e2"))
    with pytest.raises(journal.JournalUnavailable, match="2 calls are under way"):
        book.intent(journals.intent("e3"))
    book.outcome(journals.outcome("e1"))
    book.intent(journals.intent("e3"))
    assert (book.records, book.unavailable) == (5, 1)
    book.close()


def test_refusals_before_authentication_cannot_fill_the_disk(tmp_path):
    book = journals.opened(tmp_path / "j")
    for _ in range(500):
        book.refusal_before_auth(journals.refusal("LocalAuthRefused"), journals.NOW)
    book.refusal_before_auth(journals.refusal("LocalAuthRefused"), journals.NOW + 60)
    book.refusal_before_auth(journals.refusal("HostRefused"), journals.NOW + 60)
    book.close()
    written = [each for each in journals.records(tmp_path / "j") if not isinstance(each, audit.Opening)]
    assert [type(each) for each in written] == [audit.RefusalRecord] * 10 + [audit.Summary] + [
        audit.RefusalRecord
    ] * 2
    assert written[10].counts == {"LocalAuthRefused": 490}


def test_strangers_cannot_hide_what_an_accepted_caller_was_refused(tmp_path):
    book, who = journals.opened(tmp_path / "j"), audit.Principal(workload="agents/bot")
    for number in range(700):
        book.refusal_before_auth(journals.refusal("LocalAuthRefused"), journals.NOW)
        book.refusal_of_caller(
            journals.refusal("MethodUnknown", principal=who, detail=str(number)), journals.NOW
        )
    book.close()
    written = journals.records(tmp_path / "j")
    told = [each.detail for each in written if getattr(each, "principal", None) == who]
    assert told == [str(number) for number in range(600)]
    summaries = [(each.why, each.counts) for each in written if isinstance(each, audit.Summary)]
    assert summaries == [
        ("beforeAuthentication", {"LocalAuthRefused": 690}), ("authenticated", {"MethodUnknown": 100}),
    ]  # fmt: skip


def test_what_was_counted_is_told_by_itself_also_when_the_next_minute_began_meanwhile(tmp_path, monkeypatch):
    monkeypatch.setattr(doorman, "MINUTE_SECONDS", 0.2)

    async def scenario():
        book = journals.opened(tmp_path / "j", time.time)
        book.start()
        for _minute in range(2):
            for _ in range(15):
                book.refusal_before_auth(journals.refusal("HostRefused"), time.time())
            await asyncio.sleep(0.21)
        async with asyncio.timeout(10):
            while (
                len(
                    told := [
                        each for each in journals.records(tmp_path / "j") if isinstance(each, audit.Summary)
                    ]
                )
                < 2
            ):
                await asyncio.sleep(0.02)
        assert [each.counts for each in told] == [{"HostRefused": 5}] * 2
        book.close()

    asyncio.run(scenario())


def test_what_comes_after_the_end_is_refused_or_kept_and_never_breaks(tmp_path):
    book = journals.opened(tmp_path / "j")
    book.intent(journals.intent())
    book.close()
    book.close()
    with pytest.raises(journal.JournalUnavailable, match="going down"):
        book.intent(journals.intent("e2"))
    book.outcome(journals.outcome())
    book.refusal(journals.refusal())
    assert book.buffered == 2
    assert journals.report(tmp_path / "j").damage is None


def test_synced_means_that_the_head_covers_the_record(tmp_path):
    async def scenario():
        book = journals.opened(tmp_path / "j")
        book.start()
        book.intent(journals.intent())
        assert book.buffered == 1
        await asyncio.wait_for(book.synced(), 10)
        head = chain.read_head((tmp_path / "j" / "head.json").read_bytes())
        assert head.offset == (tmp_path / "j" / "00000001.seg").stat().st_size
        assert not head.closed
        assert book.buffered == 0
        book.close()
        assert chain.read_head((tmp_path / "j" / "head.json").read_bytes()).closed

    asyncio.run(scenario())


def test_syncs_follow_the_journal_over_segments(tmp_path):
    async def scenario():
        book = journals.opened(tmp_path / "j", segment_bytes_max=500)
        book.start()
        for number in range(30):
            book.intent(journals.intent(f"e{number}"))
            if number % 7 == 0:
                await book.synced()
        await book.synced()
        assert journals.report(tmp_path / "j").torn_bytes == 0
        assert journals.report(tmp_path / "j").segments > 5
        assert len(list(pathlib.Path("/proc/self/fd").iterdir())) < 60
        book.close()

    asyncio.run(scenario())
    assert journals.report(tmp_path / "j").damage is None


def test_a_disk_that_cannot_sync_is_told_and_left_for_a_new_segment(tmp_path):
    async def scenario():
        book = journals.opened(tmp_path / "j")
        book.start()
        book.intent(journals.intent("e1"))
        keep, (_reading, pipe) = os.dup(book._segment.fd), os.pipe()
        os.dup2(pipe, book._segment.fd)  # a pipe cannot be synced: a real error of a real system call
        with pytest.raises(journal.JournalUnavailable, match="durable: Invalid argument"):
            await book.synced()
        assert "durable" in book.problem
        os.dup2(keep, book._segment.fd)
        book.intent(journals.intent("e2"))
        assert book.problem is None
        assert book._segment.number == 2
        await book.synced()
        book.close()

    asyncio.run(scenario())
    assert journals.report(tmp_path / "j").damage is None


def test_a_power_cut_anywhere_after_the_last_sync_is_recovered_from(tmp_path):
    book = journals.opened(tmp_path / "j")
    for number in range(5):
        book.intent(journals.intent(f"e{number}", amount=1))
    book._syncs.now()
    synced = chain.read_head((tmp_path / "j" / "head.json").read_bytes()).offset
    for number in range(5, 8):
        book.intent(journals.intent(f"e{number}", amount=1))
    book._folder.close()
    content = (tmp_path / "j" / "00000001.seg").read_bytes()
    for size in range(synced, len(content) + 1, 7):
        copy = tmp_path / f"copy-{size}"
        shutil.copytree(tmp_path / "j", copy)
        (copy / "00000001.seg").write_bytes(content[:size])
        again = journals.opened(copy, boot_id="boot-2")
        assert 5 <= sum(each.amount for each in again.replay.spent) <= 8
        assert again.replay.loss_possible
        again.close()
        assert journals.report(copy).damage is None


def test_a_folder_that_cannot_be_used_is_an_outage_with_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(segments.JournalUnavailable, match="Not a directory"):
        journals.opened(tmp_path / "file" / "j")
