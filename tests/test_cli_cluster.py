# SPDX-License-Identifier: Apache-2.0
"""can-i and explain about a real API server's objects: the same evaluator, and clear words where something is not known."""

from __future__ import annotations

import hashlib
import json
import pathlib

import pytest
from click import testing
from tests import laptop
from tests.kube import apiserver, asked

from outrider import compile as compiler
from outrider import names, snapshot
from outrider_cli import cluster as clusters
from outrider_cli import kubectl

SYSTEM = "cv-system"
BOT = "sa:cv-agents/bot"


@pytest.fixture(scope="module")
def prepared(cluster: apiserver.Cluster) -> apiserver.Cluster:
    asked.installation(cluster, SYSTEM, consumerConsent="Implied", teamFromNamespaceLabel=True)
    for name in ("cv-crm", "cv-other"):
        cluster.namespace(name)
    cluster.namespace("cv-agents", **{"outrider.dev__team": "sales"})
    sales = [{"teams": ["sales"]}]
    cluster.apply(
        asked.server("cv-crm"),
        asked.server("cv-crm", "unlisted"),
        asked.policy("cv-crm", asked.allow("query", "get_*", **{"from": sales})),
        asked.policy("cv-crm", asked.allow("*"), name="unlisted", server="unlisted"),
    )
    asked.listed(cluster, "cv-crm", "salesforce", "query", "get_account", "drop")
    asked.listed(cluster, "cv-crm", "unlisted", "one", count=900)
    return cluster


@pytest.fixture(autouse=True)
def _node(tmp_path: pathlib.Path):
    with asked.kubectl_on_path(tmp_path / "bin"):
        yield


def ask(cluster: apiserver.Cluster, *line: str, kubeconfig: object = None) -> testing.Result:
    where = ("--kubeconfig", kubeconfig or cluster.kubeconfig, "--system-namespace", SYSTEM)
    return asked.outrider(*line, *where)


def test_yes_is_exit_0_with_the_rule_and_the_team_that_a_namespaces_label_names(prepared) -> None:
    ran = ask(prepared, "can-i", "call", "cv-crm/salesforce", "query", "--as", BOT)
    assert ran.exit_code == 0, ran.output
    assert ran.stdout.startswith("yes: cv-agents/bot (teams: sales) calls cv-crm/salesforce query\n")
    assert "allowed by cv-crm/access/allow (generation 1)" in ran.stdout


@pytest.mark.parametrize(
    ("tool", "who", "reason"),
    [
        ("drop", BOT, "NotAllowed"),
        ("get_nothing", BOT, "ToolUnknown"),
        ("query", "sa:cv-other/bot", "ServerUnknown"),
    ],
)
def test_no_is_exit_1_with_its_reason(prepared, tool: str, who: str, reason: str) -> None:
    ran = ask(prepared, "can-i", "call", "cv-crm/salesforce", tool, "--as", who, "-o", "json")
    assert ran.exit_code == 1
    assert json.loads(ran.stdout)["reason"] == reason


def test_arguments_are_said_not_to_be_checked_for_a_status_has_no_schemas(prepared) -> None:
    line = ("can-i", "call", "cv-crm/salesforce", "query", "--as", BOT, "--args", '{"a": 1}')
    ran = ask(prepared, *line)
    assert ran.exit_code == 0
    assert "arguments not checked: the tool's inputSchema is not known here" in ran.stderr
    found = json.loads(ask(prepared, *line, "-o", "json").stdout)
    assert (found["namesChecked"], found["argumentsChecked"]) == (True, False)
    shown = ask(prepared, "explain", *line[1:])
    assert "assumed: the tool's inputSchema is not known here" in shown.stdout


def test_with_definitions_of_a_file_arguments_are_checked(prepared, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "definitions.json"
    schema = {"type": "object", "required": ["soql"]}
    file.write_text(json.dumps({"cv-crm/salesforce": [{"name": "query", "inputSchema": schema}]}))
    line = (
        "can-i",
        "call",
        "cv-crm/salesforce",
        "query",
        "--as",
        BOT,
        "--definitions",
        str(file),
        "-o",
        "json",
    )
    refused = json.loads(ask(prepared, *line, "--args", "{}").stdout)
    assert (refused["reason"], refused["allowed"]) == ("ArgumentsInvalid", False)
    assert json.loads(ask(prepared, *line, "--args", '{"soql": "x"}').stdout)["argumentsChecked"]


def test_a_server_with_more_tools_than_its_status_names_is_not_said_to_lack_any(prepared) -> None:
    ran = ask(prepared, "can-i", "call", "cv-crm/unlisted", "anything", "--as", BOT)
    assert ran.exit_code == 0
    assert "definitions unknown: names not checked. Its status lists none, or more than 500" in ran.stderr


def test_a_list_shows_what_the_workload_sees(prepared) -> None:
    ran = ask(prepared, "can-i", "--list", "cv-crm/salesforce", "--as", BOT)
    assert ran.exit_code == 0
    assert [line.split()[2] for line in ran.stdout.splitlines()[1:]] == ["query", "get_account"]


def test_explain_says_from_which_cluster_and_whether_it_is_the_same_version(prepared) -> None:
    ran = ask(prepared, "explain", "call", "cv-crm/salesforce", "query", "--as", BOT, "-o", "json")
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)
    assert found["from"] == f"context test, {SYSTEM}/outrider"
    assert len(found["snapshot"]) == 64
    shown = ask(prepared, "explain", "call", "cv-crm/salesforce", "drop", "--as", BOT)
    assert f"from context test, {SYSTEM}/outrider" in shown.stdout
    assert "Today: refused: NotAllowed" in shown.stdout


