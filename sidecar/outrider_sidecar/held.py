# SPDX-License-Identifier: Apache-2.0
"""One access token that is held: lent while it is good, refreshed before it is not, asked for by one request at a time.

Made by the OAuth sources, one per token. It goes on lending the token it has when a new one cannot be had, to the end of that
token's own life and no further; failures are followed by ever longer pauses. Refuses nothing by itself: `obtain` does.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import math
from collections.abc import Awaitable, Callable

from outrider import decision
from outrider_sidecar import grants, loans, pacing, telemetry

log = logging.getLogger("outrider")

REFRESH_AT = 0.8
REFRESH_SPREAD = 0.05
"""A token is asked for anew after this part of its life, give or take: thousands of proxies do not do so at once."""

MARGIN_SECONDS_MAX = 5.0
"""So long before its end (a tenth of a short life) a token is not lent any more: the call still has to get there."""

PAUSE_SECONDS = 1.0
PAUSE_SECONDS_MAX = 60.0
"""After a failure; doubled with each further one, and each is drawn between half of it and all of it."""

_VERSIONS = itertools.count(1)


class Failed(Exception):
    """No token. `common`: whoever asks next at the same place would fare no better. `wait_seconds`: not before.

    `doubtful`, of one that is not common: whoever asks next may fare no better.
    """

    def __init__(
        self,
        unavailable: loans.Unavailable,
        *,
        common: bool = True,
        doubtful: bool = False,
        wait_seconds: float = 0.0,
    ) -> None:
        super().__init__(str(unavailable))
        self.unavailable = unavailable
        self.common = common
        self.doubtful = doubtful
        self.wait_seconds = wait_seconds


class Pause:
    """Between failures, and why the last one was."""

    __slots__ = ("_times", "failure", "failures", "until")

    def __init__(self, times: pacing.Timing) -> None:
        self._times = times
        self.failure: loans.Unavailable | None = None
        self.failures = 0
        self.until = 0.0

    def failed(self, failed: Failed) -> None:
        pause = min(PAUSE_SECONDS * 2.0**self.failures, PAUSE_SECONDS_MAX)
        drawn = pause * (0.5 + self._times.jitter() / 2)
        self.failures = min(self.failures + 1, 16)
        self.failure = failed.unavailable
        self.until = self._times.clock() + max(drawn, failed.wait_seconds)

    def succeeded(self) -> None:
        self.failure = None
        self.failures = 0
        self.until = 0.0

    def over(self) -> bool:
        """Whether something may be tried."""
        return self.until <= self._times.clock()

    def error(self) -> loans.Unavailable | None:
        """What to raise until it is over; None when something may be tried."""
        if self.failure is None or self.over():
            return None
        left = self.until - self._times.clock()
        return loans.Unavailable(self.failure.reason, str(self.failure), retry_after_seconds=left)


@dataclasses.dataclass(slots=True)
class Place:
    """Where tokens come from: what all those of one source share. `name` is for the log; counts are of refreshes.

    `doubt`: the latest failure that may be one token's alone or everybody's.
    """

    name: str
    times: pacing.Timing
    pause: Pause
    refreshed: int = 0
    failed: int = 0
    doubt: loans.Unavailable | None = None


class Held:
    """`obtain` asks for a token and raises Failed or Unavailable.

    `eager` ones are refreshed whether or not anybody asks; others when somebody does and it is time. `ends_at` (epoch seconds): no
    token is lent longer, whatever it says itself.
    """

    __slots__ = (
        "_closed", "_eager", "_ends_at", "_flight", "_good_until", "_loan", "_obtain", "_own", "_place", "_refresh_at",
        "_timer", "_times",
    )  # fmt: skip

    def __init__(
        self,
        place: Place,
        obtain: Callable[[], Awaitable[grants.Granted]],
        *,
        eager: bool,
        ends_at: float | None = None,
    ) -> None:
        self._place = place
        self._times = place.times
        self._obtain = obtain
        self._own = Pause(place.times)
        self._eager = eager
        self._ends_at = ends_at
        self._loan: loans.Loan | None = None
        self._good_until = self._refresh_at = 0.0
        self._flight: asyncio.Task[loans.Loan | loans.Unavailable] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def busy(self) -> bool:
        """Somebody waits for it."""
        return self._flight is not None

    @property
    def good(self) -> loans.Loan | None:
        """The token, if it may be lent now by both clocks: a machine that slept has only one that is right."""
        loan = self._loan
        if (
            loan is not None
            and self._times.clock() < self._good_until
            and self._times.wall() < loan.expires_at
        ):
            return loan
        return None

    def failing(self) -> loans.Unavailable | None:
        """Why the last refresh failed, if it did."""
        return self._own.failure or self._place.pause.failure

    def at_hand(self) -> loans.Loan | None:
        """As `loans.Source.at_hand`; begins a refresh for which nobody waits when it is time."""
        loan = self.good
        if loan is None:
            error = self._error()
            if error is not None and self._flight is None:
                raise error
            return None
        if self._times.clock() >= self._refresh_at:
            self.begin()
        return loan

    async def fetch(self, deadline: float, refused: str | None) -> loans.Loan:
        """As `loans.Source.fetch`."""
        loan = self.good
        if loan is not None and refused != loan.version:
            return loan
        flight = self.begin()
        end = self._error() or self._unwanted() if flight is None else await self._landing(flight, deadline)
        if isinstance(end, loans.Loan):
            return end
        loan = self.good
        if loan is None:
            raise end
        return loan

    async def _landing(
        self, flight: asyncio.Task[loans.Loan | loans.Unavailable], deadline: float
    ) -> loans.Loan | loans.Unavailable:
        """How the request under way ends for one who waits until `deadline`; it goes on when nobody waits any more."""
        left = None if deadline == math.inf else max(0.0, deadline - self._times.clock())
        await asyncio.wait({flight}, timeout=left)
        if not flight.done():
            return loans.Unavailable(
                decision.Reason.CREDENTIAL_UNAVAILABLE,
                f"{self._place.name}: not had in the time there was",
                retry_after_seconds=PAUSE_SECONDS,
            )
        if flight.cancelled():
            return self._unwanted()
        end = flight.result()
        if isinstance(end, loans.Loan):
            return end
        # One of its own for everybody: an exception that is raised twice grows.
        return loans.Unavailable(end.reason, str(end), retry_after_seconds=end.retry_after_seconds)

    def _unwanted(self) -> loans.Unavailable:
        text = f"{self._place.name}: not wanted any more, the configuration has changed"
        return loans.Unavailable(decision.Reason.CREDENTIAL_UNAVAILABLE, text)

    def begin(self) -> asyncio.Task[loans.Loan | loans.Unavailable] | None:
        """The request under way, or a new one; None between failures and after `close`."""
        if self._flight is None and not self._closed and self._own.over() and self._place.pause.over():
            self._flight = asyncio.get_running_loop().create_task(self._refresh())
            self._flight.add_done_callback(self._landed)
        return self._flight

    def close(self) -> None:
        """Forgets the token and asks for no other."""
        self._closed = True
        self._loan = None
        if self._timer is not None:
            self._timer.cancel()
        if self._flight is not None:
            self._flight.cancel()

    def _error(self) -> loans.Unavailable | None:
        return self._place.pause.error() or self._own.error()

    def _landed(self, _task: asyncio.Task[loans.Loan | loans.Unavailable]) -> None:
        self._flight = None
        if self._eager and not self._closed:
            paused_until = max(self._own.until, self._place.pause.until)
            if self._timer is not None:
                self._timer.cancel()
            self._wake_at(self._refresh_at if self.failing() is None else paused_until)

    def _wake_at(self, at: float) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.0, at - self._times.clock()), self._wake)

    def _wake(self) -> None:
        """Timers of the loop may be early by what its clock cannot tell apart."""
        if self.begin() is None and not self._closed:
            self._wake_at(self._times.clock() + PAUSE_SECONDS / 10)

    async def _refresh(self) -> loans.Loan | loans.Unavailable:
        times = self._times
        began, began_wall = times.clock(), times.wall()
        try:
            granted = await self._obtain()
        except Failed as failed:
            return self._failed(failed)
        except loans.Unavailable as failure:
            return self._failed(Failed(failure, wait_seconds=failure.retry_after_seconds or 0.0))
        except Exception as error:  # noqa: BLE001 -- a bug of ours is an outage of one credential, and told by its class alone
            text = f"{self._place.name}: {type(error).__name__}"
            return self._failed(Failed(loans.Unavailable(decision.Reason.INTERNAL, text)))
        most = math.inf if self._ends_at is None else self._ends_at - began_wall
        life = min(granted.life_seconds, most)
        if life <= 0:
            text = f"{self._place.name}: the user's own token is over"
            over = loans.Unavailable(decision.Reason.CREDENTIAL_UNAVAILABLE, text)
            return self._failed(Failed(over, common=False))
        if self.failing() is not None:
            log.info(
                "a credential can be refreshed again", extra=telemetry.fields(credential=self._place.name)
            )
        self._own.succeeded()
        self._place.pause.succeeded()
        self._place.refreshed += 1
        self._good_until = began + life - min(MARGIN_SECONDS_MAX, life / 10)
        # What ends with the user's own token is not asked for again: there is nothing to be gained.
        gains = most - life > MARGIN_SECONDS_MAX
        part = REFRESH_AT + REFRESH_SPREAD * (2 * times.jitter() - 1)
        self._refresh_at = began + life * part if gains else math.inf
        self._loan = loans.Loan(granted.token, f"{next(_VERSIONS)}", began_wall + life)
        return self._loan

    def _failed(self, failed: Failed) -> loans.Unavailable:
        """Told once, and again when it is told otherwise: calls that need it have records of their own."""
        known = self.failing()
        pause = self._place.pause if failed.common else self._own
        pause.failed(failed)
        if failed.doubtful:
            self._place.doubt = failed.unavailable
        self._place.failed += 1
        failure = failed.unavailable
        if known is None or str(known) != str(failure):
            log.warning(
                "a credential cannot be refreshed",
                extra=telemetry.fields(
                    credential=self._place.name, reason=failure.reason.value, why=str(failure)
                ),
            )
        left = max(0.0, pause.until - self._times.clock())
        return loans.Unavailable(failure.reason, str(failure), retry_after_seconds=left)
