# SPDX-License-Identifier: Apache-2.0
"""The command line about a whole installation on a real API server: it says what sidecars enforce, and what is wrong."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
from tests import laptop
from tests.kube import address, asked, discovery, installation, scenarios
from tests.kube.scenarios import AGENTS, SERVER
from tests.scenarios import recorder

from outrider import snapshot
from outrider.injection import given

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
BOT = f"sa:{AGENTS}/default"
BESIDE_US = pathlib.Path(sys.executable).parent


@pytest.fixture(scope="module")
def seen():
    with recorder.running(address.private()) as found:
        yield found


@pytest.fixture(scope="module")
def home(module_cluster, seen, tmp_path_factory):
    with installation.installed(module_cluster, tmp_path_factory.mktemp("commands"), replicas=2) as made:
        scenarios.prepared(made, seen)
        made.cluster.apply(
            scenarios.policy(scenarios.allow("echo", "slow"), scenarios.deny("slow", message="Not today."))
        )
        discovery.Prober(made).start()
        yield made


@pytest.fixture(scope="module")
def agent(home):
    found = home.beside(AGENTS, "quote-bot")
    found.until(SERVER, "echo", "allowed")
    return found


@pytest.fixture
def node(home, agent, tmp_path):
    with asked.kubectl_on_path(tmp_path / "bin") as made:
        stream = next(each.ports["stream"] for each in home.operators if each.alive)
        log = next(each.log for each in home.processes if each.log.name.startswith(f"{AGENTS}.quote-bot"))
        made.does(
            forward={f"{installation.NAMESPACE}/svc/{installation.NAME}": stream},
            exec={f"{AGENTS}/quote-bot": {given.JOURNAL_PATH: str(agent.path(given.JOURNAL_PATH))}},
            logs={f"{AGENTS}/quote-bot": str(log)},
        )
        yield made


def outrider(home, *line: str, kubeconfig: object = None):
    return asked.outrider(*line, "--kubeconfig", kubeconfig or home.cluster.kubeconfig)


def test_proxy_status_shows_what_the_sidecar_really_enforces(home, agent, node) -> None:
    # The replica that has the stream and the one that took the acknowledgement are told apart within a second.
    laptop.until(lambda: outrider(home, "proxy-status", "-n", AGENTS).exit_code == 0, "it is in sync", 20)
    ran = outrider(home, "proxy-status", "-n", AGENTS, "-o", "json")
    [row] = json.loads(ran.stdout)["sidecars"]
    enforced = json.loads((agent.path(given.MEMORY_PATH) / "last-good.json").read_bytes())["version"]
    assert (row["pod"], row["state"], row["acked"]) == ("quote-bot", "SYNCED", enforced)
    assert row["schema"] == snapshot.SCHEMA


def test_can_i_and_explain_answer_what_the_sidecar_answers_on_the_very_same_version(
    home, agent, node
) -> None:
    def names_known() -> bool:
        return discovery.condition(home, "recorder", "ToolsDiscovered").get("status") == "True"

    laptop.until(names_known, "the prober has listed the server", 60)
    for tool, verdict in (
        ("echo", "allowed"),
        ("slow", "Denied"),
        ("hold", "unknown"),
        ("no-such", "unknown"),
    ):
        assert agent.verdict(SERVER, tool) in (verdict, "ToolUnknown", "NotAllowed")
        ran = outrider(home, "can-i", "call", SERVER, tool, "--as", BOT)
        assert ran.exit_code == (0 if verdict == "allowed" else 1), ran.output
        assert "names not checked" not in ran.stderr
    ran = outrider(home, "explain", "call", SERVER, "echo", "--as", BOT, "-o", "json")
    enforced = json.loads((agent.path(given.MEMORY_PATH) / "last-good.json").read_bytes())["version"]
    assert json.loads(ran.stdout)["snapshot"] == enforced


def test_a_request_is_explained_from_the_journal_of_its_pod(home, agent, node) -> None:
    reply = agent.agent.post(*agent.agent.request(SERVER, "slow", {}))
    request = re.search(r"Request ([0-9A-Z]{26})", json.dumps(reply.result))
    assert request is not None
    ran = outrider(home, "explain", request[1], "--pod", f"{AGENTS}/quote-bot")
    assert ran.exit_code == 1, ran.output
    assert "then        refused: Denied" in ran.stdout
    assert "rule        crm/access/deny" in ran.stdout
    assert "the same as now" in ran.stdout


def test_doctor_tells_what_was_hidden_from_an_agent(home, agent, node) -> None:
    agent.verdict(SERVER, "hold")
    laptop.until(
        lambda: "hold" in outrider(home, "doctor", "quote-bot", "-n", AGENTS).stdout, "the log has it", 10
    )


def test_doctor_finds_nothing_bad_in_an_installation_that_is_well_but_the_pods_that_nobody_runs_here(
    home, agent, node
) -> None:
    """Operators are processes of the test: that no pod of them is there is the one thing that is wrong."""
    laptop.until(
        lambda: discovery.condition(home, "recorder", "Reachable").get("status") == "True",
        "the server is seen",
        60,
    )

    def well() -> bool:
        return "2 proxies are in sync" in outrider(home, "doctor", "-o", "json").stdout

    # What a replica heard reaches the one that is asked within a second or two.
    laptop.until(well, "both proxies are in sync", 30)
    ran = outrider(home, "doctor", "-o", "json")
    found = json.loads(ran.stdout)
    assert [each["what"] for each in found if each["level"] == "bad"] == ["no operator is ready"], ran.stdout
    assert {"2 proxies are in sync", "4 admission policies are in force"} <= {
        each["what"] for each in found if each["level"] == "ok"
    }


def test_somebody_with_the_charts_role_may_ask_and_somebody_without_is_told_what_is_missing(
    home, agent, node
) -> None:
    bob = home.cluster.kubeconfig_for("bob")
    refused = outrider(home, "proxy-status", "-n", AGENTS, kubeconfig=bob)
    assert refused.exit_code == 4
    assert "the CA of the operator cannot be read" in refused.stderr
    bound(home, AGENTS, "ClusterRole", "bob-sees")
    refused = outrider(home, "proxy-status", "-n", AGENTS, kubeconfig=bob)
    assert refused.exit_code == 4
    assert "no token of ServiceAccount outrider-system/outrider-cli can be had" in refused.stderr
    assert 'User "bob" cannot create resource "serviceaccounts/token"' in refused.stderr
    bound(home, installation.NAMESPACE, "Role", "outrider-cli-user")
    allowed = outrider(home, "proxy-status", "-n", AGENTS, kubeconfig=bob)
    assert allowed.exit_code == 0, allowed.output


def bound(home, namespace: str, kind: str, role: str) -> None:
    """Lets bob do in one namespace what a role says; the one of a ClusterRole is to see pods."""
    group = "rbac.authorization.k8s.io"
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]
    if kind == "ClusterRole":
        home.cluster.apply(
            {"apiVersion": f"{group}/v1", "kind": kind, "metadata": {"name": role}, "rules": rules}
        )
    home.cluster.apply(
        {
            "apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": {"name": f"bob-{role}", "namespace": namespace},
            "roleRef": {"apiGroup": group, "kind": kind, "name": role},
            "subjects": [{"apiGroup": group, "kind": "User", "name": "bob"}],
        }
    )  # fmt: skip


def test_kubectl_itself_finds_the_plugin_and_runs_it(home, agent, node) -> None:
    path = os.pathsep.join([str(BESIDE_US), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "KUBECONFIG": str(home.cluster.kubeconfig)}

    def kubectl(*line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["kubectl", *line], env=environment, capture_output=True, text=True, check=False
        )

    assert "kubectl-outrider" in kubectl("plugin", "list").stdout
    ran = kubectl("outrider", "can-i", "call", SERVER, "echo", "--as", BOT)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("yes: ")
    assert kubectl("outrider", "can-i", "call", SERVER, "slow", "--as", BOT).returncode == 1
    assert kubectl("outrider", "--help").stdout.startswith("Usage: kubectl outrider ")


def test_a_sidecar_that_is_gone_is_seen_by_proxy_status_and_doctor(home, agent, node) -> None:
    second = home.beside(AGENTS, "second")
    laptop.until(lambda: outrider(home, "proxy-status", "-n", AGENTS).exit_code == 0, "both are in sync", 20)
    second.stop()

    laptop.until(
        lambda: re.search(r"second +DISCONNECTED", outrider(home, "proxy-status", "-A").stdout), "the lost one is shown", 30
    )  # fmt: skip
    ran = outrider(home, "doctor")
    assert (
        "1 of 3 proxies are disconnected: sales-agents/second. Next: outrider proxy-status -A" in ran.stdout
    )
    assert ran.exit_code == 1
