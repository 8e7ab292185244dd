# SPDX-License-Identifier: Apache-2.0
"""`outrider inject`: what the webhook would do, before anything is there that could do it."""

from __future__ import annotations

import base64
import json
import pathlib
from typing import Any

import pytest
import yaml
from click import testing
from tests import pods
from tests.kube import apiserver

from outrider import injection
from outrider.injection import choices
from outrider.resources import injection as chosen
from outrider_cli import inject, main

DEPLOYMENT = f"""\
# of the team
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: team}}
spec:
  selector: {{matchLabels: {{app: agent}}}}
  template: {json.dumps({key: value for key, value in pods.pod().items() if key in ("metadata", "spec")})}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: other, namespace: team}}
data: {{since: 2024-01-01}}
"""
SETTINGS = f"""\
apiVersion: outrider.dev/v1alpha1
kind: Settings
injection: {{image: "{pods.IMAGE}", logLevel: warning, resources: {{requests: {{cpu: 10m}}}}}}
"""


@pytest.fixture
def home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.yaml").write_text(SETTINGS)
    (tmp_path / "deploy.yaml").write_text(DEPLOYMENT)
    return tmp_path


def outrider(*line: object, given: str | None = None) -> testing.Result:
    words = ["inject", *(str(word) for word in line)]
    return testing.CliRunner().invoke(main.cli, words, input=given, prog_name="outrider")


OFFLINE = ("--settings", "settings.yaml")


def test_every_document_comes_out_and_its_pods_are_injected(home: pathlib.Path) -> None:
    ran = outrider("-f", "deploy.yaml", *OFFLINE)
    assert ran.exit_code == 0, ran.output
    deployment, other = yaml.safe_load_all(ran.stdout)
    assert other["data"] == {"since": "2024-01-01"}
    options = choices.options(
        chosen.Injection.model_validate(yaml.safe_load(SETTINGS)["injection"]),
        operator_url=pods.OPERATOR_URL, version=inject.metadata.version("outrider"),
    )  # fmt: skip
    assert options.log_level == "warning"
    assert options.resources == injection.Resources("10m", "96Mi", None, "256Mi")
    template = {"metadata": pods.pod()["metadata"], "spec": pods.pod()["spec"]}
    made = injection.inject(template, injection.Facts(""), options)
    assert isinstance(made, injection.Injected)
    assert deployment["spec"]["template"] == made.pod
    assert "Deployment team/web: sidecar outrider-sidecar:test beside agent; local-auth is Open" in ran.stderr
    assert "not checked here" in ran.stderr
    assert "whether a ServiceAccount may create tokens" in ran.stderr
    assert "outrider.dev/ca is empty here; the webhook writes it" in ran.stderr


def test_what_was_injected_is_injected_again_to_the_same(home: pathlib.Path) -> None:
    once = outrider("-f", "deploy.yaml", *OFFLINE).stdout
    assert outrider("-f", "-", *OFFLINE, given=once).stdout == once


def test_a_patch_makes_the_same_of_it(home: pathlib.Path) -> None:
    import jsonpatch

    [found] = json.loads(outrider("-f", "deploy.yaml", *OFFLINE, "-o", "patch").stdout)
    assert found["object"] == "Deployment team/web"
    before = next(iter(yaml.safe_load_all(DEPLOYMENT)))
    whole = json.loads(outrider("-f", "deploy.yaml", *OFFLINE, "-o", "json").stdout)
    assert jsonpatch.apply_patch(before, found["patch"]) == whole["items"][0]


def test_a_refusal_is_said_with_its_object_and_nothing_is_printed(home: pathlib.Path) -> None:
    bad = json.dumps({**pods.pod(hostNetwork=True), "metadata": {"name": "x", "namespace": "team"}})
    ran = outrider("-f", "-", *OFFLINE, given=f"{DEPLOYMENT}---\n{bad}\n")
    assert ran.exit_code == 1
    assert ran.stdout == ""
    assert "Refused: Pod team/x: hostNetwork puts" in ran.stderr
    assert "remove hostNetwork" in ran.stderr


def test_a_pod_that_opted_out_is_left_alone_and_it_is_said(home: pathlib.Path) -> None:
    pod = pods.pod()
    pod["metadata"]["labels"]["outrider.dev/inject"] = "disabled"
    ran = outrider("-f", "-", *OFFLINE, "-o", "json", given=json.dumps(pod))
    assert json.loads(ran.stdout) == pod
    assert "Pod agent-0 is left alone: its label outrider.dev/inject is disabled" in ran.stderr
    assert "not checked" not in ran.stderr


def test_a_file_without_pods_passes_through_and_it_is_said(home: pathlib.Path) -> None:
    ran = outrider("-f", "-", *OFFLINE, given="kind: Namespace\n")
    assert (ran.exit_code, ran.stdout) == (0, "kind: Namespace\n")
    assert "there is no pod in it" in ran.stderr


@pytest.mark.parametrize(
    ("line", "given", "words"),
    [
        (("-f", "absent.yaml", *OFFLINE), "", "absent.yaml cannot be read: No such file"),
        (("-f", "-", *OFFLINE), "a: [", "is not YAML or JSON of Kubernetes objects"),
        (("-f", "-", *OFFLINE), "a: 1\na: 1", "the key 'a' is there twice"),
        (("-f", "deploy.yaml", "--settings", "absent"), "", "--settings absent cannot be read"),
        (("-f", "deploy.yaml", "--settings", "deploy.yaml"), "", "--settings cannot be used"),
        (("-f", "deploy.yaml", *OFFLINE, "--ca-file", "absent"), "", "absent"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(
    home: pathlib.Path, line: tuple[str, ...], given: str, words: str
) -> None:
    ran = outrider(*line, given=given)
    assert ran.exit_code in (2, 4)
    assert words in ran.stderr
    assert "Next: " in ran.stderr
    assert "Traceback" not in ran.output


def test_settings_and_certificates_come_from_the_cluster(
    home: pathlib.Path, cluster: apiserver.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(apiserver.KUBECTL.parent), prepend=":")
    space, release = cluster.namespace("inject-home"), "inject-test"
    about = {"name": f"{release}-settings", "namespace": space}
    bundle = base64.b64encode(cluster.ca_pem.encode()).decode()
    webhook = {
        "name": "namespace.inject.outrider.dev", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "failurePolicy": "Ignore", "clientConfig": {"url": "https://127.0.0.1:1/", "caBundle": bundle}, "rules": [],
    }  # fmt: skip
    cluster.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": {"settings.yaml": SETTINGS}},
        {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": release}, "webhooks": [webhook],
        },
    )  # fmt: skip
    try:
        there = ("--kubeconfig", cluster.kubeconfig, "--system-namespace", space, "--release", release)
        ran = outrider("-f", "deploy.yaml", "-o", "json", *there)
        assert ran.exit_code == 0, ran.output
        pod: dict[str, Any] = json.loads(ran.stdout)["items"][0]["spec"]["template"]
        assert pod["metadata"]["annotations"]["outrider.dev/ca"] == cluster.ca_pem
        assert f"--operator=https://{release}.{space}.svc:8443" in pods.ours(pod)["args"]
        missing = outrider("-f", "deploy.yaml", *there[:-1], "no-such-release")
        assert missing.exit_code == 4
        assert "name the installation with --system-namespace and --release" in missing.stderr
    finally:
        cluster.kubectl("delete", "mutatingwebhookconfiguration", release)
