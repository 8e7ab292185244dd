# SPDX-License-Identifier: Apache-2.0
"""`outrider can-i` on the examples: the exit code is the answer."""

from __future__ import annotations

import json
import pathlib

import pytest
from click import testing

from outrider_cli import main

EXAMPLES = str(pathlib.Path(__file__).resolve().parent.parent / "examples")
SALES = "sa:sales-agents/quote-bot"
HR = "sa:hr-agents/helper"
QUERY = {"name": "query", "inputSchema": {"type": "object", "properties": {"soql": {"type": "string"}}}}


@pytest.fixture
def definitions(tmp_path: pathlib.Path) -> str:
    file = tmp_path / "definitions.json"
    tools = [
        QUERY,
        *(
            {"name": name, "inputSchema": {"type": "object"}}
            for name in ("get_account", "delete_account", "debug_dump")
        ),
    ]
    file.write_text(
        json.dumps(
            {
                "crm/salesforce": tools,
                "tools/clock": [{"name": "get_current_time", "inputSchema": {"type": "object"}}],
            }
        )
    )
    return str(file)


def can_i(*line: str, given: str | None = None) -> testing.Result:
    return testing.CliRunner().invoke(main.cli, ["can-i", *line, "-f", EXAMPLES], input=given)


def test_yes_is_exit_0_and_names_the_rules_of_both_keys(definitions: str) -> None:
    ran = can_i("call", "crm/salesforce", "query", "--as", SALES, "--definitions", definitions)
    assert ran.exit_code == 0
    assert ran.stdout.startswith("yes: sales-agents/quote-bot (teams: sales) calls crm/salesforce query\n")
    assert "allowed by crm/sales-access/sales-reads (generation 1)" in ran.stdout
    assert "allowed by sales-agents/our-tools/crm (generation 1)" in ran.stdout


def test_no_is_exit_1_and_names_the_deny_and_its_message(definitions: str) -> None:
    ran = can_i("call", "crm/salesforce", "delete_account", "--definitions", definitions)
    assert ran.exit_code == 1
    assert "rule crm/sales-access/nobody-deletes" in ran.stdout
    assert "Accounts are deleted by CRM operations only" in ran.stdout


def test_a_hidden_refusal_says_that_the_agent_sees_nothing(definitions: str) -> None:
    ran = can_i("call", "crm/salesforce", "query", "--as", HR, "--definitions", definitions)
    assert ran.exit_code == 1
    assert "to the agent there is no such tool" in ran.stdout


def test_json_has_the_whole_answer(definitions: str) -> None:
    ran = can_i("call", "crm/salesforce", "debug_dump", "--definitions", definitions, "-o", "json")
    found = json.loads(ran.stdout)
    assert ran.exit_code == 1
    assert (found["allowed"], found["visible"], found["reason"]) == (False, False, "DeniedHidden")
    assert found["rule"] == "outrider-system/no-debug-tools/debug"
    assert found["as"] == SALES


def test_without_definitions_the_answer_says_that_names_are_not_checked() -> None:
    ran = can_i("call", "crm/salesforce", "no_such_tool")
    assert ran.exit_code == 0
    assert "definitions unknown: names not checked" in ran.stderr


def test_arguments_are_checked_when_given_inline_or_from_a_file(
    definitions: str, tmp_path: pathlib.Path
) -> None:
    wrong = can_i("call", "crm/salesforce", "query", "--definitions", definitions, "--args", '{"soql": 1}')
    assert (wrong.exit_code, "ArgumentsInvalid" in wrong.stdout) == (1, True)
    file = tmp_path / "args.json"
    file.write_text('{"soql": "SELECT"}')
    right = can_i("call", "crm/salesforce", "query", "--definitions", definitions, "--args", f"@{file}")
    assert right.exit_code == 0


@pytest.mark.parametrize(
    "line",
    [
        (),
        ("call",),
        ("call", "crm/salesforce"),
        ("call", "salesforce", "query"),
        ("invoke", "crm/salesforce", "query"),
        ("call", "crm/salesforce", "query", "--as", "bot"),
        ("call", "crm/salesforce", "query", "--args", "{"),
        ("call", "crm/salesforce", "query", "--args", "[]"),
        ("--list", "call", "crm/salesforce"),
        ("--batch", "x.jsonl", "--list"),
        ("--batch", "x.jsonl", "--as", SALES),
    ],
)
def test_a_question_that_cannot_be_read_is_exit_2_with_what_to_do(line: tuple[str, ...]) -> None:
    ran = can_i(*line)
    assert ran.exit_code == 2
    assert "Next: " in ran.stderr
    assert ran.stdout == ""


def test_the_list_is_what_the_workload_sees(definitions: str) -> None:
    ran = can_i("--list", "--as", SALES, "--definitions", definitions, "-o", "jsonl")
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    assert ran.exit_code == 0
    assert [(one["server"], one["tool"]) for one in found] == [
        ("crm/salesforce", "query"),
        ("crm/salesforce", "get_account"),
        ("tools/clock", "get_current_time"),
    ]
    assert found[0]["exposed"] == "crm_salesforce__query"
    assert found[0]["rules"] == ["crm/sales-access/sales-reads", "sales-agents/our-tools/crm"]


