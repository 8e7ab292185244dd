# SPDX-License-Identifier: Apache-2.0
"""Who an object could be about at all, and which servers a change of it touches for whom.

Called by the Compiler, to leave everybody else alone. Errs on one side only: whoever may be concerned is; whether a selector
really matches is for `scope.Case` to say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from outrider import identity, names, resources, rules
from outrider.compile import objects, scope
from outrider.resources import fields

Audience = frozenset[str]
"""Marks of workloads: EVERYONE, `namespace:x`, `team:x`. Who has one of them may be meant."""

EVERYONE = "everyone"


@dataclasses.dataclass(frozen=True, slots=True)
class Touch:
    """These servers may look different to workloads of `audience`, of one namespace alone if `only` says so.

    `opens` False: nobody comes to see a server by it who did not see it before.
    """

    audience: Audience
    servers: frozenset[names.ServerId]
    only: str | None = None
    opens: bool = True


def marks(who: identity.Workload) -> Audience:
    """The marks of one workload."""
    return frozenset({EVERYONE, f"namespace:{who.namespace}", *(f"team:{team}" for team in who.teams)})


def of_selectors(
    own: str, selectors: tuple[fields.Selector, ...] | None, *, open_teams: Iterable[str] = ()
) -> Audience:
    """Who entries of an object in namespace `own` could match; no entries at all match everyone.

    Of `open_teams` may be a user whatever the workload is: they narrow nothing.
    """
    if selectors is None:
        return frozenset({EVERYONE})
    return frozenset(mark for each in selectors for mark in _entry(own, each, frozenset(open_teams)))


def of_allows(made: resources.MCPToolPolicy) -> Audience:
    """Who the Allows of a policy could match."""
    own = made.metadata.namespace
    chosen = [rule for rule in made.spec.rules if rule.effect is rules.Effect.ALLOW]
    return frozenset(mark for rule in chosen for mark in of_selectors(own, rule.from_))


def of_denies(made: resources.MCPToolPolicy, grouped: Iterable[str]) -> Audience:
    """Who its Denies could match; a team of `grouped` lists groups, so that one of its users may come with any workload."""
    own = made.metadata.namespace
    chosen = [rule for rule in made.spec.rules if rule.effect is rules.Effect.DENY]
    return frozenset(mark for rule in chosen for mark in of_selectors(own, rule.from_, open_teams=grouped))


def opening(made: resources.MCPToolPolicy, platform: str) -> tuple[fields.TargetRef, ...]:
    """The targets at which an Allow of this policy lets a workload see a server: not those of a consumer."""
    own = made.metadata.namespace
    if all(rule.effect is not rules.Effect.ALLOW for rule in made.spec.rules):
        return ()
    return tuple(
        target for target in made.spec.target_refs if own == platform or target.namespace in (None, own)
    )


def touches(known: objects.Objects, made: resources.MCPToolPolicy | resources.MCPBudget) -> Iterable[Touch]:
    """What may look different to whom when this object comes or goes."""
    own, platform = made.metadata.namespace, known.world.settings.platform_namespace
    opens: tuple[fields.TargetRef, ...] = ()
    if isinstance(made, resources.MCPToolPolicy):
        audience, opens = of_allows(made) | of_denies(made, known.grouped), opening(made, platform)
    else:
        audience = of_selectors(own, made.spec.from_)
    others = [target for target in made.spec.target_refs if target not in opens]
    narrow = [target for target in others if own != platform and target.namespace not in (None, own)]
    wide = [target for target in others if target not in narrow]
    for targets, only, opening_ in ((opens, None, True), (wide, None, False), (narrow, own, False)):
        if servers := known.covered(own, targets):
            yield Touch(audience, servers, only, opening_)


def _entry(own: str, selector: fields.Selector, open_teams: frozenset[str]) -> Iterable[str]:
    """The narrowest of its fields that has marks: all of them must match, so any one will do."""
    if selector.service_accounts is not None:
        return {f"namespace:{scope.account(own, text)[0]}" for text in selector.service_accounts}
    if selector.namespaces is not None:
        return {f"namespace:{namespace}" for namespace in selector.namespaces}
    if selector.teams is not None and open_teams.isdisjoint(selector.teams):
        return {f"team:{team}" for team in selector.teams}
    return {EVERYONE}
