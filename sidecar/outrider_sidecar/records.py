# SPDX-License-Identifier: Apache-2.0
"""Turns decisions into audit records: which facts of a call are written down, at the level its server asks for.

Called by the pipeline just before the journal. It redacts before anything else sees a body and never looks at a
credential's value: a record has room for its name only (N4).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable

from outrider import audit, budgets, decision, identity, rules, snapshot
from outrider_sidecar import ledger


@dataclasses.dataclass(frozen=True, slots=True)
class About:
    """The facts of one attempt that do not depend on how it ends. `digest` is the snapshot's version.

    `user` is the verified one; None when no token was presented.
    """

    request_id: str
    workload: identity.Workload | None
    digest: str
    era: str
    method: str
    trace_id: str
    user: identity.User | None = None


PRINCIPALS_MAX = 1_024
"""Principals that are kept made; then all are forgotten and made anew."""


class Writer:
    """`key` makes the digests of bodies ones that nobody can confirm a guess against."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._principals: dict[Hashable, audit.Principal] = {}

    def intent(self, about: About, permit: decision.Permit, hold: ledger.Hold) -> audit.Intent:
        """What stands in the journal before the first byte leaves."""
        return audit.Intent(
            event=about.request_id,
            request_id=about.request_id,
            principal=self._principal(about) or audit.Principal(workload=""),
            server=str(permit.server.id),
            tool=permit.call.name,
            snapshot=about.digest,
            era=about.era,
            method=about.method,
            rules=tuple(audit.ruling(ref) for ref in permit.rules),
            would=permit.would,
            arguments=self._arguments(permit.server, permit.call.name, permit.call.arguments),
            credential=permit.credential.name if permit.credential is not None else "",
            round_of=permit.round_of,
            cost_max=budgets.reserve(permit.price),
            charges=hold.charges(),
            trace_id=about.trace_id,
        )

    def refusal(
        self, about: About, refused: decision.Refusal, *, view: snapshot.ServerView | None, ours: int
    ) -> audit.RefusalRecord:
        """A refusal is one record. `view` is None when the server is not in the snapshot; `ours` in microseconds."""
        objection = refused.objection
        arguments = None if view is None else self._arguments(view, refused.call.name, refused.call.arguments)
        return audit.RefusalRecord(
            event=about.request_id,
            request_id=about.request_id,
            reason=objection.reason.value,
            principal=self._principal(about),
            server=str(refused.call.server),
            tool=refused.call.name,
            snapshot=about.digest,
            era=about.era,
            method=about.method,
            visible=objection.visible,
            rule=None if objection.rule is None else audit.ruling(objection.rule),
            pool="" if objection.pool is None else objection.pool.id,
            detail=self._detail(objection, view, refused.call.name),
            would=refused.would,
            arguments=arguments,
            ours_micros=ours,
            trace_id=about.trace_id,
        )

    @staticmethod
    def _detail(objection: decision.Objection, view: snapshot.ServerView | None, tool: str) -> str:
        """A complaint about arguments quotes them, so it is kept only where the arguments themselves would be."""
        if objection.reason is not decision.Reason.ARGUMENTS_INVALID or view is None:
            return objection.detail
        if view.audit.level is snapshot.AuditLevel.METADATA or _pointers(view, tool, result=False):
            return "withheld, as the arguments are"
        return objection.detail

    def result(self, permit: decision.Permit, raw: bytes) -> audit.Body:
        """A result as the server's audit level lets it be kept."""
        pointers = _pointers(permit.server, permit.call.name, result=True)
        return audit.result_body(raw, permit.server.audit.level, pointers=pointers, key=self._key)

    def ask(
        self, about: About, permit: decision.Permit, *, event: str, method: str, params: bytes
    ) -> audit.Intent:
        """A question of a server to its client, within the request `about`; it costs nothing."""
        return audit.Intent(
            event=event,
            request_id=about.request_id,
            principal=self._principal(about) or audit.Principal(workload=""),
            server=str(permit.server.id),
            tool=permit.call.name,
            snapshot=about.digest,
            era=about.era,
            method=method,
            arguments=self._asked(permit, params),
            trace_id=about.trace_id,
        )

    def refused_ask(  # noqa: PLR0913 -- the facts of one record
        self, about: About, permit: decision.Permit, *, event: str, method: str, params: bytes, why: str
    ) -> audit.RefusalRecord:
        """One that its client never hears of. `why` for whoever reads the journal."""
        return audit.RefusalRecord(
            event=event,
            request_id=about.request_id,
            reason=decision.Reason.ASK_REFUSED.value,
            principal=self._principal(about),
            server=str(permit.server.id),
            tool=permit.call.name,
            snapshot=about.digest,
            era=about.era,
            method=method,
            detail=why,
            arguments=self._asked(permit, params),
            trace_id=about.trace_id,
        )

    def _asked(self, permit: decision.Permit, params: bytes) -> audit.Body:
        """What a server says to people is kept where results are, and not where anything of them is redacted.

        What is about no tool may quote any: there it is enough that something of one is.
        """
        level, tool = permit.server.audit.level, permit.call.name
        redacted = any(_pointers(permit.server, tool, result=each) for each in (True, False))
        if redacted or (not tool and permit.server.audit.redact):
            level = snapshot.AuditLevel.METADATA
        return audit.result_body(params, level, key=self._key)

    def _arguments(self, view: snapshot.ServerView, tool: str, arguments: object) -> audit.Body | None:
        if arguments is None:
            return None
        pointers = _pointers(view, tool, result=False)
        return audit.arguments_body(arguments, view.audit.level, pointers=pointers, key=self._key)

    def _principal(self, about: About) -> audit.Principal | None:
        workload, user = about.workload, about.user
        if workload is None:
            return None
        # Not by the user itself, which has the token in it: nothing here may keep that.
        key = (
            workload
            if user is None
            else (workload, user.id, user.names, user.client, user.actor, user.groups)
        )
        held = self._principals.get(key)
        if held is None:
            if len(self._principals) >= PRINCIPALS_MAX:
                self._principals.clear()
            held = self._principals[key] = audit.principal(workload, user)
        return held


_matching = functools.lru_cache(maxsize=1024)(rules.folded)
"""Made once per redaction, not once per call."""


def _pointers(view: snapshot.ServerView, tool: str, *, result: bool) -> tuple[str, ...]:
    """Every redaction whose globs match: case-folded, because a look-alike must not escape it."""
    return tuple(
        pointer
        for redaction in view.audit.redact
        if _matching(redaction.tools)(tool)
        for pointer in (redaction.result if result else redaction.arguments)
    )
