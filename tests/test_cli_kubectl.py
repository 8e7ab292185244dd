# SPDX-License-Identifier: Apache-2.0
"""kubectl as commands use it: the real one, against a real API server and against none."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import urllib.error
import urllib.request

import click
import pytest
from click import testing
from tests.kube import apiserver, asked, kubelet

from outrider_cli import kubectl, output

Kind = kubectl.Kind


@pytest.fixture(autouse=True)
def node(tmp_path: pathlib.Path):
    with asked.kubectl_on_path(tmp_path / "bin") as made:
        yield made


def at(file: object, **more: str) -> kubectl.Kubectl:
    return kubectl.Kubectl(kubectl.Site(kubeconfig=str(file), **more))


def failed(kube: kubectl.Kubectl, *words: str) -> kubectl.Failed:
    with pytest.raises(kubectl.Failed) as caught:
        kube.run(*words, what="it cannot be read")
    return caught.value


def test_objects_names_and_paths_are_read(cluster: apiserver.Cluster) -> None:
    kube = at(cluster.kubeconfig)
    cluster.namespace("kc-read")
    assert kube.read("namespace", "kc-read", what="x")["metadata"]["name"] == "kc-read"
    assert "kc-read" in kube.names("namespaces", what="x")
    assert any(each["metadata"]["name"] == "kc-read" for each in kube.items("namespaces", what="x"))
    assert [each["kind"] for each in kube.items("namespace", "kc-read", what="x")] == ["Namespace"]
    assert kube.raw("/version", what="x")["major"] == "1"
    assert (kube.namespace(), kube.context()) == ("default", "test")


def test_a_token_for_one_audience(cluster: apiserver.Cluster) -> None:
    cluster.namespace("kc-token")
    cluster.service_account("kc-token", "cli")
    assert at(cluster.kubeconfig).token("kc-token", "cli", "api.outrider.dev").count(".") == 2


def test_rights_are_asked(cluster: apiserver.Cluster) -> None:
    cluster.namespace("kc-rights")
    cluster.service_account("kc-rights", "nobody")
    stranger = at(cluster.kubeconfig_token(cluster.token("kc-rights", "nobody", cluster.audience)))
    asked_for = [("apps", "deployments", "kc-rights"), ("", "namespaces", "")]
    assert at(cluster.kubeconfig).allowed(asked_for) == [True, True]
    assert stranger.allowed(asked_for) == [False, False]
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "r", "namespace": "kc-rights"},
    }
    cluster.apply(
        {**role, "rules": [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["create"]}]}
    )
    account = {"kind": "ServiceAccount", "name": "nobody", "namespace": "kc-rights"}
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
    cluster.apply({**role, "kind": "RoleBinding", "roleRef": ref, "subjects": [account]})
    assert stranger.allowed(asked_for) == [True, False]


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("get", "namespace", "no-such"), Kind.NOT_FOUND),
        (("get", "nosuchkind.example.com"), Kind.NO_KIND),
        (("get", "--nonsense"), Kind.OTHER),
    ],
)
def test_what_kubectl_says_is_told_apart(
    cluster: apiserver.Cluster, words: tuple[str, ...], kind: Kind
) -> None:
    found = failed(at(cluster.kubeconfig), *words)
    assert found.kind is kind
    assert found.exit_code == output.UNREACHABLE
    assert found.message.startswith("it cannot be read: ")
    assert found.then


def test_a_lack_of_rights_is_said_in_words(cluster: apiserver.Cluster) -> None:
    cluster.namespace("kc-forbidden")
    cluster.service_account("kc-forbidden", "nobody")
    stranger = at(cluster.kubeconfig_token(cluster.token("kc-forbidden", "nobody", cluster.audience)))
    found = failed(stranger, "get", "pods", "-A")
    assert found.kind is Kind.FORBIDDEN
    assert 'User "system:serviceaccount:kc-forbidden:nobody" cannot list resource "pods"' in found.why
    assert not found.why.startswith("Error")


def test_a_token_nobody_knows(cluster: apiserver.Cluster) -> None:
    assert failed(at(cluster.kubeconfig_token("nonsense")), "get", "pods").kind is Kind.UNAUTHORIZED


def test_nobody_answers(cluster: apiserver.Cluster, tmp_path: pathlib.Path) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    nowhere = cluster.kubeconfig_token("x", url=f"https://127.0.0.1:{port}")
    found = failed(at(nowhere), "get", "pods")
    assert found.kind is Kind.UNREACHABLE
    assert f"127.0.0.1:{port}" in found.why
    assert not found.why.startswith("E")
    assert failed(at(tmp_path / "no-such-file"), "get", "pods").kind is Kind.UNREACHABLE
    assert failed(at(cluster.kubeconfig, context="nope"), "get", "pods").kind is Kind.UNREACHABLE


def test_kubectl_that_never_answers_is_not_waited_for(cluster: apiserver.Cluster) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        nowhere = cluster.kubeconfig_token("x", url=f"https://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(kubectl.Failed) as caught:
            at(nowhere).run("get", "pods", what="x", seconds=1)
    assert caught.value.kind is Kind.UNREACHABLE


def test_without_a_kubectl_there_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(output.Stop, match="no kubectl on your PATH") as caught:
        at("x").run("get", "pods", what="x")
    assert caught.value.exit_code == output.UNREACHABLE


def test_a_port_is_forwarded_until_the_block_ends(node: kubelet.Node) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        node.does(forward={"sys/svc/outrider": listening.getsockname()[1]})
        with at("x").forwarded("sys", "svc/outrider", 8443) as port:
            assert port == listening.getsockname()[1]


def test_a_port_that_cannot_be_forwarded_is_said_why() -> None:
    with pytest.raises(kubectl.Failed, match="no pod that runs"), at("x").forwarded("sys", "svc/other", 8443):
        pass


def test_the_real_port_forward_fails_with_its_own_words(
    cluster: apiserver.Cluster, monkeypatch: pytest.MonkeyPatch, node: kubelet.Node
) -> None:
    monkeypatch.setenv("PATH", os.pathsep.join(os.environ["PATH"].split(os.pathsep)[1:]))
    with (
        pytest.raises(kubectl.Failed) as caught,
        at(cluster.kubeconfig).forwarded("default", "svc/none", 8443),
    ):
        pass
    assert caught.value.kind is Kind.NOT_FOUND


def test_options_say_which_cluster_and_which_installation() -> None:
    @click.command()
    @kubectl.options
    def command(**given: object) -> None:
        where = kubectl.site(given)
        click.echo(
            json.dumps([where.context, where.kubeconfig, where.system_namespace, where.release, given])
        )

    said = testing.CliRunner().invoke(
        command, ["--context", "a", "--kubeconfig", "b", "--system-namespace", "c", "--release", "d"]
    )
    assert json.loads(said.stdout) == ["a", "b", "c", "d", {}]
    assert json.loads(testing.CliRunner().invoke(command).stdout) == [
        None,
        None,
        "outrider-system",
        "outrider",
        {},
    ]


def test_a_cluster_is_known_by_environment_file_or_being_in_a_pod(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not kubectl.is_configured()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert kubectl.is_configured()
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_text("")
    assert kubectl.is_configured()
    (tmp_path / ".kube" / "config").unlink()
    monkeypatch.setenv("KUBECONFIG", "/x")
    assert kubectl.is_configured()


def test_the_stand_in_for_a_node_serves_what_it_is_told(node: kubelet.Node, tmp_path: pathlib.Path) -> None:
    (tmp_path / "log").write_text("a line")
    node.does(logs={"x/pod": str(tmp_path / "log")})
    assert at("x").run("logs", "pod", "-n", "x", what="x").strip() == "a line"
    assert failed(at("x"), "logs", "other", "-n", "x").kind is Kind.NOT_FOUND


def test_nothing_here_dials_anything_itself(cluster: apiserver.Cluster) -> None:
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{cluster.url}/version", timeout=5)  # no proxy and no trust but kubectl's own
