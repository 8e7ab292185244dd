# SPDX-License-Identifier: Apache-2.0
"""Where the API server is and who we are: every kind of kubeconfig, a pod's files, renewals, and what is refused."""

from __future__ import annotations

import asyncio
import base64
import json
import pathlib
import shutil
import socket
import ssl

import pytest
from tests.kube import certs

from outrider_operator import access


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return certs.Authority.make(tmp_path_factory.mktemp("pki"), ["127.0.0.1"])


def config(folder: pathlib.Path, cluster: dict, user: dict, **more) -> pathlib.Path:
    whole = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "k", "cluster": {"server": "https://127.0.0.1:6443", **cluster}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "crm"}}], **more,
    }  # fmt: skip
    made = folder / "kubeconfig"
    made.write_text(json.dumps(whole))
    return made


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def refused(made: pathlib.Path | None) -> str:
    with pytest.raises(access.AccessError) as caught:
        access.load(made)
    return str(caught.value)


# At a real API server -------------------------------------------------------------------------------------------------


def who(given: access.Access) -> str:
    """Whom the API server takes us for."""

    async def main() -> str:
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        async with given.session() as session:
            url = given.url("/apis/authentication.k8s.io/v1/selfsubjectreviews")
            async with session.post(url, json=body, **given.request()) as answer:
                found = await answer.json()
                assert answer.status == 201, found
                return found["status"]["userInfo"]["username"]

    return asyncio.run(asyncio.wait_for(main(), 30))


def test_a_client_certificate_in_a_kubeconfig_proves_a_person(cluster):
    assert who(access.load(cluster.kubeconfig_for("jane", ["people"]))) == "jane"


def test_files_beside_a_kubeconfig_are_found_from_its_folder(cluster, tmp_path, monkeypatch):
    given = json.loads(cluster.kubeconfig_for("joe").read_text())
    user = given["users"][0]["user"]
    for part, file in (("client-certificate", "joe.crt"), ("client-key", "joe.key")):
        (tmp_path / file).write_bytes(base64.b64decode(user[f"{part}-data"]))
    (tmp_path / "ca.crt").write_text(cluster.ca_pem)
    own = {"client-certificate": "joe.crt", "client-key": "joe.key"}
    made = config(tmp_path, {"server": cluster.url, "certificate-authority": "ca.crt"}, own)
    monkeypatch.chdir("/")
    assert who(access.load(made)) == "joe"


def test_a_token_proves_an_account_and_a_renewed_one_is_used_at_once(cluster, tmp_path):
    namespace = cluster.namespace("access-test")
    tokens = {}
    for name in ("before", "after"):
        cluster.service_account(namespace, name)
        tokens[name] = cluster.token(namespace, name, cluster.audience)
    (tmp_path / "token").write_text(tokens["before"])
    (tmp_path / "ca.crt").write_text(cluster.ca_pem)
    (tmp_path / "namespace").write_text("access-test\n")
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(cluster.port)}
    subject = access.in_cluster(tmp_path, environment)
    assert subject.namespace == "access-test"
    assert who(subject) == "system:serviceaccount:access-test:before"
    (tmp_path / "token").write_text("")
    assert who(subject) == "system:serviceaccount:access-test:before", "an empty file is one being written"
    (tmp_path / "token.new").write_text(tokens["after"])
    (tmp_path / "token.new").replace(tmp_path / "token")
    assert who(subject) == "system:serviceaccount:access-test:after"
    (tmp_path / "token").unlink()
    assert who(subject) == "system:serviceaccount:access-test:after", "what cannot be read changes nothing"


def test_a_server_that_the_ca_did_not_sign_is_not_spoken_to(cluster, keys, tmp_path):
    made = config(
        tmp_path, {"server": cluster.url, "certificate-authority": str(keys.ca_file)}, {"token": "t"}
    )
    with pytest.raises(Exception, match="certificate verify failed"):
        who(access.load(made))


def test_a_name_may_be_expected_other_than_the_address(cluster, tmp_path):
    (tmp_path / "ca.crt").write_text(cluster.ca_pem)
    token = cluster.token(cluster.namespace("access-test"), _account(cluster), cluster.audience)
    about = {"server": cluster.url, "certificate-authority": "ca.crt"}
    good = config(tmp_path, {**about, "tls-server-name": "kubernetes.default.svc"}, {"token": token})
    assert who(access.load(good)).endswith(":named")
    bad = config(tmp_path, {**about, "tls-server-name": "other.example.com"}, {"token": token})
    with pytest.raises(Exception, match="certificate"):
        who(access.load(bad))


def _account(cluster) -> str:
    cluster.service_account("access-test", "named")
    return "named"


def test_a_peer_that_is_lost_is_noticed_by_the_kernel(cluster):
    async def main() -> tuple[int, int]:
        given = access.load(cluster.kubeconfig)
        async with (
            given.session() as session,
            session.get(
                given.url("/api/v1/namespaces?watch=1&resourceVersion=0"), **given.request()
            ) as answer,
        ):
            assert answer.status == 200, await answer.text()
            used = answer.connection.transport.get_extra_info("socket")
            idle = used.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
            return used.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), idle

    assert asyncio.run(asyncio.wait_for(main(), 30)) == (1, 20)


