# SPDX-License-Identifier: Apache-2.0
"""What proxies report of servers: from those connected here, and from the other replicas.

Made by controller; `streaming` brings reports, `replicas` carries what is new of them to the one that writes status. Refuses what
does not read as a report; a summary of another version of us is left aside, for its receipts count all the same.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping

from outrider import compile as compiler
from outrider import names
from outrider_operator import observations, pods, publishing, replicas, reviewer, sightings

log = logging.getLogger("outrider.operator")

TIDY_SECONDS = 30.0


class Hearing:
    """One replica's sightings. `prober` is the workload whose word is the catalogue's; `held` gives the objects another was told of."""

    def __init__(
        self,
        prober: publishing.Subject,
        *,
        exists: Callable[[names.ServerId], bool],
        held: Callable[[publishing.Subject], Collection[compiler.Object]],
    ) -> None:
        self._prober = prober
        self._held = held
        self._sightings = sightings.Sightings(exists)

    def seen(self) -> Mapping[names.ServerId, observations.Observation]:
        """What is known of every server."""
        return self._sightings.seen()

    def reported(self, who: reviewer.Principal, body: bytes) -> bytes:
        """Takes a report; the answer says of which servers more is wanted. Raises WireError."""
        prober = who.subject == self._prober
        held = () if prober else self._held(who.subject)
        reporter = sightings.Reporter(
            uid=who.uid,
            pod=f"{who.namespace}/{who.pod}",
            prober=prober,
            servers=frozenset(names.ServerId(*at) for kind, *at in held if kind == "MCPServer"),
        )
        return self._sightings.received(reporter, body, now=time.time())

    def carried(self) -> replicas.Carried:
        """For the way to the replica that writes status."""
        return replicas.Carried(
            summary=self._sightings.told,
            merge=lambda replica, told: self._sightings.heard(replica, told, now=time.time()),
            revision=lambda: self._sightings.revision,
        )

    async def tidy(
        self, known: Callable[[], Mapping[str, pods.Pod]], *, seconds: float = TIDY_SECONDS
    ) -> None:
        """Forgets what pods and servers said that are gone, until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            try:
                self._sightings.keep(known().keys(), now=time.time())
            except Exception:  # what is kept for too long harms less than a replica that ends
                log.exception("what is gone was not forgotten because of a bug; the next time will do")
