# SPDX-License-Identifier: Apache-2.0
"""The models refuse what is wrong within one object, and say where."""

from __future__ import annotations

import decimal
import json

import hypothesis
import hypothesis.strategies as st
import pydantic
import pytest

from outrider import resources
from outrider.resources import fields, headers, urls

API = {"apiVersion": "outrider.dev/v1alpha1"}
META = {"metadata": {"name": "a", "namespace": "crm"}}


def server(**spec):
    whole = {"description": "x", "endpoint": {"url": "https://x.example/mcp"}, **spec}
    return load("MCPServer", whole)


def policy(*rules, **spec):
    return load("MCPToolPolicy", {"targetRefs": [{"name": "s"}], "rules": list(rules), **spec})


def budget(*limits, **spec):
    return load("MCPBudget", {"targetRefs": [{"name": "s"}], "limits": list(limits), **spec})


def settings(**top):
    return resources.Settings.model_validate_json(json.dumps({**API, "kind": "Settings", **top}))


def load(kind, spec):
    return resources.KINDS[kind].model_validate_json(json.dumps({**API, "kind": kind, **META, "spec": spec}))


def refused(make):
    """The dotted paths of what is refused."""
    with pytest.raises(pydantic.ValidationError) as caught:
        make()
    found = set()
    paths = [error["loc"] for error in caught.value.errors()]
    for error in caught.value.errors():
        path = error["loc"]
        if error["type"] == "too_short" and any(p[: len(path)] == path != p for p in paths):
            continue  # a list of which no entry was sound counts as empty; the entries are what is wrong
        inner = error.get("ctx", {}).get("field", "")
        found.add(".".join([*(str(step) for step in error["loc"]), *([inner] if inner else [])]))
    return found


ALLOW = {"name": "r", "effect": "Allow", "from": [{"anyone": True}], "tools": ["q"]}
CALLS = {"name": "c", "unit": "Calls", "quota": {"amount": "5", "period": "Day"}}


def test_the_smallest_objects_are_accepted_with_their_defaults() -> None:
    made = server()
    assert made.spec.endpoint.timeouts.call == "50s"
    assert made.spec.tools.include == ("*",)
    assert made.id == ("crm", "a")
    assert policy(ALLOW).spec.mode.value == "Enforce"
    assert budget(CALLS).spec.limits[0].quota.time_zone == "UTC"
    assert settings().platform_namespace == "outrider-system"


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"exposure": ["Sidecar"]}, "spec.exposure"),
        ({"owner": {"team": "x"}}, "spec.owner"),
        ({"description": ""}, "spec.description"),
        ({"description": "x" * 101}, "spec.description"),
        ({"lifecycle": "active"}, "spec.lifecycle"),
        ({"endpoint": {}}, "spec.endpoint"),
        ({"endpoint": {"url": "https://x/", "command": ["a"]}}, "spec.endpoint"),
        ({"endpoint": {"url": "https://x/", "service": {"name": "x", "port": 1}}}, "spec.endpoint"),
        ({"endpoint": {"service": {"name": "X", "port": 1}}}, "spec.endpoint.service.name"),
        ({"endpoint": {"service": {"name": "x", "port": 0}}}, "spec.endpoint.service.port"),
        ({"endpoint": {"service": {"name": "x", "port": 65536}}}, "spec.endpoint.service.port"),
        ({"endpoint": {"service": {"name": "x", "port": "http"}}}, "spec.endpoint.service.port"),
        ({"endpoint": {"service": {"name": "x"}}}, "spec.endpoint.service.port"),
        ({"endpoint": {"service": {"name": "x", "port": 1, "path": "mcp"}}}, "spec.endpoint.service.path"),
        ({"endpoint": {"service": {"name": "x", "port": 1, "path": "/a?b"}}}, "spec.endpoint.service.path"),
        ({"endpoint": {"url": "https://x/", "transport": "WebSocket"}}, "spec.endpoint.transport"),
        ({"endpoint": {"url": "ftp://x/"}}, "spec.endpoint.url"),
        ({"endpoint": {"url": "https://user@x/"}}, "spec.endpoint.url"),
        ({"endpoint": {"url": "https://x/#f"}}, "spec.endpoint.url"),
        ({"endpoint": {"url": "https://x:0/"}}, "spec.endpoint.url"),
        ({"endpoint": {"url": "https://x/", "timeouts": {"call": "61m"}}}, "spec.endpoint.timeouts.call"),
        ({"endpoint": {"url": "https://x/", "timeouts": {"call": "0s"}}}, "spec.endpoint.timeouts.call"),
        ({"endpoint": {"url": "https://x/", "protocol": "2025"}}, "spec.endpoint.protocol"),
        (
            {"endpoint": {"url": "http://x/", "tls": {"caBundle": "-----BEGIN CERTIFICATE-----"}}},
            "spec.endpoint.tls",
        ),
        ({"endpoint": {"url": "https://x/", "tls": {"caBundle": "hello"}}}, "spec.endpoint.tls.caBundle"),
        ({"credentials": []}, "spec.credentials"),
        ({"tools": {"include": []}}, "spec.tools.include"),
        ({"tools": {"include": ["a b"]}}, "spec.tools.include.0"),
        ({"tools": {"exclude": ["a\nb"]}}, "spec.tools.exclude.0"),
        ({"tools": {"cost": {"default": {"perCall": 1}}}}, "spec.tools.cost.default.perCall"),
        ({"tools": {"cost": {"default": {"perCall": "1.0000001"}}}}, "spec.tools.cost.default.perCall"),
        ({"tools": {"cost": {"default": {"perCall": "-1"}}}}, "spec.tools.cost.default.perCall"),
        ({"tools": {"cost": {"perTool": [{"name": "a"}, {"name": "a"}]}}}, "spec.tools.cost.perTool[1].name"),
        ({"tools": {"redact": [{"tools": ["*"]}]}}, "spec.tools.redact.0"),
        ({"tools": {"redact": [{"tools": ["*"], "result": ["x"]}]}}, "spec.tools.redact.0.result.0"),
        ({"audit": {"level": "Everything"}}, "spec.audit.level"),
    ],
)
def test_a_server_that_is_wrong_is_refused_at_the_field(change, path) -> None:
    assert refused(lambda: server(**change)) == {path}


