# SPDX-License-Identifier: Apache-2.0
"""The objects in force, indexed by what they speak about, and what is different in the next world.

Called by the Compiler and the Inspection, which remember what they made of each object. Refuses to look at what did not change:
a source that keeps an unchanged object gives the same one again, and finding the others costs a comparison of addresses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from outrider import names, resources
from outrider.compile import scope
from outrider.resources import fields

Object = tuple[str, str, str]
"""(kind, namespace, name), as a Finding begins."""

Made = TypeVar("Made", resources.MCPServer, resources.MCPToolPolicy, resources.MCPBudget)


@dataclasses.dataclass(frozen=True, slots=True)
class Edit(Generic[Made]):
    """One object that came (`old` is None), went (`new` is None) or is different now."""

    old: Made | None
    new: Made | None

    @property
    def sides(self) -> tuple[Made, ...]:
        return tuple(side for side in (self.old, self.new) if side is not None)

    @property
    def object(self) -> Object:
        return about(self.sides[0])


@dataclasses.dataclass(frozen=True, slots=True)
class Delta:
    """From one world to the next."""

    servers: tuple[Edit[resources.MCPServer], ...] = ()
    policies: tuple[Edit[resources.MCPToolPolicy], ...] = ()
    budgets: tuple[Edit[resources.MCPBudget], ...] = ()
    settings: bool = False
    namespaces: frozenset[str] = frozenset()
    """Those whose labels changed."""

    def __bool__(self) -> bool:
        return bool(self.servers or self.policies or self.budgets or self.settings or self.namespaces)

    @property
    def objects(self) -> frozenset[Object]:
        named = [edit.object for edit in self.servers]
        named += [edit.object for edit in self.policies]
        named += [edit.object for edit in self.budgets]
        return frozenset(named)


def about(made: resources.MCPServer | resources.MCPToolPolicy | resources.MCPBudget) -> Object:
    """The Object of a resource."""
    return made.kind, made.metadata.namespace, made.metadata.name


class Objects:
    """One world after another."""

    def __init__(self, world: resources.World | None = None) -> None:
        self.clear()
        if world is not None:
            self.advance(world)

    def clear(self) -> None:
        """Knows of no object any more."""
        self.world = resources.World()
        self.grouped: frozenset[str] = frozenset()
        """The teams that list groups."""
        self.servers: dict[names.ServerId, resources.MCPServer] = {}
        self.policies: scope.Index[resources.MCPToolPolicy] = scope.Index()
        self.budgets: scope.Index[resources.MCPBudget] = scope.Index()
        self._spaces: dict[str, set[names.ServerId]] = {}
        self._named: dict[str, set[names.ServerId]] = {}

    def advance(self, world: resources.World) -> Delta:
        """Makes `world` the current one and says how it differs from the last."""
        before, self.world = self.world, world
        delta = Delta(
            servers=_edits(before.servers, world.servers),
            policies=_edits(before.policies, world.policies),
            budgets=_edits(before.budgets, world.budgets),
            settings=before.settings is not world.settings and before.settings != world.settings,
            namespaces=_changed(before.namespaces, world.namespaces),
        )
        if delta.settings:
            self.grouped = scope.grouped(world.settings)
        for server in delta.servers:
            self._place(server)
        for policy in delta.policies:
            self.policies.swap(policy.old, policy.new)
        for budget in delta.budgets:
            self.budgets.swap(budget.old, budget.new)
        return delta

    def covered(self, own: str, targets: Iterable[fields.TargetRef]) -> frozenset[names.ServerId]:
        """The servers that targets of an object in namespace `own` mean."""
        platform = self.world.settings.platform_namespace
        found: set[names.ServerId] = set()
        for target in targets:
            if target.namespace is None and own == platform:
                continue
            namespace = target.namespace or own
            if target.name != "*":
                one = names.ServerId(namespace, target.name)
                found |= {one} if one in self.servers else set()
            elif namespace == "*":
                return frozenset(self.servers)
            else:
                found |= self._spaces.get(namespace, set())
        return frozenset(found)

    def case(self, namespace: str, service_account: str) -> scope.Case:
        """The case of one ServiceAccount; it follows the indexes, not the settings: take a new one when those change."""
        return scope.case_of(self.world, (namespace, service_account), self.policies, self.budgets)

    def alike(self, namespace: str, name: str) -> frozenset[names.ServerId]:
        """Servers of this namespace, and those of this name in others: what a mistyped target may have meant."""
        return frozenset(self._spaces.get(namespace, set()) | self._named.get(name, set()))

    def _place(self, edit: Edit[resources.MCPServer]) -> None:
        server = edit.sides[0].id
        for index, key in ((self._spaces, server.namespace), (self._named, server.name)):
            found = index.setdefault(key, set())
            found.discard(server) if edit.new is None else found.add(server)
            if not found:
                del index[key]
        if edit.new is None:
            del self.servers[server]
        else:
            self.servers[server] = edit.new


def _edits(
    before: tuple[resources.Placed[Made], ...], after: tuple[resources.Placed[Made], ...]
) -> tuple[Edit[Made], ...]:
    """Edits by name. Those whose `Placed` is the very same one are not even compared."""
    old, new = set(map(id, before)), set(map(id, after))
    gone: dict[Object, Made] = {about(each.resource): each.resource for each in before if id(each) not in new}
    came: dict[Object, Made] = {about(each.resource): each.resource for each in after if id(each) not in old}
    found = []
    for key in sorted({*gone, *came}):
        edit = Edit(gone.get(key), came.get(key))
        if edit.old != edit.new:
            found.append(edit)
    return tuple(found)


def _changed(
    before: Mapping[str, Mapping[str, str]], after: Mapping[str, Mapping[str, str]]
) -> frozenset[str]:
    if before is after:
        return frozenset()
    return frozenset(name for name in {*before, *after} if before.get(name) != after.get(name))
