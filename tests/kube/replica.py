# SPDX-License-Identifier: Apache-2.0
"""One replica's config stream in the test's own process: real TLS, real TokenReviews, real receipts; what is in force is the test's to say.

The whole operator as processes is `installation`; this is for tests that look inside, or cut one part off.
"""

from __future__ import annotations

import asyncio
import pathlib
import time
from typing import Any, Self

import msgspec
from aiohttp import web

from outrider import skew, snapshot, testing
from outrider_operator import (
    access,
    keeper,
    pods,
    publishing,
    receipts,
    replicas,
    reviewer,
    streaming,
    writing,
)
from outrider_operator import cluster as api

NAME = "outrider.outrider-system.svc"
BOT = ("agents", "bot")


class Source:
    """What is in force for every workload: one server, whose title says which version it is."""

    epoch = 1

    def __init__(self) -> None:
        self.title, self.position, self.service = "first", {"servers": 1}, False

    def say(self, title: str, *, service: bool = False) -> None:
        self.title, self.position = title, {"servers": self.position["servers"] + 1}
        self.service = service

    def offer(self, subject: publishing.Subject, schema: int) -> publishing.Offer:
        made = testing.a_snapshot(testing.a_server(testing.allow(), title=f"{self.title} for {subject[1]}"))
        if self.service:
            [view] = made.servers
            made = _served_by_a_service(made, view)
        content, unexpressed = skew.downgrade(made, schema)
        return publishing.Offer(snapshot.digest(content), dict(self.position), content, unexpressed)


def _served_by_a_service(made: snapshot.Snapshot, view: snapshot.ServerView) -> snapshot.Snapshot:
    endpoint = msgspec.structs.replace(view.endpoint, service=True)
    return msgspec.structs.replace(made, servers=(msgspec.structs.replace(view, endpoint=endpoint),))


class Replica:
    """`async with` it. `holder` is the replica that holds the Lease; by itself each holds it alone."""

    def __init__(self, given: Any, folder: pathlib.Path, *, name: str, secret: tuple[str, str]) -> None:
        self.name = name
        self.port = 0
        self.source = Source()
        self.pods: dict[str, pods.Pod] = {}
        self.holder: Replica = self
        self.client = api.Cluster(access.load(given.kubeconfig), instance=name)
        self.keeper = keeper.Keeper(
            folder / name, names=(NAME, "127.0.0.1"), secrets=self.client, secret=secret
        )
        self.keeper.leading = lambda: self.leading
        self.gathering = receipts.Gathering(receipts.Book(), replica=name)
        self.publisher = publishing.Publisher(self.source, book=self.gathering.own)
        self.keeper.changed = self.publisher.trust
        self.keeper.spread = self._spread
        self.who = reviewer.TokenReviewer(
            self.client.review_token, pod=self.pods.get, clock=time.monotonic, wall=time.time
        )
        self.token_file = folder / f"{name}-api-token"
        self.replicas = replicas.Replicas(
            self.gathering,
            replicas.Peers(
                leading=lambda: self.leading,
                holder=lambda: "" if self.holder is self else f"127.0.0.1:{self.holder.port}",
                context=self.keeper.client_context,
                server_name=NAME,
                token_file=self.token_file,
            ),
            replicas.Callers(
                caller=self.who.caller, own=f"system:serviceaccount:{secret[0]}:outrider", may=self._may
            ),
            known=lambda: self.pods,
        )
        self.manner = streaming.Manner(controller=name)
        self._runner: web.AppRunner | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def leading(self) -> bool:
        return self.holder is self

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def _spread(self, digest: str) -> bool:
        return all(each.trust == digest for each in self.gathering.receipts().values() if each.connected)

    async def _may(self, caller: reviewer.Caller, namespace: str) -> bool:
        where = {"namespace": namespace} if namespace else {}
        return await self.client.may(
            caller.username, caller.groups, verb="get", group="outrider.dev", resource="mcpservers",
            subresource="proxystatus", **where,
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        writing.spare_memory()
        self._tasks.append(asyncio.create_task(self.keeper.run()))
        await self.keeper.wait(30)
        app = streaming.application(
            self.publisher, self.who, manner=self.manner, elsewhere=self.replicas.doors
        )
        self._runner = web.AppRunner(app, shutdown_timeout=0.2, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(
            self._runner, "127.0.0.1", self.port, ssl_context=self.keeper.context(), reuse_address=True
        ).start()
        self.port = self._runner.addresses[0][1]
        self._tasks.append(asyncio.create_task(self.replicas.run()))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
        self.client.close()
