# SPDX-License-Identifier: Apache-2.0
"""Official clients of both eras, against official servers of both eras, through both kinds of endpoint.

What comes through the proxy is compared with what the same client gets from the server itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import pytest
from tests import laptop
from tests.scenarios import agents, servers

pytestmark = pytest.mark.slow


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """A server: what the policy shows of it, calls that may be made, and one that may not."""

    server: str
    alias: str
    shown: tuple[str, ...]
    calls: tuple[tuple[str, dict[str, Any]], ...]
    refused: tuple[str, dict[str, Any]]
    hidden: str
    headers: tuple[tuple[str, str], ...] = ()


_PLAN = "SELECT Name, Amount FROM Opportunity WHERE Amount > 20000 ORDER BY Amount DESC LIMIT 3"
_CONVERT = {"source_timezone": "UTC", "time": "12:30", "target_timezone": "Asia/Tokyo"}
_SLOW = {"duration": 0.8, "steps": 4}
CASES = {
    "crm": Case(
        "crm/salesforce", "crm_salesforce", ("query", "get_account", "sync_invoices"),
        (("query", {"soql": _PLAN}), ("get_account", {"account_id": "001-003"}),
         ("sync_invoices", {"period": "2026-01"})),
        ("delete_account", {"account_id": "001-003"}), "debug_dump",
        (("Authorization", f"Bearer {servers.CRM_TOKEN}"),),
    ),
    "clock": Case(
        "tools/clock", "tools_clock", ("convert_time",), (("convert_time", _CONVERT),),
        ("convert_time", {**_CONVERT, "time": 5}), "get_current_time",
    ),
    "everything": Case(
        "tools/everything", "tools_everything", ("echo", "get-sum", "trigger-long-running-operation"),
        (("echo", {"message": "gr\u00fc\u00dfe \U0001f600"}), ("get-sum", {"a": 2, "b": 40}),
         ("trigger-long-running-operation", _SLOW)),
        ("echo", {"message": 7}), "get-env",
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class World:
    laptop: laptop.Laptop
    urls: dict[str, str]

    def through(self, client: str, endpoint: str, calls) -> dict[str, Any]:
        agent = self.laptop.agent
        url = f"http://127.0.0.1:{agent.port}{laptop.path(endpoint)}"
        return agents.visit(client, url, {"Authorization": f"Bearer {agent.token}"}, calls)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clients")
    logs = folder / "logs"
    with contextlib.ExitStack() as stack:
        urls = {
            "crm": stack.enter_context(servers.crm(logs)),
            "clock": stack.enter_context(servers.clock(logs)),
            "everything": stack.enter_context(servers.everything(logs)),
        }
        secret = folder / "crm-token"
        secret.write_text(servers.CRM_TOKEN)
        credentials = [{"name": "t", "from": [{"anyone": True}], "file": {"path": str(secret)}}]
        deny = laptop.deny("delete_*", message="Accounts are deleted by CRM operations.")
        files = [
            laptop.server("crm/salesforce", urls["crm"], credentials=credentials),
            laptop.policy(
                "outrider-system/crm", "crm/salesforce",
                laptop.allow("query", "get_*", "sync_*", "delete_*"), deny,
            ),
        ]  # fmt: skip
        for name in ("clock", "everything"):
            files.append(laptop.server(f"tools/{name}", urls[name]))
            files.append(
                laptop.policy(f"outrider-system/{name}", f"tools/{name}", laptop.allow(*CASES[name].shown))
            )
        files = {"all.yaml": laptop.documents(*files)}
        yield World(stack.enter_context(laptop.running(folder, files)), urls)


@pytest.mark.parametrize("merged", [False, True], ids=["own endpoint", "merged endpoint"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("client", agents.CLIENTS)
def test_a_client_sees_what_the_policy_allows_and_gets_what_the_server_gives(world, client, name, merged):
    case = CASES[name]
    prefix, endpoint = (f"{case.alias}__", "") if merged else ("", case.server)
    direct = agents.visit(client, world.urls[name], dict(case.headers), case.calls)
    through = world.through(
        client, endpoint, [(f"{prefix}{tool}", arguments) for tool, arguments in case.calls]
    )

    assert through["version"] == (laptop.MODERN if client == "2.x modern" else laptop.LEGACY)
    seen = {
        tool["name"].removeprefix(prefix): tool
        for tool in through["tools"]
        if tool["name"].startswith(prefix)
    }
    assert set(seen) == set(case.shown)
    if not merged:
        assert len(through["tools"]) == len(case.shown)
    offered = {tool["name"]: tool for tool in direct["tools"]}
    for tool in case.shown:
        expected = agents.plain(offered[tool]) | {"name": prefix + tool}
        assert agents.plain(seen[tool]) == expected
    for ours, theirs, (tool, _) in zip(through["calls"], direct["calls"], case.calls, strict=True):
        assert agents.plain(ours["result"]) == agents.plain(theirs["result"]), tool


@pytest.mark.parametrize("merged", [False, True], ids=["own endpoint", "merged endpoint"])
@pytest.mark.parametrize("client", agents.CLIENTS)
def test_progress_reaches_the_client_while_the_call_runs(world, client, merged):
    case = CASES["everything"]
    tool = "trigger-long-running-operation"
    name, endpoint = (f"{case.alias}__{tool}", "") if merged else (tool, case.server)
    [call] = world.through(client, endpoint, [(name, _SLOW)])["calls"]
    assert [each["done"] for each in call["progress"]][:3] == [1, 2, 3]
    assert {each["total"] for each in call["progress"]} == {4}
    assert call["ended"] - call["progress"][0]["at"] > 0.3


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("client", agents.CLIENTS)
def test_a_client_survives_refusals_and_goes_on_in_the_same_session(world, client, name):
    case = CASES[name]
    told = world.through(client, case.server, [case.refused, (case.hidden, {}), case.calls[0]])
    refused, hidden, allowed = (each["result"] for each in told["calls"])
    assert refused["isError"]
    assert laptop.reason(refused) in ("Denied", "ArgumentsInvalid")
    assert hidden["isError"]
    assert laptop.text(hidden) == f"Unknown tool: {case.hidden}"
    assert not allowed.get("isError")
