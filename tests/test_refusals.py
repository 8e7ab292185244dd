# SPDX-License-Identifier: Apache-2.0
"""Whatever may not happen is recorded, counted and, when hidden, logged: for platform engineers, never for the agent."""

from __future__ import annotations

import asyncio
import logging
import pathlib
import tempfile
from typing import Any

import pytest
from tests import proxies
from tests.servers import mcp, stages

from outrider import audit, testing


def decided(world: proxies.World, reason: str) -> float:
    """How often a call was denied for this reason, as the metrics say."""
    samples = (each for family in world.parts.telemetry.registry.collect() for each in family.samples)
    wanted = {"decision": "deny", "reason": reason}
    return sum(
        each.value
        for each in samples
        if each.name == "outrider_policy_decisions_total" and wanted.items() <= each.labels.items()
    )


def logged(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.getMessage() == "hidden"]


def test_a_hidden_refusal_leaves_a_line_in_the_log_with_the_real_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="outrider")

    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        told = await world.call("errs")
        assert told.reason == "ToolUnknown"
        assert b"DeniedHidden" not in told.body
        (line,) = logged(caplog)
        text = str(line)
        assert "DeniedHidden" in text
        assert "errs" in text
        assert told.refusal["requestId"] in text
        assert decided(world, "DeniedHidden") == 1

    proxies.run(scenario, testing.allow(), testing.deny("errs"))


def test_a_visible_refusal_is_recorded_and_counted_and_not_logged_as_hidden(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="outrider")

    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        await world.call("errs")
        assert logged(caplog) == []
        assert decided(world, "Denied") == 1
        (record,) = world.refusals
        assert (record.reason, record.visible, record.tool) == ("Denied", True, "errs")
        assert record.rule is not None
        assert record.rule.policy == "crm/p"

    proxies.run(scenario, testing.allow(), testing.deny("errs", message="no"))


def test_names_nobody_vouched_for_are_never_labels() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        for tool in ("canary-name", "errs"):
            await world.call(tool)
        page = world.parts.telemetry.render()
        assert b"canary-name" not in page
        assert b"ToolUnknown" in page

    proxies.run(scenario, testing.allow(), testing.deny("errs"))


def test_refusals_at_the_door_are_written_ten_a_minute_and_the_rest_counted() -> None:
    async def main(folder: pathlib.Path) -> None:
        async with mcp.serving(mcp.Peer()) as peer, proxies.running(folder) as world:
            world.apply(proxies.a_view(peer))
            for _ in range(25):
                assert (await world.call("echo", authorization="Bearer wrong")).status == 401
            assert len(world.refusals) == 10
        summaries = [each for each in world.records if isinstance(each, audit.Summary)]
        assert [each.counts for each in summaries] == [{"LocalAuthRefused": 15}]

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(pathlib.Path(folder)))


def test_a_refusal_that_cannot_be_recorded_is_a_refusal_all_the_same() -> None:
    """The journal is full: the proxy says no as before, and counts that it could not write it down."""

    async def main(folder: pathlib.Path) -> None:
        async with mcp.serving(mcp.Peer()) as peer, proxies.running(folder, journal_bytes_max=1) as world:
            world.apply(proxies.a_view(peer, testing.allow(), testing.deny("errs", message="no")))
            world.current.observed(proxies.API, testing.tools("echo", "errs"))
            assert (await world.call("errs")).reason == "Denied"
            assert (await world.call("nobody")).reason == "ToolUnknown"
            assert (await world.call("echo", authorization="")).status == 401
            assert (await world.call("echo")).reason == "AuditUnavailable"
            assert peer.calls == []
            assert world.parts.journal.unavailable >= 3
            assert world.refusals == []

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(pathlib.Path(folder)))


def test_a_server_nobody_may_see_is_recorded_with_the_name_that_was_asked_for() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        assert (await world.call("query", path="/crm/nobody/mcp")).status == 404
        (record,) = world.refusals
        assert (record.reason, record.server, record.tool) == ("ServerUnknown", "crm/nobody", "query")
        assert record.arguments is None

    proxies.run(scenario)


def test_what_an_accepted_caller_sends_wrong_is_recorded_though_strangers_filled_their_measure() -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        for _ in range(30):
            told = await (
                await world.send("POST", proxies.PATH, b"{}", {"authorization": "Bearer no"})
            ).answer()
            assert told.status == 401
        head = {"content-type": "application/json"}
        told = await (await world.send("POST", proxies.PATH, b'{"a":1,"A":2}', head)).answer()
        assert told.status == 400
        (record,) = [each for each in world.refusals if each.reason == "MalformedRequest"]
        assert record.principal is not None
        assert record.principal.workload == str(testing.AGENT)
        assert record.server == proxies.PATH.removesuffix("/mcp").strip("/")
        assert "case" in record.detail
        assert len([each for each in world.refusals if each.reason == "LocalAuthRefused"]) == 10

    proxies.run(scenario)


@pytest.mark.parametrize("modern", [True, False], ids=["modern-agent", "legacy-agent"])
@pytest.mark.parametrize("method", ["server/discover", "initialize", "tools/list", "ping"])
def test_the_request_id_of_an_error_is_the_one_of_its_record(modern: bool, method: str) -> None:
    async def scenario(world: proxies.World, peer: mcp.Peer) -> None:
        held, world.current.bound = world.current.bound, None
        told = await world.ask(proxies.request(method, {}), modern=modern)
        world.current.bound = held
        (record,) = world.refusals
        assert told.refusal == {"reason": "NotReady", "requestId": record.request_id}
        assert f"Request {record.request_id}." in told.last["error"]["message"]
        assert (record.event, record.method, record.tool) == (record.request_id, method, "")

    proxies.run(scenario)


def test_a_server_that_cannot_be_met_was_sent_nothing_and_the_agent_is_told_so() -> None:
    """As for a call: nothing was asked of it for the agent, so nothing can have been done."""

    async def act(line: mcp.Line, heard: stages.Heard) -> bool:
        if heard.method not in ("server/discover", "initialize", "tools/list"):
            return False
        await line.json({"jsonrpc": "2.0", "id": heard.id, "result": "what?"})
        return True

    stage = stages.Stage("dual", tools=[stages.tool("t")], act=act)

    async def main(folder: pathlib.Path) -> None:
        async with stages.playing(stage), proxies.running(folder) as world:
            world.apply(proxies.a_view(None, endpoint={"url": stage.url}))
            listed = await world.ask(proxies.request("tools/list"))
            assert listed.reason == "UpstreamNotReady"
            assert "nothing was sent" in listed.last["error"]["message"]
            (record,) = world.refusals
            assert (record.request_id, record.reason) == (listed.refusal["requestId"], "UpstreamNotReady")
            assert "UpstreamProtocolError" in record.detail

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(pathlib.Path(folder)))
