# SPDX-License-Identifier: Apache-2.0
"""The control plane's metrics: counted when told, read when asked, and never with a tenant's name in a label."""

from __future__ import annotations

import re

from prometheus_client import parser

from outrider_operator import telemetry


def samples(page: bytes) -> dict[str, float]:
    return {
        sample.name + "".join(f"{{{value}}}" for _, value in sorted(sample.labels.items())): sample.value
        for family in parser.text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def test_what_happened_is_counted() -> None:
    subject = telemetry.Telemetry()
    subject.reconciled(0.002)
    subject.failed()
    subject.pushed(0.02)
    subject.acknowledged(0.1, accepted=True)
    subject.acknowledged(0.1, accepted=False)
    subject.admitted("inject", "refused", 0.004)
    subject.wrote("MCPServer", "written")
    found = samples(subject.render())
    assert found["outrider_reconcile_duration_seconds_count"] == 1
    assert found["outrider_reconcile_failures_total"] == 1
    assert found["outrider_push_duration_seconds_sum"] == 0.02
    assert found["outrider_ack_lag_seconds_count"] == 2
    assert found["outrider_config_refusals_total"] == 1
    assert found["outrider_webhook_requests_total{refused}{inject}"] == 1
    assert found["outrider_webhook_duration_seconds_count{inject}"] == 1
    assert found["outrider_status_writes_total{MCPServer}{written}"] == 1


def test_a_state_is_read_at_the_scrape() -> None:
    subject = telemetry.Telemetry()
    now = {"outrider_streams": {"": 3.0}, "outrider_frozen": {"servers": 1.0, "policies": 0.0}}
    subject.watch(telemetry.States(lambda: now))
    assert samples(subject.render())["outrider_streams"] == 3
    now["outrider_streams"] = {"": 4.0}
    found = samples(subject.render())
    assert found["outrider_streams"] == 4
    assert found["outrider_frozen{servers}"] == 1
    assert found["outrider_frozen{policies}"] == 0


def test_every_gauge_is_described_before_there_is_anything_to_read() -> None:
    states = telemetry.States(lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    assert {family.name for family in states.describe()} == {name for name, _, _ in telemetry.GAUGES}
    for name, text, _ in telemetry.GAUGES:
        assert re.fullmatch(r"outrider_[a-z_]+", name)
        assert text.endswith(".")
