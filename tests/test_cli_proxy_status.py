# SPDX-License-Identifier: Apache-2.0
"""`outrider proxy-status` against an operator's door: real TLS and a real token; what is not in sync is exit code 1."""

from __future__ import annotations

import http.server
import json
import pathlib
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from click import testing
from tests.kube import apiserver, asked, certs

from outrider_cli import proxy_status

NAMESPACE, RELEASE = "ps-system", "psr"
OLD, NEW = "a" * 64, "b" * 64
GOOD = {
    "namespace": "agents", "pod": "bot-0", "uid": "u0", "serviceAccount": "bot", "node": "n1", "phase": "Running", "image": "i",
    "version": "0.1.0", "schema": 2, "connected": True, "replica": "outrider-0", "since": "2026-01-01T00:00:00Z", "offered": NEW,
    "acked": NEW, "inSync": True, "refusal": None, "unexpressed": [],
}  # fmt: skip
LAGGING = {**GOOD, "pod": "bot-1", "acked": OLD, "inSync": False}
REFUSING = {
    **LAGGING, "pod": "bot-2", "refusal": {"error": "unknown field `x`", "path": "$.servers[0]", "source": "MCPServer crm/s"},
}  # fmt: skip
LOST = {**GOOD, "pod": "bot-3", "connected": False, "inSync": False}
NEVER = {
    **GOOD,
    "pod": "bot-4",
    "connected": False,
    "inSync": False,
    "offered": None,
    "acked": None,
    "schema": None,
    "since": None,
}
OLD_ONE = {**GOOD, "pod": "bot-5", "schema": 1, "unexpressed": ["MCPServer crm/s"]}


class Door(http.server.ThreadingHTTPServer):
    """The operator's /v1/status: answers what it is given, and remembers what it was asked."""

    def __init__(self, files: certs.Authority) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.server_cert, files.server_key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.status = 200
        self.answer: Any = {}
        self.asked: list[tuple[str, str]] = []

    def says(self, *rows: Any, **more: Any) -> None:
        self.status, self.answer = (
            200,
            {"replica": "o-0", "complete": True, "why": "", "sidecars": list(rows), **more},
        )


class Handler(http.server.BaseHTTPRequestHandler):
    server: Door

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization", "")))
        body = (
            self.server.answer
            if isinstance(self.server.answer, bytes)
            else json.dumps(self.server.answer).encode()
        )
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> certs.Authority:
    return certs.Authority.make(tmp_path_factory.mktemp("certs"), [f"{RELEASE}.{NAMESPACE}.svc"])


@pytest.fixture
def door(files: certs.Authority, cluster: apiserver.Cluster, tmp_path: pathlib.Path) -> Iterator[Door]:
    cluster.namespace(NAMESPACE)
    cluster.service_account(NAMESPACE, f"{RELEASE}-cli")
    made = Door(files)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    with asked.kubectl_on_path(tmp_path / "bin") as node:
        node.does(forward={f"{NAMESPACE}/svc/{RELEASE}": made.server_address[1]})
        yield made
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture
def ask(door: Door, cluster: apiserver.Cluster, files: certs.Authority) -> Any:
    def run(*line: str, ca: pathlib.Path | None = None) -> testing.Result:
        where = ("--kubeconfig", cluster.kubeconfig, "--system-namespace", NAMESPACE, "--release", RELEASE)
        return asked.outrider("proxy-status", *line, "--ca-file", ca or files.ca_file, *where)

    return run


def test_everything_in_sync_is_exit_0_and_asked_with_a_token_of_the_apis_audience(
    door: Door, ask: Any
) -> None:
    door.says(GOOD)
    ran = ask("-A")
    assert ran.exit_code == 0, ran.output
    head, row = ran.stdout.splitlines()
    assert head.split() == ["NAMESPACE", "POD", "STATE", "ENFORCES", "VERSION", "SCHEMA", "SINCE", "SAYS"]
    assert row.split()[:6] == ["agents", "bot-0", "SYNCED", NEW[:12], "0.1.0", "2"]
    [(path, header)] = door.asked
    assert path == "/v1/status"
    assert header.startswith("Bearer ey")
    assert header.count(".") == 2


def test_one_namespace_is_asked_for_alone_and_it_is_the_contexts_by_default(door: Door, ask: Any) -> None:
    door.says(GOOD)
    assert ask("-n", "agents").exit_code == 0
    assert ask().exit_code == 0
    assert [path for path, _ in door.asked] == ["/v1/status?namespace=agents", "/v1/status?namespace=default"]


def test_what_is_not_in_sync_is_exit_1_in_words(door: Door, ask: Any) -> None:
    door.says(GOOD, LAGGING, REFUSING, LOST, NEVER, OLD_ONE)
    ran = ask("-A")
    assert ran.exit_code == 1
    for text in (
        "bot-1  STALE", "bot-2  REFUSED", "bot-3  DISCONNECTED", "bot-4  NEVER CONNECTED",
        "it refused its configuration (MCPServer crm/s $.servers[0]): unknown field `x`",
        "too old for MCPServer crm/s, which it denies; restart the pod",
    ):  # fmt: skip
        assert text in ran.stdout
    assert "4 of 6 not in sync." in ran.stderr


