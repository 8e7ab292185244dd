# SPDX-License-Identifier: Apache-2.0
"""Helm 4 without the helm program: its own library, as PyPI's helm-python-sdk carries it.

Used by every test that installs the charts. Helm's errors come out as they are: tests read their words.
"""

from __future__ import annotations

import io
import os
import pathlib
import subprocess
import tarfile
from typing import Any

import helm_python
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUTRIDER = ROOT / "charts" / "outrider"
DEMO = ROOT / "charts" / "outrider-demo"
SECONDS = 120
KUBE_VERSION = "v1.36.4"
Values = dict[str, Any]


def documents(manifest: str) -> list[dict[str, Any]]:
    """The objects in rendered YAML."""
    return [each for each in yaml.safe_load_all(manifest) if each]


def objects(rendered: dict[str, str]) -> list[dict[str, Any]]:
    """Every object of a rendered chart, notes and empty files left out."""
    return [each for path, text in rendered.items() if path.endswith(".yaml") for each in documents(text)]


def template(
    chart: os.PathLike[str] | str = OUTRIDER, values: Values | None = None, *, name: str = "outrider",
    namespace: str = "outrider-system", upgrade: bool = False,
) -> dict[str, str]:  # fmt: skip
    """Path of a template -> what it makes, offline as `helm template` does: lookups find nothing."""
    with helm_python.Chart.load(_path(chart)) as loaded:
        loaded.validate_schema(values or {})
        return loaded.render(
            values or {}, name=name, namespace=namespace, is_install=not upgrade, is_upgrade=upgrade
        )


def lint(chart: os.PathLike[str] | str = OUTRIDER, values: Values | None = None) -> list[str]:
    """What `helm lint --strict` complains about."""
    report = helm_python.lint(_path(chart), values or {}, strict=True, kube_version=KUBE_VERSION)
    worse_than_advice = [each["error"] for each in report["messages"] if each["severity"] >= 2]
    return [*worse_than_advice, *(report["errors"] or ())]


def _path(chart: os.PathLike[str] | str) -> pathlib.Path:
    return ROOT / chart


class Helm:
    """Releases of one cluster, as whom the kubeconfig says. `chart` is a path, from the repository's root."""

    def __init__(self, kubeconfig: pathlib.Path) -> None:
        self._kubeconfig = kubeconfig

    def _config(self, namespace: str) -> helm_python.Config:
        return helm_python.Config(
            kubeconfig_path=self._kubeconfig, namespace=namespace, qps=200, burst_limit=400
        )

    def install(
        self, name: str, chart: os.PathLike[str] | str, namespace: str, values: Values | None = None,
        **options: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """The release. Makes the namespace. `wait="watcher"` waits until everything is ready."""
        given = {"timeout": SECONDS, "create_namespace": True, **options}
        with self._config(namespace) as config:
            return config.install(_path(chart), name, values or {}, namespace=namespace, **given)

    def upgrade(
        self, name: str, chart: os.PathLike[str] | str, namespace: str, values: Values | None = None,
        **options: Any,
    ) -> dict[str, Any]:  # fmt: skip
        with self._config(namespace) as config:
            return config.upgrade(
                _path(chart), name, values or {}, namespace=namespace, **{"timeout": SECONDS, **options}
            )

    def rollback(self, name: str, namespace: str, revision: int | None = None, **options: Any) -> None:
        with self._config(namespace) as config:
            config.rollback(name, version=revision, **{"timeout": SECONDS, **options})

    def uninstall(self, name: str, namespace: str, **options: Any) -> dict[str, Any]:
        with self._config(namespace) as config:
            return config.uninstall(name, **{"timeout": SECONDS, **options})

    def test(self, name: str, namespace: str, **options: Any) -> dict[str, Any]:
        """`helm test`: raises when a test pod fails; `logs=True` brings what it printed."""
        with self._config(namespace) as config:
            return config.test(name, **{"timeout": SECONDS, **options})

    def status(self, name: str, namespace: str) -> dict[str, Any]:
        with self._config(namespace) as config:
            return config.status(name)

    def history(self, name: str, namespace: str) -> list[dict[str, Any]]:
        with self._config(namespace) as config:
            return config.history(name)

    def render(
        self, chart: os.PathLike[str] | str, values: Values | None = None, *, name: str = "outrider",
        namespace: str = "outrider-system",
    ) -> dict[str, str]:  # fmt: skip
        """As `template`, with lookups answered by the cluster."""
        with self._config(namespace) as config, helm_python.Chart.load(_path(chart)) as loaded:
            return config.render(loaded, values or {}, name=name, namespace=namespace)


def before(folder: pathlib.Path) -> pathlib.Path:
    """The chart as it was before its last change; in a clone without that, a copy under an older version."""
    clean = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "charts/outrider"], cwd=ROOT, check=False)
    line = ["git", "log", "--format=%H", "-n", "2", "--", "charts/outrider"]
    commits = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    wanted = commits[1:] if clean.returncode == 0 else commits
    if wanted:
        packed = subprocess.run(
            ["git", "archive", wanted[0], "charts/outrider"], cwd=ROOT, capture_output=True, check=True
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as opened:
            opened.extractall(folder, filter="data")
        return folder / "charts" / "outrider"
    for path in OUTRIDER.rglob("*"):
        if path.is_file():
            copy = folder / "outrider" / path.relative_to(OUTRIDER)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    about = folder / "outrider" / "Chart.yaml"
    about.write_text(yaml.safe_dump({**yaml.safe_load(about.read_text()), "version": "0.0.1"}))
    return folder / "outrider"
