# SPDX-License-Identifier: Apache-2.0
"""KV v2 secrets of Vault, read once and then looked at once a minute: a `keeping.Engine` for `snapshot.VaultSecret`.

A look asks for the version alone, and the values are read when it is another one. A secret has no end of its own: while Vault is
away it serves on, and when Vault says that it is deleted, or that this role may not read it, it serves no longer.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from outrider import decision, snapshot
from outrider_sidecar import keeping, loans, logins, pacing, vault

POLL_SECONDS = 60.0
ORIGIN_KEY = "outrider_origin"
"""What a secret may say itself about where it may be sent: scheme://host:port (credentials.md)."""

_FOREVER = float("inf")


class KvSecrets:
    """Of one site."""

    costly = False

    def __init__(
        self,
        line: vault.Vault,
        tokens: logins.Logins,
        timing: pacing.Timing,
        *,
        mount: str,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._line = line
        self._tokens = tokens
        self._timing = timing
        self._mount = mount
        self._poll_seconds = poll_seconds

    def key(self, where: snapshot.VaultSecret) -> tuple[str, Hashable]:
        return where.role, where.path

    async def fresh(
        self, key: tuple[str, Hashable], held: keeping.Kept[Mapping[str, Any]] | None, *, refused: bool
    ) -> keeping.Kept[Mapping[str, Any]]:
        role, path = key
        assert isinstance(path, str)

        async def read(token: vault.Token) -> keeping.Kept[Mapping[str, Any]]:
            if held is not None and not refused and await self._unchanged(token, role, path, held.version):
                return self._kept(held.value, held.version)
            secret = await self._line.secret(token, role, path)
            return self._kept(secret.values, secret.version)

        return await self._tokens.use(role, read)

    def loan(self, where: snapshot.VaultSecret, kept: keeping.Kept[Mapping[str, Any]]) -> loans.Loan:
        place = f"the secret at {self._mount}/{where.path}"
        origin = kept.value.get(ORIGIN_KEY, "")
        if not isinstance(origin, str):
            text = f"key {ORIGIN_KEY!r} of {place} is no string"
            raise loans.Unavailable(decision.Reason.CREDENTIAL_MALFORMED, text)
        return loans.Loan(text_of(kept.value, where.key, place), version=kept.version, origin=origin)

    def hangs(self, _: keeping.Kept[Mapping[str, Any]]) -> bool:
        return False

    async def give_back(
        self, key: tuple[str, Hashable], kept: keeping.Kept[Mapping[str, Any]]
    ) -> None:  # there is nothing to give back
        pass

    async def _unchanged(self, token: vault.Token, role: str, path: str, version: str) -> bool:
        """A role that may read the secret and not its metadata has it read each time."""
        try:
            return await self._line.version(token, role, path) == version
        except vault.Failed as error:
            if error.final:
                return False
            raise

    def _kept(self, values: Mapping[str, Any], version: str) -> keeping.Kept[Mapping[str, Any]]:
        return keeping.Kept(values, version, _FOREVER, self._timing.about(self._poll_seconds))


def text_of(values: Mapping[str, Any], key: str, place: str) -> bytes:
    """One value of what Vault gave. Raises loans.Unavailable naming the key and the place."""
    if key not in values:
        text = f"{place} has no key {key!r}; write it there, or name another key in the entry's vault.key"
        raise loans.Unavailable(decision.Reason.CREDENTIAL_UNAVAILABLE, text)
    value = values[key]
    if not isinstance(value, str):
        raise loans.Unavailable(
            decision.Reason.CREDENTIAL_MALFORMED, f"key {key!r} of {place} is no string; write it as one"
        )
    return value.encode("utf-8", "surrogatepass")