def test_the_list_can_be_of_one_server_and_a_table(definitions: str) -> None:
    ran = can_i("--list", "tools/clock", "--definitions", definitions)
    lines = ran.stdout.splitlines()
    assert len(lines) == 2
    assert lines[1].split()[:3] == ["tools/clock", "get_current_time", "tools_clock__get_current_time"]


def test_a_list_without_anything_to_list_from_is_exit_4() -> None:
    ran = can_i("--list", "crm/salesforce")
    assert ran.exit_code == 4
    assert "crm/salesforce" in ran.stderr
    assert "outrider dev" in ran.stderr


def test_a_workload_that_sees_nothing_is_told_so(definitions: str) -> None:
    ran = can_i("--list", "crm/salesforce", "--as", HR, "--definitions", definitions)
    assert (ran.exit_code, ran.stdout) == (0, "hr-agents/helper sees no tool\n")


LINES = [
    {"server": "crm/salesforce", "tool": "query", "as": SALES},
    {"server": "crm/salesforce", "tool": "query", "as": SALES, "arguments": {"soql": 3}},
    {"server": "crm/salesforce", "tool": "delete_account", "as": SALES},
    {"server": "crm/salesforce", "tool": "query", "as": HR},
]


def test_a_batch_answers_every_line_in_order_with_what_was_asked(
    definitions: str, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "calls.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in LINES) + "\n\n")
    ran = can_i("--batch", str(file), "--definitions", definitions, "-o", "jsonl")
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    assert ran.exit_code == 0
    assert [{key: one[key] for key in line} for one, line in zip(found, LINES, strict=True)] == LINES
    assert [(one["allowed"], one["reason"], one["visible"]) for one in found] == [
        (True, "Allowed", True),
        (False, "ArgumentsInvalid", True),
        (False, "Denied", True),
        (False, "ServerUnknown", False),
    ]
    assert found[2]["rule"] == "crm/sales-access/nobody-deletes"
    assert found[3]["rule"] is None


def test_a_batch_can_come_from_a_pipe_and_be_a_table(definitions: str) -> None:
    ran = can_i("--batch", "-", "--definitions", definitions, given=json.dumps(LINES[2]))
    assert ran.exit_code == 0
    assert ran.stdout.splitlines()[1].split()[:3] == ["no", "crm/salesforce", "delete_account"]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("{", "not JSON"),
        ("[]", "not an object"),
        ('{"server": "crm/salesforce", "tool": "query"}', "'as' is missing"),
        ('{"server": "crm", "tool": "query", "as": "sa:a/b"}', "not namespace/name"),
        ('{"server": "crm/salesforce", "tool": "query", "as": "user:b"}', "not sa:namespace/name"),
        ('{"server": "crm/salesforce", "tool": "query", "as": "sa:a/b", "arguments": []}', "not an object"),
        ('{"server": "crm/salesforce", "tool": "query", "as": "sa:a/b", "args": {}}', "unknown field 'args'"),
        ("[" * 50_000, "calls.jsonl:2"),
    ],
)
def test_a_bad_line_is_exit_2_names_its_place_and_leaves_no_half_answer(
    tmp_path: pathlib.Path, bad: str, why: str
) -> None:
    file = tmp_path / "calls.jsonl"
    file.write_text(f"{json.dumps(LINES[0])}\n{bad}\n")
    ran = can_i("--batch", str(file), "-o", "jsonl")
    assert ran.exit_code == 2
    assert f"{file}:2" in ran.stderr
    assert why in ran.stderr
    assert ran.stdout == ""


@pytest.mark.parametrize(
    "line",
    [
        ("--batch", "/nowhere/calls.jsonl"),
        ("call", "crm/salesforce", "query", "--args", "@/nowhere/args.json"),
        ("call", "crm/salesforce", "query", "--definitions", "/nowhere/definitions.json"),
    ],
)
def test_a_named_file_that_is_not_there_is_exit_2_with_what_to_do(line: tuple[str, ...]) -> None:
    ran = can_i(*line)
    assert ran.exit_code == 2
    assert "cannot be read: No such file or directory" in ran.stderr
    assert "Next: " in ran.stderr


def test_a_yes_without_arguments_says_that_they_were_taken_for_valid(definitions: str) -> None:
    line = ("call", "crm/salesforce", "query", "--definitions", definitions)
    assumed, given = can_i(*line), can_i(*line, "--args", '{"soql": "SELECT"}')
    assert "no arguments were given: assumed to be ones the tool accepts" in assumed.stderr
    assert "--args" in assumed.stderr
    assert given.stderr == ""
    checks = [
        json.loads(can_i(*line, *more, "-o", "json").stdout)["argumentsChecked"]
        for more in ((), ("--args", "{}"))
    ]
    assert checks == [False, True]
    unknown = can_i("call", "crm/salesforce", "query", "--args", "{}")
    assert "arguments not checked: the tool's inputSchema is not known here" in unknown.stderr


def test_a_batch_says_on_how_many_lines_arguments_were_assumed(definitions: str) -> None:
    given = "\n".join(json.dumps(line) for line in LINES)
    ran = can_i("--batch", "-", "--definitions", definitions, given=given)
    assert "assumed to be ones the tool accepts, on 1 of 4 lines" in ran.stderr
