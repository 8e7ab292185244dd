# SPDX-License-Identifier: Apache-2.0
"""Asks processes on this machine, by plain HTTP: the operator's status, the proxy's readiness, what an agent asks.

Called by dev. Goes to 127.0.0.1 and nowhere else, past any proxy of the environment. Refuses to raise: whoever does not
answer as expected has not answered.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import socket
from typing import Any

from outrider import names

ANSWER_BYTES_MAX = 67_108_864
_VERSION = "2026-07-28"


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer; `body` parsed JSON, None when it is none."""

    status: int
    body: Any


def get(port: int, path: str, *, token: str = "", seconds: float = 5.0) -> Reply | None:
    """A GET; None when nobody answers."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return _ask(port, ("GET", path), headers=headers, body=None, seconds=seconds)


def agents(port: int, server: names.ServerId, method: str, *, token: str, seconds: float) -> Reply | None:
    """A request without parameters to one server as an agent makes it (2026-07-28); None when nobody answers."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": _VERSION,
        "io.modelcontextprotocol/clientInfo": {"name": "outrider-dev", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": meta}}
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": _VERSION,
        "Mcp-Method": method,
    }
    content = json.dumps(body).encode()
    return _ask(port, ("POST", f"/{server}/mcp"), headers=headers, body=content, seconds=seconds)


def listening(port: int) -> bool:
    """True when somebody accepts connections there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False


def is_free(port: int) -> bool:
    """True when a server could listen there."""
    return not taken(port)


def taken(port: int) -> str:
    """Why no server could listen there, in the system's words; "" when one could."""
    with socket.socket() as tried:
        tried.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as servers do: a just closed port is free
        try:
            tried.bind(("127.0.0.1", port))
        except OSError as error:
            return error.strerror or str(error)
        return ""


def free_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        number = chosen.getsockname()[1]
    assert isinstance(number, int)
    return number


def _ask(
    port: int, line: tuple[str, str], *, headers: dict[str, str], body: bytes | None, seconds: float
) -> Reply | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request(*line, body, headers)
        answer = connection.getresponse()
        content = answer.read(ANSWER_BYTES_MAX)
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    try:
        return Reply(answer.status, json.loads(content))
    except (ValueError, RecursionError):
        return Reply(answer.status, None)
