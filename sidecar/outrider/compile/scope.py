# SPDX-License-Identifier: Apache-2.0
"""Whose policy says what: targets to keys, selectors to workloads, and who a selector could ever be about.

Called by views and checks. Refuses to guess: a target that does not say whom it governs governs nobody.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from outrider import identity, names, resources, rules
from outrider.resources import fields

Place = tuple[str, str | None]
"""A set of workloads: a namespace and one ServiceAccount of it, None for all; ("", None) is everybody."""

Governing = TypeVar("Governing", resources.MCPToolPolicy, resources.MCPBudget)

EVERYBODY: Place = ("", None)

TEAM_LABEL = f"{names.GROUP}/team"
"""Names a team of a namespace's workloads, under the setting `teamFromNamespaceLabel`."""


class Index(Generic[Governing]):
    """Which objects may mean a server, found without reading those that mean others."""

    __slots__ = ("_by_target",)

    def __init__(self, objects: Iterable[resources.Placed[Governing]] = ()) -> None:
        self._by_target: dict[tuple[str, str], dict[tuple[str, str], Governing]] = {}
        for placed in objects:
            self.swap(None, placed.resource)

    def swap(self, old: Governing | None, new: Governing | None) -> None:
        """Takes one object out and puts another in; None for neither."""
        if old is not None:
            for target in _meant(old):
                named = self._by_target[target]
                del named[_name(old)]
                if not named:
                    del self._by_target[target]
        if new is not None:
            for target in _meant(new):
                self._by_target.setdefault(target, {})[_name(new)] = new

    def about(self, server: names.ServerId) -> tuple[Governing, ...]:
        """In the order of (namespace, name), each once; whether one really governs the server is for `Case.key` to say."""
        found: dict[tuple[str, str], Governing] = {}
        for target in ((server.namespace, server.name), (server.namespace, "*"), ("*", "*")):
            found.update(self._by_target.get(target, {}))
        return tuple(found[name] for name in sorted(found))


def _meant(made: resources.MCPToolPolicy | resources.MCPBudget) -> set[tuple[str, str]]:
    own = made.metadata.namespace
    return {(target.namespace or own, target.name) for target in made.spec.target_refs}


def _name(made: resources.MCPToolPolicy | resources.MCPBudget) -> tuple[str, str]:
    return made.metadata.namespace, made.metadata.name


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """The objects and settings that decide whose policy says what, and the workload it is decided for."""

    settings: resources.Settings
    workload: identity.Workload
    policies: Index[resources.MCPToolPolicy]
    budgets: Index[resources.MCPBudget]
    grouped: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """The groups of each team that lists some."""

    @property
    def platform(self) -> str:
        return self.settings.platform_namespace

    def key(self, own: str, target: fields.TargetRef, server: names.ServerId) -> rules.Key | None:
        """The key with which an object of namespace `own` speaks about `server` to this workload; None: not at all."""
        if not covers(own, target, server, platform=self.platform):
            return None
        if own == self.platform:
            return rules.Key.PLATFORM
        if target.namespace in (None, own):
            return rules.Key.PROVIDER
        return rules.Key.CONSUMER if self.workload.namespace == own else None

    def keys(
        self, own: str, targets: Iterable[fields.TargetRef], server: names.ServerId
    ) -> tuple[rules.Key, ...]:
        """Every key with which an object with these targets speaks about `server`, each once, in a fixed order."""
        found = {self.key(own, target, server) for target in targets}
        return tuple(key for key in rules.Key if key in found)

    def selects(self, own: str, selectors: tuple[fields.Selector, ...] | None, *, deny: bool = False) -> bool:
        """True when some entry matches the workload, with some user if not with any."""
        return self.callers(own, selectors, deny=deny) is not None

    def callers(
        self, own: str, selectors: tuple[fields.Selector, ...] | None, *, deny: bool = False
    ) -> rules.Callers | None:
        """What is left to be said of the user where some entry matches the workload; None when none does.

        () says nothing: no entries at all select everyone, and an entry without a word about users is enough for anybody.
        """
        if selectors is None:
            return ()
        tests = [test for each in selectors if (test := self._entry(own, each, deny=deny)) is not None]
        if _ANYBODY in tests:
            return ()
        return tuple(dict.fromkeys(tests)) or None

    def _entry(self, own: str, selector: fields.Selector, *, deny: bool) -> rules.UserTest | None:
        who = self.workload
        if selector.namespaces is not None and who.namespace not in selector.namespaces:
            return None
        if selector.service_accounts is not None and (who.namespace, who.service_account) not in {
            account(own, text) for text in selector.service_accounts
        }:
            return None
        groups: tuple[str, ...] = ()
        member = selector.teams is None or not set(selector.teams).isdisjoint(who.teams)
        if selector.teams is not None:
            groups = self._groups(selector.teams, member=member, deny=deny)
            if not member and not groups:
                return None
        return rules.UserTest(
            users=selector.users or (),
            groups=selector.groups or (),
            clients=selector.clients or (),
            teams=groups,
            teams_alone=member,
        )

    def _groups(self, wanted: tuple[str, ...], *, member: bool, deny: bool) -> tuple[str, ...]:
        """The groups of which a present user must be in one; () where that is nothing.

        In a Deny one member among the parties is enough. Elsewhere it is a team of the workload that the user must be of too, unless
        one of those lists no groups.
        """
        if deny == member:
            return ()
        mine = [self.grouped.get(team, ()) for team in wanted if deny or team in self.workload.teams]
        return () if not deny and not all(mine) else tuple(sorted({group for each in mine for group in each}))


