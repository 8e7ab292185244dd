# SPDX-License-Identifier: Apache-2.0
"""The line to one Vault: `vault.Vault` for the loop, over threads that wait.

Made by `vaulted` for a site. It imports the client library in a thread, at the first request. Two requests are under way at most,
and of engines one, for an engine waits for a database that may be slow while secrets are read. When Vault as a whole cannot be asked,
it is not asked by everybody: the line is shut for a while, then one request goes and tells.
"""

from __future__ import annotations

import asyncio
import logging
import pathlib
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from outrider import snapshot
from outrider_sidecar import pacing, vault, workers

if TYPE_CHECKING:
    from outrider_sidecar import hvacvault

log = logging.getLogger("outrider")

THREADS = 2
WAIT_SECONDS = 20.0
"""In all, with what is waited for a thread: as long as one that hangs for its whole time, and one's own."""

_SHUT_SECONDS_MAX = 10.0
_R = TypeVar("_R")


class VaultLine:
    """Speaks for every role; it knows no tokens of its own."""

    def __init__(
        self,
        site: snapshot.Vault,
        token_file: pathlib.Path | None,
        timing: pacing.Timing,
        *,
        answers: Callable[[], None] = lambda: None,
    ) -> None:
        """`answers` is called when an outage is over."""
        self._answers = answers
        self._site = site
        self._token_file = token_file
        self._workers = workers.Workers(THREADS, "vault")
        self._engines = asyncio.Semaphore(THREADS - 1)
        self._client: hvacvault.HvacVault | None = None
        self._making = threading.Lock()
        self._shut = pacing.Backoff(timing, most=_SHUT_SECONDS_MAX)
        self._trying = False
        self._last: vault.Failed | None = None

    async def login(self, role: str) -> vault.Token:
        return await self._ask(lambda client: client.login(role))

    async def alive(self, token: vault.Token) -> bool:
        return await self._ask(lambda client: client.alive(token))

    async def renew(self, token: vault.Token, role: str) -> vault.Token:
        return await self._ask(lambda client: client.renew(token, role))

    async def revoke(self, token: vault.Token, role: str) -> None:
        await self._ask(lambda client: client.revoke(token, role))

    async def secret(self, token: vault.Token, role: str, path: str) -> vault.Secret:
        _check(path)
        return await self._ask(lambda client: client.secret(token, role, path))

    async def version(self, token: vault.Token, role: str, path: str) -> str:
        _check(path)
        return await self._ask(lambda client: client.version(token, role, path))

    async def make(
        self, token: vault.Token, role: str, path: str, wish: Mapping[str, str] | None = None
    ) -> vault.Lease:
        _check(path)
        async with self._engines:
            return await self._ask(lambda client: client.make(token, role, path, wish), engine=True)

    async def renew_lease(self, token: vault.Token, role: str, lease: str) -> float:
        async with self._engines:
            return await self._ask(lambda client: client.renew_lease(token, role, lease), engine=True)

    async def revoke_lease(self, token: vault.Token, role: str, lease: str) -> None:
        async with self._engines:
            await self._ask(lambda client: client.revoke_lease(token, role, lease), engine=True)

    def close(self) -> None:
        """Nothing is asked any more; what is under way may end."""
        self._workers.close()
        if self._client is not None:
            self._client.close()

    async def _ask(self, call: Callable[[hvacvault.HvacVault], _R], *, engine: bool = False) -> _R:
        probing = self._let_through()
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                answer = await self._workers.run(lambda: call(self._made()))
        except TimeoutError:
            text = f"Vault at {self._site.address} is busy: no turn for a request within {WAIT_SECONDS:g} s"
            raise vault.Failed(vault.Trouble.SLOW, text) from None
        except vault.Failed as error:
            # A slow engine says nothing about Vault.
            if error.outage and not (engine and error.trouble is vault.Trouble.SLOW):
                self._outage(error)
            elif error.status:
                self._worked()
            raise
        finally:
            if probing:
                self._trying = False
        self._worked()
        return answer

    def _let_through(self) -> bool:
        """Whether this request is the one that tries. Raises the latest failure while the line is shut."""
        if not self._shut.failures:
            return False
        if self._last is not None and (self._trying or self._shut.left):
            last = self._last
            raise vault.Failed(
                last.trouble, str(last), status=last.status, said=last.said,
                retry_after_seconds=max(self._shut.left, 1.0),
            )  # fmt: skip
        self._trying = True
        return True

    def _outage(self, error: vault.Failed) -> None:
        """Requests that were under way together fail together, and count once. It is told once, whoever asked."""
        if not self._shut.failures:
            log.warning("what comes from Vault serves until it ends: %s", error)
        if not self._shut.left:
            self._shut.failed()
        self._last = error

    def _worked(self) -> None:
        if self._shut.failures:
            log.info("Vault at %s answers again", self._site.address)
            self._shut.worked()
            self._answers()

    def _made(self) -> hvacvault.HvacVault:
        """In a thread: the import takes longer than the loop may be held."""
        with self._making:
            if self._client is None:
                from outrider_sidecar import hvacvault

                self._client = hvacvault.HvacVault(self._site, self._token_file)
            return self._client


def _check(path: str) -> None:
    if not vault.acceptable(path):
        raise vault.Failed(vault.Trouble.REFUSED, "the path is one that Vault is never asked for")
