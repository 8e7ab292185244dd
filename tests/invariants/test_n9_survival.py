# SPDX-License-Identifier: Apache-2.0
"""N9: nothing that can be sent to the proxy ends it, and it serves the next caller as before."""

from __future__ import annotations

import contextlib
import json
import pathlib
import random
import socket
import time

import pytest
from tests import laptop
from tests.scenarios import recorder

SERVER = "tools/recorder"
FUZZ_SECONDS = 5.0
CORPUS = pathlib.Path(__file__).resolve().parent.parent / "corpus"
DEEP = b'{"a":' * 100_000
PROTOCOL = [
    b"POST ", b"GET ", b"DELETE ", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"/mcp", b" HTTP/1.1\r\n", b"\r\n",
    b"Host: 127.0.0.1\r\n", b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Content-Type: application/json\r\n", b"Mcp-Method: tools/call\r\n", b"ffffffffffffffff\r\n", b"0\r\n\r\n",
    b'{"jsonrpc":"2.0",', b'"method":"tools/call"', b'"params":{}', b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"[" * 500,
    b"Expect: 100-continue\r\n", b"Connection: upgrade\r\n", b"Content-Encoding: gzip\r\n", b'"id":1e400}',
]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with recorder.running() as seen:
        files = {
            "all.yaml": laptop.documents(
                laptop.server(SERVER, seen.url), laptop.policy("outrider-system/p", SERVER, laptop.allow())
            )
        }
        with laptop.running(tmp_path_factory.mktemp("survival"), files) as made:
            yield made


def alive(home):
    """The same process as before, and it serves."""
    assert home.proxy.ended is None, home.proxy.tail()
    assert home.agent.call(SERVER, "echo", {"a": 1})["content"][0]["text"] == '{"a": 1}'
    assert home.is_ready()


def send(port, data):
    """Bytes on a connection of their own, and whatever comes back within a moment."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.settimeout(0.02)
        with contextlib.suppress(OSError):
            connection.sendall(data)
            while chunk := connection.recv(65_536):
                got += chunk
    return got


def noise(chance, token):
    pieces = [*PROTOCOL, b"Authorization: Bearer " + token.encode() + b"\r\n"]
    made = [chance.randbytes(chance.randint(0, 60)) if chance.random() < 0.3 else chance.choice(pieces)]
    made += [chance.choice(pieces) for _ in range(chance.randint(0, 14))]
    return b"".join(made)


def test_random_bytes_at_both_doors_leave_it_alive(home):
    pid, chance = home.proxy.pid, random.Random(9)
    until, sent = time.monotonic() + FUZZ_SECONDS, 0
    while time.monotonic() < until:
        send(home.port if sent % 5 else home.admin_port, noise(chance, home.agent.token))
        sent += 1
    print(f"{sent} connections with noise")
    assert sent > 50
    assert home.proxy.pid == pid
    alive(home)


def test_mutated_requests_of_an_accepted_caller_leave_it_alive(home):
    agent, chance = home.agent, random.Random(27)
    where, body, head = agent.request(SERVER, "echo", {"deep": {"list": [1, 2.5, None, "\u00fc"]}})
    statuses = set()
    for _ in range(400):
        wrong = bytearray(body)
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(wrong))
            wrong[at : at + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
        statuses.add(agent.post(where, bytes(wrong), head).status)
    assert 400 in statuses
    assert statuses <= {200, 202, 400, 404}
    alive(home)


@pytest.mark.parametrize(
    "body",
    [b"", b"null", DEEP, b"[" * 100_000, b"9" * 100_000, b'"' * 9, b'{"jsonrpc":"2.0","id":' + b"9" * 5_000 + b"}",
     b"\xef\xbb\xbf{}", b'{"a":' + b"1e999}", b'{"jsonrpc":"2.0","method":"x","params":{"_meta":' + DEEP],
    ids=["empty", "null", "deep", "arrays", "digits", "quotes", "big id", "bom", "infinite", "deep meta"],
)  # fmt: skip
def test_a_hostile_body_is_answered_with_400(home, body):
    agent = home.agent
    where, _, head = agent.request(SERVER, "echo")
    reply = agent.post(where, body, head)
    assert reply.status == 400
    assert json.loads(reply.body)["error"]["code"] < 0
    alive(home)


def test_the_hostile_corpus_leaves_it_alive(home):
    files = sorted(CORPUS.glob("*.json"))
    assert files, "the corpus is gone"
    agent = home.agent
    where, _, head = agent.request(SERVER, "echo")
    sent = 0
    for file in files:
        for text in strings(json.loads(file.read_text())):
            data = text.encode("latin-1", "replace")
            agent.post(where, data, head)
            send(home.port, data)
            sent += 1
    assert sent > 50
    alive(home)


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from strings(each)


@pytest.mark.parametrize("tool", ["garbage", "hang_up"])
def test_a_server_that_breaks_off_or_talks_nonsense_costs_one_clean_error(home, tool):
    assert laptop.reason(home.agent.call(SERVER, tool)) == "UpstreamProtocolError"
    alive(home)


def test_connections_that_are_cut_in_the_middle_of_everything_leave_it_alive(home):
    where, body, head = home.agent.request(SERVER, "slow", {"seconds": 0.2})
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    request = (
        f"POST {where} HTTP/1.1\r\nHost: 127.0.0.1:{home.port}\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
    )
    whole = request.encode() + body
    for cut in range(1, len(whole) + 1, 16):
        with socket.create_connection(("127.0.0.1", home.port), timeout=1) as connection:
            connection.sendall(whole[:cut])
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
    alive(home)
    assert "a bug of ours" not in home.proxy.text()
    assert "broke off" not in home.proxy.text()
