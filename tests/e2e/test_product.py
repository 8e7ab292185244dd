# SPDX-License-Identifier: Apache-2.0
"""The product on a node, in the order of its life: installed, used, without its control plane, changed, removed.

The tests follow one another on one installation, as a user's days do: the first that fails ends the rest (run.sh says -x).
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Iterator

import pytest
from tests.e2e import node, product
from tests.e2e.product import AGENTS, NAME, NAMESPACE, SERVERS

NOW = ("get_current_time", {"timezone": "UTC"})
CONVERT = ("convert_time", {"source_timezone": "UTC", "time": "12:00", "target_timezone": "UTC"})
DENIED = "Denied"


@pytest.fixture(scope="module")
def made(running: node.Node) -> Iterator[product.Product]:
    one = product.Product(running)
    try:
        yield one
    finally:
        print(one.said())


def test_the_chart_installs_and_every_replica_becomes_ready(made: product.Product) -> None:
    made.install()
    print(f"installed and Ready in {made.install_seconds:.1f} s")
    for deployment, replicas in ((NAME, 2), (f"{NAME}-prober", 1)):
        assert made.node.get("deployment", deployment, NAMESPACE)["status"]["readyReplicas"] == replicas


def test_an_agent_gets_a_sidecar_and_through_it_what_the_policies_allow(made: product.Product) -> None:
    made.server()
    made.agents()
    made.policy(convert=False)
    made.agent("bot")
    found = made.node.get("pod", "bot", AGENTS)
    assert found["metadata"]["labels"]["outrider.dev/injected"] == "true"
    assert json.loads(found["metadata"]["annotations"]["outrider.dev/status"])["localAuth"] == "Open"
    answered = made.until("bot", *NOW, "allowed")
    assert "timezone" in answered["text"]
    assert answered["tools"] == [made.full("get_current_time")]


def test_a_refused_call_says_why(made: product.Product) -> None:
    refused = made.until("bot", *CONVERT, DENIED)
    assert product.WORDS in refused["text"]


def test_kubectl_shows_what_is_programmed(made: product.Product) -> None:
    for kind, namespace, name in (
        ("mcpserver", SERVERS, "clock"), ("mcptoolpolicy", SERVERS, "open"), ("mcptoolpolicy", AGENTS, "ours"),
    ):  # fmt: skip
        made.until_ready(kind, namespace, name, programmed="1/1")
    made.node.until(
        lambda: made.node.get("mcpserver", "clock", SERVERS)["status"].get("toolCount") == 2,
        "the prober has listed the clock's tools", 60,
    )  # fmt: skip
    table = made.node.kubectl("get", "orsrv,orpol", "-A").stdout
    assert table.count("True") >= 3, table


def test_a_job_completes_with_its_sidecar(made: product.Product) -> None:
    tool, arguments = made.full(NOW[0]), json.dumps(NOW[1])
    spec = product.pod("any")["spec"]
    spec["containers"][0]["command"] = ["python", "/agent/agent.py", tool, arguments]
    spec["restartPolicy"] = "Never"
    job = {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once", "namespace": AGENTS},
        "spec": {"backoffLimit": 0, "template": {"spec": spec}},
    }  # fmt: skip
    made.node.apply(job)
    waited = made.node.kubectl(
        "wait", "-n", AGENTS, "--for=condition=Complete", "job/once", "--timeout=120s", check=False
    )
    said = made.node.kubectl("logs", "-n", AGENTS, "job/once", "-c", "agent", check=False).stdout
    assert waited.returncode == 0, said
    assert json.loads(said)["verdict"] == "allowed"


def test_beside_another_container_only_the_agent_knows_the_token(made: product.Product) -> None:
    stranger = product.container("stranger", ["python", "/agent/agent.py"])
    agent = product.pod("x")["spec"]["containers"][0]
    made.agent("two", containers=[agent, stranger], annotations={"outrider.dev/agent-containers": "agent"})
    status = made.node.get("pod", "two", AGENTS)["metadata"]["annotations"]["outrider.dev/status"]
    assert json.loads(status)["localAuth"] == "Token"
    made.until("two", *NOW, "allowed")
    looking = (
        "import os, urllib.request, urllib.error\n"
        "print(os.path.exists('/etc/outrider'), 'MCP_CONFIG' in os.environ)\n"
        "try:\n"
        "    print(urllib.request.urlopen(urllib.request.Request('http://127.0.0.1:15100/mcp', b'{}')).status)\n"
        "except urllib.error.HTTPError as error:\n"
        "    print(error.code)\n"
    )
    said = made.node.kubectl("exec", "-n", AGENTS, "two", "-c", "stranger", "--", "python", "-c", looking)
    assert said.stdout.split() == ["False", "False", "401"]


def test_helm_test_makes_an_allowed_and_a_refused_call(made: product.Product) -> None:
    made.helm.test(NAME, NAMESPACE, timeout=product.HELM_SECONDS)


def test_without_a_control_plane_agents_go_on_and_new_ones_wait(made: product.Product) -> None:
    made.scale(0)
    assert made.call("bot", *NOW)["verdict"] == "allowed"
    refused = made.node.apply(product.pod("late"), check=False)
    assert refused.returncode != 0
    assert "inject.outrider.dev" in refused.stderr
    made.policy(convert=True)
    made.crash_sidecar("bot")
    made.until("bot", *NOW, "allowed")
    assert made.call("bot", *CONVERT)["verdict"] == DENIED


def test_with_the_control_plane_back_what_was_changed_meanwhile_is_in_force(made: product.Product) -> None:
    made.scale(2)
    made.until("bot", *CONVERT, "allowed", seconds=90)
    made.agent("late")
    made.until("late", *NOW, "allowed")
    made.until_ready("mcptoolpolicy", AGENTS, "ours", programmed="3/3")


def test_a_change_is_in_force_within_seconds(made: product.Product) -> None:
    with made.talking("bot", *CONVERT) as talk:
        began = time.time()
        made.policy(convert=False)
        made.node.until(lambda: talk.answers()[-1]["verdict"] == DENIED, "the change is in force", 20)
    every = talk.answers()
    assert {each["verdict"] for each in every} == {"allowed", DENIED}
    took = next(each["at"] for each in every if each["verdict"] == DENIED) - began
    print(f"in force {took:.2f} s after kubectl apply was typed")
    assert took < 10


def test_an_upgrade_and_a_rollback_disturb_no_call_and_no_pod(made: product.Product) -> None:
    before = made.restarts("bot")
    with made.talking("bot", *NOW) as talk:
        values = product.values(operator={"podAnnotations": {"example.com/changed": "yes"}})
        wait = {"wait": "watcher", "timeout": product.HELM_SECONDS}
        made.helm.upgrade(NAME, made.chart, NAMESPACE, values, **wait)
        made.helm.rollback(NAME, NAMESPACE, **wait)
        assert talk.goes_on, "the agent's session ended"
    every = talk.answers()
    apart = [later["at"] - each["at"] for each, later in itertools.pairwise(every)]
    print(f"{len(every)} calls meanwhile, {statistics.median(apart):.3f} s apart, at most {max(apart):.2f}")
    assert {each["verdict"] for each in every} == {"allowed"}
    assert made.restarts("bot") == before


def test_after_uninstall_running_agents_keep_their_last_configuration(made: product.Product) -> None:
    made.helm.uninstall(NAME, NAMESPACE, wait="watcher", timeout=product.HELM_SECONDS)
    made.node.until(
        lambda: made.node.kubectl("get", "pods", "-n", NAMESPACE, "-o", "name").stdout == "",
        "its pods are gone",
    )
    assert made.call("bot", *NOW)["verdict"] == "allowed"
    assert made.call("bot", *CONVERT)["verdict"] == DENIED
    for kind in ("mutatingwebhookconfiguration", "validatingwebhookconfiguration"):
        assert NAME not in made.node.kubectl("get", kind, "-o", "name").stdout
    plain = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "plain", "namespace": AGENTS},
        "spec": product.pod("x")["spec"],
    }  # fmt: skip
    made.node.apply(plain)
    assert "initContainers" not in made.node.get("pod", "plain", AGENTS)["spec"]
    made.node.kubectl("get", "mcpserver", "clock", "-n", SERVERS)
