# SPDX-License-Identifier: Apache-2.0
"""Keeps what an engine of Vault gives fresh in memory: `loans.Source` over an `Engine` that only knows how to ask.

Asked on the hot path by `credentials`, for which everything at hand is one look into a mapping. Fetched once for all who ask at the
same time, again before it ends, and again when a server refused it. While Vault is away what is held serves until its own expiry;
when Vault itself says that there is nothing any more, it serves no longer. Nothing here writes a value anywhere (N4).
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
from collections.abc import Coroutine, Hashable, Iterator
from typing import Any, Generic, Protocol, TypeVar

from outrider import decision, snapshot
from outrider_sidecar import loans, pacing, vault

log = logging.getLogger("outrider")

SECRETS_MAX = 1_000
"""Of one kind, in one proxy: more is a mistake, and each is looked after."""

PRESSED_SECONDS = 120.0
"""A server that has refused nothing for so long is believed again at once."""

_UNAVAILABLE = decision.Reason.CREDENTIAL_UNAVAILABLE
_V = TypeVar("_V")


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Kept(Generic[_V]):
    """What an engine gave. `expires_at` in seconds of the wall clock; `again_seconds` until it is looked at again."""

    value: _V
    version: str
    expires_at: float
    again_seconds: float


class Engine(Protocol[_V]):
    """One kind of secret. `costly`: each fetch makes something that somebody has to keep, as a user of a database."""

    costly: bool

    def key(self, where: Any) -> tuple[str, Hashable]:
        """The role, and what is fetched at once: several fields of a secret come from one fetch."""

    async def fresh(self, key: tuple[str, Hashable], held: Kept[_V] | None, *, refused: bool) -> Kept[_V]:
        """The newest; `held` itself, renewed, where there is nothing newer. `refused`: a server would not have it. Raises vault.Failed."""

    def loan(self, where: Any, kept: Kept[_V]) -> loans.Loan:
        """One field of it. Raises loans.Unavailable."""

    def hangs(self, kept: Kept[_V]) -> bool:
        """Whether it ends with the token that it was got with."""

    async def give_back(self, key: tuple[str, Hashable], kept: Kept[_V]) -> None:
        """It is not wanted any longer. Raises vault.Failed."""


@dataclasses.dataclass(slots=True, repr=False, eq=False)
class _Held(Generic[_V]):
    """How it stands with one fetch. `begun` is loop time; `pressed` is for what servers refuse."""

    key: tuple[str, Hashable]
    backoff: pacing.Backoff
    pressed: pacing.Backoff
    wheres: set[snapshot.Source] = dataclasses.field(default_factory=set)
    kept: Kept[_V] | None = None
    failure: vault.Failed | None = None
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None
    begun: float = -math.inf
    pressed_at: float = -math.inf
    soon: bool = False
    refreshed: int = 0
    failed: int = 0


class Keeping(Generic[_V]):
    """The secrets of one engine at one site."""

    def __init__(self, engine: Engine[_V], timing: pacing.Timing) -> None:
        self._engine = engine
        self._timing = timing
        self._loans: dict[snapshot.Source, loans.Loan] = {}
        self._held: dict[tuple[str, Hashable], _Held[_V]] = {}
        self._wanted: frozenset[snapshot.Source] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def at_hand(self, wanted: loans.Wanted) -> loans.Loan | None:
        loan = self._loans.get(wanted.where)
        return loan if loan is not None and self._timing.wall() < loan.expires_at else None

    async def fetch(self, wanted: loans.Wanted, *, refused: str | None = None) -> loans.Loan:
        asked_at = self._timing.clock()
        held = self._of(wanted.where)
        while True:
            loan = self.at_hand(wanted)
            if loan is not None and (refused is None or loan.version != refused):
                return loan
            if held.task is None and not self._begun(held, loan):
                break
            begun = held.begun
            await self._ended(held, wanted.deadline)
            # What began before the server refused may have brought what it refused.
            if refused is None or begun >= asked_at:
                break
        loan = self.at_hand(wanted)
        if loan is None:
            raise self._unavailable(held, wanted.where)
        return loan

    def keep(self, wanted: frozenset[snapshot.Source]) -> None:
        self._wanted = wanted
        for held in tuple(self._held.values()):
            for where in held.wheres - wanted:
                self._loans.pop(where, None)
            held.wheres &= wanted
            if not held.wheres:
                self._drop(held)

    def roles(self) -> frozenset[str]:
        """Whose tokens are needed."""
        return frozenset(role for role, _ in self._held)

    def hasten(self, role: str, seconds: float) -> None:
        """What was got with a token of this role ends in so many seconds: it is got anew before, though not all of it at once."""
        for held in self._held.values():
            if held.key[0] == role and held.kept is not None and self._engine.hangs(held.kept):
                self._at(held, seconds * self._timing.jitter())

    def resume(self) -> None:
        """Vault can be asked again: whatever failed for an outage is tried within a second or two, or when it is wanted."""
        for held in self._held.values():
            if held.failure is not None and held.failure.outage and held.task is None:
                held.backoff.worked()
                self._at(held, 2 * pacing.FIRST_SECONDS * self._timing.jitter())

    def standing(self) -> Iterator[loans.Standing]:
        now = self._timing.wall()
        for held in tuple(self._held.values()):
            for where in tuple(held.wheres):
                loan = self._loans.get(where)
                good = loan is not None and now < loan.expires_at
                never = held.kept is None and held.failure is None
                failing = None if never or (good and held.failure is None) else self._unavailable(held, where)
                yield loans.Standing(
                    where,
                    available=good or never,
                    expires_at=loan.expires_at
                    if loan is not None and math.isfinite(loan.expires_at)
                    else None,
                    failing=failing.reason if failing is not None else None,
                    why=str(failing) if failing is not None else "",
                    refreshed=held.refreshed,
                    failed=held.failed,
                )

    async def close(self) -> None:
        """Nothing is lent any more. What was leased is given back with the tokens it was got with."""
        self._closed = True
        for held in tuple(self._held.values()):
            self._untimed(held)
        self._loans.clear()
        self._held.clear()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Inside ---------------------------------------------------------------------------------------------------------

    def _of(self, where: snapshot.Source) -> _Held[_V]:
        if self._closed or (self._wanted is not None and where not in self._wanted):
            raise loans.Unavailable(_UNAVAILABLE, "this credential is not in force any longer")
        key = self._engine.key(where)
        held = self._held.get(key)
        if held is None:
            if len(self._held) >= SECRETS_MAX:
                text = f"the proxy looks after {SECRETS_MAX} secrets of this kind, and no more"
                raise loans.Unavailable(_UNAVAILABLE, text)
            backoff = pacing.Backoff(self._timing)
            held = self._held[key] = _Held(key, backoff, pacing.Backoff(self._timing))
        if where not in held.wheres:
            held.wheres.add(where)
            self._lent(held)
        return held

    def _begun(self, held: _Held[_V], loan: loans.Loan | None) -> bool:
        """Begins a fetch, unless it is too soon after the latest one."""
        now = self._timing.clock()
        good = held.kept is not None and self._timing.wall() < held.kept.expires_at
        if not good:  # there is nothing: it failed, was never asked for, or has ended
            if held.backoff.left:
                return False
        else:  # there is something, and a server has refused it, or a field of it is missing
            if now - held.pressed_at > PRESSED_SECONDS:
                held.pressed.worked()
            if held.pressed.left or (held.failure is not None and held.backoff.left):
                return False
            held.pressed.failed()
            held.pressed_at = now
        self._begin(held, refused=loan is not None)
        return True

    def _begin(self, held: _Held[_V], *, refused: bool = False) -> None:
        self._untimed(held)
        held.begun = self._timing.clock()
        held.task = self._spawn(self._refresh(held, refused=refused))

    async def _refresh(self, held: _Held[_V], *, refused: bool) -> None:
        again = pacing.MOST_SECONDS
        try:
            kept = await self._engine.fresh(held.key, held.kept, refused=refused)
        except vault.Failed as error:
            again = max(held.backoff.failed(), error.retry_after_seconds or 0.0)
            held.pressed.worked()  # it brought nothing that a server could refuse: `backoff` alone says when to ask again
            self._took_ill(held, error)
        else:
            again = kept.again_seconds
            if self._held.get(held.key) is not held:
                self._spawn(self._give_back(held.key, kept))
                return
            if held.kept is not None and held.kept.version != kept.version and not self._engine.costly:
                held.pressed.worked()
            held.refreshed += 1
            held.kept, held.failure = kept, None
            held.backoff.worked()
            self._lent(held)
        finally:
            held.task = None
            self._at(held, pacing.FIRST_SECONDS if held.soon else again)
            held.soon = False

    def _took_ill(self, held: _Held[_V], error: vault.Failed) -> None:
        """What is held serves on, unless this was Vault's last word on it."""
        held.failed += 1
        if not error.outage and (held.failure is None or str(held.failure) != str(error)):
            log.warning("a secret could not be had: %s", error)
        held.failure = error.with_traceback(None)
        if error.final:
            held.kept = None
            self._lent(held)

    def _lent(self, held: _Held[_V]) -> None:
        """What is at hand follows what is held."""
        for where in held.wheres:
            self._loans.pop(where, None)
            if held.kept is not None:
                try:
                    self._loans[where] = self._engine.loan(where, held.kept)
                except loans.Unavailable as error:
                    log.warning("a secret is not as it should be: %s", error)

    def _unavailable(self, held: _Held[_V], where: snapshot.Source) -> loans.Unavailable:
        if held.failure is not None:
            return loans.Unavailable(
                _UNAVAILABLE, str(held.failure), retry_after_seconds=held.backoff.left or None
            )
        if held.kept is not None:
            try:
                self._engine.loan(where, held.kept)
            except loans.Unavailable as error:
                error.retry_after_seconds = held.pressed.left or None
                return error
        return loans.Unavailable(
            _UNAVAILABLE, f"it has ended, and there is no newer one: {snapshot.described(where)}"
        )

    async def _ended(self, held: _Held[_V], deadline: float) -> None:
        task = held.task
        if task is None:
            return
        left = deadline - self._timing.clock()
        done, _ = await asyncio.wait({task}, timeout=None if math.isinf(left) else max(0.0, left))
        if not done:
            text = f"Vault has not answered in time for {held.key[0]}"
            raise loans.Unavailable(_UNAVAILABLE, text, retry_after_seconds=pacing.FIRST_SECONDS)

    def _at(self, held: _Held[_V], seconds: float) -> None:
        """Looks at it again then."""
        self._untimed(held)
        if not self._closed and self._held.get(held.key) is held and math.isfinite(seconds):
            held.timer = asyncio.get_running_loop().call_later(seconds, self._due, held)

    def _due(self, held: _Held[_V]) -> None:
        held.timer = None
        if held.task is None:
            self._begin(held)
        else:  # what is under way may have begun with a token that is not good any longer
            held.soon = True

    def _untimed(self, held: _Held[_V]) -> None:
        if held.timer is not None:
            held.timer.cancel()
            held.timer = None

    def _drop(self, held: _Held[_V]) -> None:
        self._untimed(held)
        del self._held[held.key]
        if held.kept is not None:
            self._spawn(self._give_back(held.key, held.kept))
            held.kept = None

    async def _give_back(self, key: tuple[str, Hashable], kept: Kept[_V]) -> None:
        try:
            await self._engine.give_back(key, kept)
        except vault.Failed as error:
            log.info("a lease ends by itself: %s", error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task about a secret failed", exc_info=error)
