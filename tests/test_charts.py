# SPDX-License-Identifier: Apache-2.0
"""The charts as text: copies of the code are fresh, and what comes out of every combination that users meet is what Pod Security and
the control plane's names demand. No cluster; test_chart_values is about the values themselves."""

from __future__ import annotations

import copy
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
from charts import generate
from tests.kube import helm

ROOT = pathlib.Path(__file__).resolve().parents[1]
CHARTS = [helm.OUTRIDER, helm.DEMO]
EVERYTHING: helm.Values = {
    "networkPolicy": {"enabled": True},
    "metrics": {
        "podMonitor": {"enabled": True},
        "serviceMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
    },
    "argocd": {"healthChecks": True},
}
PROVIDED: helm.Values = {
    "webhook": {
        "certs": {
            "mode": "provided",
            "secretName": "serving",
            "caBundle": "-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----\n",
        }
    }
}
CERT_MANAGER: helm.Values = {"webhook": {"certs": {"mode": "certManager"}}}


def merged(*parts: helm.Values) -> helm.Values:
    made: helm.Values = {}
    for part in parts:
        _merge(made, copy.deepcopy(part))
    return made


def _merge(into: helm.Values, part: helm.Values) -> None:
    for key, value in part.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def nested(path: str, value: Any) -> helm.Values:
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def test_copies_of_the_code_are_fresh() -> None:
    made = generate.files()
    stale = [str(path) for path, text in made.items() if (ROOT / path).read_text() != text]
    assert stale == [], "run `make generate`"
    crds = ROOT / generate.CHART / "files" / "crds"
    assert {path.name for path in crds.iterdir()} == {path.name for path in (ROOT / "crds").glob("*.yaml")}


def test_the_kinds_come_out_as_crds_has_them() -> None:
    wanted = [each for path in (ROOT / "crds").glob("*.yaml") for each in helm.documents(path.read_text())]
    for keep in (True, False):
        made = {
            (each["kind"], each["metadata"]["name"]): each
            for each in helm.documents(
                helm.template(values={"crds": {"keep": keep}})["outrider/templates/crds.yaml"]
            )
        }
        for each in wanted:
            found = made[each["kind"], each["metadata"]["name"]]
            assert found["spec"] == each["spec"]
            assert each["metadata"].get("labels", {}).items() <= found["metadata"]["labels"].items()
            policy = found["metadata"].get("annotations", {}).get("helm.sh/resource-policy")
            assert policy == ("keep" if keep and each["kind"] == "CustomResourceDefinition" else None)
    assert (
        helm.documents(helm.template(values={"crds": {"enabled": False}})["outrider/templates/crds.yaml"])
        == []
    )


MATRIX: dict[str, helm.Values] = {
    "defaults": {},
    "everything": EVERYTHING,
    "cert-manager": CERT_MANAGER,
    "cert-manager with an issuer": merged(
        CERT_MANAGER,
        nested("webhook.certs.certManager.issuerRef", {"name": "vault", "kind": "ClusterIssuer"}),
    ),
    "provided certificates": PROVIDED,
    "no prober": {"prober": {"enabled": False}},
    "no kinds": {"crds": {"enabled": False}},
    "kinds that go": {"crds": {"keep": False}},
    "one replica without a budget": {"operator": {"replicas": 1, "podDisruptionBudget": {"enabled": False}}},
    "three replicas, half must stay": {
        "operator": {"replicas": 3, "podDisruptionBudget": {"minAvailable": "50%"}}
    },
    "private registry": {
        "images": {
            "operator": {"repository": "registry.example.com/operator", "digest": f"sha256:{'a' * 64}"},
            "sidecar": {"repository": "registry.example.com/sidecar", "tag": "1.2.3", "pullPolicy": "Always"},
        },
        "imagePullSecrets": [{"name": "regcred"}],
    },
    "placed": {
        each: {
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}],
            "affinity": {"nodeAffinity": {}},
            "priorityClassName": "system-cluster-critical",
            "podLabels": {"team": "platform"},
            "podAnnotations": {"note": "x"},
            "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
            "serviceAccount": {"annotations": {"role": "x"}},
            "logLevel": "debug",
        }
        for each in ("operator", "prober")
    },
    "spread over zones": {
        "operator": {
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "topology.kubernetes.io/zone",
                    "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": {"matchLabels": {"app.kubernetes.io/component": "operator"}},
                }
            ]
        }
    },
    "openshift, token": {"settings": {"injection": {"openshift": True, "localAuth": "Token"}}},
    "settings": {
        "settings": {
            "consumerConsent": "Implied",
            "currency": "EUR",
            "teams": [{"name": "sales", "namespaces": ["sales-agents"]}],
            "network": {"allow": [{"suffix": ".corp.example", "cidr": "10.0.0.0/8"}]},
        }
    },
    "vault and users": {
        "settings": {
            "vault": {
                "address": "https://vault.example:8200",
                "method": "JWT",
                "authPath": "jwt",
                "namespace": "team",
            },
            "identityProviders": [
                {
                    "name": "okta",
                    "issuer": "https://okta.example",
                    "audience": "outrider",
                    "jwksUri": "https://okta.example/keys",
                    "claims": {"groups": "roles"},
                    "clients": ["agent"],
                }
            ],
            "teams": [{"name": "sales", "groups": ["okta:sales"]}],
        },
        "prober": {"secrets": {"crm/salesforce": "salesforce-token", "ops/jira": "jira-token"}},
    },
    "network policy, closed": {
        "networkPolicy": {
            "enabled": True,
            "apiServerPorts": [16443],
            "metricsFrom": [
                {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
            ],
            "extraEgress": [{"ports": [{"protocol": "TCP", "port": 4318}]}],
        }
    },
    "another name": {"fullnameOverride": "gate"},
    "nobody aggregated, no test": {"rbac": {"aggregate": False}, "tests": {"enabled": False}},
}
"""Every combination that users meet. test_chart_releases has an API server look at each."""


