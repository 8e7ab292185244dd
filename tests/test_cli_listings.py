# SPDX-License-Identifier: Apache-2.0
"""Which servers answer, why the others do not, and what to do."""

from __future__ import annotations

import http.server
import json
import pathlib
import threading
import time

import pytest

from outrider import compile as compiler
from outrider import names
from outrider_cli import folder, listings

CLOCK = names.ServerId("tools", "clock")
SERVER = """\
apiVersion: outrider.dev/v1alpha1
kind: MCPServer
metadata: {name: clock, namespace: tools, annotations: {outrider.dev/start: make clock}}
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


def a_listing(home: pathlib.Path, text: str = SERVER) -> listings.Listings:
    (home / "servers.yaml").write_text(text)
    found = folder.at(str(home))
    (found.state / "logs").mkdir(parents=True, exist_ok=True)
    world = found.world()
    return listings.Listings(found, world, compiler.snapshot(world, "tools", "bot", loopback=True))


def logged(home: pathlib.Path, *whys: str) -> None:
    lines = ["not json", json.dumps({"server": "tools/other", "why": "another"})]
    lines += [json.dumps({"server": "tools/clock", "why": why}) for why in whys]
    (home / ".outrider" / "logs" / "sidecar.log").write_text("\n".join(lines))


def with_key(home: pathlib.Path) -> None:
    (home / "secrets").mkdir()
    (home / "secrets" / "key").write_text("k")


def test_a_missing_credential_is_named_with_its_file_and_what_makes_it(tmp_path: pathlib.Path) -> None:
    asked = a_listing(tmp_path)
    logged(tmp_path, "CredentialUnavailable: no such file")
    said = asked.missing({CLOCK: None})
    assert said == [
        (
            f"Note: tools/clock does not answer: the file of its credential is missing: {tmp_path.resolve()}/secrets/key."
            " Next: write the secret there (mode 0600), or run `make clock`."
        )
    ]
    assert "needs credential key" in asked.missing({CLOCK: 3})[0]
    with_key(tmp_path)
    assert asked.missing({CLOCK: 3}) == []


def test_a_refused_connection_is_told_how_the_server_is_started(tmp_path: pathlib.Path) -> None:
    asked = a_listing(tmp_path)
    with_key(tmp_path)
    logged(tmp_path, "old", "UpstreamUnreachable: x (ECONNREFUSED)")
    assert asked.missing({CLOCK: None}) == [
        (
            "Note: tools/clock does not answer: nobody listens at https://clock.example/mcp (connection refused)."
            " Next: start it: `make clock`."
        )
    ]
    plain = a_listing(tmp_path, SERVER.replace(", annotations: {outrider.dev/start: make clock}", ""))
    assert "Next: start it, or correct endpoint.url." in plain.why(CLOCK)


def test_any_other_reason_is_the_proxys_own_and_names_its_log(tmp_path: pathlib.Path) -> None:
    asked = a_listing(tmp_path)
    with_key(tmp_path)
    logged(tmp_path, "UpstreamStatus: 503\u001b[31m")
    said = asked.why(CLOCK)
    assert "UpstreamStatus: 503\\u001b[31m" in said
    assert "sidecar.log" in said


class Failing(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_response(500)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def failing() -> int:
    """The port of a proxy whose every answer is a failure."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Failing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_a_failure_is_an_answer_nobody_waits_for(tmp_path: pathlib.Path, failing: int) -> None:
    asked, waited = a_listing(tmp_path), []

    def wait(pause: float) -> None:
        waited.append(pause)
        time.sleep(pause)

    assert asked.ask(failing, "t", seconds=60, wait=wait) == {CLOCK: None}
    assert sum(waited) < 10


def test_what_a_server_lists_is_known_once_the_proxy_has_written_it(tmp_path: pathlib.Path) -> None:
    asked = a_listing(tmp_path)
    assert asked.answered() == {CLOCK: None}
    (tmp_path / ".outrider" / "definitions.json").write_text(
        json.dumps({"tools/clock": [{"name": name, "inputSchema": {"type": "object"}} for name in "ab"]})
    )
    assert asked.answered() == {CLOCK: 2}
