# SPDX-License-Identifier: Apache-2.0
"""Admission as it runs in an operator, for tests: real kopf against a real API server, which reaches it through a Service.

The webhook configurations are the chart's own, narrowed to the namespaces of one test.
"""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import json
import pathlib
import ssl
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from tests import pods
from tests.kube import apiserver, certs, helm

from outrider import injection
from outrider_operator import access, admission, handlers
from outrider_operator import cluster as api

PATIENCE_SECONDS = 60.0


class Admitted:
    """One operator's admission. `options` and `ca` may be changed while it runs; `told` and `nudged` fill up."""

    def __init__(self, cluster: apiserver.Cluster, folder: pathlib.Path, name: str) -> None:
        self.cluster, self.name = cluster, name
        self.options: injection.Options | None = pods.options()
        self.ca = pods.CA
        self.said: object = None
        self.told: list[tuple[str, str]] = []
        self.nudged: list[tuple[str, str, str]] = []
        self.home = cluster.namespace(f"{name}-home")
        self.space = cluster.namespace(
            f"{name}-on", **{"outrider.dev__injection": "enabled", "outrider-test": name}
        )
        self.silent = cluster.namespace(f"{name}-silent", **{"outrider-test": name})
        host = f"outrider.{self.home}.svc"
        self._keys = certs.Authority.make(folder / "serving", [host, "127.0.0.1"])
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self._keys.server_cert, self._keys.server_key)
        self._loop = asyncio.new_event_loop()
        self._runner = threading.Thread(target=self._loop.run_forever, name="main-loop", daemon=True)
        self._runner.start()
        self._api = api.Cluster(access.load(cluster.kubeconfig), instance=name)
        self.may: Any = self._api.may
        self.thread = self._made(access.load(cluster.kubeconfig))

    def _made(self, given: access.Access) -> handlers.Thread:
        parts = admission.Parts(
            options=lambda: self.options,
            ca=lambda: self.ca,
            may=lambda *who, **about: self.may(*who, **about),  # noqa: PLW0108 - tests put another in its place
            told=lambda webhook, answer, _seconds: self.told.append((webhook, answer)),
        )

        async def make() -> handlers.Thread:
            desk = admission.Desk(parts, asyncio.get_running_loop())
            serving = handlers.Serving(self.context, "0.0.0.0", 0)
            return handlers.Thread(
                given, desk, serving=serving, nudge=lambda *what: self.nudged.append(what[:3])
            )

        return self.on_loop(make())

    def on_loop(self, work: Coroutine[Any, Any, Any]) -> Any:
        future: concurrent.futures.Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(PATIENCE_SECONDS)

    def again(self) -> Admitted:
        """Another thread in place of the one that ended."""
        self.thread = self._made(access.load(self.cluster.kubeconfig))
        return self.start()

    def start(self) -> Admitted:
        self.thread.start()
        until(lambda: self.thread.port, lambda: self.thread.problem)
        self.cluster.expose(self.home, "outrider", {"webhook": (443, self.thread.port)})
        self.cluster.apply(*self.configurations())
        until(self.injects, lambda: f"the webhook is called: {self.said}")
        return self

    def configurations(self) -> list[dict[str, Any]]:
        made = helm.documents(helm.template(namespace=self.home)["outrider/templates/webhooks.yaml"])
        for each in made:
            each["metadata"]["name"] = f"{self.name}-webhooks"
            for webhook in each["webhooks"]:
                webhook["clientConfig"]["service"]["name"] = "outrider"
                webhook["clientConfig"]["caBundle"] = base64.b64encode(
                    self._keys.ca_file.read_bytes()
                ).decode()
                selector = webhook.setdefault("namespaceSelector", {}).setdefault("matchExpressions", [])
                selector.append({"key": "outrider-test", "operator": "In", "values": [self.name]})
        return made

    def injects(self) -> bool:
        self.said = made = self.create(pods.pod(), "--dry-run=server")
        return isinstance(made, dict) and made["metadata"]["labels"].get("outrider.dev/injected") == "true"

    def create(self, pod: dict[str, Any], *more: str, namespace: str = "") -> dict[str, Any] | str:
        """The pod as it was written, or what was said against it."""
        metadata = {**pod["metadata"], "namespace": namespace or self.space}
        whole = json.dumps({**pod, "metadata": metadata})
        ran = self.cluster.kubectl("create", "-o", "json", *more, "-f", "-", input=whole, check=False)
        return json.loads(ran.stdout) if ran.returncode == 0 else ran.stderr  # type: ignore[no-any-return]

    def close(self) -> None:
        for kind in ("mutatingwebhookconfiguration", "validatingwebhookconfiguration"):
            self.cluster.kubectl("delete", kind, f"{self.name}-webhooks", "--ignore-not-found", check=False)
        self.on_loop(self.thread.stop(10))
        self._api.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._runner.join(10)
        self._loop.close()


def until(condition: Callable[[], Any], what: Callable[[], str]) -> None:
    ends = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < ends, what()
        time.sleep(0.05)