@pytest.mark.parametrize("name", MATRIX)
def test_the_chart_lints(name: str) -> None:
    assert helm.lint(helm.OUTRIDER, MATRIX[name]) == []


def test_the_demo_lints() -> None:
    assert helm.lint(helm.DEMO) == []


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for each in objects:
        if each["kind"] == "Deployment":
            yield each["metadata"]["name"], each["spec"]["template"]
        if each["kind"] == "Pod":
            yield each["metadata"]["name"], each


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
def test_no_pod_needs_rights_on_its_node(chart: pathlib.Path) -> None:
    found = dict(pods(helm.objects(helm.template(chart))))
    assert len(found) >= 2
    for pod in found.values():
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        for container in pod["spec"]["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}


def test_only_the_operator_has_a_token_for_the_api_server() -> None:
    objects = helm.objects(helm.template(values=EVERYTHING))
    for each in objects:
        if each["kind"] == "ServiceAccount":
            assert each["automountServiceAccountToken"] is False
    mounted = {name: pod["spec"].get("automountServiceAccountToken") for name, pod in pods(objects)}
    assert mounted["outrider"] is True
    assert mounted["outrider-prober"] is False


def test_no_rule_of_the_operator_has_a_star_or_reaches_other_secrets() -> None:
    for values in (EVERYTHING, PROVIDED, CERT_MANAGER):
        for role in helm.documents(helm.template(values=values)["outrider/templates/rbac.yaml"]):
            for rule in role.get("rules", ()):
                assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
                assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
                assert not {"pods/exec", "pods/attach", "serviceaccounts/token"} & set(rule["resources"])
                if "secrets" in rule["resources"]:
                    assert (rule["resourceNames"], values) == (["outrider-certs"], EVERYTHING)


def test_every_object_of_a_namespace_says_which() -> None:
    cluster_wide = re.compile(
        "^(Namespace|Cluster.*|CustomResourceDefinition|ValidatingAdmission.*|.*WebhookConfiguration)$"
    )
    for chart in CHARTS:
        for each in helm.objects(helm.template(chart, EVERYTHING if chart == helm.OUTRIDER else {})):
            about = each["metadata"]
            assert ("namespace" in about) != bool(cluster_wide.match(each["kind"])), about["name"]


def test_the_settings_are_what_the_operator_reads() -> None:
    from outrider import manifests

    for values in MATRIX.values():
        made = helm.template(values=values)["outrider/templates/settings.yaml"]
        text = helm.documents(made)[0]["data"]["settings.yaml"]
        read = manifests.settings(text)
        assert not isinstance(read, tuple), read
        assert read.platform_namespace == "outrider-system"
        assert read.injection.image


def test_the_operators_flags_are_flags_it_has() -> None:
    from outrider_operator import settings

    for mode in ({}, PROVIDED, CERT_MANAGER):
        made = dict(pods(helm.objects(helm.template(values=mode))))["outrider"]["spec"]["containers"][0]
        words = [
            word.replace("$(POD_NAMESPACE)", "ns").replace("$(POD_NAME)", "pod") for word in made["args"]
        ]
        parsed = settings.parse(words)
        assert isinstance(parsed, settings.Controller)
        ports = {port["name"]: port["containerPort"] for port in made["ports"]}
        assert (parsed.webhook_port, parsed.stream_port, parsed.metrics_port) == (
            ports["webhook"], ports["stream"], ports["metrics"],
        )  # fmt: skip


def test_the_probers_flags_are_flags_the_proxy_has() -> None:
    from outrider_sidecar import settings

    made = dict(pods(helm.objects(helm.template())))["outrider-prober"]["spec"]["containers"][0]
    parsed = settings.parse([word.replace("$(POD_IP)", "10.0.0.7") for word in made["args"]])
    assert parsed.operator == "https://outrider.outrider-system.svc:8443"
    assert parsed.admin_port == made["ports"][0]["containerPort"]
