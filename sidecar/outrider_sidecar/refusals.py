# SPDX-License-Identifier: Apache-2.0
"""The one way out for whatever may not happen: recorded, counted, logged when hidden, then told.

Called by intake, pipeline and calls. What an agent hears is phrased in `answers`; here is what must have happened before it hears it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Callable

from outrider import audit, bind, call, decision, names
from outrider_sidecar import (
    answers,
    closing,
    endings,
    governed,
    ids,
    journal,
    orders,
    records,
    telemetry,
    tokens,
    visits,
)
from outrider_sidecar import current as in_force

log = logging.getLogger("outrider")

_NOWHERE = names.ServerId("", "")
_LOGGED_CHARACTERS = 128


class Desk:
    """Refuses. A refusal that cannot be recorded is still a refusal; the log and a metric say that it is missing."""

    def __init__(self, parts: orders.Parts, identifiers: ids.Ids, current: in_force.Current) -> None:
        self._parts = parts
        self.ids = identifiers
        self._current = current

    def at_door(self, reason: decision.Reason) -> None:
        """Before anybody is known: the journal keeps ten a minute in full and counts the rest."""
        event = self.ids.next()
        record = audit.RefusalRecord(event=event, request_id=event, reason=reason.value, method="")
        self._note(record, self._parts.journal.refusal_before_auth)

    def of_caller(
        self,
        reason: decision.Reason,
        *,
        place: str,
        detail: str = "",
        about: records.About | None = None,
    ) -> None:
        """What an accepted caller sent is no request we take: recorded with who it was, in a measure of its own.

        `about` for what was one: whoever is told its id finds the record by it.
        """
        bound, event = self._current.bound, self.ids.next() if about is None else about.request_id
        record = audit.RefusalRecord(
            event=event,
            request_id=event,
            reason=reason.value,
            principal=None
            if bound is None
            else audit.principal(bound.snapshot.workload, None if about is None else about.user),
            server=place.removesuffix("/mcp").strip("/"),
            snapshot="" if bound is None else bound.digest,
            era="" if about is None else about.era,
            method="" if about is None else about.method,
            detail=detail,
            trace_id="" if about is None else about.trace_id,
        )
        self._note(record, self._parts.journal.refusal_of_caller)

    def token(self, visit: visits.Visit, refused: tokens.Refused, token: str) -> None:
        """A user's token that is none of anybody's here (R17): a call is refused as calls are, anything else with an error."""
        self.whose(refused, token, place=visit.endpoint, about=visit.about)
        objection = decision.Objection(
            decision.Reason.USER_TOKEN_INVALID, visible=True, detail=refused.flaw.value
        )
        body = answers.refused(visit.subject, objection, request_id=visit.about.request_id)
        answers.json(body).give(visit.reply)

    def whose(
        self, refused: tokens.Refused, token: str, *, place: str, about: records.About | None = None
    ) -> None:
        """Recorded and logged by its class, with what it claims and by its digest; never the token."""
        digest = f"token {hashlib.sha256(token.encode()).hexdigest()[:16]}" if token else "no token"
        self.of_caller(
            decision.Reason.USER_TOKEN_INVALID, place=place, detail=f"{refused}; {digest}", about=about
        )
        fields = telemetry.fields(
            request="" if about is None else about.request_id, why=refused.flaw.value, about=refused.about
        )
        log.info("a user's token is refused", extra=fields)

    def _note(self, record: audit.RefusalRecord, write: Callable[[audit.RefusalRecord, float], None]) -> None:
        try:
            write(record, self._parts.wall())
        except journal.JournalUnavailable as failure:
            _unrecorded(failure, record.request_id)
        self._parts.telemetry.operated("", "", record.reason, 0.0)

    def noted(
        self, visit: visits.Visit, refused: decision.Refusal, bound: bind.Bound | None, *, event: str = ""
    ) -> None:
        """Records and counts a refusal that is answered elsewhere, or with others; `event` when it is one of several."""
        about = dataclasses.replace(visit.about, request_id=event) if event else visit.about
        parts, objection, rule = self._parts, refused.objection, refused.objection.rule
        held = bound.servers.get(refused.call.server) if bound is not None else None
        ours = parts.clock() - visit.request.received
        self._write(
            parts.writer.refusal(about, refused, view=held.view if held else None, ours=round(ours * 1e6))
        )
        parts.telemetry.decided(
            rule.object if rule else "", rule.rule if rule else "", "deny", objection.reason.value
        )
        if objection.pool is not None and objection.pool.limit.rate is not None:
            limit = objection.pool.limit
            parts.telemetry.limited(f"{limit.namespace}/{limit.budget}", "deny")
        tool = closing.counted(refused.call) if held is not None and objection.visible else ""
        parts.telemetry.operated(refused.call.method.value, tool, objection.reason.value, ours)
        if not objection.visible:
            _hidden(visit, refused)

    def call(self, visit: visits.Visit, refused: decision.Refusal, bound: bind.Bound | None) -> None:
        """A refused request of a governed method."""
        objection = refused.objection
        self.noted(visit, refused, bound)
        name = governed.named(visit.subject.message).name
        body = answers.refused(visit.subject, objection, request_id=visit.about.request_id, name=name)
        answers.json(body).give(visit.reply)

    def method(self, visit: visits.Visit, objection: decision.Objection) -> None:
        """Nothing can be answered yet: a call is refused as calls are, anything else with an error.

        Whatever went wrong before, nothing was sent for the agent: no words may say that something may have been done.
        """
        if visit.subject.message.method in governed.METHODS:
            named = governed.named(visit.subject.message).at(visit.server or _NOWHERE, "")
            self.call(visit, decision.Refusal(dataclasses.replace(named, arguments=None), objection), None)
            return
        detail = objection.detail
        if objection.reason in endings.UNCERTAIN:
            detail = ", ".join(filter(None, (f"before anything was sent: {objection.reason.value}", detail)))
            objection = dataclasses.replace(objection, reason=decision.Reason.UPSTREAM_NOT_READY)
        self.of_caller(objection.reason, place=visit.endpoint, detail=detail, about=visit.about)
        body = answers.refused(visit.subject, objection, request_id=visit.about.request_id)
        answers.json(body).give(visit.reply)

    def server(self, visit: visits.Visit) -> None:
        """A server this caller may not see: the same 404 as for one that does not exist."""
        message = visit.subject.message
        unknown = call.Call(visit.server or _NOWHERE, "")
        if message.method in governed.METHODS:
            unknown = dataclasses.replace(governed.named(message).at(unknown.server), arguments=None)
        objection = decision.Objection(decision.Reason.SERVER_UNKNOWN, visible=False)
        refused = decision.Refusal(unknown, objection)
        self._write(self._parts.writer.refusal(visit.about, refused, view=None, ours=0))
        self._parts.telemetry.decided("", "", "deny", objection.reason.value)
        _hidden(visit, refused)
        answers.not_found().give(visit.reply)

    def _write(self, record: audit.RefusalRecord) -> None:
        try:
            self._parts.journal.refusal(record)
        except journal.JournalUnavailable as failure:
            _unrecorded(failure, record.request_id)


def _hidden(visit: visits.Visit, refused: decision.Refusal) -> None:
    """One line for the platform engineer who wonders why a list is empty; never for the agent."""
    log.info(
        "hidden",
        extra=telemetry.fields(
            request=visit.about.request_id,
            server=str(refused.call.server) if refused.call.server != _NOWHERE else "",
            tool=refused.call.name[:_LOGGED_CHARACTERS],
            reason=refused.reason.value,
            rule=str(refused.objection.rule or ""),
            why=refused.objection.detail,
        ),
    )


def _unrecorded(failure: journal.JournalUnavailable, request_id: str) -> None:
    log.error("a refusal could not be recorded", extra=telemetry.fields(why=str(failure), request=request_id))
