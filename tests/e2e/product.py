# SPDX-License-Identifier: Apache-2.0
"""Outrider on the node as its users have it: the chart by Helm, real images, agents in pods of their own, a real MCP server."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

from tests.e2e import images, node
from tests.kube import apiserver, helm

NAME, NAMESPACE = "outrider", "outrider-system"
AGENTS, SERVERS = "agents", "servers"
WORDS = "Nobody converts times here."
HELM_SECONDS = 150
_RESTRICTED = {
    "runAsNonRoot": True, "runAsUser": 1000, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}  # fmt: skip


def values(**more: Any) -> dict[str, Any]:
    """The chart's values for this node: which images, and that it is small."""

    def image(name: str) -> dict[str, str]:
        repository, _, tag = name.rpartition(":")
        return {"repository": repository, "tag": tag}

    return {
        "images": {"operator": image(images.OPERATOR), "sidecar": image(images.SIDECAR)}, **more,
    }  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Talk:
    """What one long session was told, so far."""

    out: pathlib.Path
    process: subprocess.Popen[bytes]

    def answers(self) -> list[dict[str, Any]]:
        """Every whole line: `at` (the agent's clock, which is ours), `verdict`, `text`."""
        return [
            json.loads(line) for line in self.out.read_text().splitlines(keepends=True) if line.endswith("\n")
        ]

    @property
    def goes_on(self) -> bool:
        return self.process.poll() is None