def test_the_version_is_the_one_that_the_operator_makes(prepared) -> None:
    found = clusters.view(
        kubectl.Kubectl(kubectl.Site(kubeconfig=str(prepared.kubeconfig), system_namespace=SYSTEM))
    )
    uid = prepared.get("namespace", "kube-system")["metadata"]["uid"]
    epoch = int.from_bytes(hashlib.sha256(f"{uid}/0".encode()).digest()[:6], "big")
    assert found.epoch == epoch
    made = compiler.snapshot(found.world, "cv-agents", "bot", epoch=epoch)
    said = ask(prepared, "explain", "call", "cv-crm/salesforce", "query", "--as", BOT, "-o", "json")
    assert json.loads(said.stdout)["snapshot"] == snapshot.digest(snapshot.canonical(made))
    assert set(found.definitions) == {names.ServerId("cv-crm", "salesforce")}


def test_whoever_may_not_read_everything_gets_no_answer_but_the_reason(prepared) -> None:
    prepared.service_account("cv-other", "nobody")
    token = prepared.token("cv-other", "nobody", prepared.audience)
    ran = ask(
        prepared,
        "can-i",
        "call",
        "cv-crm/salesforce",
        "query",
        "--as",
        BOT,
        kubeconfig=prepared.kubeconfig_token(token),
    )
    assert ran.exit_code == 4
    assert f"the settings (ConfigMap {SYSTEM}/outrider-settings) cannot be read" in ran.stderr
    assert "system:serviceaccount:cv-other:nobody" in ran.stderr
    assert "Next: ask for the rights" in ran.stderr


def test_another_installations_name_is_said_to_be_missing(prepared) -> None:
    ran = ask(prepared, "can-i", "call", "cv-crm/salesforce", "query", "--as", BOT, "--release", "other")
    assert ran.exit_code == 4
    assert "(ConfigMap cv-system/other-settings) cannot be read: there is none" in ran.stderr
    assert "--system-namespace and --release" in ran.stderr


def test_settings_that_cannot_be_used_are_named(prepared) -> None:
    prepared.namespace("cv-broken")
    metadata = {"name": "outrider-settings", "namespace": "cv-broken"}
    prepared.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"settings.yaml": "a: 1"}}
    )
    where = ("--kubeconfig", prepared.kubeconfig, "--system-namespace", "cv-broken")
    ran = asked.outrider("can-i", "call", "cv-crm/salesforce", "query", "--as", BOT, *where)
    assert ran.exit_code == 4
    assert "the settings in ConfigMap outrider-settings cannot be used" in ran.stderr


def test_without_as_there_is_nobody_to_ask_for(prepared) -> None:
    ran = ask(prepared, "can-i", "call", "cv-crm/salesforce", "query")
    assert ran.exit_code == 2
    assert "add --as sa:NAMESPACE/NAME" in ran.stderr


def test_an_object_that_is_not_valid_is_left_out_and_said_so(own_cluster: apiserver.Cluster) -> None:
    """It was stored before the API server knew better; the operator stays on what it had, which only its conditions tell."""
    asked.installation(own_cluster, SYSTEM, consumerConsent="Implied")
    own_cluster.namespace("cv-crm")
    own_cluster.apply(asked.server("cv-crm"), asked.policy("cv-crm", asked.allow("query")))
    own_cluster.kubectl("delete", "validatingadmissionpolicybinding", "-l", "outrider.dev/crd-revision")
    broken = asked.policy("cv-crm", {**asked.allow("query"), "form": []}, name="typo")
    laptop.until(
        lambda: own_cluster.apply(broken, check=False).returncode == 0, "unknown fields are let in", 30
    )
    ran = ask(own_cluster, "can-i", "call", "cv-crm/salesforce", "query", "--as", BOT)
    assert ran.exit_code == 0, ran.output
    assert "Note: left out, because it is not valid as it is: MCPToolPolicy cv-crm/typo: " in ran.stderr
    assert "form" in ran.stderr
    assert "The operator may hold to an earlier generation" in ran.stderr


def test_a_cluster_without_our_kinds_says_what_is_missing(own_cluster: apiserver.Cluster) -> None:
    own_cluster.namespace(SYSTEM)
    metadata = {"name": "outrider-settings", "namespace": SYSTEM}
    whole = "apiVersion: outrider.dev/v1alpha1\nkind: Settings\n"
    own_cluster.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"settings.yaml": whole}}
    )
    ran = ask(own_cluster, "can-i", "call", "cv-crm/salesforce", "query", "--as", BOT)
    assert ran.exit_code == 4
    assert "is Outrider installed here?" in ran.stderr
