# SPDX-License-Identifier: Apache-2.0
"""What a permitted request is carried out with and what it consists of, for the attempt and for whoever closes its books.

Values only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Coroutine
from typing import Any

from outrider import decision
from outrider_sidecar import (
    asked,
    credentials,
    exchange,
    journal,
    ledger,
    records,
    resuming,
    servers,
    states,
    telemetry,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Parts:
    """What an attempt works with; the same for all of them. `clock` is loop time, `wall` epoch seconds."""

    ledger: ledger.Ledger
    journal: journal.Journal
    credentials: credentials.Credentials
    upstream: exchange.Upstream
    servers: servers.Servers
    writer: records.Writer
    telemetry: telemetry.Telemetry
    clock: Callable[[], float]
    wall: Callable[[], float]
    spawn: Callable[[Coroutine[Any, Any, None]], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    """One request as it is handed over; `received` in loop time.

    `after`: the state that it came with, when it goes on with a call whose server asked for input.
    """

    about: records.About
    permit: decision.Permit
    subject: asked.Asked
    out: resuming.Out
    received: float
    after: states.State | None = None
