# SPDX-License-Identifier: Apache-2.0
"""Who is behind the agent: the tokens of `Outrider-User`, verified once each and remembered until they expire.

Called by intake for every request that carries one. A token is a user or a refusal, never nobody (N6). What is remembered holds as
long as the provider is configured as it was, its key set still holds the key that signed, and the token has not expired: a key
that is taken away is accepted for `keysets.FRESH_SECONDS` at most, or `keysets.KEPT_SECONDS` while its provider is away.
Tokens are in memory only, and found by their digest.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from outrider import identity, snapshot
from outrider_sidecar import tokens

if TYPE_CHECKING:
    from outrider_sidecar import fetching, keysets

USERS_MAX = 1_024
"""Verified tokens that are remembered; of those on top the one unused for longest is verified again when it comes."""

CHARACTERS_MAX = 4_194_304
"""Of all remembered tokens together."""

Found = identity.User | tokens.Refused


@dataclasses.dataclass(slots=True)
class _Known:
    """A token that was verified: with which key of which set."""

    user: identity.User
    keys: keysets.KeySet
    key: str


def prepare() -> None:
    """Loads what verifying takes, a tenth of a second of it: off the loop's thread, before a snapshot that needs it is in force."""
    from outrider_sidecar import keysets  # noqa: F401 -- so that `configure` finds it loaded


class Users:
    """`clock` in loop seconds, `wall` in epoch seconds."""

    def __init__(
        self, fetcher: fetching.Fetcher, *, clock: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self._fetcher = fetcher
        self._clock = clock
        self._wall = wall
        self._providers = tokens.Providers(())
        self._sets: dict[str, keysets.KeySet] = {}
        self._known: collections.OrderedDict[bytes, _Known] = collections.OrderedDict()
        self._characters = 0

    def __len__(self) -> int:
        """Tokens that are remembered."""
        return len(self._known)

    def configure(self, providers: Iterable[snapshot.IdentityProvider]) -> None:
        """From now on these count. What is known of a provider that is as it was stays known."""
        wanted = {each.name: each for each in providers}
        if wanted == {name: held.provider for name, held in self._sets.items()}:
            return
        self._providers = tokens.Providers(wanted.values())
        before = self._sets.values()
        self._sets = {name: self._set(provider) for name, provider in wanted.items()}
        for keys in before:
            if self._sets.get(keys.provider.name) is not keys:
                keys.drop()
        for digest, known in tuple(self._known.items()):
            if self._sets.get(known.keys.provider.name) is not known.keys:
                self._forget(digest)

    def _set(self, provider: snapshot.IdentityProvider) -> keysets.KeySet:
        held = self._sets.get(provider.name)
        if held is not None and held.provider == provider:
            return held
        from outrider_sidecar import keysets

        return keysets.KeySet(provider, self._fetcher, self._clock)

    def sets(self) -> tuple[keysets.KeySet, ...]:
        """The key sets of the providers that count, for whoever reports how they fare."""
        return tuple(self._sets.values())

    def verified(self, token: str) -> Found | None:
        """Who a token is of, or why of nobody; None when that needs waiting (`verify`)."""
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known is not None:
            if self._wall() >= known.user.expires_at + tokens.LEEWAY_SECONDS:
                self._forget(digest)
            elif known.keys.serves() and known.keys.holds(known.key):
                self._known.move_to_end(digest)
                return known.user
        return self._anew(token, digest)

    def _anew(self, token: str, digest: bytes) -> Found | None:
        claimed = self._providers.claimed(token, self._wall())
        if isinstance(claimed, tokens.Refused):
            return claimed
        keys = self._sets[claimed.provider.name]
        about = f"provider {claimed.provider.name}, kid {tokens.shown(claimed.kid)}"
        if not keys.serves():
            return None if keys.may_learn() else tokens.Refused(tokens.Flaw.KEYS_UNAVAILABLE, about)
        flaw = tokens.Flaw.KEY_UNKNOWN
        for key in keys.found(claimed.kid, claimed.algorithm):
            if key.verifies(claimed.signed, claimed.signature, claimed.algorithm):
                self._remember(digest, _Known(claimed.user, keys, key.identity))
                return claimed.user
            flaw = tokens.Flaw.SIGNATURE
        # The provider may have changed its keys since; it is asked, but seldom.
        return None if keys.may_learn() else tokens.Refused(flaw, about)

    async def verify(self, token: str) -> Found:
        """As `verified`, once the provider's keys have been asked for if that can help. Who asks for the same shares one request."""
        for _ in range(2):
            if (found := self.verified(token)) is not None:
                return found
            claimed = self._providers.claimed(token, self._wall())
            if isinstance(claimed, tokens.Refused):
                return claimed
            await self._sets[claimed.provider.name].refreshed()
        return self.verified(token) or tokens.Refused(tokens.Flaw.KEYS_UNAVAILABLE)

    def _remember(self, digest: bytes, known: _Known) -> None:
        self._forget(digest)
        self._known[digest] = known
        self._characters += len(known.user.token)
        while len(self._known) > USERS_MAX or self._characters > CHARACTERS_MAX:
            self._forget(next(iter(self._known)))

    def _forget(self, digest: bytes) -> None:
        known = self._known.pop(digest, None)
        if known is not None:
            self._characters -= len(known.user.token)

    def close(self) -> None:
        """Asks nobody any more, and forgets every token."""
        self.configure(())


def present(user: identity.User | None, now: float) -> identity.User | None:
    """Whom a user still is at `now` (epoch seconds): nobody when the token has expired meanwhile."""
    return None if user is None or now >= user.expires_at + tokens.LEEWAY_SECONDS else user
