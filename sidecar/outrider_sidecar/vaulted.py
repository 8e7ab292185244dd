# SPDX-License-Identifier: Apache-2.0
"""Everything of Vault in one proxy: the sources of `credentials`, at the site that is in force.

Made by main, which tells it of the site and of what is wanted whenever a snapshot comes into force. Another site is another world:
what was got from the old one is forgotten, and its tokens are given back. The client library is imported with the first request, in a
thread, so that whoever needs no Vault carries none.
"""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from outrider import decision, snapshot
from outrider_sidecar import clientcertificates, keeping, kvsecrets, leases, loans, logins, pacing, vaultline

_UNAVAILABLE = decision.Reason.CREDENTIAL_UNAVAILABLE
_NO_VAULT = "no Vault is configured; set vault.address in the installation's settings"

HASTE_SECONDS_MAX = 30.0
"""What hangs on a token that was replaced is got anew within this, or half of what the old token still lives."""


class _Site:
    """One Vault."""

    def __init__(
        self,
        site: snapshot.Vault,
        token_file: pathlib.Path | None,
        timing: pacing.Timing,
        *,
        poll_seconds: float,
    ) -> None:
        self.site = site
        self._line = vaultline.VaultLine(site, token_file, timing, answers=self._answers)
        tokens = self._tokens = logins.Logins(self._line, timing, moved=self._moved)
        kv = kvsecrets.KvSecrets(self._line, tokens, timing, mount=site.mount, poll_seconds=poll_seconds)
        made = clientcertificates.ClientCertificates(self._line, tokens, timing)
        self.kinds: dict[type, keeping.Keeping[Any]] = {
            snapshot.VaultSecret: keeping.Keeping(kv, timing),
            snapshot.VaultLease: keeping.Keeping(leases.Leases(self._line, tokens, timing), timing),
            snapshot.ClientCertificate: keeping.Keeping(made, timing),
        }

    def tidy(self) -> None:
        """Gives back the tokens of roles that nothing needs any longer."""
        self._tokens.keep(frozenset().union(*(each.roles() for each in self.kinds.values())))

    async def close(self) -> None:
        await asyncio.gather(*(each.close() for each in self.kinds.values()))
        await self._tokens.close()
        self._line.close()

    def _answers(self) -> None:
        """Whatever was put off for an outage need not wait any longer."""
        self._tokens.resume()
        for each in self.kinds.values():
            each.resume()

    def _moved(self, role: str, seconds: float) -> None:
        within = min(HASTE_SECONDS_MAX, seconds / 2)
        for each in self.kinds.values():
            each.hasten(role, within)


class _Kind:
    """`loans.Source` for one kind of place, whatever site is in force."""

    def __init__(self, all_of_it: Vaulted, kind: type) -> None:
        self._all = all_of_it
        self._kind = kind
        self.now: keeping.Keeping[Any] | None = None
        self._nowhere: dict[snapshot.Source, int] = {}

    def at_hand(self, wanted: loans.Wanted) -> loans.Loan | None:
        return self.now.at_hand(wanted) if self.now is not None else None

    async def fetch(self, wanted: loans.Wanted, *, refused: str | None = None) -> loans.Loan:
        if self.now is None:
            if (before := self._nowhere.get(wanted.where)) is not None:
                self._nowhere[wanted.where] = before + 1
            raise loans.Unavailable(_UNAVAILABLE, _NO_VAULT)
        return await self.now.fetch(wanted, refused=refused)

    def keep(self, wanted: frozenset[snapshot.Source]) -> None:
        own = () if self.now is not None else (each for each in wanted if isinstance(each, self._kind))
        self._nowhere = {each: self._nowhere.get(each, 0) for each in own}
        if self.now is not None:
            self.now.keep(wanted)
            self._all.tidy()

    def standing(self) -> Iterable[loans.Standing]:
        if self.now is not None:
            return self.now.standing()
        return tuple(
            loans.Standing(where, available=False, failing=_UNAVAILABLE, why=_NO_VAULT, failed=asked)
            for where, asked in self._nowhere.items()
        )

    async def close(self) -> None:
        await self._all.close()


class Vaulted:
    """`sources` stay the same objects for ever; `configure` says which Vault is behind them."""

    def __init__(
        self,
        timing: pacing.Timing,
        token_file: pathlib.Path | None,
        *,
        poll_seconds: float = kvsecrets.POLL_SECONDS,
    ) -> None:
        self._timing = timing
        self._token_file = token_file
        self._poll_seconds = poll_seconds
        self._site: _Site | None = None
        self._closing: set[asyncio.Task[None]] = set()
        kinds = (snapshot.VaultSecret, snapshot.VaultLease, snapshot.ClientCertificate)
        self._kinds: dict[type, _Kind] = {kind: _Kind(self, kind) for kind in kinds}
        self.sources: Mapping[type, loans.Source] = dict(self._kinds)

    def configure(self, site: snapshot.Vault | None) -> None:
        """A snapshot with this site is in force; called before `keep`."""
        old = self._site
        if (old.site if old is not None else None) == site:
            return
        made = None
        if site is not None:
            made = _Site(site, self._token_file, self._timing, poll_seconds=self._poll_seconds)
        self._site = made
        for kind, each in self._kinds.items():
            each.now = made.kinds[kind] if made is not None else None
        if old is not None:
            task = asyncio.get_running_loop().create_task(old.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def tidy(self) -> None:
        """Called when a kind knows what is wanted of it."""
        if self._site is not None:
            self._site.tidy()

    async def close(self) -> None:
        """Nothing is lent any more; tokens are given back, within two seconds. As often as it is called."""
        self.configure(None)
        await asyncio.gather(*self._closing)
