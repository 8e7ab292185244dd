# SPDX-License-Identifier: Apache-2.0
"""Budgets and rate limits as arithmetic: state in, state out, integers in micro-units, no clock.

`Limit`, `Quota`, `Rate` and `Price` travel in snapshots; `Pool` is one counter of one limit for one call's key. Called by
decide (`pool_of`, `reserve`, `retry_after`), by the ledger (`Account`, `Bucket`) and by the pipeline (`cost`). Refuses to
keep state: every change returns a new value, so that a crash between two of them can never leave half of one.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import zoneinfo
from typing import Final, NamedTuple, Protocol

import msgspec

from outrider import names, rules

MICRO = 1_000_000
"""Everything counted is an integer in millionths: one call is 1,000,000; one unit of currency is 1,000,000."""


class Unit(enum.Enum):
    CALLS = "Calls"
    COST = "Cost"


class Period(enum.Enum):
    MINUTE = "Minute"
    HOUR = "Hour"
    DAY = "Day"
    WEEK = "Week"
    MONTH = "Month"


class OnError(enum.Enum):
    """What a call that failed, was cancelled or whose outcome is unknown costs."""

    FULL = "Full"
    PER_CALL_ONLY = "PerCallOnly"
    ZERO = "Zero"


class Quota(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """At most `amount` micro-units in each calendar `period` of `time_zone`; `warn_at` in percent, ascending."""

    amount: int
    period: Period
    time_zone: str = "UTC"
    warn_at: tuple[int, ...] = ()


class Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A token bucket: refills `per_second` micro-units a second up to `burst` micro-units."""

    per_second: int
    burst: int


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One limit of one MCPBudget as it concerns one workload: exactly one of quota and rate.

    `key` holds the dimensions of `per` that the workload decides (sorted pairs, such as ("namespace", "agents"));
    `per_server` and `per_tool` are added from the call. `deny` is False for `onExceeded: Warn`. `tools` are globs,
    byte-exact: which tools of the server it counts. `callers` is what its `from` says about users; a call of which that cannot be
    said counts.
    """

    namespace: str
    budget: str
    name: str
    unit: Unit
    tools: tuple[str, ...] = ("*",)
    quota: Quota | None = None
    rate: Rate | None = None
    key: tuple[tuple[str, str], ...] = ()
    per_server: bool = False
    per_tool: bool = False
    deny: bool = True
    callers: rules.Callers = ()


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one call of one tool costs, in micro-units of the installation's currency (budgets.md)."""

    per_call: int = 0
    per_thousand_result_tokens: int = 0
    result_bytes_max: int = 65_536
    on_error: OnError = OnError.FULL


@dataclasses.dataclass(frozen=True, slots=True)
class Pool:
    """One counter: a limit and the key of this call in it. `id` is `namespace/budget/limit[key]`, stable for ever."""

    id: str
    limit: Limit


@dataclasses.dataclass(frozen=True, slots=True)
class Reservation:
    """`amount` micro-units of one pool that a Permit must hold before the call may leave."""

    pool: Pool
    amount: int


class Units(Protocol):
    """What decide may spend: read-only. The ledger implements it; `UNLIMITED` is for hypothetical calls."""

    def available(self, pool: Pool, now: float) -> int | None:
        """Micro-units that may be reserved now; None when it is not known here yet (decide then says Need)."""


class _Unlimited:
    """Nothing is ever short: for `can-i`, `explain` and `simulate`, which spend nothing."""

    def available(self, pool: Pool, now: float) -> int | None:  # noqa: ARG002 -- the shape of Units
        return UNLIMITED_UNITS


UNLIMITED_UNITS: Final = 2**62
"""More than any reservation: what a limit that only warns, and a hypothetical call, have available."""
UNLIMITED: Final[Units] = _Unlimited()

_ESCAPES = str.maketrans({mark: f"%{ord(mark):02X}" for mark in "%,=[]"})
_NAME_ESCAPES = str.maketrans({mark: f"%{ord(mark):02X}" for mark in "%,=[]/"})


def pool_of(limit: Limit, server: names.ServerId, tool: str) -> Pool:
    """The counter that a call of `tool` on `server` spends from: `ns/budget/limit` or `ns/budget/limit[k=v,...]`.

    Keys are sorted and marks inside values percent-escaped, so two different keys never share an id. The id carries no
    period and no amount: re-creating or resizing a budget does not reset what was spent.
    """
    key = list(limit.key)
    if limit.per_server:
        key.append(("server", str(server)))
    if limit.per_tool:
        key.append(("tool", tool))
    path = "/".join(part.translate(_NAME_ESCAPES) for part in (limit.namespace, limit.budget, limit.name))
    if not key:
        return Pool(path, limit)
    pairs = ",".join(f"{name.translate(_ESCAPES)}={value.translate(_ESCAPES)}" for name, value in sorted(key))
    return Pool(f"{path}[{pairs}]", limit)


# What a call costs ---------------------------------------------------------------------------------------------------