@pytest.mark.parametrize(
    "name",
    ["Authorization", "cookie", "X-Api-Key", "x-auth-token", "my-secret", "Host", "content-type", "TE", "Upgrade",
     "Connection", "transfer-encoding", "Mcp-Session-Id", "proxy-authorization", "bad name", "x-session"],
)  # fmt: skip
def test_headers_that_are_secret_or_ours_cannot_be_constants(name) -> None:
    assert refused(lambda: server(endpoint={"url": "https://x/", "headers": {name: "eu"}})) == {
        f"spec.endpoint.headers.{name}"
    }


@pytest.mark.parametrize(
    "value",
    ["Bearer abc", "sk-live-12345678", "ghp_16C7e42F292c6912E7710c838347Ae178B4a", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIi.abc",
     "0123456789abcdef0123456789abcdef", "Zm9vYmFyMTIzNDU2Nzg5MEFCQ0RFRg=="],
)  # fmt: skip
def test_values_that_look_like_secrets_are_refused_without_being_repeated(value) -> None:
    problem = headers.constant_problem("x-region", value)
    assert problem is not None
    assert value not in problem


@pytest.mark.parametrize(
    "value",
    [
        "eu",
        "eu-central-1",
        "3f2b8c1e-5b7a-4c6d-9e8f-0a1b2c3d4e5f",
        "application-name-of-the-team",
        "2026-01-01",
    ],
)
def test_ordinary_constants_are_accepted(value) -> None:
    assert headers.constant_problem("x-region", value) is None


CREDENTIAL = {"name": "c", "from": [{"anyone": True}], "file": {"path": "secrets/x"}}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"file": None}, "spec.credentials.0"),
        ({"none": True}, "spec.credentials.0"),
        ({"none": False}, "spec.credentials.0.none"),
        ({"file": None, "none": 1}, "spec.credentials.0.none"),
        ({"from": []}, "spec.credentials.0.from"),
        ({"from": [{}]}, "spec.credentials.0.from.0"),
        ({"file": {"path": "~/x"}}, "spec.credentials.0.file.path"),
        ({"inject": {"header": "Cookie"}}, "spec.credentials.0.inject.header"),
        ({"inject": {"header": "mcp-session-id"}}, "spec.credentials.0.inject.header"),
        ({"inject": {"header": "Content-Length"}}, "spec.credentials.0.inject.header"),
    ],
)
def test_a_credential_that_is_wrong_is_refused_at_the_field(change, path) -> None:
    assert refused(lambda: server(credentials=[{**CREDENTIAL, **change}])) == {path}


