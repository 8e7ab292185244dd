# SPDX-License-Identifier: Apache-2.0
"""Everything about what agents hear without asking for it each time, wired once: for the pipeline and for main.

Made by the pipeline. It holds the parts together and passes on what they all must know: that a configuration is in force, that
a list has arrived, that an agent is gone, that the proxy goes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping

from outrider import bind, call, decision, identity, names
from outrider_sidecar import (
    agents,
    audience,
    conventions,
    exchange,
    following,
    ids,
    jsonrpc,
    legs,
    lists,
    orders,
    refusals,
    seats,
    sources,
    speaking,
    streams,
    subscriptions,
    visits,
)
from outrider_sidecar import current as in_force


@dataclasses.dataclass(frozen=True, slots=True)
class Wiring:
    """What it is made of. `jitter` gives numbers from 0 up to 1; `ask` None: nobody is asked anything outside of a call."""

    parts: orders.Parts
    desk: refusals.Desk
    current: in_force.Current
    catalogue: lists.Lists
    ids: ids.Ids
    call_later: streams.CallLater
    jitter: Callable[[], float]
    ask: seats.Ask | None = None


class Listeners:
    """Both eras."""

    def __init__(self, wiring: Wiring) -> None:
        parts = wiring.parts
        followed = following.Parts(parts.upstream, parts.credentials, parts.clock, wiring.jitter)
        heard = sources.Parts(followed, parts.servers)
        self._audience = audience.Audience(heard, wiring.current, wiring.catalogue, wall=parts.wall)
        desk = subscriptions.Desk(parts, wiring.desk, self._audience, wiring.catalogue, wiring.ids)
        self._modern = subscriptions.Subscriptions(desk, call_later=wiring.call_later)
        self._legacy = speaking.Speaking(
            desk, heard, wiring.current, call_later=wiring.call_later, ask=wiring.ask
        )
        parts.servers.opened = self._legacy.opened

    def __len__(self) -> int:
        """Streams that agents hold open now."""
        return len(self._modern) + len(self._legacy)

    def handlers(self, *, modern: bool) -> Mapping[str, visits.Handler]:
        """For the pipeline's table."""
        if modern:
            return {conventions.LISTEN: self._modern.listen}
        return {
            conventions.SUBSCRIBE: self._legacy.subscribe,
            conventions.UNSUBSCRIBE: self._legacy.unsubscribe,
        }

    def hear(
        self,
        agent: agents.Agent,
        request: exchange.Request,
        reply: exchange.Reply,
        user: identity.User | None = None,
    ) -> None:
        """GET of a session: the stream of a legacy agent, which hears of lists as this user sees them."""
        self._legacy.hear(agent, request, reply, user)

    def offer(self, agent: agents.Agent, message: bytes) -> bool:
        """Says something to a legacy agent on the stream of its session; False when nobody would hear it."""
        return self._legacy.offer(agent, message)

    def heard(
        self,
        agent: agents.Agent | None,
        permit: decision.Permit,
        session: legs.Session | None,
        message: jsonrpc.Answer,
    ) -> None:
        """A server said something on the stream of a call that is not about the call."""
        self._legacy.heard(agent, permit, session, message)

    def dropped(self, agent: agents.Agent) -> None:
        """A legacy agent's session is over."""
        self._legacy.dropped(agent)

    def configured(self, bound: bind.Bound) -> None:
        """A configuration is in force: what may not be heard any more ends, and who sees something else is told."""
        self._modern.configured(bound)
        self._legacy.configured(bound)
        self._audience.refresh()

    def observed(self, server: names.ServerId, kinds: Iterable[call.Kind]) -> None:
        """A server has listed these kinds."""
        self._audience.refresh(server, kinds)

    def drain(self) -> None:
        """The proxy goes: every stream ends in order, before the door closes."""
        self._modern.drain()
        self._legacy.drain()

    async def close(self) -> None:
        """Listens to no server any more."""
        self.drain()
        await self._audience.close()
