# SPDX-License-Identifier: Apache-2.0
"""The tasks of a process that never end: when one does, the process must, for nothing else would start it again.

Used by controller. Ends none by itself: it sets `stopping`, says in the log what happened, and leaves the order of leaving to others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger("outrider.operator")


class Tasks:
    """`broken` says which task has ended by a bug, '' while none has; `stopping` is set then, and may be set by anybody."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[Any], str] = {}
        self.stopping = asyncio.Event()
        self.broken = ""

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Something that never ends but by being cancelled."""
        return self._started(name, work, self._ended)

    def aside(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Something that may end, and whose failure is nobody's end."""
        return self._started(name, work, self._done)

    async def unless_stopped(self, work: Coroutine[Any, Any, Any]) -> bool:
        """Whether `work` was done before we were told to stop. Raises what it raises."""
        working, stopping = asyncio.create_task(work), asyncio.create_task(self.stopping.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (working, stopping):
                each.cancel()
            await asyncio.gather(working, stopping, return_exceptions=True)
        if working.cancelled():
            return False
        working.result()
        return not self.stopping.is_set()

    async def end(self) -> None:
        """Cancels all of them and waits until each has ended in order."""
        while running := tuple(self._tasks):
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await asyncio.sleep(0)  # their callbacks

    def _started(self, name: str, work: Coroutine[Any, Any, Any], ended: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=name)
        self._tasks[task] = name
        task.add_done_callback(ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        name = self._tasks.pop(task)
        if task.cancelled():
            return
        error = task.exception() or RuntimeError("it ended by itself")
        log.critical("a part has ended; leaving", extra={"fields": {"part": name}}, exc_info=error)
        self.broken = self.broken or f"the part {name} has ended by a bug ({_innermost(error)!r})"
        self.stopping.set()

    def _done(self, task: asyncio.Task[Any]) -> None:
        name = self._tasks.pop(task)
        if not task.cancelled() and (error := task.exception()):
            log.error(
                "something was not done because of a bug", extra={"fields": {"part": name}}, exc_info=error
            )


def _innermost(error: BaseException) -> BaseException:
    """What a group of tasks has failed with."""
    return _innermost(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
