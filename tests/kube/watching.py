# SPDX-License-Identifier: Apache-2.0
"""Reflectors that run for a test and keep what they told, and objects for them to see."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from outrider_operator import access, collection, reflector

SYNCED, FROZEN, WAITING = reflector.Phase.SYNCED, reflector.Phase.FROZEN, reflector.Phase.WAITING


class Seen:
    """A reflector that runs, and everything it told."""

    def __init__(self, given: access.Access, session, watched: reflector.Watched, **more: Any) -> None:
        self.batches: list[list[collection.Change]] = []
        self.states: list[reflector.State] = []
        self.alarms: list[tuple[int, int]] = []
        more.setdefault("changed", self.batches.append)
        self.subject = reflector.Reflector(
            given,
            session,
            watched,
            stated=self.states.append,
            alarmed=lambda *said: self.alarms.append(said),
            **more,
        )
        self.task = asyncio.create_task(self.subject.run())

    @property
    def names(self) -> set[str]:
        return {name for _, name in self.subject.objects}

    @property
    def phase(self) -> reflector.Phase:
        assert not self.task.done(), self.task
        return self.subject.state.phase

    async def until(self, condition: Callable[[], Any], seconds: float = 30.0) -> float:
        began = time.monotonic()
        while not condition():
            assert not self.task.done(), self.task
            assert time.monotonic() - began < seconds, (self.subject.state, self.names)
            await asyncio.sleep(0.01)
        return time.monotonic() - began

    async def until_synced(self) -> None:
        await self.until(lambda: self.phase is SYNCED)


@contextlib.asynccontextmanager
async def watching(kubeconfig: pathlib.Path, watched: reflector.Watched, **more: Any) -> AsyncIterator[Seen]:
    given = access.load(kubeconfig)
    async with given.session() as session:
        seen = Seen(given, session, watched, **more)
        try:
            yield seen
        finally:
            seen.task.cancel()
            await asyncio.gather(seen.task, return_exceptions=True)


def run(main: Awaitable[Any], seconds: float = 200) -> Any:
    return asyncio.run(asyncio.wait_for(main, seconds))


def config_maps(namespace: str, **more: str) -> reflector.Watched:
    return reflector.Watched("", "v1", "configmaps", namespace=namespace, **more)


def config_map(
    namespace: str, name: str, labels: dict[str, str] | None = None, **data: str
) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


async def apply(cluster, *objects) -> None:
    await asyncio.to_thread(cluster.apply, *objects)


async def kubectl(cluster, *words: str) -> None:
    await asyncio.to_thread(cluster.kubectl, *words)


def crd(group: str) -> dict[str, Any]:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    spec = {
        "group": group, "scope": "Namespaced", "versions": [version],
        "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
    }  # fmt: skip
    about = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    return {**about, "metadata": {"name": f"things.{group}"}, "spec": spec}


def install(cluster, group: str) -> None:
    cluster.apply(crd(group))
    cluster.kubectl("wait", "--for=condition=Established", "crd", f"things.{group}")


def things(group: str, namespace: str, count: int, **spec: Any) -> list[dict[str, Any]]:
    about = {"apiVersion": f"{group}/v1", "kind": "Thing"}
    return [
        {**about, "metadata": {"name": f"t-{n}", "namespace": namespace}, "spec": spec} for n in range(count)
    ]


def rewired(cluster, port: int) -> pathlib.Path:
    """The administrator's kubeconfig, through a wire."""
    whole = json.loads(cluster.kubeconfig.read_text())
    whole["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
    made = cluster.folder / f"rewired-{port}.json"
    made.write_text(json.dumps(whole))
    return made
