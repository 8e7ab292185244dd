# SPDX-License-Identifier: Apache-2.0
"""Metrics and log lines: what the proxy says about itself.

Called by the pipeline at the end of every request and by main for the scrape. Label children are cached and bounded;
names nobody vouched for (an unknown tool, a session id) are never a label.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TextIO

import prometheus_client
from prometheus_client import core, registry

SERIES_MAX = 5_000
"""Label combinations per metric; what comes after is counted under `other`."""

# Seconds; the boundaries of the OpenTelemetry convention for MCP operation durations.
_DURATION_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_OVERHEAD_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)


class Pool(NamedTuple):
    """One budget counter at the scrape, in calls or currency; `ends_at` in epoch seconds."""

    id: str
    spent: float
    reserved: float
    limit: float | None
    ends_at: float


class Credential(NamedTuple):
    """One entry of a server's credentials at the scrape; `expires_at` in epoch seconds, None for what does not expire."""

    server: str
    name: str
    available: bool
    expires_at: float | None
    refreshed: int
    failed: int


class _Family:
    """One metric with its label children cached: `labels()` of the library costs more than the count."""

    def __init__(self, metric: prometheus_client.Counter | prometheus_client.Histogram) -> None:
        self._metric = metric
        self._children: dict[tuple[str, ...], prometheus_client.Counter | prometheus_client.Histogram] = {}

    def of(self, *labels: str) -> prometheus_client.Counter | prometheus_client.Histogram:
        child = self._children.get(labels)
        if child is None:
            if len(self._children) >= SERIES_MAX:
                labels = ("other",) * len(labels)
            child = self._children[labels] = self._metric.labels(*labels) if labels else self._metric
        return child


class Telemetry:
    """Every metric of the proxy, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        self._decisions = self._counter(
            "outrider_policy_decisions", "Decisions about tool calls.", "policy", "rule", "decision", "reason"
        )
        self._operations = self._histogram(
            "mcp_server_operation_duration_seconds",
            "Requests of agents, from the last byte in to the last byte out.",
            _DURATION_BUCKETS,
            "mcp_method_name", "gen_ai_tool_name", "error_type",
        )  # fmt: skip
        self._client_operations = self._histogram(
            "mcp_client_operation_duration_seconds",
            "Requests to upstream servers.",
            _DURATION_BUCKETS,
            "mcp_method_name", "server", "error_type",
        )  # fmt: skip
        self._overhead = self._histogram(
            "outrider_proxy_overhead_seconds",
            "Time of a call that was ours, not the server's.",
            _OVERHEAD_BUCKETS,
        )
        self._limited = self._counter(
            "outrider_rate_limit_requests", "Calls counted by rate limits.", "budget", "decision"
        )
        self._cost = self._counter(
            "outrider_tool_cost",
            "Cost of calls, in the installation's currency.",
            "server",
            "gen_ai_tool_name",
        )
        self._asks = self._counter(
            "outrider_asks",
            "What servers asked of agents (elicitation, sampling, roots), and whether it was relayed, answered or refused.",
            "server", "mcp_method_name", "decision",
        )  # fmt: skip
        self._config = prometheus_client.Gauge(
            "outrider_sidecar_config_info", "The snapshot in force.", ["version"], registry=self.registry
        )
        self._version: str | None = None
        self.streams = prometheus_client.Gauge(
            "outrider_streams", "Answers to agents that are open as streams.", registry=self.registry
        )
        self._dropped = self._counter(
            "outrider_dropped_tools",
            "Tools a server listed that cannot be used (name, duplicate, too many).",
            "server",
        )

    def _counter(self, name: str, text: str, *labels: str) -> _Family:
        return _Family(prometheus_client.Counter(name, text, labels, registry=self.registry))

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> _Family:
        return _Family(
            prometheus_client.Histogram(name, text, labels, buckets=buckets, registry=self.registry)
        )

    def decided(self, policy: str, rule: str, decision: str, reason: str) -> None:
        self._decisions.of(policy, rule, decision, reason).inc()  # type: ignore[union-attr]

    def limited(self, budget: str, decision: str) -> None:
        self._limited.of(budget, decision).inc()  # type: ignore[union-attr]

    def operated(self, method: str, tool: str, error: str, seconds: float) -> None:
        self._operations.of(method, tool, error).observe(seconds)  # type: ignore[union-attr]

    def upstream(self, method: str, server: str, error: str, seconds: float) -> None:
        self._client_operations.of(method, server, error).observe(seconds)  # type: ignore[union-attr]

    def asked(self, server: str, method: str, decision: str) -> None:
        self._asks.of(server, method, decision).inc()  # type: ignore[union-attr]

    def spent(self, server: str, tool: str, cost: float) -> None:
        self._cost.of(server, tool).inc(cost)  # type: ignore[union-attr]

    def overhead(self, seconds: float) -> None:
        self._overhead.of().observe(seconds)  # type: ignore[union-attr]

    def dropped(self, server: str, tools: int) -> None:
        if tools:
            self._dropped.of(server).inc(tools)  # type: ignore[union-attr]

    def configured(self, version: str) -> None:
        """Only the version in force is a series."""
        if self._version is not None:
            self._config.remove(self._version)
        self._config.labels(version).set(1)
        self._version = version

    def add(self, collector: registry.Collector) -> None:
        """Figures that are read at the scrape: the ledger's and the journal's."""
        self.registry.register(collector)

    def render(self) -> bytes:
        return prometheus_client.generate_latest(self.registry)


class _Line(logging.Formatter):
    """One JSON object per line, whatever is in the message (R31)."""

    def format(self, record: logging.LogRecord) -> str:
        when = dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds")
        line = {"time": when, "level": record.levelname.lower(), "message": record.getMessage()}
        line.update(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[0] is not None:
            # The type and the place, never the text: an exception's words can hold what a caller sent.
            traceback = record.exc_info[2]
            while traceback is not None and traceback.tb_next is not None:
                traceback = traceback.tb_next
            place = f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}" if traceback else ""
            line["error"] = f"{record.exc_info[0].__name__} at {place}"
        return json.dumps(line, ensure_ascii=True, default=str)


def fields(**facts: object) -> dict[str, dict[str, object]]:
    """What `extra=` of a log call takes: facts that stand beside the message in its line."""
    return {"fields": facts}


def logs(level: str, stream: TextIO = sys.stderr) -> logging.Logger:
    """The logger `outrider`, writing JSON lines; third parties' loggers stay at warnings."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Line())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    ours = logging.getLogger("outrider")
    ours.setLevel(level.upper())
    return ours


