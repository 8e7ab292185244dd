# SPDX-License-Identifier: Apache-2.0
"""One answer on one connection: what a pipeline may rely on and may not do."""

from __future__ import annotations

import asyncio

import pytest
from tests.servers import doors


def test_write_says_false_above_the_mark_and_on_room_goes_on():
    async def test(it):
        _, _, body = await it.once(doors.get(b"/big"))
        assert body == doors.BIG
        assert it.pipeline.wrote_false > 0

    doors.run(test)


def test_gone_is_told_once_and_the_coroutine_is_never_cancelled():
    async def test(it):
        client = await it.client()
        client.send(doors.post(b"/wait"))
        await it.pipeline.hung.wait()
        client.writer.transport.abort()
        await asyncio.wait_for(it.pipeline.left.wait(), 10)
        it.pipeline.release.set()
        await asyncio.wait_for(it.pipeline.coroutine_ended.wait(), 10)
        assert it.pipeline.gone == [b"/wait"]
        late: list[str] = []
        reply = it.pipeline.replies[0]
        reply.on_gone(lambda: late.append("gone"))
        reply.on_room(lambda: late.append("room"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert late == ["gone"]

    doors.run(test)


def test_gone_is_not_told_after_a_complete_answer():
    async def test(it):
        client = await it.client()
        client.send(doors.get(b"/echo"))
        await client.answer()
        client.writer.transport.abort()
        await it.door.close(5.0)
        assert it.pipeline.gone == []

    doors.run(test)


@pytest.mark.parametrize("target", [b"/boom-after-start", b"/short", b"/abort"])
def test_an_answer_that_cannot_be_finished_is_cut_never_completed(target):
    async def test(it):
        client = await it.client()
        client.send(doors.get(target))
        rest = await client.rest()
        assert not rest.endswith(b"0\r\n\r\n")
        assert len(rest.partition(b"\r\n\r\n")[2]) < 10
        assert it.pipeline.gone == [target]

    doors.run(test)


def test_an_answer_starts_once_ends_once_and_keeps_to_its_length():
    async def test(it):
        client = await it.client()
        client.send(doors.get(b"/hang"))
        await it.pipeline.hung.wait()
        reply = it.pipeline.replies[0]
        with pytest.raises(AssertionError, match="starts before"):
            reply.write(b"x")
        with pytest.raises(AssertionError, match="starts before"):
            reply.end()
        reply.start(200, (), 4)
        with pytest.raises(AssertionError, match="starts once"):
            reply.start(200, (), 4)
        with pytest.raises(AssertionError, match="more bytes"):
            reply.write(b"12345")
        reply.end(b"1234")
        with pytest.raises(AssertionError, match="ends once"):
            reply.end()
        with pytest.raises(AssertionError, match="follows the end"):
            reply.write(b"x")
        assert (await client.answer())[2] == b"1234"

    doors.run(test)


def test_a_streams_head_is_sent_before_its_first_byte():
    async def test(it):
        client = await it.client()
        client.send(doors.get(b"/head-only"))
        raw = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 10)
        assert b"transfer-encoding: chunked" in raw
        it.pipeline.replies[0].end(b"x")
        assert await asyncio.wait_for(client.reader.readuntil(b"0\r\n\r\n"), 10) == b"1\r\nx\r\n0\r\n\r\n"

    doors.run(test)


def test_http_1_0_gets_a_stream_without_chunks_and_a_closed_connection():
    async def test(it):
        client = await it.client()
        client.send(doors.get(b"/stream", b"Connection: keep-alive", version=b"1.0"))
        head, _, body = (await client.rest()).partition(b"\r\n\r\n")
        assert b"chunked" not in head
        assert body == b"onetwothree"

    doors.run(test)


def test_answers_without_a_body_have_none():
    async def test(it):
        client = await it.client()
        client.send(doors.get(b"/echo", method=b"HEAD"))
        status, headers, _ = await client.answer(head=True)
        assert (status, int(headers[b"content-length"]) > 0) == (200, True)
        client.send(doors.get(b"/stream", method=b"HEAD"))
        assert (await client.answer(head=True))[0] == 200
        client.send(doors.get(b"/empty"))
        status, headers, _ = await client.answer()
        assert (status, b"content-length" in headers, b"transfer-encoding" in headers) == (204, False, False)
        client.send(doors.get(b"/nothing"))
        assert (await client.answer())[0] == 202

    doors.run(test)
