# SPDX-License-Identifier: Apache-2.0
"""What an agent finds in its folder, as the proxy's process leaves it there, and that it leads to the proxy."""

from __future__ import annotations

import http.client
import json
import os
import pathlib
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from outrider_sidecar import agentfiles

PROXY = pathlib.Path(sys.executable).parent / "outrider-sidecar"
LIST = b'{"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}'
_ACCEPTED = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


class Beside:
    """A proxy without a control plane, with a folder for its agent."""

    def __init__(self, folder: pathlib.Path, way: str) -> None:
        self.agents = folder / "agents"
        self.agents.mkdir(exist_ok=True)
        (folder / "bootstrap").write_text("t")
        address = folder / "address"
        address.unlink(missing_ok=True)
        line = [
            PROXY, "--operator=http://127.0.0.1:9", f"--token-file={folder / 'bootstrap'}", f"--state={folder / 'state'}",
            "--port=0", "--admin-port=0", f"--address-file={address}", f"--agent-dir={self.agents}", f"--local-auth={way}",
        ]  # fmt: skip
        self.process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 30
        while not address.exists():
            assert self.process.poll() is None, self.process.stderr.read() if self.process.stderr else ""
            assert time.monotonic() < until, "the proxy did not listen"
            time.sleep(0.02)
        self.ports = json.loads(address.read_text())

    def entry(self) -> dict[str, Any]:
        whole = json.loads((self.agents / "mcp.json").read_text())
        assert list(whole) == ["mcpServers"]
        assert list(whole["mcpServers"]) == ["outrider"]
        return whole["mcpServers"]["outrider"]  # type: ignore[no-any-return]

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def beside(tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> Iterator[Beside]:
    made = Beside(tmp_path, request.param)
    yield made
    made.close()


def posted(entry: dict[str, Any], **headers: str) -> int:
    """The status of a call by what the file says. 401: not let in; anything else is about the call."""
    sent = {**_ACCEPTED, **entry["headers"], **headers}
    try:
        with urllib.request.urlopen(urllib.request.Request(entry["url"], LIST, sent), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.parametrize("beside", ["token"], indirect=True)
def test_a_token_is_in_the_file_and_beside_it_and_nobody_comes_in_without(beside: Beside) -> None:
    entry = beside.entry()
    assert set(entry) == {"type", "url", "headers"}
    assert entry["type"] == "http"
    token = (beside.agents / "token").read_text().strip()
    assert entry["headers"] == {"Authorization": f"Bearer {token}"}
    assert posted(entry) not in (401, 403)
    assert posted({**entry, "headers": {}}) == 401
    assert posted(entry, Host="evil.example") == 403


@pytest.mark.parametrize("beside", ["open"], indirect=True)
def test_where_loopback_is_the_agents_nothing_is_asked_but_host_and_origin(beside: Beside) -> None:
    entry = beside.entry()
    assert entry == {"type": "http", "url": f"http://127.0.0.1:{beside.ports['port']}/mcp", "headers": {}}
    assert not (beside.agents / "token").exists()
    assert posted(entry) not in (401, 403)
    assert posted(entry, Host="evil.example") == 403
    assert posted(entry, Origin="https://evil.example") == 403


def over(path: str, host: str = "localhost") -> int:
    """The status of a call over a Unix socket."""
    client = http.client.HTTPConnection(host, timeout=10)
    client.sock = socket.socket(socket.AF_UNIX)
    client.sock.connect(path)
    client.request("POST", "/mcp", LIST, _ACCEPTED)
    status = client.getresponse().status
    client.close()
    return status


@pytest.mark.parametrize("beside", [f"socket:{os.getuid()}"], indirect=True)
def test_a_socket_lets_its_uid_in_and_no_port_is_open(beside: Beside) -> None:
    entry = beside.entry()
    assert entry == {
        "type": "http", "url": "http://localhost/mcp", "headers": {}, "socket": str(beside.agents / "mcp.sock")
    }  # fmt: skip
    assert over(entry["socket"]) not in (401, 403)
    assert over(entry["socket"], "evil.example") == 403
    assert beside.ports["port"] == 0


@pytest.mark.parametrize("beside", [f"socket:{os.getuid() + 1}"], indirect=True)
def test_a_socket_lets_nobody_else_in(beside: Beside) -> None:
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(beside.agents / "mcp.sock"))
    answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 403 "), "before anything was sent"
    assert b"another user's" in answer


@pytest.mark.parametrize("way", ["token", f"socket:{os.getuid()}"])
def test_after_a_restart_the_agent_goes_on_with_what_it_has_read(tmp_path: pathlib.Path, way: str) -> None:
    first = Beside(tmp_path, way)
    read = first.entry()
    first.close()
    again = Beside(tmp_path, way)
    try:
        assert again.entry()["headers"] == read["headers"]
        assert again.entry().get("socket") == read.get("socket")
        if "socket" in read:
            assert over(read["socket"]) not in (401, 403)
    finally:
        again.close()


def test_the_files_are_for_every_uid_whatever_our_umask_and_nothing_else_is_left(
    tmp_path: pathlib.Path,
) -> None:
    before = os.umask(0o077)
    try:
        agentfiles.write(tmp_path, port=15100, token=b"secret")
        agentfiles.write(tmp_path, port=15100, token=b"secret")
    finally:
        os.umask(before)
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert found == {"mcp.json": 0o644, "token": 0o644}


def test_a_folder_that_is_not_there_ends_the_start_in_a_sentence(tmp_path: pathlib.Path) -> None:
    (tmp_path / "bootstrap").write_text("t")
    line = [
        PROXY, "--operator=http://127.0.0.1:9", f"--token-file={tmp_path / 'bootstrap'}", f"--state={tmp_path / 'state'}",
        "--port=0", "--admin-port=0", f"--agent-dir={tmp_path / 'absent'}",
    ]  # fmt: skip
    ran = subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)
    assert ran.returncode == 1
    assert "cannot start" in ran.stderr
    assert "Traceback" not in ran.stderr