_JOURNAL_COUNTERS = {
    "outrider_audit_records": "Records written to the journal.",
    "outrider_audit_dropped": "Records that could not be written; their calls were refused.",
}
JOURNAL_COUNTS = (*_JOURNAL_COUNTERS, "outrider_audit_buffer_records")
"""What `Gauges` asks the journal for, by name."""


class Gauges(registry.Collector):
    """Figures read at the scrape from those who keep them: the ledger's budgets and the journal's counts.

    `pools` gives (pool id, spent, reserved, limit or None, period end) in units and epoch seconds.
    """

    def __init__(
        self, pools: Callable[[], Iterable[Pool]], journal: Callable[[], Mapping[str, float]]
    ) -> None:
        self._pools = pools
        self._journal = journal

    def collect(self) -> Iterable[core.Metric]:
        spent = core.GaugeMetricFamily("outrider_budget_spent", "Spent in this period.", labels=["pool"])
        leased = core.GaugeMetricFamily(
            "outrider_budget_leased", "Reserved by calls under way.", labels=["pool"]
        )
        limit = core.GaugeMetricFamily("outrider_budget_limit", "The limit of this period.", labels=["pool"])
        end = core.GaugeMetricFamily(
            "outrider_budget_period_end_timestamp_seconds", "When the period ends.", labels=["pool"]
        )
        for pool in itertools.islice(self._pools(), SERIES_MAX):
            spent.add_metric([pool.id], pool.spent)
            leased.add_metric([pool.id], pool.reserved)
            end.add_metric([pool.id], pool.ends_at)
            if pool.limit is not None:
                limit.add_metric([pool.id], pool.limit)
        yield from (spent, leased, limit, end)
        counts = self._journal()
        for name, text in _JOURNAL_COUNTERS.items():
            yield core.CounterMetricFamily(name, text, value=counts[name])
        yield core.GaugeMetricFamily(
            "outrider_audit_buffer_records",
            "Records written and not synced yet.",
            value=counts["outrider_audit_buffer_records"],
        )


class CredentialGauges(registry.Collector):
    """How credentials fare, read at the scrape. What is lent in users' names has one row for all of them."""

    def __init__(self, rows: Callable[[], Iterable[Credential]]) -> None:
        self._rows = rows

    def collect(self) -> Iterable[core.Metric]:
        labels = ["server", "credential"]
        available = core.GaugeMetricFamily(
            "outrider_credential_available", "1 when the credential can be lent now, else 0.", labels=labels
        )
        expiry = core.GaugeMetricFamily(
            "outrider_credential_expiry_timestamp_seconds",
            "When the credential that is held expires; absent for one that does not.",
            labels=labels,
        )
        refreshes = core.CounterMetricFamily(
            "outrider_credential_refresh",
            "Times that a credential was fetched or renewed, by outcome (ok, failed).",
            labels=[*labels, "outcome"],
        )
        for row in itertools.islice(self._rows(), SERIES_MAX):
            named = [row.server, row.name]
            available.add_metric(named, float(row.available))
            if row.expires_at is not None:
                expiry.add_metric(named, row.expires_at)
            refreshes.add_metric([*named, "ok"], row.refreshed)
            refreshes.add_metric([*named, "failed"], row.failed)
        yield from (available, expiry, refreshes)
