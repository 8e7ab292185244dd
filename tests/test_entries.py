# SPDX-License-Identifier: Apache-2.0
"""Findings about credentials: what cannot be lent as it is listed, and nothing about what can."""

from __future__ import annotations

import pytest
from tests.test_lending import GRANT, TOKEN, VAULT, entry, unchecked
from tests.test_scope import PROVIDERS
from tests.worlds import server, world

from outrider import compile as compiler
from outrider.findings import Reason

SALES = [{"namespaces": ["agents"]}]
BOTH = {"vault": VAULT, "identityProviders": PROVIDERS}


def found(*entries, require_user=False, **settings):
    more = {"requireUser": True} if require_user else {}
    made = world(server(credentials=list(entries), **more), **settings)
    return [(each.reason, each.path) for each in compiler.check(made)]


def test_every_kind_is_in_order_where_the_settings_know_vault_and_a_provider() -> None:
    kinds = [
        entry("exchange", [{"groups": ["okta:a"]}], tokenExchange=GRANT),
        entry("vault", [{"namespaces": ["a"]}], vault=TOKEN),
        entry("secret", [{"namespaces": ["b"]}], secretRef={"key": "t"}),
        entry("grant", [{"namespaces": ["c"]}], oauthClientCredentials=GRANT),
        entry("pki", [{"namespaces": ["d"]}], clientCertificate={"vault": {"path": "pki/issue/x"}, "commonName": "x"}),
        entry("rest", none=True),
    ]  # fmt: skip
    assert found(*kinds, require_user=True, **BOTH) == []


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("vault", TOKEN),
        ("oauthClientCredentials", GRANT),
        ("clientCertificate", {"vault": {"path": "pki/issue/x"}, "commonName": "x"}),
    ],
)
def test_what_comes_from_vault_needs_one(kind, value) -> None:
    assert found(entry(**{kind: value})) == [(Reason.NO_VAULT, f"spec.credentials[0].{kind}")]
    assert found(entry(**{kind: value}), vault=VAULT) == []


def test_a_token_in_the_users_name_needs_a_provider_of_users() -> None:
    at = "spec.credentials[0].tokenExchange"
    assert found(entry(tokenExchange=GRANT), vault=VAULT) == [(Reason.UNKNOWN_PROVIDER, at)]


def test_an_exchange_where_the_settings_let_no_users_tokens_go_is_found() -> None:
    given = entry(tokenExchange={**GRANT, "tokenUrl": "https://evil.example/t"})
    at = "spec.credentials[0].tokenExchange.tokenUrl"
    assert found(given, **BOTH) == [(Reason.UNTRUSTED_TOKEN_ENDPOINT, at)]


def test_requiring_a_user_needs_a_provider_of_users() -> None:
    assert found(entry(none=True), require_user=True) == [(Reason.UNKNOWN_PROVIDER, "spec.requireUser")]
    assert found(entry(none=True), require_user=True, identityProviders=PROVIDERS) == []


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (entry("a", none=True), entry("b", vault=TOKEN)),
        (entry("a", none=True), entry("b", [{"users": ["okta:ada"]}], vault=TOKEN)),
        (entry("a", SALES, none=True), entry("b", [{"namespaces": ["agents"], "teams": ["x"]}], vault=TOKEN)),
        (entry("a", none=True, tools=["get_*"]), entry("b", vault=TOKEN, tools=["get_a", "get_*"])),
        (entry("a", [{"groups": ["okta:a", "okta:b"]}], none=True), entry("b", [{"groups": ["okta:b"]}], vault=TOKEN)),
        (entry("a", tokenExchange=GRANT), entry("b", vault=TOKEN)),
    ],
)  # fmt: skip
def test_an_entry_after_one_that_takes_all_its_calls_is_found(first, later) -> None:
    teams = [{"name": "x", "namespaces": ["agents"]}]
    assert found(first, later, teams=teams, **BOTH) == [(Reason.SHADOWED, "spec.credentials[1]")]


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (entry("a", SALES, none=True), entry("b", vault=TOKEN)),
        (entry("a", none=True, tools=["get_*"]), entry("b", vault=TOKEN)),
        (entry("a", none=True, tools=["Get"]), entry("b", vault=TOKEN, tools=["get"])),
        (entry("a", [{"users": ["okta:ada"]}], none=True), entry("b", vault=TOKEN)),
        (entry("a", [{"groups": ["okta:a"], "namespaces": ["agents"]}], none=True), entry("b", [{"groups": ["okta:a"]}], vault=TOKEN)),
        (entry("a", SALES, none=True), entry("b", [{"namespaces": ["agents", "hr"]}], vault=TOKEN)),
        (entry("a", SALES, none=True), entry("b", [*SALES, {"namespaces": ["hr"]}], vault=TOKEN)),
    ],
)  # fmt: skip
def test_an_entry_that_some_call_can_reach_is_not_called_shadowed(first, later) -> None:
    assert found(first, later, **BOTH) == []


def test_a_path_that_nobody_lends_is_found_if_it_got_in() -> None:
    made = world(server(credentials=[entry(vault=TOKEN)]), **BOTH)
    object.__setattr__(made.servers[0].resource.spec, "credentials", (unchecked("../x"),))
    [one] = compiler.check(made)
    assert (one.reason, one.path) == (Reason.UNUSABLE_CREDENTIAL, "spec.credentials[0].vault")
    assert "../x" not in str(one)


def test_users_of_a_provider_that_is_unknown_are_found_with_the_one_that_was_meant() -> None:
    who = [{"groups": ["okta:a", "otka:b"], "users": ["okta:ada"], "clients": ["google:cli"]}]
    made = world(server(credentials=[entry(who=who, none=True)]), **BOTH)
    told = {each.path: each.remedy for each in compiler.check(made)}
    assert told == {
        "spec.credentials[0].from[0].groups[1]": 'Did you mean "okta:b"?',
        "spec.credentials[0].from[0].clients[0]": "Add it to identityProviders of the settings.",
    }
