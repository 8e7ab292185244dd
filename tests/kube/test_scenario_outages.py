# SPDX-License-Identifier: Apache-2.0
"""What happens to running agents, and to the truth, when the control plane or the API server goes away or comes back changed."""

from __future__ import annotations

import time

import pytest
from tests import laptop
from tests.kube import address, installation, scenarios
from tests.kube.scenarios import AGENTS, SERVER
from tests.scenarios import recorder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
API_AWAY_SECONDS = 300.0


@pytest.fixture
def seen():
    with recorder.running(address.private()) as found:
        yield found


@pytest.fixture
def home(own_cluster, seen, tmp_path):
    made = installation.Installation(own_cluster, tmp_path / "installation")
    try:
        made.install()
        scenarios.prepared(made, seen)
        own_cluster.apply(scenarios.policy(scenarios.allow("echo")))
        yield made
    finally:
        made.close()
        print(*{each.log: each.tail() for each in made.processes}.values(), sep="\n")


def test_a_grant_deleted_while_nobody_watched_is_gone_everywhere(home):
    home.operator()
    agent = home.beside(AGENTS, "quote-bot")
    agent.until(SERVER, "echo", "allowed")
    home.cut_operators_off()
    home.cluster.kubectl("delete", "orpol", "access", "-n", "crm")
    home.cluster.restart_api()
    assert agent.verdict(SERVER, "echo") == "allowed", "nobody has told it yet"
    home.let_operators_back()
    agent.until(SERVER, "echo", "unknown")


def test_a_killed_operator_is_replaced_by_the_other_under_load(home):
    first, second = home.operator(), home.operator()
    agents = [home.beside(AGENTS, f"bot-{n}") for n in range(3)]
    for agent in agents:
        agent.until(SERVER, "echo", "allowed")
    with scenarios.Load(agents[0].agent) as load:
        first.kill()
        began = time.monotonic()
        home.cluster.apply(scenarios.policy(scenarios.allow("echo", "slow")))
        for agent in agents:
            agent.until(SERVER, "slow", "allowed")
        print(f"a change reached all {time.monotonic() - began:.2f} s after a kill -9")
        home.until_condition("orpol", "access", "crm", Programmed="True")
    assert load.said() == {"allowed"}
    assert second.alive


def test_five_minutes_without_an_api_server_change_nothing_for_running_agents(home):
    operator = home.operator()
    agent = home.beside(AGENTS, "quote-bot")
    agent.until(SERVER, "echo", "allowed")
    with scenarios.Load(agent.agent, pause_seconds=0.1) as load:
        home.cluster.stop_api()
        time.sleep(API_AWAY_SECONDS)
        assert operator.alive
        assert operator.desk("/healthz")[0] == 200
        home.cluster.start_api()
        home.cluster.kubectl("delete", "orpol", "access", "-n", "crm")
        agent.until(SERVER, "echo", "unknown")
        laptop.until(lambda: load.verdicts[-1][1] == "unknown", "calls find it gone too", 10)
    assert load.said() == {"allowed", "unknown"}
    assert len(load.verdicts) > API_AWAY_SECONDS


def test_a_backup_from_before_a_revocation_does_not_bring_the_grant_back(home):
    home.operator()
    agent = home.beside(AGENTS, "quote-bot")
    agent.until(SERVER, "echo", "allowed")
    backup = home.cluster.save_etcd()
    for n in range(20):
        home.cluster.apply(scenarios.policy(scenarios.allow("slow"), name=f"later-{n}"))
    home.cluster.kubectl("delete", "orpol", "access", "-n", "crm")
    agent.until(SERVER, "echo", "unknown")
    home.cluster.restore_etcd(backup)
    laptop.until(
        lambda: 'outrider_frozen{collection="policies"} 1.0' in home.operators[0].desk("/metrics")[1],
        "the operator stays on what it knows", 60,
    )  # fmt: skip
    assert agent.verdict(SERVER, "echo") == "unknown"
    home.settings(epoch=2)
    agent.until(SERVER, "echo", "allowed")


def test_a_replica_started_after_a_restore_is_refused_by_every_sidecar(home):
    first = home.operator()
    agent = home.beside(AGENTS, "quote-bot")
    agent.until(SERVER, "echo", "allowed")
    backup = home.cluster.save_etcd()
    for n in range(20):
        home.cluster.apply(scenarios.policy(scenarios.allow("slow"), name=f"later-{n}"))
    home.cluster.kubectl("delete", "orpol", "access", "-n", "crm")
    agent.until(SERVER, "echo", "unknown")
    first.stop()
    home.cluster.restore_etcd(backup)
    home.operator()
    time.sleep(5)
    assert agent.verdict(SERVER, "echo") == "unknown", "an older configuration is never applied (N7)"
    home.settings(epoch=2)
    agent.until(SERVER, "echo", "allowed")


def test_without_the_crds_nothing_is_forgotten(home):
    operator = home.operator()
    agent = home.beside(AGENTS, "quote-bot")
    agent.until(SERVER, "echo", "allowed")
    home.cluster.kubectl("delete", "crd", "mcptoolpolicies.outrider.dev", "--wait=false")
    laptop.until(lambda: operator.ready()[0] == 503, "the operator is not ready", 60)
    assert "mcptoolpolicies" in operator.ready()[1]
    time.sleep(3)
    assert agent.verdict(SERVER, "echo") == "allowed"


def test_a_new_pod_waits_until_it_has_a_configuration(home):
    operator = home.operator()
    pod = home.pod(AGENTS, "early")
    operator.stop()
    waiting = installation.Beside(home, pod).start(ready=False)
    time.sleep(2)
    assert waiting.desk("/readyz")[0] == 503
    assert waiting.verdict(SERVER, "echo") != "allowed"
    home.operator()
    laptop.until(waiting.is_ready, "it has a configuration", 60)
    waiting.until(SERVER, "echo", "allowed")
