# SPDX-License-Identifier: Apache-2.0
"""hvac against a real OpenBao: every endpoint that we use, every way that it fails, and nothing that a library does by itself."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import socket
import ssl
import threading
import traceback
from collections.abc import Callable, Iterator

import pytest
from tests import laptop, openbao, relay, vaultside
from tests.kube import apiserver

from outrider import snapshot
from outrider_sidecar import hvacvault, vault

T = vault.Trouble
ROLE = "outrider-hv"
PATH = "outrider/servers/hv/sf/api"


@pytest.fixture(scope="module", autouse=True)
def tenant(vault: openbao.Vault) -> None:
    vaultside.tenant(vault, "hv")
    vault.put(PATH, token="canary-1", number=7)


@pytest.fixture
def pod(vault: openbao.Vault, tmp_path: pathlib.Path) -> pathlib.Path:
    return vaultside.pod_token(tmp_path, vault.jwt())


@pytest.fixture
def client(vault: openbao.Vault, pod: pathlib.Path) -> Iterator[hvacvault.HvacVault]:
    made = hvacvault.HvacVault(vaultside.site(vault), pod)
    yield made
    made.close()


def failure(act: Callable[[], object], *secrets: str) -> vault.Failed:
    """What it raises; nothing about it holds a secret or the exception of a library."""
    with pytest.raises(vault.Failed) as caught:
        act()
    error = caught.value
    everything = "".join(traceback.format_exception(error)) + repr(error) + repr(error.__dict__)
    assert error.__cause__ is None
    assert error.__context__ is None or error.trouble is T.UNPREPARED
    assert not [each for each in (*secrets, "canary") if each and each in everything]
    return error


def test_a_login_gives_a_token_that_reads_a_secret_with_its_version(client: hvacvault.HvacVault) -> None:
    token = client.login(ROLE)
    assert (token.seconds, token.renewable) == (600, True)
    secret = client.secret(token, ROLE, PATH)
    assert secret.values == {"token": "canary-1", "number": 7}
    assert re.fullmatch(r"1/20\d\d-.*Z", secret.version)
    assert client.version(token, ROLE, PATH) == secret.version
    assert client.alive(token)
    assert client.renew(token, ROLE).seconds == 600
    client.revoke(token, ROLE)
    assert not client.alive(token)
    assert failure(lambda: client.secret(token, ROLE, PATH), token.value).trouble is T.DENIED


def test_the_same_number_of_a_secret_made_anew_is_another_version(
    client: hvacvault.HvacVault, vault: openbao.Vault
) -> None:
    token, path = client.login(ROLE), f"{PATH}-anew"
    vault.put(path, token="a")
    before = client.version(token, ROLE, path)
    vault.call("DELETE", f"secret/metadata/{path}")
    vault.put(path, token="b")
    assert client.version(token, ROLE, path) not in ("", before)


def test_a_deleted_version_is_none(client: hvacvault.HvacVault, vault: openbao.Vault) -> None:
    token, path = client.login(ROLE), f"{PATH}-deleted"
    vault.put(path, token="a")
    vault.call("DELETE", f"secret/data/{path}")
    assert client.version(token, ROLE, path) == ""
    failed = failure(lambda: client.secret(token, ROLE, path))
    assert (failed.trouble, "is deleted" in str(failed)) == (T.MISSING, True)
    vault.put(path, token="b")
    vault.call("PUT", f"secret/destroy/{path}", {"versions": [2]})
    assert client.version(token, ROLE, path) == ""


def test_a_mount_may_be_below_another_path(vault: openbao.Vault, pod: pathlib.Path) -> None:
    vault.call("POST", "sys/mounts/hv/team/kv", {"type": "kv", "options": {"version": "2"}})

    def written() -> bool:
        try:
            return bool(vault.call("POST", f"hv/team/kv/data/{PATH}", {"data": {"token": "below"}}))
        except openbao.Refused:
            return False

    laptop.until(written, "the KV engine is ready")
    vault.policy("hv-below", {"hv/team/kv/*": ["read"]})
    vault.role("outrider-hv-below", ["hv-below"])
    made = hvacvault.HvacVault(vaultside.site(vault, mount="hv/team/kv"), pod)
    token = made.login("outrider-hv-below")
    secret = made.secret(token, ROLE, PATH)
    assert secret.values == {"token": "below"}
    assert made.version(token, ROLE, PATH) == secret.version
    made.close()


def test_what_vault_refuses_is_told_with_its_own_word(
    client: hvacvault.HvacVault, vault: openbao.Vault, pod: pathlib.Path
) -> None:
    token = client.login(ROLE)
    missing = failure(lambda: client.secret(token, ROLE, f"{PATH}-none"))
    assert str(missing).startswith(f"there is no secret at secret/{PATH}-none (HTTP 404)")
    other = failure(lambda: client.secret(token, ROLE, "outrider/servers/other/sf/api"))
    assert "Vault refuses role outrider-hv to read secret/outrider/servers/other/sf/api (HTTP 403)" in str(
        other
    )
    nobody = failure(lambda: client.login("outrider-nobody"))
    assert "make that role" in str(nobody)
    vaultside.pod_token(pod.parent, vault.jwt("strangers"))
    assert "bind this pod's namespace" in str(failure(lambda: client.login(ROLE)))
    vaultside.pod_token(pod.parent, vault.jwt(audience="https://kubernetes.default.svc"))
    assert "audience has to be vault.outrider.dev" in str(failure(lambda: client.login(ROLE)))
    vaultside.pod_token(pod.parent, vault.jwt(seconds=-600))
    assert "too old" in str(failure(lambda: client.login(ROLE)))


def test_the_token_file_is_read_for_each_login(
    client: hvacvault.HvacVault, vault: openbao.Vault, pod: pathlib.Path
) -> None:
    pod.unlink()
    gone = failure(lambda: client.login(ROLE))
    assert (gone.trouble, "No such file" in str(gone)) == (T.UNPREPARED, True)
    pod.write_text("")
    assert "holds no token" in str(failure(lambda: client.login(ROLE)))
    pod.write_text("x" * 70_000)
    assert "holds no token" in str(failure(lambda: client.login(ROLE)))
    pod.write_text(vault.jwt())
    assert client.login(ROLE).renewable


def test_without_a_token_file_nobody_logs_in(vault: openbao.Vault) -> None:
    failed = failure(lambda: hvacvault.HvacVault(vaultside.site(vault), None).login(ROLE))
    assert "--vault-token-file" in str(failed)


def test_a_batch_token_works_and_is_not_renewed(client: hvacvault.HvacVault, vault: openbao.Vault) -> None:
    vault.role("outrider-hv-batch", [ROLE], token_type="batch", token_ttl="30s")
    token = client.login("outrider-hv-batch")
    assert (token.seconds, token.renewable) == (30, False)
    assert client.secret(token, ROLE, PATH).values["token"] == "canary-1"
    assert failure(lambda: client.renew(token, ROLE), token.value).trouble is T.REFUSED
    assert failure(lambda: client.revoke(token, ROLE), token.value).trouble is T.REFUSED


def test_namespaces_of_vaults_own(
    client: hvacvault.HvacVault, vault: openbao.Vault, pod: pathlib.Path
) -> None:
    vault.call("POST", "sys/namespaces/team", {})
    inside = {"namespace": "team"}
    vault.call("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}}, **inside)
    vault.call("POST", "sys/auth/jwt", {"type": "jwt"}, **inside)
    config = vault.call("GET", "auth/jwt/config")["data"]
    vault.call(
        "POST", "auth/jwt/config",
        {key: config[key] for key in ("jwt_validation_pubkeys", "bound_issuer")}, **inside,
    )  # fmt: skip
    role = {
        "role_type": "jwt",
        "user_claim": "sub",
        "bound_audiences": [openbao.AUDIENCE],
        "policies": ["all"],
    }
    vault.call("POST", f"auth/jwt/role/{ROLE}", role, **inside)
    rules = {"path": {"secret/*": {"capabilities": ["read"]}}}
    vault.call("PUT", "sys/policies/acl/all", {"policy": json.dumps(rules)}, **inside)

    def written() -> bool:
        try:
            return bool(
                vault.call("POST", f"secret/data/{PATH}", {"data": {"token": "of the team"}}, **inside)
            )
        except openbao.Refused:
            return False

    laptop.until(written, "the KV engine of the namespace is ready")
    made = hvacvault.HvacVault(vaultside.site(vault, namespace="team"), pod)
    assert made.secret(made.login(ROLE), ROLE, PATH).values == {"token": "of the team"}
    assert client.secret(client.login(ROLE), ROLE, PATH).values["token"] == "canary-1"
    made.close()


def test_nothing_is_taken_from_the_environment(
    vault: openbao.Vault, pod: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login canary-user password canary-word\n")
    (tmp_path / ".netrc").chmod(0o600)
    (tmp_path / ".vault-token").write_text("canary-token")
    for name in ("VAULT_ADDR", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{apiserver.free_port()}")
    for name, value in {
        "VAULT_TOKEN": "canary-token", "VAULT_NAMESPACE": "canary", "HOME": str(tmp_path), "NO_PROXY": "",
        "NETRC": str(tmp_path / ".netrc"), "REQUESTS_CA_BUNDLE": "/nowhere", "VAULT_CACERT": "/nowhere",
        "VAULT_CLIENT_CERT": "/nowhere", "VAULT_CLIENT_KEY": "/nowhere",
    }.items():  # fmt: skip
        monkeypatch.setitem(os.environ, name, value)
    with relay.before(vault.address) as between:
        made = hvacvault.HvacVault(vaultside.site(vault, address=between.address), pod)
        assert made.secret(made.login(ROLE), ROLE, PATH).values["token"] == "canary-1"
        made.close()
        sent = repr(between.headers)
    assert "canary" not in sent
    assert "Authorization" not in sent
    assert "Cookie" not in sent


@pytest.mark.parametrize(
    ("fault", "trouble", "text"),
    [
        (relay.Fault(503), T.SEALED, "sealed, or in maintenance (HTTP 503)"),
        (relay.Fault(502, b"<html>canary</html>", {"Content-Type": "text/html"}), T.UNREACHABLE, "what stands before"),
        (relay.Fault(500, b'{"errors":["canary"', {"Content-Type": "application/json"}), T.BROKEN, "(HTTP 500)"),
        (relay.Fault(500, bytes(range(256)) * 4_000), T.BROKEN, "(HTTP 500)"),
        (relay.Fault(200, b"<html>canary</html>"), T.BROKEN, "no JSON object"),
        (relay.Fault(200, b"[1]", {"Content-Type": "application/json"}), T.BROKEN, "no JSON object"),
        (relay.Fault(200, b"[" * 100_000), T.BROKEN, "nothing that can be read"),
        (relay.Fault(200, b'{"data": {"data": null}}'), T.BROKEN, "no secret of a KV engine of version 2"),
        (relay.Fault(200, b'{"data": 3}'), T.BROKEN, "no secret of a KV engine of version 2"),
        (relay.Fault(200, b"x" * 1_100_000), T.BROKEN, "more than 1048576 bytes"),
        (relay.Fault(200, b"\x1f\x8b", {"Content-Encoding": "gzip"}), T.BROKEN, "compresses"),
        (relay.Fault(307, b"", {"Location": "http://127.0.0.1:1/canary"}), T.REDIRECTED, "not followed"),
        (relay.Fault(429), T.BUSY, "takes no more requests"),
        (relay.Fault(472), T.BUSY, "takes no more requests"),
        (relay.Fault(0), T.UNREACHABLE, "cannot be reached"),
    ],
)  # fmt: skip
def test_what_networks_and_gateways_do_is_told_and_never_taken(vault, pod, fault, trouble, text) -> None:
    with relay.before(vault.address) as between:
        made = hvacvault.HvacVault(vaultside.site(vault, address=between.address), pod)
        token = made.login(ROLE)
        between.fault = lambda _: fault
        failed = failure(lambda: made.secret(token, ROLE, PATH), token.value)
        assert (failed.trouble, text in str(failed)) == (trouble, True), str(failed)
        between.fault = lambda _: None
        assert made.secret(token, ROLE, PATH).values["token"] == "canary-1"
        made.close()


def test_an_error_that_repeats_the_token_is_not_said(vault: openbao.Vault, pod: pathlib.Path) -> None:
    with relay.before(vault.address) as between:
        made = hvacvault.HvacVault(vaultside.site(vault, address=between.address), pod)
        token = made.login(ROLE)
        body = json.dumps({"errors": [f"no such token {token.value}"]}).encode()
        between.fault = lambda _: relay.Fault(403, body, {"Content-Type": "application/json"})
        failure(lambda: made.secret(token, ROLE, PATH), token.value)
        body = json.dumps({"errors": [f"bad jwt {pod.read_text().strip()}"]}).encode()
        failure(lambda: made.login(ROLE), pod.read_text().strip())
        made.close()


def test_silence_and_dripping_end(
    vault: openbao.Vault, pod: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hvacvault, "_SILENCE_SECONDS", 0.3)
    monkeypatch.setattr(hvacvault, "_TOTAL_SECONDS", 2.0)
    with relay.before(vault.address) as between:
        made = hvacvault.HvacVault(vaultside.site(vault, address=between.address), pod)
        between.fault = lambda _: relay.Fault(200, b"{}", seconds=30)
        failed = failure(lambda: made.login(ROLE))
        assert (failed.trouble, "did not answer in time" in str(failed)) == (T.SLOW, True)
        between.fault = lambda _: relay.Fault(200, b" " * 10_000, drip_seconds=0.05)
        failed = failure(lambda: made.login(ROLE))
        assert (failed.trouble, "did not finish its answer" in str(failed)) == (T.SLOW, True)
        made.close()


DRIPS = {
    "status line": (b"", b"H"),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "header": (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", b"x"),
    "chunk": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1"),
}


@pytest.mark.parametrize("where", DRIPS)
def test_an_answer_that_drips_before_its_body_holds_no_thread(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Every read gets something in time, and none of the library's limits is reached for hours."""
    monkeypatch.setattr(hvacvault, "_SILENCE_SECONDS", 60.0)
    monkeypatch.setattr(hvacvault, "_TOTAL_SECONDS", 0.5)
    first, again = DRIPS[where]
    hung_up = threading.Event()

    def drip() -> None:
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(65_536)
            connection.sendall(first)
            while not hung_up.wait(0.1):
                connection.sendall(again)
        hung_up.set()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        server = threading.Thread(target=drip)
        server.start()
        site = snapshot.Vault(address=f"http://127.0.0.1:{listening.getsockname()[1]}", method="JWT")
        made = hvacvault.HvacVault(site, vaultside.pod_token(tmp_path, "a.b.c"))
        failed = failure(lambda: made.login(ROLE))
        assert (failed.trouble, "did not finish its answer" in str(failed)) == (T.SLOW, True)
        made.close()
        assert hung_up.wait(10)
        server.join()


