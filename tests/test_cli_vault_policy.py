# SPDX-License-Identifier: Apache-2.0
"""`outrider vault-policy` on folders: whom it binds roles to, and what it says where it cannot know."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import pytest
from click import testing
from tests import laptop

from outrider_cli import main

ADDRESS = "https://vault.example:8200"


def settings(**more: Any) -> str:
    return json.dumps(
        {
            "apiVersion": "outrider.dev/v1alpha1", "kind": "Settings",
            "workload": {"namespace": NOBODY[0], "serviceAccount": NOBODY[1]}, "vault": {"address": ADDRESS}, **more,
        }
    )  # fmt: skip


def server(name: str, *entries: dict[str, Any]) -> str:
    return laptop.server(name, "https://mcp.example/mcp", credentials=entries)


def entry(name: str = "token", frm: Any = None, **source: Any) -> dict[str, Any]:
    source = source or {"vault": {"path": "api", "key": "token"}}
    return {"name": name, "from": frm or [{"anyone": True}], **source}


def policy(name: str, target: str, frm: Any, effect: str = "Allow") -> str:
    rule: dict[str, Any] = {"name": "all", "effect": effect, "from": frm, "tools": ["*"]}
    return laptop.policy(name, target, rule)


ANYONE = [{"anyone": True}]


NOBODY = ("nobody", "bot")
"""The laptop's own workload, which none of the policies here is about unless it says so."""


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "outrider.yaml").write_text(settings())
    return tmp_path


def put(home: pathlib.Path, *documents: str) -> None:
    (home / "all.yaml").write_text(laptop.documents(*documents))


def outrider(home: pathlib.Path, *line: str) -> testing.Result:
    return testing.CliRunner().invoke(main.cli, ["vault-policy", "-f", str(home), *line])


def bound(ran: testing.Result) -> dict[str, list[str]]:
    """The namespaces that each role is bound to, of a script."""
    assert ran.exit_code == 0, ran.output
    found = re.findall(r"role/(\S+) - <<'END'\n(.*?)\nEND", ran.stdout, re.DOTALL)
    return {name: json.loads(body)["bound_service_account_namespaces"] for name, body in found}


def test_consumers_are_the_namespaces_that_policies_let_call(home):
    put(
        home,
        server("crm/salesforce", entry()),
        policy("crm/access", "crm/salesforce", [{"namespaces": ["sales", "support", "hr"]}]),
        policy("sales/consent", "crm/salesforce", ANYONE),
        policy("support/consent", "crm/salesforce", [{"serviceAccounts": ["bot"]}]),
    )
    assert bound(outrider(home, "-o", "sh")) == {
        "outrider-crm": ["sales", "support"],
        "outrider_prober": ["outrider-system"],
    }


def test_a_namespace_whose_workloads_are_denied_everything_is_no_consumer_of_an_entry_for_others(home):
    put(
        home,
        server("crm/salesforce", entry(frm=[{"namespaces": ["sales"]}])),
        policy("crm/access", "crm/salesforce", [{"namespaces": ["sales", "support"]}]),
        policy("outrider-system/consent", "crm/salesforce", ANYONE),
    )
    assert bound(outrider(home, "-o", "sh"))["outrider-crm"] == ["sales"]


def test_named_consumers_take_the_place_of_policies(home):
    put(home, server("crm/salesforce", entry()))
    ran = outrider(home, "-o", "sh", "--consumers", "support, sales,sales")
    assert bound(ran)["outrider-crm"] == ["sales", "support"]
    assert outrider(home, "--consumers", "*").exit_code == 2


def test_a_named_consumer_gets_no_path_of_an_entry_that_names_other_namespaces(home):
    sales = [{"namespaces": ["sales"]}, {"serviceAccounts": ["desk/bot"], "groups": ["okta:desk"]}]
    put(
        home,
        server(
            "crm/salesforce",
            entry("sales", sales, vault={"path": "sales", "key": "token"}),
            entry("team", [{"teams": ["labelled"]}], vault={"path": "team", "key": "token"}),
            entry("rest", vault={"path": "rest", "key": "token"}),
        ),
    )
    for namespace, paths in (("support", {"team", "rest"}), ("desk", {"sales", "team", "rest"})):
        ran = outrider(home, "--consumers", namespace)
        policy = ran.stdout.partition("outrider_prober")[0]
        assert set(re.findall(r"secret/data/outrider/servers/crm/salesforce/(\w+)", policy)) == paths


def test_an_entry_that_nobody_may_use_yet_is_named_and_not_printed(home):
    put(home, server("crm/salesforce", entry(vault={"owner": "Workload", "path": "api", "key": "token"})))
    ran = outrider(home)
    assert ran.exit_code == 1
    assert "crm/salesforce: nobody may call it yet" in ran.stderr
    assert "no role is needed" in ran.stderr