_ANYBODY = rules.UserTest()


def covers(own: str, target: fields.TargetRef, server: names.ServerId, *, platform: str) -> bool:
    """True when `target` of an object in namespace `own` means `server`. One of the platform must name a namespace."""
    if target.namespace is None and own == platform:
        return False
    namespace = target.namespace or own
    return namespace in ("*", server.namespace) and target.name in ("*", server.name)


def account(own: str, text: str) -> tuple[str, str]:
    """(namespace, name) of `name`, which is in `own`, or of `namespace/name`."""
    namespace, slash, name = text.partition("/")
    return (namespace, name) if slash else (own, namespace)


def teams(world: resources.World, namespace: str, service_account: str) -> tuple[str, ...]:
    """The teams of a workload, sorted: those the settings say, and the one its namespace's label names if they let it."""
    given = world.settings
    full = f"{namespace}/{service_account}"
    found = {t.name for t in given.teams if namespace in t.namespaces or full in t.service_accounts}
    if given.team_from_namespace_label:
        label = world.namespaces.get(namespace, {}).get(TEAM_LABEL, "")
        found |= {label} if names.is_label(label) else set()
    return tuple(sorted(found))


def members(world: resources.World) -> Mapping[str, frozenset[Place]]:
    """Who is in each team."""
    found: dict[str, set[Place]] = {}
    for team in world.settings.teams:
        spaces: set[Place] = {(namespace, None) for namespace in team.namespaces}
        found[team.name] = spaces | {account("", text) for text in team.service_accounts}
    if world.settings.team_from_namespace_label:
        for namespace, labels in world.namespaces.items():
            if names.is_label(label := labels.get(TEAM_LABEL, "")):
                found.setdefault(label, set()).add((namespace, None))
    return {team: frozenset(places) for team, places in found.items()}


def grouped(settings: resources.Settings) -> frozenset[str]:
    """The teams that list groups: in a Deny, a user of one of them is enough, whatever the workload."""
    return frozenset(team.name for team in settings.teams if team.groups)


def reachable(
    own: str, selector: fields.Selector, teams_known: Mapping[str, frozenset[Place]]
) -> frozenset[Place]:
    """Every workload that `selector` could match; empty when its conditions exclude one another.

    `teams_known` are the workloads of each team; for a Deny, of a team that lists groups, everybody.
    """
    found: frozenset[Place] = frozenset({EVERYBODY})
    if selector.namespaces is not None:
        found = meet(found, {(namespace, None) for namespace in selector.namespaces})
    if selector.service_accounts is not None:
        found = meet(found, {account(own, text) for text in selector.service_accounts})
    if selector.teams is not None:
        found = meet(found, {place for team in selector.teams for place in teams_known.get(team, ())})
    return found


def meet(left: Iterable[Place], right: Iterable[Place]) -> frozenset[Place]:
    """The workloads in both."""
    others = tuple(right)
    return frozenset(both for one in left for other in others if (both := _overlap(one, other)) is not None)


def _overlap(one: Place, other: Place) -> Place | None:
    if EVERYBODY in (one, other):
        return other if one == EVERYBODY else one
    if one[0] != other[0] or (one[1] is not None and other[1] is not None and one[1] != other[1]):
        return None
    return one if one[1] is not None else other


def case(world: resources.World, namespace: str, service_account: str) -> Case:
    """The case of one ServiceAccount, with the teams that the settings give it."""
    return case_of(world, (namespace, service_account), Index(world.policies), Index(world.budgets))


def case_of(
    world: resources.World,
    who: tuple[str, str],
    policies: Index[resources.MCPToolPolicy],
    budgets: Index[resources.MCPBudget],
) -> Case:
    """The same over indexes that exist already; `who` is (namespace, ServiceAccount)."""
    namespace, service_account = who
    found = teams(world, namespace, service_account)
    return Case(
        settings=world.settings,
        workload=identity.Workload(namespace=namespace, service_account=service_account, teams=found),
        policies=policies,
        budgets=budgets,
        grouped={team.name: team.groups for team in world.settings.teams if team.groups},
    )
