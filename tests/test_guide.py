# SPDX-License-Identifier: Apache-2.0
"""The guide is followed, command by command and object by object, on a real API server; what needs a node is named here."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import helm_python
import pytest
import yaml
from tests.kube import apiserver, helm

ROOT = pathlib.Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs" / "guides" / "kubernetes.md"
BESIDE_US = pathlib.Path(sys.executable).parent
NEEDS_A_NODE = ("kind ", "docker ", "helm test ", "outrider proxy-status ")
"""`make e2e` does these, but for the first two, whose parts test_images reads."""


def blocks() -> Iterator[tuple[str, str]]:
    """(language, text) of every fenced block, in order."""
    yield from re.findall(r"^```(\w+)\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_guide_can_be_followed_from_one_end_to_the_other(
    own_cluster: apiserver.Cluster, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "charts").symlink_to(ROOT / "charts")
    followed = 0
    for language, text in blocks():
        if language == "yaml":
            named = re.match(r"# ([\w.-]+\.yaml)\n", text)
            assert named, "a block of objects begins with the file it is for"
            (tmp_path / named[1]).write_text(text)
            continue
        for line in text.splitlines():
            if not line.startswith(NEEDS_A_NODE):
                follow(own_cluster, tmp_path, line)
                followed += 1
    assert followed >= 15


def follow(cluster: apiserver.Cluster, folder: pathlib.Path, line: str) -> None:
    program, *words = shlex.split(line, comments=True)
    if program == "helm":
        helmed(helm.Helm(cluster.kubeconfig), words)
        return
    env = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig), "PATH": f"{BESIDE_US}:{os.environ['PATH']}"}
    ran = subprocess.run(
        [BESIDE_US / program, *words], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    # A look at a cluster before an installation may find something in it, which is exit code 1.
    fine = (0, 1) if words[:2] == ["doctor", "--pre"] else (0,)
    assert ran.returncode in fine, f"{line}\n{ran.stdout}\n{ran.stderr}"


def helmed(made: helm.Helm, words: list[str]) -> None:
    """The same by Helm's library. `--wait` is left out: nobody runs Deployments here."""
    verb, *rest = words
    names, options = [], {}
    values: helm.Values = {}
    while rest:
        word = rest.pop(0)
        if word == "--set":
            for path, value in flat(helm_python.parse_set_string(rest.pop(0))):
                place = values
                for name in path[:-1]:
                    place = place.setdefault(name, {})
                place[path[-1]] = value
        elif word in ("--namespace", "-n"):
            options["namespace"] = rest.pop(0)
        elif word.startswith("--"):
            assert word in ("--wait", "--create-namespace", "--reuse-values"), word
        else:
            names.append(word)
    reuse = {"reuse_values": True} if verb == "upgrade" else {}
    if verb in ("install", "upgrade"):
        getattr(made, verb)(names[0], names[1], options["namespace"], values, **reuse)
    elif verb == "rollback":
        made.rollback(names[0], options["namespace"], int(names[1]))
    else:
        assert verb == "uninstall", words
        made.uninstall(names[0], options["namespace"])


def flat(values: helm.Values, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, (*path, name))
        else:
            yield (*path, name), value


def test_every_file_and_value_that_the_guide_names_exists() -> None:
    text = GUIDE.read_text()
    for path in re.findall(r"`((?:charts|tests|docs|crds)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), path
    values = {"outrider": yaml.safe_load((helm.OUTRIDER / "values.yaml").read_text())}
    for path in re.findall(r"`((?:webhook|crds|rbac|images|operator|prober|argocd)\.[\w.]+)", text):
        place = values["outrider"]
        for name in path.rstrip(".").split("."):
            assert name in place, path
            place = place[name]


@pytest.mark.parametrize("pattern", ["containerPort: 30080", "role: worker"])
def test_the_kind_cluster_has_what_the_demo_needs(pattern: str) -> None:
    text = (ROOT / "kind-config.yaml").read_text()
    assert pattern in text
    made = yaml.safe_load(text)
    assert [node["role"] for node in made["nodes"]].count("worker") == 2
    port = yaml.safe_load((helm.DEMO / "values.yaml").read_text())["nodePort"]
    assert made["nodes"][0]["extraPortMappings"][0]["containerPort"] == port
    assert json.dumps(made)
