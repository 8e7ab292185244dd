# SPDX-License-Identifier: Apache-2.0
"""The chart's prober as a process: its ServiceAccount, a pod of it, and the arguments that the chart's Deployment has."""

from __future__ import annotations

import base64
import json
import pathlib
import sys
from typing import Any

from tests import laptop
from tests.kube import installation, named

PROBER = f"{installation.NAME}-prober"
_PROGRAM = pathlib.Path(sys.executable).parent / "outrider-sidecar"


class Prober:
    """One pod of the prober's Deployment. What kubelet would do is done here: volumes are folders, the pod runs."""

    def __init__(self, home: installation.Installation, index: int = 0) -> None:
        self._home = home
        self.name = f"{PROBER}-{index}"
        self.folder = home.folder / "probers" / self.name
        self.process: laptop.Process | None = None

    def start(self) -> Prober:
        cluster = self._home.cluster
        template = cluster.get("deployment", PROBER, installation.NAMESPACE)["spec"]["template"]
        metadata = {
            "name": self.name, "namespace": installation.NAMESPACE, "labels": template["metadata"]["labels"],
        }  # fmt: skip
        cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        cluster.kubectl(
            "patch", "pod", self.name, "-n", installation.NAMESPACE, "--subresource=status", "--type=merge", "-p",
            json.dumps({"status": status}),
        )  # fmt: skip
        pod = cluster.get("pod", self.name, installation.NAMESPACE)
        container = template["spec"]["containers"][0]
        for name in ("config", "vault"):
            self._file(f"/var/run/outrider/tokens/{name}").write_text(
                cluster.token(installation.NAMESPACE, PROBER, f"{name}.outrider.dev", pod=pod)
            )
        secret = cluster.get("secret", f"{installation.NAME}-certs", installation.NAMESPACE)
        self._file("/var/run/outrider/ca/ca.pem").write_text(_plain(secret["data"]["ca.crt"]))
        address = self._file("/address.json")
        address.unlink(missing_ok=True)
        line = [
            str(_PROGRAM), *(self._word(word) for word in container["args"]), "--admin-port", "0", "--address-file", str(address),
        ]  # fmt: skip
        seen = named.with_hosts(line, self._home.hosts)
        self.process = self._home.started(laptop.Process(self.name, seen, logs=self._home.logs))
        self.process.until(address.exists, "the prober listens", installation.PATIENCE_SECONDS)
        return self

    def stop(self) -> int:
        assert self.process is not None
        return self.process.stop()

    def _file(self, path: str) -> pathlib.Path:
        made = self.folder / path.lstrip("/")
        made.parent.mkdir(parents=True, exist_ok=True)
        return made

    def _word(self, word: str) -> str:
        flag, equals, value = word.partition("=")
        if value.startswith("/var/"):
            return f"{flag}{equals}{self._file(value)}"
        return word.replace("$(POD_IP)", "127.0.0.1")


def _plain(data: str) -> str:
    return base64.b64decode(data).decode()


def condition(
    home: installation.Installation, name: str, kind: str, namespace: str = "crm"
) -> dict[str, Any]:
    return home.condition("mcpservers.outrider.dev", name, kind, namespace)
