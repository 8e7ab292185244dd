# SPDX-License-Identifier: Apache-2.0
"""N3: no call happens that an independent reading of the policies would deny, and none is denied that it would allow.

The reading below is written from the page, not from the code: plain dictionaries, no index, no compilation. It is asked
the same questions as compile, bind and decide, over thousands of random worlds, and lists are held against calls.
"""

from __future__ import annotations

import json
import re
import unicodedata
import urllib.parse
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from outrider import bind, budgets, call, catalog, compile, decide, decision, manifests, names  # noqa: A004 -- the module's name

NAMESPACES = ["crm", "agents", "platform"]
ACCOUNTS = ["bot", "cron"]
TEAMS = ["sales", "hr"]
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


def selectors() -> st.SearchStrategy[dict[str, Any]]:
    fields = st.fixed_dictionaries(
        {},
        optional={
            "namespaces": st.lists(st.sampled_from(NAMESPACES), min_size=1, max_size=2, unique=True),
            "serviceAccounts": st.lists(
                st.sampled_from(["bot", "cron", "agents/bot", "crm/cron"]),
                min_size=1,
                max_size=2,
                unique=True,
            ),
            "teams": st.lists(st.sampled_from(TEAMS), min_size=1, max_size=2, unique=True),
        },
    ).filter(bool)
    return st.one_of(st.just({"anyone": True}), st.just({"anyone": True}), fields)


@st.composite
def a_rule(draw: st.DrawFn, number: int) -> dict[str, Any]:
    effect = draw(st.sampled_from(["Allow", "Allow", "Deny"]))
    rule: dict[str, Any] = {"name": f"r{number}", "effect": effect}
    if effect == "Allow" or draw(st.booleans()):
        rule["from"] = draw(st.lists(selectors(), min_size=1, max_size=2))
    kinds = draw(st.lists(st.sampled_from(list(KINDS)), min_size=effect == "Allow", max_size=3, unique=True))
    for kind in kinds:
        rule[kind] = draw(st.lists(st.sampled_from(KINDS[kind][1]), min_size=1, max_size=3, unique=True))
    if effect == "Deny" and draw(st.booleans()):
        rule["message"] = "because"
    return rule


@st.composite
def a_policy(draw: st.DrawFn, number: int) -> dict[str, Any]:
    namespace = draw(st.sampled_from(NAMESPACES))
    target = st.one_of(
        st.builds(lambda name: {"name": name}, st.sampled_from([*SERVERS, "*"])),
        st.builds(
            lambda ns, name: {"namespace": ns, "name": name},
            st.sampled_from(NAMESPACES),
            st.sampled_from([*SERVERS, "*"]),
        ),
        st.just({"namespace": "*", "name": "*"}),
    )
    rules = [draw(a_rule(index)) for index in range(draw(st.integers(1, 3)))]
    spec = {
        "targetRefs": draw(st.lists(target, min_size=1, max_size=2, unique_by=json.dumps)),
        "mode": draw(st.sampled_from(["Enforce", "Enforce", "Enforce", "Audit"])),
        "rules": rules,
    }
    return document("MCPToolPolicy", namespace, f"p{number}", spec)


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
        spec["credentials"] = [{"name": "c", "from": [draw(selectors())], "none": True}]
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
            {"name": "sales", "namespaces": ["agents"]},
            {"name": "hr", "serviceAccounts": ["agents/cron", "crm/bot"]},
        ],
        "workload": {"namespace": "agents", "serviceAccount": "bot"},
    }
    servers = [draw(a_server(ns, name)) for ns, name in places[: draw(st.integers(1, 4))]]
    policies = [draw(a_policy(number)) for number in range(draw(st.integers(0, 5)))]
    return [settings, *servers, *policies]


