# SPDX-License-Identifier: Apache-2.0
"""Settings about Vault and identity providers: what is secret or believed never travels in the clear, and every name is one."""

from __future__ import annotations

import json

import pytest
from tests.test_resources import refused, settings

from outrider import manifests
from outrider.resources import fields

VAULT = {"address": "https://vault.example:8200"}
OKTA = {
    "name": "okta",
    "issuer": "https://okta.example",
    "audience": "outrider",
    "jwksUri": "https://okta.example/k",
}


def test_a_vault_needs_an_address_alone() -> None:
    made = settings(vault=VAULT).vault
    assert (made.method, made.auth_path, made.mount) == ("Kubernetes", "kubernetes", "secret")
    assert (made.prefix, made.engines_prefix, made.namespace, made.ca_bundle) == (
        "outrider",
        "outrider",
        None,
        None,
    )


@pytest.mark.parametrize("address", ["https://vault", "https://10.0.0.1:8200/", "http://127.0.0.1:8200", "http://[::1]:8200"])  # fmt: skip
def test_a_vault_is_spoken_to_by_tls_or_on_this_machine(address) -> None:
    assert settings(vault={"address": address}).vault.address == address


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"address": "http://vault.vault.svc:8200"}, "address"),
        ({"address": "http://localhost.example:8200"}, "address"),
        ({"address": "https://vault.example/prefix"}, "address"),
        ({"address": "https://user@vault.example"}, "address"),
        ({"address": "https://vault.example:0"}, "address"),
        ({"address": "vault.example"}, "address"),
        ({"method": "kubernetes"}, "method"),
        ({"method": "AppRole"}, "method"),
        ({"authPath": "../sys"}, "authPath"),
        ({"authPath": "auth/"}, "authPath"),
        ({"mount": "a/../b"}, "mount"),
        ({"mount": ""}, "mount"),
        ({"prefix": "/outrider"}, "prefix"),
        ({"prefix": ".x"}, "prefix"),
        ({"enginesPrefix": "a//b"}, "enginesPrefix"),
        ({"namespace": ""}, "namespace"),
        ({"caBundle": "hello"}, "caBundle"),
        ({"caBundle": "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----"}, "caBundle"),
        ({"token": "hvs.x"}, "token"),
    ],
)
def test_a_vault_that_is_wrong_is_refused_at_the_field(change, path) -> None:
    assert refused(lambda: settings(vault={**VAULT, **change})) == {f"vault.{path}"}


def test_a_provider_needs_four_facts_and_lets_no_address_count_by_itself() -> None:
    [made] = settings(identityProviders=[OKTA]).identity_providers
    assert (made.claims.groups, made.clients, made.email_domains) == ("groups", (), ())
    assert fields.seconds(made.max_lifetime) == 5400


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"name": "Okta"}, "name"),
        ({"name": "ok:ta"}, "name"),
        ({"issuer": "http://okta.example"}, "issuer"),
        ({"issuer": "okta.example"}, "issuer"),
        ({"jwksUri": "http://okta.example/k"}, "jwksUri"),
        ({"jwksUri": "file:///etc/passwd"}, "jwksUri"),
        ({"audience": ""}, "audience"),
        ({"audience": "a b"}, "audience"),
        ({"claims": {"groups": ""}}, "claims.groups"),
        ({"claims": {"roles": "x"}}, "claims.roles"),
        ({"clients": [""]}, "clients.0"),
        ({"emailDomains": ["Example.com"]}, "emailDomains.0"),
        ({"emailDomains": ["@example.com"]}, "emailDomains.0"),
        ({"tokenEndpoints": ["http://as.example/t"]}, "tokenEndpoints.0"),
        ({"tokenEndpoints": ["*"]}, "tokenEndpoints.0"),
        ({"maxLifetime": "59s"}, "maxLifetime"),
        ({"maxLifetime": "1441m"}, "maxLifetime"),
        ({"caBundle": "x"}, "caBundle"),
        ({"algorithms": ["HS256"]}, "algorithms"),
    ],
)
def test_a_provider_that_is_wrong_is_refused_at_the_field(change, path) -> None:
    assert refused(lambda: settings(identityProviders=[{**OKTA, **change}])) == {
        f"identityProviders.0.{path}"
    }


