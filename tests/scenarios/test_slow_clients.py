# SPDX-License-Identifier: Apache-2.0
"""R12: clients that send or read slowly cost themselves, not others."""

from __future__ import annotations

import contextlib
import socket
import statistics
import time

import pytest
from tests import laptop
from tests.scenarios import recorder

SERVER = "tools/recorder"
SLOW = 200
SLOW_READERS = 50
"""Each with a megabyte on the way to it."""
CALLS = 100


@pytest.fixture
def home(tmp_path):
    with recorder.running() as seen:
        endpoint = {"maxResultBytes": 4_000_000}
        tools = {"cost": {"default": {"perCall": "0", "maxResultBytes": 4_000_000}}}
        files = {
            "all.yaml": laptop.documents(
                laptop.server(SERVER, seen.url, endpoint=endpoint, tools=tools),
                laptop.policy("outrider-system/p", SERVER, laptop.allow()),
            )
        }
        with laptop.running(tmp_path, files) as made:
            yield made


def median(home):
    """Seconds that a call takes."""
    took = []
    for _ in range(CALLS):
        began = time.monotonic()
        assert laptop.reason(home.agent.call(SERVER, "echo")) == ""
        took.append(time.monotonic() - began)
    return statistics.median(took)


def bytes_of(home, tool, arguments):
    where, body, head = home.agent.request(SERVER, tool, arguments)
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    head = (
        f"POST {where} HTTP/1.1\r\nHost: 127.0.0.1:{home.port}\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@contextlib.contextmanager
def connections(home, data, count=SLOW):
    """Connections that have sent `data` and now do nothing."""
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            one = stack.enter_context(socket.socket())
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.settimeout(5)
            one.connect(("127.0.0.1", home.port))
            one.sendall(data)
            opened.append(one)
        yield opened


def test_two_hundred_half_sent_requests_do_not_slow_the_others(home):
    alone = median(home)
    request = bytes_of(home, "echo", {})
    with connections(home, request[:-5]) as opened:
        beside = median(home)
        print(f"a call takes {alone * 1000:.2f} ms alone, {beside * 1000:.2f} ms beside {SLOW} slow senders")
        assert beside < alone * 3 + 0.02
        opened[0].sendall(request[-5:])
        assert opened[0].recv(100).startswith(b"HTTP/1.1 200")


def test_fifty_clients_that_do_not_read_do_not_slow_the_others(home):
    alone = median(home)
    with connections(home, bytes_of(home, "paid", {"bytes": 1_000_000}), SLOW_READERS):
        laptop.until(lambda: 'tool_name="paid"' in home.admin("/metrics").body.decode(), "calls come in")
        beside = median(home)
    print(
        f"a call takes {alone * 1000:.2f} ms alone, {beside * 1000:.2f} ms beside {SLOW_READERS} slow readers"
    )
    assert beside < alone * 3 + 0.02


@pytest.mark.slow
def test_a_half_sent_request_is_closed_by_a_deadline(home):
    with socket.create_connection(("127.0.0.1", home.port)) as connection:
        connection.sendall(bytes_of(home, "echo", {})[:-5])
        began = time.monotonic()
        connection.settimeout(90)
        answer = connection.recv(1000)
        took = time.monotonic() - began
    print(f"closed after {took:.1f} s with {answer[:40]!r}")
    assert answer == b"" or answer.startswith(b"HTTP/1.1 408")
    assert took < 60