BYTES_PER_TOKEN: Final = 3
"""Bytes of result text taken for one token (budgets.md); low on purpose, so that the estimate errs upwards."""


def reserve(price: Price) -> int:
    """The most one call can cost, in micro-units: that of a result of `result_bytes_max` bytes."""
    return price.per_call + _result_cost(price, price.result_bytes_max)


def cost(price: Price, *, result_bytes: int | None, failed: bool) -> int:
    """What one call that was sent cost, in micro-units; never more than `reserve(price)`.

    `result_bytes` is what arrived, in bytes; None when no answer arrived, so that nobody knows what the server did: that
    costs the whole reserve (R37) unless the price says otherwise. `failed` covers tool errors, upstream errors,
    cancellation and unknown outcomes; `on_error` then decides.
    """
    if (failed or result_bytes is None) and price.on_error is not OnError.FULL:
        return price.per_call if price.on_error is OnError.PER_CALL_ONLY else 0
    if result_bytes is None:
        return reserve(price)
    return min(price.per_call + _result_cost(price, result_bytes), reserve(price))


def _result_cost(price: Price, result_bytes: int) -> int:
    tokens = -(-result_bytes // BYTES_PER_TOKEN)
    return -(-price.per_thousand_result_tokens * tokens // 1000)


# Calendar periods ----------------------------------------------------------------------------------------------------

_DAY = dt.timedelta(days=1)
_SECONDS = {Period.MINUTE: 60, Period.HOUR: 3600}


def period(quota: Quota, now: float) -> tuple[int, int]:
    """The calendar period `now` lies in: (start, end) in epoch seconds, end excluded.

    Days, ISO weeks and months begin at the zone's midnight: the first one where a clock change repeats it, the moment of
    the change where it skips it. Hours and minutes are counted from that midnight, so the last of a day may be short.
    Periods never overlap and leave no gap, in any zone. Raises zoneinfo.ZoneInfoNotFoundError for a zone that is unknown.
    """
    zone = zoneinfo.ZoneInfo(quota.time_zone)
    today = dt.datetime.fromtimestamp(now, zone).date()
    calendar = Period.DAY if quota.period in _SECONDS else quota.period
    first = _first_day(today, calendar)
    # Clock changes around midnight can put an instant just outside the dates it seems to belong to.
    around = (_first_day(first - _DAY, calendar), first, _next_first_day(first, calendar))
    edges = [_midnight(day, zone) for day in (*around, _next_first_day(around[2], calendar))]
    start = max(edge for edge in edges if edge <= now)
    end = min(edge for edge in edges if edge > now)
    if length := _SECONDS.get(quota.period):
        start += int(now - start) // length * length
        end = min(end, start + length)
    return start, end


def _first_day(day: dt.date, calendar: Period) -> dt.date:
    if calendar is Period.MONTH:
        return day.replace(day=1)
    return day - _DAY * day.weekday() if calendar is Period.WEEK else day


def _next_first_day(first: dt.date, calendar: Period) -> dt.date:
    length = {Period.MONTH: 31, Period.WEEK: 7}.get(calendar, 1)
    return _first_day(first + _DAY * length, calendar)


def _midnight(day: dt.date, zone: zoneinfo.ZoneInfo) -> int:
    return int(dt.datetime.combine(day, dt.time(), zone).timestamp())


# Quotas: escrow ------------------------------------------------------------------------------------------------------


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """What one holder has of one pool in one period, in micro-units, cumulative: `granted`, `used`, `returned` only grow.

    A pool kept on this machine is a holder whose grant is the whole cap. `debt` is what a limit that only warns let pass
    beyond its grant: outside the cap, so that used + inflight <= granted - returned stays true (budgets.md, I2).
    """

    granted: int
    used: int = 0
    returned: int = 0
    inflight: int = 0
    debt: int = 0

    @property
    def available(self) -> int:
        """What may still be admitted; 0 when a cap was lowered below what is committed."""
        return max(0, self.granted - self.returned - self.used - self.inflight)

    def admit(self, amount: int) -> Holder:
        """Sets `amount` aside. Raises ValueError (a bug) when it is negative or more than is available."""
        if not 0 <= amount <= self.available:
            raise ValueError(f"cannot set {amount} micro-units aside: {self.available} are available")
        return msgspec.structs.replace(self, inflight=self.inflight + amount)

    def settle(self, amount: int, actual: int) -> Holder:
        """Ends one admission of `amount`: `actual` of it (at most all of it) was used. Raises ValueError on a bug."""
        if not 0 <= amount <= self.inflight or actual < 0:
            raise ValueError(f"cannot settle {actual} of {amount} micro-units: {self.inflight} are in flight")
        return msgspec.structs.replace(
            self, inflight=self.inflight - amount, used=self.used + min(actual, amount)
        )


class Share(msgspec.Struct, frozen=True):
    """What one call holds of one account: `covered` by the grant, `beyond` it; `start` names the period it belongs to."""

    start: int
    covered: int
    beyond: int = 0


class Charge(NamedTuple):
    """`amount` micro-units of one quota's pool in the period [start, end), as the journal keeps it."""

    pool: str
    start: int
    end: int
    amount: int


class Account(msgspec.Struct, frozen=True):
    """One quota's pool in one calendar period [start, end), epoch seconds."""

    start: int
    end: int
    holder: Holder

    @property
    def spent(self) -> int:
        """Settled micro-units of this period, debt included; grows within a period, so thresholds fire once."""
        return self.holder.used + self.holder.debt

    def rollover(self, quota: Quota, now: float) -> Account:
        """The account at `now` under `quota`: itself, with the new cap if it changed, or a fresh one after its end.

        What is in flight stays with the period it was admitted in. Time that went back keeps the later period: an
        ended one is never opened again (R36).
        """
        if now >= self.end:
            return opened(quota, now)
        if self.holder.granted != quota.amount:
            return Account(self.start, self.end, msgspec.structs.replace(self.holder, granted=quota.amount))
        return self

    def admit(self, amount: int, *, overdraw: bool = False) -> tuple[Account, Share]:
        """Sets `amount` aside; with `overdraw` what is not available is taken beyond the cap. ValueError otherwise."""
        covered = min(amount, self.holder.available) if overdraw else amount
        return (
            Account(self.start, self.end, self.holder.admit(covered)),
            Share(self.start, covered, amount - covered),
        )

    def settle(self, share: Share, actual: int) -> Account:
        """Ends an admission at `actual` micro-units; one of another period changes nothing here."""
        if share.start != self.start:
            return self
        holder = self.holder.settle(share.covered, actual)
        if actual > share.covered and share.beyond:
            debt = holder.debt + min(actual - share.covered, share.beyond)
            holder = msgspec.structs.replace(holder, debt=debt)
        return Account(self.start, self.end, holder)


def opened(quota: Quota, now: float) -> Account:
    """A fresh account for the period `now` lies in: nothing used, nothing in flight."""
    return Account(*period(quota, now), Holder(granted=quota.amount))


def crossed(before: int, after: int, quota: Quota) -> tuple[int, ...]:
    """The percentages of `warn_at` that spending reached between two values of `Account.spent`, ascending."""
    return tuple(at for at in quota.warn_at if before * 100 < at * quota.amount <= after * 100)


# Rates: a token bucket -----------------------------------------------------------------------------------------------

CLOCK_STEP_SECONDS: Final = 60.0
"""A clock that falls back by more than this was set, not adjusted: the bucket goes on from there instead of waiting."""


class Bucket(msgspec.Struct, frozen=True):
    """Tokens of one rate at one instant (`at_micros`, epoch microseconds); `level` in millionths of a micro-unit."""

    level: int
    at_micros: int

    @property
    def available(self) -> int:
        """Whole micro-units that may be taken."""
        return self.level // MICRO

    def refilled(self, rate: Rate, now: float) -> Bucket:
        """The bucket at `now`. Time that goes back never adds a token; integers only, so nothing is lost to rounding."""
        at, full = round(now * MICRO), rate.burst * MICRO
        elapsed = at - self.at_micros
        if elapsed < 0:
            back = -elapsed > CLOCK_STEP_SECONDS * MICRO
            return Bucket(min(self.level, full), at if back else self.at_micros)
        return Bucket(min(full, self.level + elapsed * rate.per_second), at)

    def take(self, amount: int, *, overdraw: bool = False) -> tuple[Bucket, Share]:
        """Takes tokens; with `overdraw` what is missing is taken from nowhere. Raises ValueError (a bug) otherwise."""
        covered = min(amount, self.available) if overdraw else amount
        if not 0 <= covered <= self.available:
            raise ValueError(f"cannot take {amount} micro-units: {self.available} are available")
        return Bucket(self.level - covered * MICRO, self.at_micros), Share(0, covered, amount - covered)

    def put_back(self, share: Share, rate: Rate) -> Bucket:
        """Returns what a call took that was never sent; never above the burst."""
        return Bucket(min(rate.burst * MICRO, self.level + share.covered * MICRO), self.at_micros)


def full_bucket(rate: Rate, now: float) -> Bucket:
    """The bucket of a rate nobody has used yet."""
    return Bucket(rate.burst * MICRO, round(now * MICRO))


def retry_after(limit: Limit, amount: int, available: int, now: float) -> float | None:
    """Seconds from `now` until `amount` micro-units of `limit` can be had; None when waiting never helps.

    For a quota that is the end of the period; for a rate the time its bucket needs to refill from `available`.
    """
    if limit.quota is not None:
        return period(limit.quota, now)[1] - now if amount <= limit.quota.amount else None
    rate = limit.rate
    if rate is None or amount > rate.burst or (rate.per_second == 0 and amount > available):
        return None
    return max(0.0, (amount - available) / rate.per_second) if amount > available else 0.0
