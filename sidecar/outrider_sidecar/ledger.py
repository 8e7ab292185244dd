# SPDX-License-Identifier: Apache-2.0
"""What is left of every budget and rate on this machine, and who holds some of it right now.

Asked by decide (`available`), by the pipeline (`reserve` in the same turn, then `settle` or `release`) and by metrics
(`standing`). Starts from what the journal's replay says was spent (`restore`). Refuses to guess: when it cannot keep one
more pool it says that it does not know, and the call is denied. No I/O, no clock: `now` is wall time in seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from outrider import budgets

POOLS_MAX = 100_000
"""Accounts and buckets kept at once, about 400 bytes each; beyond it `available` is unknown."""
SWEEP_SECONDS = 1.0
"""A full ledger looks for pools to forget at most this often, so that being full stays cheap."""


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """What a hold has of one pool; `end` is the end of the quota's period, 0 for a rate."""

    pool: budgets.Pool
    share: budgets.Share
    end: int

    @property
    def amount(self) -> int:
        """Micro-units set aside, those beyond a cap that only warns included."""
        return self.share.covered + self.share.beyond

    def actual(self, cost: int) -> int:
        """What of it is spent by a call that was sent and cost `cost`: a call counts in full, money as far as used."""
        return min(cost, self.amount) if self.pool.limit.unit is budgets.Unit.COST else self.amount


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Hold:
    """One call's units in every pool it needs, until `settle` or `release` ends it. Each hold ends exactly once."""

    parts: tuple[Part, ...]

    def charges(self, cost: int | None = None) -> tuple[budgets.Charge, ...]:
        """What the journal is told: the maximum before the call, what was spent when `cost` (micro-units) is known.

        Rates are not charges: their buckets start empty after a restart instead of being replayed.
        """
        return tuple(
            budgets.Charge(
                part.pool.id,
                part.share.start,
                part.end,
                part.amount if cost is None else part.actual(cost),
            )
            for part in self.parts
            if part.pool.limit.quota is not None
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Crossing:
    """Spending in `pool` reached `percent` of its quota."""

    pool: budgets.Pool
    percent: int


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """One quota's pool now, in micro-units; `resets_at` in epoch seconds. `limit` is None until a call names it again."""

    pool: str
    unit: budgets.Unit | None
    limit: int | None
    spent: int
    reserved: int
    remaining: int | None
    debt: int
    resets_at: int


class Ledger:
    """Implements budgets.Units. For one event loop: nothing in it waits, so `available` holds until the turn ends."""

    def __init__(self, *, pools_max: int = POOLS_MAX) -> None:
        self._pools_max = pools_max
        self._accounts: dict[str, budgets.Account] = {}
        self._buckets: dict[str, budgets.Bucket] = {}
        self._limits: dict[str, budgets.Limit] = {}
        self._holds: set[Hold] = set()
        self._latest = 0.0
        self._swept_at = 0.0
        self._buckets_empty_at: float | None = None

    @property
    def holds(self) -> int:
        """Calls that hold units now."""
        return len(self._holds)

    def restore(self, charges: Iterable[budgets.Charge], *, latest: float | None) -> None:
        """Takes over what a replay found spent, before the first call.

        `latest` is the wall time of the last record: no period that ended by then opens again, and rates count as used up
        then. None when there was no journal, so that rates start full.
        """
        assert not self._accounts, "restore comes before the first call"
        for charge in charges:
            known = self._accounts.get(charge.pool)
            if known is not None and known.start > charge.start:
                continue
            before = known.holder.used if known is not None and known.start == charge.start else 0
            holder = budgets.Holder(granted=0, used=before + charge.amount)
            self._accounts[charge.pool] = budgets.Account(charge.start, charge.end, holder)
        if latest is not None:
            self._latest = self._buckets_empty_at = latest

    def available(self, pool: budgets.Pool, now: float) -> int | None:
        """Micro-units that `reserve` would give now; None when one more pool cannot be kept."""
        limit = pool.limit
        if not self._has_room(pool, now):
            return None
        if not limit.deny:
            return budgets.UNLIMITED_UNITS
        if limit.quota is None:
            return self._bucket(pool, now).available
        account = self._accounts.get(pool.id)
        now = max(now, self._latest)
        if account is None or now >= account.end:
            return max(0, limit.quota.amount)
        return account.rollover(limit.quota, now).holder.available

    def reserve(self, reservations: Sequence[budgets.Reservation], now: float) -> Hold:
        """Sets units aside in all pools or in none. Raises ValueError when one is short: decide was not asked first."""
        self._latest = max(self._latest, now)
        accounts: dict[str, budgets.Account] = {}
        buckets: dict[str, budgets.Bucket] = {}
        parts = []
        for each in reservations:
            pool, limit = each.pool, each.pool.limit
            if not self._has_room(pool, now):
                raise ValueError(f"no room for pool {pool.id}: {self._pools_max} are kept already")
            if limit.quota is None:
                bucket = buckets.get(pool.id) or self._bucket(pool, now)
                buckets[pool.id], share = bucket.take(each.amount, overdraw=not limit.deny)
                parts.append(Part(pool, share, 0))
                continue
            account = accounts.get(pool.id) or self._account(pool, limit.quota)
            accounts[pool.id], share = account.admit(each.amount, overdraw=not limit.deny)
            parts.append(Part(pool, share, account.end))
        self._accounts.update(accounts)
        self._buckets.update(buckets)
        for part in parts:
            self._limits[part.pool.id] = part.pool.limit
        hold = Hold(tuple(parts))
        self._holds.add(hold)
        return hold

    def release(self, hold: Hold) -> None:
        """Ends a hold whose call was never sent: everything goes back. Raises ValueError when it has ended already."""
        self._end(hold)
        for part in hold.parts:
            pool, limit = part.pool, part.pool.limit
            if limit.rate is not None and pool.id in self._buckets:
                self._buckets[pool.id] = self._buckets[pool.id].put_back(part.share, limit.rate)
            elif pool.id in self._accounts:
                self._accounts[pool.id] = self._accounts[pool.id].settle(part.share, 0)

    def settle(self, hold: Hold, cost: int) -> tuple[Crossing, ...]:
        """Ends a hold whose call may have been seen upstream and cost `cost` micro-units.

        Pools of calls keep the whole call, pools of money min(cost, reserved). Returns the thresholds this spending
        reached. Raises ValueError when the hold has ended already.
        """
        self._end(hold)
        crossings: list[Crossing] = []
        for part in hold.parts:
            quota, account = part.pool.limit.quota, self._accounts.get(part.pool.id)
            if quota is None or account is None:
                continue
            settled = account.settle(part.share, part.actual(cost))
            self._accounts[part.pool.id] = settled
            crossings += [
                Crossing(part.pool, percent)
                for percent in budgets.crossed(account.spent, settled.spent, quota)
            ]
        return tuple(crossings)

    def standing(self, now: float) -> tuple[Standing, ...]:
        """Every quota's pool of a period that has not ended, by id."""
        rows = []
        for pool, account in sorted(self._accounts.items()):
            if max(now, self._latest) >= account.end:
                continue
            limit = self._limits.get(pool)
            quota = limit.quota if limit is not None else None
            held = account if quota is None else account.rollover(quota, max(now, self._latest))
            rows.append(
                Standing(
                    pool=pool,
                    unit=limit.unit if limit is not None else None,
                    limit=quota.amount if quota is not None else None,
                    spent=held.spent,
                    reserved=held.holder.inflight,
                    remaining=held.holder.available if quota is not None else None,
                    debt=held.holder.debt,
                    resets_at=held.end,
                )
            )
        return tuple(rows)

    def _account(self, pool: budgets.Pool, quota: budgets.Quota) -> budgets.Account:
        account = self._accounts.get(pool.id)
        if account is None:
            return budgets.opened(quota, self._latest)
        return account.rollover(quota, self._latest)

    def _bucket(self, pool: budgets.Pool, now: float) -> budgets.Bucket:
        rate = pool.limit.rate
        assert rate is not None
        bucket = self._buckets.get(pool.id)
        if bucket is None and self._buckets_empty_at is not None:
            bucket = budgets.Bucket(0, round(self._buckets_empty_at * budgets.MICRO))
        return budgets.full_bucket(rate, now) if bucket is None else bucket.refilled(rate, now)

    def _has_room(self, pool: budgets.Pool, now: float) -> bool:
        if pool.id in self._accounts or pool.id in self._buckets or self._kept < self._pools_max:
            return True
        if abs(now - self._swept_at) >= SWEEP_SECONDS:
            self._swept_at = now
            self._drop_past(now)
        return self._kept < self._pools_max

    @property
    def _kept(self) -> int:
        return len(self._accounts) + len(self._buckets)

    def _drop_past(self, now: float) -> None:
        """Forgets accounts of periods that have ended (they never open again) and buckets that are full."""
        self._latest = max(self._latest, now)
        ended = [pool for pool, account in self._accounts.items() if self._latest >= account.end]
        rates = ((pool, self._limits[pool].rate, bucket) for pool, bucket in self._buckets.items())
        full = [
            pool
            for pool, rate, bucket in rates
            if rate is not None and bucket.refilled(rate, now).available >= rate.burst
        ]
        for pool in ended:
            del self._accounts[pool]
            self._limits.pop(pool, None)
        for pool in full:
            del self._buckets[pool]
            self._limits.pop(pool, None)

    def _end(self, hold: Hold) -> None:
        if hold not in self._holds:
            raise ValueError("this hold has ended already")
        self._holds.remove(hold)
