# SPDX-License-Identifier: Apache-2.0
"""Fixtures: a real authorization server on loopback, and one with TLS."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest
from tests.authserver import server


@pytest.fixture
def authserver() -> Iterator[server.AuthServer]:
    """For one test, which may stop, restart and restore it."""
    made = server.AuthServer().start()
    yield made
    made.close()


@pytest.fixture
def authserver_tls(tmp_path: pathlib.Path) -> Iterator[server.AuthServer]:
    """The same behind TLS; trust `ca_pem`."""
    made = server.AuthServer(tls=tmp_path / "authserver").start()
    yield made
    made.close()