# Files ----------------------------------------------------------------------------------------------------------------


def test_a_pods_address_may_be_of_either_family(tmp_path):
    (tmp_path / "token").write_text("t")

    def server(host: str) -> str:
        found = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "443"}
        return access.in_cluster(tmp_path, found).server

    assert server("10.0.0.1") == "https://10.0.0.1:443"
    assert server("fd00::1") == "https://[fd00::1]:443"


def test_outside_a_cluster_it_says_what_to_give(monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert "outside one, give --kubeconfig FILE" in refused(None)


def test_a_pod_without_a_token_is_told_why(tmp_path):
    found = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(access.AccessError, match="automountServiceAccountToken"):
        access.in_cluster(tmp_path, found)


def test_whom_to_trust_is_read_again_when_the_file_changes_and_kept_when_it_is_broken(keys, tmp_path):
    ca = tmp_path / "ca.crt"
    shutil.copy(keys.ca_file, ca)
    subject = access.load(config(tmp_path, {"certificate-authority": "ca.crt"}, {"token": "t"}))
    first = subject.context()
    assert subject.context() is first
    ca.write_text("half a certif")
    assert subject.context() is first
    other = certs.Authority.make(tmp_path / "other", ["127.0.0.1"])
    shutil.copy(other.ca_file, ca)
    assert subject.context() is not first
    assert subject.proof().ca_pem == other.ca_file.read_text()


def test_a_client_certificate_leaves_no_file_behind(keys, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    certificate, key = keys.client("jane", [])
    user = {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)}
    subject = access.load(config(tmp_path, {"certificate-authority": str(keys.ca_file)}, user))
    assert subject.headers() == {}
    assert list((tmp_path / "scratch").iterdir()) == []


def test_without_a_ca_the_systems_are_trusted(tmp_path):
    assert access.load(config(tmp_path, {}, {"token": "t"})).context().verify_mode is ssl.CERT_REQUIRED


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cluster", "user", "words"),
    [
        ({}, {"exec": {"command": "aws"}}, "it runs a command"),
        ({}, {"auth-provider": {"name": "gcp"}}, "auth-provider is refused"),
        ({}, {"username": "u", "password": "p"}, "no longer accepts passwords"),
        ({}, {"token": "t", "as": "root"}, "impersonation"),
        ({}, {"token": "t", "as-groups": ["system:masters"]}, "impersonation"),
        ({"insecure-skip-tls-verify": True}, {"token": "t"}, "insecure-skip-tls-verify is refused"),
        ({"proxy-url": "http://proxy"}, {"token": "t"}, "proxy-url is not supported"),
        ({"server": "http://127.0.0.1:8001"}, {"token": "t"}, "server must be https://"),
        ({"server": "https://h:port"}, {"token": "t"}, "server must be https://"),
        ({"server": None}, {"token": "t"}, "server must be https://"),
        ({}, {}, "neither a token nor a client certificate"),
        ({}, {"client-key-data": "QQ=="}, "a key its certificate"),
        ({}, {"client-certificate-data": "QQ==", "client-key-data": "QQ=="}, "cannot be used"),
        ({"certificate-authority-data": "QQ=="}, {"token": "t"}, "not a PEM certificate"),
        ({"certificate-authority-data": "?"}, {"token": "t"}, "not base64"),
        ({"certificate-authority": "/dev/null"}, {"token": "t"}, "CA is empty"),
        ({"certificate-authority": "nowhere.crt"}, {"token": "t"}, "nowhere.crt cannot be read"),
        ({}, {"tokenFile": "nowhere"}, "nowhere cannot be read"),
    ],
)
def test_what_cannot_or_must_not_be_used_is_refused_in_words(tmp_path, cluster, user, words):
    assert words in refused(config(tmp_path, cluster, user))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "is not YAML"),
        (b"kind: Pod", "is not a kubeconfig"),
        (b"- a", "is not a kubeconfig"),
        (b"kind: Config", "current-context is not set"),
        (b"current-context: c", "there is no context 'c'"),
        (b"{current-context: c, contexts: [{name: c, context: {cluster: k}}]}", "there is no cluster 'k'"),
        (b"\xff\xfe\x00", "is not text"),
        (b"#" * 1_100_000, "is larger than"),
    ],
)
def test_a_file_that_is_no_kubeconfig_is_said_so(tmp_path, content, words):
    (tmp_path / "config").write_bytes(content)
    assert words in refused(tmp_path / "config")


def test_a_file_that_is_not_there_is_said_so(tmp_path):
    assert "No such file" in refused(tmp_path / "config")


def test_an_encrypted_key_asks_nobody_for_a_password(keys, tmp_path):
    from cryptography.hazmat.primitives import serialization

    certificate, key = keys.client("jane", [])
    locked = serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )  # fmt: skip
    user = {"client-certificate-data": encoded(certificate), "client-key-data": encoded(locked)}
    assert "cannot be used" in refused(config(tmp_path, {}, user))
