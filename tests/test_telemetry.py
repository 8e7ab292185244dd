# SPDX-License-Identifier: Apache-2.0
"""Metrics and log lines."""

from __future__ import annotations

import io
import json

from outrider_sidecar import telemetry


def test_counts_come_out_under_the_documented_names() -> None:
    subject = telemetry.Telemetry()
    subject.decided("crm/p", "r", "allow", "Allowed")
    subject.operated("tools/call", "query", "", 0.012)
    subject.spent("crm/salesforce", "query", 0.01)
    subject.overhead(0.0004)
    subject.limited("crm/b", "deny")
    subject.upstream("tools/call", "crm/salesforce", "", 0.01)
    text = subject.render().decode()
    assert (
        'outrider_policy_decisions_total{decision="allow",policy="crm/p",reason="Allowed",rule="r"} 1.0'
        in text
    )
    assert (
        'mcp_server_operation_duration_seconds_count{error_type="",gen_ai_tool_name="query",mcp_method_name="tools/call"} 1.0'
        in text
    )
    for name in (
        "outrider_tool_cost_total",
        "outrider_proxy_overhead_seconds_count",
        "outrider_rate_limit_requests_total",
        "mcp_client_operation_duration_seconds_count",
    ):
        assert name in text


def test_only_the_version_in_force_is_a_series() -> None:
    subject = telemetry.Telemetry()
    subject.configured("one")
    subject.configured("two")
    text = subject.render().decode()
    assert 'outrider_sidecar_config_info{version="two"} 1.0' in text
    assert '"one"' not in text


def test_series_are_capped() -> None:
    subject = telemetry.Telemetry()
    for number in range(telemetry.SERIES_MAX + 50):
        subject.limited(f"b{number}", "deny")
    assert subject.render().count(b"outrider_rate_limit_requests_total{") == telemetry.SERIES_MAX + 1
    assert b'budget="other",decision="other"} 50.0' in subject.render()


def test_a_log_line_stays_one_json_object_whatever_it_is_given() -> None:
    stream = io.StringIO()
    log = telemetry.logs("info", stream)
    log.info("line\nbreak \u2028 %s", "x", extra={"fields": {"request": "01J"}})
    try:
        int("canary-secret")
    except ValueError:
        log.exception("failed")
    first, second = (json.loads(line) for line in stream.getvalue().strip().split("\n"))
    assert (first["request"], first["level"]) == ("01J", "info")
    assert second["error"].startswith("ValueError at ")
    assert "canary" not in stream.getvalue()


def test_how_credentials_fare_is_read_at_the_scrape() -> None:
    rows = [
        telemetry.Credential("crm/api", "org", True, 1_900.0, 3, 1), telemetry.Credential("crm/api", "kv", False, None, 0, 2),
    ]  # fmt: skip
    told = telemetry.Telemetry()
    told.add(telemetry.CredentialGauges(lambda: rows))
    lines = told.render().decode().splitlines()
    org, other = 'credential="org",server="crm/api"', 'credential="kv",server="crm/api"'
    assert f"outrider_credential_available{{{org}}} 1.0" in lines
    assert f"outrider_credential_available{{{other}}} 0.0" in lines
    assert f"outrider_credential_expiry_timestamp_seconds{{{org}}} 1900.0" in lines
    assert not any(
        line.startswith(f"outrider_credential_expiry_timestamp_seconds{{{other}") for line in lines
    )
    refreshed = "outrider_credential_refresh_total"
    assert f'{refreshed}{{credential="org",outcome="ok",server="crm/api"}} 3.0' in lines
    assert f'{refreshed}{{credential="kv",outcome="failed",server="crm/api"}} 2.0' in lines


def test_credentials_beyond_the_bound_are_no_series() -> None:
    told = telemetry.Telemetry()
    row = telemetry.Credential("crm/api", "org", True, None, 0, 0)
    many = [row._replace(name=str(number)) for number in range(telemetry.SERIES_MAX + 10)]
    told.add(telemetry.CredentialGauges(lambda: many))
    assert told.render().count(b"\noutrider_credential_available{") == telemetry.SERIES_MAX
