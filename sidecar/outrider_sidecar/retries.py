# SPDX-License-Identifier: Apache-2.0
"""What becomes of a request whose credential the server refused (401): the credential is renewed, and some requests are sent once more.

Called by an attempt. Sent again is only what fetches and changes nothing, or a tool that its entry calls idempotent: a server that
says 401 should have looked at nothing, and not every server does (N8). Never twice, and never with what was refused already.
"""

from __future__ import annotations

from outrider import call, decision, rules
from outrider_sidecar import exchange, legs, orders

UNAUTHORIZED = 401


def repeatable(permit: decision.Permit) -> bool:
    """Whether this may be sent a second time. Tools match byte-exactly, as in an Allow."""
    subject = permit.call
    if subject.method is not call.Method.CALL:
        return True
    return any(rules.matches(glob, subject.name) for glob in permit.server.idempotent)


async def renewed(
    parts: orders.Parts, permit: decision.Permit, leg: legs.Leg, lent: exchange.Lent, *, deadline: float
) -> exchange.Lent | None:
    """What is newer than what the server refused, also for the calls to come; None when nothing is.

    A session that refuses the newest there is may hang on an older one: the next call opens another.
    """
    fresh = await parts.credentials.renewed(permit, lent, deadline=deadline)
    if fresh is None:
        parts.servers.forget(leg)
    return fresh
