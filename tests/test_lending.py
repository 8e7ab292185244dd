# SPDX-License-Identifier: Apache-2.0
"""From an entry of an MCPServer to the one place its credential is at: no field of an object moves it out of its tenant."""

from __future__ import annotations

import json

import pytest
from tests.test_scope import PROVIDERS
from tests.worlds import EVERYONE, S, allow, policy, server, world

from outrider import compile as compiler
from outrider import names, snapshot
from outrider.compile import lending
from outrider.resources import credential, oauth

VAULT = {"address": "https://vault.example:8200/"}
TOKEN = {"path": "token", "key": "t"}
GRANT = {"tokenUrl": "https://as.example/t", "clientId": "c", "clientSecret": {"vault": {"path": "oauth", "key": "s"}}}  # fmt: skip


def entry(name="c", who=EVERYONE, **more):
    return {"name": name, "from": who, **more}


def seen(*entries, namespace="agents", more=(), **settings):
    """The snapshot of agents/bot where crm/s lists these entries."""
    given = {"consumerConsent": "Implied", "vault": VAULT, "identityProviders": PROVIDERS, **settings}
    given = {field: value for field, value in given.items() if value is not None}
    made = world(server(credentials=list(entries)), policy(allow()), *more, **given)
    return compiler.snapshot(made, namespace, "bot")


def lent(given, **more):
    [found] = seen(given, **more).servers[0].credentials
    return found


def test_a_secret_of_the_servers_side_lies_under_its_namespace_and_name() -> None:
    found = lent(entry(vault=TOKEN))
    assert found.source == snapshot.VaultSecret(
        role="outrider-crm", path="outrider/servers/crm/s/token", key="t"
    )
    assert (found.header, found.prefix) == ("authorization", "Bearer ")


def test_a_secret_of_the_workloads_side_lies_under_its_namespace_for_that_server() -> None:
    found = lent(entry(vault={**TOKEN, "owner": "Workload"}))
    assert found.source == snapshot.VaultSecret(
        role="outrider", path="outrider/workloads/agents/crm/s/token", key="t"
    )


def test_what_engines_make_lies_below_the_same_names_of_a_prefix_of_its_own() -> None:
    vault = {**VAULT, "enginesPrefix": "engines/outrider", "prefix": "kv"}
    lease = entry(vault={"path": "db/creds/readonly", "key": "password", "engine": "Lease"})
    assert lent(lease, vault=vault).source == snapshot.VaultLease(
        role="outrider-crm", path="engines/outrider/servers/crm/s/db/creds/readonly", key="password"
    )
    pki = entry(
        clientCertificate={"vault": {"path": "pki/issue/agent", "owner": "Workload"}, "commonName": "a.b"}
    )
    found = lent(pki, vault=vault)
    assert found.source == snapshot.ClientCertificate(
        role="outrider", path="engines/outrider/workloads/agents/crm/s/pki/issue/agent", common_name="a.b"
    )


def test_a_certificate_lives_as_long_as_its_entry_says() -> None:
    pki = {"vault": {"path": "pki/issue/agent"}, "commonName": "a", "ttl": "30m"}
    assert lent(entry(clientCertificate=pki)).source.ttl_seconds == 1800


def test_a_key_of_the_pods_secret_lies_under_the_server_it_was_chosen_for() -> None:
    assert lent(entry(secretRef={"key": "t"})).source == snapshot.MountedSecret(path="crm.s/t")


def test_a_file_is_where_the_folder_is() -> None:
    assert lent(entry(file={"path": "x/t"})).source == snapshot.FileSecret(path="/etc/o/x/t")
    grant = {**GRANT, "clientSecret": {"file": {"path": "s"}}}
    assert lent(entry(oauthClientCredentials=grant)).source.client.secret.path == "/etc/o/s"


