# SPDX-License-Identifier: Apache-2.0
"""N4 and R31 for everything that is lent: a canary in each place that secrets come from, and then looked for in every place there is.

A KV secret of Vault, a password that it made for a time, a private key that it issued, a client secret, the access token it gets, a
user's token and what it is exchanged for, a Secret mounted into the pod, a file, and the pod's own tokens. The proxy logs at debug level, the journal keeps everything, and
servers send back what they are sent.
"""

from __future__ import annotations

import base64
import json
import pathlib
import re
import ssl

import pytest
from tests import openbao
from tests.authserver import server as authserver
from tests.kube import certs
from tests.scenarios import recorder
from tests.vault import lent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
KV, CLIENT, MOUNTED, FILE = (f"canary-{name}-7f3a/Zq4477be" for name in ("kv", "client", "mounted", "file"))
REFLECTING = (
    "reflect",
    "reflect_escaped",
    "reflect_error",
    "reflect_refusal",
    "reflect_progress",
    "reflect_redirect",
)
SERVERS = ("kv", "oauth", "exchange", "mounted", "file", "mtls", "leased")


@pytest.fixture(scope="module")
def seen():
    with recorder.running() as found:
        found.description = "Lists with {secret}"
        yield found


@pytest.fixture(scope="module")
def vault(tmp_path_factory, database):
    made = openbao.Vault(tmp_path_factory.mktemp("canaries"))
    try:
        made.start()
        database.behind(made, "outrider/servers/tools/leased/db")
        database.maker(made, "outrider/servers/tools/leased/db", "readonly", ttl="1h", most="2h")
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def issuer():
    made = authserver.AuthServer().start()
    made.register("outrider", secret=CLIENT)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def behind_tls(tmp_path_factory, vault):
    """A server that wants a certificate of Vault's PKI."""
    engine = "outrider/servers/tools/mtls/pki"
    vault.call("POST", f"sys/mounts/{engine}", {"type": "pki"})
    root = vault.call("POST", f"{engine}/root/generate/internal", {"common_name": "agents", "ttl": "24h"})[
        "data"
    ]
    vault.call(
        "POST",
        f"{engine}/roles/agent",
        {"allow_any_name": True, "generate_lease": True, "key_type": "ec", "key_bits": 256},
    )
    keys = certs.Authority.make(tmp_path_factory.mktemp("pki"), ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys.server_cert, keys.server_key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=root["certificate"])
    with recorder.running(tls=context) as found:
        yield found, keys.ca_file.read_text()


@pytest.fixture(scope="module")
def home(tmp_path_factory, seen, vault, issuer, behind_tls):
    folder = tmp_path_factory.mktemp("lent")
    secrets = folder / "secrets" / "tools.mounted"
    secrets.mkdir(parents=True)
    (secrets / "token").write_text(MOUNTED)
    (folder / "file-secret").write_text(FILE)
    vault.put(lent.path("tools/kv"), token=KV)
    for server in ("oauth", "exchange"):
        vault.put(lent.path(f"tools/{server}"), token=CLIENT)
    secure, bundle = behind_tls
    client = {
        "tokenUrl": issuer.token_url, "clientId": "outrider",
        "clientSecret": {"vault": {"path": "api", "key": "token"}},
    }  # fmt: skip

    def one(name: str, url: str, endpoint: dict | None = None, **source) -> str:
        credential = {"name": name, "from": lent.ANYONE, **source}
        more = {"endpoint": endpoint} if endpoint else {}
        return lent.entry(f"tools/{name}", url, credential, audit={"level": "Full"}, **more)

    entries = [
        one("kv", seen.url, vault={"path": "api", "key": "token"}),
        one("oauth", seen.url, oauthClientCredentials=client),
        one("exchange", seen.url, tokenExchange=client),
        one("mounted", seen.url, secretRef={"key": "token"}),
        one("leased", seen.url, vault={"path": "db/creds/readonly", "key": "password", "engine": "Lease"}),
        one("file", seen.url, file={"path": str(folder / "file-secret")}),
        one(
            "mtls", secure.url, {"tls": {"caBundle": bundle}},
            clientCertificate={"vault": {"path": "pki/issue/agent"}, "commonName": "agents.example"},
        ),
    ]  # fmt: skip
    provider = {
        "name": "idp", "issuer": issuer.issuer, "audience": authserver.AUDIENCE, "jwksUri": issuer.jwks_uri,
    }  # fmt: skip
    with lent.running(
        folder, vault, entries, flags=("--log-level", "debug", "--secrets-dir", str(folder / "secrets")),
        tokens={"exchange": issuer.actor_token()}, identityProviders=[provider],
    ) as made:  # fmt: skip
        yield made


@pytest.fixture(scope="module")
def user(issuer):
    return issuer.user_token("alice")


