# SPDX-License-Identifier: Apache-2.0
"""The whole path on a real API server and a real OpenBao: a pod's token, a login, a secret, and the server that sees it.

What `outrider vault-policy --cluster` prints is what Vault's admin applied here. The operator runs under the chart's rights, proxies are
started with the arguments and tokens that the webhook gave their pods, and everything is in TLS.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import ssl
from typing import Any

import pytest
from tests import laptop, openbao
from tests.authserver import server as authserver
from tests.kube import address, asked, certs, installation, scenarios
from tests.scenarios import recorder
from tests.vault import tenants

from outrider import vaultpolicy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SALES, HR = "sales-agents", "hr-agents"
IDP = "idp.corp.example"
ANYONE = [{"anyone": True}]
SERVERS = ("recorder", "rotating", "jira", "deals", "mtls")


def entry(frm: Any = None, **source: Any) -> dict[str, Any]:
    return {"name": "token", "from": frm or ANYONE, **source}


def allowed(name: str, frm: Any) -> dict[str, Any]:
    rule = {"name": "all", "effect": "Allow", "from": frm, "tools": ["*"]}
    return scenarios.policy(rule, name=name, target=name)


def consent(namespace: str) -> dict[str, Any]:
    spec = {
        "targetRefs": [{"namespace": "*", "name": "*"}],
        "rules": [{"name": "all", "effect": "Allow", "from": ANYONE, "tools": ["*"]}],
    }
    return scenarios.obj("MCPToolPolicy", "consent", spec, namespace)


@pytest.fixture(scope="module")
def vault(tmp_path_factory):
    made = openbao.Vault(tmp_path_factory.mktemp("vault"), tls=True)
    try:
        yield made.start()
    finally:
        made.close()


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return certs.Authority.make(tmp_path_factory.mktemp("keys"), [f"{name}-mcp.crm.svc" for name in SERVERS])


def secure(keys: certs.Authority) -> ssl.SSLContext:
    """What every server here shows: a credential is sent over TLS only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys.server_cert, keys.server_key)
    return context


@pytest.fixture(scope="module")
def seen(keys):
    with recorder.running(address.private(), tls=secure(keys)) as found:
        yield found


@pytest.fixture(scope="module")
def behind_tls(vault, keys):
    """A server that takes nobody without a certificate of the PKI engine that is mounted for it."""
    engine = "outrider/servers/crm/mtls/pki"
    vault.call("POST", f"sys/mounts/{engine}", {"type": "pki"})
    root = vault.call("POST", f"{engine}/root/generate/internal", {"common_name": "agents", "ttl": "24h"})
    vault.call("POST", f"{engine}/roles/agent", {"allow_any_name": True, "key_type": "ec", "key_bits": 256})
    context = secure(keys)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=root["data"]["certificate"])
    with recorder.running(address.private(), tls=context) as found:
        yield found