def test_a_credential_never_travels_in_the_clear() -> None:
    clear = {"url": "http://crm.example/mcp"}
    assert refused(lambda: server(endpoint=clear, credentials=[CREDENTIAL])) == {"spec.credentials[0].file"}
    inside = {"service": {"name": "s", "port": 8080}}
    assert refused(lambda: server(endpoint=inside, credentials=[CREDENTIAL])) == {"spec.credentials[0].file"}
    inside["tls"] = {"caBundle": "-----BEGIN CERTIFICATE-----"}
    assert server(endpoint=inside, credentials=[CREDENTIAL]).spec.credentials is not None
    near = {"url": "http://127.0.0.1:8000/mcp"}
    assert server(endpoint=near, credentials=[CREDENTIAL]).spec.credentials is not None


def test_a_service_is_called_in_its_own_namespace_and_encrypted_when_told_how() -> None:
    made = server(endpoint={"service": {"name": "crm-mcp", "port": 8080}}).spec.endpoint
    assert made.service.url("crm", tls=False) == "http://crm-mcp.crm.svc:8080/mcp"
    assert made.service.url("crm", tls=True) == "https://crm-mcp.crm.svc:8080/mcp"


def test_names_of_credentials_are_unique() -> None:
    assert refused(lambda: server(credentials=[CREDENTIAL, CREDENTIAL])) == {"spec.credentials[1].name"}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"from": None}, "spec.rules.0.from"),
        ({"tools": None}, "spec.rules.0.tools"),
        ({"tools": []}, "spec.rules.0.tools"),
        ({"tools": ["é"]}, "spec.rules.0.tools[0]"),
        ({"message": "no"}, "spec.rules.0.message"),
        ({"from": [{"anyone": False}]}, "spec.rules.0.from.0.anyone"),
        ({"from": [{"anyone": 1}]}, "spec.rules.0.from.0.anyone"),
        ({"from": [{"anyone": "true"}]}, "spec.rules.0.from.0.anyone"),
        ({"from": [{"anyone": True, "teams": ["x"]}]}, "spec.rules.0.from.0.anyone"),
        ({"from": [{"teams": []}]}, "spec.rules.0.from.0.teams"),
        ({"from": [{"users": ["x"]}]}, "spec.rules.0.from.0.users.0"),
        ({"from": [{"people": ["x"]}]}, "spec.rules.0.from.0.people"),
        ({"when": "true"}, "spec.rules.0.when"),
        ({"effect": "allow"}, "spec.rules.0.effect"),
    ],
)
def test_an_allow_is_never_made_by_omission_or_by_a_typo(change, path) -> None:
    assert refused(lambda: policy({**ALLOW, **change})) == {path}


def test_a_deny_may_leave_out_who_and_what_and_name_anything() -> None:
    made = policy(
        {"name": "d", "effect": "Deny"},
        {"name": "e", "effect": "Deny", "tools": ["дебаг *"], "message": "No."},
    )
    assert made.spec.rules[0].tools is None
    assert made.spec.rules[1].tools == ("дебаг *",)


def test_rule_names_are_unique_and_targets_bounded() -> None:
    assert refused(lambda: policy(ALLOW, ALLOW)) == {"spec.rules[1].name"}
    assert refused(lambda: policy(ALLOW, targetRefs=[])) == {"spec.targetRefs"}
    assert refused(lambda: policy(ALLOW, targetRefs=[{"namespace": "*", "name": "x"}])) == {
        "spec.targetRefs.0.namespace"
    }
    assert policy(ALLOW, targetRefs=[{"namespace": "*", "name": "*"}]).spec.target_refs[0].name == "*"


@pytest.mark.parametrize(
    ("limit", "path"),
    [
        ({"name": "c", "unit": "Calls"}, "spec.limits.0"),
        ({**CALLS, "rate": {"perSecond": "1", "burst": 1}}, "spec.limits.0"),
        ({"name": "c", "unit": "Cost", "rate": {"perSecond": "1", "burst": 1}}, "spec.limits.0.rate"),
        ({"name": "c", "unit": "Calls", "rate": {"perSecond": 1, "burst": 1}}, "spec.limits.0.rate.perSecond"),
        ({"name": "c", "unit": "Calls", "quota": {"amount": "0.5", "period": "Day"}}, "spec.limits.0.quota.amount"),
        ({"name": "c", "unit": "Cost", "quota": {"amount": 5, "period": "Day"}}, "spec.limits.0.quota.amount"),
        ({"name": "c", "unit": "Tokens", "quota": {"amount": "5", "period": "Day"}}, "spec.limits.0.unit"),
        ({"name": "c", "unit": "Cost", "quota": {"amount": "5", "period": "Day", "timeZone": "Mars/Base"}},
         "spec.limits.0.quota.timeZone"),
        ({"name": "c", "unit": "Cost", "quota": {"amount": "5", "period": "Day", "timeZone": "America"}},
         "spec.limits.0.quota.timeZone"),
        ({"name": "c", "unit": "Cost", "quota": {"amount": "5", "period": "Day", "warnAt": [80, 50]}},
         "spec.limits.0.quota.warnAt"),
    ],
)  # fmt: skip
def test_a_limit_that_is_wrong_is_refused_at_the_field(limit, path) -> None:
    assert refused(lambda: budget(limit)) == {path}


