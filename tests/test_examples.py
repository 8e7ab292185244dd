# SPDX-License-Identifier: Apache-2.0
"""The examples for a cluster: every kind of credential, and nothing in them that does not do what it seems to do."""

from __future__ import annotations

import pathlib

import pytest
import yaml

from outrider import compile as compiler
from outrider import manifests, resources, rules, snapshot, testing
from outrider.resources import credential

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "examples" / "cluster"
FILES = {path.name: path.read_bytes() for path in FOLDER.glob("*.yaml")}


@pytest.fixture(scope="module")
def world() -> resources.World:
    return manifests.load(FILES)


def test_nothing_in_them_is_without_effect(world) -> None:
    assert [str(found) for found in compiler.check(world)] == []


def test_a_cluster_takes_every_object_and_the_settings() -> None:
    for name in ("servers.yaml", "policies.yaml"):
        for each in yaml.safe_load_all(FILES[name]):
            assert not isinstance(manifests.kubernetes_object(each), tuple)
    assert isinstance(manifests.settings(FILES["settings.yaml"]), resources.Settings)


def test_every_kind_of_credential_that_a_cluster_knows_is_shown(world) -> None:
    shown = {entry.kind for placed in world.servers for entry in placed.resource.spec.credentials or ()}
    assert shown == set(credential.KINDS) - {"none"}


def test_what_the_comments_say_is_what_is_compiled(world) -> None:
    agents = compiler.snapshot(world, "sales-agents", "bot")
    [crm] = [view for view in agents.servers if view.id.namespace == "crm"]
    sources = {entry.name: entry.source for entry in crm.credentials}
    read = snapshot.VaultSecret(role="outrider-crm", path="outrider/servers/crm/salesforce/read", key="token")
    assert (list(sources), sources["read-token"]) == (["as-the-user", "read-token"], read)
    said = {rule.ref.rule: rule.callers for rule in crm.rules if rule.ref.namespace == "crm"}
    seller, leader = testing.a_user("sales"), testing.a_user("leaders")
    assert rules.admits(said["sellers-write"], None) is None
    assert [rules.admits(said["sellers-write"], user) for user in (seller, leader)] == [True, False]
    assert [rules.admits(said["not-by-leaders"], user) for user in (None, seller, leader)] == [
        False,
        False,
        True,
    ]
    [payroll] = [view for view in compiler.snapshot(world, "hr-agents", "bot").servers if view.require_user]
    assert isinstance(payroll.credentials[0].source, snapshot.ClientCertificate)
