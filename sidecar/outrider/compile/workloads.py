# SPDX-License-Identifier: Apache-2.0
"""What was made for one workload and when: its views, the objects in them, and the versions it was offered.

Called by the Compiler. Revisions count the changes of one workload's snapshot in this process, so that it can be said of any
version a pod acknowledged whether an object is in it as it is now. Refuses to know a version it did not make: that is revision 0.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, OrderedDict
from collections.abc import Iterable

import msgspec

from outrider import names, snapshot
from outrider.compile import scope
from outrider.compile.objects import Object

_VERSIONS_MAX = 64
"""Versions of one workload whose revision is remembered; a pod that holds an older one counts as holding none."""

_GONE_MAX = 1_000
"""Objects that left a workload's snapshot and may still be enforced in pods that did not hear of it."""


@dataclasses.dataclass(slots=True)
class Memo:
    """One workload. `stale`: servers to view anew; `fresh` False: all of them."""

    case: scope.Case
    fresh: bool = False
    stale: set[names.ServerId] = dataclasses.field(default_factory=set)
    views: dict[names.ServerId, snapshot.ServerView] = dataclasses.field(default_factory=dict)
    made: snapshot.Snapshot | None = None
    revision: int = 0
    held: Counter[Object] = dataclasses.field(default_factory=Counter)
    changed: dict[Object, int] = dataclasses.field(default_factory=dict)
    versions: OrderedDict[str, int] = dataclasses.field(default_factory=OrderedDict)

    def see(self, server: names.ServerId, view: snapshot.ServerView | None) -> frozenset[Object]:
        """Puts `view` in the place of the server's last one; the objects that came, went or are different in it."""
        old = self.views.get(server)
        if old == view:
            return frozenset()
        if view is None:
            del self.views[server]
        else:
            self.views[server] = view
        before, after = objects_of(old), objects_of(view)
        self.held.update(after - before)
        for left in before - after:
            self.held[left] -= 1
            if not self.held[left]:
                del self.held[left]
        return difference(old, view)

    def mark(self, touched: Iterable[Object]) -> None:
        """Remembers that these objects are different from this revision on."""
        for each in touched:
            self.changed.pop(each, None)
            self.changed[each] = self.revision
        gone = [each for each in self.changed if each not in self.held]
        for each in gone[: max(0, len(gone) - _GONE_MAX)]:
            del self.changed[each]

    def note(self, version: str) -> None:
        """Remembers a version as being of the current revision."""
        self.versions[version] = self.revision
        self.versions.move_to_end(version)
        while len(self.versions) > _VERSIONS_MAX:
            self.versions.popitem(last=False)


def objects_of(view: snapshot.ServerView | None) -> frozenset[Object]:
    """The objects that a view was made of."""
    if view is None:
        return frozenset()
    found = {("MCPServer", *view.id)}
    found |= {("MCPToolPolicy", rule.ref.namespace, rule.ref.policy) for rule in view.rules}
    found |= {("MCPBudget", limit.namespace, limit.budget) for limit in view.limits}
    return frozenset(found)


def difference(old: snapshot.ServerView | None, new: snapshot.ServerView | None) -> frozenset[Object]:
    """The objects of two views of one server that do not say the same in both."""
    if old is None or new is None:
        return objects_of(old) | objects_of(new)
    found: set[Object] = set()
    bare = [msgspec.structs.replace(view, rules=(), limits=()) for view in (old, new)]
    if bare[0] != bare[1]:
        found.add(("MCPServer", *new.id))
    for rule in set(old.rules) ^ set(new.rules):
        found.add(("MCPToolPolicy", rule.ref.namespace, rule.ref.policy))
    for limit in set(old.limits) ^ set(new.limits):
        found.add(("MCPBudget", limit.namespace, limit.budget))
    return frozenset(found)
