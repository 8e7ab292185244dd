# SPDX-License-Identifier: Apache-2.0
"""Certificates that Vault's PKI engine issues, for mTLS: a `keeping.Engine` for `snapshot.ClientCertificate`.

One is issued anew after two thirds of its life, and the old one serves until its end if that fails. One that the engine keeps a lease
of is revoked when nobody wants it any longer; others end by themselves, for revoking them would need a right over all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

from outrider import decision, snapshot
from outrider_sidecar import keeping, loans, logins, pacing, vault

_CERTIFICATE = "-----BEGIN CERTIFICATE-----"
_KEY = "PRIVATE KEY-----"


class Issue(NamedTuple):
    """What is asked for."""

    path: str
    common_name: str
    ttl_seconds: int


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Issued:
    """None where what Vault gave is no certificate with a key."""

    certificate: loans.Certificate | None
    lease: str


_Kept = keeping.Kept[Issued]


class ClientCertificates:
    """Of one site."""

    costly = True

    def __init__(self, line: vault.Vault, tokens: logins.Logins, timing: pacing.Timing) -> None:
        self._line = line
        self._tokens = tokens
        self._timing = timing

    def key(self, where: snapshot.ClientCertificate) -> tuple[str, Hashable]:
        return where.role, Issue(where.path, where.common_name, where.ttl_seconds)

    async def fresh(
        self, key: tuple[str, Hashable], _: _Kept | None = None, *, refused: bool
    ) -> _Kept:  # there is no renewing: each is another one
        del refused
        role, issue = key
        assert isinstance(issue, Issue)
        wish = {"common_name": issue.common_name, "ttl": f"{issue.ttl_seconds}s"}
        asked_at = self._timing.wall()
        made = await self._tokens.use(role, lambda token: self._line.make(token, role, issue.path, wish))
        ends = made.values.get("expiration")
        # An old engine does not say when it ends: as long as was asked for, then.
        good = isinstance(ends, int) and not isinstance(ends, bool)
        expires_at = float(ends) if good and isinstance(ends, int) else asked_at + issue.ttl_seconds
        certificate = _certificate(made.values)
        version = certificate.version if certificate is not None else ""
        again = self._timing.renewal(max(pacing.FIRST_SECONDS, expires_at - asked_at))
        return keeping.Kept(Issued(certificate, made.id), version, expires_at, again)

    def loan(self, where: snapshot.ClientCertificate, kept: _Kept) -> loans.Loan:
        certificate = kept.value.certificate
        if certificate is None:
            text = f"what Vault issued at {where.path} is no certificate with its key; the path has to be a PKI engine's issue/ROLE"
            raise loans.Unavailable(decision.Reason.CREDENTIAL_MALFORMED, text)
        return loans.Loan(
            b"", version=certificate.version, expires_at=kept.expires_at, certificate=certificate
        )

    def hangs(self, kept: _Kept) -> bool:
        return bool(kept.value.lease)

    async def give_back(self, key: tuple[str, Hashable], kept: _Kept) -> None:
        role, lease = key[0], kept.value.lease
        if lease and (token := self._tokens.current(role)) is not None:
            await self._line.revoke_lease(token, role, lease)


def _certificate(values: Mapping[str, Any]) -> loans.Certificate | None:
    own, private, serial = (values.get(each) for each in ("certificate", "private_key", "serial_number"))
    if not (isinstance(own, str) and isinstance(private, str) and isinstance(serial, str)):
        return None
    if _CERTIFICATE not in own or _KEY not in private or not serial:
        return None
    chain = values.get("ca_chain")
    above = [each for each in chain if isinstance(each, str)] if isinstance(chain, list) else []
    whole = "\n".join(each.strip() for each in (own, *above)) + "\n"
    return loans.Certificate(whole.encode(), private.strip().encode() + b"\n", serial)
