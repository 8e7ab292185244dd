# SPDX-License-Identifier: Apache-2.0
"""Allows that never allow: everything they name is always denied, or excluded by the server.

Called by checks. Claims only what holds for every caller: a Deny counts when it is enforced, for everyone, and of a party
that governs at least the callers of the Allow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from outrider import call, resources, rules
from outrider.compile import objects, scope
from outrider.findings import Finding, Reason, Severity
from outrider.resources import policy

Place = tuple[int, call.Kind, int]
"""One glob of a policy: of which rule, about what, and which of them."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Block:
    """Names of one kind that are closed at one server: for everyone, or for the workloads of one namespace."""

    kind: call.Kind
    globs: tuple[str, ...]
    what: str
    only: str | None = None


def of(known: objects.Objects, made: resources.MCPToolPolicy) -> Iterator[Finding]:
    """One finding for each name or pattern of an Allow that is closed at every server it is for."""
    left = {
        (number, kind, index): glob
        for number, rule in enumerate(made.spec.rules)
        if rule.effect is rules.Effect.ALLOW
        for kind in call.Kind
        for index, glob in enumerate(globs(rule, kind))
    }
    own, platform = made.metadata.namespace, known.world.settings.platform_namespace
    closed: dict[Place, str] = {}
    # One server where it is open settles a name, so that a policy about thousands of servers reads few of them.
    for server in sorted(known.covered(own, made.spec.target_refs)) if left else ():
        blocks = _blocks(known.servers[server], known.policies, platform)
        # A consumer's Deny closes its own workloads' calls: enough for what its own namespace allows them.
        mine = own if own not in (platform, server.namespace) else None
        for at, glob in tuple(left.items()):
            found = [
                b.what
                for b in blocks
                if b.kind is at[1] and b.only in (None, mine) and any(_within(glob, g) for g in b.globs)
            ]
            if found:
                closed.setdefault(at, found[0])
            else:
                del left[at]
        if not left:
            break
    for at in sorted(left.keys() & closed.keys(), key=_order):
        yield Finding(
            Severity.WARNING, Reason.SHADOWED, *objects.about(made), f"spec.rules[{at[0]}].{FIELDS[at[1]]}[{at[2]}]",
            f"what this allows is always closed by {closed[at]}",
            "Remove it from the Allow, or narrow what closes it.",
        )  # fmt: skip


FIELDS = {call.Kind.TOOL: "tools", call.Kind.PROMPT: "prompts", call.Kind.RESOURCE: "resources"}
"""Where a rule says what it is about."""


def globs(rule: policy.PolicyRule, kind: call.Kind) -> tuple[str, ...]:
    """What a rule names of one kind, as it is written."""
    return {
        call.Kind.TOOL: rule.tools,
        call.Kind.PROMPT: rule.prompts,
        call.Kind.RESOURCE: rule.resources,
    }[kind] or ()


def _order(at: Place) -> tuple[int, str, int]:
    return at[0], FIELDS[at[1]], at[2]


def closes(made: resources.MCPToolPolicy) -> bool:
    """True when it has a Deny that counts here."""
    return made.spec.mode is policy.Mode.ENFORCE and any(map(_total, made.spec.rules))


def _blocks(
    made: resources.MCPServer, policies: scope.Index[resources.MCPToolPolicy], platform: str
) -> list[_Block]:
    found = []
    if made.spec.tools.exclude:
        found.append(
            _Block(call.Kind.TOOL, made.spec.tools.exclude, f"spec.tools.exclude of MCPServer {made.id}")
        )
    for deny in policies.about(made.id):
        if not closes(deny):
            continue
        own = deny.metadata.namespace
        means = [t for t in deny.spec.target_refs if scope.covers(own, t, made.id, platform=platform)]
        everyone = own == platform or any(target.namespace in (None, own) for target in means)
        for rule in deny.spec.rules if means else ():
            if _total(rule):
                what = f"the Deny {own}/{deny.metadata.name}/{rule.name}"
                named = any(globs(rule, kind) for kind in call.Kind)
                found += [
                    _Block(kind, globs(rule, kind) if named else ("*",), what, None if everyone else own)
                    for kind in call.Kind
                ]
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
