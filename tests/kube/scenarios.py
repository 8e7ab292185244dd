# SPDX-License-Identifier: Apache-2.0
"""What the scenarios on a real API server share: one server of crm, sales agents, and objects in the shortest form."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Any, Self

from tests import laptop
from tests.kube import installation
from tests.scenarios import recorder

SERVER = "crm/recorder"
AGENTS = "sales-agents"
API = "outrider.dev/v1alpha1"


def obj(kind: str, name: str, spec: dict[str, Any], namespace: str = "crm") -> dict[str, Any]:
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def server(seen: recorder.Seen, name: str = "recorder") -> dict[str, Any]:
    """The recorder, as a Service of its own namespace."""
    service = {"name": f"{name}-mcp", "port": seen.port, "path": "/mcp"}
    spec = {
        "description": "Writes down what it is sent.",
        "endpoint": {"service": service},
        "credentials": [{"name": "open", "from": [{"anyone": True}], "none": True}],
    }
    return obj("MCPServer", name, spec)


def allow(*tools: str, name: str = "allow") -> dict[str, Any]:
    return {"name": name, "effect": "Allow", "from": [{"anyone": True}], "tools": list(tools)}


def deny(*tools: str, name: str = "deny", **more: Any) -> dict[str, Any]:
    return {"name": name, "effect": "Deny", "tools": list(tools), **more}


def policy(*rules: dict[str, Any], name: str = "access", target: str = "recorder") -> dict[str, Any]:
    return obj("MCPToolPolicy", name, {"targetRefs": [{"name": target}], "rules": list(rules)})


def prepared(home: installation.Installation, seen: recorder.Seen) -> None:
    """Namespaces, the server, and consent of the agents' side to whatever crm allows."""
    home.namespace("crm")
    home.namespace(AGENTS, **{"outrider.dev__injection": "enabled"})
    home.hosts["recorder-mcp.crm.svc"] = home.cluster.host_ip
    consent = obj(
        "MCPToolPolicy",
        "consent",
        {"targetRefs": [{"namespace": "crm", "name": "recorder"}], "rules": [allow("*")]},
        AGENTS,
    )
    home.cluster.apply(server(seen), consent)


@dataclasses.dataclass
class Load:
    """Calls that never stop, from one agent: what each was answered, and when."""

    agent: laptop.Agent
    tool: str = "echo"
    pause_seconds: float = 0.02
    verdicts: list[tuple[float, str]] = dataclasses.field(default_factory=list)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._call, name="load")
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _call(self) -> None:
        while not self._stop.is_set():
            try:
                reply = self.agent.post(*self.agent.request(SERVER, self.tool, {"token": "t"}))
                hidden = reply.status == 404 or laptop.text(reply.result).startswith("Unknown tool")
                said = "unknown" if hidden else laptop.reason(reply.result) or "allowed"
            except OSError as error:
                said = f"no answer: {error}"
            self.verdicts.append((time.monotonic(), said))
            self._stop.wait(self.pause_seconds)

    def said(self, since: float = 0.0) -> set[str]:
        """Every different answer since a moment of time.monotonic()."""
        return {said for at, said in self.verdicts if at >= since}
