# SPDX-License-Identifier: Apache-2.0
"""The life of a configuration on a real API server: applied, programmed, edited, taken away, by the thousand."""

from __future__ import annotations

import json
import time

import pytest
from tests import laptop
from tests.kube import installation, scenarios
from tests.kube.scenarios import AGENTS, SERVER
from tests.scenarios import recorder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
FLIP_SECONDS_MAX = 2.0


@pytest.fixture(scope="module")
def seen():
    from tests.kube import address

    with recorder.running(address.private()) as found:
        yield found


@pytest.fixture(scope="module")
def home(module_cluster, seen, tmp_path_factory):
    with installation.installed(module_cluster, tmp_path_factory.mktemp("life")) as made:
        scenarios.prepared(made, seen)
        made.hosts["endpoints.crm.svc"] = made.cluster.advertised
        yield made


@pytest.fixture(scope="module")
def agent(home):
    return home.beside(AGENTS, "quote-bot")


def flips(agent, tool, verdict):
    """Seconds until it does."""
    began = time.monotonic()
    agent.until(SERVER, tool, verdict)
    took = time.monotonic() - began
    print(f"{tool} {verdict} after {took * 1000:.0f} ms")
    return took


def test_what_is_applied_is_programmed_edited_and_taken_away(home, agent):
    assert agent.verdict(SERVER, "echo") == "unknown"
    home.cluster.apply(scenarios.policy(scenarios.allow("echo")))
    assert flips(agent, "echo", "allowed") < FLIP_SECONDS_MAX
    home.until_condition("orpol", "access", "crm", Accepted="True", Programmed="True", Ready="True")
    home.until_condition("orsrv", "recorder", "crm", Accepted="True", Programmed="True")
    table = home.cluster.kubectl("get", "orsrv,orpol", "-n", "crm").stdout
    assert "1/1" in table
    assert "True" in table
    home.cluster.apply(
        scenarios.policy(scenarios.allow("echo"), scenarios.deny("echo", message="Not today."))
    )
    assert flips(agent, "echo", "Denied") < FLIP_SECONDS_MAX
    home.until_condition("orpol", "access", "crm", Programmed="True")
    home.cluster.kubectl("delete", "orpol", "access", "-n", "crm")
    assert flips(agent, "echo", "unknown") < FLIP_SECONDS_MAX


def test_an_object_that_cannot_be_used_is_told_and_changes_nothing(home, agent):
    home.cluster.apply(scenarios.policy(scenarios.allow("echo")))
    agent.until(SERVER, "echo", "allowed")
    broken = scenarios.policy(scenarios.allow("echo"), scenarios.deny("hold"), name="access")
    broken["spec"]["rules"][1]["efect"] = "Allow"
    ran = home.cluster.apply(broken, check=False)
    assert ran.returncode != 0
    assert "efect" in ran.stderr
    assert agent.verdict(SERVER, "echo") == "allowed"
    home.cluster.apply(scenarios.policy(scenarios.allow("echo"), name="dangling", target="nobody"))
    home.until_condition("orpol", "dangling", "crm", ResolvedRefs="False/TargetNotFound", Ready="False")
    home.cluster.kubectl("delete", "orpol", "dangling", "access", "-n", "crm")
    agent.until(SERVER, "echo", "unknown")


def test_a_thousand_policies_are_one_more(home, agent):
    many = [scenarios.policy(scenarios.allow(f"tool-{n}"), name=f"p-{n}") for n in range(1000)]
    for start in range(0, 1000, 250):
        home.cluster.apply(*many[start : start + 250])
    home.cluster.apply(scenarios.policy(scenarios.allow("echo")))
    assert flips(agent, "echo", "allowed") < FLIP_SECONDS_MAX
    home.cluster.kubectl("delete", "orpol", "access", "-n", "crm")
    assert flips(agent, "echo", "unknown") < FLIP_SECONDS_MAX
    home.until_condition("orpol", "p-999", "crm", Accepted="True")
    home.cluster.kubectl("delete", "--raw", "/apis/outrider.dev/v1alpha1/namespaces/crm/mcptoolpolicies")


def test_an_empty_list_is_believed_however_many_are_gone(home, agent):
    home.cluster.apply(*(scenarios.policy(scenarios.allow("echo", "slow"), name=f"a-{n}") for n in range(8)))
    agent.until(SERVER, "echo", "allowed")
    home.cluster.kubectl("delete", "orpol", "--all", "-n", "crm", "--wait=false")
    assert flips(agent, "echo", "unknown") < FLIP_SECONDS_MAX
    status, page = home.operators[0].desk("/metrics")
    assert status == 200
    assert 'outrider_frozen{collection="policies"} 0.0' in page


def test_a_pod_that_is_gone_no_longer_counts(home, agent):
    home.cluster.apply(scenarios.policy(scenarios.allow("echo")))
    other = home.beside(AGENTS, "short-lived")
    home.until_condition("orpol", "access", "crm", Programmed="True")
    assert home.condition("orpol", "access", "Programmed", "crm")["message"].startswith("2/2")
    other.stop()
    laptop.until(
        lambda: home.condition("orpol", "access", "Programmed", "crm").get("message", "").startswith("2/2")
        or "short-lived" in json.dumps(home.condition("orpol", "access", "Programmed", "crm")),
        "the lost stream is counted as what it is", 30,
    )  # fmt: skip
    home.cluster.kubectl("delete", "pod", "short-lived", "-n", AGENTS, "--grace-period=0", "--force")
    laptop.until(
        lambda: home.condition("orpol", "access", "Programmed", "crm").get("message", "").startswith("1/1"),
        "only the pod that is left counts", 60,
    )  # fmt: skip
    home.cluster.kubectl("delete", "orpol", "--all", "-n", "crm")


def test_a_service_that_leads_to_the_api_server_is_asked_nothing(home, agent):
    """R15: its name is resolved to the endpoint that the API server itself told the operator of."""
    consent = {"targetRefs": [{"namespace": "crm", "name": "endpoints"}], "rules": [scenarios.allow("*")]}
    entry = scenarios.server(recorder.Seen(), "endpoints")
    entry["spec"]["endpoint"] = {"service": {"name": "endpoints", "port": home.cluster.port}}
    home.cluster.apply(
        entry,
        scenarios.policy(scenarios.allow("*"), name="endpoints", target="endpoints"),
        scenarios.obj("MCPToolPolicy", "endpoints", consent, AGENTS),
    )
    agent.until("crm/endpoints", "echo", "UpstreamAddressRefused")
    page = home.operators[0].desk("/metrics")[1]
    assert 'outrider_watched_objects{collection="api-servers"} 1.0' in page
    assert 'outrider_frozen{collection="api-servers"} 0.0' in page
