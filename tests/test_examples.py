# SPDX-License-Identifier: Apache-2.0
"""The examples: the CRM as a real server, the policy set as a table, and the demo from end to end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator

import httpx2
import pytest
from examples import agent, screen
from examples.servers import crm
from mcp.client import client as clients
from mcp.client import streamable_http
from mcp.server.mcpserver import exceptions

from outrider import compile as compiler
from outrider import names
from outrider_cli import asking, folder, loopback

ROOT = pathlib.Path(__file__).resolve().parent.parent
CRM = names.ServerId("crm", "salesforce")
CLOCK = names.ServerId("tools", "clock")
WORLD = folder.at(str(ROOT / "examples")).world()
TOOLS = (
    "query",
    "get_account",
    "create_opportunity",
    "export_all_contacts",
    "delete_account",
    "debug_dump",
    "sync_invoices",
)
SECRET = "token-of-the-test"


# The CRM --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A CRM of our own, as a process."""
    chosen = loopback.free_port()
    line = [sys.executable, "-m", "examples.servers.crm", "--port", str(chosen)]
    with subprocess.Popen(line, cwd=ROOT, env={**os.environ, "CRM_TOKEN": SECRET}) as server:
        deadline = time.monotonic() + 30
        while not loopback.listening(chosen):
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield chosen
        server.terminate()


@contextlib.asynccontextmanager
async def connected(port: int, mode: str) -> AsyncIterator[clients.Client]:
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {SECRET}"}, timeout=30) as http:
        transport = streamable_http.streamable_http_client(f"http://127.0.0.1:{port}/mcp", http_client=http)
        async with clients.Client(transport, mode=mode) as session:
            yield session


@pytest.mark.parametrize(("mode", "version"), [("auto", agent.MODERN), ("legacy", agent.LEGACY)])
def test_the_crm_speaks_both_eras_with_the_official_client(port: int, mode: str, version: str) -> None:
    async def talk() -> None:
        async with connected(port, mode) as session:
            assert session.protocol_version == version
            assert tuple(tool.name for tool in (await session.list_tools()).tools) == TOOLS
            read = await session.call_tool("query", {"soql": "SELECT Name FROM Account LIMIT 2"})
            assert read.structured_content == {
                "result": [{"Name": "Aldgate GmbH"}, {"Name": "Bergmann GmbH"}]
            }
            failed = await session.call_tool("sync_invoices", {"period": "2026-01"})
            assert failed.is_error
            assert "2026-01 is closed" in failed.content[0].text
            large = await session.call_tool("export_all_contacts", {})
            assert len(large.structured_content["result"]) == crm.CONTACTS

    asyncio.run(talk())


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": SECRET}])
def test_the_crm_refuses_whoever_was_not_lent_its_credential(port: int, headers: dict[str, str]) -> None:
    answer = httpx2.post(f"http://127.0.0.1:{port}/mcp", headers=headers, json={}, trust_env=False)
    assert answer.status_code == 401


def test_the_crm_makes_the_token_that_the_examples_lend_and_keeps_it(tmp_path: pathlib.Path) -> None:
    lent = tmp_path / ".outrider" / "secrets" / "crm-token"
    made = crm.token_of(lent)
    assert len(made) == 32
    assert stat.S_IMODE(lent.stat().st_mode) == 0o600
    assert stat.S_IMODE(lent.parent.stat().st_mode) == 0o700
    assert crm.token_of(lent) == made
    assert str(crm.LENT.relative_to(ROOT / "examples")) in (ROOT / "examples" / "servers.yaml").read_text()


