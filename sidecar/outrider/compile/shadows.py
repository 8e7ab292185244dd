# SPDX-License-Identifier: Apache-2.0
"""Allows that never allow: everything they name is always denied, or excluded by the server.

Called by checks. Claims only what holds for every caller: a Deny counts when it is enforced, for everyone, and of a party
that governs at least the callers of the Allow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from outrider import names, resources, rules
from outrider.compile import scope
from outrider.findings import Finding, Reason, Severity
from outrider.resources import policy


@dataclasses.dataclass(frozen=True, slots=True)
class _Block:
    """Names that are closed at one server: for everyone, or for the workloads of one namespace."""

    globs: tuple[str, ...]
    what: str
    only: str | None = None


def findings_of(world: resources.World) -> Iterator[Finding]:
    """One finding for each name or pattern of an Allow that is closed at every server it is for."""
    platform = world.settings.platform_namespace
    denies = scope.Index(
        tuple(
            placed
            for placed in world.policies
            if placed.resource.spec.mode is policy.Mode.ENFORCE
            and any(map(_total, placed.resource.spec.rules))
        )
    )
    allows = scope.Index(world.policies)
    closed: dict[tuple[str, str, int, int], list[str]] = {}
    open_: set[tuple[str, str, int, int]] = set()
    for placed in world.servers:
        blocks = _blocks(placed.resource, denies, platform)
        for made in allows.about(placed.resource.id):
            for at, glob in _allowed(made, placed.resource.id, platform):
                own = made.metadata.namespace
                # A consumer's Deny closes its own workloads' calls: enough for what its own namespace allows them.
                mine = own if own not in (platform, placed.resource.metadata.namespace) else None
                found = [
                    b.what
                    for b in blocks
                    if b.only in (None, mine) and any(_within(glob, g) for g in b.globs)
                ]
                if found:
                    closed.setdefault(at, []).append(found[0])
                else:
                    open_.add(at)
    for at, by in sorted(closed.items()):
        if at in open_:
            continue
        namespace, name, rule, tool = at
        yield Finding(
            Severity.WARNING, Reason.SHADOWED, "MCPToolPolicy", namespace, name, f"spec.rules[{rule}].tools[{tool}]",
            f"what this allows is always closed by {by[0]}",
            "Remove it from the Allow, or narrow what closes it.",
        )  # fmt: skip


def _allowed(
    made: resources.MCPToolPolicy, server: names.ServerId, platform: str
) -> Iterator[tuple[tuple[str, str, int, int], str]]:
    """(namespace, name, rule, tool) and pattern of every name this policy allows at a server it means."""
    own = made.metadata.namespace
    if not any(scope.covers(own, target, server, platform=platform) for target in made.spec.target_refs):
        return
    for rule_index, rule in enumerate(made.spec.rules):
        if rule.effect is rules.Effect.ALLOW:
            for tool_index, glob in enumerate(rule.tools or ()):
                yield (own, made.metadata.name, rule_index, tool_index), glob


def _blocks(
    made: resources.MCPServer, denies: scope.Index[resources.MCPToolPolicy], platform: str
) -> list[_Block]:
    found = []
    if made.spec.tools.exclude:
        found.append(_Block(made.spec.tools.exclude, f"spec.tools.exclude of MCPServer {made.id}"))
    for deny in denies.about(made.id):
        own = deny.metadata.namespace
        means = [t for t in deny.spec.target_refs if scope.covers(own, t, made.id, platform=platform)]
        everyone = own == platform or any(target.namespace in (None, own) for target in means)
        for rule in deny.spec.rules if means else ():
            if _total(rule):
                what = f"the Deny {own}/{deny.metadata.name}/{rule.name}"
                found.append(_Block(rule.tools or ("*",), what, None if everyone else own))
    return found


def _total(rule: policy.PolicyRule) -> bool:
    """True for a Deny that is for everyone."""
    if rule.effect is not rules.Effect.DENY:
        return False
    return rule.from_ is None or any(selector.anyone for selector in rule.from_)


def _within(allowed: str, denied: str) -> bool:
    """True when every name that `allowed` matches is matched by `denied` as well.

    Read as a text, a `*` of `allowed` can only be swallowed by a `*` of `denied`, and then so can whatever it stands for.
    """
    return rules.matches(rules.fold(denied), rules.fold(allowed))