WORDS = {
    "tools": (call.Kind.TOOL, call.Method.CALL),
    "prompts": (call.Kind.PROMPT, call.Method.GET),
    "resources": (call.Kind.RESOURCE, call.Method.READ),
}
LISTED = catalog.definitions(
    [json.dumps({"name": name, "inputSchema": {"type": "object"}}).encode() for name in TOOLS],
    prompts=[json.dumps({"name": name}).encode() for name in PROMPTS],
    resources=[json.dumps({"name": "x", "uri": name}).encode() for name in RESOURCES[::2]],
    templates=[
        json.dumps({"name": "x", "uriTemplate": name}).encode()
        for name in ("file:///pub/{name}", "db://{id}")
    ],
)
"""Every tool and prompt, every other resource: the rest can be read without being listed."""


class Reading:
    """resources.md, read naively."""

    def __init__(self, documents: list[dict[str, Any]], namespace: str, account: str) -> None:
        self.settings = documents[0]
        self.servers = {
            (d["metadata"]["namespace"], d["metadata"]["name"]): d["spec"]
            for d in documents
            if d["kind"] == "MCPServer"
        }
        self.policies = [d for d in documents if d["kind"] == "MCPToolPolicy"]
        self.namespace, self.account = namespace, account
        self.teams = {
            team["name"]
            for team in self.settings["teams"]
            if namespace in team.get("namespaces", [])
            or f"{namespace}/{account}" in team.get("serviceAccounts", [])
        }

    def selected(self, selectors: list[dict[str, Any]], own: str) -> bool:
        return any(self.entry(selector, own) for selector in selectors)

    def entry(self, selector: dict[str, Any], own: str) -> bool:
        if "namespaces" in selector and self.namespace not in selector["namespaces"]:
            return False
        if "serviceAccounts" in selector:
            full = [name if "/" in name else f"{own}/{name}" for name in selector["serviceAccounts"]]
            if f"{self.namespace}/{self.account}" not in full:
                return False
        return "teams" not in selector or bool(self.teams & set(selector["teams"]))

    def governs(self, policy: dict[str, Any], server: tuple[str, str]) -> set[str]:
        """Which keys the policy's rules turn for this server and this caller."""
        own = policy["metadata"]["namespace"]
        keys = set()
        for ref in policy["spec"]["targetRefs"]:
            namespace = ref.get("namespace", own)
            if namespace not in ("*", server[0]) or ref["name"] not in ("*", server[1]):
                continue
            if own == "platform":
                if "namespace" in ref:
                    keys.add("platform")
            elif namespace == own:
                keys.add("provider")
            elif own == self.namespace:
                keys.add("consumer")
        return keys

    def verdict(self, server: tuple[str, str], kind: str, name: str) -> str:
        """allow, hidden or visible."""
        spec = self.servers.get(server)
        if spec is None:
            return "hidden"
        listing = spec.get("tools", {})
        if kind == "tools" and not any(glob(g, name) for g in listing.get("include", ["*"])):
            return "hidden"
        if kind == "tools" and any(glob(fold(g), fold(name)) for g in listing.get("exclude", [])):
            return "hidden"
        if kind == "resources" and ambiguous(name):
            return "hidden"
        allowed: set[str] = set()
        denies: list[str] = []
        for policy in self.policies:
            keys = self.governs(policy, server)
            if not keys or policy["spec"]["mode"] == "Audit":
                continue
            for rule in policy["spec"]["rules"]:
                if "from" in rule and not self.selected(rule["from"], policy["metadata"]["namespace"]):
                    continue
                about = rule.get(kind, [] if KINDS.keys() & rule.keys() else ["*"])
                if rule["effect"] == "Allow" and any(glob(g, name) for g in about):
                    allowed |= keys
                if rule["effect"] == "Deny" and any(
                    glob(fold(g), fold(spelled)) for g in about for spelled in spellings(kind, name)
                ):
                    denies.append(rule.get("message", ""))
        provider = bool(allowed & {"provider", "platform"})
        consumer = (
            server[0] == self.namespace
            or self.settings["consumerConsent"] == "Implied"
            or bool(allowed & {"consumer", "platform"})
        )
        if not provider or not consumer:
            return "hidden"
        if denies and not any(denies):
            return "hidden"
        if denies or spec["lifecycle"] == "Disabled":
            return "visible"
        for entry in spec.get("credentials", [])[:1]:
            if not self.selected(entry["from"], server[0]):
                return "uncredentialed"
        return "allow"


