# SPDX-License-Identifier: Apache-2.0
"""One token of Vault's per role: got when it is first needed, renewed while it is, given back when it is not.

Used by the engines through `use`. One login of a role is under way at a time, and all who wait share how it ends. A token that Vault
does not know any longer is replaced once; one that may not do what was asked is not replaced for every refusal, for that would
be a login with each call. Tokens live here and on their way to Vault, and nowhere else (R25).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from outrider_sidecar import pacing, vault

log = logging.getLogger("outrider")

GRACE_SECONDS = 600.0
"""A login that is refused may be Vault's trouble with reviewing tokens (the `kubernetes` method says 403 when the API server is
away): what was got before serves on so long."""

POLICY_SECONDS = 300.0
"""Policies are those of the login. So old a token is replaced when it may not do something: its role may have got more since."""

CLOSE_SECONDS = 2.0
_R = TypeVar("_R")
_T = vault.Trouble


@dataclasses.dataclass(slots=True, repr=False, eq=False)
class _Login:
    """How it stands with one role. Times are of the loop's clock."""

    role: str
    backoff: pacing.Backoff
    token: vault.Token | None = None
    since: float = -math.inf
    ends_at: float = -math.inf
    lives_seconds: float = 0.0
    refused_since: float | None = None
    failure: vault.Failed | None = None
    task: asyncio.Task[vault.Token] | None = None
    timer: asyncio.TimerHandle | None = None


