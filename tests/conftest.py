# SPDX-License-Identifier: Apache-2.0
"""What every test may rely on: where things are, and that CI never mistakes a skip for a pass."""

from __future__ import annotations

import os
import pathlib

import hypothesis
import pytest

pytest_plugins = ["tests.kube.plugin", "tests.openbao_plugin", "tests.authserver.plugin"]

ROOT = pathlib.Path(__file__).resolve().parent.parent

os.environ.setdefault("OUTRIDER_LEGACY_PYTHON", str(ROOT / ".venv-legacy" / "bin" / "python"))
os.environ.setdefault("OUTRIDER_BRIDGE", str(ROOT / ".venv-legacy" / "bin" / "mcp-proxy"))
os.environ.setdefault("OUTRIDER_FASTMCP_PYTHON", str(ROOT / ".venv-fastmcp" / "bin" / "python"))
os.environ.setdefault("OUTRIDER_LANGCHAIN_PYTHON", str(ROOT / ".venv-langchain" / "bin" / "python"))
os.environ.setdefault("OUTRIDER_NODE_MODULES", str(ROOT / "tests" / "node" / "node_modules"))

hypothesis.settings.register_profile("outrider", deadline=None, print_blob=True)
hypothesis.settings.load_profile("outrider")


LONGEST = (
    "test_chart_rights.py", "test_scenario_outages.py", "test_cli_dev.py", "test_reflector_gaps.py", "test_controller_real.py",
    "test_chart_releases.py", "test_matrix.py", "test_discovery.py", "test_scenario_leaders.py", "test_clients.py",
    "test_command_line.py", "test_scenario_life.py", "test_vault_whole_path.py", "test_vault_tenancy.py", "test_credentials_faults.py",
    "test_credentials_leases.py", "test_credentials_idp.py",
)  # fmt: skip
"""Files of minutes: begun first, or one of them keeps one worker busy when the others have nothing left to do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Stable: the order within files stays, and that of the other files."""
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(LONGEST)))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """With CI=true a test that could not run has failed."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, which counts as a failure: {report.longrepr}"
