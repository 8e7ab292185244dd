# SPDX-License-Identifier: Apache-2.0
"""An `input_required` result, put to an agent of the handshake era: as requests of its server, within the held call.

Made by an attempt that got one. All asks of a result are ruled on before the first is sent, and sent at once; when each has
its answer, `done` gets what the next round upstream carries. It ends once, whatever the agent does: refused when an answer
is an error or does not come in time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

from outrider import call, decision, names
from outrider_sidecar import (
    agents,
    asked,
    asking,
    conventions,
    features,
    governed,
    inputs,
    inquiries,
    jsonrpc,
    orders,
    resuming,
    states,
    streams,
)

_R = decision.Reason
PAUSE_SECONDS = 0.25
"""Before a server that asks nothing and only gave a state is asked again."""

_CANCELLED = b'{"action":"cancel"}'
"""What a person who was not reached answers to an elicitation (specification)."""

Given = dict[str, bytes]
"""The members of params that the next round carries."""


def goes_on(subject: asked.Asked) -> bool:
    """Whether a request names a state: only the stateless era knows any, and for few methods."""
    given = subject.message.params.get("requestState")
    return given is not None and subject.modern and subject.message.method in governed.MEMBER


def carried(order: orders.Order) -> Given:
    """What of a request goes on with an earlier round: the agent's answers as they are, and the server's own state."""
    subject = order.subject
    responses = subject.message.slices.get("inputResponses")
    if not subject.modern or subject.message.method not in governed.MEMBER:
        return {}
    state = order.after.upstream if order.after is not None else None
    return inputs.members(None if responses is None else bytes(responses), state)


def saying(out: resuming.Out) -> Callable[[bytes], bool]:
    """The stream of a call as a way to its agent, where the specification wants what is asked in it; False when it is none."""

    def say(message: bytes) -> bool:
        if out.mute:
            return False
        out.notify(message)
        return True

    return say


class Questions(Protocol):
    """Puts requests to agents (`questions.Questions`). `answered` hears the agent's message once, None when there is none."""

    def ask(
        self, agent: agents.Agent, request: jsonrpc.Answer, *, via: Callable[[bytes], bool],
        answered: Callable[[jsonrpc.Message | None], None], deadline: float,
    ) -> Callable[[], None]:  # fmt: skip
        """`deadline` in loop time. `via` says False when what it leads to cannot be asked. What it returns takes it back."""


@dataclasses.dataclass(frozen=True, slots=True)
class Host:
    """What attempts turn to when a server asks. `again` decides a call anew, as a round of the request that is named.

    `changed` hears that a server called one of its lists outdated.
    """

    judge: asking.Asking
    questions: Questions
    inquiries: inquiries.Desk
    again: Callable[[call.Call, str], decision.Decision]
    call_later: streams.CallLater
    changed: Callable[[names.ServerId, call.Kind], None] = lambda _server, _kind: None


class Interview:
    """One round. `number` is that of this ask within its call, from 1."""

    def __init__(
        self, host: Host, order: orders.Order, *, number: int, done: Callable[[Given | asking.Refused], None]
    ) -> None:
        self._host = host
        self._order = order
        self._number = number
        self._done = done
        self._over = False
        self._state: str | None = None
        self._open: set[str] = set()
        self._answers: dict[str, bytes] = {}
        self._withdraw: list[Callable[[], None]] = []

    def begin(self, payload: bytes, *, deadline: float) -> None:
        """Asks; `deadline` in loop time. May be done before it returns."""
        agent = self._order.subject.agent
        if agent is None:
            self._end(asking.Refused(_R.ASK_REFUSED, "the agent has no session in which it could be asked"))
            return
        if self._number > states.ROUNDS_MAX:
            self._end(asking.Refused(_R.ASK_REFUSED, f"it asks more than {states.ROUNDS_MAX} times"))
            return
        ruled = self._host.judge.ruled(self._order, payload)
        if isinstance(ruled, asking.Refused):
            self._end(ruled)
            return
        required, rulings = ruled
        self._state = required.state
        relayed = []
        for ask, ruling in zip(required.asks, rulings, strict=True):
            if ruling.verdict is features.Verdict.ANSWER:
                self._answers[ask.key] = ruling.answer
            else:
                relayed.append(ask)
        self._open = {ask.key for ask in relayed}
        if not self._open:
            self._host.call_later(0.0 if required.asks else PAUSE_SECONDS, self._complete)
            return
        for ask in relayed:
            self._put(agent, ask, deadline)

    def abandon(self) -> None:
        """Nobody waits any more: whatever is answered now goes nowhere."""
        self._over = True
        self._take_back()

    def _take_back(self) -> None:
        taken, self._withdraw = self._withdraw, []
        for withdraw in taken:
            withdraw()

    def _put(self, agent: agents.Agent, ask: inputs.Ask, deadline: float) -> None:
        if self._over:
            return
        params = inputs.signed(ask.params, str(self._order.permit.server.id))
        if ask.method == conventions.ELICIT:
            params = inputs.of_handshake(params, f"{self._order.about.request_id}-{self._number}")
        request = jsonrpc.Answer(jsonrpc.AnswerKind.REQUEST, ask.key, params, ask.method)
        withdraw = self._host.questions.ask(
            agent, request, via=saying(self._order.out),
            answered=lambda message: self._answered(ask, message), deadline=deadline,
        )  # fmt: skip
        if ask.key in self._open:
            self._withdraw.append(withdraw)

    def _answered(self, ask: inputs.Ask, message: jsonrpc.Message | None) -> None:
        if self._over:
            return
        said = message.answered if message is not None else None
        if said is not None and said.kind is jsonrpc.AnswerKind.RESULT:
            self._answers[ask.key] = said.payload
        elif said is not None and ask.method == conventions.ELICIT:
            self._answers[ask.key] = _CANCELLED
        else:
            how = "with an error" if said is not None else "in time"
            told = "answered" if said is not None else "did not answer"
            self._end(asking.Refused(_R.ASK_REFUSED, f"the client {told} {ask.method} {how}"))
            return
        self._open.discard(ask.key)
        if not self._open:
            self._complete()

    def _complete(self) -> None:
        responses = jsonrpc.spliced(self._answers) if self._answers else None
        self._end(inputs.members(responses, self._state))

    def _end(self, outcome: Given | asking.Refused) -> None:
        if not self._over:
            self._over = True
            self._take_back()
            self._done(outcome)
