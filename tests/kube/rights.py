# SPDX-License-Identifier: Apache-2.0
"""What the chart lets the operator do, verb by verb, and an operator that runs with any one of them taken away.

Between the operator and the API server stands a proxy that can hold back what one watch brings, which no cut wire can: the same
process has further connections to the same place.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import json
import pathlib
import ssl
import threading
import urllib.error
import urllib.request
from typing import Any

import aiohttp
from aiohttp import web
from tests import laptop
from tests.kube import apiserver, helm, installation

NAME, NAMESPACE = installation.NAME, installation.NAMESPACE
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{NAME}"
AGENTS = "agents"


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Right:
    """One verb on one resource, of all objects or of those named. `role` is what grants it, "Kind name"."""

    role: str
    group: str
    resource: str
    names: tuple[str, ...]
    verb: str

    @property
    def refusal(self) -> str:
        """How the API server says that it is missing."""
        return f'cannot {self.verb} resource "{self.resource}" in API group "{self.group}"'

    def __str__(self) -> str:
        named = f" {self.names[0]}" if self.names else ""
        return f"{self.verb} {self.resource}{named}"


def roles() -> list[dict[str, Any]]:
    """The operator's ClusterRole and Roles, as the chart has them."""
    rendered = helm.template()["outrider/templates/rbac.yaml"]
    return [each for each in helm.documents(rendered) if each["kind"] in ("ClusterRole", "Role")]


def rights() -> list[Right]:
    """Every one, once."""
    return [
        Right(_called(role), group, resource, tuple(rule.get("resourceNames", ())), verb)
        for role in roles()
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]


def _called(role: dict[str, Any]) -> str:
    return f"{role['kind']} {role['metadata']['name']}"


def without(taken: Right | None) -> list[dict[str, Any]]:
    """The roles, one rule per right, less one."""
    made = []
    for role in roles():
        changed = copy.deepcopy(role)
        changed["rules"] = [
            {"apiGroups": [each.group], "resources": [each.resource], "verbs": [each.verb]}
            | ({"resourceNames": list(each.names)} if each.names else {})
            for each in rights()
            if each.role == _called(role) and each != taken
        ]
        made.append(changed)
    return made


class Proxy:
    """Passes everything on, watches as they come; `hold` keeps back what watches of a path bring to our own client."""

    def __init__(self, cluster: apiserver.Cluster) -> None:
        self._cluster = cluster
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._held: set[str] = set()
        self._runner: web.AppRunner | None = None
        self.port = 0

    def start(self) -> Proxy:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def hold(self, *plurals: str) -> None:
        self._held = set(plurals)

    def close(self) -> None:
        async def close() -> None:
            assert self._runner is not None
            await self._runner.cleanup()
            await self._session.close()
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for each in rest:
                each.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _start(self) -> None:
        keys = self._cluster.keys
        trusted = ssl.create_default_context(cafile=str(keys.ca_file))
        connector = aiohttp.TCPConnector(ssl=trusted, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._pass)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ours.load_cert_chain(keys.server_cert, keys.server_key)
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=ours).start()
        self.port = self._runner.addresses[0][1]

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        drop = {"host", "content-length", "transfer-encoding", "connection"}
        head = {name: value for name, value in request.headers.items() if name.lower() not in drop}
        target = f"{self._cluster.url}{request.raw_path}"
        body = await request.read()
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.request(
            request.method, target, headers=head, data=body or None, timeout=timeout
        ) as got:
            kept = {name: value for name, value in got.headers.items() if name.lower() not in drop}
            answer = web.StreamResponse(status=got.status, headers=kept)
            await answer.prepare(request)
            watched = request.path.rpartition("/")[2] if "watch" in request.query else ""
            kopfs = request.headers.get("User-Agent", "").startswith("kopf")
            with contextlib.suppress(aiohttp.ClientError, OSError):  # either side has gone
                async for chunk in got.content.iter_any():
                    while watched in self._held and not kopfs:
                        await asyncio.sleep(0.05)
                    await answer.write(chunk)
                await answer.write_eof()
            return answer