class Product:
    """An installation on `node`. `install` returns when everything is Ready."""

    def __init__(self, on: node.Node) -> None:
        self.node = on
        self.helm = helm.Helm(on.kubeconfig)
        # A copy of the moment at which the images were made: a checkout may be worked on meanwhile.
        self.chart = on.folder / "charts" / "outrider"
        self.install_seconds = 0.0

    def install(self) -> Product:
        began = time.monotonic()
        self.helm.install(NAME, self.chart, NAMESPACE, values(), wait="watcher", timeout=HELM_SECONDS)
        self.install_seconds = time.monotonic() - began
        return self

    # Objects ----------------------------------------------------------------------------------------------------------

    def server(self) -> None:
        """mcp-server-time behind mcp-proxy, as a Deployment and a Service, and its entry in the catalogue."""
        program = [
            "mcp-proxy",
            "--host",
            "0.0.0.0",
            "--port",
            "8000",
            "--",
            "mcp-server-time",
            "--local-timezone",
            "UTC",
        ]
        container = {
            "name": "server", "image": images.AGENT, "command": program, "securityContext": _RESTRICTED,
            "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1},
        }  # fmt: skip
        self.node.namespace(SERVERS)
        self.node.apply(
            _deployment(SERVERS, "clock", {"containers": [container]}),
            {
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "clock", "namespace": SERVERS},
                "spec": {"selector": {"app": "clock"}, "ports": [{"port": 80, "targetPort": 8000}]},
            },
            self.kind("MCPServer", SERVERS, "clock", {
                "description": "What time it is, anywhere", "endpoint": {"service": {"name": "clock", "port": 80}},
                "credentials": [{"name": "open", "from": [{"anyone": True}], "none": True}],
            }),
            self.kind("MCPToolPolicy", SERVERS, "open", {
                "targetRefs": [{"name": "clock"}],
                "rules": [{"name": "agents", "effect": "Allow", "from": [{"namespaces": [AGENTS]}], "tools": ["*"]}],
            }),
        )  # fmt: skip

        self.node.kubectl("rollout", "status", "-n", SERVERS, "deployment/clock", "--timeout=120s")

    def policy(self, *, convert: bool) -> None:
        """What the agents' own namespace lets its agents call of the clock: `convert_time`, or not."""
        allow = {"name": "bot", "effect": "Allow", "from": [{"serviceAccounts": ["bot"]}], "tools": ["*"]}
        deny = {"name": "no", "effect": "Deny", "tools": ["convert_*"], "message": WORDS}
        target = {"namespace": SERVERS, "name": "clock"}
        spec = {"targetRefs": [target], "rules": [allow] if convert else [allow, deny]}
        self.node.apply(self.kind("MCPToolPolicy", AGENTS, "ours", spec))

    def kind(self, kind: str, namespace: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        metadata = {"name": name, "namespace": namespace}
        return {"apiVersion": "outrider.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": dict(spec)}

    def agents(self) -> None:
        """The agents' namespace: opted in, and under Pod Security's strictest rule."""
        labels = {"outrider.dev/injection": "enabled", "pod-security.kubernetes.io/enforce": "restricted"}
        self.node.namespace(AGENTS, **labels)
        self.node.service_account(AGENTS, "bot")

    def agent(self, name: str, **changed: Any) -> None:
        """An agent that waits for `call`; returns when its pod is Ready."""
        self.node.apply(pod(name, **changed))
        self.node.kubectl("wait", "-n", AGENTS, "--for=condition=Ready", f"pod/{name}", "--timeout=120s")

    # What it does -------------------------------------------------------------------------------------------------------

    def full(self, tool: str) -> str:
        """A tool of the clock as agents see it where all servers are one."""
        return f"{SERVERS}_clock__{tool}"

    def call(self, agent: str, tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What the agent in that pod was told: `tools`, `verdict`, `text`."""
        line = ["python", "/agent/agent.py", self.full(tool), json.dumps(arguments)]
        ran = self.node.kubectl("exec", "-n", AGENTS, agent, "-c", "agent", "--", *line, check=False)
        if not ran.stdout:
            return {"tools": [], "verdict": "broken", "text": ran.stderr}
        return json.loads(ran.stdout.splitlines()[-1])  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def talking(self, agent: str, tool: str, arguments: Mapping[str, Any]) -> Iterator[Talk]:
        """Calls without end in one session while the block runs, from the first answer on."""
        line = [
            apiserver.KUBECTL, "--kubeconfig", self.node.kubeconfig, "exec", "-n", AGENTS, agent, "-c", "agent", "--",
            "python", "/agent/agent.py", self.full(tool), json.dumps(arguments), "--times", "1000000",
        ]  # fmt: skip
        descriptor, name = tempfile.mkstemp(dir=self.node.folder, prefix="talk-")
        talk = Talk(
            pathlib.Path(name), subprocess.Popen([os.fspath(word) for word in line], stdout=descriptor)
        )
        os.close(descriptor)
        try:
            self.node.until(talk.answers, "the agent's session has begun")
            yield talk
        finally:
            talk.process.kill()
            talk.process.wait()

    def crash_sidecar(self, agent: str) -> None:
        """kill -9 to the container, as the kernel does to one that needs too much memory; waits until it is back."""
        before = self.restarts(agent)["outrider"]
        statuses = self.node.get("pod", agent, AGENTS)["status"]["initContainerStatuses"]
        (container,) = [each["containerID"] for each in statuses if each["name"] == "outrider"]
        self.node.ctr("tasks", "kill", "--signal", "SIGKILL", container.removeprefix("containerd://"))
        self.node.until(
            lambda: self.restarts(agent)["outrider"] == before + 1, "the sidecar is started again"
        )

    def until(
        self, agent: str, tool: str, arguments: Mapping[str, Any], verdict: str, *, seconds: float = 60.0
    ) -> dict[str, Any]:
        """Calls until that is the verdict."""
        last: dict[str, Any] = {}

        def held() -> bool:
            last.update(self.call(agent, tool, arguments))
            return last["verdict"] == verdict

        try:
            self.node.until(held, f"{tool} is {verdict}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; last: {last}") from error
        return last

    def condition(self, kind: str, namespace: str, name: str, type_: str) -> dict[str, Any]:
        found = self.node.get(kind, name, namespace).get("status", {}).get("conditions", ())
        return next((each for each in found if each["type"] == type_), {})

    def until_ready(self, kind: str, namespace: str, name: str, *, programmed: str) -> None:
        """Waits until an object says Ready, and how many pods of how many enforce it."""
        last: dict[str, Any] = {}

        def held() -> bool:
            last.update(self.node.get(kind, name, namespace).get("status", {}))
            ready = self.condition(kind, namespace, name, "Ready").get("status") == "True"
            return ready and last.get("programmed") == programmed

        try:
            self.node.until(held, f"{kind} {namespace}/{name} is Ready and programmed {programmed}", 60)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{json.dumps(last, indent=1)}") from error

    def restarts(self, pod: str) -> dict[str, int]:
        """How often each container of an agent's pod was started again."""
        status = self.node.get("pod", pod, AGENTS)["status"]
        every = [*status.get("initContainerStatuses", ()), *status["containerStatuses"]]
        return {each["name"]: each["restartCount"] for each in every}

    def scale(self, replicas: int) -> None:
        """The operator's Deployment, and waits until it is so."""
        self.node.kubectl("scale", "-n", NAMESPACE, f"deployment/{NAME}", f"--replicas={replicas}")
        self.node.kubectl("rollout", "status", "-n", NAMESPACE, f"deployment/{NAME}", "--timeout=120s")
        selector = "app.kubernetes.io/component=operator"
        self.node.until(
            lambda: (
                len(
                    self.node.kubectl(
                        "get", "pods", "-n", NAMESPACE, "-l", selector, "-o", "name"
                    ).stdout.split()
                )
                == replicas
            ),
            f"there are {replicas} operators",
        )

    def said(self) -> str:
        """The logs of everything of ours and what happened to it, for a failure."""
        line = ["logs", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=outrider", "--tail=40", "--prefix"]
        told = [self.node.kubectl(*line, *more, check=False).stdout for more in ((), ("--previous",))]
        agents = self.node.kubectl("get", "pods", "-n", AGENTS, "-o", "name", check=False).stdout.split()
        beside = ("logs", "-n", AGENTS, "-c", "outrider", "--tail=20", "--prefix")
        told += [self.node.kubectl(*beside, each, check=False).stdout for each in agents]
        for namespace in (NAMESPACE, AGENTS, SERVERS):
            told.append(self.node.kubectl("get", "pods,events", "-n", namespace, check=False).stdout)
        return "\n".join(told)


def pod(name: str, **changed: Any) -> dict[str, Any]:
    """An agent's pod as its author writes it: nothing in it knows of a sidecar."""
    container = {"name": "agent", "image": images.AGENT, "securityContext": _RESTRICTED}
    spec = {"serviceAccountName": "bot", "containers": [container], "terminationGracePeriodSeconds": 5}
    metadata: dict[str, Any] = {"name": name, "namespace": AGENTS, "labels": {"app": name}}
    metadata["annotations"] = changed.pop("annotations", {})
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**spec, **changed}}


def container(name: str, command: list[str]) -> dict[str, Any]:
    """A further container of the agents' image."""
    return {"name": name, "image": images.AGENT, "command": command, "securityContext": _RESTRICTED}


def _deployment(namespace: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}},
    }  # fmt: skip
