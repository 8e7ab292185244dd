# SPDX-License-Identifier: Apache-2.0
"""The objects of one kind as they are known: what a list or a run of events changes about them, and whether it may.

Called by reflector, which does the talking. Pure: a difference is worked out first and applied afterwards, so that between the two
somebody can ask whether it is to be believed. Whatever a list does not hold is gone: an object deleted while nobody watched vanishes.
Refuses to go back: resourceVersions are numbers that grow (KEP-5504), and a smaller one means that the cluster was restored.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

OBJECTS_MAX = 50_000
"""Of one kind. More would be more memory than an operator has."""

DELETIONS_ALARM = 20
DELETIONS_ALARM_SHARE = 0.5
DELETIONS_ALARM_MIN = 5
"""That many gone within the window, or that share of what there was and at least so many, is worth an alarm."""

DELETIONS_WINDOW_SECONDS = 10.0

Key = tuple[str, str]
"""Namespace ("" for what has none) and name."""

Object = dict[str, Any]
Trim = Callable[[Mapping[str, Any]], Object]


class WentBack(Exception):
    """What the API server says is of another history than what is applied already; the text says how that was seen."""


class TooMany(Exception):
    """More objects than may be kept."""


class EventKind(enum.StrEnum):
    """What a watch says. A BOOKMARK is only a position."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """One line of a watch."""

    kind: EventKind
    object: Object


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """Before None: new. After None: gone. A namesake that replaced another has another uid."""

    key: Key
    before: Object | None
    after: Object | None


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """What is to become of the collection, and the position it then has."""

    changes: tuple[Change, ...]
    version: int

    @property
    def deletions(self) -> int:
        return sum(change.after is None for change in self.changes)


def without_managed_fields(raw: Mapping[str, Any]) -> Object:
    """The least trim: who set which field is a large part of an object and nobody's business here."""
    metadata = {key: value for key, value in raw["metadata"].items() if key != "managedFields"}
    return {**raw, "metadata": metadata}


def key_of(raw: Mapping[str, Any]) -> Key:
    metadata = raw["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def version_of(raw: Mapping[str, Any]) -> int:
    """The resourceVersion of an object or a list. Raises ValueError when it is not a number."""
    return int(raw["metadata"]["resourceVersion"])


class Collection:
    """`objects` by key, as of `version`. An object stays the very same one while it is equal, its resourceVersion included.

    `trim` keeps at least name, namespace and resourceVersion.
    """

    def __init__(self, trim: Trim = without_managed_fields) -> None:
        self._trim = trim
        self._objects: dict[Key, Object] = {}
        self.version = 0

    @property
    def objects(self) -> Mapping[Key, Object]:
        """A view: it changes as the collection does."""
        return MappingProxyType(self._objects)

    def trimmed(self, items: Iterable[Object]) -> dict[Key, Object]:
        """Each item less what is not kept; those that are known already as they are known."""
        return {key_of(raw): self._kept(raw) for raw in items}

    def _kept(self, raw: Object) -> Object:
        # Compared as a whole: a restored cluster may use a resourceVersion again for something else.
        made, known = self._trim(raw), self._objects.get(key_of(raw))
        return known if known is not None and known == made else made

    def replaced(self, items: Mapping[Key, Object], version: int, *, forward_only: bool = True) -> Difference:
        """What a whole list of `trimmed` items changes. Raises WentBack."""
        if forward_only:
            self._check(items, version)
        made = (Change(key, self._objects.get(key), after) for key, after in items.items())
        gone = [Change(key, before, None) for key, before in self._objects.items() if key not in items]
        return Difference((*(c for c in made if c.before is not c.after), *gone), version)

    def _check(self, items: Mapping[Key, Object], version: int) -> None:
        """A restored cluster soon counts beyond where it was. What then gives it away is an object that was deleted or changed since."""
        if version < self.version:
            raise WentBack(_restored(f"the API server is at position {version}", self.version))
        for key, item in items.items():
            seen, known = version_of(item), self._objects.get(key)
            if seen <= self.version and (known is None or version_of(known) != seen):
                what = f"the API server has {'/'.join(key)} as of position {seen}, deleted or changed since"
                raise WentBack(_restored(what, self.version))

    def followed(self, events: Iterable[Event], *, forward_only: bool = True) -> Difference:
        """What a run of events changes, one change for each object. Raises WentBack."""
        version = self.version
        after: dict[Key, Object | None] = {}
        for event in events:
            seen = version_of(event.object)
            if forward_only and seen < version:
                raise WentBack(_restored(f"the API server is at position {seen}", version))
            version = seen
            if event.kind is EventKind.DELETED:
                after[key_of(event.object)] = None
            elif event.kind is not EventKind.BOOKMARK:
                after[key_of(event.object)] = self._kept(event.object)
        changes = (Change(key, self._objects.get(key), made) for key, made in after.items())
        return Difference(tuple(c for c in changes if c.before is not c.after), version)

    def looked_up(self, key: Key, raw: Object | None, known: Object | None) -> Difference | None:
        """What a look at one object changes, unless the watch has said as much or more; `known` is what was known before the look."""
        here = self._objects.get(key)
        if here is not known or (raw is None and here is None):
            return None
        if raw is not None and version_of(raw) <= max(self.version, version_of(here) if here else 0):
            return None
        return Difference((Change(key, here, None if raw is None else self._kept(raw)),), self.version)

    def apply(self, difference: Difference) -> None:
        """Makes it so, all at once. Raises TooMany, and has then changed nothing."""
        grown = len(self._objects) + sum(c.before is None for c in difference.changes) - difference.deletions
        if grown > OBJECTS_MAX:
            raise TooMany(f"there are {grown} objects, and at most {OBJECTS_MAX} can be kept")
        for change in difference.changes:
            if change.after is None:
                del self._objects[change.key]
            else:
                self._objects[change.key] = change.after
        self.version = difference.version

    def forget_position(self) -> None:
        """Whatever comes next is believed, also what is older."""
        self.version = 0


def _restored(what: str, version: int) -> str:
    return f"{what}, and this replica has seen {version}: the cluster was restored from a backup"


class Deletions:
    """Counts what goes away, so that a large part of a kind going at once is noticed. It is in force all the same."""

    def __init__(self) -> None:
        self._gone: collections.deque[tuple[float, int]] = collections.deque()
        self._alarmed_until = 0.0

    def count(self, deleted: int, left: int, now: float) -> int | None:
        """How many are gone within the window, when that is alarming and has not just been said. `now` in seconds, `left` objects."""
        self._gone.append((now, deleted))
        while self._gone[0][0] < now - DELETIONS_WINDOW_SECONDS:
            self._gone.popleft()
        gone = sum(each for _, each in self._gone)
        large = gone > DELETIONS_ALARM
        part = gone >= DELETIONS_ALARM_MIN and gone > DELETIONS_ALARM_SHARE * (gone + left)
        if not (large or part) or now < self._alarmed_until:
            return None
        self._alarmed_until = now + DELETIONS_WINDOW_SECONDS
        return gone