def test_a_header_of_its_own_has_no_prefix_unless_one_is_written() -> None:
    key = lent(entry(vault=TOKEN, inject={"header": "X-Key"}))
    assert (key.header, key.prefix) == ("x-key", "")
    written = lent(entry(vault=TOKEN, inject={"header": "X-Key", "prefix": "Key "}))
    assert written.prefix == "Key "
    bare = lent(entry(vault=TOKEN, inject={"prefix": ""}))
    assert (bare.header, bare.prefix) == ("authorization", "")


def test_a_token_of_the_proxys_own_is_got_with_all_that_the_entry_says() -> None:
    grant = {**GRANT, "post": True, "scopes": ["a", "b"], "resource": "https://x.example/mcp", "audience": "x",
             "tls": {"caBundle": "-----BEGIN CERTIFICATE-----"}}  # fmt: skip
    assert lent(entry(oauthClientCredentials=grant)).source == snapshot.ClientCredentials(
        token_url="https://as.example/t",
        client=snapshot.OAuthClient(
            id="c",
            secret=snapshot.VaultSecret(role="outrider-crm", path="outrider/servers/crm/s/oauth", key="s"),
            post=True,
        ),
        scopes=("a", "b"),
        resource="https://x.example/mcp",
        audience="x",
        ca_bundle="-----BEGIN CERTIFICATE-----",
    )


def test_a_key_that_signs_does_so_as_the_entry_says() -> None:
    grant = {
        "tokenUrl": "https://as.example/t",
        "clientId": "c",
        "privateKey": {"secretRef": {"key": "k.pem"}},
    }
    plain = lent(entry(oauthClientCredentials=grant)).source.client
    assert plain == snapshot.OAuthClient(id="c", key=snapshot.MountedSecret(path="crm.s/k.pem"))
    chosen = lent(entry(oauthClientCredentials={**grant, "algorithm": "ES256", "keyId": "1"})).source.client
    assert (chosen.algorithm, chosen.key_id) == ("ES256", "1")


@pytest.mark.parametrize(
    ("written", "actor", "name"),
    [
        ({}, True, "access_token"),
        ({"actor": "Workload", "subjectTokenType": "AccessToken"}, True, "access_token"),
        ({"actor": "Nobody", "subjectTokenType": "JWT"}, False, "jwt"),
        ({"subjectTokenType": "IDToken"}, True, "id_token"),
    ],
)
def test_an_exchange_names_the_users_token_and_who_acts(written, actor, name) -> None:
    source = lent(entry(tokenExchange={**GRANT, **written})).source
    assert isinstance(source, snapshot.TokenExchange)
    assert (source.actor, source.subject_type) == (actor, name)


def test_none_is_said_in_so_many_words() -> None:
    assert lent(entry(none=True)).source is None


def test_an_entry_keeps_what_it_says_of_users_and_tools() -> None:
    found = lent(entry(who=[{"groups": ["okta:g"]}], vault=TOKEN, tools=["get_*"]))
    assert found.tools == ("get_*",)
    assert [test.groups for test in found.callers] == [("okta:g",)]


def test_without_a_vault_in_the_settings_the_entry_stands_and_there_is_nowhere_to_ask() -> None:
    """Left out, the next entry would be lent in its place."""
    found = seen(entry(vault=TOKEN), entry("open", none=True), vault=None)
    assert [each.name for each in found.servers[0].credentials] == ["c"]
    assert found.vault is None


def test_the_vault_is_told_to_those_alone_who_borrow_from_it() -> None:
    assert seen(entry(none=True)).vault is None
    assert seen(entry(secretRef={"key": "t"})).vault is None
    assert seen(entry(vault=TOKEN)).vault == snapshot.Vault(address="https://vault.example:8200")
    assert seen(entry(oauthClientCredentials=GRANT)).vault is not None
    key = {"tokenUrl": "https://as.example/t", "clientId": "c", "privateKey": {"vault": TOKEN}}
    assert seen(entry(tokenExchange=key)).vault is not None
    pki = {"vault": {"path": "pki/issue/agent"}, "commonName": "a"}
    assert seen(entry(clientCertificate=pki)).vault is not None


