# SPDX-License-Identifier: Apache-2.0
"""The node of `make e2e`. Its tests are collected only inside the namespaces that run.sh makes."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

import pytest
from tests.e2e import images, node

INSIDE = "OUTRIDER_E2E_FOLDER" in os.environ
collect_ignore_glob = [] if INSIDE else ["test_*.py"]


@pytest.fixture(scope="session")
def running() -> Iterator[node.Node]:
    """One node for every test; a test uses namespaces of its own."""
    folder = pathlib.Path(os.environ["OUTRIDER_E2E_FOLDER"])
    made = node.Node(folder, os.environ["OUTRIDER_E2E_CGROUP"])
    try:
        made.start()
        made.load(images.listed(pathlib.Path(os.environ["OUTRIDER_E2E_IMAGES"])))
        yield made
    finally:
        print(made.tails())
        made.close()
