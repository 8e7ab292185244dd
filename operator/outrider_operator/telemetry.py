# SPDX-License-Identifier: Apache-2.0
"""Metrics of the control plane: what it watches, compiles, pushes, admits and writes.

Called by controller, which tells it what happened, and by the desk for a scrape. What is a state rather than an event (streams,
age of a watch, leadership) is asked for at the scrape, so that it cannot be stale. No label is a name that a tenant chose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import prometheus_client
from prometheus_client import core, registry

# Seconds; a push is due within two (performance.md), a webhook is given ten.
_SECONDS_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)


class Telemetry:
    """Every metric of one replica, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        self._reconciles = self._histogram(
            "outrider_reconcile_duration_seconds", "From a change seen to the new snapshots compiled."
        )
        self._failures = self._counter(
            "outrider_reconcile_failures", "Changes that a bug of ours kept from being used."
        )
        self._pushes = self._histogram(
            "outrider_push_duration_seconds", "From snapshots compiled to offered on every stream concerned."
        )
        self._acks = self._histogram(
            "outrider_ack_lag_seconds", "From an offer on a stream to its acknowledgement."
        )
        self._refusals = self._counter("outrider_config_refusals", "Offers that a sidecar refused (NACK).")
        self._admissions = self._counter(
            "outrider_webhook_requests", "Admission requests, by webhook and answer.", "webhook", "answer"
        )
        self._admitted = self._histogram(
            "outrider_webhook_duration_seconds", "Time to answer an admission request.", "webhook"
        )
        self._writes = self._counter(
            "outrider_status_writes", "Writes of status, by outcome.", "kind", "outcome"
        )

    def _counter(self, name: str, text: str, *labels: str) -> prometheus_client.Counter:
        return prometheus_client.Counter(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> prometheus_client.Histogram:
        return prometheus_client.Histogram(
            name, text, labels, buckets=_SECONDS_BUCKETS, registry=self.registry
        )

    def reconciled(self, seconds: float) -> None:
        self._reconciles.observe(seconds)

    def failed(self) -> None:
        self._failures.inc()

    def pushed(self, seconds: float) -> None:
        self._pushes.observe(seconds)

    def acknowledged(self, seconds: float, *, accepted: bool) -> None:
        """An answer to an offer, `seconds` after it was sent."""
        self._acks.observe(seconds)
        if not accepted:
            self._refusals.inc()

    def admitted(self, webhook: str, answer: str, seconds: float) -> None:
        """`answer` is allowed, injected, refused or failed."""
        self._admissions.labels(webhook, answer).inc()
        self._admitted.labels(webhook).observe(seconds)

    def wrote(self, kind: str, outcome: str) -> None:
        """A status written; `outcome` is written, gone or failed."""
        self._writes.labels(kind, outcome).inc()

    def watch(self, states: States) -> None:
        """Adds what is asked for at each scrape."""
        self.registry.register(states)

    def render(self) -> bytes:
        """The page of `GET /metrics`."""
        return prometheus_client.generate_latest(self.registry)


Gauge = tuple[str, str, str | None]
"""Name, sentence, and the one label if it has one."""

GAUGES: tuple[Gauge, ...] = (
    ("outrider_streams", "Config streams open on this replica.", None),
    ("outrider_leader", "1 on the replica that writes status and rotates certificates.", None),
    ("outrider_frozen", "1 for a collection that stays on its last good state.", "collection"),
    (
        "outrider_watch_last_event_age_seconds",
        "Since the API server last said anything about a collection; bookmarks count.",
        "collection",
    ),
    ("outrider_watched_objects", "Objects known of a collection.", "collection"),
    (
        "outrider_certificate_expiry_timestamp_seconds",
        "When a certificate of ours ends, in Unix time.",
        "certificate",
    ),
    ("outrider_credentials", "Credentials of servers that proxies have told of, by how they fare.", "state"),
    ("outrider_findings", "Findings about the objects in force, by reason.", "reason"),
    ("outrider_desired_config_info", "Distinct snapshots offered by this replica.", None),
)


class States(registry.Collector):
    """What is read at the scrape: `read` gives, for each gauge's name, label value to value ('' without a label)."""

    def __init__(self, read: Callable[[], Mapping[str, Mapping[str, float]]]) -> None:
        self._read = read

    def collect(self) -> Iterator[core.Metric]:
        found = self._read()
        for name, text, label in GAUGES:
            family = core.GaugeMetricFamily(name, text, labels=[label] if label else [])
            for value, number in sorted(found.get(name, {}).items()):
                family.add_metric([value] if label else [], number)
            yield family

    def describe(self) -> Iterable[core.Metric]:
        """Known without asking: what `read` needs is not there yet when this is registered."""
        return [
            core.GaugeMetricFamily(name, text, labels=[label] if label else [])
            for name, text, label in GAUGES
        ]