def test_one_pod_is_shown_alone_and_one_that_is_not_there_is_exit_1(door: Door, ask: Any) -> None:
    door.says(GOOD, LAGGING)
    assert ask("bot-0", "-n", "agents").exit_code == 0
    assert ask("bot-1", "-n", "agents").exit_code == 1
    ran = ask("other", "-n", "agents")
    assert ran.exit_code == 1
    assert "pod other has no sidecar in namespace agents" in ran.stderr
    assert "outrider.dev/injection=enabled" in ran.stderr


def test_every_form_says_the_same(door: Door, ask: Any) -> None:
    door.says(GOOD, LAGGING)
    found = json.loads(ask("-A", "-o", "json").stdout)
    assert found == yaml.safe_load(ask("-A", "-o", "yaml").stdout)
    assert [row["state"] for row in found["sidecars"]] == ["SYNCED", "STALE"]
    assert ask("-A", "-o", "name").stdout.splitlines() == ["agents/bot-0", "agents/bot-1"]
    assert ask("-n", "agents", "-o", "name").stdout.splitlines() == ["pod/bot-0", "pod/bot-1"]
    wide = ask("-A", "-o", "wide").stdout.splitlines()
    assert wide[0].split()[-5:] == ["OFFERED", "NODE", "REPLICA", "SERVICEACCOUNT", "SAYS"]
    assert "n1" in wide[1]


def test_a_fleet_of_which_not_everything_is_known_is_not_called_in_sync(door: Door, ask: Any) -> None:
    door.says(GOOD, complete=False, why="no replica holds the Lease")
    ran = ask("-A")
    assert ran.exit_code == 1
    assert "this may not be all: no replica holds the Lease" in ran.stderr


@pytest.mark.parametrize(
    ("status", "answer", "words"),
    [
        (403, {"error": "bob may not get mcpservers.outrider.dev/proxystatus"}, "bob may not get mcpservers"),
        (503, {"error": "the API server could not be asked"}, "could not be asked"),
        (200, b"<html>", "something else than was agreed"),
        (200, {"sidecars": 7}, "something else than was agreed"),
    ],
)
def test_an_answer_that_is_none_is_exit_4_with_its_words(
    door: Door, ask: Any, status: int, answer: Any, words: str
) -> None:
    door.status, door.answer = status, answer
    ran = ask("-A")
    assert ran.exit_code == 4
    assert words in ran.stderr
    assert "Next: " in ran.stderr


def test_somebody_else_behind_the_port_is_not_believed(door: Door, ask: Any, tmp_path: pathlib.Path) -> None:
    door.says(GOOD)
    stranger = certs.Authority.make(tmp_path / "other", ["other"])
    ran = ask("-A", ca=stranger.ca_file)
    assert ran.exit_code == 4
    assert "its certificate is not the installation's" in ran.stderr
    assert door.asked == []


@pytest.mark.parametrize("line", [["-A", "-n", "x"], ["pod", "-A"], ["--", "-x"]])
def test_what_cannot_be_meant_is_a_usage_error(door: Door, ask: Any, line: list[str]) -> None:
    where = ["--system-namespace", NAMESPACE, "--release", RELEASE]
    assert asked.outrider("proxy-status", *where, *line).exit_code == 2


def test_an_operator_that_is_not_there_is_exit_4(
    cluster: apiserver.Cluster, files: certs.Authority, door: Door
) -> None:
    cluster.service_account(NAMESPACE, "gone-cli")
    where = ("--kubeconfig", cluster.kubeconfig, "--system-namespace", NAMESPACE, "--release", "gone")
    ran = asked.outrider("proxy-status", "-A", "--ca-file", files.ca_file, *where)
    assert ran.exit_code == 4
    assert "no connection to svc/gone in namespace ps-system" in ran.stderr


@pytest.mark.parametrize(
    ("row", "state"),
    [
        (GOOD, "SYNCED"),
        (LAGGING, "STALE"),
        (REFUSING, "REFUSED"),
        (LOST, "DISCONNECTED"),
        (NEVER, "NEVER CONNECTED"),
    ],
)
def test_one_word_for_each_state(row: dict[str, Any], state: str) -> None:
    assert proxy_status.state(row) == state


def test_a_credential_that_a_proxy_cannot_lend_is_said_beside_it_and_it_is_in_sync_all_the_same() -> None:
    amiss = {
        "server": "crm/s",
        "credential": "org",
        "state": "Failing",
        "reason": "CredentialUnavailable",
        "why": "Vault is sealed",
    }
    failing = {**GOOD, "troubles": [amiss]}
    assert proxy_status.state(failing) == proxy_status.SYNCED
    assert proxy_status.words(failing) == "credential org of crm/s fails: Vault is sealed"
