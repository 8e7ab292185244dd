# SPDX-License-Identifier: Apache-2.0
"""`outrider explain`: hypothetical calls on the examples, and recorded ones from journals a real proxy's journal wrote."""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

import pytest
from click import testing
from tests import journals, persons

from outrider import audit
from outrider_cli import asking, folder, main

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "examples"
SALES = ("sales-agents", "quote-bot")
WHO = audit.Principal(workload="sales-agents/quote-bot", teams=("sales",))
DENIED, ALLOWED, CUT, EARLY, OPEN, GREETING = (f"01JD2M6Q6ZC4W2Q0G6X8T9R1A{mark}" for mark in "ABCDEF")
RULING = audit.Ruling(policy="crm/sales-access", rule="nobody-deletes", generation=1)


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the examples in which a proxy ran: one call refused, one allowed, and some that are not whole."""
    for file in EXAMPLES.glob("*.yaml"):
        shutil.copy(file, tmp_path)
    here = folder.at(str(tmp_path))
    version = asking.Desk(here.world(), definitions={}).digest(SALES)
    call: dict[str, Any] = {"principal": WHO, "server": "crm/salesforce", "snapshot": version}
    book = journals.opened(tmp_path / ".outrider" / "journal", journals.Clock())
    whole = audit.Body(bytes=21, content='{"account_id":"001"}')
    book.refusal(
        audit.RefusalRecord(
            event=DENIED, request_id=DENIED, reason="Denied", tool="delete_account", rule=RULING,
            detail="Ask crm-oncall.", arguments=whole, **call,
        )
    )  # fmt: skip
    for id_, body in (
        (ALLOWED, whole),
        (CUT, audit.Body(bytes=9_000, content='{"soql":', truncated=8_992)),
        (OPEN, whole),
    ):
        made = audit.Intent(
            event=id_, request_id=id_, tool="query", arguments=body, credential="sales-token",
            would=("would-deny crm/exports-trial/no-exports",), **call,
        )  # fmt: skip
        book.intent(made)
    for id_ in (ALLOWED, CUT):
        book.outcome(
            audit.Outcome(
                event=id_, request_id=id_, status=audit.Status.COMPLETED, reason="Allowed", cost=12_500
            )
        )
    book.refusal(
        audit.RefusalRecord(event=EARLY, request_id=EARLY, reason="MalformedRequest", detail="not JSON")
    )
    book.refusal(
        audit.RefusalRecord(
            event=GREETING, request_id=GREETING, reason="UpstreamNotReady", principal=WHO, server="crm/salesforce",
            method="initialize", detail="before anything was sent: UpstreamTimeout",
        )
    )  # fmt: skip
    book.close()
    return tmp_path


def explain(home: pathlib.Path, *line: str) -> testing.Result:
    return testing.CliRunner().invoke(main.cli, ["explain", *line, "-f", str(home)])


def test_a_hypothetical_call_shows_every_check_the_objects_and_the_verdict() -> None:
    ran = explain(EXAMPLES, "call", "crm/salesforce", "delete_account", "--as", "sa:sales-agents/quote-bot")
    assert ran.exit_code == 1
    lines = ran.stdout.splitlines()
    assert lines[0] == "sa:sales-agents/quote-bot (teams: sales) calls crm/salesforce delete_account"
    assert (
        "NO  Denied: rule crm/sales-access/nobody-deletes (generation 1): Accounts are deleted" in ran.stdout
    )
    assert "MCPToolPolicy crm/sales-access" in ran.stdout
    assert "Today: refused: Denied" in lines
    assert "names not checked" in ran.stderr


def test_an_allowed_call_is_exit_0() -> None:
    ran = explain(EXAMPLES, "call", "crm/salesforce", "query")
    assert ran.exit_code == 0
    assert "Today: allowed" in ran.stdout.splitlines()


def test_why_a_server_is_not_there_is_said_in_sentences() -> None:
    ran = explain(EXAMPLES, "call", "crm/salesforce", "query", "--as", "sa:hr-agents/helper")
    assert ran.exit_code == 1
    assert "Allow crm/sales-access/sales-reads (generation 1) is for other callers." in ran.stdout
    assert "(to the agent there is no such tool)" in ran.stdout


def test_a_request_is_told_as_it_was_and_checked_again(home: pathlib.Path) -> None:
    ran = explain(home, DENIED)
    assert ran.exit_code == 1
    assert ran.stdout.startswith(f"Request {DENIED} at 2025-06-15T")
    for text in (
        "then        refused: Denied",
        "rule        crm/sales-access/nobody-deletes (generation 1)",
        "detail      Ask crm-oncall.",
        'arguments   {"account_id":"001"}',
        "the same as now",
        "The same call today, with the files as they are now:",
        "Today: refused: Denied",
    ):
        assert text in ran.stdout


def test_json_holds_both_then_and_today(home: pathlib.Path) -> None:
    found = json.loads(explain(home, ALLOWED.lower(), "-o", "json").stdout)
    assert found["recorded"]["requestId"] == ALLOWED
    assert (found["recorded"]["decision"], found["recorded"]["cost"]) == ("Allowed", "0.0125")
    assert found["recorded"]["credential"] == "sales-token"
    assert found["recorded"]["would"] == ["would-deny crm/exports-trial/no-exports"]
    assert found["recorded"]["sameConfiguration"] is True
    assert found["today"]["allowed"] is True
    assert found["recorded"]["snapshot"] == found["snapshot"]


def test_an_edit_since_then_is_said_and_decided_anew(home: pathlib.Path) -> None:
    policies = home / "policies.yaml"
    policies.write_text(policies.read_text().replace('tools: ["delete_*"]', 'tools: ["destroy_*"]'))
    ran = explain(home, DENIED)
    assert ran.exit_code == 0
    assert "then        refused: Denied" in ran.stdout
    assert ", not today's, which is " in ran.stdout
    assert "Today: allowed" in ran.stdout


def test_arguments_the_journal_cut_are_not_checked_again_and_that_is_said(home: pathlib.Path) -> None:
    cut, whole = explain(home, CUT), explain(home, ALLOWED)
    assert "the journal lacks some of the arguments" in cut.stdout
    assert "the journal lacks some of the arguments" not in whole.stdout


def test_a_call_under_way_is_explained_too(home: pathlib.Path) -> None:
    ran = explain(home, OPEN)
    assert ran.exit_code == 0
    assert "then        allowed: Allowed, Open" in ran.stdout


def test_what_never_became_a_call_is_told_with_its_reason(home: pathlib.Path) -> None:
    ran = explain(home, EARLY)
    assert ran.exit_code == 1
    assert "before it named a server and what of it: MalformedRequest" in ran.stderr
    assert "not JSON" in ran.stderr


def test_what_is_about_no_tool_is_told_with_its_reason_too(home: pathlib.Path) -> None:
    ran = explain(home, GREETING)
    assert ran.exit_code == 1
    assert f"request {GREETING} is initialize, which is about no tool" in ran.stderr
    assert "UpstreamNotReady" in ran.stderr
    assert "before anything was sent: UpstreamTimeout" in ran.stderr


def test_an_unknown_request_is_exit_1_and_no_journal_exit_4(
    home: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    ran = explain(home, "01JD2M6Q6ZC4W2Q0G6X8T9R1ZZ")
    assert ran.exit_code == 1
    assert "outrider audit search" in ran.stderr
    ran = explain(EXAMPLES, DENIED, "--journal", str(tmp_path / "nowhere"))
    assert ran.exit_code == 4
    assert "no journal" in ran.stderr


@pytest.mark.parametrize(
    "line",
    [
        ("not-an-id",),
        (DENIED, "more"),
        ("call", "crm/salesforce"),
        (DENIED, "--as", "sa:a/b"),
        (DENIED, "--args", "{}"),
    ],
)
def test_what_is_neither_a_request_nor_a_call_is_exit_2_with_what_to_do(
    home: pathlib.Path, line: tuple[str, ...]
) -> None:
    ran = explain(home, *line)
    assert ran.exit_code == 2
    assert ran.stdout == ""


def test_nothing_to_explain_is_a_usage_error(home: pathlib.Path) -> None:
    assert explain(home).exit_code == 2


def test_a_recorded_read_is_explained_as_a_read_and_a_completion_by_what_it_is_about(
    home: pathlib.Path,
) -> None:
    read, completed = (f"01JD2M6Q6ZC4W2Q0G6X8T9R1A{mark}" for mark in "FG")
    call: dict[str, Any] = {
        "principal": WHO,
        "server": "crm/salesforce",
        "reason": "NotAllowed",
        "visible": False,
    }
    book = journals.opened(home / ".outrider" / "journal", journals.Clock())
    for id_, method, name in (
        (read, "resources/read", "crm://accounts/7"), (completed, "completion/complete", "summarise"),
    ):  # fmt: skip
        book.refusal(audit.RefusalRecord(event=id_, request_id=id_, tool=name, method=method, **call))
    book.close()
    ran = explain(home, read)
    assert ran.exit_code == 1
    assert "reads crm/salesforce crm://accounts/7" in ran.stdout
    assert "refused: NotAllowed (to the agent there is no such resource)" in ran.stdout
    assert "opens this resource to this caller" in ran.stdout
    ran = explain(home, completed)
    assert ran.exit_code == 1
    assert "is a completion/complete, which is decided like what it is about" in ran.stderr


def test_a_hypothetical_get_names_every_check(home: pathlib.Path) -> None:
    ran = explain(home, "get", "crm/salesforce", "summarise", "-o", "json")
    found = json.loads(ran.stdout)
    assert (found["kind"], found["prompt"], found["today"]["allowed"]) == ("Prompt", "summarise", False)
    assert [step["check"] for step in found["checks"]][:3] == ["server_known", "tool_known", "reachable"]


# Users ----------------------------------------------------------------------------------------------------------------


def test_a_hypothetical_call_may_suppose_a_user(tmp_path: pathlib.Path) -> None:
    where = persons.folder(tmp_path / "w")
    line = ("call", "crm/s", "query", "--as", persons.BOT, "--definitions", f"{where}/definitions.json")
    ran = explain(pathlib.Path(where), *line, *persons.ADA)
    assert ran.exit_code == 0, ran.output
    assert "sa:crm/bot (teams: none) for okta:ada calls crm/s query" in ran.stdout
    assert "for users in group okta:sales (matches)" in ran.stdout
    assert "assumed: a user okta:ada with these groups: okta:sales" in ran.stderr
    assert explain(pathlib.Path(where), *line).exit_code == 1
    stranger = explain(pathlib.Path(where), *line, "--user", "zz:ada")
    assert (stranger.exit_code, "UserTokenInvalid" in stranger.stderr) == (2, True)


def test_a_recorded_call_is_asked_again_with_the_user_it_was_made_for(tmp_path: pathlib.Path) -> None:
    where = pathlib.Path(persons.folder(tmp_path / "w"))
    ada = audit.Principal(
        workload="crm/bot", user="okta:ada", names=("okta:ada@x",), client="okta:c", actor="okta:a", groups=("okta:sales",),
        groups_left_out=3,
    )  # fmt: skip
    book = journals.opened(where / ".outrider" / "journal", journals.Clock())
    for id_, who in ((DENIED, ada), (EARLY, audit.Principal(workload="crm/bot"))):
        refused = audit.RefusalRecord(
            event=id_, request_id=id_, reason="Denied", principal=who, server="crm/s", tool="query"
        )
        book.refusal(refused)
    book.close()
    line = ("--definitions", str(where / "definitions.json"))
    ran = explain(where, DENIED, *line)
    assert ran.exit_code == 0, ran.output
    assert "by crm/bot for okta:ada" in ran.stdout
    assert "3 groups of the user are not in the journal" in ran.stdout
    found = json.loads(explain(where, DENIED, *line, "-o", "json").stdout)
    assert (
        found["recorded"] | {"user": "okta:ada", "client": "okta:c", "actor": "okta:a"} == found["recorded"]
    )
    assert (found["user"], found["groups"], found["today"]["allowed"]) == ("okta:ada", ["okta:sales"], True)
    nobody = json.loads(explain(where, EARLY, *line, "-o", "json").stdout)
    assert (nobody["user"], nobody["today"]["reason"]) == (None, "UserRequired")
    both = explain(where, DENIED, *line, *persons.ADA)
    assert (both.exit_code, "the journal knows who called" in both.stderr) == (2, True)
