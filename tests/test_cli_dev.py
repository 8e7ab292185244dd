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
import time
from collections.abc import Iterator
from typing import IO, Any

import pytest
from tests import laptop

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
ROOT = pathlib.Path(__file__).resolve().parent.parent
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
def running(home: pathlib.Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], Heard]]:
    """`outrider dev` with its first screen behind it, and what it says from then on."""
    with start(home, *more) as started:
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
        opened = loopback.agents(port, CLOCK, "tools/list", token=token, seconds=20)
        closed = loopback.agents(port, CLOCK, "tools/list", token="guessed", seconds=20)
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


def killed(home: pathlib.Path, program: str) -> None:
    """kill -9 of a program itself, not of what holds it."""
    victims = [
        pid
        for pid, line in of(home).items()
        if program in line and "tether" not in line and (program == "mcp-proxy" or "mcp-proxy" not in line)
    ]
    assert len(victims) == 1
    os.kill(victims[0], signal.SIGKILL)


def a_call(home: pathlib.Path, of: str = "tools/clock") -> dict[str, Any]:
    """The result of one call as the client config tells an agent to make it."""
    server = json.loads((home / ".outrider" / "mcp.json").read_bytes())["mcpServers"]["outrider"]
    port = int(server["url"].removesuffix("/mcp").rpartition(":")[2])
    agent = laptop.Agent(port, server["headers"]["Authorization"].removeprefix("Bearer "))
    return agent.call(of, "get_current_time", {"timezone": "UTC"})


def answers(home: pathlib.Path) -> bool:
    try:
        return "UTC" in laptop.text(a_call(home))
    except (OSError, AssertionError):
        return False


@LINUX
@pytest.mark.slow
def test_without_the_operator_calls_go_on_and_it_comes_back_and_hears_edits(home: pathlib.Path) -> None:
    with running(home) as (_, heard):
        killed(home, "outrider-operator")
        assert answers(home)
        assert "The proxy keeps serving the last good configuration." in heard.until(
            "operator: ended with code 137"
        )
        heard.until("operator: started again.")
        assert answers(home)
        (home / "policies.yaml").write_text(FILES["policies.yaml"].replace('"*"', "convert_time"))
        laptop.until(lambda: not answers(home), "an edit reaches the proxy by way of the new operator")


@LINUX
@pytest.mark.slow
def test_a_dead_proxy_is_started_again_where_agents_know_it(home: pathlib.Path) -> None:
    with running(home) as (_, heard):
        assert answers(home)
        killed(home, "outrider-sidecar")
        heard.until("sidecar: ended with code 137")
        heard.until("sidecar: started again.")
        laptop.until(lambda: answers(home), "the same client config works again")


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("program", ["mcp-server-time", "mcp-proxy"])
def test_a_dead_stdio_server_is_noticed_said_and_started_again(home: pathlib.Path, program: str) -> None:
    with running(home) as (_, heard):
        assert answers(home)
        killed(home, program)
        assert "Calls of tools/clock fail until it is back." in heard.until("bridge-tools-clock: ")
        heard.until("bridge-tools-clock: started again.")
        laptop.until(lambda: answers(home), "the clock answers again")


@LINUX
@pytest.mark.slow
def test_an_operator_that_dies_again_and_again_ends_the_run(home: pathlib.Path) -> None:
    with running(home) as (started, heard):
        (home / ".outrider" / "position.json").unlink()
        (home / ".outrider" / "position.json").mkdir()  # with this it cannot start any more
        killed(home, "outrider-operator")
        assert "operator ended with code 1, and 5 restarts in 60 s did not help" in heard.until("Error:")
        assert started.wait(PATIENCE_SECONDS) == 4
        assert of(home) == {}


