# SPDX-License-Identifier: Apache-2.0
"""R27: what the chart lets the operator do is what it needs and no more. Every verb is used, and with any one taken away it says which.

The API server's own audit log and its own refusals are the witnesses.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from tests import laptop
from tests.kube import apiserver, rights

PATIENCE_SECONDS = 90.0
NOT_SEEN_SECONDS = 5.0
"""So long what must not be seen is waited for."""

KINDS = ("mcpservers", "mcptoolpolicies", "mcpbudgets")
EVERY = rights.rights()
LOOKED_UP = [each for each in EVERY if each.verb == "get" and each.resource in KINDS]
"""Used only when our own watch is behind; nobody complains without them, so they have a test of their own."""


@pytest.fixture(scope="module")
def place(module_cluster: apiserver.Cluster) -> apiserver.Cluster:
    return module_cluster


@pytest.fixture(scope="module")
def installation(place: apiserver.Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[rights.Home]:
    made = rights.Home(place, tmp_path_factory.mktemp("operators"))
    yield made
    made.close()


@pytest.fixture
def home(installation: rights.Home) -> Iterator[rights.Home]:
    """No operator, no Lease and no certificates yet, and every watch passes."""
    installation.wire.hold()
    installation.forget()
    yield installation
    installation.stop()


def ready(home: rights.Home) -> bool:
    assert home.operator is not None
    return home.operator.ready()[0] == 200


def status_of(home: rights.Home, kind: str, name: str) -> bool:
    return bool(
        home.cluster.get(f"{kind}.outrider.dev", name, rights.AGENTS).get("status", {}).get("conditions")
    )


@pytest.mark.slow
def test_with_all_of_them_every_right_is_used_and_nothing_is_missing(home: rights.Home) -> None:
    home.allow(None)
    home.start()
    laptop.until(lambda: ready(home), f"it is ready: {home.said()}", PATIENCE_SECONDS)
    told = home.drive()
    home.wire.hold(*KINDS)
    home.cluster.apply(*home.objects("late"))
    for kind in KINDS:
        laptop.until(
            lambda kind=kind: status_of(home, kind, "crm-late"), f"{kind} has a status", PATIENCE_SECONDS
        )
    wanted = {(each.verb, each.group, each.resource) for each in EVERY}
    laptop.until(
        lambda: wanted <= rights.used(home.cluster),
        f"every right is used; not: {sorted(wanted - rights.used(home.cluster))}", PATIENCE_SECONDS,
    )  # fmt: skip
    assert rights.used(home.cluster) <= wanted | {
        ("get", "", ""),
        ("create", "authorization.k8s.io", "selfsubjectaccessreviews"),
    }
    assert "hello" in told
    assert "cannot " not in home.said()


@pytest.mark.slow
@pytest.mark.parametrize("taken", [each for each in EVERY if each not in LOOKED_UP], ids=str)
def test_without_one_of_them_the_operator_says_which(home: rights.Home, taken: rights.Right) -> None:
    home.allow(taken)
    home.start()
    deadline, told = time.monotonic() + PATIENCE_SECONDS, ""
    while taken.refusal not in home.said() + told:
        assert time.monotonic() < deadline, (
            f"nothing is missing without the right to {taken}:\n{home.said()}\n{told}"
        )
        if ready(home):
            told = home.drive()
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize("taken", LOOKED_UP, ids=str)
def test_without_looking_up_an_object_waits_for_a_watch_that_is_late(
    home: rights.Home, taken: rights.Right
) -> None:
    home.allow(taken)
    home.start()
    laptop.until(lambda: ready(home), f"it is ready: {home.said()}", PATIENCE_SECONDS)
    home.wire.hold(taken.resource)
    name = f"without-{taken.resource}"
    home.cluster.apply(*home.objects(name))
    others = [each for each in KINDS if each != taken.resource]
    for kind in others:
        laptop.until(
            lambda kind=kind: status_of(home, kind, f"crm-{name}"), f"{kind} has a status", PATIENCE_SECONDS
        )
    time.sleep(NOT_SEEN_SECONDS)
    assert not status_of(home, taken.resource, f"crm-{name}")
    home.wire.hold()
    laptop.until(
        lambda: status_of(home, taken.resource, f"crm-{name}"), "the watch brings it", PATIENCE_SECONDS
    )
