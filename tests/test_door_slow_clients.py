# SPDX-License-Identifier: Apache-2.0
"""R12: clients that are slow to ask or slow to read are closed by a deadline and do not slow others."""

from __future__ import annotations

import asyncio

import pytest
from tests.servers import doors


def test_half_a_head_is_closed_by_its_deadline():
    async def test(it):
        client = await it.client()
        client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nX-Slow: ")
        assert (await client.answer())[0] == 408
        assert await client.rest() == b""
        assert it.pipeline.admitted == []

    doors.run(test, head_seconds=0.1)


def test_a_head_dribbled_byte_by_byte_is_closed_by_its_deadline():
    async def test(it):
        client = await it.client()
        client.send(doors.get(b"/echo"))
        assert (await client.answer())[0] == 200
        answered = asyncio.ensure_future(client.answer())
        while not answered.done():
            client.send(b"G" if client.writer.transport else b"")
            await asyncio.sleep(0.01)
        assert (await answered)[0] in (400, 408)

    doors.run(test, head_seconds=0.1)


def test_a_connection_that_never_speaks_is_closed():
    async def test(it):
        client = await it.client()
        await client.rest()
        assert it.pipeline.admitted == []

    doors.run(test, head_seconds=0.1)


def test_half_a_body_is_closed_by_its_deadline():
    async def test(it):
        client = await it.client()
        client.send(doors.get(b"/echo", b"Content-Length: 10", method=b"POST") + b"half")
        status, headers, _ = await client.answer()
        assert (status, headers[b"connection"]) == (408, b"close")
        assert it.pipeline.begun == []

    doors.run(test, body_seconds=0.1)


def test_a_connection_that_is_idle_after_an_answer_is_closed():
    async def test(it):
        client = await it.client()
        client.send(doors.get(b"/echo"))
        assert (await client.answer())[0] == 200
        assert await client.rest() == b""

    doors.run(test, idle_seconds=0.1)


def test_a_slow_pipeline_is_not_a_slow_client():
    async def test(it):
        client = await it.client()
        client.send(doors.get(b"/wait"))
        await it.pipeline.hung.wait()
        await asyncio.sleep(0.3)  # every deadline passes while the pipeline thinks
        it.pipeline.release.set()
        assert (await client.answer())[2] == b"late"

    doors.run(test, head_seconds=0.05, body_seconds=0.05, idle_seconds=0.05, write_seconds=0.05)


@pytest.mark.parametrize("target", [b"/big", b"/trickle"])
def test_a_client_that_stops_reading_is_cut_off_and_does_not_slow_others(target):
    async def test(it):
        with await doors.deaf_client(it, target):
            await asyncio.wait_for(it.pipeline.hung.wait(), 10)
            assert (await it.once(doors.get(b"/echo")))[0] == 200
            assert it.pipeline.gone == []
            await asyncio.wait_for(it.pipeline.left.wait(), 10)
            assert it.pipeline.gone == [target]
            assert (await it.once(doors.get(b"/echo")))[0] == 200

    doors.run(test, write_seconds=0.2)


def test_an_ended_answer_that_is_not_read_does_not_hold_its_connection_for_ever():
    async def test(it):
        with await doors.deaf_client(it, b"/trickle"):
            await asyncio.wait_for(it.pipeline.hung.wait(), 10)
            it.pipeline.replies[0].end()
            async with asyncio.timeout(10):
                await it.door.close(9.0)
            assert it.pipeline.gone == []

    doors.run(test, write_seconds=0.2)
