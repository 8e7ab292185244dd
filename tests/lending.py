# SPDX-License-Identifier: Apache-2.0
"""What tests of lending share: an entry with a credential, its permit, and a place of secrets whose secrets a test rotates."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Iterable

import msgspec

from outrider import bind, decide, decision, snapshot, testing
from outrider_sidecar import loans

SECRET = snapshot.VaultSecret(role="outrider-crm", path="outrider/servers/crm/salesforce/org", key="token")
R = decision.Reason


def entry(source: snapshot.Source | None = SECRET, **more: object) -> snapshot.Credential:
    made = {"name": "org", "header": "Authorization", "prefix": "Bearer ", **more}
    return snapshot.Credential(source=source, **made)  # type: ignore[arg-type]


def a_bound(
    *entries: snapshot.Credential, url: str = "https://mcp.example/mcp", **endpoint: str
) -> bind.Bound:
    view = testing.a_server(testing.allow(), credential_required=bool(entries), credentials=entries)
    place = snapshot.Endpoint(url=url, **endpoint)  # type: ignore[arg-type]
    return bind.bound(testing.a_snapshot(msgspec.structs.replace(view, endpoint=place)), {})


def a_permit(entry: snapshot.Credential, **endpoint: str) -> decision.Permit:
    """For the proxy's own question, whichever credential it would choose for that."""
    permit = decide.permit_listing(a_bound(**endpoint), testing.CRM)
    assert isinstance(permit, decision.Permit)
    view = a_bound(entry, **endpoint).servers[testing.CRM].view
    return dataclasses.replace(permit, server=view, credential=entry)


class Place:
    """A `loans.Source`, and no fake of one of ours: secrets stand in memory. `value` is rotated by setting it.

    `fetched` are the versions that were refused, one per fetch; a fetch waits for `open`. `seen` is what at_hand lends: nothing
    before the first fetch. `away` is raised instead.
    """

    def __init__(self, value: bytes = b"canary-1", **more: object) -> None:
        self.loan = loans.Loan(value, "1", **more)  # type: ignore[arg-type]
        self.seen: loans.Loan | None = None
        self.fetched: list[str | None] = []
        self.wanted: list[loans.Wanted] = []
        self.kept: frozenset[snapshot.Source] = frozenset()
        self.away: loans.Unavailable | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.closed = False

    def rotate(self, value: bytes, *, expires_at: float = math.inf) -> None:
        self.loan = loans.Loan(value, str(int(self.loan.version) + 1), expires_at)

    def at_hand(self, wanted: loans.Wanted) -> loans.Loan | None:
        return self.seen if not self.wanted or wanted.user is self.wanted[-1].user else None

    async def fetch(self, wanted: loans.Wanted, *, refused: str | None = None) -> loans.Loan:
        self.fetched.append(refused)
        self.wanted.append(wanted)
        await self.open.wait()
        if self.away is not None:
            raise self.away
        self.seen = self.loan
        return self.loan

    def keep(self, wanted: frozenset[snapshot.Source]) -> None:
        self.kept = wanted

    def standing(self) -> Iterable[loans.Standing]:
        if self.fetched:
            failing = None if self.away is None else self.away.reason
            yield loans.Standing(
                SECRET, available=self.away is None, failing=failing, refreshed=len(self.fetched)
            )

    async def close(self) -> None:
        self.closed = True
