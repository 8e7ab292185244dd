# SPDX-License-Identifier: Apache-2.0
"""Outrider on a real API server, as processes: operators under the rights the chart gives them, and proxies beside agents.

What a whole cluster would add is stood in for by real things: the Service by a TCP forwarder, kubelet by files in a folder, DNS
by a hosts file that one process sees. A pod is a Pod object that went through the webhook; its proxy is started with the very
arguments that the webhook wrote, its volumes being folders here.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pathlib
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from tests import laptop
from tests.kube import apiserver, balancer, helm, named

from outrider.injection import given

NAMESPACE = "outrider-system"
NAME = "outrider"
HOST = f"{NAME}.{NAMESPACE}.svc"
PATIENCE_SECONDS = 60.0
_ASK_SECONDS = 0.02
_BESIDE_US = pathlib.Path(sys.executable).parent
PROGRAM = (_BESIDE_US / "outrider-operator",)


class Operator:
    """One replica: a process that only knows its ServiceAccount's token."""

    def __init__(self, home: Installation, index: int) -> None:
        self._home = home
        self.identity = f"{NAME}-{index}"
        self.folder = home.folder / self.identity
        self.folder.mkdir(parents=True, exist_ok=True)
        self.address = self.folder / "address.json"
        self.process: laptop.Process | None = None
        self.ports: dict[str, int] = {}

    def start(self, *more: str) -> Operator:
        cluster, folder = self._home.cluster, self.folder
        self.address.unlink(missing_ok=True)
        api_token = folder / "api-token"
        api_token.write_text(cluster.token(NAMESPACE, NAME, "api.outrider.dev"))
        url = f"https://127.0.0.1:{self._home.wire.port}"
        kubeconfig = cluster.kubeconfig_token(cluster.token(NAMESPACE, NAME, cluster.audience), url=url)
        line = [
            *PROGRAM, "--role", "controller", "--kubeconfig", kubeconfig,
            "--namespace", NAMESPACE, "--name", NAME, "--identity", self.identity, "--advertise", "127.0.0.1:0",
            "--webhook-port", "0", "--stream-port", "0", "--metrics-port", "0", "--cert-dir", folder / "certs",
            "--certificate-name", "localhost", "--certificate-name", "127.0.0.1",
            "--api-token-file", api_token, "--address-file", self.address, *more,
        ]  # fmt: skip
        self.process = self._home.started(laptop.Process(self.identity, line, logs=self._home.logs))
        self.process.until(self.address.exists, f"{self.identity} listens", PATIENCE_SECONDS)
        self.ports = json.loads(self.address.read_bytes())
        self._home.route()
        return self

    def until_ready(self) -> Operator:
        assert self.process is not None
        self.process.until(
            lambda: self.ready()[0] == 200, f"{self.identity} is ready: {self.ready()}", PATIENCE_SECONDS
        )
        return self

    def ready(self) -> tuple[int, str]:
        return self.desk("/readyz")

    def desk(self, path: str) -> tuple[int, str]:
        """Status and text of a page of the metrics port; (0, why) when there is none."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.ports['metrics']}{path}", timeout=5
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.ended is None

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self._home.route()

    def stop(self) -> int:
        assert self.process is not None
        code = self.process.stop()
        self._home.route()
        return code


class Beside:
    """A proxy beside an agent: the container that the webhook put into a pod, as a process here."""

    def __init__(self, home: Installation, pod: Mapping[str, Any], *, launcher: tuple[str, ...] = ()) -> None:
        self._home = home
        self._launcher = launcher
        self.namespace: str = pod["metadata"]["namespace"]
        self.name: str = pod["metadata"]["name"]
        self.pod = pod
        self.container = next(c for c in pod["spec"]["initContainers"] if c["name"] == "outrider")
        self.folder = home.folder / "pods" / self.namespace / self.name
        self.process: laptop.Process | None = None
        self.port = self.admin_port = 0

    def start(self, *more: str, ready: bool = True) -> Beside:
        self.mount()
        address = self.folder / "address.json"
        address.unlink(missing_ok=True)
        program = self._launcher or (str(_BESIDE_US / "outrider-sidecar"),)
        line = [
            *program,
            *self.arguments(),
            "--port",
            "0",
            "--admin-port",
            "0",
            "--address-file",
            str(address),
            *more,
        ]
        seen = named.with_hosts(line, self._home.hosts)
        self.process = self._home.started(
            laptop.Process(f"{self.namespace}.{self.name}", seen, logs=self._home.logs)
        )
        self.process.until(address.exists, "the proxy listens", PATIENCE_SECONDS)
        found = json.loads(address.read_bytes())
        self.port, self.admin_port = found["port"], found["adminPort"]
        if ready:
            self.process.until(self.is_ready, "the proxy is ready", PATIENCE_SECONDS)
        return self

    def mount(self) -> None:
        """What kubelet would: a folder per volume, tokens bound to the pod, files of the downward API."""
        cluster = self._home.cluster
        volumes = {volume["name"]: volume for volume in self.pod["spec"]["volumes"]}
        for mount in self.container["volumeMounts"]:
            volume = volumes[mount["name"]]
            where = self.path(mount["mountPath"])
            where.mkdir(parents=True, exist_ok=True)
            for source in volume.get("projected", {}).get("sources", ()):
                if token := source.get("serviceAccountToken"):
                    account = self.pod["spec"].get("serviceAccountName", "default")
                    text = cluster.token(self.namespace, account, token["audience"], pod=self.pod)
                    (where / token["path"]).write_text(text)
                for item in source.get("downwardAPI", {}).get("items", ()):
                    self._field(where, item)
            for item in volume.get("downwardAPI", {}).get("items", ()):
                self._field(where, item)
            if "secret" in volume:
                self._secret(where, volume["secret"])

    def _secret(self, where: pathlib.Path, source: Mapping[str, Any]) -> None:
        """The keys of a Secret as files; an optional one that is not there is an empty folder."""
        found = self._home.cluster.kubectl(
            "get",
            "secret",
            source["secretName"],
            "-n",
            self.namespace,
            "-o",
            "json",
            check=not source.get("optional"),
        )
        data = json.loads(found.stdout)["data"] if found.returncode == 0 else {}
        for key, value in data.items():
            (where / key).write_bytes(base64.b64decode(value))

    def _field(self, where: pathlib.Path, item: Mapping[str, Any]) -> None:
        found = re.fullmatch(r"metadata\.annotations\['(.+)'\]", item["fieldRef"]["fieldPath"])
        assert found, item
        (where / item["path"]).write_text(self.pod["metadata"]["annotations"][found[1]])

    def path(self, mounted: str) -> pathlib.Path:
        return self.folder / "root" / mounted.lstrip("/")

    def arguments(self) -> list[str]:
        """The container's arguments, with paths below a mount moved to where the mount is here."""
        mounts = [mount["mountPath"] for mount in self.container["volumeMounts"]]
        made = []
        for word in self.container.get("args", ()):
            flag, equals, value = word.partition("=")
            under = any(f"{value}/".startswith(f"{mount}/") for mount in mounts)
            under = under or value == given.SECRETS_PATH  # a mount for each server is below it, or none
            moved = str(self.path(value)) if under else value.replace("$(POD_IP)", "127.0.0.1")
            made.append(f"{flag}{equals}{moved}")
        return made

    @property
    def agent_files(self) -> pathlib.Path:
        return self.path("/etc/outrider")

    @property
    def agent(self) -> laptop.Agent:
        token = self.agent_files / "token"
        return laptop.Agent(self.port, token.read_text().strip() if token.exists() else "none-is-asked")

    def is_ready(self) -> bool:
        return self.desk("/readyz")[0] == 200

    def desk(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def verdict(self, server: str, tool: str, arguments: Any = None) -> str:
        """`allowed`, or the reason of the refusal; `unknown` for what does not exist here."""
        reply = self.agent.post(*self.agent.request(server, tool, arguments))
        if reply.status == 404:
            return "unknown"
        result = reply.result
        if laptop.text(result).startswith("Unknown tool"):
            return "unknown"
        return laptop.reason(result) or ("failed" if result.get("isError") else "allowed")

    def until(self, server: str, tool: str, verdict: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Asks until the answer is that one."""
        deadline = time.monotonic() + seconds
        while (found := self.verdict(server, tool)) != verdict:
            assert time.monotonic() < deadline, f"{self.name} finds {server} {tool} {found}, not {verdict}"
            time.sleep(_ASK_SECONDS)

    def stop(self) -> int:
        assert self.process is not None
        return self.process.stop()


class Installation:
    """The chart's objects on a cluster, and the processes that belong to them."""

    def __init__(self, cluster: apiserver.Cluster, folder: pathlib.Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.logs = folder / "logs"
        self.operators: list[Operator] = []
        self.besides: list[Beside] = []
        self.processes: list[laptop.Process] = []
        self._service = balancer.Balancer()
        self._admission = balancer.Balancer()
        self.wire = balancer.Balancer()
        # All of 127/8 is this machine: test processes beside this one have the same port at other addresses.
        self.service_ip = f"127.77.{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}"
        self.hosts: dict[str, str] = {HOST: self.service_ip, f"{HOST}.cluster.local": self.service_ip}

    def started(self, process: laptop.Process) -> laptop.Process:
        self.processes.append(process)
        return process

    def install(self, *, chart: pathlib.Path | None = None, **values: Any) -> None:
        """The chart, by Helm. Nobody runs its Deployments here: that is what `operator` is for."""
        self._service.start(8443, host=self.service_ip)
        self._admission.start(0, host=self.cluster.host_ip)
        self.wire.start()
        self.let_operators_back()
        helm.Helm(self.cluster.kubeconfig).install(NAME, chart or helm.OUTRIDER, NAMESPACE, values)
        self.cluster.expose(NAMESPACE, NAME, {"webhook": (443, self._admission.port), "stream": (8443, 8443)})

    def operator(self, *more: str, ready: bool = True) -> Operator:
        """A further replica. It reaches the API server through `cut_operators_off`'s wire."""
        made = Operator(self, len(self.operators))
        self.operators.append(made)
        made.start(*more)
        return made.until_ready() if ready else made

    def cut_operators_off(self) -> None:
        """No connection between operators and the API server, until `let_operators_back`."""
        self.wire.targets([])
        self.wire.cut()

    def let_operators_back(self) -> None:
        self.wire.targets([("127.0.0.1", self.cluster.port)])

    def settings(self, **changed: Any) -> None:
        """Edits the settings, as `helm upgrade` would."""
        held = self.cluster.get("configmap", f"{NAME}-settings", NAMESPACE)
        whole = {**yaml.safe_load(held["data"]["settings.yaml"]), **changed}
        patch = json.dumps({"data": {"settings.yaml": yaml.safe_dump(whole)}})
        self.cluster.kubectl(
            "patch", "configmap", f"{NAME}-settings", "-n", NAMESPACE, "--type=merge", "-p", patch
        )

    def route(self) -> None:
        """What kube-proxy would: connections go to replicas that run."""
        running = [each for each in self.operators if each.alive and each.ports]
        self._service.targets([("127.0.0.1", each.ports["stream"]) for each in running])
        self._admission.targets([("127.0.0.1", each.ports["webhook"]) for each in running])

    def namespace(self, name: str, **labels: str) -> str:
        made = self.cluster.namespace(name, **labels)
        self.cluster.service_account(made, "default")
        return made

    def pod(self, namespace: str, name: str, account: str = "default", **more: Any) -> dict[str, Any]:
        """A Pod of one container, created through whatever webhooks there are; Running, as kubelet would say."""
        spec = {"serviceAccountName": account, "containers": [{"name": "agent", "image": "agent:1"}], **more}
        self.cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": namespace},
                "spec": spec,
            }
        )
        self.running(namespace, name)
        return self.cluster.get("pod", name, namespace)

    def running(self, namespace: str, name: str) -> None:
        patch = json.dumps({"status": {"phase": "Running"}})
        self.cluster.kubectl(
            "patch", "pod", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", patch
        )

    def beside(self, namespace: str, name: str, account: str = "default", **more: Any) -> Beside:
        """A pod and its proxy, ready."""
        made = Beside(self, self.pod(namespace, name, account, **more))
        self.besides.append(made)
        return made.start()

    def condition(self, kind: str, name: str, type_: str, namespace: str) -> dict[str, Any]:
        """One condition of an object; {} while it has none."""
        found = self.cluster.get(kind, name, namespace).get("status", {}).get("conditions", ())
        return next((each for each in found if each["type"] == type_), {})

    def until_condition(self, kind: str, name: str, namespace: str, **wanted: str) -> None:
        """Waits until each `Type=Status` or `Type=Status/Reason` holds for the current generation."""

        def holds() -> bool:
            generation = self.cluster.get(kind, name, namespace)["metadata"]["generation"]
            for type_, text in wanted.items():
                one = self.condition(kind, name, type_, namespace)
                status, _, reason = text.partition("/")
                if one.get("status") != status or one.get("observedGeneration") != generation:
                    return False
                if reason and one.get("reason") != reason:
                    return False
            return True

        laptop.until(holds, f"{kind} {namespace}/{name} says {wanted}", PATIENCE_SECONDS)

    def close(self) -> None:
        for each in reversed(self.processes):
            each.stop()
        self._service.close()
        self._admission.close()
        self.wire.close()
        shutil.rmtree(self.folder / "pods", ignore_errors=True)


@contextlib.contextmanager
def installed(
    cluster: apiserver.Cluster, folder: pathlib.Path, *, replicas: int = 1, **values: Any
) -> Iterator[Installation]:
    """An installation with ready replicas; stopped when the block ends, with the end of each log for a failure."""
    made = Installation(cluster, folder)
    try:
        made.install(**values)
        for _ in range(replicas):
            made.operator()
        yield made
    finally:
        made.close()
        print(*{each.log: each.tail() for each in made.processes}.values(), sep="\n")
