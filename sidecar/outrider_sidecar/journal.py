# SPDX-License-Identifier: Apache-2.0
"""The journal: no call leaves before its intent stands here, and every intent gets exactly one outcome.

Called by the pipeline, for one event loop. An intent is one write before the call returns (durable against the death of the
process at once, against that of the machine with the next sync). Refuses intents when they cannot be written, when the
outcomes of calls under way might no longer fit, or when the journal is full; it goes on by itself once it can.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import logging
import os
import pathlib
from collections.abc import Callable
from typing import Self

from outrider import audit, budgets, chain
from outrider_sidecar import doorman, segments, syncs

_LOG = logging.getLogger("outrider")

JournalUnavailable = segments.JournalUnavailable
JournalDamaged = segments.JournalDamaged

SEGMENT_BYTES_MAX = 8 * 1024 * 1024
JOURNAL_BYTES_MAX = 1024 * 1024 * 1024
OUTCOME_BYTES_MAX = 2_048
"""An outcome without its result's text, which is left out where space is short."""
RESERVE_BYTES = 2_048 * OUTCOME_BYTES_MAX
"""Completion space, kept free on disk: for the outcomes of at most 2,048 calls under way."""
OWED_MAX = 1_000
"""Refusals kept in memory while they cannot be written; further ones are counted by reason."""
RETRY_SECONDS = 1.0
"""How often a journal that could not be written tries again when no call does."""


