# SPDX-License-Identifier: Apache-2.0
"""What a place of secrets lends, and how it is asked: the types between `credentials` and whatever fetches a secret.

Implemented by `secretfiles` for files, by the Vault modules and by the OAuth ones. Nothing here does anything, and nothing that
holds a value has a repr: it must not reach a log (N4).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Protocol

from outrider import decision, identity, names, snapshot


class Unavailable(Exception):
    """The credential cannot be lent. `reason` is what the caller is told, the text is for the log and names no value.

    `retry_after_seconds`: nobody asks its origin again before; None where asking again may help at once.
    """

    def __init__(
        self, reason: decision.Reason, text: str, *, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(text)
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Certificate:
    """For mTLS: PEM, the chain beginning with the certificate itself. `version` tells one from the next; it is no secret."""

    chain: bytes
    key: bytes
    version: str


@dataclasses.dataclass(frozen=True, slots=True, repr=False, eq=False, weakref_slot=True)
class Loan:
    """One secret value, or a certificate instead. As long as nothing has changed, a source lends the very same one.

    `version` tells this value from the one before and the next (never the value itself, nor a hash of it). `expires_at` in seconds
    of the wall clock. `origin`: the scheme://host:port that it is for alone; "" where the secret does not say.
    """

    value: bytes
    version: str = ""
    expires_at: float = math.inf
    origin: str = ""
    certificate: Certificate | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody wants lent: for which server, for whom (a token exchange), and until when they wait (loop time)."""

    where: snapshot.Source
    server: names.ServerId
    user: identity.User | None = None
    deadline: float = math.inf


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """How one secret fares, for metrics and reports. Nothing of users: what is lent in a user's name has one row for all of them.

    `expires_at` in epoch seconds, None for what does not expire or is not held. `available`: it can be lent now (True before
    it was ever asked for). `failing` and `why` tell why the latest refresh failed, if it did; `why` is one line that names no
    value. Counts are of refreshes since the start.
    """

    where: snapshot.Source
    available: bool = True
    expires_at: float | None = None
    failing: decision.Reason | None = None
    why: str = ""
    refreshed: int = 0
    failed: int = 0


class Source(Protocol):
    """One kind of place that secrets come from. Everything is called on the loop's thread."""

    def at_hand(self, wanted: Wanted) -> Loan | None:
        """Without waiting or I/O: what is held, fresh and unexpired; None means `fetch`. May raise Unavailable while backing off."""

    async def fetch(self, wanted: Wanted, *, refused: str | None = None) -> Loan:
        """Waits, until `wanted.deadline` at most; raises Unavailable.

        `refused` is the version that the server answered 401 to: the answer is a newer one if there is any, else the same. Whoever
        asks at the same time shares one request.
        """

    def keep(self, wanted: frozenset[snapshot.Source]) -> None:
        """A snapshot is in force that wants these: everything else is forgotten, and leases of it are revoked."""

    def standing(self) -> Iterable[Standing]:
        """How each secret fares that was asked for."""

    async def close(self) -> None:
        """Nothing is lent any more; what was leased is given back, within two seconds."""