def glob(pattern: str, name: str) -> bool:
    return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), name) is not None


def fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def ambiguous(uri: str) -> bool:
    """The page's list: `..` segments, %2e, %2f, %5c, a backslash, controls, spaces."""
    decoded = urllib.parse.unquote(uri)
    return (
        any(part in uri.lower() for part in ("%2e", "%2f", "%5c", "\\", " "))
        or any(segment in (".", "..") for segment in decoded.split("/"))
        or any(unicodedata.category(mark) == "Cc" for mark in decoded)
    )


def spellings(kind: str, name: str) -> set[str]:
    """What a Deny is held against: a resource is meant however it is spelled."""
    if kind != "resources":
        return {name}
    decoded = {name, urllib.parse.unquote(name), urllib.parse.unquote(urllib.parse.unquote(name))}
    return decoded | {re.sub("(?<!:)/{2,}", "/", each) for each in decoded}


def ours(bound: bind.Bound, server: tuple[str, str], kind: str, name: str) -> str:
    about, method = WORDS[kind]
    subject = call.Call(names.ServerId(*server), name, None, about, method)
    found = decide.decide(bound, subject, budgets.UNLIMITED, now=0.0)
    if isinstance(found, decision.Permit):
        return "allow"
    assert isinstance(found, decision.Refusal)
    if found.reason is decision.Reason.NO_CREDENTIAL_FOR_CALLER:
        return "uncredentialed"
    return "visible" if found.objection.visible else "hidden"


@pytest.mark.slow
@hypothesis.settings(max_examples=1500, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(
    documents=worlds(), namespace=st.sampled_from(NAMESPACES), account=st.sampled_from(ACCOUNTS)
)
def test_decide_says_what_an_independent_reading_says(
    documents: list[dict[str, Any]], namespace: str, account: str
) -> None:
    content = "\n---\n".join(json.dumps(document) for document in documents).encode()
    world = manifests.load({"world.yaml": content})
    snapshot = compile.snapshot(world, namespace, account)
    bound = bind.bound(snapshot, dict.fromkeys((view.id for view in snapshot.servers), LISTED))
    reading = Reading(documents, namespace, account)
    for server in [*reading.servers, ("crm", "none")]:
        for kind, (named, _) in KINDS.items():
            listed = {target.name for target in decide.listed(bound, names.ServerId(*server), WORDS[kind][0])}
            for name in named:
                expected = reading.verdict(server, kind, name)
                assert ours(bound, server, kind, name) == expected, (server, kind, name)
                seen = expected in ("allow", "uncredentialed")
                assert (name in listed) == (seen and name in LISTED.names(WORDS[kind][0])), (
                    server,
                    kind,
                    name,
                )


@pytest.mark.slow
@hypothesis.settings(max_examples=400, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(documents=worlds(), namespace=st.sampled_from(NAMESPACES))
def test_no_server_is_hidden_of_which_something_could_be_used_and_no_template_of_which_something_could_be_read(
    documents: list[dict[str, Any]], namespace: str
) -> None:
    content = "\n---\n".join(json.dumps(document) for document in documents).encode()
    snapshot = compile.snapshot(manifests.load({"world.yaml": content}), namespace, "bot")
    reading = Reading(documents, namespace, "bot")
    for listed in (None, LISTED):
        bound = bind.bound(
            snapshot, {} if listed is None else dict.fromkeys((view.id for view in snapshot.servers), listed)
        )
        for server, held in bound.servers.items():
            verdicts = {
                (kind, name): reading.verdict(tuple(server), kind, name)
                for kind, (named, _) in KINDS.items()
                for name in named
            }
            if any(verdict != "hidden" for verdict in verdicts.values()):
                assert held.in_sight, server
            shown = {target.name for target in decide.templates(bound, server)}
            if listed is not None and verdicts["resources", "file:///pub/a"] == "allow":
                assert "file:///pub/{name}" in shown
            if verdicts["resources", "db://7"] == "allow" and listed is not None:
                assert "db://{id}" in shown