@dataclasses.dataclass(frozen=True, slots=True)
class Replay:
    """What the journal held when it was opened. `latest` (wall seconds) is None for a new one.

    `spent` includes the maximum of every call that was under way (`interrupted` of them). `loss_possible`: the machine
    restarted while the proxy ran, so that the last SYNC_SECONDS of buffered records may be gone.
    """

    spent: tuple[budgets.Charge, ...]
    latest: float | None
    interrupted: int
    torn_bytes: int
    loss_possible: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`clock` gives wall seconds; `instance` names this life of the proxy, `boot_id` this life of the machine."""

    clock: Callable[[], float]
    instance: str
    boot_id: str
    segment_bytes_max: int
    journal_bytes_max: int


class Journal:
    """Made by `open`; `start` begins background syncs once a loop runs; `close` ends in peace.

    For metrics: `records` written, `unavailable` failures to write, `dropped` refusals that were only counted. `problem` is
    why records cannot be written now, None when they can. `key` is what digests of bodies are keyed with.
    """

    def __init__(
        self, folder: segments.Folder, options: Options, report: chain.Report, *, key: bytes
    ) -> None:
        self.key = key
        self.instance = options.instance
        self.records = self.unavailable = self.dropped = 0
        self.problem: str | None = None
        self.replay = Replay((), None, 0, 0, loss_possible=False)
        self._folder, self._options, self._tally = folder, options, report.tally
        self._digest, self._sequence = report.digest, 0
        self._segment = segments.Segment(report.last, -1, report.end)
        self._sealed_bytes, self._sealed_read_at = 0, 0.0
        self._broken: JournalUnavailable | None = None
        self._owed: collections.deque[audit.Record] = collections.deque()
        self._uncounted: dict[str, int] = {}
        self._uncounted_since = 0.0
        self._damaged: JournalDamaged | None = None
        self._strangers, self._callers = doorman.strangers(), doorman.callers()
        self._retired: list[segments.Segment] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._is_open = True
        self._syncs = syncs.Syncs(self._flush_work, folder.flush, self._sync_failed)

    @classmethod
    def open(  # noqa: PLR0913 -- settings of one thing, named at the one call
        cls,
        folder: pathlib.Path,
        *,
        clock: Callable[[], float],
        boot_id: str,
        instance_random: bytes,
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
        journal_bytes_max: int = JOURNAL_BYTES_MAX,
        reserve_bytes: int = RESERVE_BYTES,
        key: bytes | None = None,
    ) -> Self:
        """Locks the folder, replays its end, closes what was under way and begins a segment. Blocks.

        `key` None keeps one beside the segments. Raises JournalUnavailable: it cannot be used; JournalDamaged: nor verified.
        """
        held = segments.Folder.open(folder, reserve_bytes=reserve_bytes)
        options = Options(
            clock=clock,
            instance=instance_random.hex(),
            boot_id=boot_id,
            segment_bytes_max=segment_bytes_max,
            journal_bytes_max=journal_bytes_max,
        )
        try:
            head, report = segments.recover(held)
            journal = cls(held, options, report, key=held.key() if key is None else key)
            journal._resume(head, report)
        except OSError as error:
            held.close()
            raise segments.unavailable(f"open the journal {folder}", error) from error
        except JournalUnavailable:
            held.close()
            raise
        return journal

    @property
    def buffered(self) -> int:
        """Records that are not on disk yet."""
        return self._syncs.unsynced + len(self._owed)

    def start(self) -> None:
        """Begins syncing in the background. Called in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._syncs.start()

    def intent(self, record: audit.Intent) -> None:
        """Writes that a call is about to leave; it may when this returns. Raises JournalUnavailable: it may not."""
        try:
            if self._damaged is not None:
                raise self._damaged
            self._accept()
            self._accept_call()
            self._write(record)
        except JournalUnavailable as error:
            self._failed(error)
            raise
        self.problem = None

    def outcome(self, record: audit.Outcome) -> None:
        """Writes how a call ended: in completion space when the disk is full, and later when even that fails."""
        try:
            self._write(record)
        except JournalUnavailable as error:
            self._failed(error)
            self._folder.free_reserve()
            bare = audit.bare(record)
            try:
                self._write(bare)
            except JournalUnavailable:
                self._owe(bare)

    def refusal(self, record: audit.RefusalRecord | audit.Summary) -> None:
        """Writes a refusal; when it cannot be written it is kept for later, and counted once too many are."""
        try:
            self._accept()
            self._write(record)
        except JournalUnavailable as error:
            self._failed(error)
            self._owe(record)

    def refusal_before_auth(self, record: audit.RefusalRecord, now: float) -> None:
        """Writes the first ten a minute, then one counted summary (audit.md): nobody known can fill the disk."""
        self._measured(self._strangers, record, now)

    def refusal_of_caller(self, record: audit.RefusalRecord, now: float) -> None:
        """The same with room for 600 a minute, whatever strangers do: what an accepted caller sent that is no call."""
        self._measured(self._callers, record, now)

    def when_synced(self, then: syncs.Then) -> None:
        """Calls back once all written so far survives the loss of power, or with why that is not known."""
        self._syncs.when_synced(then)

    async def synced(self) -> None:
        """Returns once all written so far survives the loss of power. Raises JournalUnavailable."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def then(error: JournalUnavailable | None) -> None:
            if not waiting.done():
                waiting.set_exception(error) if error else waiting.set_result(None)

        self._syncs.when_synced(then)
        await waiting

    def close(self) -> None:
        """Writes what is owed, syncs, and lets the folder go. Blocks for one sync. Safe to call twice."""
        if not self._is_open:
            return
        for timer in self._timers.values():
            timer.cancel()
        for bucket in (self._strangers, self._callers):
            self._sum_up(bucket, self._options.clock(), closing=True)
        with contextlib.suppress(JournalUnavailable):  # `problem` says so, and nobody is left to hear it
            self._pay()
        self._is_open = False
        self._syncs.stop()
        try:
            with contextlib.suppress(JournalUnavailable):
                self._syncs.now()
        finally:
            fd, self._segment.fd = self._segment.fd, -1  # a late outcome must not meet another file's number
            os.close(fd)
            self._folder.close()

    # From here on: how.

    def _resume(self, head: chain.Head, report: chain.Report) -> None:
        tally = report.tally
        latest = tally.latest if report.records else None
        loss_possible = bool(report.records) and tally.boot_id != self._options.boot_id and not head.closed
        interrupted = tuple(tally.open_calls.values())
        try:
            self._roll(torn_bytes=report.torn_bytes, loss_possible=loss_possible)
        except JournalUnavailable:
            self._folder.free_reserve()
            self._roll(torn_bytes=report.torn_bytes, loss_possible=loss_possible)
        for call in interrupted:
            self.outcome(audit.interrupted(call))
        self._syncs.now()
        self.replay = Replay(
            spent=tally.spent(),
            latest=latest,
            interrupted=len(interrupted),
            torn_bytes=report.torn_bytes,
            loss_possible=loss_possible,
        )

    def _accept(self) -> None:
        """What has to be true before anything new is begun."""
        if not self._is_open:
            raise JournalUnavailable("the journal is closed: the proxy is going down")
        self._folder.keep_reserve()
        limit = self._options.journal_bytes_max
        if self._sealed_bytes + self._segment.size >= limit:
            now = self._options.clock()
            if abs(now - self._sealed_read_at) >= RETRY_SECONDS:
                self._read_sealed()
            if self._sealed_bytes + self._segment.size >= limit:
                raise JournalUnavailable(
                    f"the journal has reached its {limit} bytes; run `outrider audit export`, then remove the oldest"
                    f" segments (not the newest) from {self._folder.path}; calls go on by themselves"
                )
        if self._owed or self._uncounted:
            self._pay()

    def _accept_call(self) -> None:
        """Whether one more outcome fits into the completion space."""
        calls = len(self._tally.open_calls)
        if (calls + 1) * OUTCOME_BYTES_MAX > self._folder.reserve_bytes:
            raise JournalUnavailable(
                f"{calls} calls are under way and no space is set aside for another outcome;"
                " try again when one has ended"
            )

    def _write(self, record: audit.Record) -> None:
        if self._broken is not None:
            self._roll()
        elif self._segment.size - self._segment.opening_bytes >= self._options.segment_bytes_max:
            with contextlib.suppress(JournalUnavailable):  # this one still takes records, if the disk does
                self._roll()
        self._put(self._segment, record)
        self.records += 1
        self._syncs.written()

    def _put(self, segment: segments.Segment, record: audit.Record) -> None:
        number, now = self._sequence + 1, self._options.clock()
        entry = audit.Entry(instance=self.instance, sequence=number, time=now, record=record)
        data, digest = chain.frame(self._digest, audit.encode(entry))
        try:
            segment.append(data)
        except JournalUnavailable as error:
            if segment.excess:
                self._broken = error
            raise
        self._digest, self._sequence = digest, entry.sequence
        self._tally.apply(entry)

    def _roll(self, *, torn_bytes: int = 0, loss_possible: bool = False) -> None:
        old = self._segment
        fresh = self._folder.begin(old.number + 1)
        opening = audit.Opening(
            segment=fresh.number,
            boot_id=self._options.boot_id,
            previous=self._digest.hex(),
            previous_bytes=old.size,
            torn_bytes=torn_bytes,
            abandoned_bytes=old.excess,
            loss_possible=loss_possible,
            latest=self._tally.latest,
            spent=self._tally.spent(),
            open_calls=tuple(self._tally.open_calls.values()),
        )
        try:
            self._put(fresh, opening)
        except JournalUnavailable:
            self._folder.discard(fresh)
            raise
        fresh.opening_bytes = fresh.size
        if old.fd >= 0:
            self._retired.append(old)
        self._segment, self._broken = fresh, None
        self._read_sealed()
        self.records += 1
        self._syncs.written()

    def _read_sealed(self) -> None:
        self._sealed_read_at = self._options.clock()
        self._sealed_bytes = self._folder.bytes_besides(self._segment.number)

    def _failed(self, error: JournalUnavailable) -> None:
        self.unavailable += 1
        self.problem = str(error)

    def _owe(self, record: audit.Record) -> None:
        if isinstance(record, audit.RefusalRecord) and len(self._owed) >= OWED_MAX:
            if not self._uncounted:
                self._uncounted_since = self._options.clock()
            self._uncounted[record.reason] = self._uncounted.get(record.reason, 0) + 1
            self.dropped += 1
        else:
            self._owed.append(record)
        self._after(RETRY_SECONDS, "retry", self._retry)

    def _pay(self) -> None:
        while self._owed:
            self._write(self._owed[0])
            self._owed.popleft()
        if self._uncounted:
            since, until = self._uncounted_since, self._options.clock()
            self._write(
                audit.Summary(since=since, until=until, counts=self._uncounted, why="journalUnavailable")
            )
            self._uncounted = {}

    def _retry(self) -> None:
        try:
            self._accept()
        except JournalUnavailable as error:
            self.problem = str(error)
            self._after(RETRY_SECONDS, "retry", self._retry)
        else:
            self.problem = None if self._damaged is None else str(self._damaged)

    def _after(self, seconds: float, name: str, do: Callable[[], None]) -> None:
        if self._loop is None or name in self._timers or not self._is_open:
            return

        def run() -> None:
            del self._timers[name]
            do()

        self._timers[name] = self._loop.call_later(seconds, run)

    def _measured(self, bucket: doorman.Doorman, record: audit.RefusalRecord, now: float) -> None:
        self._sum_up(bucket, now)
        if bucket.admits(record.reason, now):
            self.refusal(record)
        self._sum_up(bucket, now)

    def _sum_up(self, bucket: doorman.Doorman, now: float, *, closing: bool = False) -> None:
        if (summary := bucket.due(now, closing=closing)) is not None:
            self.refusal(summary)
        elif bucket.owes:
            then = self._options.clock
            self._after(doorman.MINUTE_SECONDS, bucket.why, lambda: self._sum_up(bucket, then()))

    def _flush_work(self) -> segments.Flush:
        retired, self._retired = tuple(self._retired), []
        current, is_closed = self._segment, not self._is_open
        head = chain.Head(current.number, current.size, self._digest.hex(), closed=is_closed)
        return segments.Flush(retired, current, head)

    def _sync_failed(self, error: JournalUnavailable) -> None:
        """What a failed sync leaves on disk is unknown: the rest goes to a new segment."""
        self._failed(error)
        self._broken = error
        if isinstance(error, JournalDamaged):
            self._damaged = error
            _LOG.critical("no call is let through from now on, somebody changed the journal: %s", error)
