# SPDX-License-Identifier: Apache-2.0
"""What is printed for a Vault admin, as text; that real Vaults keep tenants apart by it is shown in tests/kube/test_vault_tenancy.py."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from outrider import names, snapshot, vaultpolicy

CRM, HR = names.ServerId("crm", "salesforce"), names.ServerId("hr", "workday")
SITE = vaultpolicy.Site()
SECRET = snapshot.VaultSecret(role="outrider-crm", path="outrider/servers/crm/salesforce/api", key="token")
LEASE = snapshot.VaultLease(
    role="outrider-crm", path="outrider/servers/crm/salesforce/db/creds/readonly", key="password"
)
CERTIFICATE = snapshot.ClientCertificate(
    role="outrider-crm", path="outrider/servers/crm/salesforce/pki/issue/agent", common_name="agents.example"
)


def use(source: snapshot.Source, namespace: str = "sales-agents", server: names.ServerId = CRM):
    return vaultpolicy.Use(namespace, server, source)


def only(*uses: vaultpolicy.Use, site: vaultpolicy.Site = SITE) -> vaultpolicy.Role:
    (role,) = vaultpolicy.roles(uses, site)
    return role


def paths(role: vaultpolicy.Role) -> dict[str, str]:
    """Path -> capability, without what every role may do with its own token."""
    return {each.path: each.capability for each in role.grants if not each.path.startswith("auth/")}


def test_a_role_reads_its_entries_and_their_versions_and_nothing_else():
    role = only(use(SECRET))
    assert paths(role) == {
        "secret/data/outrider/servers/crm/salesforce/api": "read",
        "secret/metadata/outrider/servers/crm/salesforce/api": "read",
    }
    own = {each.path: each.capability for each in role.grants if each.path.startswith("auth/")}
    assert own == {
        "auth/token/lookup-self": "read", "auth/token/renew-self": "update", "auth/token/revoke-self": "update",
    }  # fmt: skip
    assert "*" not in vaultpolicy.policy(role)


def test_two_keys_of_one_secret_are_one_grant_and_every_consumer_is_named():
    other = snapshot.VaultSecret(role=SECRET.role, path=SECRET.path, key="user")
    role = only(use(SECRET), use(other, "sales"), use(SECRET, "crm"))
    assert len(paths(role)) == 2
    assert role.namespaces == ("crm", "sales", "sales-agents")
    assert vaultpolicy.login(role, SITE)["bound_service_account_namespaces"] == [
        "crm",
        "sales",
        "sales-agents",
    ]


def test_namespaces_of_servers_do_not_share_a_role():
    workday = snapshot.VaultSecret(role="outrider-hr", path="outrider/servers/hr/workday/api", key="token")
    made = vaultpolicy.roles([use(SECRET), use(workday, "hr-agents", HR)], SITE)
    assert [(each.name, each.namespaces, each.servers) for each in made] == [
        ("outrider-crm", ("sales-agents",), (CRM,)),
        ("outrider-hr", ("hr-agents",), (HR,)),
    ]


def test_what_workloads_keep_is_one_template_for_all_of_them():
    kept = [
        use(snapshot.VaultSecret(role="outrider", path=f"outrider/workloads/{each}/crm/salesforce/api", key="t"), each)
        for each in ("hr", "sales")
    ]  # fmt: skip
    role = only(*kept)
    assert role.templated
    where = "{{identity.entity.aliases.auth_kubernetes_1.metadata.service_account_namespace}}"
    text = vaultpolicy.policy(role, "auth_kubernetes_1")
    assert f'path "secret/data/outrider/workloads/{where}/crm/salesforce/api"' in text
    assert text.count("workloads/") == 2
    assert "/hr/" not in text


def test_a_path_that_is_not_the_namespaces_own_is_no_template():
    stray = snapshot.VaultSecret(role="outrider", path="outrider/workloads/hr/crm/salesforce/api", key="t")
    with pytest.raises(vaultpolicy.Unprintable, match="is not below outrider/workloads/sales"):
        only(use(stray, "sales"))


def test_a_lease_is_read_renewed_and_revoked_and_no_other_lease_is():
    role = only(use(LEASE))
    assert paths(role) == {LEASE.path: "read", "sys/leases/renew": "update", "sys/leases/revoke": "update"}
    text = vaultpolicy.policy(role)
    assert '"lease_id" = ["outrider/servers/crm/*"]' in text
    assert role.engines == ("outrider/servers/crm/salesforce/db",)


@pytest.mark.parametrize(
    ("own", "engine"),
    [
        ("db/readonly", "db"), ("team/db/creds/readonly", "team/db"), ("crm/salesforce/db/creds/r", "crm/salesforce/db"),
        ("pki/issue/agent", "pki"), ("pki/issuer/main/issue/agent", "pki"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("role", "place"), [("outrider-crm", "servers"), ("outrider", "workloads/sales")])
def test_an_engine_is_named_where_it_is_mounted_and_never_above_the_servers_own(own, engine, role, place):
    path = f"outrider/{place}/crm/salesforce/{own}"
    made = only(use(snapshot.VaultLease(role=role, path=path, key="password"), "sales"))
    assert made.engines[0].endswith(f"/crm/salesforce/{engine}")
    shown = vaultpolicy.document([made], SITE)
    assert f"/crm/salesforce/{engine}/ is yours to mount" in shown
    assert "crm/salesforce/ is yours" not in shown


def test_a_certificate_is_issued_under_the_names_of_the_entries_alone():
    other = snapshot.ClientCertificate(
        role="outrider-crm", path=CERTIFICATE.path, common_name="batch.example"
    )
    role = only(use(CERTIFICATE), use(other))
    assert paths(role)[CERTIFICATE.path] == "update"
    text = vaultpolicy.policy(role)
    assert '"common_name" = ["agents.example", "batch.example"]' in text
    assert '"ttl" = []' in text
    assert "alt_names" not in text


def test_the_secrets_of_an_oauth_client_count_too():
    client = snapshot.OAuthClient(id="outrider", secret=SECRET)
    exchange = snapshot.TokenExchange(
        token_url="https://idp.example/token", client=snapshot.OAuthClient(id="o", key=LEASE)
    )
    made = [snapshot.ClientCredentials(token_url="https://idp.example/token", client=client), exchange]
    role = only(*map(use, made))
    assert {SECRET.path, LEASE.path} <= {path.removeprefix("secret/data/") for path in paths(role)}


def test_what_is_in_no_vault_needs_no_role():
    made = [use(snapshot.FileSecret(path="/a")), use(snapshot.MountedSecret(path="crm.salesforce/token"))]
    assert vaultpolicy.roles(made, SITE) == ()
    assert list(vaultpolicy.places(None)) == []


def test_clusters_that_share_a_vault_share_no_policy():
    role = only(use(SECRET))
    assert vaultpolicy.login(role, SITE)["token_policies"] == ["outrider-crm"]
    other = vaultpolicy.Site(auth_path="clusters/Two", prefix="two")
    assert vaultpolicy.login(role, other)["token_policies"] == ["clusters-two-outrider-crm"]
    assert "policy write clusters-two-outrider-crm - " in vaultpolicy.script([role], other)


def test_a_role_of_either_method_is_bound_and_short():
    role = only(vaultpolicy.Use("outrider-system", CRM, SECRET, "outrider-prober"))
    by_review = vaultpolicy.login(role, SITE)
    assert by_review["bound_service_account_names"] == ["outrider-prober"]
    by_signature = vaultpolicy.login(role, vaultpolicy.Site(method="JWT", auth_path="jwt"))
    assert by_signature["bound_subject"] == "system:serviceaccount:outrider-system:outrider-prober"
    assert by_signature["bound_claims"] == {"/kubernetes.io/namespace": ["outrider-system"]}
    for made in (by_review, by_signature):
        assert made["token_no_default_policy"] is True
        assert (made["token_ttl"], made["token_max_ttl"]) == ("10m", "24h")
    assert by_review["audience"] == vaultpolicy.AUDIENCE
    assert by_signature["bound_audiences"] == [vaultpolicy.AUDIENCE]


@pytest.mark.parametrize("text", ["a*", "a+/b", "a$(id)", "a`id`", 'a"b', "a\nb", "a\\b", "é", "a{{b}}"])
def test_a_name_that_a_shell_or_a_policy_would_read_as_more_is_refused(text):
    path = snapshot.VaultSecret(role="outrider-crm", path=text, key="token")
    certificate = snapshot.ClientCertificate(role="outrider-crm", path=CERTIFICATE.path, common_name=text)
    for source in (path, certificate):
        with pytest.raises(vaultpolicy.Unprintable):
            only(use(source))


@pytest.mark.parametrize("method", ["Kubernetes", "JWT"])
def test_the_script_is_a_shell_script_that_names_no_namespace_by_a_star(method):
    site = vaultpolicy.Site(method=method, auth_path="clusters/one", namespace="team-a")
    made = vaultpolicy.roles([use(SECRET), use(LEASE), use(CERTIFICATE)], site)
    script = vaultpolicy.script(made, site)
    assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0
    assert "export VAULT_NAMESPACE=team-a BAO_NAMESPACE=team-a" in script
    bodies = re.findall(r"role/\S+ - <<'END'\n(.*?)\nEND", script, re.DOTALL)
    assert [json.loads(each) for each in bodies] == [vaultpolicy.login(made[0], site)]
    assert "is yours to mount" in script


def test_the_document_holds_every_policy_and_role_for_people():
    made = vaultpolicy.roles([use(SECRET), use(LEASE)], SITE)
    text = vaultpolicy.document(made, SITE, "auth_kubernetes_1")
    assert text.startswith("# Auth method: kubernetes at auth/kubernetes.")
    assert "# ---- policy outrider-crm: for workloads of sales-agents, what crm/salesforce lends" in text
    assert vaultpolicy.policy(made[0]).rstrip() in text
    # Without its comments it is what Vault reads as a policy.
    assert all(not line or line[0] in "p #}" for line in text.splitlines())
