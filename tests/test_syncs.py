# SPDX-License-Identifier: Apache-2.0
"""Syncs: in groups, off the loop, and never claimed before they happened."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from outrider import chain
from outrider_sidecar import segments, syncs


class Disk:
    """A real file and a flush that can be held up or made to fail."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.segment = segments.Segment(1, self.fd)
        self.size = 0
        self.flushed = []
        self.threads = set()
        self.error = None
        self.failures = []
        self.may_go = threading.Event()
        self.may_go.set()
        self.syncs = syncs.Syncs(self.take, self.flush, self.failures.append)

    def write(self):
        self.size += os.write(self.fd, b"x")
        self.syncs.written()

    def take(self):
        return segments.Flush((), self.segment, chain.Head(1, self.size, ""))

    def flush(self, work):
        self.threads.add(threading.get_ident())
        assert self.may_go.wait(10)
        if self.error is not None:
            raise self.error
        os.fdatasync(work.current.fd)
        self.flushed.append(work.head.offset)


@pytest.fixture
def disk(tmp_path):
    made = Disk(tmp_path / "segment")
    yield made
    made.syncs.stop()
    os.close(made.fd)


async def synced(disk):
    told = asyncio.get_running_loop().create_future()
    disk.syncs.when_synced(told.set_result)
    return await asyncio.wait_for(told, 10)


def test_what_is_on_disk_already_is_not_waited_for(disk):
    told = []
    disk.syncs.when_synced(told.append)
    assert told == [None]
    assert disk.flushed == []


def test_without_a_loop_waiting_is_a_sync_of_its_own(disk):
    told = []
    disk.write()
    disk.syncs.when_synced(told.append)
    assert (told, disk.flushed, disk.syncs.unsynced) == ([None], [1], 0)


def test_who_waits_is_told_after_the_flush_which_runs_in_another_thread(disk):
    async def scenario():
        disk.syncs.start()
        disk.write()
        assert await synced(disk) is None
        assert disk.flushed == [1]
        assert threading.get_ident() not in disk.threads

    asyncio.run(scenario())
    assert disk.syncs.unsynced == 0


def test_all_who_come_during_a_sync_share_the_next_one(disk):
    async def scenario():
        disk.syncs.start()
        disk.may_go.clear()
        disk.write()
        first = asyncio.ensure_future(synced(disk))
        await asyncio.sleep(0)
        others = []
        for _ in range(20):
            disk.write()
            others.append(asyncio.ensure_future(synced(disk)))
            await asyncio.sleep(0)
        disk.may_go.set()
        assert await asyncio.gather(first, *others) == [None] * 21
        assert disk.flushed == [1, 21]

    asyncio.run(scenario())


def test_nobody_is_told_that_a_later_record_is_durable_by_an_earlier_sync(disk):
    async def scenario():
        disk.syncs.start()
        disk.may_go.clear()
        disk.write()
        first = asyncio.ensure_future(synced(disk))
        await asyncio.sleep(0)
        disk.write()
        flushed_when_told = asyncio.get_running_loop().create_future()
        disk.syncs.when_synced(lambda _error: flushed_when_told.set_result(disk.flushed[-1]))
        disk.may_go.set()
        await first
        assert await asyncio.wait_for(flushed_when_told, 10) == 2

    asyncio.run(scenario())


def test_records_nobody_waits_for_are_synced_all_the_same(disk):
    async def scenario():
        done = asyncio.get_running_loop().create_future()
        loop, flush = asyncio.get_running_loop(), disk.flush

        def flush_and_tell(work):
            flush(work)
            loop.call_soon_threadsafe(done.set_result, None)

        disk.syncs._flush = flush_and_tell
        disk.syncs.start()
        disk.write()
        disk.write()
        await asyncio.wait_for(done, 10)
        assert disk.flushed == [2]

    asyncio.run(scenario())


def test_a_disk_that_fails_is_told_to_everybody_who_waits_and_nothing_counts_as_durable(disk):
    async def scenario():
        disk.syncs.start()
        disk.error = OSError(5, os.strerror(5))
        disk.write()
        error = await synced(disk)
        assert "cannot make the journal durable: Input/output error" in str(error)
        assert disk.failures == [error]
        assert disk.syncs.unsynced == 1
        disk.error = None
        assert await synced(disk) is None
        assert disk.syncs.unsynced == 0

    asyncio.run(scenario())


def test_a_failing_sync_at_the_end_is_raised(disk):
    disk.error = OSError(5, os.strerror(5))
    disk.write()
    with pytest.raises(segments.JournalUnavailable, match="Input/output"):
        disk.syncs.now()


def test_a_journal_that_was_changed_under_us_is_told_as_it_is(disk):
    async def scenario():
        disk.syncs.start()
        disk.error = segments.JournalDamaged("cut")
        disk.write()
        assert await synced(disk) is disk.error
        assert disk.failures == [disk.error]
        disk.error = None
        assert await synced(disk) is None

    asyncio.run(scenario())
