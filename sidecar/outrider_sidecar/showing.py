# SPDX-License-Identifier: Apache-2.0
"""What agents are shown without a call: how a server introduces itself, and what it lists.

Called by the pipeline for `initialize`, `server/discover` and the four lists. Here is only the waiting: for a server that has not
been met or listed yet, never long, and never for one that is down. What is shown is `local`'s, and decided by `decide`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Protocol

from outrider import bind, call, catalog, decide, decision, names
from outrider_sidecar import answers, conventions, jsonrpc, lists, local, refusals, streams, visits
from outrider_sidecar import current as in_force

FORMS: Final[Mapping[str, catalog.Form]] = {
    conventions.LIST_TOOLS: catalog.Form.TOOLS,
    conventions.LIST_PROMPTS: catalog.Form.PROMPTS,
    conventions.LIST_RESOURCES: catalog.Form.RESOURCES,
    conventions.LIST_TEMPLATES: catalog.Form.TEMPLATES,
}
"""The methods that list."""

Waiting = Coroutine[Any, Any, None] | None
"""Nothing when the answer has been given."""

Introduced = Callable[[visits.Visit, bytes], None]
"""Gives a result to an agent, and counts it."""


class Answered(Protocol):
    """The same; `streamed` as the one event of a stream."""

    def __call__(self, visit: visits.Visit, raw: bytes, /, *, streamed: bool = False) -> None:
        """Once for each request."""


class Showing:
    """`answered` gives results; what may not be shown leaves through `desk`."""

    def __init__(
        self, catalogue: lists.Lists, current: in_force.Current, desk: refusals.Desk, answered: Answered
    ) -> None:
        self._catalogue = catalogue
        self._current = current
        self._desk = desk
        self._answered = answered

    # Introductions ------------------------------------------------------------------------------------------------------

    def introduce(
        self, visit: visits.Visit, bound: bind.Bound, answered: Introduced | None = None
    ) -> Waiting:
        """Answers `initialize` or `server/discover`. `answered` where more than the result is told."""
        server, give = visit.server, answered or self._answered
        if server is not None and (kind := _asked_first(bound.servers[server])) is not None:
            self._catalogue.touch(server, kind, visit.user)
            if self._catalogue.introduction(server, modern=visit.subject.modern).capabilities is None:
                return self._once_met(visit, server, kind, give)
        self._introduced(visit, bound, give)
        return None

    async def _once_met(
        self, visit: visits.Visit, server: names.ServerId, kind: call.Kind, give: Introduced
    ) -> None:
        await self._catalogue.patiently([server], kind, seconds=lists.LOOK_SECONDS_MAX, user=visit.user)
        bound = self._bound()
        if server in bound.servers and bound.servers[server].in_sight:
            self._introduced(visit, bound, give)
        else:
            self._desk.server(visit)

    def _introduced(self, visit: visits.Visit, bound: bind.Bound, give: Introduced) -> None:
        met = functools.partial(self._catalogue.introduction, modern=visit.subject.modern)
        if visit.subject.modern:
            give(visit, local.discovered(bound, visit.server, met))
        else:
            give(visit, local.initialized(bound, visit.server, met, version=visit.subject.version))

    # Lists --------------------------------------------------------------------------------------------------------------

    def enumerate(self, visit: visits.Visit, bound: bind.Bound) -> Waiting:
        """Answers one page of a list."""
        kind = FORMS[visit.subject.message.method].kind
        wanted = _wanted(bound, visit.server, kind)
        for server in wanted:
            self._catalogue.touch(server, kind, visit.user)
        missing = [server for server in wanted if not bound.servers[server].observed(kind)]
        if missing:
            return self._once_listed(visit, missing, kind)
        self._page(visit, bound)
        return None

    async def _once_listed(self, visit: visits.Visit, missing: list[names.ServerId], kind: call.Kind) -> None:
        """Waits for lists that nobody has asked for yet. A server that is down is left out of the merged list, and that is recorded."""
        await self._catalogue.patiently(missing, kind, seconds=lists.LOOK_SECONDS_MAX, user=visit.user)
        bound, server = self._bound(), visit.server
        if server is None:
            self._without(visit, bound, missing, kind)
            self._page(visit, bound)
        elif server not in bound.servers or not bound.servers[server].in_sight:
            self._desk.server(visit)
        elif (
            failed := await self._catalogue.ensure(
                server, kind, seconds=lists.LOOK_SECONDS_MAX, user=visit.user
            )
        ) is not None:
            self._desk.method(visit, decision.Objection(failed.reason, visible=True))
        else:
            self._page(visit, self._bound())

    def _without(
        self, visit: visits.Visit, bound: bind.Bound, missing: list[names.ServerId], kind: call.Kind
    ) -> None:
        for server in missing:
            if server in bound.servers and not bound.servers[server].observed(kind):
                failed = self._catalogue.failure(server, kind)
                reason = decision.Reason.UPSTREAM_NOT_READY if failed is None else failed.reason
                text = f"left out of what {visit.subject.message.method} shows"
                self._desk.of_caller(reason, place=f"/{server}/mcp", detail=text)

    def _page(self, visit: visits.Visit, bound: bind.Bound) -> None:
        message, modern, form = (
            visit.subject.message,
            visit.subject.modern,
            FORMS[visit.subject.message.method],
        )
        cursor = message.params.get("cursor")
        raw = local.page(bound, visit.server, cursor, modern=modern, form=form, user=visit.user)
        if raw is None:
            error = jsonrpc.error(visit.subject.id, conventions.INVALID_PARAMS, "unknown cursor")
            answers.json(error).give(visit.reply)
            return
        self._answered(visit, raw, streamed=_as_event(visit, raw))

    def _bound(self) -> bind.Bound:
        assert (
            self._current.bound is not None
        )  # there was one when the request came in, and it is only ever replaced
        return self._current.bound


def _as_event(visit: visits.Visit, raw: bytes) -> bool:
    """Within a session a list comes as servers of the official SDKs send it: as an event, unless it is too large for one."""
    if visit.agent is None or len(raw) > streams.FRAME_BYTES_MAX:
        return False
    return streams.accepted(visit.request.headers).sse


def _asked_first(held: bind.BoundServer) -> call.Kind | None:
    """The kind whose list is asked for to meet the server; None for one that is left alone."""
    return next((kind for kind in call.Kind if decide.asked(held, kind)), None)


def _wanted(bound: bind.Bound, server: names.ServerId | None, kind: call.Kind) -> list[names.ServerId]:
    """The servers whose lists this page is made of."""
    if server is None and kind is call.Kind.RESOURCE:
        return []
    chosen = bound.servers if server is None else [server]
    return [each for each in chosen if decide.asked(bound.servers[each], kind)]
