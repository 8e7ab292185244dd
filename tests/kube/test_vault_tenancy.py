# SPDX-License-Identifier: Apache-2.0
"""Tenants are kept apart by Vault itself: the printed roles and policies on a real OpenBao that asks a real API server.

No proxy of ours stands between a test and Vault here: a pod's token is all that its owner has, and he may send what he likes.
"""

from __future__ import annotations

import contextlib
import http.client

import pytest
from tests import laptop, openbao
from tests.vault import tenants

from outrider import names, snapshot, vaultpolicy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
SALES, HR, OTHERS, PROBERS = "vt-sales", "vt-hr-agents", "vt-others", "vt-system"
SALESFORCE, JIRA, WORKDAY = (
    names.ServerId("vt-crm", "salesforce"), names.ServerId("vt-crm", "jira"), names.ServerId("vt-hr", "workday"),
)  # fmt: skip
SITES = {"kubernetes": vaultpolicy.Site(), "jwt": vaultpolicy.Site(method="JWT", auth_path="jwt-of-pods")}


def secret(role: str, path: str) -> snapshot.VaultSecret:
    return snapshot.VaultSecret(role=role, path=path, key="token")


def kept_by_server(server: names.ServerId, role: str = "") -> snapshot.VaultSecret:
    return secret(
        role or f"outrider-{server.namespace}", f"outrider/servers/{server.namespace}/{server.name}/api"
    )


def kept_by_workload(namespace: str, server: names.ServerId) -> snapshot.VaultSecret:
    return secret("outrider", f"outrider/workloads/{namespace}/{server.namespace}/{server.name}/api")


ISSUE = snapshot.ClientCertificate(
    role="outrider-vt-crm",
    path="outrider/servers/vt-crm/salesforce/pki/issue/agent",
    common_name="agents.example",
)

USES = [
    vaultpolicy.Use(SALES, SALESFORCE, kept_by_server(SALESFORCE)),
    vaultpolicy.Use(HR, WORKDAY, kept_by_server(WORKDAY)),
    *(vaultpolicy.Use(each, JIRA, kept_by_workload(each, JIRA)) for each in (SALES, HR)),
    vaultpolicy.Use(PROBERS, SALESFORCE, kept_by_server(SALESFORCE, "outrider_prober"), "prober"),
    vaultpolicy.Use(SALES, SALESFORCE, ISSUE),
]


@pytest.fixture(scope="module", params=SITES)
def ground(request, cluster, tmp_path_factory):
    """One Vault for each method: the templated policy names the method that it is for."""
    vault, site = openbao.Vault(tmp_path_factory.mktemp("tenants")), SITES[request.param]
    try:
        made = tenants.Ground(cluster, vault.start(), site)
        environment, script = made.trust(), vaultpolicy.script(vaultpolicy.roles(USES, site), site)
        # A second run finds everything there already.
        assert tenants.applied(vault, script, **environment)
        assert tenants.applied(vault, script, **environment)
        for use in USES[:4]:
            assert isinstance(use.source, snapshot.VaultSecret)
            vault.put(use.source.path, token=f"of {use.server} for {use.namespace}")
        yield made
    finally:
        vault.close()


@pytest.fixture(scope="module")
def pods(ground):
    return {
        SALES: ground.pod(SALES), HR: ground.pod(HR), OTHERS: ground.pod(OTHERS),
        PROBERS: ground.pod(PROBERS, "prober-0", "prober"),
    }  # fmt: skip


def refused(call, *words) -> int:
    """The status with which Vault refuses."""
    with pytest.raises(openbao.Refused) as told:
        call(*words)
    return told.value.status


def test_a_pod_of_a_consumer_logs_in_with_its_own_token_and_reads_what_the_server_lends(ground, pods):
    token = ground.login("outrider-vt-crm", ground.jwt(pods[SALES]))
    assert ground.read(token, kept_by_server(SALESFORCE).path) == {"token": f"of {SALESFORCE} for {SALES}"}
    versions = ground.vault.call("GET", f"secret/metadata/{kept_by_server(SALESFORCE).path}", token=token)
    assert versions["data"]["current_version"] == 1


def test_a_pod_of_another_namespace_gets_no_token_of_that_role(ground, pods):
    for other in (HR, OTHERS, PROBERS):
        assert refused(ground.login, "outrider-vt-crm", ground.jwt(pods[other])) in (400, 403)
    assert refused(ground.login, "outrider", ground.jwt(pods[OTHERS])) in (400, 403)


def test_a_workloads_own_secret_is_read_by_its_namespace_alone(ground, pods):
    tokens = {each: ground.login("outrider", ground.jwt(pods[each])) for each in (SALES, HR)}
    for own, other in ((SALES, HR), (HR, SALES)):
        assert ground.read(tokens[own], kept_by_workload(own, JIRA).path) == {"token": f"of {JIRA} for {own}"}
        assert refused(ground.read, tokens[own], kept_by_workload(other, JIRA).path) == 403
        assert refused(ground.read, tokens[own], kept_by_server(SALESFORCE).path) == 403