def test_a_budget_names_each_limit_and_dimension_once() -> None:
    assert refused(lambda: budget(CALLS, CALLS)) == {"spec.limits[1].name"}
    assert refused(lambda: budget(CALLS, per=["team", "team"])) == {"spec.per"}
    assert refused(lambda: budget(CALLS, per=["user"])) == {"spec.per.0"}


def test_zero_is_an_amount_because_it_blocks() -> None:
    made = budget({"name": "c", "unit": "Calls", "quota": {"amount": "0", "period": "Day"}})
    assert fields.micro(made.spec.limits[0].quota.amount) == 0


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"teams": [{"name": "a"}, {"name": "a"}]}, "teams[1].name"),
        ({"teams": [{"name": "a", "serviceAccounts": ["bot"]}]}, "teams.0.serviceAccounts.0"),
        ({"network": {"allow": [{"suffix": "corp", "cidr": "10.0.0.0/8"}]}}, "network.allow.0.suffix"),
        ({"network": {"allow": [{"suffix": ".corp", "cidr": "10.0.0.1/8"}]}}, "network.allow.0.cidr"),
        ({"consumerConsent": "Maybe"}, "consumerConsent"),
        ({"currency": "usd"}, "currency"),
        ({"workload": {"namespace": "a"}}, "workload.serviceAccount"),
        ({"teamFromLabel": True}, "teamFromLabel"),
        ({"epoch": -1}, "epoch"),
        ({"injection": {"listenPort": 15101}}, "injection.listenPort"),
        ({"injection": {"listenPort": 80}}, "injection.listenPort"),
        ({"injection": {"allowedImages": [""]}}, "injection.allowedImages.0"),
        ({"injection": {"image": "a b"}}, "injection.image"),
        ({"injection": {"localAuth": "auto"}}, "injection.localAuth"),
        ({"injection": {"resources": {"limits": {"memory": "lots"}}}}, "injection.resources.limits.memory"),
        ({"injection": {"resources": {"limits": {"memory": 256}}}}, "injection.resources.limits.memory"),
    ],
)
def test_settings_that_are_wrong_are_refused_at_the_field(change, path) -> None:
    assert refused(lambda: settings(**change)) == {path}


@hypothesis.given(st.decimals(min_value=0, max_value=999_999_999_999, places=6, allow_nan=False))
def test_amounts_become_micro_units_exactly(amount) -> None:
    text = format(amount, "f")
    assert fields.micro(text) == int(decimal.Decimal(text) * 1_000_000)


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("3s", 3.0), ("10m", 600.0), ("1ms", 0.001)])
def test_durations_become_seconds(text, seconds) -> None:
    assert fields.seconds(text) == seconds


@pytest.mark.parametrize(
    ("url", "near"),
    [("http://localhost:1/", True), ("http://127.8.9.1/", True), ("http://[::1]:8/", True),
     ("http://localhost.evil.example/", False), ("http://127.0.0.1.evil.example/", False), ("http://10.0.0.1/", False)],
)  # fmt: skip
def test_only_this_machine_is_loopback(url, near) -> None:
    assert urls.loopback(url) is near


def test_every_field_has_a_description_and_every_text_and_list_a_bound() -> None:
    def walk(kind, node, path):
        node = resources_plain(node)
        if node.get("type") == "string" and "enum" not in node and "const" not in node:
            assert "maxLength" in node or path.startswith(f"{kind}.metadata"), path
        if node.get("type") == "array":
            assert "maxItems" in node, path
            walk(kind, node["items"], path + "[]")
        for name, child in node.get("properties", {}).items():
            assert resources_plain(child).get("description"), f"{path}.{name}"
            walk(kind, child, f"{path}.{name}")

    from outrider.resources import schemas

    resources_plain = schemas.plain
    for kind in resources.KINDS:
        assert resources.schema(kind)["properties"]
        walk(kind, resources.schema(kind), kind)