@pytest.mark.parametrize("missing", ["name", "issuer", "audience", "jwksUri"])
def test_a_provider_is_believed_only_when_all_that_is_checked_is_said(missing) -> None:
    given = {field: value for field, value in OKTA.items() if field != missing}
    assert refused(lambda: settings(identityProviders=[given])) == {f"identityProviders.0.{missing}"}


def test_a_provider_of_this_machine_may_be_plain() -> None:
    near = {"issuer": "http://127.0.0.1:9000", "jwksUri": "http://localhost:9000/k"}
    assert settings(identityProviders=[{**OKTA, **near}]).identity_providers[0].issuer == near["issuer"]


def messages(**given) -> list[str]:
    whole = {"apiVersion": "outrider.dev/v1alpha1", "kind": "Settings", **given}
    return [str(each) for each in manifests.settings(json.dumps(whole))]


@pytest.mark.parametrize("field", ["issuer", "jwksUri"])
@pytest.mark.parametrize("host", ["okta.example", "127.0.0.999"])
def test_what_is_believed_and_not_encrypted_is_refused_with_the_reason(field, host) -> None:
    """Nothing secret is sent to either: what is read there decides who is believed."""
    [text] = messages(identityProviders=[{**OKTA, field: f"http://{host}/k"}])
    assert "must be an https URL" in text
    assert "could read and change what passes" in text
    assert "secret" not in text


def test_a_vault_by_http_is_refused_with_the_reason() -> None:
    [text] = messages(vault={"address": "http://vault.example:8200"})
    assert "must be an https address" in text
    assert "http only to this machine itself" in text


def test_two_providers_are_two_by_name_and_by_issuer() -> None:
    other = {**OKTA, "name": "google", "issuer": "https://accounts.example"}
    assert len(settings(identityProviders=[OKTA, other]).identity_providers) == 2
    assert refused(lambda: settings(identityProviders=[OKTA, {**other, "name": "okta"}])) == {"identityProviders[1].name"}  # fmt: skip
    twin = {**other, "issuer": OKTA["issuer"]}
    assert refused(lambda: settings(identityProviders=[OKTA, twin])) == {"identityProviders[1].issuer"}


def test_a_teams_groups_are_of_a_provider_that_exists() -> None:
    """Else a Deny of the team would deny nobody, in silence."""
    team = {"name": "sales", "groups": ["okta:sales"]}
    assert settings(teams=[team], identityProviders=[OKTA]).teams[0].groups == ("okta:sales",)
    assert refused(lambda: settings(teams=[team])) == {"teams[0].groups[0]"}
    wrong = {"name": "sales", "groups": ["okta:a", "otka:sales"]}
    assert refused(lambda: settings(teams=[wrong], identityProviders=[OKTA])) == {"teams[0].groups[1]"}
    assert refused(lambda: settings(teams=[{"name": "a", "groups": ["sales"]}])) == {"teams.0.groups.0"}


def test_what_is_wrong_is_told_with_what_was_meant_and_without_a_value() -> None:
    head = {"apiVersion": "outrider.dev/v1alpha1", "kind": "Settings"}
    typo = {**head, "teams": [{"name": "a", "groups": ["otka:x"]}], "identityProviders": [OKTA]}
    [problem] = manifests.settings(json.dumps(typo))
    assert 'did you mean "okta"?' in str(problem)
    [problem] = manifests.settings(json.dumps({**head, "vault": {"address": "http://sesame.example"}}))
    assert "must be an https address" in str(problem)
    assert "sesame" not in str(problem)