def test_a_kept_connection_that_was_closed_is_opened_anew(vault: openbao.Vault, pod: pathlib.Path) -> None:
    with relay.before(vault.address) as between:
        made = hvacvault.HvacVault(vaultside.site(vault, address=between.address), pod)
        token = made.login(ROLE)
        cut = [relay.Fault(0)]
        between.fault = lambda _: cut.pop() if cut else None
        assert made.secret(token, ROLE, PATH).values["token"] == "canary-1"
        assert between.count("GET /v1/secret/data") == 2
        made.close()


def test_nobody_there_and_no_such_name(pod: pathlib.Path) -> None:
    def at(address: str) -> vault.Failed:
        return failure(lambda: hvacvault.HvacVault(snapshot.Vault(address=address), pod).login(ROLE))

    assert "cannot be reached: Connection refused" in str(at(f"http://127.0.0.1:{apiserver.free_port()}"))
    assert "does not resolve" in str(at("http://vault.invalid:8200"))


def test_only_the_authority_that_is_given_is_trusted(tls_vault: openbao.Vault, pod: pathlib.Path) -> None:
    vaultside.tenant(tls_vault, "hv")
    vaultside.pod_token(pod.parent, tls_vault.jwt())

    def with_bundle(bundle: str | None, **more: str) -> hvacvault.HvacVault:
        return hvacvault.HvacVault(vaultside.site(tls_vault, ca_bundle=bundle, **more), pod)

    assert with_bundle(tls_vault.ca_pem).login(ROLE).renewable
    untrusted = failure(lambda: with_bundle(None).login(ROLE))
    assert (untrusted.trouble, "set caBundle" in str(untrusted)) == (T.UNTRUSTED, True)
    unreadable = failure(lambda: with_bundle("-----BEGIN CERTIFICATE-----\nAAAA\n").login(ROLE))
    assert (unreadable.trouble, "none that can be read" in str(unreadable)) == (T.UNPREPARED, True)
    plain = f"https://127.0.0.1:{tls_vault.port}".replace("https", "http")
    failure(lambda: with_bundle(None, address=plain).login(ROLE))
    named = f"https://localhost.localdomain:{tls_vault.port}"
    assert failure(lambda: with_bundle(tls_vault.ca_pem, address=named).login(ROLE)).outage


def test_a_server_without_tls_is_told_from_one_that_is_not_trusted(
    vault: openbao.Vault, pod: pathlib.Path
) -> None:
    address = vault.address.replace("http://", "https://")
    failed = failure(lambda: hvacvault.HvacVault(vaultside.site(vault, address=address), pod).login(ROLE))
    assert (failed.trouble, "over TLS" in str(failed)) == (T.UNTRUSTED, True)
    assert ssl.HAS_TLSv1_3
