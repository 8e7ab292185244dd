# SPDX-License-Identifier: Apache-2.0
"""`outrider dev` as people meet it: real operator, real proxy, a real stdio server behind a real bridge."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import queue
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import IO

import pytest

from outrider import names
from outrider_cli import dev, loopback

CLOCK = names.ServerId("tools", "clock")
FILES = {
    "outrider.yaml": """\
apiVersion: outrider.dev/v1alpha1
kind: Settings
workload: {namespace: agents, serviceAccount: bot}
""",
    "servers.yaml": """\
apiVersion: outrider.dev/v1alpha1
kind: MCPServer
metadata: {name: clock, namespace: tools}
spec: {description: The time, endpoint: {command: [mcp-server-time, --local-timezone, UTC]}}
""",
    "policies.yaml": """\
apiVersion: outrider.dev/v1alpha1
kind: MCPToolPolicy
metadata: {name: everyone, namespace: outrider-system}
spec:
  targetRefs: [{namespace: tools, name: clock}]
  rules:
  - {name: all, effect: Allow, from: [{anyone: true}], tools: ["*"]}
""",
}
PATIENCE_SECONDS = 30
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path.resolve()


def start(home: pathlib.Path, *more: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "outrider_cli.main", "dev", "-f", str(home), *(more or ("--port", "0"))]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)


def run(home: pathlib.Path, *more: str) -> tuple[int, str, str]:
    with start(home, *more) as started:
        out, err = started.communicate(timeout=PATIENCE_SECONDS)
    return started.returncode, out, err


class Heard:
    """The lines of a stream, as they come."""

    def __init__(self, stream: IO[str]) -> None:
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, args=(stream,), daemon=True).start()

    def _listen(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.put(line)

    def until(self, word: str) -> str:
        """The next line that has `word` in it."""
        passed = []
        with contextlib.suppress(queue.Empty):
            while True:
                passed.append(self._lines.get(timeout=PATIENCE_SECONDS))
                if word in passed[-1]:
                    return passed[-1]
        pytest.fail(f"never said {word!r}: {passed}")


@contextlib.contextmanager
def running(home: pathlib.Path) -> Iterator[tuple[subprocess.Popen[str], Heard]]:
    """`outrider dev` with its first screen behind it, and what it says from then on."""
    with start(home) as started:
        try:
            assert started.stderr is not None
            heard = Heard(started.stderr)
            heard.until("Running.")
            yield started, heard
        finally:
            started.kill()


def of(home: pathlib.Path) -> dict[int, str]:
    """Processes at work in this folder, by pid: everything dev starts has it as its working directory."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and (entry / "cwd").readlink() == home:
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def all_end(pids: list[int]) -> bool:
    """Waits for the end of processes that are not our children."""
    for pid in pids:
        try:
            watched = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        ended = bool(select.select([watched], [], [], 20)[0])
        os.close(watched)
        if not ended:
            return False
    return True


def test_once_starts_everything_asks_every_server_and_leaves_with_0(home: pathlib.Path) -> None:
    code, out, err = run(home, "--once", "--port", "0")
    assert code == 0, err
    assert out.startswith("Outrider is ready for agents/bot.")
    assert "tools/clock  2 tools" in out
    assert of(home) == {}


def test_the_client_config_opens_the_door_and_belongs_to_its_owner_alone(home: pathlib.Path) -> None:
    with running(home):
        file = home / ".outrider" / "mcp.json"
        server = json.loads(file.read_bytes())["mcpServers"]["outrider"]
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert server["type"] == "http"
        port = int(server["url"].removesuffix("/mcp").rpartition(":")[2])
        token = server["headers"]["Authorization"].removeprefix("Bearer ")
        opened = loopback.tools(port, CLOCK, token=token, seconds=20)
        closed = loopback.tools(port, CLOCK, token="guessed", seconds=20)
    assert opened is not None
    assert [tool["name"] for tool in opened.body["result"]["tools"]] == ["get_current_time", "convert_time"]
    assert closed is not None
    assert closed.status == 401


