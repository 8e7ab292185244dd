# SPDX-License-Identifier: Apache-2.0
"""One run's parts, with real child processes; the whole of it is in test_cli_dev."""

from __future__ import annotations

import contextlib
import http.server
import json
import pathlib
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from tests.laptop import until

from outrider import names, testing
from outrider_cli import crew, folder, loopback, output, running

CLOCK = names.ServerId("tools", "clock")
SERVER = """\
apiVersion: outrider.dev/v1alpha1
kind: MCPServer
metadata: {name: clock, namespace: tools}
spec:
  description: The time
  endpoint: {url: "https://clock.example/mcp"}
  credentials:
  - {name: key, from: [{anyone: true}], file: {path: secrets/key}}
---
apiVersion: outrider.dev/v1alpha1
kind: MCPToolPolicy
metadata: {name: all, namespace: tools}
spec:
  targetRefs: [{name: clock}]
  rules: [{name: all, effect: Allow, from: [{anyone: true}], tools: ["*"]}]
"""
QUIET = {"version": None, "problems": [], "findings": [], "notices": [], "sidecars": []}


@pytest.fixture
def run(tmp_path: pathlib.Path) -> running.Running:
    (tmp_path / "servers.yaml").write_text(SERVER)
    home = folder.at(str(tmp_path))
    (home.state / "logs").mkdir(parents=True)
    return running.Running(home, home.world(), ("tools", "bot"), threading.Event())


def held(url: str) -> folder.Held:
    return folder.Held("v", testing.a_snapshot(testing.a_server(server=CLOCK, url=url)))


def test_a_bridge_keeps_its_port_so_that_the_same_files_are_the_same_configuration(
    run: running.Running,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run.held = held(f"http://127.0.0.1:{port}/mcp")
        assert run.bridge_port(CLOCK) != port
    assert run.bridge_port(CLOCK) == port
    assert run.bridge_port(names.ServerId("tools", "other")) != port


def test_no_port_is_taken_over_from_a_bridge_that_nobody_ran(run: running.Running) -> None:
    run.held = held(folder.UNUSED_BRIDGE)
    assert run.bridge_port(CLOCK) != 1


def test_the_first_screen_does_not_wait_for_a_server_that_was_not_started(
    run: running.Running, capsys: pytest.CaptureFixture[str]
) -> None:
    run.unstarted.add(CLOCK)
    run.show({CLOCK: None}, QUIET)
    shown = capsys.readouterr()
    assert "tools/clock  not started" in shown.out
    assert "does not answer" not in shown.err


def test_an_edited_command_is_said_once_and_a_broken_file_says_nothing(run: running.Running) -> None:
    file = run.home.path / "servers.yaml"

    def written(command: str) -> None:
        file.write_text(SERVER.replace('{url: "https://clock.example/mcp"}', f"{{command: {command}}}"))

    run.commands = {CLOCK: ["clock"]}
    written("[clock]")
    edits = run.edits()
    assert next(edits) == ""
    written("[clock, --local]")
    assert next(edits).startswith("tools/clock: spec.endpoint.command has changed")
    assert next(edits) == ""
    file.write_text("kind: [")
    assert next(edits) == ""
    written("[clock]")
    assert next(edits) == "tools/clock: spec.endpoint.command is again what was started."


def test_a_dead_child_ends_the_run_with_its_code_and_its_last_words(
    run: running.Running, capsys: pytest.CaptureFixture[str]
) -> None:
    member = run.kept.start(crew.Member("sad", ["sh", "-c", "echo farewell; exit 9"], ""))
    assert member.child is not None
    assert member.child.process.wait(15) == 9
    with pytest.raises(output.Stop) as stopped:
        run.alive()
    assert (stopped.value.exit_code, stopped.value.message) == (
        4,
        "sad ended with code 9: its last lines are above",
    )
    assert "  | farewell" in capsys.readouterr().err
    run.close()


def test_being_told_to_stop_ends_every_wait(run: running.Running) -> None:
    run.stop.set()
    with pytest.raises(running.Stopped):
        run.alive()
    with pytest.raises(running.Stopped):
        run.watch(QUIET, {})


def test_the_first_screen_says_who_does_not_answer_and_why(
    run: running.Running, capsys: pytest.CaptureFixture[str]
) -> None:
    line = json.dumps({"server": str(CLOCK), "why": "UpstreamUnreachable: (ECONNREFUSED)"})
    (run.home.path / "secrets").mkdir()
    (run.home.path / "secrets" / "key").write_text("k")
    (run.home.state / "logs" / "sidecar.log").write_text(line)
    run.show({CLOCK: None}, QUIET)
    shown = capsys.readouterr()
    assert "tools/clock  no answer yet" in shown.out
    assert "Note: tools/clock does not answer: nobody listens at https://clock.example/mcp" in shown.err
    run.show({CLOCK: 3}, QUIET)
    shown = capsys.readouterr()
    assert "3 tools" in shown.out
    assert shown.err == ""


def test_an_operator_that_says_nothing_is_unreachable(run: running.Running) -> None:
    (run.home.state / "operator-token").write_text("t")
    with socket.create_server(("127.0.0.1", 0)) as once:
        run.operator_port = once.getsockname()[1]
    with pytest.raises(output.Stop) as stopped:
        run.status()
    assert stopped.value.exit_code == output.UNREACHABLE


class Away(http.server.BaseHTTPRequestHandler):
    """A server that is being started for ever."""

    asked: list[str]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body["method"])
        self.send_response(503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def away() -> Iterator[tuple[int, list[str]]]:
    """Its port, and the methods that it was asked for."""
    asked: list[str] = []
    handler = type("Here", (Away,), {"asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_port, asked
        finally:
            server.shutdown()
            thread.join()


def outrider(*words: str) -> list[str]:
    return [sys.executable, "-m", "outrider_cli.main", *words]


def recorded(home: str) -> list[str]:
    """The journal's records."""
    search = outrider("audit", "search", "-f", home, "-o", "jsonl")
    return subprocess.run(search, capture_output=True, check=False, text=True).stdout.splitlines()


@pytest.mark.slow
def test_looking_again_and_again_for_a_server_that_is_away_leaves_no_refusals_in_the_journal(
    tmp_path: pathlib.Path,
) -> None:
    """Neither the screen of `dev` nor the proxy by itself: a refusal is somebody's who was refused something."""
    file, at = tmp_path / "servers.yaml", str(tmp_path)
    state = tmp_path / ".outrider"
    with away() as (port, asked):
        url = f"http://127.0.0.1:{port}/mcp"
        file.write_text(
            SERVER.replace("https://clock.example/mcp", url).replace(
                "file: {path: secrets/key}", "none: true"
            )
        )
        (tmp_path / "outrider.yaml").write_text(
            "apiVersion: outrider.dev/v1alpha1\nkind: Settings\nworkload: {namespace: tools, serviceAccount: bot}\n"
        )
        line = outrider("dev", "-f", at, "--port", "0")
        with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as dev:
            try:
                until((state / "mcp.json").exists, "it is ready for agents")
                until(lambda: len(asked) > 4, "the server was asked again and again")
                assert recorded(at) == []
                proxy = json.loads((state / "sidecar.json").read_text())["port"]
                token = (state / "agent-token").read_text().strip()
                assert loopback.agents(proxy, CLOCK, "tools/list", token=token, seconds=20) is not None
                [found] = until(
                    lambda: recorded(at), "what an agent was refused is there, and nothing before it"
                )
                assert "tools/list" in found
            finally:
                dev.send_signal(signal.SIGINT)
