# SPDX-License-Identifier: Apache-2.0
"""Requests of servers of the handshake era: ruled on, put to the agent whose session they belong to, answered.

An attempt keeps one for its call, `listeners` one for each stream outside of calls. A ping is answered here; what may not be
asked, or cannot be, is answered with an error in the agent's place, so that no server waits for ever. An agent of the stateless
era can be asked nothing in the middle of a call: that is refused in words that say so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from outrider import decision
from outrider_sidecar import (
    agents,
    asking,
    conventions,
    features,
    inputs,
    jsonrpc,
    legs,
    questions,
    records,
)

ASKS_MAX = 64
"""What one call may ask in all: every round of it is a dialog in front of somebody."""

REJECTED = -1
"""The code of the specification's own example of a client that will not (2025-11-25, sampling)."""

_TOO_MANY = f"it asks more than {ASKS_MAX} times within one call"

Tell = Callable[[decision.Permit, legs.Leg, bytes], Coroutine[Any, Any, None]]
"""Sends a response of ours in a server's session (`servers.Servers.tell`)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Desk:
    """What they are made with; the same for all of them."""

    judge: asking.Asking
    questions: questions.Questions
    tell: Tell
    spawn: Callable[[Coroutine[Any, Any, None]], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Matter:
    """What a server asks about: the request it belongs to, the session it asks in, and who could be asked. `deadline` in loop time.

    `agent` None: nobody can be asked now. `via` is the stream of the request.
    """

    about: records.About
    permit: decision.Permit
    leg: legs.Leg
    agent: agents.Agent | None
    via: Callable[[bytes], bool] | None
    deadline: float


class Inquiry:
    """All that is asked in one matter. `refusals` are the words of what was refused because nobody can be asked."""

    def __init__(self, desk: Desk, matter: Matter) -> None:
        self._desk = desk
        self._matter = matter
        self._count = 0
        self._open: dict[tuple[type, jsonrpc.Id], questions.Withdraw] = {}
        self.refusals: list[str] = []

    @property
    def waiting(self) -> bool:
        """Somebody has been asked and has not answered yet."""
        return bool(self._open)

    def heard(self, message: jsonrpc.Answer) -> None:
        """A request of the server. One whose id is no id cannot be answered, and is not."""
        id_ = message.id
        if isinstance(id_, bool) or not isinstance(id_, str | int):
            return
        if message.method == conventions.PING:
            self._answer(jsonrpc.result(id_, b"{}"))
            return
        self._count += 1
        if self._count > ASKS_MAX or (type(id_), id_) in self._open:
            self._answer(jsonrpc.error(id_, REJECTED, _TOO_MANY))
            return
        matter = self._matter
        ruled = self._desk.judge.ruling(
            matter.about, matter.permit, message.method, message.payload,
            offered=None if matter.agent is None else matter.agent.capabilities,
        )  # fmt: skip
        if ruled.verdict is features.Verdict.ANSWER:
            self._answer(jsonrpc.result(id_, ruled.answer))
        elif ruled.verdict is features.Verdict.REFUSE or matter.agent is None:
            unknown = ruled.undeclared or ruled.feature is None
            code = conventions.METHOD_NOT_FOUND if unknown else REJECTED
            self._answer(jsonrpc.error(id_, code, f"{message.method[:64]}: {ruled.why}"))
            if matter.agent is None:
                self.refusals.append(f"{message.method[:64]}: {ruled.why}")
        else:
            self._ask(matter.agent, id_, message)

    def _ask(self, agent: agents.Agent, id_: jsonrpc.Id, message: jsonrpc.Answer) -> None:
        named = inputs.signed(message.payload, str(self._matter.permit.server.id))
        key, done = (type(id_), id_), False

        def answered(response: jsonrpc.Message | None) -> None:
            nonlocal done
            done = True
            self._open.pop(key, None)
            self._answer(_response(id_, response))

        withdraw = self._desk.questions.ask(
            agent, dataclasses.replace(message, payload=named),
            via=self._matter.via, answered=answered, deadline=self._matter.deadline,
        )  # fmt: skip
        if not done:
            self._open[key] = withdraw

    def taken_back(self, message: jsonrpc.Answer) -> None:
        """`notifications/cancelled` of the server: it does not wait for an answer any more."""
        try:
            id_ = msgspec.json.decode(jsonrpc.members(message.payload).get("requestId", b"null"))
        except msgspec.DecodeError:
            return
        withdraw = self._open.get((type(id_), id_)) if isinstance(id_, str | int) else None
        if withdraw is not None:
            withdraw()

    def end(self) -> None:
        """The matter is over: whoever is still thinking may stop."""
        for withdraw in tuple(self._open.values()):
            withdraw()

    def _answer(self, body: bytes) -> None:
        matter = self._matter
        self._desk.spawn(self._desk.tell(matter.permit, matter.leg, body))


def _response(id_: jsonrpc.Id, message: jsonrpc.Message | None) -> bytes:
    """What the server hears, under its own id: the agent's result or error as it is, or that there is none."""
    said = message.answered if message is not None else None
    if said is None:
        return jsonrpc.error(id_, REJECTED, "the client did not answer")
    if said.kind is jsonrpc.AnswerKind.RESULT:
        return jsonrpc.result(id_, said.payload)
    return jsonrpc.error_raw(id_, said.payload)
