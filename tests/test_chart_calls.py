# SPDX-License-Identifier: Apache-2.0
"""What `helm test` and the demo run, run here: their own scripts, with a real control plane and a real proxy between them.

The objects are the charts' own; a laptop has no Services, so the server's address is written out.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from tests import laptop
from tests.kube import apiserver, helm

CALLS = helm.OUTRIDER / "files" / "tests"
DEMO = helm.DEMO / "files"
KINDS = ("MCPServer", "MCPToolPolicy", "MCPBudget")


class Stage:
    """A laptop with a chart's rules, its server, and what its agent is told."""

    def __init__(self, place: laptop.Laptop, port: int) -> None:
        self.laptop, self.port = place, port
        self.config = place.folder / "mcp.json"
        headers = {"Authorization": f"Bearer {(place.state / 'agent-token').read_text().strip()}"}
        entry = {"type": "http", "url": f"http://127.0.0.1:{place.port}/mcp", "headers": headers}
        self.config.write_text(json.dumps({"mcpServers": {"outrider": entry}}))

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "MCP_CONFIG": str(self.config)}

    def client(self, server: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, CALLS / "client.py", server]
        return subprocess.run(line, env=self.env, capture_output=True, text=True, check=False, timeout=120)


def staged(
    folder: pathlib.Path, objects: list[dict[str, Any]], script: pathlib.Path, who: tuple[str, str]
) -> Iterator[Stage]:
    port = apiserver.free_port()
    server = laptop.Process("server", [sys.executable, script, str(port)], logs=folder / "logs")
    rules = [each for each in objects if each["kind"] in KINDS]
    for each in rules:
        if each["kind"] == "MCPServer":
            each["spec"]["endpoint"] = {"url": f"http://127.0.0.1:{port}/mcp"}
    settings = {
        "apiVersion": "outrider.dev/v1alpha1", "kind": "Settings", "platformNamespace": "outrider-system",
        "workload": {"namespace": who[0], "serviceAccount": who[1]},
    }  # fmt: skip
    files = {"outrider.yaml": json.dumps(settings)}
    files |= {f"{index}.yaml": json.dumps(each) for index, each in enumerate(rules)}
    try:
        with laptop.running(folder, files) as place:
            yield Stage(place, port)
    finally:
        server.stop()


@pytest.fixture
def tested(tmp_path: pathlib.Path) -> Iterator[Stage]:
    objects = helm.documents(helm.template()["outrider/templates/tests/calls.yaml"])
    yield from staged(tmp_path, objects, CALLS / "server.py", ("outrider-test", "helm-test"))


@pytest.fixture
def demo(tmp_path: pathlib.Path) -> Iterator[Stage]:
    objects = helm.objects(helm.template(helm.DEMO, name="demo"))
    yield from staged(tmp_path, objects, DEMO / "server.py", ("demo-agents", "quote-bot"))


def test_helm_test_passes_when_the_first_call_is_allowed_and_the_second_refused(tested: Stage) -> None:
    ran = tested.client("outrider-test/greeter")
    assert (ran.returncode, ran.stderr) == (0, "")
    allowed, refused = ran.stdout.splitlines()
    assert allowed == "allowed: outrider-test/greeter hello: hello from the server"
    assert refused.startswith("refused: outrider-test/greeter goodbye: Denied: ")
    assert "Refused on purpose by helm test." in refused


def test_helm_test_fails_when_what_should_be_refused_is_allowed(tested: Stage) -> None:
    for path in tested.laptop.files.glob("*.yaml"):
        made = json.loads(path.read_text())
        if made["kind"] == "MCPToolPolicy":
            made["spec"]["rules"] = made["spec"]["rules"][:1]
            path.write_text(json.dumps(made))
    agent = tested.laptop.agent
    laptop.until(
        lambda: not laptop.reason(agent.call("outrider-test/greeter", "goodbye")), "the rule is gone"
    )
    ran = tested.client("outrider-test/greeter")
    assert ran.returncode == 1
    assert "goodbye should have been refused, but was allowed" in ran.stderr


def test_helm_test_fails_with_what_to_look_at_when_the_server_is_not_known(tested: Stage) -> None:
    script = (CALLS / "client.py").read_text().replace("PATIENCE_SECONDS = 90", "PATIENCE_SECONDS = 1")
    impatient = tested.laptop.folder / "client.py"
    impatient.write_text(script)
    line = [sys.executable, impatient, "elsewhere/unknown"]
    ran = subprocess.run(line, env=tested.env, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 1
    assert "elsewhere/unknown hello should have been allowed, but was failed" in ran.stderr
    assert "next: kubectl describe mcpservers.outrider.dev" in ran.stderr


def test_the_demos_agent_shows_every_kind_of_answer(demo: Stage) -> None:
    port = apiserver.free_port()
    line = [sys.executable, DEMO / "agent.py", "demo-crm/crm", str(port)]
    agent = laptop.Process("agent", line, logs=demo.laptop.logs, env=demo.env)
    try:
        agent.until(lambda: "refused: BudgetExceeded" in agent.text(), "the third export is refused")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            page = answer.read().decode()
    finally:
        agent.stop()
    words = dict(re.findall(r"^(\w+) +(\S.*?)(?:  |$)", page, re.MULTILINE))
    assert words["get_account"] == words["create_opportunity"] == "allowed"
    assert words["export_contacts"] == "refused: BudgetExceeded"
    assert words["delete_account"].startswith("refused: Denied")
    assert "Accounts are deleted by CRM operations only." in page
    assert words["debug_memory"] == "refused: ToolUnknown"
