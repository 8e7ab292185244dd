# SPDX-License-Identifier: Apache-2.0
"""The charts' values: each is read by a template, has a default and a description, and a misspelt one is refused with its place."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import helm_python
import pytest
import yaml
from tests.kube import helm
from tests.test_charts import CERT_MANAGER, CHARTS, EVERYTHING, PROVIDED, merged, nested

BEHIND = [  # values that only mean something in one mode of certificates
    ("webhook.certs.secretName", PROVIDED),
    ("webhook.certs.caBundle", PROVIDED),
    ("webhook.certs.certManager", CERT_MANAGER),
]

OKTA = {
    "name": "okta",
    "issuer": "https://okta.example",
    "audience": "o",
    "jwksUri": "https://okta.example/k",
}
OKTA_BY_HTTP = {"identityProviders": [{**OKTA, "jwksUri": "http://okta.example/k"}]}


def value_at(values: Mapping[str, Any], path: str, default: Any) -> Any:
    for name in path.split("."):
        if name not in values:
            return default
        values = values[name]
    return values


def schema_of(chart: pathlib.Path) -> dict[str, Any]:
    return json.loads((chart / "values.schema.json").read_text())


def at(schema: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    node = schema
    for name in path.split("."):
        node = resolved(schema, node)["properties"][name]
    return resolved(schema, node)


def resolved(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in node:
        return node
    return {**schema["$defs"][node["$ref"].rpartition("/")[2]], **node}


def leaves(values: Mapping[str, Any], schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Path and default of every value that a person can set; a map of a person's own names is one value."""
    for name, value in values.items():
        full = f"{path}.{name}".lstrip(".")
        if isinstance(value, dict) and value and "examples" not in at(schema, full):
            yield from leaves(value, schema, full)
        else:
            yield full, value


def other(node: Mapping[str, Any], default: Any) -> Any:
    """Another value that the schema allows."""
    if "examples" in node:
        return node["examples"][0]
    if "enum" in node:
        return next(each for each in node["enum"] if each != default)
    if node["type"] == "boolean":
        return not default
    assert node["type"] == "integer", f"give {node} examples"
    return default + 1 if default < node["maximum"] else default - 1


LEAVES = [
    (chart, path, default)
    for chart in CHARTS
    for path, default in leaves(yaml.safe_load((chart / "values.yaml").read_text()), schema_of(chart))
]


