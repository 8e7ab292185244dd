# SPDX-License-Identifier: Apache-2.0
"""What one server says on its own, heard once for everybody who wants to know: in whichever era it is met.

Made by `audience`, one per server and credential. A server of the stateless era is listened to (`ears`); one of the handshake era
is followed on a session of the proxy's own, on which resources are subscribed to. It meets the server again when it has to, and
says when it is live, so that nobody is told that he will hear of changes before he would.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from outrider import call, decision
from outrider_sidecar import (
    conventions,
    ears,
    errands,
    exchange,
    following,
    jsonrpc,
    legacy,
    legs,
    loans,
    servers,
)

log = logging.getLogger("outrider")

CONTACT_SECONDS = 20.0

IDLE_SECONDS = 300.0
"""How long a server is left alone that has nothing to say on its own: it may be replaced by one that has."""


@dataclasses.dataclass(frozen=True, slots=True)
class Parts:
    """What a source works with; the same for all."""

    following: following.Parts
    servers: servers.Servers


Hear = Callable[[jsonrpc.Answer], None]


class Source:
    """`hear` gets every notification of the server that is about no request."""

    def __init__(self, parts: Parts, permit: decision.Permit, *, hear: Hear) -> None:
        self.permit = permit
        self._parts = parts
        self._hear = hear
        self._kinds: frozenset[call.Kind] = frozenset()
        self._uris: frozenset[str] = frozenset()
        self._changed = asyncio.Event()
        self._live = asyncio.Event()
        self._over = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(
            self._watched(), name=f"source {permit.server.id}"
        )

    @property
    def task(self) -> asyncio.Task[None]:
        """For whoever closes all of them and waits."""
        return self._task

    def want(self, kinds: Iterable[call.Kind], uris: Iterable[str]) -> None:
        """From now on this is to be heard."""
        wanted = (frozenset(kinds), frozenset(uris))
        if wanted != (self._kinds, self._uris):
            self._kinds, self._uris = wanted
            self._live.clear()
            self._changed.set()

    async def live(self) -> None:
        """Returns once everything wanted would be heard, or it is known that it would not."""
        await self._live.wait()

    def close(self) -> None:
        """Nobody wants to hear it any more."""
        self._task.cancel()

    async def _watched(self) -> None:
        while True:
            try:
                await self._run()
            except Exception:
                log.exception("a bug: a server is not heard for a while")
                await self._rest(IDLE_SECONDS)

    async def _run(self) -> None:
        failures = 0
        while True:
            self._over.clear()
            try:
                leg = await self._met()
                failures = 0
                end = await (self._listened(leg) if leg.session is None else self._followed(leg, leg.session))
            except (legs.NoLeg, loans.Unavailable):
                failures += 1
                await self._rest(self._pause(failures))
                continue
            if end is following.End.NONE:
                await self._rest(IDLE_SECONDS)
            else:
                self._parts.servers.forget(leg)

    def _pause(self, failures: int) -> float:
        seconds: float = min(following.RETRY_SECONDS * 2 ** min(failures, 16), following.BACKOFF_SECONDS_MAX)
        return seconds * (1 + 0.5 * self._parts.following.jitter())

    async def _rest(self, seconds: float) -> None:
        """Nothing will be heard for a while, whatever is wanted: nobody need wait for it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    self._changed.clear()
                    self._live.set()
                    await self._changed.wait()

    async def _met(self) -> legs.Leg:
        deadline = self._parts.following.clock() + CONTACT_SECONDS
        leg, _ = await self._parts.servers.met(self.permit, legs.Proxy(), deadline=deadline)
        return leg

    # A server of the stateless era.

    async def _listened(self, leg: legs.Leg) -> following.End:
        ended: list[following.End] = []

        def over(end: following.End) -> None:
            ended.append(end)
            self._over.set()

        ear = ears.Ear(
            self._parts.following,
            self.permit,
            leg.server.mint,
            hear=self._hear,
            acknowledged=self._acknowledged,
            over=over,
        )
        try:
            while not ended:
                self._changed.clear()
                ear.want(self._kinds, self._uris)
                await _first(self._changed.wait(), self._over.wait())
        finally:
            ear.close()
        return ended[0]

    def _acknowledged(self, wanted: ears.Wanted) -> None:
        if wanted == (self._kinds, self._uris):
            self._live.set()

    # A server of the handshake era.

    async def _followed(self, leg: legs.Leg, session: legs.Session) -> following.End:
        """Raises loans.Unavailable when there is no credential to subscribe with."""
        ended: list[following.End] = []
        begun = asyncio.Event()

        def over(end: following.End) -> None:
            ended.append(end)
            begun.set()
            self._over.set()

        def hear(message: jsonrpc.Answer) -> None:
            self._said(leg, message)

        follower = following.Follower(
            self._parts.following, self.permit, session, hear=hear, over=over, begun=begun.set
        )
        subscribed: frozenset[str] = frozenset()
        try:
            await begun.wait()
            while not ended:
                self._changed.clear()
                wanted = self._uris
                await self._subscribe(leg, session, subscribed, wanted)
                subscribed = wanted
                self._live.set()
                await _first(self._changed.wait(), self._over.wait())
        finally:
            follower.close()
        return ended[0]

    def _said(self, leg: legs.Leg, message: jsonrpc.Answer) -> None:
        if message.kind is jsonrpc.AnswerKind.REQUEST:
            # On a session of the proxy's own there is nobody to be asked; a ping is answered there too.
            task = asyncio.get_running_loop().create_task(
                self._parts.servers.decline(self.permit, leg, message)
            )
            self._task.add_done_callback(lambda _: task.cancel())
        elif message.kind is jsonrpc.AnswerKind.NOTIFICATION:
            self._hear(message)

    async def _subscribe(
        self,
        leg: legs.Leg,
        session: legs.Session,
        before: frozenset[str],
        wanted: frozenset[str],
    ) -> None:
        """Tells the server what is new and what is not wanted any more; its answers change nothing here."""
        told = [(conventions.SUBSCRIBE, uri) for uri in sorted(wanted - before)]
        told += [(conventions.UNSUBSCRIBE, uri) for uri in sorted(before - wanted)]
        for method, uri in told:
            head, body = about(leg, session, method, uri)
            deadline = self._parts.following.clock() + CONTACT_SECONDS
            lent = await self._parts.following.credentials.lend(self.permit, deadline=deadline)
            errand = errands.Errand(leg.server, self.permit, lent, deadline)
            await self._parts.servers.asked(errand, (head, body), method)


def about(leg: legs.Leg, session: legs.Session, method: str, uri: str) -> tuple[exchange.Headers, bytes]:
    """A request about one resource on one session."""
    params = {"uri": json.dumps(uri).encode()}
    return legacy.head(session.id, session.version), jsonrpc.request(leg.server.mint(), method, params)


async def _first(*waits: Coroutine[Any, Any, Any]) -> None:
    """Returns when one of them has happened."""
    tasks = [asyncio.ensure_future(each) for each in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
