# SPDX-License-Identifier: Apache-2.0
"""The proxy's process: wires the parts, listens, follows the control plane, and leaves in order.

Nobody imports this module. But for the prober, which takes its place under `--role prober`, it is the only one that reads the
clock, asks for randomness or touches the environment, and hands them on as values.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import pathlib
import secrets
import signal
import sys
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from outrider import bind, budgets, call, catalog, decide, names, snapshot
from outrider_sidecar import (
    addresses,
    admin,
    agentfiles,
    caller,
    credentials,
    current,
    door,
    faring,
    fetcher,
    files,
    ids,
    introductions,
    journal,
    ledger,
    lenders,
    lists,
    orders,
    pacing,
    pipeline,
    prober,
    records,
    servers,
    sessions,
    settings,
    snapshots,
    ssetransport,
    states,
    telemetry,
    telling,
    upstream,
    users,
)

log = logging.getLogger("outrider")

DRAIN_SECONDS = 5.0
FINDINGS_LOGGED_MAX = 20
FINDINGS_REMEMBERED_MAX = 10_000
_KEY_BYTES = 32

_PACE = telling.Pace(wait_seconds=5.0, repeat_seconds=300.0)
"""Thousands of sidecars learn of the same change in the same second; the operator need not hear of it in one."""


class Proxy:
    """Everything of one running proxy, made in the order it is needed and taken down in the other."""

    def __init__(self, chosen: settings.Settings) -> None:
        self._chosen = chosen
        self._tasks: set[asyncio.Task[None]] = set()
        self._said: set[str] = set()
        self._stopping = asyncio.Event()
        for folder in (chosen.state, chosen.memory):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        loop = asyncio.get_running_loop()
        self._telemetry = telemetry.Telemetry()
        self._current = current.Current()
        self._journal = journal.Journal.open(
            chosen.state / "journal",
            clock=time.time,
            boot_id=_boot_id(),
            instance_random=os.urandom(8),
            journal_bytes_max=chosen.journal_bytes_max,
        )
        self._ledger = ledger.Ledger()
        replay = self._journal.replay
        self._ledger.restore(replay.spent, latest=replay.latest)
        self._own: set[str] = set(addresses.api_server(os.environ))
        self._upstream = ssetransport.EitherTransport(
            upstream.AiohttpUpstream(loop, network=self._network, own_addresses=self._own),
            clock=loop.time,
            entropy=os.urandom,
        )
        asks = fetcher.AiohttpFetcher(loop, network=self._network, own=self._own)
        self._users = users.Users(asks, clock=loop.time, wall=time.time)
        self._lenders = lenders.Lenders(
            pacing.Timing(loop.time, time.time, _jitter), asks, lenders.Files.chosen(chosen)
        )
        lender = self._credentials = credentials.Credentials(self._lenders.sources, clock=loop.time)
        self._servers = servers.Servers(
            upstream=self._upstream,
            credentials=lender,
            current=self._current,
            telemetry=self._telemetry,
            clock=loop.time,
        )
        self._lists = lists.Lists(
            fetch=self._servers.listing,
            observed=self._observed,
            met=self._servers.introduction,
            clock=loop.time,
        )
        self._local_token = (
            _token(chosen.agent_token_file) if chosen.local_auth.way is settings.Way.TOKEN else None
        )
        self._pipeline = self._wired(lender)
        self._telemetry.streams.set_function(lambda: self._pipeline.streams)
        self._telemetry.add(telemetry.Gauges(self._pools, self._counts))
        self._telemetry.add(telemetry.CredentialGauges(lender.figures))
        self._heard_by(loop)

    def _heard_by(self, loop: asyncio.AbstractEventLoop) -> None:
        """The ways between us and the control plane."""
        chosen = self._chosen
        self._telling = telling.Telling(self._post, _PACE, clock=loop.time, jitter=_jitter)
        views = faring.Views(self._credentials.standing, self._providers, loop.time, time.time)
        self._faring = faring.Faring(self._post, _PACE, views, jitter=_jitter)
        self._config = snapshots.Config(
            self._current,
            snapshots.Dial(chosen.operator, chosen.token_file, chosen.memory, chosen.ca_file),
            changed=self._changed,
            jitter=_jitter,
            greeted=self._greeted,
            prepare=self._lenders.prepare,
        )

    def _wired(self, lender: credentials.Credentials) -> pipeline.Pipeline:
        """The way of a call, from the door to the way out."""
        chosen, loop = self._chosen, asyncio.get_running_loop()
        key = _key(chosen.memory / "session-key")
        return pipeline.Pipeline(
            orders.Parts(
                ledger=self._ledger,
                journal=self._journal,
                credentials=lender,
                upstream=self._upstream,
                servers=self._servers,
                writer=records.Writer(self._journal.key),
                telemetry=self._telemetry,
                clock=loop.time,
                wall=time.time,
                spawn=self._spawn,
            ),
            pipeline.Gate(
                guard=caller.Guard(self._local_token, chosen.allowed_hosts),
                sealer=sessions.Sealer(key, entropy=os.urandom, wall=time.time),
                states=states.States(key, entropy=os.urandom, wall=time.time),
                users=self._users,
                ids=ids.Ids(wall=time.time, entropy=os.urandom),
                catalogue=self._lists,
                call_later=loop.call_later,
                jitter=_jitter,
            ),
            current=self._current,
            limits=pipeline.Limits(calls_max=chosen.calls_max),
        )

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        self._journal.start()
        await self._config.restore()
        front = await self._opened()
        if self._chosen.agent_dir is not None:
            agentfiles.write(self._chosen.agent_dir, port=front.port, token=self._local_token)
        desk = await admin.serve(
            host=self._chosen.admin_host,
            port=self._chosen.admin_port,
            ready=lambda: self._current.bound is not None,
            render=self._telemetry.render,
        )
        # A server entry that leads back to us would call itself with our rights (R15).
        self._own.update(
            addresses.own(host, port)
            for host in ("127.0.0.1", "::1", self._chosen.admin_host)
            for port in (front.port, desk.port)
            if port
        )
        if self._chosen.address_file is not None:
            files.write(
                self._chosen.address_file, json.dumps({"port": front.port, "adminPort": desk.port}).encode()
            )
        gc.collect()
        gc.freeze()
        log.info("listening", extra=telemetry.fields(port=front.port, adminPort=desk.port))
        self._spawn(self._config.follow())
        self._spawn(self._telling.run())
        self._spawn(self._faring.run())
        await self._stopping.wait()
        log.info("draining")
        self._pipeline.listeners.drain()
        await front.close(DRAIN_SECONDS)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._pipeline.listeners.close()
        await self._lists.close()
        await self._upstream.close()
        await self._credentials.close()
        self._users.close()
        await desk.close()
        self._journal.close()

    async def _opened(self) -> door.Door:
        """Where agents come in: a port of loopback, or a socket for one uid."""
        limits = door.DoorLimits(body_bytes=self._chosen.body_bytes_max)
        local, folder = self._chosen.local_auth, self._chosen.agent_dir
        if local.way is settings.Way.SOCKET and folder is not None:
            path = folder / agentfiles.SOCKET
            return await door.serve_unix(self._pipeline, path=path, uid=local.uid, limits=limits)
        return await door.serve(self._pipeline, host="127.0.0.1", port=self._chosen.port, limits=limits)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a background task failed", exc_info=error)

    def _greeted(self) -> None:
        """The control plane, or another replica of it, has told us something: it may know nothing of us."""
        self._telling.repeat()
        self._faring.repeat()

    def _providers(self) -> list[faring.Keys]:
        return [faring.Keys(each.provider.name, len(each) > 0, each.failing) for each in self._users.sets()]

    def _network(self) -> snapshot.Network:
        return self._current.bound.snapshot.network if self._current.bound is not None else snapshot.Network()

    def _changed(self, bound: bind.Bound) -> None:
        """A snapshot is in force."""
        self._users.configure(bound.snapshot.providers)
        self._telemetry.configured(bound.digest)
        self._lists.keep(
            bound.servers, moved=[each for each in bound.servers if bound.servers[each].targets is None]
        )
        self._servers.keep(bound)
        self._lenders.configure(bound)
        self._credentials.keep(bound)
        self._pipeline.listeners.configured(bound)
        self._telling.keep(bound.servers)
        active = [
            (key, kind)
            for kind in call.Kind  # everybody's tools first
            for key, held in bound.servers.items()
            if decide.asked(held, kind)
        ]
        self._spawn(self._lists.warm(active))
        self._spawn(self._credentials.warm(_jitter))
        gc.freeze()
        log.info(
            "configuration in force",
            extra=telemetry.fields(version=bound.digest, servers=len(bound.servers)),
        )

    def _observed(self, server: names.ServerId, found: catalog.Definitions) -> None:
        """A server has listed one kind. The operator is told of tools alone by sidecars; the rest is the prober's to tell."""
        changed = self._current.observed(server, found)
        self._pipeline.listeners.observed(server, set(call.Kind) - found.unobserved)
        self._telemetry.dropped(str(server), len(found.dropped))
        if call.Kind.TOOL not in found.unobserved:
            self._spawn(self._telling.listed(server, found, introductions.Introduction()))
        held = self._current.bound.servers.get(server) if self._current.bound is not None else None
        for finding in bind.objections(held, found)[:FINDINGS_LOGGED_MAX] if held is not None else ():
            if self._is_news(str(finding)):
                log.warning(
                    "finding", extra=telemetry.fields(reason=finding.reason.value, finding=str(finding))
                )
        if changed:
            files.write(self._chosen.memory / "definitions.json", self._current.saved())

    async def _post(self, body: bytes) -> tuple[int, bytes]:
        return await self._config.post(prober.REPORT_PATH, body, answer_bytes_max=prober.ANSWER_BYTES_MAX)

    def _is_news(self, text: str) -> bool:
        """Lists come again every minute, and so do their findings: each is said once."""
        if text in self._said:
            return False
        if len(self._said) >= FINDINGS_REMEMBERED_MAX:
            self._said.clear()
        self._said.add(text)
        return True

    def _pools(self) -> list[telemetry.Pool]:
        return [
            telemetry.Pool(
                row.pool, row.spent / budgets.MICRO, row.reserved / budgets.MICRO,
                None if row.limit is None else row.limit / budgets.MICRO, row.resets_at,
            )
            for row in self._ledger.standing(time.time())
        ]  # fmt: skip

    def _counts(self) -> dict[str, float]:
        return {
            "outrider_audit_records": self._journal.records,
            "outrider_audit_dropped": self._journal.dropped,
            "outrider_audit_buffer_records": self._journal.buffered,
        }


