# SPDX-License-Identifier: Apache-2.0
"""The life of one permitted request (a call, a prompt, a read, a completion): reserve, intent, credential, send, relay, settle, outcome.

Made by calls with a Permit in hand. Whatever happens, it ends exactly once: `_conclude` closes the books and then gives
the agent its answer, so that no answer is out whose outcome is not written.
It takes server, name and arguments from the Permit and decides nothing.
"""

from __future__ import annotations

import dataclasses
import enum
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from outrider import audit, decision, snapshot
from outrider_sidecar import (
    asking,
    closing,
    conventions,
    endings,
    exchange,
    governed,
    inquiries,
    interviews,
    journal,
    jsonrpc,
    legs,
    loans,
    modern,
    orders,
    passing,
    patience,
    polling,
    reading,
    resuming,
    retries,
    telemetry,
)

log = logging.getLogger("outrider")

_R = decision.Reason


class Stage(enum.Enum):
    """How far an attempt has come. What is undone when it ends follows from it."""

    NEW = "New"
    RESERVED = "Reserved"
    SENT = "Sent"
    ENDED = "Ended"


class Attempt:
    """One call. `start` returns None when it goes on by callbacks, or a coroutine when something must be waited for."""

    def __init__(
        self, parts: orders.Parts, order: orders.Order, host: interviews.Host, *, ended: Callable[[Attempt], None]
    ) -> None:  # fmt: skip
        self._parts = parts
        self._order = order
        self._permit = order.permit
        self._out = order.out
        self.about = order.about
        self.subject = order.subject
        self._on_ended = ended
        self._host = host
        self._given = interviews.carried(order)
        self._talk: interviews.Interview | None = None
        self._inquiry: inquiries.Inquiry | None = None
        self._rounds, self._waiting_since = 0, 0.0
        self._stage = Stage.NEW
        self._effort = closing.Effort()
        self._flight: exchange.Flight | None = None
        self._reading: reading.Reading | None = None
        self._leg: legs.Leg | None = None
        self._response: jsonrpc.Answer | None = None
        self._cancelled = False
        self._renewed = self._refused = self._newer = False
        self._lent = exchange.Lent()
        self._patience: patience.Patience | None = None
        endpoint = order.permit.server.endpoint
        self._deadline = order.received + endpoint.call_seconds
        self._until = order.received + max(endpoint.call_seconds, endpoint.stream_seconds)

    # The way there ------------------------------------------------------------------------------------------------

    def start(self) -> Coroutine[Any, Any, None] | None:
        """Goes as far as it can in this very turn of the loop. Never raises: a bug ends the attempt like an outage."""
        try:
            waiting = self._start()
        except Exception as bug:  # noqa: BLE001 -- units and intent must not be left open
            self._broke(bug)
            return None
        return None if waiting is None else self._watched(waiting)

    async def _watched(self, waiting: Coroutine[Any, Any, None]) -> None:
        try:
            await waiting
        except Exception as bug:  # noqa: BLE001 -- as in start
            self._broke(bug)

    def _broke(self, bug: Exception) -> None:
        log.error("an attempt broke off", exc_info=bug, extra=telemetry.fields(request=self.about.request_id))
        if self._stage is not Stage.ENDED:
            sent = audit.Status.FAILED if self._stage is Stage.SENT else audit.Status.NOT_SENT
            self._conclude(endings.End(_R.INTERNAL, sent, failed=True))
        else:
            self._on_ended(self)
            self._answer_agent(endings.End(_R.INTERNAL, audit.Status.FAILED, failed=True))

    def _start(self) -> Coroutine[Any, Any, None] | None:
        """Reserves and records, then sends as soon as it may."""
        parts, permit = self._parts, self._permit
        self._effort.hold = hold = parts.ledger.reserve(permit.reservations, parts.wall())
        self._stage = Stage.RESERVED
        try:
            parts.journal.intent(parts.writer.intent(self.about, permit, hold))
            self._effort.recorded = True
        except journal.JournalUnavailable as failure:
            if self._unrecorded("the journal cannot be written", failure):
                return None
        if self._effort.recorded and permit.server.audit.durability is snapshot.Durability.SYNCED:
            return self._after_sync()
        return self._lend()

    async def _after_sync(self) -> None:
        try:
            await self._parts.journal.synced()
        except journal.JournalUnavailable as failure:
            if self._unrecorded("the journal cannot be made durable", failure):
                return
        await self._again()

    def _unrecorded(self, text: str, failure: journal.JournalUnavailable) -> bool:
        """Whether that ends the call."""
        self._complain(text, failure)
        if self._permit.server.audit.on_unavailable_deny:
            self._conclude(endings.End(_R.AUDIT_UNAVAILABLE, audit.Status.NOT_SENT, detail=str(failure)))
        return self._stage is Stage.ENDED

    def _lend(self) -> Coroutine[Any, Any, None] | None:
        if self._cancelled:
            self._conclude(endings.End(_R.CANCELLED, audit.Status.NOT_SENT))
            return None
        try:
            lent = self._parts.credentials.at_hand(self._permit)
        except loans.Unavailable as failure:
            self._uncredentialed(failure)
            return None
        if lent is None or (leg := self._parts.servers.leg_at_hand(self._permit, self.subject)) is None:
            return self._meet(lent)
        self._send(leg, lent)
        return None

    async def _meet(self, lent: exchange.Lent | None) -> None:
        """Waits for the credential, learns which era the server speaks, opens a session if that takes one; all is kept for later."""
        meet = self._parts.servers.met
        try:
            leg, lent = await meet(self._permit, self.subject, lent=lent, deadline=self._deadline)
        except loans.Unavailable as failure:
            self._uncredentialed(failure)
        except legs.NoLeg as failure:
            self._conclude(endings.unmet(failure))
        else:
            self._send(leg, lent)

    def _uncredentialed(self, failure: loans.Unavailable) -> None:
        self._parts.credentials.lacking(self._permit, failure, request=self.about.request_id)
        self._conclude(endings.unlent(failure))

    def _complain(self, text: str, failure: Exception) -> None:
        log.error(text, extra=telemetry.fields(why=str(failure), request=self.about.request_id))

    def _send(self, leg: legs.Leg, lent: exchange.Lent) -> None:
        if self._cancelled:
            self._conclude(endings.End(_R.CANCELLED, audit.Status.NOT_SENT))
            return
        if leg.session is not None and "requestState" in self._given:
            detail = "the server does not speak the era any more in which it asked"
            self._conclude(endings.End(_R.UPSTREAM_NOT_READY, audit.Status.NOT_SENT, detail=detail))
            return
        head, body = leg.request(self._permit, self.subject, self._given)
        now = self._parts.clock()
        if not leg.breaker.allow(now):
            self._conclude(endings.paused(leg.breaker.retry_after(now)))
            return
        self._leg, self._lent = leg, lent
        self._reading = reading.Reading(
            result_bytes_max=closing.bytes_max(self._permit),
            on_message=self._heard, on_end=self._landed, secrets=lent.secrets,
        )  # fmt: skip
        self._stage = Stage.SENT
        self._effort.sent_at = now
        instalments = self._out if isinstance(self._out, resuming.Resumable) else None
        parts = self._parts
        way = polling.Way(parts.upstream, self._permit, lent, leg.session, parts.clock, instalments)
        flight = polling.send(way, head, body, self._reading, deadline=self._until)
        self._patience = patience.Patience(
            self._host.call_later,
            parts.clock,
            seconds=self._deadline - now,
            tired=flight.cancel,
            busy=lambda: self._inquiry is not None and self._inquiry.waiting,
        )
        self._flight = self._reading.flight = flight
        self._out.feeding(flight)

    # The way back ---------------------------------------------------------------------------------------------------

    def _heard(self, message: jsonrpc.Answer) -> bool:
        """One message of the server, as it arrives. False: no room, pause the flight."""
        leg = self._leg
        assert leg is not None
        if self._patience is not None:
            self._patience.renew()
        if message.kind is jsonrpc.AnswerKind.NOTIFICATION:
            return self._told(leg, message)
        if message.kind is jsonrpc.AnswerKind.REQUEST:
            self._inquired(leg, message)
            return True
        if self._response is None and message.id == leg.call_id:
            self._response = message
            if self._reading is not None:
                self._reading.linger()
        return True

    def _told(self, leg: legs.Leg, message: jsonrpc.Answer) -> bool:
        """Something that waits for no answer. False: no room, as `_heard`."""
        if message.method == conventions.CANCELLED and self._inquiry is not None:
            self._inquiry.taken_back(message)
        if (kind := passing.outdated(message)) is not None:
            self._host.changed(self._permit.server.id, kind)
        ours = passing.passed(message, leg, self.subject)
        return True if ours is None else self._out.notify(ours)

    def _inquired(self, leg: legs.Leg, message: jsonrpc.Answer) -> None:
        """A server of the handshake era asks in the middle of the call; in the other era there is no such message."""
        if leg.session is None:
            return
        if self._inquiry is None:
            via = interviews.saying(self._out)
            matter = inquiries.Matter(
                self.about, self._permit, leg, self.subject.agent, via=via, deadline=self._until
            )
            self._inquiry = inquiries.Inquiry(self._host.inquiries, matter)
        self._inquiry.heard(message)

    def _landed(self, failed: exchange.Failed | None) -> None:
        """The upstream request is over. Never raises, as `start`: nobody but us could give the agent an answer."""
        try:
            self._judge(failed)
        except Exception as bug:  # noqa: BLE001 -- as in start
            self._broke(bug)

    def _judge(self, failed: exchange.Failed | None) -> None:
        """What it was follows from the message that arrived, if one did."""
        leg, reading_ = self._leg, self._reading
        assert leg is not None
        assert reading_ is not None
        now = self._parts.clock()
        self._effort.upstream_seconds += now - (self._effort.sent_at or now)
        if self._patience is not None:
            self._patience.end()
            if self._patience.lost and failed is not None:
                failed = dataclasses.replace(failed, reason=_R.UPSTREAM_TIMEOUT)
        if leg.expired(reading_.status, self._response) and not self._renewed and not self._cancelled:
            # 404 for a session says that the server looked at nothing else: the one request that is safe to repeat.
            self._renewed = True
            self._response = self._inquiry = None
            leg.breaker.succeeded(now)
            self._parts.servers.forget(leg)
            self._parts.spawn(self._watched(self._again()))
            return
        if reading_.status == retries.UNAUTHORIZED and not self._refused and not self._cancelled:
            self._refused = True
            leg.breaker.succeeded(now)
            self._parts.spawn(self._watched(self._renew(leg, failed)))
            return
        if self._asked(leg, reading_.status, now):
            return
        self._end(leg, failed, now)

    def _end(self, leg: legs.Leg, failed: exchange.Failed | None, now: float) -> None:
        status, kind = self._reading.status if self._reading is not None else None, self._permit.call.kind
        end = endings.of(self._response, failed, status, cancelled=self._cancelled, kind=kind)
        if self._inquiry is not None and self._inquiry.refusals:
            end = endings.for_want_of_an_answer(end, self._inquiry.refusals[0])
        leg.doubt(status, self._response)
        end.tell(leg.breaker, now)
        self._conclude(end)

    async def _renew(self, leg: legs.Leg, failed: exchange.Failed | None) -> None:
        """The server refused the credential: there is a newer one after this, if there is any, and perhaps a second try."""
        lent = await retries.renewed(self._parts, self._permit, leg, self._lent, deadline=self._deadline)
        if lent is None or self._cancelled or not retries.repeatable(self._permit):
            self._newer = lent is not None
            self._end(leg, failed, self._parts.clock())
            return
        self._response = self._inquiry = None
        self._effort.sends += 1
        await self._meet(lent)

    def _asked(self, leg: legs.Leg, status: int | None, now: float) -> bool:
        """The server answered with a question, which is put to the agent in its own era. False when it was none."""
        heard, order, judge = self._response, self._order, self._host.judge
        if heard is None or self.subject.message.method not in governed.MEMBER:
            return False
        if heard.kind is jsonrpc.AnswerKind.ERROR:
            told = judge.sent_away(order, heard.payload, after=order.after)
            if told is None or told is heard.payload:
                return False  # an error like any other, or one that may be passed on as it is
        elif leg.session is not None or not modern.asks_for_input(heard.payload):
            return False
        elif not self.subject.modern:
            leg.breaker.succeeded(now)
            self._rounds, self._waiting_since = self._rounds + 1, now
            self._talk = interviews.Interview(self._host, order, number=self._rounds, done=self._answered)
            self._talk.begin(heard.payload, deadline=self._until)
            return True
        else:
            told = judge.relayed(order, heard.payload, after=order.after)
        leg.breaker.succeeded(now)
        if isinstance(told, asking.Refused):
            self._conclude(endings.refused(told.reason, told.why, status))
        else:
            question = jsonrpc.Answer(jsonrpc.AnswerKind.RESULT, heard.id, told)
            self._conclude(endings.asked(question, status))
        return True

    def _answered(self, given: interviews.Given | asking.Refused) -> None:
        """The agent has answered within its call, or will not. Never raises, as `start`."""
        try:
            waiting = self._next_round(given)
        except Exception as bug:  # noqa: BLE001 -- as in start
            self._broke(bug)
        else:
            if waiting is not None:
                self._parts.spawn(self._watched(waiting))

    def _next_round(self, given: interviews.Given | asking.Refused) -> Coroutine[Any, Any, None] | None:
        """Asks the server once more, as a call that is decided anew: what was allowed may not be by now."""
        now = self._parts.clock()
        self._talk = None
        self._effort.upstream_seconds += now - self._waiting_since  # people's time, and none of ours
        if isinstance(given, asking.Refused):
            self._conclude(endings.refused(given.reason, given.why, None))
            return None
        verdict = self._host.again(self._permit.call, self.about.request_id)
        if not isinstance(verdict, decision.Permit):
            why = "what the call needs was taken away while the server waited for an answer"
            self._conclude(endings.refused(_R.ASK_REFUSED, why, None))
            return None
        self._permit, self._given, self._response = verdict, given, None
        self._renewed = self._refused = False
        self._deadline = min(self._until, now + verdict.server.endpoint.call_seconds)
        return self._lend()

    async def _again(self) -> None:
        waiting = self._lend()
        if waiting is not None:
            await waiting

    @property
    def streaming(self) -> bool:
        """The agent's answer has become an event stream."""
        return self._out.streaming

    def cancel(self) -> None:
        """The agent gave up. What may have reached the server is still settled and recorded."""
        if self._cancelled or self._stage is Stage.ENDED:
            return
        self._cancelled = True
        if self._talk is not None:
            self._talk.abandon()
            self._conclude(endings.End(_R.CANCELLED, audit.Status.FAILED, failed=True))
        elif self._flight is not None and self._leg is not None:
            self._flight.cancel()
            if self._leg.session is not None and self._stage is Stage.SENT:
                self._parts.spawn(self._parts.servers.cancel(self._permit, self._leg))

    # The end --------------------------------------------------------------------------------------------------------

    def _conclude(self, end: endings.End) -> None:
        """Settle, record, count, answer. Exactly once."""
        assert self._stage is not Stage.ENDED, "an attempt ends once"
        self._stage = Stage.ENDED
        if self._refused:
            end = endings.sent_before(end, newer=self._newer)
        if self._inquiry is not None:
            self._inquiry.end()
        closing.close(self._parts, self._order, self._effort, end)
        self._on_ended(self)
        self._answer_agent(end)

    def _answer_agent(self, end: endings.End) -> None:
        if not self._out.ended:
            self._out.answer(closing.told(self._order, end), status=closing.status(self._order, end))
