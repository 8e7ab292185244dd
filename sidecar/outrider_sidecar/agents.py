# SPDX-License-Identifier: Apache-2.0
"""Live sessions of handshake-era agents: what each declared, and what it wants to hear.

Called by intake for every request with a session id. An agent is found by the nonce of its sealed id, so that it outlives
our restart with what it declared; its log level and subscriptions do not. Bounded: the agent unused for longest is dropped,
which ends its streams and not its id.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from typing import Any

from outrider import names
from outrider_sidecar import sessions

AGENTS_MAX = 10_000
"""Clients that never say goodbye are the rule: TypeScript SDKs send no DELETE (measured)."""

_DECLARED: dict[str, dict[str, type]] = {
    "roots": {"listChanged": bool},
    "sampling": {"tools": dict, "context": dict},
    "elicitation": {"form": dict, "url": dict},
}
"""The client capabilities that something can be asked by; the rest, tasks among them, is not kept and not declared."""


@dataclasses.dataclass(slots=True, eq=False)
class Agent:
    """`key` names its upstream sessions; `capabilities` are the known members of what it declared at `initialize`."""

    key: str
    version: str
    endpoint: str
    capabilities: dict[str, Any]
    log_level: str | None = None
    subscriptions: set[tuple[names.ServerId, str]] = dataclasses.field(default_factory=set)

    # As `legs.Client`, for what goes to a server on its behalf outside of any request.

    @property
    def modern(self) -> bool:
        return False

    @property
    def session_key(self) -> str:
        return self.key

    @property
    def agent(self) -> Agent:
        return self


def declared(capabilities: object) -> dict[str, Any]:
    """The known members of client capabilities, each as the specification writes it."""
    found: dict[str, Any] = {}
    given = capabilities if isinstance(capabilities, dict) else {}
    for name, members in _DECLARED.items():
        if not isinstance(given.get(name), dict):
            continue
        kept = {key: given[name].get(key) for key, type_ in members.items() if type_ is bool}
        found[name] = {key: True for key, value in kept.items() if value is True} | {
            key: {}
            for key, type_ in members.items()
            if type_ is dict and isinstance(given[name].get(key), dict)
        }
    return found


class Agents:
    """`dropped` hears of agents that went, by DELETE or to make room."""

    def __init__(self, sealer: sessions.Sealer, *, dropped: Callable[[Agent], None]) -> None:
        self._sealer = sealer
        self._dropped = dropped
        self._agents: collections.OrderedDict[bytes, Agent] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._agents)

    def open(
        self, *, version: str, principal: str, endpoint: str, capabilities: dict[str, Any]
    ) -> tuple[str, Agent]:
        """A new session: its id, and the agent behind it."""
        sealed, state = self._sealer.open(
            version=version, principal=principal, endpoint=endpoint, capabilities=capabilities
        )
        return sealed, self._kept(state)

    def find(self, sealed: str, *, principal: str, endpoint: str) -> Agent | None:
        """The agent behind an id; None when it is not a live session of this principal on this endpoint."""
        state = self._sealer.read(sealed, principal=principal, endpoint=endpoint)
        if state is None:
            return None
        agent = self._agents.get(state.nonce)
        if agent is None:
            return self._kept(state)
        self._agents.move_to_end(state.nonce)
        return agent

    def end(self, agent: Agent) -> None:
        """The agent is done with its session: its id is unknown from now on."""
        nonce = bytes.fromhex(agent.key)
        self._sealer.end(nonce)
        if self._agents.pop(nonce, None) is not None:
            self._dropped(agent)

    def all(self) -> tuple[Agent, ...]:
        """Every live agent, the one unused for longest first."""
        return tuple(self._agents.values())

    def _kept(self, state: sessions.State) -> Agent:
        agent = Agent(state.nonce.hex(), state.version, state.endpoint, state.capabilities)
        self._agents[state.nonce] = agent
        while len(self._agents) > AGENTS_MAX:
            self._dropped(self._agents.popitem(last=False)[1])
        return agent
