# SPDX-License-Identifier: Apache-2.0
"""What proxies report of servers, as bytes: from those connected here, and from the other replicas.

Made by controller; `streaming` brings reports, `replicas` carries what is new of them to the one that writes status. Refuses what
does not read as a report; a summary of another version of us is left aside, for its receipts count all the same.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

import msgspec

from outrider import names, reports
from outrider_operator import observations, pods, publishing, replicas, reviewer, sightings

log = logging.getLogger("outrider.operator")

TIDY_SECONDS = 30.0


class Hearing:
    """One replica's sightings. `prober` is the workload whose word is the catalogue's."""

    def __init__(self, prober: publishing.Subject, *, exists: Callable[[names.ServerId], bool]) -> None:
        self._prober = prober
        self._sightings = sightings.Sightings(exists)

    def seen(self) -> Mapping[names.ServerId, observations.Observation]:
        """What is known of every server."""
        return self._sightings.seen()

    def reported(self, who: reviewer.Principal, body: bytes) -> bytes:
        """Takes a report; the answer says of which servers more is wanted. Raises WireError."""
        report = reports.decode(body)
        prober = who.subject == self._prober
        reporter = sightings.Reporter(uid=who.uid, pod=f"{who.namespace}/{who.pod}", prober=prober)
        return reports.encode(self._sightings.reported(reporter, report, now=time.time()))

    def carried(self) -> replicas.Carried:
        """For the way to the replica that writes status."""
        return replicas.Carried(
            summary=self._summary, merge=self._merge, revision=lambda: self._sightings.revision
        )

    async def tidy(self, known: Callable[[], Mapping[str, pods.Pod]]) -> None:
        """Forgets what pods and servers said that are gone, until cancelled."""
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            self._sightings.keep(known().keys(), now=time.time())

    def _summary(self, since: int) -> tuple[bytes, int]:
        made = self._sightings.summary(since)
        return msgspec.json.encode(made), made.revision

    def _merge(self, replica: str, summary: bytes) -> None:
        try:
            made = msgspec.json.decode(summary, type=sightings.Summary)
        except msgspec.DecodeError as error:
            fields = {"of": replica, "why": str(error)}
            log.warning("what another replica heard was not understood", extra={"fields": fields})
        else:
            self._sightings.merge(replica, made, now=time.time())