def test_the_crm_does_not_start_with_an_empty_token(tmp_path: pathlib.Path) -> None:
    (tmp_path / "token").touch()
    env = {key: value for key, value in os.environ.items() if key != "CRM_TOKEN"}
    line = [sys.executable, "-m", "examples.servers.crm", "--token-file", str(tmp_path / "token")]
    ran = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=30)
    assert ran.returncode == 1
    assert "is empty" in ran.stderr


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("SELECT Id FROM Account WHERE Name = 'Corvus GmbH'", [{"Id": "001-002"}]),
        ("select id, amount from opportunity where amount > 28000 order by amount desc",
         [{"Id": "006-019", "Amount": 30000.0}, {"Id": "006-018", "Amount": 28500.0}]),
        ("SELECT Id FROM Opportunity WHERE AccountId = '001-001' AND Amount < 5000 LIMIT 5", [{"Id": "006-001"}]),
    ],
)  # fmt: skip
def test_a_query_selects_filters_orders_and_limits(text: str, rows: list[crm.Row]) -> None:
    assert crm.select(crm.seed(), text) == rows


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("DELETE FROM Account", "write: SELECT"),
        ("SELECT Id FROM Users", "there is no Users"),
        ("SELECT Salary FROM Contact", "no field Salary"),
        ("SELECT Id FROM Account WHERE Name LIKE 'A%'", "cannot read the condition"),
        ("SELECT Id FROM Account WHERE Name > 5", "cannot be compared"),
    ],
)
def test_a_query_that_cannot_run_is_a_tool_error_that_says_why(text: str, why: str) -> None:
    with pytest.raises(exceptions.ToolError, match=why):
        crm.select(crm.seed(), text)


def test_deleting_an_account_takes_its_opportunities_along() -> None:
    made = crm.Crm()
    made.delete_account("001-003")
    assert all(row["AccountId"] != "001-003" for row in made.tables["opportunity"])
    with pytest.raises(exceptions.ToolError, match="no account"):
        made.get_account("001-003")


# The policy set -------------------------------------------------------------------------------------------------------


def test_the_examples_have_no_finding_with_the_tools_their_servers_list() -> None:
    listed = {CRM: TOOLS, CLOCK: ("get_current_time", "convert_time")}
    assert compiler.check(WORLD, listed, bridges={CLOCK: "http://127.0.0.1:9/mcp"}) == ()


SALES, HR, SUPPORT = "sales-agents/quote-bot", "hr-agents/helper", "crm/ticket-bot"


@pytest.mark.parametrize(
    ("who", "server", "tool", "reason", "rule"),
    [
        (SALES, "crm/salesforce", "query", "Allowed", "crm/sales-access/sales-reads"),
        (SALES, "crm/salesforce", "create_opportunity", "Allowed", "crm/sales-access/sales-works"),
        (SALES, "crm/salesforce", "export_all_contacts", "Allowed", "crm/sales-access/sales-works"),
        (SALES, "crm/salesforce", "delete_account", "Denied", "crm/sales-access/nobody-deletes"),
        (SALES, "crm/salesforce", "debug_dump", "DeniedHidden", "outrider-system/no-debug-tools/debug"),
        (SALES, "crm/reports", "anything", "ServerDisabled", None),
        (SALES, "hr/people", "get_person", "ServerUnknown", None),
        (SALES, "tools/clock", "get_current_time", "Allowed", "outrider-system/clock-for-everyone/everyone"),
        ("sales-agents/other-bot", "crm/salesforce", "query", "NotAllowed", None),
        (HR, "crm/salesforce", "query", "ServerUnknown", None),
        (HR, "hr/people", "get_person", "Allowed", "hr/our-people/hr-reads"),
        (HR, "hr/people", "dismiss", "NotAllowed", None),
        (HR, "tools/clock", "convert_time", "Allowed", "outrider-system/clock-for-everyone/everyone"),
        (SUPPORT, "crm/salesforce", "get_account", "Allowed", "crm/sales-access/support-reads"),
        (SUPPORT, "crm/salesforce", "create_opportunity", "NotAllowed", None),
        (
            "anyone/at-all",
            "tools/clock",
            "get_current_time",
            "Allowed",
            "outrider-system/clock-for-everyone/everyone",
        ),
    ],
)
def test_who_may_call_what(who: str, server: str, tool: str, reason: str, rule: str | None) -> None:
    namespace, _, account = who.partition("/")
    asked = names.server_id(server)
    assert asked is not None
    answer = asking.Desk(WORLD, definitions={}).ask(asking.Question(asked, tool, (namespace, account)))
    assert (answer.as_json()["reason"], answer.as_json()["rule"]) == (reason, rule)


def test_the_trial_policy_is_recorded_and_never_enforced() -> None:
    question = asking.Question(CRM, "export_all_contacts", ("sales-agents", "quote-bot"))
    answer = asking.Desk(WORLD, definitions={}).ask(question)
    assert answer.allowed
    assert answer.verdict.would == ("would-deny crm/exports-trial/no-exports",)


def test_no_secret_is_among_the_examples() -> None:
    kept = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "examples"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert kept
    assert [path for path in kept if not path.endswith((".py", ".yaml", ".md"))] == []


