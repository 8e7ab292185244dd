# SPDX-License-Identifier: Apache-2.0
"""Asking processes on this machine: real servers on loopback, including ones that do not behave."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from outrider import names
from outrider_cli import loopback

CRM = names.ServerId("crm", "salesforce")


class Handler(http.server.BaseHTTPRequestHandler):
    seen: ClassVar[list[dict[str, Any]]] = []

    def do_GET(self) -> None:
        self._answer(200 if self.headers.get("Authorization") == "Bearer t" else 401, b'{"a": 1}')

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append({"path": self.path, "body": body, **{k.lower(): v for k, v in self.headers.items()}})
        self._answer(200, b"not json")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def a_server() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_an_answer_is_its_status_and_its_json() -> None:
    with a_server() as port:
        assert loopback.get(port, "/x", token="t") == loopback.Reply(200, {"a": 1})
        assert loopback.get(port, "/x") == loopback.Reply(401, {"a": 1})


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with a_server() as port:
        assert loopback.get(port, "/x", token="t") is not None


def test_an_agents_question_has_the_headers_of_its_era_and_the_token() -> None:
    with a_server() as port:
        assert loopback.agents(port, CRM, "tools/list", token="secret", seconds=5) == loopback.Reply(
            200, None
        )
    asked = Handler.seen[-1]
    assert asked["path"] == "/crm/salesforce/mcp"
    assert (asked["authorization"], asked["mcp-method"]) == ("Bearer secret", "tools/list")
    assert (
        asked["mcp-protocol-version"]
        == asked["body"]["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"]
    )


def test_nobody_and_garbage_are_no_answer() -> None:
    port = loopback.free_port()
    assert loopback.get(port, "/") is None
    assert not loopback.listening(port)
    with socket.create_server(("127.0.0.1", 0)) as rude:

        def garbage() -> None:
            connection, _ = rude.accept()
            connection.recv(1024)
            connection.sendall(b"\x00\x01 nonsense\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=garbage)
        thread.start()
        assert loopback.get(rude.getsockname()[1], "/") is None
        thread.join()


def test_who_listens_is_seen_listening() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert loopback.listening(server.getsockname()[1])
