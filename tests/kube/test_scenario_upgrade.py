# SPDX-License-Identifier: Apache-2.0
"""Upgrade, rollback and uninstall with proxies connected and calls running: no caller notices any of it."""

from __future__ import annotations

import pathlib

import pytest
import yaml
from tests import laptop
from tests.kube import address, helm, installation, scenarios
from tests.kube.scenarios import AGENTS, SERVER
from tests.scenarios import recorder

NAME, NAMESPACE = installation.NAME, installation.NAMESPACE
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def went_back(release: helm.Helm, before: pathlib.Path) -> None:
    """Rolled back, as the guide says: where the older chart's kinds are older too, the cluster keeps its own."""
    name = "files/crds/outrider.dev_mcpservers.yaml"
    ours, theirs = (
        yaml.safe_load((chart / name).read_text())["metadata"]["labels"]["outrider.dev/crd-revision"]
        for chart in (helm.OUTRIDER, before)
    )
    if ours == theirs:
        release.rollback(NAME, NAMESPACE)
    else:
        release.upgrade(NAME, before, NAMESPACE, {"crds": {"enabled": False}})


def test_nobody_who_calls_notices_an_upgrade_a_rollback_or_an_uninstall(own_cluster, tmp_path):
    home = installation.Installation(own_cluster, tmp_path / "installation")
    release = helm.Helm(own_cluster.kubeconfig)
    with recorder.running(address.private()) as seen:
        try:
            before = helm.before(tmp_path / "before")
            home.install(chart=before)
            scenarios.prepared(home, seen)
            own_cluster.apply(scenarios.policy(scenarios.allow("echo")))
            home.operator()
            home.operator()
            agent = home.beside(AGENTS, "quote-bot")
            agent.until(SERVER, "echo", "allowed")
            with scenarios.Load(agent.agent) as load:
                release.upgrade(NAME, helm.OUTRIDER, NAMESPACE, {"operator": {"logLevel": "debug"}})
                rolled(home)
                changes(home, agent, "slow")
                went_back(release, before)
                rolled(home)
                changes(home, agent, "paid")
                home.until_condition("orpol", "access", "crm", Programmed="True", Ready="True")
                release.uninstall(NAME, NAMESPACE)
                for each in home.operators:
                    each.stop()
                laptop.until(lambda: len(load.verdicts) > 100, "calls went on", 30)
            assert load.said() == {"allowed"}
            assert agent.verdict(SERVER, "paid") == "allowed", "on its last good configuration"
            assert left(home) == {"customresourcedefinition"}
        finally:
            home.close()
            print(*{each.log: each.tail() for each in home.processes}.values(), sep="\n")


def rolled(home):
    """As a Deployment rolls: one replica after another, each ready before the next goes."""
    for each in home.operators:
        assert each.stop() == 0
        each.start().until_ready()


def changes(home, agent, tool):
    home.cluster.apply(scenarios.policy(scenarios.allow("echo", tool)))
    agent.until(SERVER, tool, "allowed")


def left(home):
    """The kinds of whatever of ours is left in the cluster's scope."""
    kinds = "crd,clusterrole,clusterrolebinding,mutatingwebhookconfiguration,validatingwebhookconfiguration"
    kinds += ",validatingadmissionpolicy,validatingadmissionpolicybinding"
    found = home.cluster.kubectl("get", kinds, "-o", "name").stdout.split()
    return {each.partition(".")[0].partition("/")[0] for each in found if "outrider" in each}
