# SPDX-License-Identifier: Apache-2.0
"""Keeps refusals from filling the disk: so many a minute in full, the rest counted in one summary.

Used by the journal, which keeps one for callers nobody knows and one for the accepted caller, so that the first cannot use up
what the second's attempts need. Pure: time comes with each question. Refuses to drop silently: what is not written is counted.
"""

from __future__ import annotations

from outrider import audit

MINUTE_SECONDS = 60.0
STRANGERS_PER_MINUTE = 10
"""Refusals before authentication that are written one by one in each minute (audit.md)."""
CALLERS_PER_MINUTE = 600
"""The same for what an accepted caller sends that is no call: malformed, or an unknown method or session."""


class Doorman:
    """One minute at a time, from its first refusal on. Reasons are constants, so the counts are few."""

    def __init__(self, *, full_per_minute: int, why: str) -> None:
        """`full_per_minute` are written one by one in each minute; `why` is what the summary of the rest says of them."""
        self.why = why
        self._full_per_minute = full_per_minute
        self._since: float | None = None
        self._written = 0
        self._counts: dict[str, int] = {}

    @property
    def owes(self) -> bool:
        """Whether something was counted that no summary has told yet."""
        return bool(self._counts)

    def admits(self, reason: str, now: float) -> bool:
        """Whether this one is written in full; otherwise it has been counted. Ask `due` first."""
        if self._since is None:
            self._since = now
        if self._written < self._full_per_minute:
            self._written += 1
            return True
        self._counts[reason] = self._counts.get(reason, 0) + 1
        return False

    def due(self, now: float, *, closing: bool = False) -> audit.Summary | None:
        """Ends the minute when it is over (or the clock was set back, or at `closing`): the summary of what was counted."""
        since = self._since
        if since is None or (0 <= now - since < MINUTE_SECONDS and not closing):
            return None
        counts, self._since, self._written, self._counts = self._counts, None, 0, {}
        return audit.Summary(since=since, until=now, counts=counts, why=self.why) if counts else None


def strangers() -> Doorman:
    """For refusals of nobody known."""
    return Doorman(full_per_minute=STRANGERS_PER_MINUTE, why=audit.BEFORE_AUTHENTICATION)


def callers() -> Doorman:
    """For refusals of an accepted caller."""
    return Doorman(full_per_minute=CALLERS_PER_MINUTE, why=audit.AUTHENTICATED)
