# SPDX-License-Identifier: Apache-2.0
"""Hypothetical calls: the answers are those of the decision function on what compile makes."""

from __future__ import annotations

import pathlib

import hypothesis
import pytest
from hypothesis import strategies as st

from outrider import bind, budgets, call, catalog, decide, decision, names
from outrider import compile as compiler
from outrider_cli import asking, folder

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "examples"
CRM = names.ServerId("crm", "salesforce")
SALES = ("sales-agents", "quote-bot")
TOOLS = ("query", "get_account", "create_opportunity", "delete_account", "debug_dump")
SCHEMA = b'{"type":"object","properties":{"soql":{"type":"string"}},"required":["soql"]}'
R = decision.Reason

WORLD = folder.at(str(EXAMPLES)).world()
LISTED = catalog.definitions(b'{"name":"%s","inputSchema":%s}' % (name.encode(), SCHEMA) for name in TOOLS)


def desk(*, known: bool = True) -> asking.Desk:
    return asking.Desk(WORLD, definitions={CRM: LISTED} if known else {})


def ask(tool: str, *, known: bool = True, **more: object) -> asking.Answer:
    return desk(known=known).ask(asking.Question(**{"server": CRM, "name": tool, "workload": SALES, **more}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tool", "reason"),
    [
        ("query", "Allowed"),
        ("delete_account", "Denied"),
        ("debug_dump", "DeniedHidden"),
        ("Query", "ToolUnknown"),
        ("que\u200bry", "ToolUnknown"),
    ],
)
def test_the_answer_names_the_deciding_reason(tool: str, reason: str) -> None:
    answer = ask(tool)
    assert answer.as_json()["reason"] == reason
    assert answer.allowed is (reason == "Allowed")


def test_without_arguments_the_schema_is_not_asked_and_with_them_it_is() -> None:
    assert ask("query").allowed
    assert ask("query", arguments={"soql": "SELECT"}).allowed
    refused = ask("query", arguments={"soql": 7})
    assert refused.as_json()["reason"] == "ArgumentsInvalid"
    assert refused.visible


def test_where_definitions_are_unknown_a_name_counts_as_existing_and_the_answer_says_so() -> None:
    answer = ask("anything_at_all", known=False)
    assert answer.allowed
    assert answer.as_json()["namesChecked"] is False
    assert ask("query").as_json()["namesChecked"] is True
    assert not ask("que\u200bry", known=False).allowed


def test_another_team_is_told_there_is_no_such_server() -> None:
    answer = ask("query", workload=("hr-agents", "helper"))
    assert (answer.as_json()["reason"], answer.visible) == ("ServerUnknown", False)


def test_a_disabled_server_is_named_as_such_without_definitions() -> None:
    answer = ask("anything", server=names.ServerId("crm", "reports"))
    assert (answer.as_json()["reason"], answer.visible) == ("ServerDisabled", True)


def test_what_is_listed_is_what_could_be_called() -> None:
    listed = {seen.target.name for seen in desk().listed(SALES, None)}
    assert listed == {name for name in TOOLS if ask(name).allowed}
    assert desk().unknown(SALES) == (names.ServerId("tools", "clock"),)


def test_the_epoch_and_the_bridges_of_the_proxy_give_its_own_digest() -> None:
    clock = {names.ServerId("tools", "clock"): "http://127.0.0.1:4711/mcp"}
    running = compiler.snapshot(WORLD, *SALES, epoch=99, loopback=True, bridges=clock)
    held = folder.Held("v", running)
    ours = asking.Desk(WORLD, definitions={}, held=held)
    assert ours.digest(SALES) == bind.bound(running, {}).digest
    assert desk().digest(SALES) != ours.digest(SALES)


@hypothesis.given(
    st.text(max_size=12) | st.sampled_from(TOOLS), st.sampled_from(["sales-agents", "hr-agents", "x"])
)
def test_every_answer_is_the_decision_functions(tool: str, namespace: str) -> None:
    who = (namespace, "quote-bot")
    made = compiler.snapshot(WORLD, *who, loopback=True, bridges=folder.bridges(WORLD, None))
    bound = bind.bound(made, {CRM: LISTED})
    verdict = decide.decide(bound, call.Call(CRM, tool, {"soql": "x"}), budgets.UNLIMITED, now=0.0)
    answer = ask(tool, workload=who, arguments={"soql": "x"})
    assert type(answer.verdict) is type(verdict)
    if isinstance(verdict, decision.Refusal):
        assert isinstance(answer.verdict, decision.Refusal)
        assert answer.verdict.reason is verdict.reason