@pytest.fixture(scope="module")
def answers(home, user):
    """Everything that agents are answered, by every server and every way in which one sends back what it was sent."""
    found = []
    for server in SERVERS:
        for tool in ("echo", *REFLECTING):
            where, body, head = home.agent.request(f"tools/{server}", tool)
            for more in ({}, {"Outrider-User": user}, {"Outrider-User": user + "x"}):
                found.append(home.agent.post(where, body, {**head, **more}).body)
        found.append(
            json.dumps(home.agent.tools(f"tools/{server}")).encode() if server != "exchange" else b""
        )
    return found


@pytest.fixture(scope="module")
def canaries(home, seen, user, answers):
    """What must not be found anywhere, by name: what was planted, and what was made of it meanwhile."""
    found = {"kv": KV, "client": CLIENT, "mounted": MOUNTED, "file": FILE, "user": signature(user)}
    issued = {shown.removeprefix("Bearer ") for shown in seen.lent() if shown.count(".") == 2}
    assert len(issued) >= 2, "client credentials and an exchange were asked for"
    found |= {f"access token {number}": signature(each) for number, each in enumerate(sorted(issued))}
    # What is left are passwords of leases: one more for each 401.
    leased = {shown.removeprefix("Bearer ") for shown in seen.lent()} - {*found.values(), *issued, ""}
    assert leased
    found |= {f"lease {number}": each for number, each in enumerate(sorted(leased))}
    for name in ("vault", "exchange"):
        found[f"pod's token for {name}"] = signature((home.folder / "tokens" / name).read_text())
    return found


def signature(token: str) -> str:
    return token.rpartition(".")[2]


def holds(content: bytes, canaries: dict[str, str]) -> list[str]:
    text = content.decode("utf-8", "replace")
    return [
        name
        for name, value in canaries.items()
        if value in text
        or json.dumps(value)[1:-1] in text
        or base64.b64encode(value.encode()).decode() in text
        or value.replace("/", "\\/") in text
    ]


def test_every_credential_reached_its_own_server(seen, behind_tls, canaries):
    lent_there = set(seen.lent())
    assert {f"Bearer {each}" for each in (KV, MOUNTED, FILE)} <= lent_there
    assert behind_tls[0].certificates
    assert all(behind_tls[0].certificates)


def test_no_answer_to_an_agent_holds_any_of_them(answers, canaries):
    assert [found for each in answers if (found := holds(each, canaries))] == []


def test_no_page_of_the_proxy_or_the_operator_holds_any_of_them(home, canaries):
    pages = [home.admin(where).body for where in ("/metrics", "/healthz", "/readyz", "/other")]
    pages.append(json.dumps(home.status()).encode())
    assert b"outrider_" in pages[0]
    assert [found for each in pages if (found := holds(each, canaries))] == []


def test_no_process_was_started_with_one_or_has_one_in_its_environment(home, canaries):
    for process in (home.proxy, home.operator):
        for name in ("environ", "cmdline"):
            content = pathlib.Path(f"/proc/{process.pid}/{name}").read_bytes()
            assert holds(content, canaries) == []


def test_no_temporary_file_and_no_open_file_on_disk_holds_a_private_key(home):
    # Keys for TLS are handed to the library through memory: whatever has a name is looked at below.
    folder = pathlib.Path(f"/proc/{home.proxy.pid}/fd")
    named = [str(each.readlink()) for each in folder.iterdir() if each.is_symlink()]
    assert not [name for name in named if name.endswith((".pem", ".key", ".crt"))]


def test_nothing_on_disk_holds_any_of_them_but_where_they_were_put(home, canaries):
    home.proxy.stop()
    planted = {"file-secret", "secrets/tools.mounted/token", "tokens/vault", "tokens/exchange"}
    found, names = {}, set()
    for each in home.folder.rglob("*"):
        if each.is_file():
            name = str(each.relative_to(home.folder))
            names.add(each.name)
            content = each.read_bytes()
            what = holds(content, canaries)
            # A private key is a canary of itself, whichever it was.
            what += ["private key"] if re.search(rb"-----BEGIN [A-Z ]*PRIVATE KEY", content) else []
            if what and name not in planted:
                found[name] = what
    assert found == {}
    assert {"proxy.log", "operator.log", "last-good.json", "definitions.json"} <= names
    journal = b"".join(each.read_bytes() for each in home.journal.glob("*.seg"))
    assert b"[redacted]" in journal
    assert b"alice" in journal
    assert home.verify().returncode == 0


def test_every_log_line_is_one_json_object_at_debug_level_too(home):
    for process in (home.proxy, home.operator):
        lines = process.text().splitlines()
        assert lines
        assert all(isinstance(json.loads(line), dict) for line in lines)
