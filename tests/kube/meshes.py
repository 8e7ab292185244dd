# SPDX-License-Identifier: Apache-2.0
"""A service mesh's webhook, as far as injection meets one: it puts a native sidecar into every pod, after ours was put there."""

from __future__ import annotations

import base64
import http.server
import json
import pathlib
import ssl
import threading
from typing import Any, Self

from tests.kube import admitted, certs

_SIDECAR = {"name": "istio-proxy", "image": "mesh:1", "restartPolicy": "Always"}


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["content-length"])))
        request = review["request"]
        there = request["object"]["spec"].get("initContainers", [])
        change: dict[str, Any] = {"op": "add", "path": "/spec/initContainers/0", "value": _SIDECAR}
        if not there:
            change = {"op": "add", "path": "/spec/initContainers", "value": [_SIDECAR]}
        answer: dict[str, Any] = {"uid": request["uid"], "allowed": True}
        if all(each["name"] != "istio-proxy" for each in there):
            patch = base64.b64encode(json.dumps([change]).encode()).decode()
            answer.update(patch=patch, patchType="JSONPatch")
        body = json.dumps(
            {"apiVersion": review["apiVersion"], "kind": review["kind"], "response": answer}
        ).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: Any) -> None:
        pass


class Mesh:
    """Its webhook is called while the `with` lasts, in the namespaces of one test, after ours by its name."""

    def __init__(self, beside: admitted.Admitted, folder: pathlib.Path) -> None:
        self._beside = beside
        self._name = f"zz-{beside.name}-mesh"
        keys = certs.Authority.make(folder / "mesh", ["127.0.0.1"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(keys.server_cert, keys.server_key)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._ca = base64.b64encode(keys.ca_file.read_bytes()).decode()

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        url = f"https://127.0.0.1:{self._server.server_address[1]}/"
        selector = {
            "matchExpressions": [{"key": "outrider-test", "operator": "In", "values": [self._beside.name]}]
        }
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
        webhook = {
            "name": "mesh.example.com", "clientConfig": {"url": url, "caBundle": self._ca}, "rules": [rule],
            "namespaceSelector": selector, "sideEffects": "None", "admissionReviewVersions": ["v1"],
        }  # fmt: skip
        about = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration"}
        self._beside.cluster.apply({**about, "metadata": {"name": self._name}, "webhooks": [webhook]})
        return self

    def __exit__(self, *_error: object) -> None:
        self._beside.cluster.kubectl("delete", "mutatingwebhookconfiguration", self._name)
        self._server.shutdown()
        self._server.server_close()
