# SPDX-License-Identifier: Apache-2.0
"""One subscription to one resource: decided, counted, recorded when it begins and once more when it ends.

Made by `subscriptions` for agents of either era. What is heard in between is not recorded: it is as much as the server likes,
and none of it was asked for. It costs nothing, and counts as a call where calls are counted.
"""

from __future__ import annotations

import logging

from outrider import audit, budgets, decision
from outrider_sidecar import journal, ledger, orders, records, telemetry

log = logging.getLogger("outrider")

_R = decision.Reason


WATCHES_MAX = 10_000
"""Subscriptions of all agents together: each is kept, followed and compared with what servers say."""


class Room:
    """How many subscriptions there are."""

    __slots__ = ("taken",)

    def __init__(self) -> None:
        self.taken = 0

    @property
    def full(self) -> bool:
        return self.taken >= WATCHES_MAX


class Unrecorded(Exception):
    """It cannot be recorded, so it may not begin."""


class Watch:
    """`about` has an event of its own. Made only by `begun`."""

    __slots__ = ("_about", "_began", "_charges", "_ended", "_parts", "_recorded", "_room", "permit")

    def __init__(  # noqa: PLR0913 -- made by `begun` alone
        self,
        parts: orders.Parts,
        about: records.About,
        permit: decision.Permit,
        charges: tuple[budgets.Charge, ...],
        *,
        recorded: bool,
        room: Room,
    ) -> None:
        self._room = room
        room.taken += 1
        self.permit = permit
        self._charges = charges
        self._parts = parts
        self._about = about
        self._recorded = recorded
        self._ended = False
        self._began = parts.clock()

    @property
    def uri(self) -> str:
        return self.permit.call.name

    def close(
        self,
        reason: decision.Reason = _R.ALLOWED,
        status: audit.Status = audit.Status.COMPLETED,
        detail: str = "",
    ) -> None:
        """It is over, and why. Twice is once."""
        if self._ended:
            return
        self._ended = True
        self._room.taken -= 1
        if self._recorded:
            outcome = audit.Outcome(
                event=self._about.request_id,
                request_id=self._about.request_id,
                status=status,
                reason=reason.value,
                charges=self._charges,
                upstream_micros=round((self._parts.clock() - self._began) * 1e6),
                detail=detail,
            )
            self._parts.journal.outcome(outcome)


def begun(parts: orders.Parts, about: records.About, permit: decision.Permit, room: Room) -> Watch:
    """Counts it and writes that it begins; whether there is room is asked before. Raises Unrecorded."""
    hold = parts.ledger.reserve(permit.reservations, parts.wall())
    recorded = _recorded(parts, about, permit, hold)
    if not recorded and permit.server.audit.on_unavailable_deny:
        parts.ledger.release(hold)
        raise Unrecorded
    for crossing in parts.ledger.settle(hold, 0):
        fields = telemetry.fields(pool=crossing.pool.id, percent=crossing.percent)
        log.warning("budget threshold reached", extra=fields)
    rule = permit.rules[0]
    parts.telemetry.decided(rule.object, rule.rule, "allow", _R.ALLOWED.value)
    return Watch(parts, about, permit, hold.charges(0), recorded=recorded, room=room)


def _recorded(parts: orders.Parts, about: records.About, permit: decision.Permit, hold: ledger.Hold) -> bool:
    try:
        parts.journal.intent(parts.writer.intent(about, permit, hold))
    except journal.JournalUnavailable as failure:
        fields = telemetry.fields(why=str(failure), request=about.request_id)
        log.error("the journal cannot be written", extra=fields)  # noqa: TRY400 -- an outage, not a bug
        return False
    return True
