# SPDX-License-Identifier: Apache-2.0
"""What tests of the config stream at a real API server share: pods and their tokens, a proxy's end, two replicas."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import aiohttp
from tests.kube import replica

from outrider_operator import pods, reviewer, streaming
from outrider_sidecar import current, snapshots

SYSTEM = "stream-system"
AGENTS = "stream-agents"
_numbers = itertools.count()


def prepared(cluster):
    """What the chart makes: a namespace, our ServiceAccount, an empty Secret, whose place it gives."""
    cluster.namespace(SYSTEM)
    cluster.namespace(AGENTS)
    cluster.service_account(SYSTEM, "outrider")
    name = f"certs-{next(_numbers)}"
    cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": SYSTEM}})
    return SYSTEM, name


def pod(cluster, account="bot"):
    """A Pod object and what the operator knows of it."""
    cluster.service_account(AGENTS, account)
    name = f"{account}-{next(_numbers)}"
    spec = {"serviceAccountName": account, "containers": [{"name": "a", "image": "a:1"}]}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": AGENTS}, "spec": spec}
    )
    raw = cluster.get("pod", name, AGENTS)
    return raw, pods.pod(pods.trim(raw))


def token(cluster, raw, audience=reviewer.STREAM_AUDIENCE):
    return cluster.token(AGENTS, raw["spec"]["serviceAccountName"], audience, pod=raw)


class Proxy:
    """The proxy's end of the stream, as its main wires it."""

    def __init__(self, folder, url, given, bundle, **more):
        folder.mkdir()
        (folder / "token").write_text(given)
        (folder / "ca.pem").write_text(bundle)
        self.folder, self.current, self.changes = folder, current.Current(), []
        dial = snapshots.Dial(url, folder / "token", folder, folder / "ca.pem", **more)
        self.config = snapshots.Config(self.current, dial, changed=self.changes.append, jitter=lambda: 0.1)
        self.task = asyncio.create_task(self.config.follow())

    @property
    def title(self):
        bound = self.current.bound
        return "" if bound is None else bound.snapshot.servers[0].title

    async def leave(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def until(condition, what, seconds=30.0):
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"waited {seconds} s until {what}"
        await asyncio.sleep(0.02)


def running(work):
    asyncio.run(asyncio.wait_for(work(), 120))


@contextlib.asynccontextmanager
async def two(cluster, folder, secret, *, review_seconds=300.0):
    """Two replicas; the first holds the Lease."""
    for name in ("a", "b"):
        (folder / f"{name}-api-token").write_text(cluster.token(SYSTEM, "outrider", reviewer.API_AUDIENCE))
    first = replica.Replica(cluster, folder, name="a", secret=secret)
    second = replica.Replica(cluster, folder, name="b", secret=secret)
    second.holder = first
    for each in (first, second):
        each.manner = streaming.Manner(controller=each.name, review_seconds=review_seconds)
    async with first, second:
        yield first, second


def let_in(known, *replicas):
    for each in replicas:
        each.pods[known.uid] = known


async def status_of(one, given=None, path="/v1/config/stream?schema=2"):
    """Status and words of a request."""
    headers = {} if given is None else {"Authorization": f"Bearer {given}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(one.url + path, ssl=one.keeper.client_context()) as answer,
    ):
        return answer.status, "" if answer.status == 200 and "stream" in path else await answer.json()


def in_sync(one):
    return [
        each
        for each in one.gathering.receipts().values()
        if each.connected and each.acked == each.offered != ""
    ]


async def rows(one, cluster, account="reader"):
    """The status that somebody may see who was given the right to."""
    cluster.service_account(SYSTEM, account)
    rule = {"apiGroups": ["outrider.dev"], "resources": ["mcpservers/proxystatus"], "verbs": ["get"]}
    about = {"apiVersion": "rbac.authorization.k8s.io/v1"}
    cluster.apply(
        {**about, "kind": "ClusterRole", "metadata": {"name": "stream-reader"}, "rules": [rule]},
        {**about, "kind": "ClusterRoleBinding", "metadata": {"name": "stream-reader"},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "stream-reader"},
         "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": SYSTEM}]},
    )  # fmt: skip
    given = cluster.token(SYSTEM, account, reviewer.API_AUDIENCE)
    status, body = await status_of(one, given, "/v1/status")
    assert status == 200, body
    return body
