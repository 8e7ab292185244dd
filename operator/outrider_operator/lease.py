# SPDX-License-Identifier: Apache-2.0
"""Which replica leads: one `coordination.k8s.io` Lease, held for 15 s, renewed every 2 s, given up after 10 s without success.

Run by controller. A leader counts from before its last successful write; everybody else from when that write was first seen, by a
clock of their own that no correction of the time of day moves. So who cannot renew has stopped for some seconds before another may start, whatever
the API server, the network or a paused process do in between. What a leader does must still be harmless when done twice: a write
in flight cannot be called back.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from outrider_operator import cluster

log = logging.getLogger("outrider.operator.lease")

LEASE_SECONDS = 15.0
RENEW_SECONDS_MAX = 10.0
RETRY_SECONDS = 2.0
FOREIGN_LEASE_SECONDS_MAX = 60.0
"""However long another says that it holds the Lease."""

RELEASE_SECONDS_MAX = 2.0


class Leases(Protocol):
    """Of cluster.Cluster, what is used here."""

    async def get_lease(self, namespace: str, name: str) -> dict[str, Any] | None: ...

    async def create_lease(self, namespace: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]: ...

    async def replace_lease(self, lease: Mapping[str, Any]) -> dict[str, Any]: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Holder:
    """Who leads, and host:port where other replicas reach it."""

    identity: str
    address: str

    def __str__(self) -> str:
        return f"{self.identity}/{self.address}"

    @classmethod
    def parse(cls, text: str) -> Holder:
        identity, _, address = text.partition("/")
        return cls(identity, address)


@dataclasses.dataclass(frozen=True, slots=True)
class _Seen:
    """A Lease's spec, and when it was first seen to be so."""

    spec: Mapping[str, Any]
    at: float

    @property
    def holder(self) -> str:
        return str(self.spec.get("holderIdentity") or "")

    @property
    def until(self) -> float:
        seconds = float(self.spec.get("leaseDurationSeconds") or LEASE_SECONDS)
        return self.at + min(seconds, FOREIGN_LEASE_SECONDS_MAX)


