# SPDX-License-Identifier: Apache-2.0
"""How a replica stands: why it may not be sent anything yet, and the gauges of its metrics.

Called by desk through controller, at each probe and each scrape. Asks the parts; keeps nothing itself, so that it cannot be stale.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping

from outrider import compile as compiler
from outrider_operator import desk, keeper, offers, publishing, reflector
from outrider_operator.sources import kubernetes

_GONE = (reflector.Reason.CRD_GONE, reflector.Reason.NOT_SERVED)

API_SERVERS = "api-servers"
"""What metrics call the API server's endpoints, beside the collections that are watched."""


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """The parts that are asked.

    `admission` says why it is not served, ''; `bug` what kept the last change from being used, ''; `leading` whether this replica
    holds the Lease; `lent` counts credentials by how they fare.
    """

    source: kubernetes.Source
    offered: offers.Offers
    publisher: publishing.Publisher
    certificates: keeper.Keeper
    inspection: compiler.Inspection
    admission: Callable[[], str]
    bug: Callable[[], str]
    leading: Callable[[], bool]
    lent: Callable[[], Mapping[str, int]] = dict

    def unready(self) -> desk.Reasons:
        """A sentence for each reason. A list that only fails is none: running agents are better served by what was known."""
        found = [*self.source.unready(), *self._gone()]
        if not self.offered.ready and not found:
            found.append(self.bug() or "the first configuration is being compiled")
        if not self.certificates.ready:
            found.append(f"certificates: {self.certificates.problem or 'there is none yet'}")
        if problem := self.admission():
            found.append(f"admission: {problem}")
        if self.publisher.draining:
            found.append("stopping")
        return tuple(dict.fromkeys(found))

    def silent(self) -> str:
        """Why no new stream is served, as a sentence; '' when they are. Those that are open stay, with what was known."""
        if not self.offered.ready:
            return "this replica has not read everything yet"
        return next(iter(self._gone()), "")

    def _gone(self) -> list[str]:
        """The kinds that are not the API server's any more: what a new proxy would be told of them may be long over."""
        states = {name: each.state for name, each in self.source.reflectors.items()}
        return [f"{name}: {state.why}" for name, state in states.items() if state.reason in _GONE]

    def gauges(self) -> Mapping[str, Mapping[str, float]]:
        """As telemetry.GAUGES names them."""
        reflectors, servers, now = self.source.reflectors, self.source.api_servers, time.time()
        frozen = reflector.Phase.FROZEN
        return {
            "outrider_streams": {"": len(self.publisher.streams)},
            "outrider_leader": {"": float(self.leading())},
            "outrider_desired_config_info": {"": self.publisher.versions},
            "outrider_frozen": {
                **{name: float(each.state.phase is frozen) for name, each in reflectors.items()},
                API_SERVERS: float(bool(servers.problem)),
            },
            "outrider_watch_last_event_age_seconds": {
                # What was never heard is no age, and yet must not look like a fresh one.
                name: max(0.0, now - each.last_event_at) if each.last_event_at else math.inf
                for name, each in reflectors.items()
            },
            "outrider_watched_objects": {
                **{name: len(each.objects) for name, each in reflectors.items()},
                API_SERVERS: len(servers.addresses),
            },
            "outrider_certificate_expiry_timestamp_seconds": self.certificates.expiries,
            "outrider_credentials": self.lent(),
            "outrider_findings": self.inspection.counts(),
        }
