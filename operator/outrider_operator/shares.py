# SPDX-License-Identifier: Apache-2.0
"""Who has how much of a bounded table: when it is full, whoever has most gives up one for whoever has less.

Used by lendings, by the namespaces of the pods that tell something. The loop's thread only. Refuses one more to whoever would then have
as much as anybody: no tenant, however many pods it runs, keeps another from its equal share.
"""

from __future__ import annotations

Entry = tuple[str, tuple[str, str]]
"""A pod's uid, and the subject it tells of."""


class Shares:
    """Entries by tenant, at most `entries_max` in all; those of a tenant in the order in which they came."""

    def __init__(self, entries_max: int) -> None:
        self._entries_max = entries_max
        self._held: dict[str, dict[Entry, None]] = {}
        self._count = 0

    @property
    def full(self) -> bool:
        return self._count >= self._entries_max

    def spared(self, tenant: str) -> Entry | None:
        """What has to go of a full table so that this tenant may have one more; None: it has its share."""
        most = max(self._held.values(), key=len, default=None)
        if most is None or len(most) <= len(self._held.get(tenant, ())) + 1:
            return None
        return next(reversed(most))

    def add(self, tenant: str, entry: Entry) -> None:
        """Takes one in for which there is room."""
        assert not self.full, "what is spared is removed first"
        self._held.setdefault(tenant, {})[entry] = None
        self._count += 1

    def remove(self, tenant: str, entry: Entry) -> None:
        """Lets one go."""
        mine = self._held[tenant]
        del mine[entry]
        self._count -= 1
        if not mine:
            del self._held[tenant]
