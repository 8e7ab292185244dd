# SPDX-License-Identifier: Apache-2.0
"""The product on a node, in the order of its life: installed, used, without its control plane, changed, removed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.e2e import node, product
from tests.e2e.product import AGENTS, NAME, NAMESPACE, SERVERS

NOW = ("get_current_time", {"timezone": "UTC"})
CONVERT = ("convert_time", {"source_timezone": "UTC", "time": "12:00", "target_timezone": "UTC"})


@pytest.fixture(scope="module")
def made(running: node.Node) -> Any:
    one = product.Product(running)
    try:
        yield one
    finally:
        print(one.said())


def tool(made: product.Product, wanted: str) -> str:
    """Its name at the merged endpoint."""
    return f"{SERVERS}__clock__{wanted}"


def test_the_chart_installs_and_every_replica_becomes_ready(made: product.Product) -> None:
    made.install()
    print(f"installed and Ready in {made.install_seconds:.1f} s")
    deployment = made.node.get("deployment", NAME, NAMESPACE)
    assert deployment["status"]["readyReplicas"] == 2


def test_an_agent_gets_a_sidecar_and_through_it_what_the_policies_allow(made: product.Product) -> None:
    made.server()
    made.agents()
    made.policy("get_*")
    made.agent("bot")
    found = made.node.get("pod", "bot", AGENTS)
    assert found["metadata"]["labels"]["outrider.dev/injected"] == "true"
    assert json.loads(found["metadata"]["annotations"]["outrider.dev/status"])["localAuth"] == "Open"
    name, arguments = NOW
    answered = made.until("bot", tool(made, name), arguments, "allowed")
    assert "timezone" in answered["text"]
