# SPDX-License-Identifier: Apache-2.0
"""A few threads for what blocks, that never keep the process from ending.

Used by `vaultline`. Unlike those of the standard library they are not waited for at the end: one of them may hang on a server that
is silent, and SIGTERM has two seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

_R = TypeVar("_R")
_Work = tuple[Callable[[], Any], "asyncio.Future[Any]"]


class Workers:
    """Threads that start with the first work; `close` lets them end when they have done what they are at."""

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._waiting: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    async def run(self, work: Callable[[], _R]) -> _R:
        """Its result, or what it raised. Whoever stops waiting takes back what was not begun."""
        if len(self._threads) < self._count:
            thread = threading.Thread(
                target=self._serve, args=(asyncio.get_running_loop(),), name=self._name, daemon=True
            )
            self._threads.append(thread)
            thread.start()
        future: asyncio.Future[_R] = asyncio.get_running_loop().create_future()
        self._waiting.put((work, future))
        return await future

    def close(self) -> None:
        for _ in self._threads:
            self._waiting.put(None)

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        while (each := self._waiting.get()) is not None:
            work, future = each
            if future.cancelled():
                continue
            result, error = None, None
            try:
                result = work()
            except BaseException as raised:  # noqa: BLE001 -- it is whoever awaits the result that is told
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(_settle, future, result, error)
            del work, future, result, error, each


def _settle(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
