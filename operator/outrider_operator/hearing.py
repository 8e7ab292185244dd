# SPDX-License-Identifier: Apache-2.0
"""What proxies report of servers and credentials: from those connected here, and from the other replicas.

Made by controller; `streaming` brings reports, `replicas` carries what is new of them to the one that writes status. Refuses what
does not read as a report; a summary of another version of us is left aside, for its receipts count all the same.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

import msgspec

from outrider import names, reports, snapshot
from outrider_operator import lendings, observations, pods, publishing, replicas, reviewer, sightings

log = logging.getLogger("outrider.operator")

TIDY_SECONDS = 30.0

_LENDINGS_BITS = 40
"""The revisions of both books are one number to whoever carries them."""


class _Carried(msgspec.Struct, frozen=True):
    """What travels between replicas; an older one sends the sightings alone, which are an object without these members."""

    sightings: msgspec.Raw
    lendings: msgspec.Raw = msgspec.Raw(b"null")


class Hearing:
    """One replica's sightings and lendings. `prober` is the workload whose word is the catalogue's.

    `given` is a workload's snapshot: of what is not in it, a pod knows nothing, and is not believed.
    """

    def __init__(
        self,
        prober: publishing.Subject,
        *,
        exists: Callable[[names.ServerId], bool],
        given: Callable[[publishing.Subject], snapshot.Snapshot | None],
    ) -> None:
        self._prober = prober
        self._given = given
        self._sightings = sightings.Sightings(exists)
        self._lendings = lendings.Lendings(exists)

    def seen(self) -> Mapping[names.ServerId, observations.Observation]:
        """What is known of every server."""
        return self._sightings.seen()

    def lent(self) -> Mapping[names.ServerId, tuple[lendings.Standing, ...]]:
        """How the credentials of every server fare."""
        return self._lendings.seen()

    def fares(self) -> dict[str, int]:
        """How many credentials are failing, expiring and ready."""
        found = {"failing": 0, "expiring": 0, "ready": 0}
        for standings in self._lendings.seen().values():
            for each in standings:
                found["failing" if each.failing else "expiring" if each.expiring else "ready"] += 1
        return found

    def troubles(self) -> Mapping[str, list[dict[str, object]]]:
        """What credentials and keys are amiss, by pod uid."""
        return self._lendings.troubles()

    def reported(self, who: reviewer.Principal, body: bytes) -> bytes:
        """Takes a report; the answer says of which servers more is wanted. Raises WireError."""
        report, now = reports.decode(body), time.time()
        given = self._given(who.subject)
        servers = () if given is None else given.servers
        reporter = sightings.Reporter(
            uid=who.uid,
            pod=f"{who.namespace}/{who.pod}",
            prober=who.subject == self._prober,
            servers=frozenset(view.id for view in servers),
            needs=lendings.needed(given) if _of_needs(report) else frozenset(),
        )
        self._lendings.reported(reporter, report, now=now)
        return reports.encode(self._sightings.reported(reporter, report, now=now))

    def carried(self) -> replicas.Carried:
        """For the way to the replica that writes status."""
        return replicas.Carried(
            summary=self._summary,
            merge=self._merge,
            revision=lambda: _both(self._sightings.revision, self._lendings.revision),
        )

    def _summary(self, known: int) -> tuple[bytes, int]:
        """What is newer than `known`: of sightings what fits, of lendings all or nothing."""
        seen, upto = self._sightings.told(known >> _LENDINGS_BITS)
        fresh = known % (1 << _LENDINGS_BITS) != self._lendings.revision
        lent = msgspec.Raw(self._lendings.told() if fresh else b"null")
        made = msgspec.json.encode(_Carried(msgspec.Raw(seen), lent))
        return made, _both(upto, self._lendings.revision)

    def _merge(self, replica: str, told: bytes) -> None:
        now = time.time()
        try:
            both = msgspec.json.decode(told, type=_Carried)
        except msgspec.DecodeError:  # of a replica of the version before, or none of ours
            self._sightings.heard(replica, told, now=now)
            return
        self._sightings.heard(replica, bytes(both.sightings), now=now)
        lent = bytes(both.lendings)
        self._lendings.heard(replica, None if lent == b"null" else lent, now=now)

    async def tidy(
        self, known: Callable[[], Mapping[str, pods.Pod]], *, seconds: float = TIDY_SECONDS
    ) -> None:
        """Forgets what pods and servers said that are gone, until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            try:
                self._sightings.keep(known().keys(), now=time.time())
                self._lendings.keep(known().keys(), now=time.time())
            except Exception:  # what is kept for too long harms less than a replica that ends
                log.exception("what is gone was not forgotten because of a bug; the next time will do")


def _of_needs(report: reports.Report) -> bool:
    """Most reports are about servers alone."""
    return report.credentials is not None or report.providers is not None


def _both(seen: int, lent: int) -> int:
    return seen << _LENDINGS_BITS | lent
