# SPDX-License-Identifier: Apache-2.0
"""`outrider can-i` about users: who is assumed, what that user could call, and what any user could."""

from __future__ import annotations

import json
import pathlib

import pytest
from click import testing
from tests import persons

from outrider_cli import main


def of_users(place: pathlib.Path, *line: str, given: str | None = None) -> testing.Result:
    where = persons.folder(place)
    whole = [*line, "--definitions", f"{where}/definitions.json", "-f", where]
    return testing.CliRunner().invoke(main.cli, ["can-i", *whole], input=given)


def of_bot(place: pathlib.Path, *line: str) -> testing.Result:
    return of_users(place, *line, "--as", persons.BOT)


def test_an_answer_about_a_user_says_who_was_assumed_and_what_is_lent(tmp_path: pathlib.Path) -> None:
    ran = of_bot(tmp_path, "call", "crm/s", "query", *persons.ADA)
    assert ran.exit_code == 0, ran.output
    assert ran.stdout.startswith("yes: crm/bot (no team) for okta:ada calls crm/s query\n")
    assert "credential: own" in ran.stdout
    assert "assumed: a user okta:ada with these groups: okta:sales." in ran.stderr


def test_without_a_user_it_says_that_one_is_required_and_how_to_ask(tmp_path: pathlib.Path) -> None:
    ran = of_bot(tmp_path, "call", "crm/s", "query")
    assert ran.exit_code == 1
    assert "UserRequired" in ran.stdout
    assert "rule crm/p/sales" in ran.stdout
    assert "--user PROVIDER:ID" in ran.stdout
    assert "the agent is told so" in ran.stdout


def test_a_user_of_no_group_sees_less_and_the_json_says_who_it_was(tmp_path: pathlib.Path) -> None:
    ran = of_bot(tmp_path, "call", "crm/s", "query", *persons.BOB, "-o", "json")
    found = json.loads(ran.stdout)
    assert (found["allowed"], found["reason"], found["visible"]) == (False, "NotAllowed", False)
    assert (found["user"], found["groups"], found["client"]) == ("okta:bob", [], "")
    nobody = json.loads(of_bot(tmp_path, "call", "crm/s", "read", "-o", "json").stdout)
    assert nobody["user"] is None


def test_a_list_is_of_what_that_user_could_call_or_of_what_some_user_could(tmp_path: pathlib.Path) -> None:
    def listed(*user: str) -> list[tuple[str, str, bool]]:
        found = json.loads(of_bot(tmp_path, "--list", *user, "-o", "json").stdout)
        return [(each["server"], each["tool"], each["userNeeded"]) for each in found]

    strict = ("crm/strict", "query"), ("crm/strict", "read")
    assert listed() == [
        ("crm/s", "query", True), ("crm/s", "read", True), *((*each, True) for each in strict),
    ]  # fmt: skip
    assert listed(*persons.ADA) == [
        ("crm/s", "query", False), ("crm/s", "read", False), *((*each, False) for each in strict),
    ]  # fmt: skip
    assert listed(*persons.BOB) == [(*each, False) for each in strict]
    table = of_bot(tmp_path, "--list", "crm/s")
    assert "crm/p/sales (needs a user)" in table.stdout
    assert "some of these need a user" in table.stderr
    assert "assumed: a user okta:bob" in of_bot(tmp_path, "--list", *persons.BOB).stderr
    none = of_bot(tmp_path, "--list", "crm/s", *persons.BOB)
    assert none.stdout == "crm/bot sees for okta:bob no tool, prompt or resource\n"


def test_a_line_of_a_batch_may_suppose_a_user(tmp_path: pathlib.Path) -> None:
    line = {"server": "crm/s", "tool": "query", "as": persons.BOT}
    lines = [line, line | {"user": "okta:ada", "groups": ["okta:sales"]}, line | {"user": ["okta:bob"]}]
    ran = of_users(tmp_path, "--batch", "-", "-o", "jsonl", given="\n".join(map(json.dumps, lines)))
    assert [json.loads(each)["reason"] for each in ran.stdout.splitlines()] == [
        "UserRequired", "Allowed", "NotAllowed",
    ]  # fmt: skip
    for wrong, why in (({"user": "ada"}, "'ada' is no user"), ({"user": "otka:ada"}, "did you mean okta?")):
        ran = of_users(tmp_path, "--batch", "-", given=json.dumps(line | wrong))
        assert (ran.exit_code, ran.stdout) == (2, "")
        assert why in ran.stderr


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (("call", "crm/s", "query", "--user", "ada"), "'ada' is no user"),
        (("call", "crm/s", "query", "--group", "okta:sales"), "there is no user"),
        (("call", "crm/s", "query", "--user", "otka:ada"), "did you mean okta?"),
        (("--list", "--user", "zz:ada"), "UserTokenInvalid"),
        (("--batch", "-", "--user", "okta:ada"), "--batch stands alone"),
    ],
)
def test_a_user_that_no_token_could_name_is_exit_2(
    tmp_path: pathlib.Path, line: tuple[str, ...], why: str
) -> None:
    ran = (of_users if "--batch" in line else of_bot)(tmp_path, *line)
    assert ran.exit_code == 2
    assert why in ran.stderr
