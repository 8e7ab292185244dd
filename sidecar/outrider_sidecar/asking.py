# SPDX-License-Identifier: Apache-2.0
"""What servers ask of clients: each ask ruled on, written down and counted before it goes anywhere (R22).

Called by whoever holds one: `questions` and `following` for the requests of servers of the handshake era, an attempt for the
`input_required` results of the stateless one. It decides by `features`, carries nothing and waits for nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from outrider import audit, decision
from outrider_sidecar import conventions, features, ids, inputs, journal, orders, records, states, telemetry

_R = decision.Reason
_PER_MINUTE = 600
"""Asks of one server that are passed on in a minute: what it makes people, models and the journal do is bounded."""

_TOO_OFTEN = f"it asks more than {_PER_MINUTE} times a minute"
_NOT_NOW = "its client cannot be asked in the middle of a call"
_COUNTED = frozenset({conventions.ELICIT, conventions.SAMPLE, conventions.LIST_ROOTS})


@dataclasses.dataclass(frozen=True, slots=True)
class Refused:
    """The server's asking ends the call: `reason` and `why` are what its agent and the journal hear."""

    reason: decision.Reason
    why: str


class _Measure:
    """Counts asks per server, a minute at a time."""

    def __init__(self) -> None:
        self._minute = 0
        self._counts: dict[str, int] = {}

    def admits(self, server: str, now: float) -> bool:
        minute = int(now // 60)
        if minute != self._minute:
            self._minute, self._counts = minute, {}
        self._counts[server] = count = self._counts.get(server, 0) + 1
        return count <= _PER_MINUTE


class Asking:
    """`seals` makes the states that agents come back with; `identifiers` names the records; `wall` is epoch seconds."""

    def __init__(  # noqa: PLR0913 -- wired in one place
        self, *, journal: journal.Journal, writer: records.Writer, telemetry: telemetry.Telemetry,
        identifiers: ids.Ids, seals: states.States, wall: Callable[[], float],
    ) -> None:  # fmt: skip
        self._wall = wall
        self._measure = _Measure()
        self._journal = journal
        self._writer = writer
        self._telemetry = telemetry
        self._ids = identifiers
        self.states = seals

    def ruling(
        self, about: records.About, permit: decision.Permit, method: str, params: bytes, *,
        offered: features.Capabilities | None,
    ) -> features.Ruling:  # fmt: skip
        """May this go to the client? Recorded and counted already; what cannot be recorded may not.

        `about` and `permit` are those of the request the server asks in; `offered` is what its client declared, None when it
        cannot be asked now, whatever it declared.
        """
        ruled = features.ruling(method, params, offered=offered or {}, allowed=permit.server.features)
        if offered is None and ruled.undeclared:
            ruled = dataclasses.replace(ruled, why=_NOT_NOW)
        if not self._measure.admits(str(permit.server.id), self._wall()):
            ruled = features.Ruling(features.Verdict.REFUSE, ruled.feature, _TOO_OFTEN)
        try:
            self._record(about, permit, method, params, ruled)
        except journal.JournalUnavailable:
            if permit.server.audit.on_unavailable_deny and ruled.verdict is features.Verdict.RELAY:
                ruled = features.Ruling(features.Verdict.REFUSE, ruled.feature, "it cannot be recorded")
        self._telemetry.asked(
            str(permit.server.id), method if method in _COUNTED else "other", ruled.verdict.value
        )
        return ruled

    def ruled(
        self, order: orders.Order, payload: bytes
    ) -> tuple[inputs.Required, tuple[features.Ruling, ...]] | Refused:
        """The asks of an `input_required` result, each with its ruling. One that is refused refuses them all:

        they are answered together or not at all.
        """
        try:
            required = inputs.required(payload)
        except inputs.Broken as broken:
            return Refused(_R.UPSTREAM_PROTOCOL_ERROR, str(broken))
        rulings = self._rulings(order, required)
        return rulings if isinstance(rulings, Refused) else (required, rulings)

    def sent_away(
        self, order: orders.Order, error: bytes, *, after: states.State | None
    ) -> bytes | Refused | None:
        """An error by which people are sent to addresses first: None for any other, Refused when they may not be sent there.

        What an agent of the stateless era gets, which knows no such error, is a question; for others nothing need be changed.
        """
        try:
            required = inputs.addresses(error)
        except inputs.Broken as broken:
            return Refused(_R.UPSTREAM_PROTOCOL_ERROR, str(broken))
        if required is None:
            return None
        rulings = self._rulings(order, required)
        if isinstance(rulings, Refused):
            return rulings
        return self._sealed(order, required, after) if order.subject.modern else error

    def _rulings(
        self, order: orders.Order, required: inputs.Required
    ) -> tuple[features.Ruling, ...] | Refused:
        rulings = []
        for ask in required.asks:
            rulings.append(
                self.ruling(order.about, order.permit, ask.method, ask.params, offered=order.subject.declared)
            )
            if rulings[-1].verdict is features.Verdict.REFUSE:
                return Refused(_R.ASK_REFUSED, f"{ask.method[:64]}: {rulings[-1].why}")
        return tuple(rulings)

    def relayed(self, order: orders.Order, payload: bytes, *, after: states.State | None) -> bytes | Refused:
        """An `input_required` result as an agent of the stateless era gets it; `after` is the state it came with."""
        ruled = self.ruled(order, payload)
        if isinstance(ruled, Refused):
            return ruled
        required, rulings = ruled
        for each in rulings:
            if (
                each.verdict is features.Verdict.ANSWER
            ):  # it was not told that it may ask, so it need not be answered
                return Refused(_R.ASK_REFUSED, each.why)
        return self._sealed(order, required, after)

    def _sealed(
        self, order: orders.Order, required: inputs.Required, after: states.State | None
    ) -> bytes | Refused:
        """The question with a state of ours, while there may be another round."""
        state = self.states.seal(
            order.permit.call,
            principal=states.principal(order.about.workload, order.about.user),
            upstream=required.state,
            after=after,
            request=order.about.request_id,
        )
        if state is None:
            why = f"it asks more than {states.ROUNDS_MAX} times, or keeps too much in its requestState"
            return Refused(_R.ASK_REFUSED, why)
        return inputs.result(required, state=state, server=str(order.permit.server.id))

    def _record(
        self, about: records.About, permit: decision.Permit, method: str, params: bytes, ruled: features.Ruling
    ) -> None:  # fmt: skip
        """A refused ask is one record; any other is an intent and its outcome, as it waits for nothing of ours."""
        event = self._ids.next()
        if ruled.verdict is features.Verdict.REFUSE:
            self._journal.refusal_of_caller(
                self._writer.refused_ask(
                    about, permit, event=event, method=method, params=params, why=ruled.why
                ),
                self._wall(),
            )
            return
        self._journal.intent(self._writer.ask(about, permit, event=event, method=method, params=params))
        answered = ruled.verdict is features.Verdict.ANSWER
        self._journal.outcome(
            audit.Outcome(
                event=event,
                request_id=about.request_id,
                status=audit.Status.NOT_SENT if answered else audit.Status.COMPLETED,
                reason=(_R.ASK_REFUSED if answered else _R.ALLOWED).value,
                detail=f"answered here: {ruled.why}" if answered else "passed on to the client",
            )
        )
