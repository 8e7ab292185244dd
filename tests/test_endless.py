# SPDX-License-Identifier: Apache-2.0
"""Tasks that never end: what happens when one does all the same, and how all of them are ended."""

from __future__ import annotations

import asyncio
import logging

import pytest

from outrider_operator import endless


async def forever() -> None:
    await asyncio.Event().wait()


async def failing() -> None:
    raise ValueError("boom")


async def failing_in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(failing())


async def ending() -> None:
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("work", "why"),
    [
        (failing, "the part one has ended by a bug (ValueError('boom'))"),
        (failing_in_a_group, "the part one has ended by a bug (ValueError('boom'))"),
        (ending, "the part one has ended by a bug (RuntimeError('it ended by itself'))"),
    ],
)
def test_one_that_ends_stops_the_process_and_is_named(work, why, caplog) -> None:
    async def run() -> str:
        tasks = endless.Tasks()
        tasks.start("other", forever())
        tasks.start("one", work())
        async with asyncio.timeout(5):
            await tasks.stopping.wait()
        await tasks.end()
        return tasks.broken

    with caplog.at_level(logging.INFO):
        assert asyncio.run(run()) == why
    [line] = [each for each in caplog.records if each.levelno == logging.CRITICAL]
    assert line.fields == {"part": "one"}
    assert line.exc_info is not None


def test_one_that_is_cancelled_stops_nothing() -> None:
    async def run() -> tuple[str, bool]:
        tasks = endless.Tasks()
        task = tasks.start("one", forever())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0.01)
        return tasks.broken, tasks.stopping.is_set()

    assert asyncio.run(run()) == ("", False)


def test_a_failure_of_what_may_end_is_said_and_stops_nothing(caplog) -> None:
    async def run() -> tuple[str, bool]:
        tasks = endless.Tasks()
        for work in (failing, ending):
            tasks.aside("mend", work())
        await asyncio.sleep(0.01)
        await tasks.end()
        return tasks.broken, tasks.stopping.is_set()

    assert asyncio.run(run()) == ("", False)
    assert [each.message for each in caplog.records] == ["something was not done because of a bug"]


def test_each_is_ended_in_its_own_order_and_so_is_what_it_starts_on_the_way_out() -> None:
    said: list[str] = []

    async def run() -> None:
        tasks = endless.Tasks()

        async def orderly(name: str, *, another: bool = False) -> None:
            try:
                await forever()
            finally:
                await asyncio.sleep(0.01)
                said.append(name)
                if another:
                    tasks.start("late", orderly("late"))

        tasks.start("one", orderly("one", another=True))
        tasks.start("two", orderly("two"))
        await asyncio.sleep(0)
        await tasks.end()
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    asyncio.run(run())
    assert said == ["one", "two", "late"]


def test_waiting_is_over_when_it_is_done_or_when_we_are_to_stop() -> None:
    async def run() -> tuple[bool, bool, bool]:
        tasks = endless.Tasks()
        done = await tasks.unless_stopped(ending())
        asyncio.get_running_loop().call_later(0.01, tasks.stopping.set)
        stopped = await tasks.unless_stopped(forever())
        late = await tasks.unless_stopped(ending())
        return done, stopped, late

    assert asyncio.run(run()) == (True, False, False)


def test_what_is_waited_for_may_fail() -> None:
    with pytest.raises(ValueError, match="boom"):
        asyncio.run(endless.Tasks().unless_stopped(failing()))
