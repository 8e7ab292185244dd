# SPDX-License-Identifier: Apache-2.0
"""The door on real sockets: framing, bounds, clocks, and what a pipeline may rely on."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gzip
import json
import logging
import socket
import struct

import pytest
from tests.servers import doors


def test_a_request_reaches_the_pipeline_whole_and_raw():
    async def test(it):
        request = doors.post(b"/echo/%2f..%2Fa?q=%7e%zz", b"hello", b"X-A: 1", b"x-a: 2", b"X-B: caf\xc3\xa9")
        status, headers, body = await it.once(request)
        seen = json.loads(body)
        assert (status, headers[b"content-type"]) == (200, b"application/json")
        assert headers[b"date"].endswith(b" GMT")
        assert seen["target"] == "/echo/%2f..%2Fa?q=%7e%zz"
        assert (seen["method"], seen["body"], seen["peer"]) == ("POST", "hello", "127.0.0.1")
        assert ["x-a", "1"] in seen["headers"]
        assert ["x-a", "2"] in seen["headers"]
        assert ["x-b", "caf\xc3\xa9"] in seen["headers"]
        assert dataclasses.astuple(it.pipeline.begun[0])[5] > 0

    doors.run(test)


def test_a_request_split_anywhere_is_the_same_request():
    async def test(it):
        request = doors.post(b"/echo", b"0123456789" * 3, b"X-A: 1")
        client = await it.client()
        client.send(request)
        whole = (await client.answer())[2]
        for at in range(1, len(request), 7):
            client.send(request[:at])
            await client.writer.drain()
            for _ in range(5):
                await asyncio.sleep(0)
            client.send(request[at:])
            assert (await client.answer())[2] == whole

    doors.run(test)


def test_a_connection_is_kept_and_pipelined_requests_are_answered_in_order():
    async def test(it):
        client = await it.client()
        client.send(doors.post(b"/echo", b"first") + doors.get(b"/stream") + doors.post(b"/echo", b"third"))
        bodies = [(await client.answer())[2] for _ in range(3)]
        assert json.loads(bodies[0])["body"] == "first"
        assert bodies[1] == b"onetwothree"
        assert json.loads(bodies[2])["body"] == "third"

    doors.run(test)


def test_admit_refuses_before_the_body_is_read():
    async def test(it):
        client = await it.client()
        client.send(doors.get(b"/deny", b"Content-Length: 1000", method=b"POST"))
        status, headers, body = await client.answer()
        assert (status, headers[b"connection"], body) == (401, b"close", b"denied")
        assert it.pipeline.begun == []
        # what follows is the refused body, never a second request
        client.send(doors.get(b"/echo"))
        assert await client.rest() == b""
        assert it.pipeline.admitted == [b"/deny"]

    doors.run(test)


def test_a_refused_request_whose_body_has_arrived_keeps_its_connection():
    async def test(it):
        client = await it.client()
        client.send(doors.post(b"/deny", b"small"))
        assert "connection" not in (await client.answer())[1]
        client.send(doors.get(b"/echo"))
        assert (await client.answer())[0] == 200

    doors.run(test)


def test_an_admit_that_refuses_without_an_answer_is_an_internal_error():
    async def test(it):
        assert (await it.once(doors.get(b"/admit-silent")))[0] == 500

    doors.run(test)


def test_a_body_announced_above_the_limit_is_refused_at_once():
    async def test(it):
        client = await it.client()
        client.send(doors.get(b"/echo", b"Content-Length: 101", method=b"POST"))
        status, headers, _ = await client.answer()
        assert (status, headers[b"connection"]) == (413, b"close")
        assert (await it.once(doors.post(b"/echo", b"x" * 100)))[0] == 200
        assert len(it.pipeline.begun) == 1

    doors.run(test, body_bytes=100)


def test_a_chunked_body_is_counted_and_refused_above_the_limit():
    async def test(it):
        client = await it.client()
        client.send(doors.get(b"/echo", b"Transfer-Encoding: chunked", method=b"POST"))
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                client.send(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
                await client.writer.drain()
        assert (await client.answer())[0] == 413
        assert it.pipeline.begun == []

    doors.run(test, body_bytes=100_000)


def test_a_chunked_body_arrives_whole():
    async def test(it):
        chunks = b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\n\r\n"
        _, _, body = await it.once(
            doors.get(b"/echo", b"Transfer-Encoding: chunked", method=b"POST") + chunks
        )
        assert json.loads(body)["body"] == "hello world"

    doors.run(test)


def test_all_bodies_together_are_bounded_and_given_back():
    async def test(it):
        waiting = await it.client()
        waiting.send(doors.post(b"/wait", b"x" * 90_000))
        await it.pipeline.hung.wait()
        assert (await it.once(doors.post(b"/echo", b"y" * 90_000)))[0] == 503
        it.pipeline.release.set()
        assert (await waiting.answer())[0] == 200
        assert (await it.once(doors.post(b"/echo", b"z" * 90_000)))[0] == 200

    doors.run(test, bodies_bytes=100_000)


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br", b"zstd", b"GZIP", b"identity, gzip", b"x"])
def test_a_compressed_body_is_refused_and_never_inflated(coding):
    async def test(it):
        bomb = gzip.compress(bytes(10_000_000))
        status, _, body = await it.once(doors.post(b"/echo", bomb, b"Content-Encoding: " + coding))
        assert (status, b"Content-Encoding" in body) == (415, True)
        assert it.pipeline.begun == []
        assert (await it.once(doors.post(b"/deny", bomb, b"Content-Encoding: " + coding)))[0] == 401

    doors.run(test)


def test_identity_is_no_compression():
    async def test(it):
        assert (await it.once(doors.post(b"/echo", b"{}", b"Content-Encoding: identity")))[0] == 200

    doors.run(test)


SMUGGLED = doors.get(b"/echo?smuggled")


P = b"POST /echo HTTP/1.1\r\nHost: a\r\n"


DESYNC = [
    P + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    P + b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n" + SMUGGLED,
    P + b"Content-Length: 0\r\nContent-Length: 40\r\n\r\n" + SMUGGLED,
    P + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello" + SMUGGLED,
    P + b"Content-Length: 5, 5\r\n\r\nhello" + SMUGGLED,
    P + b"Content-Length: +5\r\n\r\nhello" + SMUGGLED,
    P + b"Content-Length: -1\r\n\r\n" + SMUGGLED,
    P + b"Content-Length: 0x5\r\n\r\nhello" + SMUGGLED,
    P + b"Content-Length: 1_0\r\n\r\nhello" + SMUGGLED,
    P + b"Content-Length: \r\n\r\n" + SMUGGLED,
    P + b"Content-Length : 5\r\n\r\nhello" + SMUGGLED,
    P + b"Content-Length: 99999999999999999999999\r\n\r\n" + SMUGGLED,
    P + b"Content-Length: 5\r\n folded: x\r\n\r\nhello" + SMUGGLED,
    P + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    P + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
    P + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    P + b"Transfer-Encoding: identity\r\n\r\n" + SMUGGLED,
    P + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    P + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    P + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    P + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n" + SMUGGLED,
    P + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n" + SMUGGLED,
    P + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n" + SMUGGLED,
    P + b"Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n" + SMUGGLED,
    P + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n" + SMUGGLED,
    b"POST /echo HTTP/1.1\r\nContent-Length: 0\r\n\r\n" + SMUGGLED,
    b"POST /echo HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 0\r\n\r\n" + SMUGGLED,
    b"POST /echo HTTP/1.1\nHost: a\nContent-Length: 0\n\n" + SMUGGLED,
    b"POST /echo HTTP/1.1\r\nHost: a\r\nX: \x00\r\nContent-Length: 0\r\n\r\n" + SMUGGLED,
    b"POST /echo smuggled HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED,
    b"POST /echo HTTP/9.9\r\nHost: a\r\n\r\n" + SMUGGLED,
    b"POST /echo\r\n\r\n" + SMUGGLED,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03secret-hello\r\n\r\n",
    b"GET /echo HTTP/1.1\r\nHost: a\r\nX-Long: " + b"canary" * 10_000 + b"\r\n\r\n" + SMUGGLED,
    b"GET /" + b"canary" * 10_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED,
    b"GET /echo HTTP/1.1\r\nHost: a\r\n" + b"X: canary\r\n" * 500 + b"\r\n" + SMUGGLED,
]


@pytest.mark.parametrize("data", DESYNC, ids=range(len(DESYNC)))
def test_ambiguous_or_malformed_http_is_refused_once_and_nothing_after_it_is_served(data, caplog):
    async def test(it):
        client = await it.client()
        client.send(data)
        answers = await client.rest()
        assert answers.startswith(b"HTTP/1.1 400 ")
        assert answers.count(b"HTTP/1.1 ") == 1
        assert answers.endswith(b"\r\n\r\nmalformed HTTP request\n")
        assert b"connection: close" in answers
        assert it.pipeline.begun == []

    with caplog.at_level(logging.DEBUG, "outrider"), caplog.at_level(logging.INFO):
        doors.run(test)
    assert caplog.text == ""


def test_spaces_before_the_target_are_no_part_of_it():
    async def test(it):
        status, _, body = await it.once(b"GET   /echo HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (status, json.loads(body)["target"]) == (200, "/echo")

    doors.run(test)


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_a_websocket_upgrade_is_refused(method):
    async def test(it):
        client = await it.client()
        extra = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13")
        client.send(doors.get(b"/echo", *extra, method=method) + SMUGGLED)
        assert (await client.answer())[0] == 400
        assert await client.rest() == b""
        assert it.pipeline.admitted == []

    doors.run(test)


def test_an_offered_h2c_upgrade_is_ignored_and_the_body_still_read():
    async def test(it):
        client = await it.client()
        client.send(doors.post(b"/echo", b"hello", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"))
        status, headers, body = await client.answer()
        assert (status, headers[b"connection"], json.loads(body)["body"]) == (200, b"close", "hello")
        assert await client.rest() == b""

    doors.run(test)


def test_connect_never_turns_the_door_into_a_tunnel():
    async def test(it):
        client = await it.client()
        client.send(b"CONNECT evil:443 HTTP/1.1\r\nHost: evil:443\r\n\r\n" + SMUGGLED)
        answers = await client.rest()
        assert answers.count(b"HTTP/1.1 ") == 1
        assert b"smuggled" not in answers

    doors.run(test)


def test_a_body_is_asked_for_with_100_continue_only_after_admit():
    async def test(it):
        client = await it.client()
        client.send(doors.get(b"/echo", b"Content-Length: 5", b"Expect: 100-continue", method=b"POST"))
        assert (await client.answer())[0] == 100
        client.send(b"hello")
        assert (await client.answer())[0] == 200
        client.send(doors.get(b"/deny", b"Content-Length: 5", b"Expect: 100-continue", method=b"POST"))
        assert (await client.answer())[0] == 401
        assert (await it.once(doors.get(b"/echo", b"Content-Length: 5", b"Expect: magic", method=b"POST")))[
            0
        ] == 417

    doors.run(test)


def test_a_client_that_resets_right_after_its_request_harms_nobody(caplog):
    async def test(it):
        for target in (b"/echo", b"/big", b"/wait", b"/hang"):
            for data in (doors.get(target), doors.post(target, b"x" * 100_000)[:50_000]):
                sock = socket.create_connection(("127.0.0.1", it.door.port))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.sendall(data)
                sock.close()
        assert (await it.once(doors.get(b"/echo")))[0] == 200

    with caplog.at_level(logging.INFO):
        doors.run(test)
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("target", [b"/boom", b"/boom-later", b"/split"])
def test_a_bug_of_the_pipeline_is_one_plain_500_and_one_log_line(target, caplog):
    async def test(it):
        client = await it.client()
        client.send(doors.post(target))
        status, _, body = await client.answer()
        assert (status, body) == (500, b"internal error\n")
        client.send(doors.get(b"/echo"))
        assert (await client.answer())[0] == 200

    with caplog.at_level(logging.INFO):
        doors.run(test)
    assert [record.name for record in caplog.records] == ["outrider"]
    assert "Error at " in caplog.text
    assert "canary" not in caplog.text
    assert "Traceback" not in caplog.text


def test_close_lets_answers_under_way_end_and_accepts_no_more():
    async def test(it):
        idle, busy = await it.client(), await it.client()
        idle.send(doors.get(b"/echo"))
        await idle.answer()
        busy.send(doors.get(b"/wait"))
        await it.pipeline.hung.wait()
        closing = asyncio.ensure_future(it.door.close(5.0))
        assert await idle.rest() == b""
        with pytest.raises(OSError):
            await it.client()
        it.pipeline.release.set()
        status, headers, body = await busy.answer()
        assert (status, headers[b"connection"], body) == (200, b"close", b"late")
        await asyncio.wait_for(closing, 10)
        assert it.pipeline.gone == []

    doors.run(test)


def test_close_cuts_what_does_not_end_in_time_and_tells_the_pipeline():
    async def test(it):
        busy = await it.client()
        busy.send(doors.get(b"/hang"))
        await it.pipeline.hung.wait()
        await asyncio.wait_for(it.door.close(0.1), 10)
        assert await busy.rest() == b""
        assert it.pipeline.gone == [b"/hang"]

    doors.run(test)
