# SPDX-License-Identifier: Apache-2.0
"""The command line asked about a cluster, and the objects it is asked about, without any operator."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import yaml
from click import testing
from tests.kube import apiserver, kubelet

from outrider_cli import main

API = "outrider.dev/v1alpha1"
MARK = "sha256:" + "0" * 64


@contextlib.contextmanager
def kubectl_on_path(folder: pathlib.Path) -> Iterator[kubelet.Node]:
    """The kubectl of commands under test, for as long as the block lasts."""
    node, before = kubelet.Node(folder), os.environ["PATH"]
    os.environ["PATH"] = f"{node.folder}{os.pathsep}{before}"
    try:
        yield node
    finally:
        os.environ["PATH"] = before


def outrider(*line: object, given: str | None = None, name: str = "outrider") -> testing.Result:
    """One command, in this process; `name` is what it was called by."""
    return testing.CliRunner().invoke(main.cli, [str(word) for word in line], input=given, prog_name=name)


def obj(kind: str, namespace: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def server(namespace: str, name: str = "salesforce", **more: Any) -> dict[str, Any]:
    spec = {"description": "x", "endpoint": {"url": "https://crm.example/mcp"}, **more}
    return obj("MCPServer", namespace, name, spec)


def policy(
    namespace: str, *rules: dict[str, Any], name: str = "access", server: str = "salesforce"
) -> dict[str, Any]:
    return obj("MCPToolPolicy", namespace, name, {"targetRefs": [{"name": server}], "rules": list(rules)})


def allow(*tools: str, **more: Any) -> dict[str, Any]:
    return {"name": "allow", "effect": "Allow", "from": [{"anyone": True}], "tools": list(tools), **more}


def installation(cluster: apiserver.Cluster, namespace: str, **settings: Any) -> None:
    """What an installation in `namespace` consists of as far as reading commands go: kinds and settings."""
    cluster.install_crds()
    cluster.namespace(namespace)
    whole = {"apiVersion": API, "kind": "Settings", "platformNamespace": namespace, **settings}
    metadata = {"name": "outrider-settings", "namespace": namespace}
    data = {"settings.yaml": yaml.safe_dump(whole)}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def listed(
    cluster: apiserver.Cluster, namespace: str, name: str, *tools: str, count: int | None = None
) -> None:
    """Writes a status as the operator would."""
    status = {
        "toolCount": len(tools) if count is None else count,
        "tools": [{"name": tool, "fingerprint": MARK} for tool in tools],
    }
    cluster.kubectl(
        "patch", "mcpservers.outrider.dev", name, "-n", namespace, "--subresource=status", "--type=merge", "-p",
        json.dumps({"status": status}),
    )  # fmt: skip