def _jitter() -> float:
    return secrets.randbelow(1000) / 1000


def _boot_id() -> str:
    with contextlib.suppress(OSError):
        return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _key(path: pathlib.Path) -> bytes:
    """A key of ours that outlives a restart; made when absent or cut short."""
    with contextlib.suppress(FileNotFoundError):
        held = path.read_bytes()
        if len(held) == _KEY_BYTES:
            return held
    files.write(path, fresh := os.urandom(_KEY_BYTES))
    return fresh


def _token(path: pathlib.Path) -> bytes:
    """The local-auth token; made when absent. Visible ASCII, so that it fits a header."""
    with contextlib.suppress(FileNotFoundError):
        if held := path.read_bytes().strip():
            return held
    files.write(path, fresh := secrets.token_urlsafe(_KEY_BYTES).encode())
    return fresh


async def _serve(chosen: settings.Settings) -> None:
    await (prober.Prober(chosen) if chosen.role == "prober" else Proxy(chosen)).run()


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the proxy. Exits 2 for unusable flags, 1 with one sentence when it cannot start."""
    chosen = settings.parse(arguments)
    telemetry.logs(chosen.log_level)
    os.umask(0o077)
    sys.setswitchinterval(0.0005)  # a busy thread of ours must not hold the loop for the default 5 ms
    try:
        asyncio.run(_serve(chosen))
    except (OSError, journal.JournalUnavailable) as error:
        log.critical("cannot start: %s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
