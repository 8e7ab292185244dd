# SPDX-License-Identifier: Apache-2.0
"""Threads for what blocks: results and errors come back, nobody waits for one that hangs, the process ends all the same."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from outrider_sidecar import workers


def test_results_and_errors_come_back_from_another_thread() -> None:
    async def main() -> None:
        pool = workers.Workers(2, "t")
        assert await pool.run(lambda: threading.current_thread().name) == "t"
        with pytest.raises(ZeroDivisionError):
            await pool.run(lambda: 1 // 0)
        pool.close()

    asyncio.run(main())


def test_no_more_run_at_once_than_there_are_threads() -> None:
    async def main() -> None:
        pool, gate, running, most = workers.Workers(2, "t"), threading.Event(), [], []

        def work() -> None:
            running.append(1)
            most.append(len(running))
            gate.wait(30)
            running.pop()

        tasks = [asyncio.create_task(pool.run(work)) for _ in range(6)]
        while len(most) < 2:
            await asyncio.sleep(0.01)
        gate.set()
        await asyncio.gather(*tasks)
        assert len(most) == 6
        assert max(most) == 2
        pool.close()

    asyncio.run(main())


def test_what_nobody_waits_for_any_longer_is_not_begun() -> None:
    async def main() -> None:
        pool, gate, done = workers.Workers(1, "t"), threading.Event(), []
        first = asyncio.create_task(pool.run(lambda: gate.wait(30)))
        second = asyncio.create_task(pool.run(lambda: done.append(2)))
        third = asyncio.create_task(pool.run(lambda: done.append(3)))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, third)
        assert done == [3]
        pool.close()

    asyncio.run(main())


def test_a_thread_that_hangs_keeps_no_process_from_ending() -> None:
    program = """
import asyncio, threading
from outrider_sidecar import workers
async def main():
    pool = workers.Workers(1, "t")
    try:
        await asyncio.wait_for(pool.run(threading.Event().wait), 0.05)
    except TimeoutError:
        print("gave up")
    pool.close()
asyncio.run(main())
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert (ran.stdout, ran.stderr) == ("gave up\n", "")
