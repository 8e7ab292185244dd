# SPDX-License-Identifier: Apache-2.0
"""What a budget's counters are keyed by, remembered, so that nobody changes it without being told what that does.

Called by main after each publication. A file cannot be refused an edit as an API server could, so an edit of `unit`, `per`,
`quota` for `rate`, `period` or `timeZone` is followed and said. Refuses to forget limits that are gone: one that comes back
meets its old counter.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from outrider import budgets, resources
from outrider_operator import durable

LIMITS_MAX = 50_000

Keys = Mapping[str, Mapping[str, str]]
"""`namespace/budget/limit` -> field -> value as written."""

_MEANS = {
    "per": "calls are counted in fresh counters from now on, with nothing spent yet",
    "kind": "the limit starts anew, with nothing spent yet",
    "unit": "what was counted in the old unit is taken for the new one until the period ends",
    "currency": "what was spent in the old currency is taken for the new one until the period ends",
    "quota.period": "the period under way is measured anew, and what it already counted may start over",
    "quota.timeZone": "the period under way ends at another time, and what it already counted may start over",
}


def keys(world: resources.World) -> dict[str, dict[str, str]]:
    """What the counters of every limit are keyed by."""
    found = {}
    for placed in world.budgets:
        made = placed.resource
        for limit in made.spec.limits:
            one = {
                "per": ", ".join(sorted(each.value for each in made.spec.per)) or "nothing",
                "kind": "quota" if limit.quota else "rate",
                "unit": limit.unit.value,
            }
            if limit.quota:
                one["quota.period"] = limit.quota.period.value
                one["quota.timeZone"] = limit.quota.time_zone
            if limit.unit is budgets.Unit.COST:
                one["currency"] = world.settings.currency
            found[f"{made.metadata.namespace}/{made.metadata.name}/{limit.name}"] = one
    return found


def changes(before: Keys, after: Keys) -> list[dict[str, str]]:
    """One notice for each field of a limit that is in both and differs, with what follows from it."""
    return [_notice(limit, field, before[limit], one) for limit, one in after.items() if limit in before
            for field in _MEANS if field in one and field in before[limit] and one[field] != before[limit][field]]  # fmt: skip


def _notice(limit: str, field: str, before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    budget, _, name = limit.rpartition("/")
    shown = "quota or rate" if field == "kind" else field
    message = (
        f"Warning: MCPBudget {budget} limit {name}: {shown} changed from {before[field]} to {after[field]}:"
        f" {_MEANS[field]}. To keep the old counter, change it back; to begin on purpose, give the limit a new name."
    )
    return {"budget": budget, "limit": name, "field": field, "message": message}


class Memory:
    """The keys of every limit that was ever in force here, in one file."""

    def __init__(self, file: pathlib.Path) -> None:
        self._file = file
        self._known = self._saved = _read(file)

    def learn(self, world: resources.World) -> list[dict[str, str]]:
        """The notices about what has just come into force, which is known from then on."""
        now = keys(world)
        found = changes(self._known, now)
        known = {**{limit: one for limit, one in self._known.items() if limit not in now}, **now}
        self._known = dict(list(known.items())[-LIMITS_MAX:])
        return found

    def save(self) -> None:
        """Remembers what is known across restarts. Raises OSError."""
        if self._known != self._saved:
            durable.write(self._file, json.dumps(self._known).encode())
            self._saved = self._known


def _read(file: pathlib.Path) -> dict[str, dict[str, str]]:
    """What is remembered; nothing when there is no file or it is none of ours, for it only serves warnings."""
    try:
        kept: Any = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(kept, dict):
        return {}
    return {
        limit: one
        for limit, one in kept.items()
        if isinstance(one, dict) and all(isinstance(value, str) for value in one.values())
    }