class Home:
    """An installed chart, and one operator at a time that runs with what `allow` leaves it. Quacks as installation.Installation."""

    def __init__(self, cluster: apiserver.Cluster, folder: pathlib.Path) -> None:
        self.cluster, self.folder, self.logs = cluster, folder, folder / "logs"
        self.wire = Proxy(cluster).start()
        self.operator: installation.Operator | None = None
        helm.Helm(cluster.kubeconfig).install(NAME, helm.OUTRIDER, NAMESPACE)
        cluster.namespace(AGENTS, **{"outrider.dev__injection": "enabled"})
        cluster.service_account(AGENTS, "default")
        self._starts = self._drives = 0

    def started(self, process: laptop.Process) -> laptop.Process:
        return process

    def route(self) -> None:
        assert self.operator is not None
        self.cluster.expose(
            NAMESPACE, NAME, {"webhook": (443, self.operator.ports["webhook"]), "stream": (8443, 8443)}
        )

    def allow(self, taken: Right | None) -> None:
        """All of the chart's rights, less one."""
        self.cluster.apply(*without(taken))

    def start(self) -> installation.Operator:
        self._starts += 1
        self.operator = installation.Operator(self, self._starts)  # type: ignore[arg-type]
        return self.operator.start()

    def forget(self) -> None:
        """No Lease and no certificates, as the first operator finds it."""
        self.cluster.kubectl("delete", "lease", NAME, "-n", NAMESPACE, "--ignore-not-found")
        emptied = ("patch", "secret", f"{NAME}-certs", "-n", NAMESPACE, "--type=merge", "-p", '{"data":null}')
        self.cluster.kubectl(*emptied)

    def drive(self) -> str:
        """Everything that people, pods and proxies do to an operator, once; what they were told, in one text."""
        self._drives += 1
        said = [self.cluster.apply(*self.objects(str(self._drives)), check=False).stderr]
        # Two pods of one controller: the second Event about it is counted on the first.
        owner = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "name": "agent",
            "uid": "7c1f",
            "controller": True,
        }
        for _ in range(2):
            about = {"generateName": "agent-", "namespace": AGENTS, "ownerReferences": [owner]}
            pod = {
                "apiVersion": "v1", "kind": "Pod", "metadata": about,
                "spec": {"serviceAccountName": "default", "containers": [{"name": "agent", "image": "agent:1"}]},
            }  # fmt: skip
            made = self.cluster.kubectl("create", "-o", "json", "-f", "-", input=json.dumps(pod), check=False)
            said.append(made.stderr)
        if made.returncode == 0:
            said.append(self._dial(json.loads(made.stdout)))
        return "\n".join(said)

    @staticmethod
    def objects(suffix: str) -> list[dict[str, Any]]:
        """One of each kind."""
        target = {"targetRefs": [{"name": f"crm-{suffix}"}]}
        rule = {"name": "all", "effect": "Allow", "from": [{"anyone": True}], "tools": ["*"]}
        limit = {"name": "calls", "unit": "Calls", "quota": {"amount": "10", "period": "Day"}}
        open_ = {"name": "open", "from": [{"anyone": True}], "none": True}
        endpoint = {"url": "https://crm.example/mcp"}
        specs = {
            "MCPServer": {"description": "A CRM.", "endpoint": endpoint, "credentials": [open_]},
            "MCPToolPolicy": {**target, "rules": [rule]},
            "MCPBudget": {**target, "limits": [limit]},
        }
        return [
            {
                "apiVersion": "outrider.dev/v1alpha1", "kind": kind, "spec": spec,
                "metadata": {"name": f"crm-{suffix}", "namespace": AGENTS},
            }
            for kind, spec in specs.items()
        ]  # fmt: skip

    def _dial(self, pod: dict[str, Any]) -> str:
        """A proxy's first words to the operator, with the token of its pod; the beginning of the answer."""
        assert self.operator is not None
        token = self.cluster.token(AGENTS, "default", "config.outrider.dev", pod=pod)
        head = {"Authorization": f"Bearer {token}"}
        trusted = ssl.create_default_context(cafile=str(self.operator.folder / "certs" / "ca.crt"))
        url = f"https://localhost:{self.operator.ports['stream']}/v1/config/stream?schema=2"
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, headers=head), timeout=10, context=trusted
            ) as got:
                return str(got.readline())
        except urllib.error.HTTPError as error:
            return f"{error.code} {error.read().decode()}".replace('\\"', '"')

    def said(self) -> str:
        """What the operator says of itself: why it is not ready, and its log."""
        assert self.operator is not None
        return "\n".join((self.operator.ready()[1], self.log().replace('\\"', '"')))

    def stop(self) -> None:
        if self.operator is not None and self.operator.process is not None:
            self.operator.process.stop()

    def log(self) -> str:
        assert self.operator is not None
        assert self.operator.process is not None
        return self.operator.process.text()

    def close(self) -> None:
        self.stop()
        self.wire.close()


def used(cluster: apiserver.Cluster) -> set[tuple[str, str, str]]:
    """(verb, group, resource/subresource) of everything the operator asked and was not forbidden."""
    found = set()
    for event in cluster.audit_log():
        about = event.get("objectRef") or {}
        code = (event.get("responseStatus") or {}).get("code", 200)
        if event["user"]["username"] == ACCOUNT and code not in (401, 403) and about:
            resource = "/".join(filter(None, (about.get("resource", ""), about.get("subresource", ""))))
            found.add((event["verb"], about.get("apiGroup", ""), resource))
    return found
