# SPDX-License-Identifier: Apache-2.0
"""`outrider can-i` on the examples: the exit code is the answer."""

from __future__ import annotations

import json
import pathlib

import pytest
from click import testing

from outrider import catalog, names
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
    assert lines[1].split()[:4] == [
        "tools/clock",
        "tool",
        "get_current_time",
        "tools_clock__get_current_time",
    ]


def test_a_list_without_anything_to_list_from_is_exit_4() -> None:
    ran = can_i("--list", "crm/salesforce")
    assert ran.exit_code == 4
    assert "crm/salesforce" in ran.stderr
    assert "outrider dev" in ran.stderr


def test_a_workload_that_sees_nothing_is_told_so(definitions: str) -> None:
    ran = can_i("--list", "crm/salesforce", "--as", HR, "--definitions", definitions)
    assert (ran.exit_code, ran.stdout) == (0, "hr-agents/helper sees no tool, prompt or resource\n")


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


# Prompts and resources ------------------------------------------------------------------------------------------------

KINDS = """
apiVersion: outrider.dev/v1alpha1
kind: Settings
workload: {namespace: agents, serviceAccount: bot}
---
apiVersion: outrider.dev/v1alpha1
kind: MCPServer
metadata: {name: docs, namespace: agents}
spec: {description: Documents, endpoint: {url: "https://docs.example/mcp"}}
---
apiVersion: outrider.dev/v1alpha1
kind: MCPToolPolicy
metadata: {name: readers, namespace: agents}
spec:
  targetRefs: [{name: docs}]
  rules:
  - {name: words, effect: Allow, from: [{anyone: true}], prompts: ["summarise*"]}
  - {name: files, effect: Allow, from: [{anyone: true}], resources: ["file:///docs/*"]}
  - {name: secrets, effect: Deny, resources: ["*secret*"], message: Secrets stay where they are.}
"""
LISTED = {
    "agents/docs": {
        "tools": [QUERY],
        "prompts": [{"name": "summarise this"}, {"name": "other"}],
        "resources": [{"name": "a", "uri": "file:///docs/a"}, {"name": "s", "uri": "file:///docs/secret"}, {"name": "b", "uri": "x://b"}],
        "resourceTemplates": [{"name": "t", "uriTemplate": "file:///docs/{path}"}, {"name": "u", "uriTemplate": "x://{path}"}],
    }
}  # fmt: skip


@pytest.fixture
def kinds(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "all.yaml").write_text(KINDS)
    (tmp_path / "definitions.json").write_text(json.dumps(LISTED))
    return tmp_path


def of_kinds(here: pathlib.Path, *line: str) -> testing.Result:
    return testing.CliRunner().invoke(
        main.cli, ["can-i", *line, "-f", str(here), "--definitions", str(here / "definitions.json")]
    )


@pytest.mark.parametrize(
    ("line", "allowed", "says"),
    [
        (("get", "agents/docs", "summarise this"), True, "bot (no team) gets agents/docs summarise this"),
        (("get", "agents/docs", "summarise that"), False, "PromptUnknown"),
        (("get", "agents/docs", "other"), False, "to the agent there is no such prompt"),
        (("call", "agents/docs", "query"), False, "NotAllowed"),
        (("read", "agents/docs", "file:///docs/a"), True, "bot (no team) reads agents/docs file:///docs/a"),
        (("read", "agents/docs", "file:///docs/not-listed"), True, "allowed by agents/readers/files (generation 1)"),
        (("read", "agents/docs", "file:///docs/%73ecret"), False, "Secrets stay where they are."),
        (("read", "agents/docs", "file:///docs/../etc"), False, "it holds a segment of dots"),
        (("read", "agents/docs", "x://b"), False, "to the agent there is no such resource"),
    ],
)  # fmt: skip
def test_prompts_and_resources_are_asked_for_by_the_words_of_mcp(
    kinds: pathlib.Path, line: tuple[str, ...], allowed: bool, says: str
) -> None:
    ran = of_kinds(kinds, *line)
    assert ran.exit_code == (0 if allowed else 1), ran.output
    assert says in ran.stdout
    assert ran.stderr == ""


