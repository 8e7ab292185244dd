# SPDX-License-Identifier: Apache-2.0
"""When the journal reaches the disk: in groups, in one thread, never on the event loop.

Used by the journal. Everything written is synced SYNC_SECONDS later, or at once when somebody waits for it; what is written
during a sync joins the next. Refuses to tell anybody that a record is durable before the disk said so.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable

from outrider_sidecar import segments

SYNC_SECONDS = 0.1
"""The most a machine that loses power can take with it when records are Buffered (audit.md)."""

Then = Callable[[segments.JournalUnavailable | None], None]
"""Called once: None when durable, otherwise why it cannot be said to be."""


class Syncs:
    """`take` says what to flush now, on the caller's side; `flush` does it, in the thread; `failed` hears of an error."""

    def __init__(
        self,
        take: Callable[[], segments.Flush],
        flush: Callable[[segments.Flush], None],
        failed: Callable[[segments.JournalUnavailable], None],
    ) -> None:
        self.unsynced = 0
        self._take, self._flush, self._failed = take, flush, failed
        self._waiting: list[Then] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: concurrent.futures.ThreadPoolExecutor | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_running = False

    def start(self) -> None:
        """From now on syncs happen by themselves. Called in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._schedule()

    def written(self) -> None:
        """One more record is not on disk yet."""
        self.unsynced += 1
        if self._timer is None and not self._is_running:
            self._schedule()

    def when_synced(self, then: Then) -> None:
        """Calls back once everything written so far is durable, or cannot be made so; at once when it is already."""
        if self.unsynced == 0:
            then(None)
            return
        self._waiting.append(then)
        if self._loop is None:
            self.now()
        elif not self._is_running:
            self._begin()

    def now(self) -> None:
        """Syncs before it returns. Blocks: only where no loop is served, at start and at the end."""
        count, waiting, self._waiting = self.unsynced, self._waiting, []
        error: segments.JournalUnavailable | None = None
        try:
            self._flush(self._take())
        except (OSError, segments.JournalUnavailable) as reason:
            error = _why(reason)
        self._done(count, waiting, error)
        if error is not None:
            raise error

    def stop(self) -> None:
        """Waits for a running sync and starts no other. Who still waits is told by the `now` that should follow."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop = None
        if self._thread is not None:
            self._thread.shutdown(wait=True)
            self._thread = None

    def _schedule(self) -> None:
        if self._loop is not None and self.unsynced and not self._is_running:
            self._timer = self._loop.call_later(SYNC_SECONDS, self._begin)

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        assert self._loop is not None
        assert self._thread is not None
        self._is_running = True
        count, waiting, self._waiting = self.unsynced, self._waiting, []
        running = self._loop.run_in_executor(self._thread, self._flush, self._take())
        running.add_done_callback(lambda ended: self._ended(ended, count, waiting))

    def _ended(self, ended: asyncio.Future[None], count: int, waiting: list[Then]) -> None:
        self._is_running = False
        reason = ended.exception()
        if reason is not None and not isinstance(reason, OSError | segments.JournalUnavailable):
            raise reason
        error = None if reason is None else _why(reason)
        self._done(count, waiting, error)
        if self._loop is not None and not self._is_running:
            if self._waiting:
                self._begin()
            else:
                self._schedule()

    def _done(self, count: int, waiting: list[Then], error: segments.JournalUnavailable | None) -> None:
        if error is None:
            self.unsynced -= min(count, self.unsynced)
        else:
            self._failed(error)
        for then in waiting:
            then(error)


def _why(reason: OSError | segments.JournalUnavailable) -> segments.JournalUnavailable:
    return segments.unavailable("make the journal durable", reason) if isinstance(reason, OSError) else reason