@pytest.fixture(scope="module")
def issuer(tmp_path_factory):
    made = authserver.AuthServer(host=address.private(), tls=tmp_path_factory.mktemp("idp"), name=IDP).start()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def home(module_cluster, vault, issuer, tmp_path_factory):
    settings = {
        "vault": {"address": vault.address, "caBundle": vault.ca_pem},
        "identityProviders": [
            {
                "name": "idp", "issuer": issuer.issuer, "audience": authserver.AUDIENCE, "jwksUri": issuer.jwks_uri,
                "caBundle": issuer.ca_pem,
            }
        ],
        "network": {"allow": [{"suffix": ".corp.example", "cidr": f"{address.private()}/32"}]},
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("path")
    with installation.installed(module_cluster, folder, settings=settings) as made:
        made.hosts[IDP] = made.cluster.host_ip
        yield made


@pytest.fixture(scope="module")
def parts(seen, behind_tls, keys):
    return seen, behind_tls, keys


@pytest.fixture(scope="module")
def ground(home, vault, parts, tmp_path_factory):
    """Objects, secrets, and what the admin of Vault makes of them."""
    seen, behind_tls, keys = parts
    home.namespace("crm")
    for each in (SALES, HR):
        home.namespace(each, **{"outrider.dev__injection": "enabled"})
    for name in SERVERS:
        home.hosts[f"{name}-mcp.crm.svc"] = home.cluster.host_ip
    bundle = keys.ca_file.read_text()

    def server(name: str, *entries: dict[str, Any], port: int = seen.port, **spec: Any) -> dict[str, Any]:
        service = {"name": f"{name}-mcp", "port": port, "path": "/mcp"}
        endpoint = {"service": service, "tls": {"caBundle": bundle}}
        whole = {"description": "For a test.", "endpoint": endpoint, "credentials": list(entries), **spec}
        return scenarios.obj("MCPServer", name, whole)

    kv = {"vault": {"path": "api", "key": "token"}}
    certificate = {"vault": {"path": "pki/issue/agent"}, "commonName": "agents.crm.example"}
    sales = [{"namespaces": [SALES]}]
    home.cluster.apply(
        server("recorder", entry(**kv), tools={"idempotent": ["echo"]}),
        server("rotating", entry(**kv)),
        server("jira", entry(vault={"owner": "Workload", "path": "api", "key": "token"})),
        server("deals", entry(**kv), requireUser=True),
        server("mtls", entry(clientCertificate=certificate), port=behind_tls.port),
        allowed("recorder", sales), allowed("rotating", sales), allowed("mtls", sales),
        allowed("jira", [{"namespaces": [SALES, HR]}]),
        allowed("deals", [{"namespaces": [SALES], "groups": ["idp:deal-desk"]}]),
        consent(SALES), consent(HR),
    )  # fmt: skip
    made = tenants.Ground(home.cluster, vault, vaultpolicy.Site())
    with asked.kubectl_on_path(tmp_path_factory.mktemp("bin")):
        ran = asked.outrider("vault-policy", "--kubeconfig", home.cluster.kubeconfig, "-o", "sh")
    assert ran.exit_code == 0, ran.output
    tenants.applied(vault, ran.stdout, BAO_CACERT=vault.keys.ca_file, **made.trust())
    for name in ("recorder", "rotating", "deals"):
        vault.put(f"outrider/servers/crm/{name}/api", token=f"{name}-1")
    for namespace in (SALES, HR):
        vault.put(f"outrider/workloads/{namespace}/crm/jira/api", token=f"jira-of-{namespace}")
    return made


@pytest.fixture(scope="module")
def agent(home, ground):
    return home.beside(SALES, "quote-bot")


@pytest.fixture(scope="module")
def stranger(home, ground):
    return home.beside(HR, "hr-bot")


def test_a_pods_token_becomes_a_login_a_secret_and_a_call_that_carries_it(agent, seen):
    agent.until("crm/recorder", "echo", "allowed")
    assert seen.lent()[-1] == "Bearer recorder-1"


def test_a_pod_of_another_namespace_gets_it_from_nobody(stranger, agent, ground, vault):
    agent.until("crm/recorder", "echo", "allowed")
    assert stranger.verdict("crm/recorder", "echo") == "unknown"
    jwt = (stranger.path("/var/run/outrider/tokens") / "vault").read_text()
    with pytest.raises(openbao.Refused) as told:
        ground.login("outrider-crm", jwt)
    assert told.value.status == 403
    # The proxy of that pod did not even ask: it has no such server, and so no login of that role was tried.
    assert "outrider-crm" not in stranger.process.text()
    metas = [each["meta"] for each in held(vault)]
    assert (HR, "outrider-crm") not in {(each["service_account_namespace"], each["role"]) for each in metas}
    assert metas


def test_each_workloads_own_secret_is_used_for_its_calls(agent, stranger, seen):
    agent.until("crm/jira", "echo", "allowed")
    assert seen.lent()[-1] == f"Bearer jira-of-{SALES}"
    stranger.until("crm/jira", "echo", "allowed")
    assert seen.lent()[-1] == f"Bearer jira-of-{HR}"


def test_a_policy_that_lets_more_in_than_vault_does_is_refused_by_vault_and_reported(
    home, stranger, agent, seen
):
    """crm's own policy opens the server to hr; nobody told Vault, and Vault is right."""
    home.cluster.apply(
        scenarios.policy(
            {"name": "too", "effect": "Allow", "from": [{"namespaces": [HR]}], "tools": ["*"]},
            name="wide", target="recorder",
        )
    )  # fmt: skip
    try:
        stranger.until("crm/recorder", "echo", "CredentialUnavailable")
        home.until_condition("orsrv", "recorder", "crm", CredentialsReady="False")
        message = home.condition("orsrv", "recorder", "CredentialsReady", "crm")["message"]
        assert "hr-bot" in message
        assert "outrider-crm" in message
    finally:
        home.cluster.kubectl("delete", "orpol", "wide", "-n", "crm")
    stranger.until("crm/recorder", "echo", "unknown")
    agent.until("crm/recorder", "echo", "allowed")


def test_a_new_version_is_used_within_a_minute_without_a_restart_or_a_refusal(agent, vault, seen):
    agent.until("crm/rotating", "echo", "allowed")
    vault.put("outrider/servers/crm/rotating/api", token="rotating-2")

    def new() -> bool:
        assert agent.verdict("crm/rotating", "echo") == "allowed"
        return seen.lent()[-1] == "Bearer rotating-2"

    laptop.until(new, "the server sees the new secret", 120)


def test_a_server_that_wants_a_certificate_gets_one_of_vaults(agent, behind_tls):
    agent.until("crm/mtls", "echo", "allowed")
    assert behind_tls.certificates[-1]
    assert behind_tls.lent()[-1] == ""


@contextlib.contextmanager
def away(vault):
    vault.kill()
    try:
        yield
    finally:
        vault.start()


def test_while_vault_is_gone_running_agents_go_on_and_new_ones_wait_for_it(home, agent, vault, seen):
    agent.until("crm/recorder", "echo", "allowed")
    with away(vault):
        for _ in range(5):
            assert agent.verdict("crm/recorder", "echo") == "allowed"
        late = home.beside(SALES, "late-bot")
        late.until("crm/recorder", "echo", "CredentialUnavailable")
    late.until("crm/recorder", "echo", "allowed")
    assert agent.verdict("crm/recorder", "echo") == "allowed"


def with_user(agent, token: str, tool: str = "echo") -> str:
    where, body, head = agent.agent.request("crm/deals", tool)
    reply = agent.agent.post(where, body, {**head, "Outrider-User": token})
    if reply.status == 404 or laptop.text(reply.result).startswith("Unknown tool"):
        return "unknown"
    return laptop.reason(reply.result) or "allowed"


def test_the_user_behind_the_agent_decides_too(agent, issuer, seen):
    agent.until("crm/deals", "echo", "UserRequired")
    desk = issuer.user_token("ada", groups=["deal-desk"])
    laptop.until(lambda: with_user(agent, desk) == "allowed", "the keys are there and the user is known", 60)
    assert seen.lent()[-1] == "Bearer deals-1"
    head = seen.requests[-1][1]
    assert desk not in json.dumps(head)
    assert "outrider-user" not in {name.lower() for name in head}
    assert with_user(agent, issuer.user_token("bob", groups=["support"])) == "unknown"
    assert with_user(agent, desk[:-4] + "AAAA") == "UserTokenInvalid"
    assert with_user(agent, issuer.user_token("ada", groups=["deal-desk"], aud="else")) == "UserTokenInvalid"


def test_another_workload_with_the_same_users_token_gets_nothing(stranger, issuer):
    assert with_user(stranger, issuer.user_token("ada", groups=["deal-desk"])) == "unknown"


def test_a_proxy_that_stops_gives_its_token_back(home, ground, vault, seen):
    leaving = home.beside(SALES, "leaving-bot")
    leaving.until("crm/recorder", "echo", "allowed")
    before = held(vault)
    leaving.stop()
    laptop.until(lambda: len(held(vault)) < len(before), "the token is revoked", 30)


def held(vault) -> list[dict[str, Any]]:
    """Tokens of workloads, as Vault describes them."""
    found = []
    for each in vault.call("LIST", "auth/token/accessors")["data"]["keys"]:
        with contextlib.suppress(openbao.Refused):
            data = vault.call("POST", "auth/token/lookup-accessor", {"accessor": each})["data"]
            found += [data] if data["path"] == "auth/kubernetes/login" else []
    return found


def test_no_secret_is_in_anything_that_the_cluster_keeps_or_shows(home, agent, stranger):
    kinds = "mcpservers.outrider.dev,mcptoolpolicies.outrider.dev,pods,configmaps,events,secrets"
    kept = home.cluster.kubectl("get", kinds, "-A", "-o", "json").stdout
    logs = "".join(pathlib.Path(each.log).read_text() for each in home.processes)
    pages = agent.desk("/metrics")[1] + "".join(each.desk("/metrics")[1] for each in home.operators)
    for secret in ("recorder-1", "rotating-1", "rotating-2", "deals-1", f"jira-of-{SALES}", f"jira-of-{HR}"):
        assert secret not in kept
        assert secret not in logs
        assert secret not in pages
