# SPDX-License-Identifier: Apache-2.0
"""Budgets and rate limits as arithmetic: state in, state out, integers in micro-units, no clock.

`Limit`, `Quota`, `Rate` and `Price` travel in snapshots; `Pool` is one counter of one limit for one call's key.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Protocol

import msgspec

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
    byte-exact: which tools of the server it counts.
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