@LINUX
def test_sigterm_ends_everything_with_0(home: pathlib.Path) -> None:
    with running(home) as (started, _):
        before = of(home)
        for program in ("outrider-operator", "outrider-sidecar", "mcp-proxy", "mcp-server-time"):
            assert any(program in line for line in before.values()), program
        started.send_signal(signal.SIGTERM)
        assert started.wait(PATIENCE_SECONDS) == 0
        assert of(home) == {}


@LINUX
@pytest.mark.slow
def test_kill_9_leaves_no_orphans(home: pathlib.Path) -> None:
    with running(home) as (started, _):
        before = list(of(home))
        assert len(before) >= 4
        started.kill()
        assert all_end(before)


@LINUX
@pytest.mark.slow
def test_the_death_of_a_child_is_reported_and_ends_the_run(home: pathlib.Path) -> None:
    with running(home) as (started, heard):
        victim = next(
            pid for pid, line in of(home).items() if "outrider-operator" in line and "tether" not in line
        )
        os.kill(victim, signal.SIGKILL)
        assert "operator ended with code 137" in heard.until("Error:")
        assert started.wait(PATIENCE_SECONDS) == 4
        assert of(home) == {}


def test_a_mistake_while_running_is_shown_with_its_place_and_mending_it_too(home: pathlib.Path) -> None:
    policies = home / "policies.yaml"
    with running(home) as (_, heard):
        policies.write_text(FILES["policies.yaml"].replace("from:", "form:"))
        assert "policies.yaml:7: spec.rules[0].form" in heard.until("policies.yaml")
        heard.until("The last good configuration stays in force.")
        policies.write_text(FILES["policies.yaml"].replace("name: all", "name: every"))
        heard.until("The files are sound again.")
        heard.until("is in force.")


def test_a_folder_with_problems_starts_nothing_and_says_each_one(home: pathlib.Path) -> None:
    (home / "policies.yaml").write_text(FILES["policies.yaml"].replace("from:", "form:"))
    code, out, err = run(home)
    assert code == 1
    assert "policies.yaml:7: spec.rules[0].form: unknown field" in err
    assert out == ""
    assert not (home / ".outrider").exists()


def test_settings_without_a_workload_are_told_what_to_write(home: pathlib.Path) -> None:
    (home / "outrider.yaml").unlink()
    code, _, err = run(home)
    assert code == 1
    assert "workload: {namespace: agents, serviceAccount: me}" in err


@pytest.mark.slow
def test_two_runs_never_share_a_folder(home: pathlib.Path) -> None:
    with running(home):
        code, _, err = run(home)
    assert code == 4
    assert "another `outrider dev` runs on" in err


@pytest.mark.slow
def test_a_port_that_is_taken_ends_the_run_with_the_proxys_own_words(home: pathlib.Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = run(home, "--port", str(taken.getsockname()[1]))
    assert code == 4
    assert "sidecar ended with code" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_stdio_server_that_cannot_start_ends_the_run_and_is_named(home: pathlib.Path) -> None:
    (home / "servers.yaml").write_text(FILES["servers.yaml"].replace("mcp-server-time", "no-such-program"))
    code, _, err = run(home)
    assert code == 4
    assert "bridge-tools-clock ended with code" in err
    assert "no-such-program" in err


def test_a_server_that_is_silent_or_a_rule_without_effect_fails_the_check() -> None:
    quiet = {"findings": [], "problems": []}
    broken = {"findings": [{"severity": "Error"}], "problems": []}
    mild = {"findings": [{"severity": "Warning"}], "problems": []}
    assert dev.verdict({CLOCK: 2}, quiet) == 0
    assert dev.verdict({CLOCK: 2}, mild) == 0
    assert dev.verdict({CLOCK: None}, quiet) == 1
    assert dev.verdict({CLOCK: 2}, broken) == 1
