# SPDX-License-Identifier: Apache-2.0
"""Live sessions: found by their id, after a restart too, with what the client declared; and no more than there is room for."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from outrider_sidecar import agents, sessions

KEY = bytes(range(32))
LEGACY = "2025-11-25"


def live(dropped: list[agents.Agent] | None = None) -> agents.Agents:
    count = itertools.count(1)
    sealer = sessions.Sealer(KEY, entropy=lambda size: next(count).to_bytes(size, "big"), wall=lambda: 1.8e9)
    return agents.Agents(sealer, dropped=([] if dropped is None else dropped).append)


def opened(made: agents.Agents, **capabilities: Any) -> tuple[str, agents.Agent]:
    return made.open(version=LEGACY, principal="crm/bot", endpoint="/mcp", capabilities=capabilities)


def find(made: agents.Agents, sealed: str, **where: str) -> agents.Agent | None:
    return made.find(sealed, **{"principal": "crm/bot", "endpoint": "/mcp", **where})


def test_a_session_is_the_same_agent_at_every_request() -> None:
    made = live()
    sealed, agent = opened(made)
    agent.log_level = "debug"
    assert find(made, sealed) is agent
    assert made.all() == (agent,)


def test_what_was_declared_outlives_a_restart() -> None:
    sealed, agent = opened(live(), sampling={"tools": {}}, elicitation={})
    again = find(live(), sealed)
    assert again is not None
    assert (again.key, again.version) == (agent.key, LEGACY)
    assert again.capabilities == {"sampling": {"tools": {}}, "elicitation": {}}


@pytest.mark.parametrize("where", [{"principal": "crm/other"}, {"endpoint": "/crm/api/mcp"}])
def test_nobody_elses_session_is_found(where: dict[str, str]) -> None:
    made = live()
    sealed, _ = opened(made)
    assert find(made, sealed, **where) is None
    assert find(made, sealed + "A") is None


def test_an_ended_session_is_dropped_once_and_unknown_for_good() -> None:
    gone: list[agents.Agent] = []
    made = live(gone)
    sealed, agent = opened(made)
    made.end(agent)
    made.end(agent)
    assert gone == [agent]
    assert find(made, sealed) is None


def test_the_agent_unused_for_longest_makes_room_and_can_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "AGENTS_MAX", 2)
    gone: list[agents.Agent] = []
    made = live(gone)
    (first, one), (second, two) = opened(made, roots={}), opened(made)
    assert find(made, first) is one
    opened(made)
    assert gone == [two]
    assert len(made) == 2
    back = find(made, second)
    assert back is not None
    assert back is not two
    assert gone == [two, one]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, {}), ([], {}), ({"sampling": True}, {}), ({"sampling": {}}, {"sampling": {}}),
        ({"sampling": {"tools": {"x": 1}, "context": 1, "y": {}}}, {"sampling": {"tools": {}}}),
        ({"elicitation": {"form": {}, "url": {}}}, {"elicitation": {"form": {}, "url": {}}}),
        ({"roots": {"listChanged": True}}, {"roots": {"listChanged": True}}), ({"roots": {"listChanged": 1}}, {"roots": {}}),
        ({"tasks": {}, "experimental": {"a": {}}, "extensions": {"a/b": {}}}, {}),
    ],
)  # fmt: skip
def test_of_what_is_declared_only_what_something_can_be_asked_by_is_kept(
    given: Any, kept: dict[str, Any]
) -> None:
    assert agents.declared(given) == kept


def test_an_id_stays_short_whatever_a_client_declares() -> None:
    everything = {
        "sampling": {"tools": {}, "context": {}},
        "elicitation": {"form": {}, "url": {}},
        "roots": {"listChanged": True},
    }
    sealed, _ = live().open(
        version=LEGACY, principal="n" * 63 + "/" + "s" * 63, endpoint=f"/{'n' * 63}/{'m' * 63}/mcp", capabilities=everything
    )  # fmt: skip
    assert len(sealed) < sessions.ID_CHARACTERS_MAX
