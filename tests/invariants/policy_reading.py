# SPDX-License-Identifier: Apache-2.0
"""resources.md, read naively: the oracle of N3. Written from the page, not from the code: no index, no compilation."""

from __future__ import annotations

import re
import unicodedata
import urllib.parse
from typing import Any

from tests.invariants.policy_worlds import KINDS


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
        self.budgets = [d for d in documents if d["kind"] == "MCPBudget"]
        self.namespace, self.account = namespace, account
        self.teams = {
            team["name"]
            for team in self.settings["teams"]
            if namespace in team.get("namespaces", [])
            or f"{namespace}/{account}" in team.get("serviceAccounts", [])
        }

    def selected(
        self, selectors: list[dict[str, Any]], own: str, user: dict[str, Any] | None, *, deny: bool = False
    ) -> str:
        """yes, no, or unknown: that is, only a user could tell."""
        found = {self.entry(selector, own, user, deny) for selector in selectors}
        return next(each for each in ("yes", "unknown", "no") if each in found)

    def entry(self, selector: dict[str, Any], own: str, user: dict[str, Any] | None, deny: bool) -> str:
        """Fields inside one entry are AND."""
        if "namespaces" in selector and self.namespace not in selector["namespaces"]:
            return "no"
        if "serviceAccounts" in selector:
            full = [name if "/" in name else f"{own}/{name}" for name in selector["serviceAccounts"]]
            if f"{self.namespace}/{self.account}" not in full:
                return "no"
        if "teams" in selector and not any(self.of_team(team, user, deny) for team in selector["teams"]):
            return "no"
        if not selector.keys() & {"users", "groups", "clients"}:
            return "yes"
        if user is None:
            return "unknown"
        called = {user["id"], user.get("mail")}
        fits = (
            called & set(selector.get("users", called))
            and ("groups" not in selector or set(user["groups"]) & set(selector["groups"]))
            and ("clients" not in selector or user.get("client") in selector["clients"])
        )
        return "yes" if fits else "no"

    def of_team(self, name: str, user: dict[str, Any] | None, deny: bool) -> bool:
        """Every party present is a member; for a Deny any is."""
        groups = next(team.get("groups", []) for team in self.settings["teams"] if team["name"] == name)
        workload = name in self.teams
        if user is None:
            return workload
        person = bool(set(user["groups"]) & set(groups))
        return (workload or person) if deny else workload and (person or not groups)

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

    def offers(self, server: tuple[str, str], kind: str, name: str) -> bool:
        """Whether the name could be anybody's at all."""
        listing = self.servers[server].get("tools", {}) if server in self.servers else None
        if listing is None or (kind == "resources" and ambiguous(name)):
            return False
        if kind != "tools":
            return True
        included = any(glob(g, name) for g in listing.get("include", ["*"]))
        return included and not any(glob(fold(g), fold(name)) for g in listing.get("exclude", []))

    def said(
        self, server: tuple[str, str], kind: str, name: str, user: dict[str, Any] | None
    ) -> tuple[dict[str, set[str]], dict[str, list[str]]]:
        """The keys that Allows turn and the messages of Denies, each for certain (`yes`) and in doubt (`unknown`)."""
        keys: dict[str, set[str]] = {"yes": set(), "unknown": set(), "no": set()}
        denies: dict[str, list[str]] = {"yes": [], "unknown": [], "no": []}
        for policy in self.policies:
            turned = self.governs(policy, server)
            if not turned or policy["spec"]["mode"] == "Audit":
                continue
            own = policy["metadata"]["namespace"]
            for rule in policy["spec"]["rules"]:
                deny = rule["effect"] == "Deny"
                who = self.selected(rule["from"], own, user, deny=deny) if "from" in rule else "yes"
                about = rule.get(kind, [] if KINDS.keys() & rule.keys() else ["*"])
                if not deny and any(glob(g, name) for g in about):
                    keys[who] |= turned
                if deny and any(
                    glob(fold(g), fold(spelled)) for g in about for spelled in spellings(kind, name)
                ):
                    denies[who].append(rule.get("message", ""))
        return keys, denies

    def opened(self, server: tuple[str, str], keys: set[str]) -> bool:
        """Both keys are turned."""
        consumer = (
            server[0] == self.namespace
            or self.settings["consumerConsent"] == "Implied"
            or bool(keys & {"consumer", "platform"})
        )
        return bool(keys & {"provider", "platform"}) and consumer

    def listed(self, server: tuple[str, str], kind: str, name: str, user: dict[str, Any] | None) -> bool:
        """Seen = could be called; what users must be counts as satisfiable where there is none."""
        if not self.offers(server, kind, name) or self.servers[server]["lifecycle"] == "Disabled":
            return False
        keys, denies = self.said(server, kind, name, user)
        return self.opened(server, keys["yes"] | keys["unknown"]) and not denies["yes"]

    def verdict(self, server: tuple[str, str], kind: str, name: str, user: dict[str, Any] | None) -> str:
        """hidden, disabled, user (one is required), denied, uncredentialed, or allow and what is lent."""
        if not self.offers(server, kind, name):
            return "hidden"
        spec = self.servers[server]
        keys, denies = self.said(server, kind, name, user)
        matched = denies["yes"] + denies["unknown"]
        if not self.opened(server, keys["yes"] | keys["unknown"]) or (denies["yes"] and not any(matched)):
            return "hidden"
        if spec["lifecycle"] == "Disabled":
            return "disabled"
        helps = user is None and not denies["yes"]
        if helps and (
            spec.get("requireUser") or not self.opened(server, keys["yes"]) or "" in denies["unknown"]
        ):
            return "user"
        return "denied" if matched else self.lent(server, kind, name, user)

    def lent(self, server: tuple[str, str], kind: str, name: str, user: dict[str, Any] | None) -> str:
        """The first entry that is for the caller; never past one of which only a user could tell."""
        entries = self.servers[server].get("credentials", [])
        for entry in entries:
            if kind == "tools" and not any(glob(g, name) for g in entry.get("tools", ["*"])):
                continue
            who = self.selected(entry["from"], server[0], user)
            if who == "yes" and not (user is None and "tokenExchange" in entry):
                return f"allow {entry['name']}"
            if who != "no":
                return "user"
        return "uncredentialed" if entries else "allow"

    def counted(self, server: tuple[str, str], kind: str, name: str, user: dict[str, Any] | None) -> set[str]:
        """The budgets that count such a call: one that may be meant does; what is no tool counts where every tool does."""
        return {
            budget["metadata"]["name"]
            for budget in self.budgets
            for spec in [budget["spec"]]
            if self.governs(budget, server)
            and any(glob(g, name) if kind == "tools" else g == "*" for g in spec.get("tools", ["*"]))
            and (
                "from" not in spec
                or self.selected(spec["from"], budget["metadata"]["namespace"], user) != "no"
            )
        }


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
