# SPDX-License-Identifier: Apache-2.0
"""What an agent of the handshake era says to all servers of its session: how much of their logs it wants, and that its roots changed.

Handlers of the pipeline. A level is kept with the agent, told to the servers it has sessions at, and to each that it is given one
at later (`greetings`); whether roots changed concerns only servers that were told of roots. An agent that wishes faster than its
servers listen is told of once: one telling of each kind is under way, and after it the last wish of those that came meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable

from outrider import bind
from outrider_sidecar import (
    agents,
    answers,
    conventions,
    introductions,
    jsonrpc,
    legacy,
    legs,
    lists,
    orders,
    visits,
)

Told = Callable[[legs.Session, int], bytes | None]
"""What a server is told in a session, under an id; None for nothing."""


class Wishes:
    """`catalogue` knows which servers log at all."""

    def __init__(self, parts: orders.Parts, catalogue: lists.Lists) -> None:
        self._parts = parts
        self._catalogue = catalogue
        self._telling: dict[tuple[str, str], tuple[bind.Bound, Told] | None] = {}

    def set_level(self, visit: visits.Visit, bound: bind.Bound) -> None:
        """A `visits.Handler`. Answered at once: no server delays it, and none can take it back."""
        level, id_ = visit.subject.message.params.get("level"), visit.subject.id
        if visit.server is not None and self._is_silent(visit):
            answers.unknown_method(id_, modern=False).give(visit.reply)
            return
        if level not in conventions.LOG_LEVELS:
            text = f"params.level must be one of {', '.join(conventions.LOG_LEVELS)}"
            answers.json(jsonrpc.error(id_, conventions.INVALID_PARAMS, text)).give(visit.reply)
            return
        answers.json(jsonrpc.result(id_, b"{}")).give(visit.reply)
        if visit.agent is None:
            return
        visit.agent.log_level = level

        def told(session: legs.Session, id_: int) -> bytes | None:
            if not session.introduction.has(introductions.LOGGING):
                return None
            return legacy.level(id_, level)

        self._tell(visit.agent, conventions.SET_LEVEL, (bound, told))

    def _is_silent(self, visit: visits.Visit) -> bool:
        """The one server behind this endpoint has said that it does not log: then there is no such method, as there."""
        assert visit.server is not None
        said = self._catalogue.introduction(visit.server, modern=visit.subject.modern)
        return said.capabilities is not None and not said.has(introductions.LOGGING)

    def roots_changed(self, visit: visits.Visit, bound: bind.Bound) -> None:
        """A `visits.Listener`."""
        if visit.agent is None:
            return

        def told(session: legs.Session, _id: int) -> bytes | None:
            return jsonrpc.request(None, conventions.ROOTS_CHANGED, {}) if session.roots else None

        self._tell(visit.agent, conventions.ROOTS_CHANGED, (bound, told))

    def _tell(self, agent: agents.Agent, method: str, wish: tuple[bind.Bound, Told]) -> None:
        key = (agent.key, method)
        if key in self._telling:
            self._telling[key] = wish
            return
        self._telling[key] = None
        self._parts.spawn(self._tell_all(key, wish))

    async def _tell_all(self, key: tuple[str, str], wish: tuple[bind.Bound, Told] | None) -> None:
        try:
            while wish is not None:
                await self._parts.servers.tell_all(wish[0], key[0], key[1], wish[1])
                wish, self._telling[key] = self._telling[key], None
        finally:
            del self._telling[key]
