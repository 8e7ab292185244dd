# SPDX-License-Identifier: Apache-2.0
"""The prober: the proxy without a door. It lists the tools of every server in its snapshot and tells the operator.

Made by main for `--role prober`, and like main it may read the clock. Same stream, same way out, same network rules as beside an
agent; what it may ask is decided by decide like everything else. Refuses to call a tool: nobody can ask it to. Several probers of
one installation do the same work and harm nobody.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import signal
import time

from outrider import bind, decision, names, snapshot
from outrider_sidecar import (
    addresses,
    admin,
    complaints,
    credentials,
    current,
    faring,
    fetcher,
    files,
    lenders,
    lists,
    pacing,
    rounds,
    servers,
    settings,
    snapshots,
    ssetransport,
    telemetry,
    telling,
    upstream,
)

log = logging.getLogger("outrider")

REPORT_PATH = "/v1/config/report"
ANSWER_BYTES_MAX = 131_072
"""Names of 500 servers."""

_PACE = telling.Pace(wait_seconds=0.2, repeat_seconds=300.0)


class Prober:
    """Everything of one running prober."""

    def __init__(self, chosen: settings.Settings) -> None:
        self._chosen = chosen
        self._stopping = asyncio.Event()
        chosen.memory.mkdir(mode=0o700, parents=True, exist_ok=True)
        loop = asyncio.get_running_loop()
        self._telemetry = telemetry.Telemetry()
        self._current = current.Current()
        self._own: set[str] = set(addresses.api_server(os.environ))
        self._upstream = ssetransport.EitherTransport(
            upstream.AiohttpUpstream(loop, network=self._network, own_addresses=self._own),
            clock=loop.time,
            entropy=os.urandom,
        )
        asks = fetcher.AiohttpFetcher(loop, network=self._network, own=self._own)
        self._lenders = lenders.Lenders(
            pacing.Timing(loop.time, time.time, _jitter), asks, lenders.Files.chosen(chosen)
        )
        self._credentials = credentials.Credentials(self._lenders.sources, clock=loop.time)
        self._servers = servers.Servers(
            upstream=self._upstream,
            credentials=self._credentials,
            current=self._current,
            telemetry=self._telemetry,
            clock=loop.time,
        )
        self._rounds = rounds.Rounds(self._visit, jitter=_jitter)
        self._telling = telling.Telling(
            self._post, _PACE, clock=loop.time, jitter=_jitter, again=self._rounds.again
        )
        self._telemetry.add(telemetry.CredentialGauges(self._credentials.figures))
        views = faring.Views(self._credentials.standing, lambda: (), loop.time, time.time)
        self._faring = faring.Faring(self._post, _PACE, views, jitter=_jitter)
        self._config = snapshots.Config(
            self._current,
            snapshots.Dial(chosen.operator, chosen.token_file, chosen.memory, chosen.ca_file),
            changed=self._changed,
            jitter=_jitter,
            greeted=self._greeted,
            prepare=self._lenders.prepare,
        )

    async def run(self) -> None:
        """Probes until SIGTERM or SIGINT, or until a part of it breaks: then only a restart helps."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        await self._config.restore()
        desk = await admin.serve(
            host=self._chosen.admin_host,
            port=self._chosen.admin_port,
            ready=lambda: self._current.bound is not None,
            render=self._telemetry.render,
        )
        self._own.add(addresses.own(self._chosen.admin_host, desk.port))
        if self._chosen.address_file is not None:
            files.write(self._chosen.address_file, json.dumps({"adminPort": desk.port}).encode())
        log.info("probing", extra=telemetry.fields(adminPort=desk.port))
        works = (self._config.follow(), self._telling.run(), self._faring.run())
        working = [loop.create_task(work) for work in works]
        stopping = loop.create_task(self._stopping.wait())
        try:
            await asyncio.wait([*working, stopping], return_when=asyncio.FIRST_COMPLETED)
            for work in working:
                if work.done():
                    work.result()
        finally:
            for task in (*working, stopping):
                task.cancel()
            await asyncio.gather(*working, stopping, return_exceptions=True)
            await self._rounds.close()
            await self._upstream.close()
            await self._credentials.close()
            await desk.close()

    def _greeted(self) -> None:
        """As in main."""
        self._telling.repeat()
        self._faring.repeat()

    def _network(self) -> snapshot.Network:
        return self._current.bound.snapshot.network if self._current.bound is not None else snapshot.Network()

    def _changed(self, bound: bind.Bound) -> None:
        """A snapshot is in force: new servers and those that moved are visited at once."""
        self._telemetry.configured(bound.digest)
        if not bound.snapshot.probing:
            log.warning(
                "this identity is not the prober's: only servers that it may call are listed",
                extra=telemetry.fields(workload=str(bound.snapshot.workload)),
            )
        self._lenders.configure(bound)
        self._credentials.keep(bound)
        self._telling.keep(bound.servers)
        self._rounds.configure({key: held.view.endpoint for key, held in bound.servers.items()})
        log.info(
            "configuration in force",
            extra=telemetry.fields(version=bound.digest, servers=len(bound.servers)),
        )

    async def _visit(self, server: names.ServerId) -> float | None:
        """One visit, told; as `rounds.Visit`."""
        try:
            listing = await self._servers.visit(server)
            await self._telling.listed(server, listing.definitions, listing.introduction, always=True)
        except lists.ListingFailed as failure:
            self._failed(server, failure.reason, failure.text)
            return None
        except Exception as bug:  # noqa: BLE001 -- one server must never cost the others their visits
            log.error(  # noqa: TRY400 -- a trace may quote what a server sent
                "a bug: a server was not listed",
                extra=telemetry.fields(server=str(server), why=type(bug).__name__),
            )
            self._failed(server, decision.Reason.INTERNAL, type(bug).__name__)
            return None
        self._telemetry.dropped(str(server), len(listing.definitions.dropped))
        return listing.ttl_seconds or 0.0

    def _failed(self, server: names.ServerId, reason: decision.Reason, text: str) -> None:
        bound = self._current.bound
        if bound is not None and server in bound.servers:
            words = complaints.words(reason, text, bound.servers[server].view.endpoint)
            self._telling.failed(server, words)

    async def _post(self, body: bytes) -> tuple[int, bytes]:
        return await self._config.post(REPORT_PATH, body, answer_bytes_max=ANSWER_BYTES_MAX)


def _jitter() -> float:
    return secrets.randbelow(1000) / 1000
