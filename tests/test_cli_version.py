# SPDX-License-Identifier: Apache-2.0
"""`outrider version`."""

from __future__ import annotations

import json
from importlib import metadata

from click import testing

from outrider import names, snapshot
from outrider_cli import version


def test_the_version_is_the_installed_distributions() -> None:
    ran = testing.CliRunner().invoke(version.command, ["-o", "json"])
    found = json.loads(ran.stdout)
    assert found["version"] == metadata.version("outrider")
    assert (found["apiVersion"], found["snapshotSchema"]) == (names.API_VERSION, snapshot.SCHEMA)


def test_people_get_one_line_per_fact() -> None:
    ran = testing.CliRunner().invoke(version.command, [])
    assert ran.exit_code == 0
    assert [line.split()[0] for line in ran.stdout.splitlines()] == [
        "version",
        "apiVersion",
        "snapshotSchema",
        "python",
    ]
