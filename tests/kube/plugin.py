# SPDX-License-Identifier: Apache-2.0
"""Fixtures: a real API server per test process, and one for each test that breaks it."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest
from tests.kube import apiserver


@pytest.fixture(scope="session")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apiserver.Cluster]:
    yield from _running(tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="module")
def cluster(_shared: apiserver.Cluster) -> Iterator[apiserver.Cluster]:
    """Shared by modules: a test uses namespaces of its own and never stops it. A module finds no objects of another one."""
    yield _shared
    _shared.sweep()


@pytest.fixture(scope="module")
def module_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apiserver.Cluster]:
    """For the tests of one module that install a release: there is only one of its kind in a cluster."""
    yield from _running(tmp_path_factory.mktemp("cluster"))


@pytest.fixture
def own_cluster(tmp_path: pathlib.Path) -> Iterator[apiserver.Cluster]:
    """For one test, which may stop, restart and restore it."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    yield from _running(folder)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Whatever needs an API server is not for the inner loop: `make test-fast` builds none."""
    if {"cluster", "module_cluster", "own_cluster"} & set(getattr(item, "fixturenames", ())):
        item.add_marker(pytest.mark.slow)


def _running(folder: pathlib.Path) -> Iterator[apiserver.Cluster]:
    made = apiserver.Cluster(folder)
    try:
        yield made.start()
    finally:
        made.close()
        print(*(each.tail() for each in (made.etcd, made.api) if each is not None), sep="\n")