def test_the_list_is_of_every_kind(kinds: pathlib.Path) -> None:
    ran = of_kinds(kinds, "--list", "-o", "jsonl")
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [(one["kind"], one[one["kind"].lower()], one["exposed"]) for one in found] == [
        (
            "Prompt",
            "summarise this",
            catalog.exposed_name(names.ServerId("agents", "docs"), "summarise this", "agents"),
        ),
        ("Resource", "file:///docs/a", None),
        ("Template", "file:///docs/{path}", None),
    ]
    table = of_kinds(kinds, "--list").stdout.splitlines()
    assert table[0].split() == ["SERVER", "KIND", "NAME", "MERGED", "NAME", "ALLOWED", "BY"]
    assert [line.split()[1] for line in table[1:]] == ["prompt", "resource", "template"]


def test_what_servers_list_besides_tools_is_said_to_be_unknown_where_it_is(kinds: pathlib.Path) -> None:
    (kinds / "definitions.json").write_text(json.dumps({"agents/docs": [QUERY]}))
    ran = of_kinds(kinds, "--list")
    assert "which prompts these servers list is not known here: agents/docs" in ran.stderr
    assert "which resources these servers list is not known here: agents/docs" in ran.stderr
    asked = of_kinds(kinds, "get", "agents/docs", "summarise all")
    assert (asked.exit_code, "names not checked" in asked.stderr) == (0, True)
    read = of_kinds(kinds, "read", "agents/docs", "file:///docs/x")
    assert (read.exit_code, read.stderr) == (0, "")


def test_arguments_go_with_tools_alone(kinds: pathlib.Path) -> None:
    ran = of_kinds(kinds, "get", "agents/docs", "summarise this", "--args", "{}")
    assert ran.exit_code == 2
    assert "--args goes with `call`" in ran.stderr


def test_a_batch_asks_for_every_kind(kinds: pathlib.Path) -> None:
    lines = [
        {"server": "agents/docs", "as": "sa:agents/bot", "prompt": "summarise this"},
        {"server": "agents/docs", "as": "sa:agents/bot", "resource": "file:///docs/secret"},
        {"server": "agents/docs", "as": "sa:agents/bot", "tool": "query"},
    ]
    (kinds / "batch.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    ran = of_kinds(kinds, "--batch", str(kinds / "batch.jsonl"), "-o", "jsonl")
    assert [json.loads(line)["reason"] for line in ran.stdout.splitlines()] == [
        "Allowed",
        "Denied",
        "NotAllowed",
    ]
    table = of_kinds(kinds, "--batch", str(kinds / "batch.jsonl")).stdout.splitlines()
    assert [line.split()[0] for line in table] == ["ALLOWED", "yes", "no", "no"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({"server": "a/b", "as": "sa:a/b", "prompt": "x", "tool": "y"}, "tool and prompt exclude each other"),
        ({"server": "a/b", "as": "sa:a/b", "prompt": 3}, "'prompt' is missing or no string"),
        (
            {"server": "a/b", "as": "sa:a/b", "resource": "x://y", "arguments": {}},
            '"arguments" goes with "tool"',
        ),
    ],
)
def test_a_line_that_asks_for_two_things_at_once_is_refused(
    kinds: pathlib.Path, line: dict[str, object], why: str
) -> None:
    (kinds / "batch.jsonl").write_text(json.dumps(line))
    ran = of_kinds(kinds, "--batch", str(kinds / "batch.jsonl"))
    assert ran.exit_code == 2
    assert why in ran.stderr


@pytest.mark.parametrize(
    ("line", "near"),
    [
        (("get", "agents/docs", "sumarise this"), "summarise this"),
        (("call", "agents/docs", "qeury"), "query"),
        (("call", "agents/doc", "query"), "agents/docs"),
    ],
)
def test_a_name_that_is_not_known_is_told_with_what_may_have_been_meant(
    kinds: pathlib.Path, line: tuple[str, ...], near: str
) -> None:
    ran = of_kinds(kinds, *line)
    assert ran.exit_code == 1
    assert f'did you mean "{near}"?' in ran.stdout
    assert "did you mean" not in of_kinds(kinds, "call", "agents/docs", "query").stdout
