# SPDX-License-Identifier: Apache-2.0
"""A whole Kubernetes node from parts, as processes: what kubeadm would start, with everything it keeps in one folder.

Only inside the namespaces that run.sh makes: `Node` sets up routes and Services of the network it finds itself in.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import ssl
import subprocess
import time
from collections.abc import Callable, Iterable
from typing import Any

from tests import laptop
from tests.e2e import images, names, settings
from tests.kube import apiserver

SOCKET = pathlib.Path("/run/outrider-containerd.sock")
PATIENCE_SECONDS = 120.0


class Node(apiserver.Cluster):
    """A cluster of one node. `start` returns when the node is Ready and pods may be made."""

    def __init__(self, folder: pathlib.Path, cgroup: str) -> None:
        super().__init__(folder)
        self.advertised = self.host_ip
        self._cgroup = cgroup
        self.parts: dict[str, laptop.Process] = {}
        self.names: names.Names | None = None
        self.ready_seconds = 0.0

    # Processes ------------------------------------------------------------------------------------------------------

    def exposure(self) -> list[str | os.PathLike[str]]:
        cert, key = self._person("kubelet-client", "apiserver", ["system:masters"])
        return [
            "--bind-address=0.0.0.0", "--enable-admission-plugins=NodeRestriction", "--authorization-mode=Node,RBAC",
            "--kubelet-client-certificate", cert, "--kubelet-client-key", key,
            "--kubelet-preferred-address-types=InternalIP",
        ]  # fmt: skip

    def start(self) -> Node:
        began = time.monotonic()
        self._start_containerd()
        self.start_etcd()
        self.start_api()
        self._start_controllers()
        self._start_kubelet()
        self._start_services()
        self.until(self.is_ready, f"node {settings.NODE} is Ready")
        self.until(
            lambda: self.kubectl("get", "serviceaccount", "default", check=False).returncode == 0,
            "the controller-manager makes ServiceAccounts",
        )
        self.ready_seconds = time.monotonic() - began
        return self

    def _start_containerd(self) -> None:
        (self.folder / "cni").mkdir()
        (self.folder / "cni" / "10-pods.conflist").write_text(settings.cni(self.folder))
        config = self.folder / "containerd.toml"
        config.write_text(settings.containerd(self.folder, SOCKET, images.PAUSE))
        made = self._part("containerd", ["/usr/bin/containerd", "--config", config, "--log-level", "warn"])
        made.until(
            lambda: self.ctr("version", check=False).returncode == 0, "containerd answers", PATIENCE_SECONDS
        )

    def _start_controllers(self) -> None:
        binaries = apiserver.binaries("all")
        ports = [apiserver.free_port(), apiserver.free_port()]
        mine = ["--leader-elect=false", "--bind-address=127.0.0.1"]
        manager = self.kubeconfig_for("system:kube-controller-manager")
        self._part("kube-controller-manager", [
            binaries / "kube-controller-manager", "--kubeconfig", manager, f"--secure-port={ports[0]}", *mine,
            "--cert-dir", self.folder / "manager-pki", "--service-account-private-key-file", self.keys.account_key,
            "--root-ca-file", self.keys.ca_file, "--use-service-account-credentials=true",
            "--controllers=*,-certificatesigningrequest-signing-controller,-node-ipam-controller",
            "--flex-volume-plugin-dir", self.folder / "flex-volumes",
        ])  # fmt: skip
        scheduler = self.kubeconfig_for("system:kube-scheduler")
        self._part("kube-scheduler", [
            binaries / "kube-scheduler", "--kubeconfig", scheduler, f"--secure-port={ports[1]}", *mine,
            "--cert-dir", self.folder / "scheduler-pki",
        ])  # fmt: skip

    def _start_kubelet(self) -> None:
        user = self.kubeconfig_for(f"system:node:{settings.NODE}", ["system:nodes"])
        config = self._written("kubelet.json", settings.kubelet(
            self.folder, address=self.host_ip, ca_file=self.ca_file, socket=SOCKET, cgroup=self._cgroup
        ))  # fmt: skip
        self._part("kubelet", [
            apiserver.binaries("all") / "kubelet", "--kubeconfig", user, "--config", config,
            "--root-dir=/var/lib/kubelet", "--cert-dir", self.folder / "kubelet-pki",
            "--hostname-override", settings.NODE, "--node-ip", self.host_ip,
        ])  # fmt: skip

    def _start_services(self) -> None:
        user = self.kubeconfig_for("system:kube-proxy")
        config = self._written("kube-proxy.json", settings.kube_proxy(user))
        self._part("kube-proxy", [apiserver.binaries("all") / "kube-proxy", "--config", config])
        cert, key = self._person("names", "system:kube-proxy", [])
        trust = ssl.create_default_context(cafile=str(self.ca_file))
        trust.load_cert_chain(cert, key)
        self.names = names.Names(self.folder, self.host_ip, self.url, trust)
        self.parts["dnsmasq"] = self.names.process

    def close(self) -> None:
        """Pods first, by force: their processes would otherwise end with the namespace, their mounts with it."""
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            self.kubectl("delete", "pods", "--all", "-A", "--grace-period=0", "--force", "--wait=false")
        for name in ("kubelet", "kube-proxy", "kube-scheduler", "kube-controller-manager", "dnsmasq"):
            if name in self.parts:
                self.parts[name].stop()
        if self.names is not None:
            self.names.close()
        super().close()
        for each in self._running():
            self.ctr("tasks", "kill", "--signal", "SIGKILL", "--all", each, check=False)
        if "containerd" in self.parts:
            self.parts["containerd"].stop()

    def _part(self, name: str, line: list[str | os.PathLike[str]]) -> laptop.Process:
        self.parts[name] = laptop.Process(name, line, logs=self.folder)
        return self.parts[name]

    def _written(self, name: str, config: dict[str, Any]) -> pathlib.Path:
        path = self.folder / name
        path.write_text(json.dumps(config))
        return path

    def _person(self, name: str, user: str, groups: list[str]) -> tuple[pathlib.Path, pathlib.Path]:
        cert, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        made = self.keys.client(user, groups)
        cert.write_bytes(made[0])
        key.write_bytes(made[1])
        return cert, key

    # What tests ask ---------------------------------------------------------------------------------------------------

    def until(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
        """As laptop.until, and says which part of the node has ended."""

        def held() -> Any:
            ended = {
                name: f"{name} ended with {part.ended}\n{part.tail()}"
                for name, part in self.parts.items()
                if part.ended is not None
            }
            assert not ended, "\n".join(ended.values())
            return condition() or time.sleep(0.2)

        return laptop.until(held, what, seconds)

    def is_ready(self) -> bool:
        path = '{.status.conditions[?(@.type=="Ready")].status}'
        ran = self.kubectl("get", "node", settings.NODE, "-o", f"jsonpath={path}", check=False)
        return ran.stdout == "True"

    def load(self, every: Iterable[images.Image]) -> None:
        """Images into containerd, as a registry would serve them."""
        line = self._ctr("images", "import", "-")
        importing = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert importing.stdin is not None
        with importing.stdin as out:
            images.archive(every, out)
        assert importing.wait(PATIENCE_SECONDS) == 0, "containerd did not take the images"

    def ctr(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self._ctr(*words), capture_output=True, text=True, check=check, timeout=60)

    def _ctr(self, *words: str) -> list[str]:
        return ["ctr", "--address", os.fspath(SOCKET), "--namespace", "k8s.io", *words]

    def _running(self) -> list[str]:
        return self.ctr("tasks", "list", "-q", check=False).stdout.split()

    def memory(self) -> dict[str, int]:
        """Resident MiB of each part."""
        every = {**self.parts, "etcd": self.etcd, "kube-apiserver": self.api}
        return {name: _resident(part.pid) for name, part in every.items() if part is not None}

    def tails(self) -> str:
        """The end of every log, for a failure."""
        every = [*self.parts.values(), self.api, self.etcd]
        return "\n".join(each.tail() for each in every if each is not None)


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) // 1024
    return 0
