# SPDX-License-Identifier: Apache-2.0
"""Requests of servers on their way to agents of the handshake era, under ids of ours, and the answers that come back.

`interviews` and the attempts of calls ask; the pipeline hands in what agents POST as responses. An answer counts once, from the
session that was asked, in time; any other means nothing. Whether something may be asked is decided before (`asking`).
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable

import msgspec

from outrider_sidecar import agents, conventions, jsonrpc, streams

OPEN_MAX = 64
"""Questions before one agent at a time: each may be a dialog in front of somebody."""

Answered = Callable[[jsonrpc.Message | None], None]
"""Hears the agent's response once; None when there is none: nobody to ask, too many questions, too late, or the session is over."""

Withdraw = Callable[[], None]
"""Takes a question back: the agent is told, `answered` hears None. Nothing when it is closed already."""


@dataclasses.dataclass(slots=True)
class _Open:
    """One question before an agent."""

    say: Callable[[bytes], bool]
    answered: Answered
    timer: streams.Timer


class Questions:
    """`otherwise` says something to an agent outside of any call, False when it cannot; `clock` is loop time.

    `first` is the first id: another in each life of the process, or an answer to a question of the last one would fit.
    """

    def __init__(
        self,
        *,
        call_later: streams.CallLater,
        clock: Callable[[], float],
        otherwise: Callable[[agents.Agent, bytes], bool],
        first: int = 1,
    ) -> None:
        self._call_later = call_later
        self._clock = clock
        self._otherwise = otherwise
        self._open: dict[str, dict[int, _Open]] = collections.defaultdict(dict)
        self._last = first - 1

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    def ask(
        self, agent: agents.Agent, request: jsonrpc.Answer, *, via: Callable[[bytes], bool] | None = None,
        answered: Answered, deadline: float,
    ) -> Withdraw:  # fmt: skip
        """Puts a server's request to an agent: by `via`, and by the agent's own stream when that leads nowhere.

        `deadline` in loop time. May call `answered` before it returns. What it returns takes the question back.
        """
        mine = self._open[agent.key]
        left = deadline - self._clock()
        if len(mine) >= OPEN_MAX or left <= 0:
            self._drop_empty(agent.key)
            answered(None)
            return _nothing
        self._last += 1
        number = self._last
        body = jsonrpc.request(number, request.method, _params(request.payload))
        timer = self._call_later(left, lambda: self._late(agent, number))
        mine[number] = _Open(via or (lambda _: False), answered, timer)
        if not self._say(agent, mine[number], body):
            self._close(agent.key, number, None)
        return lambda: self._late(agent, number)

    def heard(self, agent: agents.Agent, message: jsonrpc.Message) -> bool:
        """A response that an agent POSTed. False when it answers nothing that this agent was asked."""
        if not isinstance(message.id, int) or message.id not in self._open.get(agent.key, {}):
            return False
        self._close(agent.key, message.id, message)
        return True

    def end(self, agent: agents.Agent) -> None:
        """The agent's session is over."""
        for number in tuple(self._open.get(agent.key, ())):
            self._close(agent.key, number, None)

    def _late(self, agent: agents.Agent, number: int) -> None:
        """Whoever is still thinking about it may stop. Means nothing once it is closed."""
        open_ = self._open.get(agent.key, {}).get(number)
        if open_ is None:
            return
        notice = jsonrpc.request(None, conventions.CANCELLED, {"requestId": b"%d" % number})
        self._say(agent, open_, notice)
        self._close(agent.key, number, None)

    def _say(self, agent: agents.Agent, open_: _Open, body: bytes) -> bool:
        return open_.say(body) or self._otherwise(agent, body)

    def _close(self, key: str, number: int, message: jsonrpc.Message | None) -> None:
        open_ = self._open[key].pop(number)
        self._drop_empty(key)
        open_.timer.cancel()
        open_.answered(message)

    def _drop_empty(self, key: str) -> None:
        if not self._open[key]:
            del self._open[key]


def _nothing() -> None:
    """There is nothing to take back."""


def _params(payload: bytes) -> dict[str, bytes]:
    """The members of a request's params, each as it was; what has none that can be read has none."""
    try:
        return jsonrpc.members(payload)
    except msgspec.DecodeError:
        return {}
