# SPDX-License-Identifier: Apache-2.0
"""Random worlds of servers, policies and settings, as a folder of files would hold them, and who calls in them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

NAMESPACES = ["crm", "agents", "platform"]
ACCOUNTS = ["bot", "cron"]
TEAMS = ["sales", "hr", "deals"]
TOOLS = ["query", "Query", "get_a", "get_b", "drop"]
GLOBS = ["query", "Query", "get_*", "*", "drop", "*_b", "q*y", "GET_A"]
PROMPTS = ["query", "Write a letter", "GREET", "gr\u00fcezi"]
PROMPT_GLOBS = ["query", "write*", "Write*", "*", "greet", "GREET", "gr*", "*\u00dc*"]
RESOURCES = [
    "file:///pub/a", "file:///pub/A", "file:///pub/secret", "file:///pub/%73ecret", "file:///pub//secret", "file:///pub/%2573ecret",
    "file:///etc/x", "file:///pub/../etc/x", "file:///pub/%2e%2e/etc/x", "file:///pub/a\\b", "file:///pub/ a", "db://7", "file:///pub/.",
]  # fmt: skip
URI_GLOBS = [
    "file:///pub/*",
    "FILE:///*",
    "*",
    "*secret*",
    "file:///pub/a",
    "db://7",
    "file:///etc/*",
    "*SECRET",
    "*%73*",
]
KINDS: dict[str, tuple[list[str], list[str]]] = {
    "tools": (TOOLS, GLOBS), "prompts": (PROMPTS, PROMPT_GLOBS), "resources": (RESOURCES, URI_GLOBS),
}  # fmt: skip
SERVERS = ["s1", "s2"]


PEOPLE: list[dict[str, Any] | None] = [
    None,
    {"id": "okta:ada", "mail": "okta:ada@corp.example", "groups": ["okta:sales", "okta:deals"], "client": "okta:desk"},
    {"id": "okta:bob", "groups": ["okta:hr"], "client": "okta:chat"},
    {"id": "other:ada", "groups": ["other:sales"], "client": "other:desk"},
    {"id": "okta:cy", "groups": []},
]  # fmt: skip
"""Who may be behind the agent; None: nobody presents a token."""

USERS = ["okta:ada", "okta:bob", "okta:ada@corp.example", "other:ada"]
GROUPS = ["okta:sales", "okta:hr", "other:sales", "okta:none"]
CLIENTS = ["okta:desk", "okta:chat", "other:desk"]


def some(of: list[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(of), min_size=1, max_size=2, unique=True)


def _selectors() -> st.SearchStrategy[dict[str, Any]]:
    workload = {
        "namespaces": some(NAMESPACES),
        "serviceAccounts": some(["bot", "cron", "agents/bot", "crm/cron"]),
        "teams": some(TEAMS),
    }
    user = {"users": some(USERS), "groups": some(GROUPS), "clients": some(CLIENTS)}
    anyone = st.just({"anyone": True})
    return st.one_of(
        anyone,
        anyone,
        st.fixed_dictionaries({}, optional=workload).filter(bool),
        st.fixed_dictionaries({}, optional=user).filter(bool),
        st.fixed_dictionaries({}, optional=workload | user).filter(bool),
        st.fixed_dictionaries({"teams": some(TEAMS)}),
    )


SELECTORS = _selectors()


@st.composite
def a_rule(draw: st.DrawFn, number: int) -> dict[str, Any]:
    effect = draw(st.sampled_from(["Allow", "Allow", "Deny"]))
    rule: dict[str, Any] = {"name": f"r{number}", "effect": effect}
    if effect == "Allow" or draw(st.booleans()):
        rule["from"] = draw(st.lists(SELECTORS, min_size=1, max_size=2))
    kinds = draw(st.lists(st.sampled_from(list(KINDS)), min_size=effect == "Allow", max_size=3, unique=True))
    for kind in kinds:
        rule[kind] = draw(st.lists(st.sampled_from(KINDS[kind][1]), min_size=1, max_size=3, unique=True))
    if effect == "Deny" and draw(st.booleans()):
        rule["message"] = "because"
    return rule


TARGETS = st.lists(
    st.one_of(
        st.builds(lambda name: {"name": name}, st.sampled_from([*SERVERS, "*"])),
        st.builds(
            lambda ns, name: {"namespace": ns, "name": name},
            st.sampled_from(NAMESPACES),
            st.sampled_from([*SERVERS, "*"]),
        ),
        st.just({"namespace": "*", "name": "*"}),
    ),
    min_size=1,
    max_size=2,
    unique_by=json.dumps,
)


@st.composite
def a_policy(draw: st.DrawFn, number: int) -> dict[str, Any]:
    namespace = draw(st.sampled_from(NAMESPACES))
    rules = [draw(a_rule(index)) for index in range(draw(st.integers(1, 3)))]
    spec = {
        "targetRefs": draw(TARGETS),
        "mode": draw(st.sampled_from(["Enforce", "Enforce", "Enforce", "Audit"])),
        "rules": rules,
    }
    return document("MCPToolPolicy", namespace, f"p{number}", spec)


@st.composite
def a_budget(draw: st.DrawFn, number: int) -> dict[str, Any]:
    limit = {"name": "calls", "unit": "Calls", "quota": {"amount": "5", "period": "Day"}}
    spec: dict[str, Any] = {"targetRefs": draw(TARGETS), "limits": [limit]}
    if draw(st.booleans()):
        spec["from"] = draw(st.lists(SELECTORS, min_size=1, max_size=2))
    if draw(st.booleans()):
        spec["tools"] = draw(st.lists(st.sampled_from(GLOBS), min_size=1, max_size=2, unique=True))
    return document("MCPBudget", draw(st.sampled_from(NAMESPACES)), f"b{number}", spec)


EXCHANGE = {
    "tokenUrl": "https://okta.example/token", "clientId": "outrider", "clientSecret": {"file": {"path": "/secret"}},
}  # fmt: skip


@st.composite
def a_credential(draw: st.DrawFn, number: int) -> dict[str, Any]:
    entry = {"name": f"c{number}", "from": draw(st.lists(SELECTORS, min_size=1, max_size=2))}
    if draw(st.integers(0, 2)) == 0:
        entry["tools"] = draw(st.lists(st.sampled_from(GLOBS), min_size=1, max_size=2, unique=True))
    kind: dict[str, Any] = {"tokenExchange": EXCHANGE} if draw(st.integers(0, 3)) == 0 else {"none": True}
    return entry | kind


@st.composite
def a_server(draw: st.DrawFn, namespace: str, name: str) -> dict[str, Any]:
    tools: dict[str, Any] = {}
    if draw(st.integers(0, 3)) == 0:
        tools["include"] = draw(st.lists(st.sampled_from(GLOBS), min_size=1, max_size=3, unique=True))
    if draw(st.integers(0, 3)) == 0:
        tools["exclude"] = draw(st.lists(st.sampled_from(GLOBS), min_size=1, max_size=2, unique=True))
    spec = {
        "description": "A server.",
        "lifecycle": draw(st.sampled_from(["Active", "Active", "Deprecated", "Disabled"])),
        "endpoint": {"url": "https://mcp.example/mcp"},
        **({"tools": tools} if tools else {}),
    }
    if draw(st.integers(0, 3)) == 0:
        spec["requireUser"] = True
    if draw(st.booleans()):
        spec["credentials"] = [draw(a_credential(number)) for number in range(draw(st.integers(1, 3)))]
    return document("MCPServer", namespace, name, spec)


def document(kind: str, namespace: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "outrider.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


@st.composite
def worlds(draw: st.DrawFn) -> list[dict[str, Any]]:
    places = [(ns, name) for ns in NAMESPACES[:2] for name in SERVERS]
    settings = {
        "apiVersion": "outrider.dev/v1alpha1",
        "kind": "Settings",
        "platformNamespace": "platform",
        "consumerConsent": draw(st.sampled_from(["Required", "Required", "Implied"])),
        "teams": [
            {
                "name": "sales",
                "namespaces": ["agents"],
                "groups": draw(st.sampled_from([[], ["okta:sales"]])),
            },
            {
                "name": "hr",
                "serviceAccounts": ["agents/cron", "crm/bot", "agents/bot"],
                "groups": draw(some(GROUPS)),
            },
            {"name": "deals", "groups": ["okta:deals", "other:sales"]},
        ],
        "identityProviders": [
            {
                "name": name,
                "issuer": f"https://{name}.example",
                "audience": "outrider",
                "jwksUri": f"https://{name}.example/keys",
                "tokenEndpoints": [EXCHANGE["tokenUrl"]],
            }
            for name in ("okta", "other")
        ],
        "workload": {"namespace": "agents", "serviceAccount": "bot"},
    }
    servers = [draw(a_server(ns, name)) for ns, name in places[: draw(st.integers(1, 4))]]
    policies = [draw(a_policy(number)) for number in range(draw(st.integers(0, 5)))]
    budgets = [draw(a_budget(number)) for number in range(draw(st.integers(0, 2)))]
    return [settings, *servers, *policies, *budgets]
