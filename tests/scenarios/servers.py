# SPDX-License-Identifier: Apache-2.0
"""Other people's MCP servers, each a process of its own: the example CRM, mcp-server-time behind mcp-proxy, server-everything.

Each is a context manager that gives a URL once it answers. Sockets are bound here and handed on where the program can take
one; the others choose a free port again when somebody else was quicker.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import sys
from collections.abc import Iterator

import pytest
from tests import laptop

ROOT = pathlib.Path(__file__).resolve().parents[2]
CRM_TOKEN = "crm-token-5c1fd0a9e2"
_CRM = """\
import os, sys, uvicorn
from examples.servers import crm
app = crm.BearerOnly(crm.server().streamable_http_app(), os.environ["CRM_TOKEN"])
uvicorn.run(app, fd=int(sys.argv[1]), log_level="warning", timeout_graceful_shutdown=1)
"""


@contextlib.contextmanager
def crm(logs: pathlib.Path, token: str = CRM_TOKEN) -> Iterator[str]:
    """examples/servers/crm.py on the SDK 2.x, which demands a bearer token."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        descriptor = listening.fileno()
        process = laptop.Process(
            "crm", [sys.executable, "-c", _CRM, str(descriptor)], logs=logs, pass_fds=[descriptor],
            env={"CRM_TOKEN": token, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
    with _stopped(process):
        yield url


@contextlib.contextmanager
def shelves(logs: pathlib.Path) -> Iterator[str]:
    """tests/scenarios/shelves.py on the SDK 2.x: thousands of everything, in both eras."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        descriptor = listening.fileno()
        line = [sys.executable, "-m", "tests.scenarios.shelves", str(descriptor)]
        env = {"PYTHONPATH": str(ROOT)}
        process = laptop.Process("shelves", line, logs=logs, pass_fds=[descriptor], env=env)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
    with _stopped(process):
        yield url


@contextlib.contextmanager
def clock(logs: pathlib.Path) -> Iterator[str]:
    """mcp-server-time (SDK 1.x, stdio) behind mcp-proxy: a server of the handshake era."""
    bridge = pathlib.Path(os.environ["OUTRIDER_BRIDGE"])
    needed(bridge)
    time_server = bridge.with_name("mcp-server-time")
    line = [bridge, "--host", "127.0.0.1", "--port", "{port}", "--", time_server, "--local-timezone", "UTC"]
    with on_a_free_port("clock", [str(word) for word in line], logs) as url:
        yield url


@contextlib.contextmanager
def everything(logs: pathlib.Path) -> Iterator[str]:
    """server-everything on the TypeScript SDK: a server of the handshake era."""
    program = pathlib.Path(os.environ["OUTRIDER_NODE_MODULES"]) / (
        "@modelcontextprotocol/server-everything/dist/index.js"
    )
    node = pathlib.Path(sys.executable).with_name("node")
    needed(program)
    needed(node)
    with on_a_free_port("everything", [str(node), str(program), "streamableHttp"], logs) as url:
        yield url


def needed(file: pathlib.Path) -> None:
    """Skips, which CI counts as a failure, when something is not installed."""
    if not file.exists():
        pytest.skip(f"{file.name} is not installed: run `make install` and `make test`")


@contextlib.contextmanager
def on_a_free_port(name: str, line: list[str], logs: pathlib.Path) -> Iterator[str]:
    """Runs a program that takes its port as an argument or from PORT; the URL of its /mcp."""
    for _ in range(5):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        chosen = [word.format(port=port) for word in line]
        process = laptop.Process(name, chosen, logs=logs, env={"PORT": str(port)})
        with _stopped(process):
            if _comes_up(process, port):
                yield f"http://127.0.0.1:{port}/mcp"
                return
    pytest.fail(f"{name} does not start:\n{process.tail()}")


def _comes_up(process: laptop.Process, port: int) -> bool:
    laptop.until(lambda: process.ended is not None or _listens(port), f"{process.name} listens")
    return process.ended is None


def _listens(port: int) -> bool:
    with socket.socket() as asking:
        asking.settimeout(1)
        return asking.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def _stopped(process: laptop.Process) -> Iterator[None]:
    try:
        yield
    except BaseException:
        print(process.tail())
        raise
    finally:
        process.stop()
