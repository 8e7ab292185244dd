# SPDX-License-Identifier: Apache-2.0
"""The real process: edit a file, hear a version; break a file, keep the last good; stop, and count on."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from outrider import snapshot, wire

ROOT = pathlib.Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 30
STREAM = f"/v1/config/stream?schema={snapshot.SCHEMA}"

SETTINGS = """\
apiVersion: outrider.dev/v1alpha1
kind: Settings
teams: [{name: sales, namespaces: [agents]}]
workload: {namespace: agents, serviceAccount: bot}
"""
SERVERS = """\
apiVersion: outrider.dev/v1alpha1
kind: MCPServer
metadata: {name: crm, namespace: agents}
spec: {description: x, endpoint: {url: "http://127.0.0.1:1/mcp"}}
---
apiVersion: outrider.dev/v1alpha1
kind: MCPServer
metadata: {name: clock, namespace: agents}
spec: {description: x, endpoint: {command: [run-clock]}}
"""
POLICIES = """\
apiVersion: outrider.dev/v1alpha1
kind: MCPToolPolicy
metadata: {name: p, namespace: agents}
spec:
  targetRefs: [{name: "*"}]
  rules:
  - {name: r, effect: Allow, from: [{teams: [sales]}], tools: [TOOL]}
"""


class Operator:
    """A running `outrider-operator --files FOLDER` and what it writes on stderr."""

    def __init__(self, folder: pathlib.Path, *flags: str) -> None:
        self.folder = folder
        address = folder / ".address"
        address.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "outrider_operator.main", "--files", folder, "--address-file", address, *flags],
            stderr=subprocess.PIPE, text=True, cwd=folder,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'sidecar'}"},
        )  # fmt: skip
        self.lines: queue.Queue[dict] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        self.logged("listening")
        self.url = json.loads(address.read_text())["url"]
        self.token = (folder / ".outrider" / "operator-token").read_text().strip()

    def _listen(self) -> None:
        for line in self.process.stderr:
            self.lines.put(json.loads(line))

    def logged(self, message: str) -> dict:
        """The next log line with this message."""
        while True:
            line = self.lines.get(timeout=PATIENCE_SECONDS)
            if line["message"].startswith(message):
                return line

    def ask(self, path: str, body: bytes | None = None, *, token: str | None = None):
        headers = {"Authorization": f"Bearer {token or self.token}"}
        request = urllib.request.Request(self.url + path, data=body, headers=headers)
        return urllib.request.urlopen(request, timeout=PATIENCE_SECONDS)

    def status(self) -> dict:
        with self.ask("/v1/status") as answer:
            return json.load(answer)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS)


@contextlib.contextmanager
def running(folder: pathlib.Path, *flags: str):
    one = Operator(folder, *flags)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.wait(PATIENCE_SECONDS)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "outrider.yaml").write_text(SETTINGS)
    (tmp_path / "servers.yaml").write_text(SERVERS)
    edit(tmp_path, "query")
    return tmp_path


def edit(folder, tool):
    (folder / "policies.yaml").write_text(POLICIES.replace("TOOL", tool))


def heard(stream, kind):
    """The next message of this kind; pings in between do not count."""
    while True:
        message = wire.decode(stream.readline())
        if isinstance(message, kind):
            return message


def tools(offer):
    made = wire.decode_snapshot(bytes(offer.content))
    return {str(view.id): view.rules[0].tools for view in made.servers}


def test_an_edit_reaches_the_stream_and_is_acknowledged(folder) -> None:
    with running(folder) as one, one.ask(STREAM) as stream:
        heard(stream, wire.Hello)
        first = heard(stream, wire.SnapshotOffer)
        assert tools(first) == {"agents/crm": ("query",)}
        began = time.monotonic()
        edit(folder, "delete")
        second = heard(stream, wire.SnapshotOffer)
        assert time.monotonic() - began < PATIENCE_SECONDS / 3  # well under 1 s on a machine that is not busy
        assert tools(second) == {"agents/crm": ("delete",)}
        assert second.position["files"] == first.position["files"] + 1
        refusal = wire.Ack(
            version=second.version, position=second.position, ok=False, error="no", path="$.servers[0]"
        )
        with one.ask("/v1/config/ack", wire.encode(refusal)) as answer:
            assert answer.status == 200
        shown = one.status()
        assert shown["version"] == second.version
        assert shown["sidecars"][0]["refusal"] == {"error": "no", "path": "$.servers[0]"}
        assert {finding["reason"] for finding in shown["findings"]} == {
            "NoCredential",
            "CommandWithoutBridge",
        }


def test_a_bridge_puts_a_command_into_the_snapshot(folder) -> None:
    flags = ("--bridge", "agents/clock=http://127.0.0.1:9/mcp")
    with running(folder, *flags) as one, one.ask(STREAM) as stream:
        assert set(tools(heard(stream, wire.SnapshotOffer))) == {"agents/crm", "agents/clock"}


def test_a_broken_file_keeps_the_last_good_and_says_where(folder) -> None:
    with running(folder) as one, one.ask(STREAM) as stream:
        first = heard(stream, wire.SnapshotOffer)
        (folder / "policies.yaml").write_text(POLICIES.replace("effect", "efect"))
        line = one.logged("files refused")
        assert (line["file"], line["line"], line["field"]) == ("policies.yaml", 7, "spec.rules[0].efect")
        shown = one.status()
        assert shown["version"] == first.version
        assert shown["problems"][0]["field"] == "spec.rules[0].efect"
        assert shown["problems"][0]["line"] == 7
        for file in folder.glob("*.yaml"):
            file.rename(file.with_suffix(".away"))
        assert "holds no *.yaml" in one.logged("files refused")["why"]
        assert one.status()["version"] == first.version
        for file in folder.glob("*.away"):
            file.rename(file.with_suffix(".yaml"))
        edit(folder, "mended")
        assert tools(heard(stream, wire.SnapshotOffer)) == {"agents/crm": ("mended",)}
        assert one.status()["problems"] == []


def test_starting_with_broken_files_serves_nothing_until_they_are_mended(folder) -> None:
    (folder / "policies.yaml").write_text("kind: [\n")
    with running(folder) as one, one.ask(STREAM) as stream:
        heard(stream, wire.Hello)
        assert one.status()["version"] is None
        assert one.status()["problems"][0]["file"] == "policies.yaml"
        edit(folder, "query")
        assert tools(heard(stream, wire.SnapshotOffer)) == {"agents/crm": ("query",)}


def test_a_restart_counts_on_and_keeps_the_version_of_equal_content(folder) -> None:
    seen = []
    for tool in ("a", "a", "b"):
        edit(folder, tool)
        with running(folder) as one:
            seen.append(one.status())
            assert one.stop() == 0
    first, same, changed = seen
    assert (same["version"], same["position"], same["epoch"]) == (
        first["version"],
        first["position"],
        first["epoch"],
    )
    assert changed["epoch"] == first["epoch"]
    assert changed["version"] != first["version"]
    assert changed["position"]["files"] == first["position"]["files"] + 1


def test_stopping_says_go_away_and_exits_with_zero(folder) -> None:
    with running(folder) as one, one.ask(STREAM) as stream:
        heard(stream, wire.SnapshotOffer)
        one.process.send_signal(signal.SIGTERM)
        assert "dial again" in heard(stream, wire.GoAway).reason
        assert one.process.wait(PATIENCE_SECONDS) == 0


def test_without_the_token_there_is_no_answer_and_others_cannot_read_it(folder) -> None:
    with running(folder) as one:
        for path in ("/v1/status", STREAM):
            with pytest.raises(urllib.error.HTTPError) as caught:
                one.ask(path, token="0" * 64)
            assert caught.value.code == 401
        private = folder / ".outrider"
        assert private.stat().st_mode & 0o077 == 0
        assert (private / "operator-token").stat().st_mode & 0o777 == 0o600


def test_a_second_operator_on_one_state_is_refused_with_a_sentence(folder) -> None:
    with running(folder):
        ran = subprocess.run(
            [sys.executable, "-m", "outrider_operator.main", "--files", folder], capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'sidecar'}"}, timeout=PATIENCE_SECONDS,
        )  # fmt: skip
    assert ran.returncode == 1
    assert "another outrider-operator" in json.loads(ran.stderr)["why"]


def test_the_operator_never_imports_kubernetes_for_files() -> None:
    code = "import sys, outrider_operator.main; print([m for m in ('kopf', 'kubernetes', 'grpc') if m in sys.modules])"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'sidecar'}"},
    )  # fmt: skip
    assert ran.stdout.strip() == "[]"


BUDGET = """\
apiVersion: outrider.dev/v1alpha1
kind: MCPBudget
metadata: {name: b, namespace: agents}
spec:
  targetRefs: [{name: crm}]
  per: [PER]
  limits: [{name: daily, unit: Calls, quota: {amount: "5", period: Day}}]
"""


def test_a_budget_that_counts_by_something_else_is_a_warning_in_log_and_status_also_over_a_restart(
    folder,
) -> None:
    file = folder / "budgets.yaml"
    file.write_text(BUDGET.replace("PER", "tool"))
    with running(folder) as one:
        assert one.status()["notices"] == []
        file.write_text(BUDGET.replace("PER", "server"))
        logged = one.logged("a counter is keyed differently")
        assert (logged["level"], logged["budget"], logged["limit"]) == ("warning", "agents/b", "daily")
        (noticed,) = one.status()["notices"]
        assert "per changed from tool to server: calls are counted in fresh counters" in noticed["message"]
        one.stop()
    file.write_text(BUDGET.replace("PER", "namespace"))
    with running(folder) as one:
        (noticed,) = one.status()["notices"]
        assert "per changed from server to namespace" in noticed["message"]