@pytest.mark.slow
def test_a_server_nobody_started_is_named_with_what_starts_it_and_noticed_later(home: pathlib.Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = chosen.getsockname()[1]
    crm = FILES["servers.yaml"].replace(
        "command: [mcp-server-time, --local-timezone, UTC]", f"url: 'http://127.0.0.1:{port}/mcp'"
    )
    lent = "credentials: [{name: t, from: [{anyone: true}], file: {path: token}}]"
    crm = crm.replace("spec: {", f"spec: {{{lent}, ")
    (home / "token").write_text("t")
    (home / "token").chmod(0o600)
    crm = crm.replace("namespace: tools}", "namespace: tools, annotations: {outrider.dev/start: make clock}}")
    (home / "servers.yaml").write_text(crm)
    began = time.monotonic()
    code, _, err = run(home, "--once", "--port", "0")
    assert code == 1
    assert time.monotonic() - began < 15
    assert (
        f"tools/clock does not answer: nobody listens at http://127.0.0.1:{port}/mcp (connection refused)"
        in err
    )
    assert "Next: start it: `make clock`" in err
    line = [sys.executable, "-m", "examples.servers.crm", "--port", str(port)]
    with running(home) as (_, heard):
        server = subprocess.Popen(
            line, env={**os.environ, "CRM_TOKEN": "t"}, cwd=ROOT, stdout=subprocess.DEVNULL
        )
        try:
            heard.until("tools/clock answers: 7 tools.")
        finally:
            server.kill()
            server.wait()


@pytest.mark.slow
def test_a_folder_stands_for_a_pods_secrets_and_what_is_missing_there_is_said(
    home: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    port = loopback.free_port()
    crm = FILES["servers.yaml"].replace(
        "command: [mcp-server-time, --local-timezone, UTC]", f"url: 'http://127.0.0.1:{port}/mcp'"
    )
    lent = "credentials: [{name: org, from: [{anyone: true}], secretRef: {key: token}}]"
    (home / "servers.yaml").write_text(crm.replace("spec: {", f"spec: {{{lent}, "))
    secrets = tmp_path_factory.mktemp("secrets")
    line = [sys.executable, "-m", "examples.servers.crm", "--port", str(port)]
    server = subprocess.Popen(line, env={**os.environ, "CRM_TOKEN": "t"}, cwd=ROOT)
    try:
        with running(home, "--port", "0", "--secrets-dir", str(secrets)) as (_, heard):
            assert "org of tools/clock fails: " in heard.until("Credential org")
            (secrets / "tools.clock").mkdir()
            (secrets / "tools.clock" / "token").write_text("t\n")
            heard.until("tools/clock answers: 7 tools.")
            heard.until("Every credential and key can be had again.")
    finally:
        server.kill()
        server.wait()


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
    assert code == 2
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


def test_a_port_that_is_taken_starts_nothing_and_names_the_flag(home: pathlib.Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = run(home, "--port", str(taken.getsockname()[1]))
    assert code == 4
    assert "cannot be used: Address already in use" in err
    assert "`--port 0` takes any that is free" in err
    assert "Errno" not in err
    assert not (home / ".outrider" / "logs" / "sidecar.log").exists()


@pytest.mark.slow
def test_a_stdio_server_that_cannot_start_ends_the_run_and_is_named(home: pathlib.Path) -> None:
    (home / "servers.yaml").write_text(FILES["servers.yaml"].replace("--local-timezone", "--no-such-flag"))
    code, _, err = run(home)
    assert code == 4
    assert "bridge-tools-clock ended with code" in err
    assert "no-such-flag" in (home / ".outrider" / "logs" / "bridge-tools-clock.log").read_text()


@pytest.mark.slow
def test_programs_that_are_not_there_are_named_and_the_others_are_served(home: pathlib.Path) -> None:
    absent = [FILES["servers.yaml"].replace("mcp-server-time", program) for program in ("nodde", "./plain")]
    absent = [text.replace("name: clock", f"name: {name}") for text, name in zip(absent, "ab", strict=True)]
    (home / "servers.yaml").write_text("---\n".join([FILES["servers.yaml"], *absent]))
    both = "{namespace: tools, name: clock}, {namespace: tools, name: a}"  # no policy says anything of b
    policies = FILES["policies.yaml"].replace("{namespace: tools, name: clock}", both)
    (home / "policies.yaml").write_text(policies)
    (home / "plain").write_text("")
    code, out, err = run(home, "--once", "--port", "0")
    assert code == 1
    assert "tools/clock  2 tools" in out
    assert "tools/a      not started" in out
    assert "tools/b      not started" in out
    assert "tools/a: spec.endpoint.command: there is no program 'nodde' on the PATH; install it or" in err
    assert f"tools/b: spec.endpoint.command: {home}/plain is not executable; run `chmod +x" in err
    assert "Traceback" not in err
    with running(home) as (_, heard):
        assert laptop.reason(a_call(home, "tools/a")) == "UpstreamUnreachable"
        assert answers(home)
        edited = FILES["servers.yaml"].replace("UTC", "Asia/Tokyo")
        (home / "servers.yaml").write_text("---\n".join([edited, *absent]))
        assert "stop it and start it again" in heard.until("tools/clock: spec.endpoint.command has changed")
        assert answers(home)


def test_a_server_that_is_silent_or_a_rule_without_effect_fails_the_check() -> None:
    quiet = {"findings": [], "problems": []}
    broken = {"findings": [{"severity": "Error"}], "problems": []}
    mild = {"findings": [{"severity": "Warning"}], "problems": []}
    assert dev.verdict({CLOCK: 2}, quiet) == 0
    assert dev.verdict({CLOCK: 2}, mild) == 0
    assert dev.verdict({CLOCK: None}, quiet) == 1
    assert dev.verdict({CLOCK: 2}, broken) == 1