def test_the_whole_vault_is_told() -> None:
    given = {"address": "https://v.example", "method": "JWT", "authPath": "jwt/one", "mount": "kv", "prefix": "o",
             "enginesPrefix": "e", "namespace": "team", "caBundle": "-----BEGIN CERTIFICATE-----"}  # fmt: skip
    assert seen(entry(vault=TOKEN), vault=given).vault == snapshot.Vault(
        address="https://v.example", method="JWT", auth_path="jwt/one", mount="kv", namespace="team",
        ca_bundle="-----BEGIN CERTIFICATE-----",
    )  # fmt: skip


def test_identity_providers_are_told_to_everybody() -> None:
    given = {**PROVIDERS[0], "clients": ["cli"], "emailDomains": ["example.com"], "maxLifetime": "10m",
             "claims": {"groups": "roles", "client": "cid"}, "caBundle": "-----BEGIN CERTIFICATE-----"}  # fmt: skip
    assert seen(entry(none=True), identityProviders=[given]).providers == (
        snapshot.IdentityProvider(
            name="okta", issuer="https://okta.example", audience="outrider", jwks_uri="https://okta.example/k",
            groups_claim="roles", clients=("cli",), client_claim="cid", email_domains=("example.com",), lifetime_seconds_max=600,
            ca_bundle="-----BEGIN CERTIFICATE-----",
        ),
    )  # fmt: skip


KEY = {"tokenUrl": "https://as.example/t", "clientId": "c", "privateKey": {"vault": TOKEN}}
PKI = {"vault": {"path": "pki/issue/x"}, "commonName": "x"}


@pytest.mark.parametrize(
    ("plain", "written"),
    [
        ({"vault": TOKEN}, {"vault": {**TOKEN, "owner": "Server", "engine": "KV"}}),
        ({"oauthClientCredentials": KEY}, {"oauthClientCredentials": {**KEY, "algorithm": "RS256"}}),
        ({"oauthClientCredentials": GRANT}, {"oauthClientCredentials": {**GRANT, "post": False}}),
        ({"tokenExchange": GRANT}, {"tokenExchange": {**GRANT, "actor": "Workload", "subjectTokenType": "AccessToken"}}),
        ({"clientCertificate": PKI}, {"clientCertificate": {**PKI, "ttl": "60m"}}),
        ({"vault": TOKEN}, {"vault": TOKEN, "inject": {"header": "authorization", "prefix": "Bearer "}}),
    ],
)  # fmt: skip
def test_what_equals_a_default_is_the_same_version_as_what_is_left_out(plain, written) -> None:
    """Byte for byte: the compiler that remembers keeps the old one of two equal snapshots."""
    bare, whole = seen(entry(**plain)), seen(entry(**written))
    assert bare == whole
    assert snapshot.canonical(bare) == snapshot.canonical(whole)


def test_settings_that_say_what_they_would_be_anyway_make_the_same_version() -> None:
    said = {
        **VAULT,
        "method": "Kubernetes",
        "authPath": "kubernetes",
        "mount": "secret",
        "prefix": "outrider",
    }
    provider = {
        **PROVIDERS[0],
        "claims": {"groups": "groups"},
        "clients": [],
        "emailDomains": [],
        "maxLifetime": "90m",
    }
    bare, whole = seen(entry(vault=TOKEN)), seen(entry(vault=TOKEN), vault=said, identityProviders=[provider])
    assert bare == whole
    assert snapshot.canonical(bare) == snapshot.canonical(whole)


# Users' tokens go where the settings say ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/t",  # whoever wrote the entry would have the tokens of all who use the server
        "https://as.example/t/other",
        "https://as.example/t?x",
        "https://as.example:8443/t",
        "https://okta.example.evil.example/token",
        "https://okta.example:8443/token",
        "http://127.0.0.1:9/token",
    ],
)
def test_an_exchange_elsewhere_than_at_the_issuer_or_where_the_settings_list_it_is_not_lent(url) -> None:
    given = entry(tokenExchange={**GRANT, "tokenUrl": url})
    found = seen(given, entry("next", none=True)).servers[0]
    assert (found.credentials, found.credential_required) == ((), True), "and nothing in its place"


