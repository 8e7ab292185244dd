# SPDX-License-Identifier: Apache-2.0
"""What a server says during a call without being asked: its own progress, logs as far as they are wanted, and no more."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests import asking

from outrider import call, snapshot
from outrider_sidecar import agents, conventions, jsonrpc, legs, passing

LOG = "notifications/message"


def note(method: str, params: Any) -> jsonrpc.Answer:
    return jsonrpc.answer(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode())


def a_leg() -> legs.Leg:
    server = legs.Server(snapshot.Endpoint(url="http://127.0.0.1:9/mcp"))
    return legs.Leg(server, None, server.mint())


def an_agent(level: str | None) -> agents.Agent:
    return agents.Agent("k", "2025-11-25", "/mcp", {}, log_level=level)


def passed(message: jsonrpc.Answer, **how: Any) -> Any:
    raw = passing.passed(message, a_leg(), asking.subject(**how))
    return None if raw is None else json.loads(raw)


@pytest.mark.parametrize(
    ("wanted", "level", "heard"),
    [
        (None, "debug", True), ("info", "debug", False), ("info", "info", True), ("info", "emergency", True),
        ("emergency", "alert", False), ("debug", "loud", False), ("debug", 1, False), (None, "loud", True),
    ],
)  # fmt: skip
def test_a_session_hears_logs_from_its_level_on(wanted: str | None, level: Any, heard: bool) -> None:
    message = note(LOG, {"level": level, "data": {"x": [1.5]}, "logger": "l"})
    told = passed(message, modern=False, agent=an_agent(wanted))
    assert told == ({"jsonrpc": "2.0", "method": LOG, "params": {"level": level, "data": {"x": [1.5]}, "logger": "l"}} if heard else None)  # fmt: skip


@pytest.mark.parametrize(("wanted", "heard"), [(None, False), ("warning", False), ("info", True), ("nonsense", False)])  # fmt: skip
def test_a_stateless_request_hears_logs_only_if_it_asks_for_them(wanted: str | None, heard: bool) -> None:
    meta = {} if wanted is None else {conventions.META_LOG_LEVEL: wanted}
    message = note(LOG, {"level": "info", "data": "d"})
    assert (passed(message, params={"name": "t", "_meta": meta}) is not None) is heard


def test_that_an_elicitation_is_complete_is_for_agents_that_have_such_things() -> None:
    message = note("notifications/elicitation/complete", {"elicitationId": "e"})
    assert passed(message, modern=False)["params"] == {"elicitationId": "e"}
    assert passed(message) is None


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("method", ["notifications/tools/list_changed", "notifications/resources/updated", "notifications/cancelled", "x/y"])  # fmt: skip
def test_all_else_is_nobodys_on_the_stream_of_a_call(method: str, modern: bool) -> None:
    assert passed(note(method, {"uri": "a://b"}), modern=modern) is None


@pytest.mark.parametrize(("what", "kind"), [("tools", call.Kind.TOOL), ("prompts", call.Kind.PROMPT), ("resources", call.Kind.RESOURCE)])  # fmt: skip
def test_a_list_that_is_called_outdated_is_one_of_a_kind(what: str, kind: call.Kind) -> None:
    assert passing.outdated(note(f"notifications/{what}/list_changed", {})) is kind
    assert passing.outdated(note(LOG, {})) is None


def test_params_that_are_no_object_go_nowhere() -> None:
    for message in (note(LOG, [1]), note("notifications/elicitation/complete", "x")):
        assert passed(message, modern=False) is None