def boot_clock() -> float:
    """Seconds that pass while a machine sleeps, too; nobody can set it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Elector:
    """One replica's part in it. `started` and `stopped` are called in the loop, alternately."""

    def __init__(  # noqa: PLR0913 - what an election is about, each by its name
        self,
        leases: Leases,
        *,
        namespace: str,
        name: str,
        identity: str,
        advertise: str,
        started: Callable[[], None] = lambda: None,
        stopped: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self._leases, self._namespace, self._name = leases, namespace, name
        self._own = Holder(identity, advertise)
        self._started, self._stopped, self._clock = started, stopped, clock
        self._lease: dict[str, Any] | None = None
        self._seen: _Seen | None = None
        self._until: float | None = None
        self.problem = ""
        """Why the Lease could not be read or written last, as a sentence; "" when it could."""

    @property
    def leading(self) -> bool:
        """True while nobody else can lead. Ask again before every write: it ends by itself."""
        return self._until is not None and self._clock() < self._until

    @property
    def holder(self) -> Holder | None:
        """Who leads as far as this replica can know; None when nobody does or the Lease has run out."""
        if self._seen is None or not self._seen.holder or self._clock() >= self._seen.until:
            return None
        return Holder.parse(self._seen.holder)

    async def run(self) -> None:
        """Until cancelled; then somebody else may lead at once."""
        try:
            while True:
                await self._attempt()
                await asyncio.sleep(self._pause())
        finally:
            await self._release()

    # One attempt ----------------------------------------------------------------------------------------------------

    async def _attempt(self) -> None:
        limit = RENEW_SECONDS_MAX if self._until is None else max(0.0, self._until - self._clock())
        try:
            async with asyncio.timeout(limit):
                await (self._acquire() if self._until is None else self._renew())
        except TimeoutError:
            self._failed("the API server did not answer in time")
        except cluster.ClusterError as error:
            # Another was faster, or wrote in between: what it wrote is read at the next attempt.
            self._lease = None
            self._failed("" if error.status == 409 else str(error))
        if self._until is not None and not self.leading:
            self._lose("the Lease could not be renewed in time")

    async def _acquire(self) -> None:
        lease = await self._leases.get_lease(self._namespace, self._name)
        self._see(lease)
        if lease is None:
            began = self._clock()
            lease = await self._leases.create_lease(self._namespace, self._name, self._spec({}))
            self._win(lease, began)
        elif self._seen is not None and (
            self._seen.holder in ("", str(self._own)) or self._clock() >= self._seen.until
        ):
            await self._write(lease)
        self.problem = ""

    async def _renew(self) -> None:
        lease = self._lease
        if lease is None:
            lease = await self._leases.get_lease(self._namespace, self._name)
            self._see(lease)
            if self._seen is None or self._seen.holder != str(self._own):
                self._lose("another replica holds the Lease" if lease else "the Lease was deleted")
                return
            assert lease is not None
        await self._write(lease)
        self.problem = ""

    async def _write(self, lease: Mapping[str, Any]) -> None:
        began = self._clock()
        made = await self._leases.replace_lease({**lease, "spec": self._spec(lease.get("spec") or {})})
        self._win(made, began)

    def _spec(self, before: Mapping[str, Any]) -> dict[str, Any]:
        now = _timestamp()
        ours = before.get("holderIdentity") == str(self._own)
        return {
            **before,
            "holderIdentity": str(self._own),
            "leaseDurationSeconds": int(LEASE_SECONDS),
            "acquireTime": before.get("acquireTime") if ours else now,
            "renewTime": now,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (0 if ours or not before else 1),
        }

    # What follows ---------------------------------------------------------------------------------------------------

    def _see(self, lease: Mapping[str, Any] | None) -> None:
        spec = None if lease is None else (lease.get("spec") or {})
        if spec is None:
            self._seen = None
        elif self._seen is None or self._seen.spec != spec:
            self._seen = _Seen(spec, self._clock())

    def _win(self, lease: dict[str, Any], began: float) -> None:
        """`began` is from before the write was sent: nobody can have seen it earlier."""
        self._lease = lease
        self._see(lease)
        first = self._until is None
        self._until = began + RENEW_SECONDS_MAX
        if first:
            log.info("leading", extra={"fields": {"identity": self._own.identity}})
            self._tell(self._started)

    def _lose(self, why: str, level: int = logging.WARNING) -> None:
        if self._until is None:
            return
        self._until, self._lease = None, None
        log.log(level, "no longer leading", extra={"fields": {"identity": self._own.identity, "why": why}})
        self._tell(self._stopped)

    def _failed(self, why: str) -> None:
        if why and why != self.problem:
            log.warning("the Lease was not read or written", extra={"fields": {"why": why}})
        self.problem = why

    def _tell(self, callback: Callable[[], None]) -> None:
        """A bug of whoever is told must not end the election."""
        try:
            callback()
        except Exception:
            log.exception("a change of leadership was not followed because of a bug")

    def _pause(self) -> float:
        pause = RETRY_SECONDS * random.uniform(1.0, 1.2)  # noqa: S311 - spreads replicas
        return pause if self._until is None else min(pause, max(0.0, self._until - self._clock()))

    async def _release(self) -> None:
        lease, leading = self._lease, self.leading
        self._lose("this replica stops", logging.INFO)
        if lease is None or not leading:
            return
        spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _timestamp()}
        try:
            async with asyncio.timeout(RELEASE_SECONDS_MAX):
                await self._leases.replace_lease({**lease, "spec": spec})
        except (TimeoutError, cluster.ClusterError) as error:
            fields = {"why": str(error) or "the API server did not answer in time"}
            log.warning("the Lease was not released; it runs out by itself", extra={"fields": fields})


def _timestamp() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
