# SPDX-License-Identifier: Apache-2.0
"""A hypothetical call, check by check."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from tests import persons

from outrider import catalog, decide, identity, names, testing
from outrider_cli import asking, checked, folder

CRM = names.ServerId("crm", "salesforce")
SALES = ("sales-agents", "quote-bot")
WORLD = folder.at(str(pathlib.Path(__file__).resolve().parent.parent / "examples")).world()
SCHEMA = {"type": "object", "required": ["soql"]}


def explained(tool: str = "query", **more: Any) -> dict[str, Any]:
    known = more.pop("known", True)
    raws = [
        json.dumps({"name": name, "inputSchema": SCHEMA}).encode()
        for name in ("query", "get_account", "delete_account")
    ]
    desk = asking.Desk(WORLD, definitions={CRM: catalog.definitions(raws)} if known else {})
    question = asking.Question(**{"server": CRM, "name": tool, "workload": SALES, **more})
    return checked.explained(desk, question)


def check(found: dict[str, Any], name: str) -> dict[str, Any]:
    one: dict[str, Any] = next(step for step in found["checks"] if step["check"] == name)
    return one


def test_every_check_of_the_decision_appears_once_in_its_order() -> None:
    names_ = [step["check"] for step in explained()["checks"]]
    assert names_ == [made.__name__ for made in decide.CHECKS]  # type: ignore[attr-defined]


def test_the_objection_names_rule_and_generation() -> None:
    found = explained("delete_account")
    denied = check(found, "not_denied")
    assert (denied["ok"], denied["reason"]) == (False, "Denied")
    assert (denied["rule"], denied["generation"]) == ("crm/sales-access/nobody-deletes", 1)
    assert found["today"]["allowed"] is False


def test_what_is_only_assumed_is_marked() -> None:
    loose = explained(known=False)
    assert "names not checked" in check(loose, "tool_known")["assumed"]
    assert "no arguments" in check(loose, "arguments_fit")["assumed"]
    assert (
        "inputSchema is not known" in check(explained(known=False, arguments={}), "arguments_fit")["assumed"]
    )
    exact = explained(arguments={"soql": "x"})
    assert check(exact, "tool_known")["assumed"] == ""
    assert check(exact, "arguments_fit") | {"promise": ""} == {
        "check": "arguments_fit", "promise": "", "reached": True, "ok": True, "assumed": "",
    }  # fmt: skip
    assert check(exact, "budget_within")["assumed"] != ""
    assert check(exact, "rate_within")["assumed"] == ""
    assert check(explained("get_account"), "rate_within")["assumed"] != ""


def test_an_objection_is_never_marked_as_assumed() -> None:
    wrong = check(explained(arguments={}), "arguments_fit")
    assert (wrong["ok"], wrong["assumed"], wrong["reason"]) == (False, "", "ArgumentsInvalid")


def test_the_objects_are_all_that_was_joined_to_the_name() -> None:
    objects = {one["object"]: one["says"] for one in explained()["objects"]}
    assert objects["MCPServer crm/salesforce"] == "Active, http://127.0.0.1:9101/mcp"
    assert objects["MCPToolPolicy crm/sales-access"] == "Allow by rule sales-works, key: Provider"
    assert objects["MCPToolPolicy sales-agents/our-tools"] == "Allow by rule crm, key: Consumer"
    assert objects["credential sales-token"].endswith("/.outrider/secrets/crm-token")
    assert objects["MCPBudget crm/sales-monthly/calls"] == "counts one call"
    assert objects["MCPBudget crm/sales-monthly/spend"].startswith("counts at most 0.3")


def test_an_audit_mode_rule_is_shown_as_such() -> None:
    says = [one["says"] for one in explained("export_all_contacts", known=False)["objects"]]
    assert "Deny by rule no-exports, key: Provider (Audit mode: recorded, never enforced)" in says


@pytest.mark.parametrize(
    ("workload", "server", "words"),
    [
        (("hr-agents", "x"), CRM, ["sales-reads (generation 1) is for other callers", "No Allow of crm", "No Allow of hr-agents"]),
        (("sales-agents", "other"), CRM, ["our-tools/crm (generation 1) is for other callers", "No Allow of sales-agents"]),
        (SALES, names.ServerId("hr", "people"), ["governs only callers of namespace hr-agents", "No Allow of hr, the"]),
        (SALES, names.ServerId("crm", "sugar"), ["There is no MCPServer crm/sugar."]),
    ],
)  # fmt: skip
def test_when_nothing_opens_a_name_it_says_what_comes_closest(
    workload: tuple[str, str], server: names.ServerId, words: list[str]
) -> None:
    tool = "get_person" if server.name == "people" else "query"
    missing = "\n".join(explained(tool, workload=workload, server=server)["missing"])
    for word in words:
        assert word in missing


def test_nothing_is_missing_from_an_allowed_call() -> None:
    assert explained()["missing"] == []


# Users ----------------------------------------------------------------------------------------------------------------


def of_user(place: pathlib.Path, tool: str, user: identity.User | None, server: str = "s") -> dict[str, Any]:
    home = folder.at(persons.folder(place))
    desk = asking.Desk(home.world(), definitions=folder.definitions(home, str(place / "definitions.json")))
    question = asking.Question(names.ServerId("crm", server), tool, ("crm", "bot"), user=user)
    return checked.explained(desk, question)


ADA, BOB = testing.a_user("sales"), testing.a_user(id="okta:bob")
QUERY = "Allow by rule sales, key: Provider, for users in group okta:sales"
READ = "Deny by rule not-bob, key: Provider, for users okta:bob"
OWN = "the user's token, exchanged by client outrider at https://okta.example/token, for users in group okta:sales"


@pytest.mark.parametrize(
    ("tool", "user", "means", "lent"),
    [
        ("query", ADA, f"{QUERY} (matches)", {"own": "matches"}),
        ("query", BOB, f"{QUERY} (not this caller)", {"own": "not this caller", "none": ""}),
        ("query", None, f"{QUERY} (not known without a user)", {"own": "not known without a user"}),
        ("read", ADA, f"{READ} (not this caller)", {"own": "matches"}),
        ("read", BOB, f"{READ} (matches)", {"own": "not this caller", "none": ""}),
        ("read", None, f"{READ} (not known without a user)", {"own": "not known without a user"}),
    ],
)
def test_each_rule_and_credential_says_for_which_users_it_is_and_what_that_means_for_this_one(
    tmp_path: pathlib.Path, tool: str, user: identity.User | None, means: str, lent: dict[str, str]
) -> None:
    found = of_user(tmp_path, tool, user)
    said = [(one["object"], one["says"]) for one in found["objects"]]
    assert ("MCPToolPolicy crm/p", means) in said
    entries = {name.removeprefix("credential "): says for name, says in said if name.startswith("credential")}
    assert entries.keys() == lent.keys()
    assert entries["own"] == f"{OWN} ({lent['own']})"
    assert entries.get("none", "nothing is sent") == "nothing is sent"


def test_the_user_and_what_was_assumed_of_it_is_part_of_the_answer(tmp_path: pathlib.Path) -> None:
    found = of_user(tmp_path, "query", ADA)
    assert (found["user"], found["groups"], found["client"]) == ("okta:ada", ["okta:sales"], "")
    assert found["assumed"] == "assumed: a user okta:ada with these groups: okta:sales"
    nobody = of_user(tmp_path, "query", None)
    assert (nobody["user"], nobody["assumed"]) == (None, "")
    assert check(nobody, "user_present")["reason"] == "UserRequired"


def test_a_server_that_requires_a_user_says_so_among_the_objects(tmp_path: pathlib.Path) -> None:
    strict = of_user(tmp_path, "query", None, server="strict")
    assert strict["objects"][0]["says"].endswith(", requires a user")
    assert check(strict, "user_present")["detail"] == "the MCPServer says `requireUser`"


def test_an_allow_for_other_users_is_named_when_nothing_opens(tmp_path: pathlib.Path) -> None:
    assert of_user(tmp_path, "query", BOB)["missing"] == [
        "Allow crm/p/sales (generation 7) is for users in group okta:sales, and this caller is none of them.",
        "No Allow of crm, the server's namespace, or of the platform, opens this tool to this caller.",
    ]
    assert of_user(tmp_path, "query", None)["missing"] == []