@pytest.mark.parametrize(
    ("chart", "path", "default"), LEAVES, ids=lambda each: getattr(each, "name", str(each))
)
def test_every_value_changes_something(chart: pathlib.Path, path: str, default: Any) -> None:
    base = EVERYTHING if chart == helm.OUTRIDER else {}
    for prefix, needed in BEHIND:
        base = merged(base, needed) if path.startswith(prefix) else base
    standing = value_at(base, path, default)
    changed = other(at(schema_of(chart), path), standing)
    before = helm.template(chart, base)
    after = helm.template(chart, merged(base, nested(path, changed)))
    assert before != after, f"nothing reads {path}"


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
def test_every_value_of_the_schema_has_a_default_and_the_other_way_round(chart: pathlib.Path) -> None:
    schema, values = schema_of(chart), yaml.safe_load((chart / "values.yaml").read_text())
    helm.template(chart, values)

    def compare(node: Mapping[str, Any], value: Any, path: str) -> None:
        node = resolved(schema, node)
        if "properties" in node and "examples" not in node:
            assert set(node["properties"]) - {"global"} == set(value), path
            for name in value:
                compare(node["properties"][name], value[name], f"{path}.{name}")

    compare(schema, values, "")


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
def test_the_schema_is_closed_on_every_level_and_describes_every_value(chart: pathlib.Path) -> None:
    def walk(node: Any, path: str) -> None:
        if isinstance(node, list):
            for index, each in enumerate(node):
                walk(each, f"{path}[{index}]")
        if not isinstance(node, dict):
            return
        if "properties" in node and isinstance(node["properties"], dict):
            assert node.get("additionalProperties") is False, path
            for name, child in node["properties"].items():
                assert "description" in child or "$ref" in child, f"{path}.{name} is not described"
        elif node.get("type") == "object" and "additionalProperties" not in node:
            # A type of Kubernetes' own, which the API server checks; nothing else may be open.
            assert re.search(
                r"checked by the API server|Set by Helm|^By labels|^Beside|^Away|Which pods",
                node["description"],
            ), path
        for key, child in node.items():
            if key != "examples":
                walk(child, f"{path}.{key}")

    walk(schema_of(chart), "")


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"replicas": 3}, "'replicas'"),
        ({"operator": {"replica": 3}}, "/operator"),
        ({"operator": {"replicas": "three"}}, "/operator/replicas"),
        ({"operator": {"replicas": 0}}, "/operator/replicas"),
        ({"images": {"sidecar": {"name": "x"}}}, "/images/sidecar"),
        ({"images": {"sidecar": {"digest": "latest"}}}, "/images/sidecar/digest"),
        ({"webhook": {"certs": {"mode": "certmanager"}}}, "/webhook/certs/mode"),
        ({"settings": {"consumerConsents": "Required"}}, "/settings"),
        ({"settings": {"teams": [{"name": "sales", "namespace": ["a"]}]}}, "/settings/teams/0"),
        ({"settings": {"injection": {"image": "mine"}}}, "/settings/injection"),
        ({"settings": {"injection": {"localAuth": "token"}}}, "/settings/injection/localAuth"),
        ({"settings": {"workload": {"namespace": "a", "serviceAccount": "b"}}}, "/settings"),
        ({"metrics": {"podMonitor": {"enabled": "yes"}}}, "/metrics/podMonitor/enabled"),
        ({"settings": {"vault": {"adress": "https://v"}}}, "/settings/vault"),
        ({"settings": {"vault": {"address": "https://v/path"}}}, "/settings/vault/address"),
        ({"settings": {"vault": {"address": "http://vault.example:8200"}}}, "/settings/vault/address"),
        ({"settings": {"vault": {"address": "http://localhost.example"}}}, "/settings/vault/address"),
        ({"settings": {"identityProviders": [{"name": "okta"}]}}, "/settings/identityProviders/0"),
        ({"settings": OKTA_BY_HTTP}, "/settings/identityProviders/0/jwksUri"),
        ({"settings": {"teams": [{"name": "sales", "groups": ["sales"]}]}}, "/settings/teams/0/groups/0"),
        ({"gateway": {"enabled": True}}, "'gateway'"),
        ({"prober": {"tolerations": [{"keys": "x"}]}}, "/prober/tolerations/0"),
    ],
    ids=str,
)
def test_a_value_that_does_not_exist_is_refused_with_its_place(values: helm.Values, place: str) -> None:
    with pytest.raises(helm_python.HelmValuesError) as refused:
        helm.template(values=values)
    assert place in str(refused.value)


def test_vault_and_providers_are_taken_by_https_and_on_this_machine() -> None:
    for host in ("https://vault.example:8200", "http://127.0.0.1:8200", "http://[::1]:8200"):
        provider = {**OKTA, "issuer": host, "jwksUri": f"{host}/k?v=1", "tokenEndpoints": [f"{host}/token"]}
        helm.template(values={"settings": {"vault": {"address": host}, "identityProviders": [provider]}})


def test_provided_certificates_need_a_secret_and_a_ca_and_say_so() -> None:
    for missing in ("secretName", "caBundle"):
        values = merged(PROVIDED, nested(f"webhook.certs.{missing}", ""))
        with pytest.raises(
            helm_python.HelmRenderError, match=f"webhook.certs.{missing}: with mode provided, give"
        ):
            helm.template(values=values)