@pytest.mark.parametrize(
    "url", ["https://as.example/t", "https://okta.example/token", "https://OKTA.example:443/x"]
)
def test_an_exchange_at_the_issuer_or_where_the_settings_list_it_is_lent(url) -> None:
    assert lent(entry(tokenExchange={**GRANT, "tokenUrl": url})).source.token_url == url


def test_a_token_of_the_proxys_own_may_come_from_anywhere() -> None:
    given = entry(oauthClientCredentials={**GRANT, "tokenUrl": "https://evil.example/t"})
    assert lent(given).source.token_url == "https://evil.example/t"


# No path leaves its tenant -------------------------------------------------------------------------------------------


def unchecked(path, *, key="t"):
    """An entry as neither the API server nor the models would let it in."""
    value = oauth.VaultValue.model_construct(owner="Server", path=path, key=key, engine="KV")
    return credential.Credential.model_validate_json(json.dumps(entry(vault=TOKEN))).model_copy(
        update={"vault": value}
    )


@pytest.mark.parametrize(
    "path", ["..", "../x", "a/../b", "a/..", "/a", "a/", "a//b", "./a", "a/.", ".a", "a\n", "a b", "a%2fb", "a\\..", "", "\u0430/\u2025"]
)  # fmt: skip
def test_a_path_that_could_mean_something_else_is_lent_by_nobody(path) -> None:
    borrower = lending.Borrower(world(vault=VAULT).settings, S, "agents")
    assert lending.lent(borrower, unchecked(path)) is None


def test_an_entry_that_must_not_be_used_is_not_replaced_by_the_next(monkeypatch) -> None:
    made = world(server(credentials=[entry("first", none=True), entry("bad", vault=TOKEN), entry("open", none=True)]), policy(allow()))  # fmt: skip
    listed = made.servers[0].resource.spec.credentials
    object.__setattr__(
        made.servers[0].resource.spec, "credentials", (listed[0], unchecked("../x"), listed[2])
    )
    view = compiler.snapshot(made, "crm", "bot").servers[0]
    assert ([each.name for each in view.credentials], view.credential_required) == (["first"], True)


def test_the_keys_of_secrets_are_looked_at_once_more_too() -> None:
    borrower = lending.Borrower(world().settings, S, "agents")
    bad = credential.Credential.model_validate_json(json.dumps(entry(secretRef={"key": "t"}))).model_copy(
        update={"secret_ref": oauth.SecretKey.model_construct(key="../../x")}
    )
    assert lending.lent(borrower, bad) is None


def test_paths_of_two_parties_never_meet() -> None:
    """Whatever namespaces and servers are called: labels hold no slash, and the two trees begin differently."""
    one = lending.server_path("p", names.ServerId("a", "b"), "c")
    assert one == "p/servers/a/b/c"
    assert lending.workload_path("p", "servers", names.ServerId("a", "b"), "c") == "p/workloads/servers/a/b/c"
    assert lending.server_role("prober") != lending.PROBER_ROLE
    assert not names.is_label(lending.PROBER_ROLE)


def test_the_prober_borrows_what_the_servers_side_stores_with_a_role_of_its_own() -> None:
    borrower = lending.Borrower(world(vault=VAULT).settings, S, None)
    of = credential.Credential.model_validate_json
    own = lending.lent(borrower, of(json.dumps(entry(vault=TOKEN))))
    assert own.source == snapshot.VaultSecret(
        role="outrider_prober", path="outrider/servers/crm/s/token", key="t"
    )
    assert lending.lent(borrower, of(json.dumps(entry(vault={**TOKEN, "owner": "Workload"})))) is None
    grant = {**GRANT, "clientSecret": {"vault": {**TOKEN, "owner": "Workload"}}}
    assert lending.lent(borrower, of(json.dumps(entry(oauthClientCredentials=grant)))) is None