TRICKS = (
    "outrider/workloads/{own}/../{other}/vt-crm/jira/api",
    "outrider/workloads/{own}/vt-crm/jira/../../../{other}/vt-crm/jira/api",
    "outrider/workloads/{own}/%2e%2e/{other}/vt-crm/jira/api",
    "outrider/workloads/{own}%2f..%2f{other}/vt-crm/jira/api",
    "outrider/workloads/./{other}/vt-crm/jira/api",
    "outrider/workloads//{other}/vt-crm/jira/api",
    "outrider/workloads/{own}/..%5c{other}/vt-crm/jira/api",
    "outrider/workloads/*/vt-crm/jira/api",
    "outrider/workloads/+/vt-crm/jira/api",
    "outrider/servers/vt-crm/salesforce/api",
    "outrider/servers/vt-hr/../vt-crm/salesforce/api",
    "../secret/data/outrider/workloads/{other}/vt-crm/jira/api",
    "../../sys/policies/acl/outrider",
)


@pytest.mark.parametrize("trick", TRICKS)
def test_no_way_of_writing_a_path_leads_to_another_tenants_secret(ground, pods, trick):
    token = ground.login("outrider", ground.jwt(pods[HR]))
    path = trick.format(own=HR, other=SALES)
    status, body, where = asked(ground, token, f"/v1/secret/data/{path}")
    if status in (301, 307):
        status, body, where = asked(ground, token, where)
    assert status in (400, 403, 404, 405), body
    assert b"for vt-sales" not in body


def asked(ground, token: str, path: str) -> tuple[int, bytes, str]:
    """One GET with the path as it is written, which a client library might tidy up; status, body, and where it is sent on to."""
    connection = http.client.HTTPConnection("127.0.0.1", ground.vault.port, timeout=30)
    with contextlib.closing(connection):
        connection.putrequest("GET", path, skip_accept_encoding=True)
        connection.putheader("X-Vault-Token", token)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.getheader("Location", "")


def test_a_token_that_is_for_somebody_else_is_no_login(ground, pods):
    for audience in (ground.cluster.audience, "config.outrider.dev", "vault"):
        assert refused(ground.login, "outrider-vt-crm", ground.jwt(pods[SALES], audience)) in (
            400,
            403,
        )


def test_the_prober_may_read_what_servers_lend_and_nobody_else_may_be_the_prober(ground, pods):
    token = ground.login("outrider_prober", ground.jwt(pods[PROBERS]))
    assert ground.read(token, kept_by_server(SALESFORCE).path)
    assert refused(ground.read, token, kept_by_server(WORKDAY).path) == 403
    assert refused(ground.read, token, kept_by_workload(SALES, JIRA).path) == 403
    beside = ground.pod(PROBERS, "beside", "default")
    assert refused(ground.login, "outrider_prober", ground.jwt(beside)) in (400, 403)
    assert refused(ground.login, "outrider_prober", ground.jwt(pods[SALES])) in (400, 403)


def test_nothing_may_be_written_listed_or_made_with_what_a_login_gives(ground, pods):
    token = ground.login("outrider-vt-crm", ground.jwt(pods[SALES]))
    path = kept_by_server(SALESFORCE).path
    for verb, where, body in (
        ("POST", f"secret/data/{path}", {"data": {"token": "mine"}}),
        ("DELETE", f"secret/data/{path}", None),
        ("LIST", "secret/metadata/outrider", None),
        ("LIST", "secret/metadata/outrider/servers/vt-crm", None),
        ("POST", "auth/token/create", {}),
        ("GET", "sys/policies/acl/outrider", None),
        ("PUT", "sys/leases/revoke", {"lease_id": "outrider/servers/vt-hr/x/db/creds/r/1"}),
        ("GET", f"auth/{ground.site.auth_path}/role/outrider-vt-crm", None),
        ("PUT", "cubbyhole/x", {"a": "b"}),
    ):
        with pytest.raises(openbao.Refused) as told:
            ground.vault.call(verb, where, body, token=token)
        assert told.value.status == 403, f"{verb} {where}: {told.value}"


@pytest.fixture(scope="module")
def engines(ground):
    """PKI engines for a server of each namespace, mounted where the script says that they belong."""
    for where in ("vt-crm/salesforce", "vt-hr/workday"):
        engine = f"outrider/servers/{where}/pki"
        ground.vault.call("POST", f"sys/mounts/{engine}", {"type": "pki"})
        root = {"common_name": "root", "ttl": "24h", "key_type": "ec", "key_bits": 256}
        ground.vault.call("POST", f"{engine}/root/generate/internal", root)
        agent = {"allow_any_name": True, "generate_lease": True, "key_type": "ec", "key_bits": 256}
        ground.vault.call("POST", f"{engine}/roles/agent", agent)