class Logins:
    """For one site. `moved` is told of a role whose token was replaced, and for how long the old one still lives (seconds)."""

    def __init__(
        self,
        line: vault.Vault,
        timing: pacing.Timing,
        *,
        moved: Callable[[str, float], None] = lambda *_: None,
    ) -> None:
        self._line = line
        self._timing = timing
        self._moved = moved
        self._logins: dict[str, _Login] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def use(self, role: str, act: Callable[[vault.Token], Awaitable[_R]]) -> _R:
        """What `act` does with a token; once more with another one if Vault would not have the first. Raises vault.Failed."""
        token = await self._token(self._of(role))
        try:
            return await act(token)
        except vault.Failed as error:
            if error.trouble is not _T.DENIED:
                raise
            refusal = error
        other = await self._another(self._of(role), token)
        if other is None:
            raise refusal
        return await act(other)

    def current(self, role: str) -> vault.Token | None:
        """The token that is in use, if there is one."""
        held = self._logins.get(role)
        return held.token if held is not None else None

    def resume(self) -> None:
        """Vault can be asked again: what failed for an outage may be tried at once."""
        for held in self._logins.values():
            if held.failure is not None and held.failure.outage:
                held.backoff.worked()

    def keep(self, roles: frozenset[str]) -> None:
        """Tokens of other roles are given back."""
        for role in [each for each in self._logins if each not in roles]:
            self._spawn(self._give_back(self._forget(role)))

    async def close(self) -> None:
        """Every token is given back, and its leases with it, within two seconds or not at all."""
        self._closed = True
        work = [self._spawn(self._give_back(self._forget(role))) for role in tuple(self._logins)]
        work += self._tasks
        if work:
            await asyncio.wait(work, timeout=CLOSE_SECONDS)
        for each in tuple(self._tasks):
            each.cancel()

    # Inside ---------------------------------------------------------------------------------------------------------

    def _of(self, role: str) -> _Login:
        if self._closed:
            raise vault.Failed(_T.UNPREPARED, "the proxy is about to end, and asks Vault for nothing more")
        held = self._logins.get(role)
        if held is None:
            held = self._logins[role] = _Login(role, pacing.Backoff(self._timing))
        return held

    async def _token(self, held: _Login) -> vault.Token:
        if held.token is not None and self._timing.clock() < held.ends_at:
            return held.token
        return await self._logged_in(held)

    async def _another(self, held: _Login, token: vault.Token) -> vault.Token | None:
        """Instead of one that was refused; None when another one would be refused as well."""
        if held.token is token:
            alive = await self._line.alive(token)
            old = self._timing.clock() - held.since >= POLICY_SECONDS
            if alive and not old:
                return None
            if not alive and held.token is token and self._timing.clock() < held.ends_at:
                log.warning(
                    "Vault does not know the token of role %s any longer: logging in again", held.role
                )
                held.ends_at = -math.inf
            if alive and held.token is token:
                with contextlib.suppress(vault.Failed):
                    return await self._logged_in(held)
                return None
        return await self._token(held)

    async def _logged_in(self, held: _Login) -> vault.Token:
        """Shared by all who ask at the same time, failures too."""
        if held.task is None:
            if held.backoff.left and held.failure is not None:
                raise self._again(held)
            held.task = self._spawn(self._log_in(held))
        return await asyncio.shield(held.task)

    def _again(self, held: _Login) -> vault.Failed:
        """The latest failure, for whoever asks before its time."""
        error = held.failure
        assert error is not None
        trouble = self._weighed(held, error)
        return vault.Failed(
            trouble, str(error), status=error.status, said=error.said, retry_after_seconds=held.backoff.left
        )

    async def _log_in(self, held: _Login) -> vault.Token:
        try:
            token = await self._line.login(held.role)
        except vault.Failed as error:
            waits = max(held.backoff.failed(), error.retry_after_seconds or 0.0)
            held.failure = error
            if error.final and held.refused_since is None:
                held.refused_since = self._timing.clock()
            if held.token is not None:
                self._at(held, waits)
            raise self._again(held) from None
        finally:
            held.task = None
        before, left = held.token, held.ends_at - self._timing.clock()
        held.backoff.worked()
        held.failure = held.refused_since = None
        held.since, held.lives_seconds = self._timing.clock(), token.seconds
        self._take(held, token)
        if self._logins.get(held.role) is not held:
            await self._give_back(held)
            raise vault.Failed(_T.UNPREPARED, f"role {held.role} is not used any longer")
        if before is not None:
            self._moved(held.role, max(0.0, left))
        return token

    def _weighed(self, held: _Login, error: vault.Failed) -> vault.Trouble:
        """A login that is refused is Vault's word about secrets only when it lasts."""
        if not error.final or held.refused_since is None:
            return error.trouble
        lasted = self._timing.clock() - held.refused_since
        return _T.DENIED if lasted >= GRACE_SECONDS else _T.UNADMITTED

    def _take(self, held: _Login, token: vault.Token) -> None:
        held.token = token
        held.ends_at = self._timing.clock() + token.seconds
        self._at(held, self._timing.renewal(token.seconds))

    def _at(self, held: _Login, seconds: float) -> None:
        """Looks after a token then."""
        if held.timer is not None:
            held.timer.cancel()
            held.timer = None
        if not self._closed and math.isfinite(seconds):
            loop = asyncio.get_running_loop()
            held.timer = loop.call_later(seconds, lambda: self._spawn(self._renew(held)))

    async def _renew(self, held: _Login) -> None:
        """Renews, or logs in anew where that is not possible, or not for long any more."""
        token = held.token
        if token is None or self._closed:
            return
        # What could be renewed for less than half of what it lived at first nears the most that it may live.
        if (
            token.renewable
            and token.seconds >= held.lives_seconds / 2
            and self._timing.clock() < held.ends_at
        ):
            try:
                renewed = await self._line.renew(token, held.role)
            except vault.Failed as error:
                if not error.final:
                    self._at(held, max(held.backoff.failed(), error.retry_after_seconds or 0.0))
                    return
            else:
                if held.token is token and self._logins.get(held.role) is held:
                    held.backoff.worked()
                    token.seconds, token.renewable = renewed.seconds, renewed.renewable
                    self._take(held, token)
                return
        try:
            await self._logged_in(held)
        except vault.Failed as error:
            log.warning("a login at Vault failed: %s", error)

    def _forget(self, role: str) -> _Login:
        held = self._logins.pop(role)
        if held.timer is not None:
            held.timer.cancel()
        return held

    async def _give_back(self, held: _Login) -> None:
        """Whatever Vault says to it; a batch token ends by itself."""
        token, held.token = held.token, None
        if token is None or self._timing.clock() >= held.ends_at:
            return
        try:
            await self._line.revoke(token, held.role)
        except vault.Failed as error:
            log.info("the token of role %s ends by itself: %s", held.role, error)

    def _spawn(self, work: Coroutine[Any, Any, _R]) -> asyncio.Task[_R]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if (
            not task.cancelled()
            and (error := task.exception()) is not None
            and not isinstance(error, vault.Failed)
        ):
            log.error("a task about Vault failed", exc_info=error)
