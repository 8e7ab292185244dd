# SPDX-License-Identifier: Apache-2.0
"""Fixtures: a real OpenBao per test process, and one for each test that breaks it."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest
from tests import openbao, postgres


@pytest.fixture(scope="session")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openbao.Vault]:
    """Shared: a test uses paths, roles, policies and mounts of its own, and never stops, seals or slows it."""
    yield from _running(tmp_path_factory.mktemp("vault"))


@pytest.fixture
def own_vault(tmp_path: pathlib.Path) -> Iterator[openbao.Vault]:
    """For one test, which may seal, kill, restart and slow it."""
    yield from _running(tmp_path / "vault")


@pytest.fixture
def tls_vault(tmp_path: pathlib.Path) -> Iterator[openbao.Vault]:
    """As `own_vault`, over TLS with an authority of its own (`ca_pem`)."""
    yield from _running(tmp_path / "tls-vault", tls=True)


@pytest.fixture(scope="session")
def database() -> Iterator[postgres.Postgres]:
    """Shared: a test mounts a database engine of its own in front of it."""
    yield from postgres.running()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Whatever needs a Vault is not for the inner loop."""
    if {"vault", "own_vault", "tls_vault"} & set(getattr(item, "fixturenames", ())):
        item.add_marker(pytest.mark.slow)


def _running(folder: pathlib.Path, *, tls: bool = False) -> Iterator[openbao.Vault]:
    made = openbao.Vault(folder, tls=tls)
    try:
        yield made.start()
    finally:
        made.close()
        print(made.process.tail() if made.process is not None else "")