def test_a_certificate_is_issued_in_the_entrys_name_alone(ground, pods, engines):
    token = ground.login("outrider-vt-crm", ground.jwt(pods[SALES]))
    wish = {"common_name": ISSUE.common_name, "ttl": "600s"}
    made = ground.vault.call("POST", ISSUE.path, wish, token=token)
    assert made["data"]["private_key"]
    for other in (
        {**wish, "common_name": "admin.example"},
        {**wish, "alt_names": "admin.example"},
        {**wish, "uri_sans": "spiffe://x/admin"},
        {**wish, "exclude_cn_from_sans": True},
    ):
        assert refused(lambda body: ground.vault.call("POST", ISSUE.path, body, token=token), other) == 403
    elsewhere = ISSUE.path.replace("vt-crm/salesforce", "vt-hr/workday")
    assert refused(lambda path: ground.vault.call("POST", path, wish, token=token), elsewhere) == 403
    for path in ("roles/agent", "revoke", "root/sign-self-issued"):
        where = ISSUE.path.replace("issue/agent", path)
        assert refused(lambda path: ground.vault.call("POST", path, {}, token=token), where) == 403


def test_a_lease_is_revoked_by_whom_it_was_made_for_and_by_no_other_tenant(ground, pods, engines):
    token = ground.login("outrider-vt-crm", ground.jwt(pods[SALES]))
    wish = {"common_name": ISSUE.common_name, "ttl": "600s"}
    lease = ground.vault.call("POST", ISSUE.path, wish, token=token)["lease_id"]
    foreign = ground.vault.call(
        "POST", ISSUE.path.replace("vt-crm/salesforce", "vt-hr/workday"), wish
    )["lease_id"]  # fmt: skip

    def revoke(which: str) -> None:
        ground.vault.call("PUT", "sys/leases/revoke", {"lease_id": which}, token=token)

    assert refused(revoke, foreign) == 403
    other = ground.login("outrider-vt-hr", ground.jwt(pods[HR]))
    assert (
        refused(lambda: ground.vault.call("PUT", "sys/leases/revoke", {"lease_id": lease}, token=other))
        == 403
    )
    revoke(lease)
    assert refused(lambda: ground.vault.call("PUT", "sys/leases/lookup", {"lease_id": lease})) == 400


def test_a_token_renews_looks_at_and_revokes_itself(ground, pods):
    token = ground.login("outrider-vt-crm", ground.jwt(pods[SALES]))
    held = ground.vault.call("GET", "auth/token/lookup-self", token=token)["data"]
    (role,) = (each for each in vaultpolicy.roles(USES, ground.site) if each.name == "outrider-vt-crm")
    assert held["policies"] == [vaultpolicy.policy_name(role, ground.site)]
    assert ground.vault.call("POST", "auth/token/renew-self", {}, token=token)["auth"]["renewable"]
    ground.vault.call("POST", "auth/token/revoke-self", {}, token=token)
    assert refused(ground.read, token, kept_by_server(SALESFORCE).path) == 403


def test_a_pod_that_is_gone_logs_in_no_more_where_the_api_server_is_asked(ground):
    pod = ground.pod(SALES, "short-lived")
    jwt = ground.jwt(pod)

    def is_refused() -> bool:
        try:
            ground.login("outrider-vt-crm", jwt)
        except openbao.Refused as told:
            return told.status == 403
        return False

    assert not is_refused()
    ground.gone(pod)
    if ground.site.method == "Kubernetes":
        # The API server remembers for some seconds that a token was good.
        laptop.until(is_refused, "the API server knows that the pod is gone", 60)
    else:
        # The jwt method looks at the signature and the time alone: such a token is good until it expires.
        assert not is_refused()


def test_whoever_writes_an_entry_for_another_namespaces_path_reaches_nothing(ground, pods):
    """An MCPServer of vt-hr gets role outrider-vt-hr, whatever its path says: prefix and role are no fields of it."""
    token = ground.login("outrider-vt-hr", ground.jwt(pods[HR]))
    assert ground.read(token, kept_by_server(WORKDAY).path)
    assert refused(ground.read, token, kept_by_server(SALESFORCE).path) == 403


def test_the_printed_roles_name_every_namespace_and_never_all(ground):
    for role in vaultpolicy.roles(USES, ground.site):
        held = ground.vault.call("GET", f"auth/{ground.site.auth_path}/role/{role.name}")["data"]
        if ground.site.method == "Kubernetes":
            spaces = held["bound_service_account_namespaces"]
        else:
            spaces = held["bound_claims"]["/kubernetes.io/namespace"]
        assert sorted(spaces) == list(role.namespaces)
        assert "*" not in spaces
        assert held["token_no_default_policy"] is True
        assert (held["token_ttl"], held["token_max_ttl"]) == (600, 86_400)
