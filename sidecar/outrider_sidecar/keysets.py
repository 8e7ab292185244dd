# SPDX-License-Identifier: Apache-2.0
"""The keys that one identity provider signs with, as it publishes them now: fetched when first needed, and kept fresh by use.

Made by users, one for each provider, so that keys of two never mix. A set serves for FRESH_SECONDS; then whoever comes next
waits for it, unless it was fetched ahead of time because it is in use. When the provider is away, the last good set serves for
KEPT_SECONDS and is asked for again every WAIT_SECONDS. A key that nobody knows leads to one fetch in WAIT_SECONDS at most,
however many there are (R17).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator

from outrider import snapshot
from outrider_sidecar import fetching, signatures, telemetry

log = logging.getLogger("outrider")

FRESH_SECONDS = 300.0
"""How long a key that the provider has taken away may still be accepted, while the provider can be asked."""

AHEAD_SECONDS = 240.0
"""A set of this age that is used is fetched anew in the background."""

KEPT_SECONDS = 24 * 3600.0
"""How long the last good set serves while the provider cannot be asked (credentials.md)."""

WAIT_SECONDS = 30.0
"""Between two fetches, whatever asks for them."""

FIRST_WAIT_SECONDS = 1.0
"""After a fetch that failed while there is no set at all; doubled with each, up to WAIT_SECONDS."""

FETCH_SECONDS = 5.0
BYTES_MAX = 524_288


class KeySet:
    """`clock` in loop seconds."""

    def __init__(
        self, provider: snapshot.IdentityProvider, fetcher: fetching.Fetcher, clock: Callable[[], float]
    ) -> None:
        self.provider = provider
        self._fetcher = fetcher
        self._clock = clock
        self._keys: tuple[signatures.Key, ...] = ()
        self._identities: frozenset[str] = frozenset()
        self._good_at = self._asked_at = -float("inf")
        self._failures = 0
        self._under_way: asyncio.Task[None] | None = None
        self.failing = ""

    def __len__(self) -> int:
        """Keys that serve now."""
        return len(self._keys) if self._age <= KEPT_SECONDS else 0

    @property
    def _age(self) -> float:
        return self._clock() - self._good_at

    def serves(self) -> bool:
        """Whether what is held may be used now, without asking the provider first. May have it fetched in the background."""
        age = self._age
        if age > AHEAD_SECONDS and self.may_ask():
            if age > FRESH_SECONDS and not self._failures:
                return False
            if age <= KEPT_SECONDS:
                self._ask()
        return age <= (KEPT_SECONDS if self._failures else FRESH_SECONDS)

    def holds(self, identity: str) -> bool:
        """Whether a key is still one of the set, by its `signatures.Key.identity`."""
        return identity in self._identities

    def found(self, kid: str, algorithm: str) -> Iterator[signatures.Key]:
        """The keys that a token can have been signed with. One that names none means the only key that fits."""
        fitting = [key for key in self._keys if algorithm in key.algorithms]
        if not kid:
            return iter(fitting if len(fitting) == 1 else ())
        return (key for key in fitting if key.kid == kid)

    def may_ask(self) -> bool:
        """Whether it is time enough since the provider was last asked."""
        return self._clock() - self._asked_at >= self._wait

    def may_learn(self) -> bool:
        """Whether waiting can help: the provider is being asked, or may be."""
        return self._under_way is not None or self.may_ask()

    @property
    def _wait(self) -> float:
        if self._failures and not len(self):
            return min(WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** min(self._failures - 1, 10))
        return WAIT_SECONDS

    async def refreshed(self) -> None:
        """Returns when the provider has been asked, by whoever came first; at once when it may not be asked yet."""
        task = self._ask()
        if task is not None:
            await asyncio.wait([task])

    def _ask(self) -> asyncio.Task[None] | None:
        if self._under_way is None and self.may_ask():
            self._asked_at = self._clock()
            self._under_way = asyncio.get_running_loop().create_task(self._fetch())
            self._under_way.add_done_callback(self._done)
        return self._under_way

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed("a mistake of ours")
            log.error("keys could not be read", exc_info=error)

    async def _fetch(self) -> None:
        provider = self.provider
        ask = fetching.Ask(
            method="GET",
            url=provider.jwks_uri,
            headers=(("accept", "application/jwk-set+json, application/json"),),
            ca_bundle=provider.ca_bundle,
            bytes_max=BYTES_MAX,
            deadline=self._clock() + FETCH_SECONDS,
        )
        try:
            answer = await self._fetcher.fetch(ask)
            if answer.status != 200:
                self._failed(f"{provider.jwks_uri} answered with status {answer.status}")
                return
            self._fetched(signatures.keys(answer.body))
        except (fetching.FetchFailed, signatures.Unusable) as failure:
            self._failed(str(failure))

    def _fetched(self, keys: tuple[signatures.Key, ...]) -> None:
        identities = frozenset(key.identity for key in keys)
        if self._failures or identities != self._identities:
            log.info(
                "keys of an identity provider",
                extra=telemetry.fields(provider=self.provider.name, keys=len(keys)),
            )
        self._keys, self._identities = keys, identities
        self._good_at = self._clock()
        self._failures, self.failing = 0, ""

    def _failed(self, why: str) -> None:
        if why != self.failing:
            fields = telemetry.fields(provider=self.provider.name, why=why, held=len(self))
            log.warning("the keys of an identity provider cannot be had", extra=fields)
        self._failures, self.failing = self._failures + 1, why

    def drop(self) -> None:
        """The provider does not count any more: whoever waits for it learns that there is nothing."""
        if self._under_way is not None:
            self._under_way.cancel()
