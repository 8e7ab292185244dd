# SPDX-License-Identifier: Apache-2.0
"""What an engine of Vault makes for a time, as a database does: a `keeping.Engine` for `snapshot.VaultLease`.

Renewed while Vault lets it be, made anew when it nears the most that it may live, when the token that it hangs on was replaced, and
when a server refused it. Given back when nobody wants it any longer. While Vault is away it serves until its own end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Hashable, Mapping
from typing import Any

from outrider import snapshot
from outrider_sidecar import keeping, kvsecrets, loans, logins, pacing, vault

POLL_SECONDS = 60.0
"""What an engine gives without a lease (the password of a static role) is looked at so often."""


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Leased:
    """`token` is the one that Vault revokes it with; `again`: it can be renewed once more."""

    values: Mapping[str, Any]
    id: str
    token: vault.Token
    first_seconds: float
    again: bool


_Kept = keeping.Kept[Leased]


class Leases:
    """Of one site. All fields of what was made at a path come from one lease."""

    costly = True

    def __init__(self, line: vault.Vault, tokens: logins.Logins, timing: pacing.Timing) -> None:
        self._line = line
        self._tokens = tokens
        self._timing = timing
        self._numbers = itertools.count(1)

    def key(self, where: snapshot.VaultLease) -> tuple[str, Hashable]:
        return where.role, where.path

    async def fresh(self, key: tuple[str, Hashable], held: _Kept | None, *, refused: bool) -> _Kept:
        role, path = key
        assert isinstance(path, str)
        if held is not None and not refused and (renewed := await self._renewed(role, held)) is not None:
            return renewed
        made = await self._made(role, path, held)
        if refused and held is not None:
            with contextlib.suppress(vault.Failed):  # it is of no use to anybody, and ends by itself
                await self._revoke(role, held.value)
        return made

    def loan(self, where: snapshot.VaultLease, kept: _Kept) -> loans.Loan:
        value = kvsecrets.text_of(kept.value.values, where.key, f"what Vault makes at {where.path}")
        return loans.Loan(value, version=kept.version, expires_at=kept.expires_at)

    def hangs(self, kept: _Kept) -> bool:
        return bool(kept.value.id)

    async def give_back(self, key: tuple[str, Hashable], kept: _Kept) -> None:
        await self._revoke(key[0], kept.value)

    async def _renewed(self, role: str, held: _Kept) -> _Kept | None:
        """None when it cannot be, and another one has to be made."""
        lease = held.value
        if not lease.again or self._tokens.current(role) is not lease.token:
            return None
        asked_at = self._timing.wall()
        try:
            seconds = await self._tokens.use(
                role, lambda token: self._line.renew_lease(token, role, lease.id)
            )
        except vault.Failed as error:
            if error.final:
                return None
            raise
        if not math.isfinite(seconds):
            seconds = lease.first_seconds
        again = seconds >= lease.first_seconds / 2
        value = lease if again else dataclasses.replace(lease, again=False)
        return keeping.Kept(value, held.version, asked_at + seconds, self._timing.renewal(seconds))

    async def _made(self, role: str, path: str, held: _Kept | None) -> _Kept:
        asked_at = self._timing.wall()

        async def make(token: vault.Token) -> tuple[vault.Lease, vault.Token]:
            return await self._line.make(token, role, path), token

        made, token = await self._tokens.use(role, make)
        lease = Leased(made.values, made.id, token, made.seconds, again=made.renewable and bool(made.id))
        same = held is not None and not made.id and held.value.values == made.values
        version = held.version if held is not None and same else str(next(self._numbers))
        if not made.id or made.seconds <= 0:
            return keeping.Kept(lease, version, math.inf, self._timing.about(POLL_SECONDS))
        return keeping.Kept(lease, version, asked_at + made.seconds, self._timing.renewal(made.seconds))

    async def _revoke(self, role: str, lease: Leased) -> None:
        """Where the token was given back, its leases were as well."""
        if lease.id and (token := self._tokens.current(role)) is not None:
            await self._line.revoke_lease(token, role, lease.id)
