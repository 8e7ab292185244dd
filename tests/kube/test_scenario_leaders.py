# SPDX-License-Identifier: Apache-2.0
"""Several replicas, several certificates, several versions: what changes hands, and that nobody calling notices."""

from __future__ import annotations

import json
import time

import pytest
from tests import laptop
from tests.kube import address, installation, scenarios
from tests.kube.scenarios import AGENTS, SERVER
from tests.scenarios import recorder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def seen():
    with recorder.running(address.private()) as found:
        yield found


@pytest.fixture(scope="module")
def home(module_cluster, seen, tmp_path_factory):
    with installation.installed(module_cluster, tmp_path_factory.mktemp("leaders"), replicas=2) as made:
        scenarios.prepared(made, seen)
        module_cluster.apply(scenarios.policy(scenarios.allow("echo")))
        yield made


@pytest.fixture(scope="module")
def agents(home):
    found = [home.beside(AGENTS, f"bot-{n}") for n in range(3)]
    for agent in found:
        agent.until(SERVER, "echo", "allowed")
    return found


def leader(home):
    """The replica that the Lease names."""
    holder = (
        home.cluster.get("lease", installation.NAME, installation.NAMESPACE)["spec"].get("holderIdentity")
        or ""
    )
    return next(
        (each for each in home.operators if each.alive and holder.startswith(each.identity + "/")), None
    )


def test_exactly_one_replica_leads_and_counts_the_streams_of_all(home, agents):
    laptop.until(lambda: leader(home), "somebody leads", 60)
    home.until_condition("orpol", "access", "crm", Programmed="True")
    laptop.until(
        lambda: home.condition("orpol", "access", "Programmed", "crm")["message"].startswith("3/3"),
        "the leader knows of all three", 60,
    )  # fmt: skip
    led = [each for each in home.operators if "outrider_leader 1.0" in each.desk("/metrics")[1]]
    assert led == [leader(home)]


def test_when_the_leader_dies_the_other_writes_status(home, agents):
    old = leader(home)
    old.kill()
    with scenarios.Load(agents[0].agent) as load:
        home.cluster.apply(scenarios.policy(scenarios.allow("echo", "slow")))
        for agent in agents:
            agent.until(SERVER, "slow", "allowed")
        home.until_condition("orpol", "access", "crm", Accepted="True", Programmed="True", Ready="True")
    assert load.said() == {"allowed"}
    assert leader(home) is not old
    old.start().until_ready()


def test_certificates_change_without_a_restart_and_without_an_error(home, agents):
    """The CA is replaced as on the day it is due; streams stay, new pods trust the new one, old pods too."""
    before = home.cluster.get("secret", f"{installation.NAME}-certs", installation.NAMESPACE)["data"][
        "ca.crt"
    ]
    with scenarios.Load(agents[0].agent) as load:
        home.cluster.kubectl(
            "annotate", "secret", f"{installation.NAME}-certs", "-n", installation.NAMESPACE,
            "outrider.dev/rotate-ca=now", "--overwrite",
        )  # fmt: skip
        laptop.until(
            lambda: home.cluster.get("secret", f"{installation.NAME}-certs", installation.NAMESPACE)["data"]["ca.crt"]
            != before,
            "there is a new authority", 90,
        )  # fmt: skip
        late = home.beside(AGENTS, "late-bot")
        late.until(SERVER, "echo", "allowed")
        home.cluster.apply(scenarios.policy(scenarios.allow("echo", "hold")))
        for each in home.operators:
            each.stop()
        for each in home.operators:
            each.start().until_ready()
        home.cluster.apply(scenarios.policy(scenarios.allow("echo", "paid")))
        for agent in [*agents, late]:
            agent.until(SERVER, "paid", "allowed")
    assert load.said() == {"allowed"}


def test_a_pod_is_still_admitted_after_the_certificates_changed(home):
    pod = home.pod(AGENTS, "after")
    assert any(each["name"] == "outrider" for each in pod["spec"]["initContainers"])


def test_a_replica_that_stops_sends_its_streams_away_first(home, agents):
    old = home.operators[0]
    began = time.monotonic()
    with scenarios.Load(agents[0].agent) as load:
        assert old.stop() == 0
        assert time.monotonic() - began < 20
        home.cluster.apply(scenarios.policy(scenarios.allow("echo")))
        for agent in agents:
            agent.until(SERVER, "paid", "unknown")
    assert load.said() == {"allowed"}
    assert "goaway" not in json.dumps(sorted(load.said()))
    old.start().until_ready()
