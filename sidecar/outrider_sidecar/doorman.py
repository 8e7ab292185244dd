# SPDX-License-Identifier: Apache-2.0
"""Keeps refusals before authentication from filling the disk: ten a minute in full, the rest counted in one summary.

Used by the journal. Pure: time comes with each question. Refuses to drop silently: what is not written is counted.
"""

from __future__ import annotations

from outrider import audit

FULL_PER_MINUTE = 10
"""Refusals before authentication that are written one by one in each minute (audit.md)."""
MINUTE_SECONDS = 60.0


class Doorman:
    """One minute at a time, from its first refusal on. Reasons are constants, so the counts are few."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._written = 0
        self._counts: dict[str, int] = {}

    def admits(self, reason: str, now: float) -> bool:
        """Whether this one is written in full; otherwise it has been counted. Ask `due` first."""
        if self._since is None:
            self._since = now
        if self._written < FULL_PER_MINUTE:
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
        return audit.Summary(since=since, until=now, counts=counts) if counts else None