def test_under_implied_consent_only_namespaces_that_are_known_are_bound_and_that_is_said(home):
    (home / "outrider.yaml").write_text(settings(consumerConsent="Implied"))
    put(
        home,
        server("crm/salesforce", entry()),
        policy("crm/access", "crm/salesforce", ANYONE),
        policy("sales/other", "crm/salesforce", [{"namespaces": ["sales"]}], "Allow"),
    )
    ran = outrider(home, "-o", "sh")
    assert bound(ran)["outrider-crm"] == ["crm", "nobody", "sales"]
    assert (
        "called from every namespace; bound are those that are known here: crm, nobody, sales" in ran.stderr
    )


def test_what_the_platform_opens_to_everybody_is_said_too_and_the_laptops_workload_is_bound(home):
    put(home, server("crm/salesforce", entry()), policy("outrider-system/all", "crm/salesforce", ANYONE))
    ran = outrider(home, "-o", "sh")
    assert NOBODY[0] in bound(ran)["outrider-crm"]
    assert "may be called from every namespace" in ran.stderr


def test_what_workloads_keep_is_the_templated_role(home):
    put(
        home,
        server("crm/jira", entry(vault={"owner": "Workload", "path": "api", "key": "token"})),
        policy("outrider-system/all", "crm/jira", [{"namespaces": ["sales", "hr"]}]),
    )
    ran = outrider(home, "--accessor", "auth_kubernetes_1")
    assert ran.exit_code == 0
    where = "{{identity.entity.aliases.auth_kubernetes_1.metadata.service_account_namespace}}"
    assert f'path "secret/data/outrider/workloads/{where}/crm/jira/api"' in ran.stdout
    # The prober belongs to no workload's namespace: it reads nothing of theirs.
    assert bound(outrider(home, "-o", "sh")) == {"outrider": ["hr", "sales"]}


def test_every_kind_that_needs_vault_is_covered(home):
    client = {
        "tokenUrl": "https://idp.example/token", "clientId": "o", "clientSecret": {"vault": {"path": "oauth", "key": "secret"}},
    }  # fmt: skip
    put(
        home,
        server(
            "crm/all",
            entry("lease", [{"namespaces": ["a"]}], vault={"path": "db/creds/r", "key": "password", "engine": "Lease"}),
            entry("oauth", [{"namespaces": ["b"]}], oauthClientCredentials=client),
            entry("exchange", [{"namespaces": ["c"]}], tokenExchange=client),
            entry("mtls", [{"namespaces": ["d"]}], clientCertificate={"vault": {"path": "pki/issue/agent"}, "commonName": "agent.example"}),
            entry("none", [{"namespaces": ["e"]}], none=True),
        ),
        policy("outrider-system/all", "crm/all", [{"namespaces": list("abcde")}]),
    )  # fmt: skip
    ran = outrider(home)
    for path in (
        "outrider/servers/crm/all/db/creds/r", "secret/data/outrider/servers/crm/all/oauth",
        "outrider/servers/crm/all/pki/issue/agent", "sys/leases/renew",
    ):  # fmt: skip
        assert f'path "{path}"' in ran.stdout
    assert "outrider/servers/crm/all/pki/ is yours to mount" in ran.stdout
    assert bound(outrider(home, "-o", "sh"))["outrider-crm"] == ["a", "b", "c", "d"]


def test_where_one_role_reads_more_than_policies_allow_is_said(home):
    put(
        home,
        server("crm/salesforce", entry()),
        server("crm/jira", entry()),
        policy("outrider-system/s", "crm/salesforce", [{"namespaces": ["sales"]}]),
        policy("outrider-system/j", "crm/jira", [{"namespaces": ["sales", "hr"]}]),
    )
    ran = outrider(home)
    assert "role outrider-crm is one for all servers of crm: hr may not call crm/salesforce" in ran.stderr


def test_without_a_vault_in_the_settings_it_says_what_to_add(home):
    (home / "outrider.yaml").write_text(laptop.SETTINGS)
    put(home, server("crm/salesforce", entry()))
    ran = outrider(home)
    assert ran.exit_code == 1
    assert "the settings name no Vault" in ran.stderr
    assert "vault: {address:" in ran.stderr


def test_an_accessor_is_no_place_for_other_text(home):
    put(home, server("crm/salesforce", entry()))
    assert outrider(home, "--accessor", "a}}/*").exit_code == 2


@pytest.mark.parametrize("name", ["*.example", 'a"b.example', "a b\\c"])
def test_a_name_that_a_policy_would_read_as_more_ends_it(home, name):
    certificate = {"vault": {"path": "pki/issue/agent"}, "commonName": name}
    put(
        home,
        server("crm/mtls", entry(clientCertificate=certificate)),
        policy("outrider-system/all", "crm/mtls", [{"namespaces": ["sales"]}]),
    )
    assert outrider(home).exit_code != 0
