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
        """A POST: the status and what the API server says of it; nothing when it is content."""
        return self.ask("POST", made, query)

    def ask(
        self, method: str, made: dict[str, Any], query: str = "", *, kind: str = "json", body: Any = None
    ) -> tuple[int, str]:
        """Any request about the object `made`; `body` where it is not the object itself."""
        answer, told = self._asked(method, made, query, kind, made if body is None else body)
        return answer, told.get("message", "") if answer >= 400 else ""

    def stored(self, made: dict[str, Any]) -> dict[str, Any]:
        """The object as the API server has it."""
        return self._asked("GET", made, "", "json", None)[1]

    def _asked(
        self, method: str, made: dict[str, Any], query: str, kind: str, body: Any
    ) -> tuple[int, dict[str, Any]]:
        name = "" if method == "POST" else f"/{made['metadata']['name']}"
        path = (
            f"/apis/outrider.dev/v1alpha1/namespaces/{made['metadata']['namespace']}/{PLURALS[made['kind']]}"
        )
        head = {"Content-Type": f"application/{kind}"}
        content = None if body is None else json.dumps(body)
        self._connection.request(method, f"{path}{name}?{query}", content, head)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())

    def close(self) -> None:
        self._connection.close()
