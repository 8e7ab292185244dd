# SPDX-License-Identifier: Apache-2.0
"""The chart's alerts: there when they are asked for, and about metrics and labels that a proxy has."""

from __future__ import annotations

import re
from typing import Any

import helm_python
import pytest
from tests.kube import helm
from tests.test_charts import nested

from outrider_sidecar import telemetry

ON: helm.Values = {"metrics": {"prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}}}}
OF_PROMETHEUS = {"namespace", "pod", "job", "instance", "container"}
_WORDS = {"sum", "min", "by", "and", "unless", "ignoring", "time", "increase", "m"}


def rules() -> list[dict[str, Any]]:
    [made] = helm.documents(helm.template(values=ON)["outrider/templates/alerts.yaml"])
    assert made["kind"] == "PrometheusRule"
    assert made["metadata"]["labels"]["release"] == "prometheus"
    return [each for group in made["spec"]["groups"] for each in group["rules"]]


def exported() -> dict[str, set[str]]:
    """Name -> labels of what a proxy exports of credentials."""
    row = telemetry.Credential("crm/salesforce", "org", available=True, expires_at=1.0, refreshed=1, failed=1)
    found: dict[str, set[str]] = {}
    for metric in telemetry.CredentialGauges(lambda: [row]).collect():
        for sample in metric.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_there_are_none_unless_they_are_asked_for() -> None:
    assert "outrider/templates/alerts.yaml" not in helm.template() or not helm.documents(
        helm.template()["outrider/templates/alerts.yaml"]
    )


def test_one_says_that_a_credential_cannot_be_lent_and_one_says_so_before() -> None:
    assert [each["alert"] for each in rules()] == [
        "OutriderCredentialUnavailable",
        "OutriderCredentialExpiringSoon",
    ]


def test_every_metric_and_label_of_an_expression_is_one_that_a_proxy_has() -> None:
    known = exported()
    for rule in rules():
        expression = re.sub(r'"[^"]*"', "", rule["expr"])
        named = set(re.findall(r"outrider_\w+", expression))
        assert named
        assert named <= known.keys(), rule["alert"]
        labels = {label for name in named for label in known[name]} | OF_PROMETHEUS
        others = set(re.findall(r"[a-z_]+", expression)) - named - _WORDS
        assert others <= labels, rule["alert"]
        assert expression.count("(") == expression.count(")")
        assert set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))) <= {"server", "credential"}


def test_the_outcomes_that_are_counted_are_those_that_an_expression_asks_for() -> None:
    row = telemetry.Credential(
        "crm/salesforce", "org", available=True, expires_at=None, refreshed=1, failed=1
    )
    samples = [
        each for metric in telemetry.CredentialGauges(lambda: [row]).collect() for each in metric.samples
    ]
    outcomes = {sample.labels["outcome"] for sample in samples if "outcome" in sample.labels}
    asked = {found for rule in rules() for found in re.findall(r'outcome="(\w+)"', rule["expr"])}
    assert asked == outcomes == {"ok", "failed"}


def test_what_is_said_names_the_credential_and_the_next_command() -> None:
    for rule in rules():
        assert "{{ $labels.credential }} of {{ $labels.server }}" in rule["annotations"]["summary"]
        assert "`outrider doctor`" in rule["annotations"]["description"]
        assert rule["labels"]["severity"] in ("warning", "critical")


def prober(values: helm.Values) -> dict[str, Any]:
    made = helm.documents(helm.template(values=values)["outrider/templates/prober.yaml"])
    found: dict[str, Any] = next(each for each in made if each["kind"] == "Deployment")["spec"]["template"][
        "spec"
    ]
    return found


def test_the_prober_has_a_token_for_vault_and_the_secrets_it_was_given() -> None:
    made = prober(nested("prober.secrets", {"crm/salesforce": "123", "a-b/c": "team.token"}))
    container = made["containers"][0]
    assert {
        "--vault-token-file=/var/run/outrider/tokens/vault",
        "--secrets-dir=/var/run/outrider/secrets",
    } <= set(container["args"])
    sources = next(each for each in made["volumes"] if each["name"] == "tokens")["projected"]["sources"]
    assert [each["serviceAccountToken"]["audience"] for each in sources] == [
        "config.outrider.dev",
        "vault.outrider.dev",
    ]
    mounts = {each["name"]: each for each in container["volumeMounts"] if each["name"].startswith("secret-")}
    volumes = {each["name"]: each["secret"] for each in made["volumes"] if each["name"].startswith("secret-")}
    assert {mounts[name]["mountPath"]: volumes[name]["secretName"] for name in mounts} == {
        "/var/run/outrider/secrets/a-b.c": "team.token", "/var/run/outrider/secrets/crm.salesforce": "123",
    }  # fmt: skip
    assert all(each["readOnly"] for each in mounts.values())
    assert all(each["optional"] for each in volumes.values())


@pytest.mark.parametrize(
    "wrong", [{"salesforce": "x"}, {"crm/../x": "x"}, {"crm/s": "X"}, {"crm/s": ""}, {"crm/s": 5}]
)
def test_a_secret_of_the_prober_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(helm_python.HelmValuesError, match="prober"):
        helm.template(values=nested("prober.secrets", wrong))
