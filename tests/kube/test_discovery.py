# SPDX-License-Identifier: Apache-2.0
"""Discovery on a real API server: what servers list fills their status, and status stays true when they go, lie or come back."""

from __future__ import annotations

import json

import pytest
from tests import laptop
from tests.kube import address, discovery, installation, scenarios
from tests.kube.scenarios import AGENTS
from tests.scenarios import recorder

from outrider import fingerprints

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SECONDS_MAX = 100.0
"""A server is visited once a minute."""


@pytest.fixture(scope="module")
def seen():
    with recorder.running(address.private()) as found:
        yield found


@pytest.fixture(scope="module")
def home(module_cluster, seen, tmp_path_factory):
    with installation.installed(module_cluster, tmp_path_factory.mktemp("discovery"), replicas=2) as made:
        scenarios.prepared(made, seen)
        made.hosts["endpoints.crm.svc"] = made.cluster.advertised
        yield made


@pytest.fixture(scope="module")
def prober(home):
    return discovery.Prober(home).start()


def status(home, name: str = "recorder") -> dict:
    return home.cluster.get("mcpservers.outrider.dev", name, "crm").get("status", {})


def until(home, name: str, kind: str, value: str, words: str = "") -> dict:
    """Waits until a condition has this status and words; gives its server's status."""

    def holds() -> bool:
        found = discovery.condition(home, name, kind)
        return found.get("status") == value and words in found.get("message", "")

    laptop.until(holds, f"{name} has {kind}={value}; is {discovery.condition(home, name, kind)}", SECONDS_MAX)
    return status(home, name)


def test_what_a_server_lists_is_in_its_status(home, prober, seen) -> None:
    found = until(home, "recorder", "ToolsDiscovered", "True")
    until(home, "recorder", "Reachable", "True")
    assert found["toolCount"] == len(recorder.TOOLS)
    assert found["serverInfo"] == {"name": "recorder", "version": "1"}
    assert found["protocolVersions"] == [laptop.MODERN]
    tool = {"name": "echo", "description": seen.description, "inputSchema": {"type": "object"}}
    marks = {each["name"]: each["fingerprint"] for each in found["tools"]}
    assert marks["echo"] == fingerprints.of(json.dumps(tool).encode())
    assert sorted(marks) == sorted(recorder.TOOLS)
    assert not [method for method, _ in seen.requests if method == "tools/call"], "a prober calls nothing"


def test_a_rule_that_names_a_tool_which_nobody_lists_is_told_so(home, prober) -> None:
    until(home, "recorder", "ToolsDiscovered", "True")
    home.cluster.apply(scenarios.policy(scenarios.allow("ecko"), name="typo"))

    def told() -> bool:
        return '"ecko"' in home.condition("orpol", "typo", "Enforceable", "crm").get("message", "")

    laptop.until(told, "the policy says that no tool is called ecko", SECONDS_MAX)


def test_servers_that_cannot_be_listed_say_why_in_words(home, prober) -> None:
    cluster = home.cluster
    service = {"name": "nobody", "port": 9, "path": "/mcp"}
    home.hosts["nobody.crm.svc"] = cluster.host_ip
    entry = {"description": "x", "credentials": [{"name": "open", "from": [{"anyone": True}], "none": True}]}
    cluster.apply(
        scenarios.obj(
            "MCPServer", "nodns", {**entry, "endpoint": {"url": "http://no-such-name.invalid/mcp"}}
        ),
        scenarios.obj(
            "MCPServer", "private", {**entry, "endpoint": {"url": f"http://{cluster.host_ip}:9/mcp"}}
        ),
        scenarios.obj("MCPServer", "loop", {**entry, "endpoint": {"url": "http://127.0.0.1:9/mcp"}}),
        scenarios.obj("MCPServer", "away", {**entry, "endpoint": {"service": service}}),
        scenarios.obj(
            "MCPServer", "api", {**entry, "endpoint": {"service": {**service, "name": "endpoints"}}}
        ),
    )
    until(home, "nodns", "Reachable", "False", "cannot be resolved")
    until(home, "private", "Reachable", "False", "`network.allow`")
    until(home, "loop", "Reachable", "False", "loopback addresses are never dialled")
    until(home, "away", "Reachable", "False")
    until(home, "api", "Reachable", "False", "an address of the API server")
    until(home, "nodns", "ToolsDiscovered", "False", "cannot be resolved")
    assert "toolCount" not in status(home, "nodns")
    assert home.condition("orsrv", "nodns", "Ready", "crm")["status"] == "True", (
        "a server that is away is no mistake of its entry"
    )


def test_another_leader_knows_the_same_and_keeps_what_was_said(home, prober) -> None:
    before = until(home, "recorder", "ToolsDiscovered", "True")
    leader = next(each for each in home.operators if each.identity == holder(home))
    leader.kill()
    laptop.until(lambda: holder(home) != leader.identity, "another replica leads", 60)
    after = until(home, "recorder", "Reachable", "True")
    assert after["tools"] == before["tools"]
    leader.start().until_ready()


def holder(home) -> str:
    lease = home.cluster.get("lease", installation.NAME, installation.NAMESPACE)
    return str(lease["spec"].get("holderIdentity") or "").partition("/")[0]


def test_a_server_that_goes_away_keeps_its_tools_and_is_not_called_reachable(home, prober, tmp_path) -> None:
    with recorder.running(address.private()) as passing:
        home.hosts["passing-mcp.crm.svc"] = home.cluster.host_ip
        prober_again(home, prober)
        home.cluster.apply(scenarios.server(passing, "passing"))
        known = until(home, "passing", "Reachable", "True")
    found = until(home, "passing", "Reachable", "False", "it last answered at")
    assert found["tools"] == known["tools"]
    assert found["toolCount"] == known["toolCount"]
    assert discovery.condition(home, "passing", "ToolsDiscovered")["status"] == "True"


def prober_again(home, prober) -> None:
    """With the names that are known by now."""
    assert prober.stop() == 0
    prober.start()


def test_a_sidecar_that_is_shown_something_else_is_named(home, prober, seen) -> None:
    """For a while the server answers otherwise, and only the sidecar asks; the prober finds the same before and after."""
    home.cluster.apply(scenarios.policy(scenarios.allow("echo")))
    usual, began = seen.description, len(lists(seen))
    prober_again(home, prober)
    laptop.until(lambda: len(lists(seen)) > began, "the prober has listed", SECONDS_MAX)
    until(home, "recorder", "Reachable", "True")
    seen.description = "Does as it is told, and a little more."
    try:
        agent = home.beside(AGENTS, "shown-otherwise")
        agent.until("crm/recorder", "echo", "allowed")
    finally:
        seen.description = usual
    told = "is shown other definitions: changed: echo, garbage, hang_up and 10 more"
    laptop.until(
        lambda: f"{AGENTS}/shown-otherwise {told}" in discovery.condition(home, "recorder", "ToolsDiscovered")["message"],
        "the sidecar is named", SECONDS_MAX,
    )  # fmt: skip
    assert discovery.condition(home, "recorder", "ToolsDiscovered")["reason"] == "Differing"


def lists(seen) -> list[str]:
    return [method for method, _ in seen.requests if method == "tools/list"]
