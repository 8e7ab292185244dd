# SPDX-License-Identifier: Apache-2.0
"""The official suite through the proxy finds what it finds at the server itself: every check, in the same run.

No check is left out and none is expected to fail but those of tasks, an extension that neither side offers.
"""

from __future__ import annotations

import dataclasses
import pathlib

import pytest
from tests import laptop
from tests.conformance import fixture, proxied, suite

pytestmark = pytest.mark.slow
FIXTURE = "conformance/fixture"


@dataclasses.dataclass(frozen=True, slots=True)
class World:
    direct: str
    laptop: laptop.Laptop
    folder: pathlib.Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory):
    if missing := suite.missing():
        pytest.fail(missing)
    folder = tmp_path_factory.mktemp("conformance")
    with fixture.running(folder / "logs") as direct, proxied.running(folder, {FIXTURE: direct}) as made:
        yield World(direct, made, folder)


@pytest.mark.parametrize("revision", suite.REVISIONS)
def test_the_suite_finds_through_the_proxy_what_it_finds_at_the_server(world, revision) -> None:
    at_the_server = suite.run(world.direct, revision, world.folder / f"direct-{revision}")
    assert at_the_server.total == suite.REVISIONS[revision], at_the_server.printed[-3000:]
    failing = {scenario for scenario, _ in at_the_server.failures()}
    assert all(scenario.startswith(suite.TASKS) for scenario in failing), failing

    url = proxied.url(world.laptop, FIXTURE)
    token = world.laptop.agent.token
    through = suite.run(url, revision, world.folder / f"through-{revision}", token=token)
    assert "\n".join(suite.differences(at_the_server, through)) == ""
    assert through.total == suite.REVISIONS[revision]


def test_what_the_suite_did_through_the_proxy_is_in_the_journal(world) -> None:
    """That it was the proxy which answered: everything it was asked stands in an unbroken chain."""
    checked = world.laptop.verify()
    assert checked.returncode == 0, checked.stdout + checked.stderr
