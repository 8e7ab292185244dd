# SPDX-License-Identifier: Apache-2.0
"""The kinds on the tests' API server: in force, and a plain POST of an object."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import time
from typing import Any

from tests.corpus import objects
from tests.kube import apiserver

PLURALS = {"MCPServer": "mcpservers", "MCPToolPolicy": "mcptoolpolicies", "MCPBudget": "mcpbudgets"}
_PROBES = "probing-policies"


def in_force(cluster: apiserver.Cluster) -> None:
    """Everything of crds/, and the API server's own watch has seen the field policies."""
    cluster.install_crds()
    cluster.namespace(_PROBES)
    for kind in PLURALS:
        probe = objects.merged(objects.base(kind, _PROBES, "probe"), {"spec": {"nonsense": 1}})
        until, said = time.monotonic() + 60, ""
        while "unknown field" not in said:
            assert time.monotonic() < until, f"the field policy of {kind} never came into force: {said}"
            said = cluster.kubectl(
                "create", "--dry-run=server", "-f", "-", input=json.dumps(probe), check=False
            ).stderr


class Posting:
    """One connection of an administrator's, on which nobody asks the API server to be strict."""

    def __init__(self, cluster: apiserver.Cluster) -> None:
        user = json.loads(cluster.kubeconfig.read_text())["users"][0]["user"]
        files = [cluster.folder / "post.crt", cluster.folder / "post.key"]
        for file, field in zip(files, ("client-certificate-data", "client-key-data"), strict=True):
            file.write_bytes(base64.b64decode(user[field]))
        context = ssl.create_default_context(cafile=str(cluster.ca_file))
        context.load_cert_chain(*files)
        self._connection = http.client.HTTPSConnection("127.0.0.1", cluster.port, context=context, timeout=60)

    def send(self, made: dict[str, Any], query: str = "") -> tuple[int, str]:
        """The status and what the API server says of it; nothing when it is content."""
        space, plural = made["metadata"]["namespace"], PLURALS[made["kind"]]
        path = f"/apis/outrider.dev/v1alpha1/namespaces/{space}/{plural}?{query}"
        self._connection.request("POST", path, json.dumps(made), {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        told = json.loads(answer.read())
        return answer.status, told.get("message", "")

    def close(self) -> None:
        self._connection.close()