# The scripted agent ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refusal", "text", "verdict"),
    [
        (None, "it broke", agent.TOOL_ERROR),
        ({"reason": "ToolUnknown"}, "Unknown tool: x", agent.HIDDEN),
        ({"reason": "Denied", "policy": "crm/p", "rule": "r"}, "Refused by policy", agent.REFUSED),
        ({"reason": "RateLimited"}, "later", agent.THROTTLED),
        ({"reason": "BudgetExceeded"}, "later", agent.OVER_BUDGET),
        ({"reason": "ArgumentsInvalid"}, "wrong", agent.WRONG),
        ({"reason": "UpstreamTimeout"}, "slow", agent.SERVER_FAILED),
    ],
)
def test_the_agent_tells_the_endings_of_a_call_apart(
    refusal: dict[str, str] | None, text: str, verdict: str
) -> None:
    meta = {} if refusal is None else {"_meta": {"dev.outrider/refusal": {**refusal, "requestId": "ID"}}}
    result = {"isError": True, "content": [{"type": "text", "text": text}], **meta}
    found = agent.ending(result)
    assert (found.verdict, found.text) == (verdict, text)
    assert found.request_id == ("" if refusal is None else "ID")
    assert found.rule == ("crm/p/r" if refusal and "rule" in refusal else "")


def test_a_result_without_an_error_was_allowed() -> None:
    assert agent.ending({"content": [], "isError": False}).verdict == agent.ALLOWED


def test_a_session_that_breaks_is_told_by_its_cause() -> None:
    nested = ExceptionGroup("outer", [ExceptionGroup("inner", [httpx2.ConnectError("nobody there")])])
    assert agent.cause(nested) == "ConnectError: nobody there"
    assert isinstance(nested, agent.FAILURES)


def test_an_agent_without_a_proxy_fails_with_what_the_demo_expects(tmp_path: pathlib.Path) -> None:
    server = {"url": f"http://127.0.0.1:{loopback.free_port()}/mcp", "headers": {}}
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"outrider": server}}))

    async def call() -> None:
        async with agent.Agent(config) as caller:
            await caller.call(agent.script()[0][0])

    with pytest.raises(agent.FAILURES) as failed:
        asyncio.run(call())
    assert "ConnectError" in agent.cause(failed.value) or "MCPError" in agent.cause(failed.value)


def test_the_script_has_every_ending_in_it() -> None:
    expected = {step.expected for scene in agent.script() for step in scene}
    assert expected == {
        agent.ALLOWED, agent.HIDDEN, agent.REFUSED, agent.WRONG, agent.THROTTLED, agent.OVER_BUDGET,
        agent.TOOL_ERROR, agent.SERVER_FAILED,
    }  # fmt: skip
    assert {step.era for scene in agent.script() for step in scene} == {agent.MODERN, agent.LEGACY}


def test_in_a_pipe_a_call_is_one_line_with_its_costs(capsys: pytest.CaptureFixture[str]) -> None:
    step = agent.Step("read", "query", {}, agent.ALLOWED)
    row = {
        "requestId": "ID",
        "reason": "Allowed",
        "oursMicros": 420,
        "upstreamMicros": 8_100,
        "cost": "0.0125",
    }
    with screen.Screen() as shown:
        shown.add(step, agent.Ending(agent.ALLOWED, ""), row)
    line = capsys.readouterr().out.splitlines()[1]
    assert line.split() == ["read", "query", "allowed", "allowed", "0.42", "ms", "8.1", "ms", "0.0125", "ID"]
    assert shown.request_of("query") == "ID"


@pytest.mark.slow
def test_the_demo_ends_as_scripted_and_leaves_nothing_running() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "examples.demo", "--once"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=180,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "NOT AS SCRIPTED" not in ran.stdout
    assert "$ outrider audit verify\n  ok: " in ran.stdout
    for verdict in (agent.HIDDEN, agent.REFUSED, agent.THROTTLED, agent.OVER_BUDGET):
        assert verdict in ran.stdout
    work = ran.stdout.splitlines()[0].split()[2]
    assert work.startswith("/")
    assert not pathlib.Path(work).exists()
    if sys.platform == "linux":
        assert [line for line in _command_lines() if work.encode() in line] == []


def _command_lines() -> list[bytes]:
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            found.append(path.read_bytes())
    return found
