# SPDX-License-Identifier: Apache-2.0
"""An `input_required` result, put to an agent of the handshake era: as requests of its server, within the held call.

Made by an attempt that got one. All asks of a result are ruled on before the first is sent, and sent at once; when each has
its answer, `done` gets what the next round upstream carries. It ends once, whatever the agent does: refused when an answer
is an error or does not come in time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from outrider import decision
from outrider_sidecar import agents, asking, conventions, features, inputs, jsonrpc, orders, states, streams

_R = decision.Reason
PAUSE_SECONDS = 0.25
"""Before a server that asks nothing and only gave a state is asked again."""

_CANCELLED = b'{"action":"cancel"}'
"""What a person who was not reached answers to an elicitation (specification)."""

Given = dict[str, bytes]
"""The members of params that the next round carries."""


class Questions(Protocol):
    """Puts requests to agents (`questions.Questions`). `answered` hears the agent's message once, None when there is none."""

    def ask(
        self, agent: agents.Agent, request: jsonrpc.Answer, *, via: Callable[[bytes], bool],
        answered: Callable[[jsonrpc.Message | None], None], deadline: float,
    ) -> None:  # fmt: skip
        """`deadline` in loop time. `via` says False when what it leads to cannot be asked."""


class Interview:
    """One round. `number` is that of this ask within its call, from 1; `call_later` that of the loop."""

    def __init__(
        self, judge: asking.Asking, questions: Questions, order: orders.Order, *, number: int,
        done: Callable[[Given | asking.Refused], None],
    ) -> None:  # fmt: skip
        self._judge = judge
        self._questions = questions
        self._order = order
        self._number = number
        self._done = done
        self._over = False
        self._state: str | None = None
        self._open: set[str] = set()
        self._answers: dict[str, bytes] = {}

    def begin(self, payload: bytes, *, deadline: float, call_later: streams.CallLater) -> None:
        """Asks. May be done before it returns."""
        agent = self._order.subject.agent
        if agent is None:
            self._end(asking.Refused(_R.ASK_REFUSED, "the agent has no session in which it could be asked"))
            return
        if self._number > states.ROUNDS_MAX:
            self._end(asking.Refused(_R.ASK_REFUSED, f"it asks more than {states.ROUNDS_MAX} times"))
            return
        ruled = self._judge.ruled(self._order, payload)
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
            call_later(0.0 if required.asks else PAUSE_SECONDS, self._complete)
            return
        for ask in relayed:
            self._put(agent, ask, deadline)

    def abandon(self) -> None:
        """Nobody waits any more: whatever is answered now goes nowhere."""
        self._over = True

    def _put(self, agent: agents.Agent, ask: inputs.Ask, deadline: float) -> None:
        if self._over:
            return
        params = inputs.signed(ask.params, str(self._order.permit.server.id))
        if ask.method == conventions.ELICIT:
            params = inputs.of_handshake(params, f"{self._order.about.request_id}-{self._number}")
        request = jsonrpc.Answer(jsonrpc.AnswerKind.REQUEST, ask.key, params, ask.method)
        self._questions.ask(
            agent, request, via=self._say,
            answered=lambda message: self._answered(ask, message), deadline=deadline,
        )  # fmt: skip

    def _say(self, message: bytes) -> bool:
        """On the stream of the call, where the specification wants it; False when it can have none."""
        out = self._order.out
        if out.mute:
            return False
        out.notify(message)
        return True

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
            self._done(outcome)
