# SPDX-License-Identifier: Apache-2.0
"""What does not do what it seems to do: findings across objects.

Called by compile. Changes no decision and refuses nothing: objects may arrive in any order. Every claim here is sound (what
is called shadowed or impossible is), none is complete.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping

from outrider import findings, names, resources, rules
from outrider.compile import scope, shadows, spending, views
from outrider.findings import Finding, Reason, Severity
from outrider.resources import fields

Definitions = Mapping[names.ServerId, tuple[str, ...]]


def findings_of(
    world: resources.World, definitions: Definitions, bridges: Mapping[names.ServerId, str]
) -> tuple[findings.Finding, ...]:
    """Every finding, ordered by severity, reason and object."""
    known = frozenset(placed.resource.id for placed in world.servers)
    found: list[Finding] = []
    for policy in world.policies:
        found += _targets(policy.resource, known, world.settings)
        found += _policy(policy.resource, known, world.settings, definitions)
    for budget in world.budgets:
        found += _targets(budget.resource, known, world.settings)
        found += _budget(budget.resource, known, world.settings, definitions)
    for server in world.servers:
        found += _server(server.resource, world.settings, definitions, bridges)
    found += shadows.findings_of(world)
    found += spending.findings_of(world)
    found += _consent(world)
    return tuple(sorted(set(found)))


def about(made: resources.MCPServer | resources.MCPToolPolicy | resources.MCPBudget) -> tuple[str, str, str]:
    """(kind, namespace, name) of an object, as a Finding begins."""
    return made.kind, made.metadata.namespace, made.metadata.name


def _targets(
    made: resources.MCPToolPolicy | resources.MCPBudget,
    known: frozenset[names.ServerId],
    given: resources.Settings,
) -> Iterator[Finding]:
    own = made.metadata.namespace
    for index, target in enumerate(made.spec.target_refs):
        path = f"spec.targetRefs[{index}]"
        if own == given.platform_namespace and target.namespace is None:
            yield Finding(
                Severity.ERROR, Reason.PLATFORM_TARGET_NEEDS_NAMESPACE, *about(made), path,
                "a target of the platform's namespace names no namespace, so it governs nothing",
                f'Add `namespace:`, for example "{own}", or "*" with the name "*".',
            )  # fmt: skip
        elif target.namespace != "*" and not _covered(own, (target,), known, given):
            wanted = f"{target.namespace or own}/{target.name}"
            near = difflib.get_close_matches(wanted, [str(server) for server in known], n=1)
            yield Finding(
                Severity.ERROR, Reason.TARGET_NOT_FOUND, *about(made), path,
                f"there is no MCPServer {wanted}",
                f"Did you mean {near[0]}?" if near else "Create it, or correct the name or the namespace.",
            )  # fmt: skip


def _policy(
    made: resources.MCPToolPolicy,
    known: frozenset[names.ServerId],
    given: resources.Settings,
    definitions: Definitions,
) -> Iterator[Finding]:
    own = made.metadata.namespace
    listed = _listed(_covered(own, made.spec.target_refs, known, given), definitions)
    for index, rule in enumerate(made.spec.rules):
        path = f"spec.rules[{index}]"
        yield from _callers(made, f"{path}.from", rule.from_, given)
        deny = rule.effect is rules.Effect.DENY
        yield from _unknown(about(made), f"{path}.tools", rule.tools or (), listed, deny=deny)


def _budget(
    made: resources.MCPBudget,
    known: frozenset[names.ServerId],
    given: resources.Settings,
    definitions: Definitions,
) -> Iterator[Finding]:
    yield from _callers(made, "spec.from", made.spec.from_, given)
    listed = _listed(_covered(made.metadata.namespace, made.spec.target_refs, known, given), definitions)
    yield from _unknown(about(made), "spec.tools", made.spec.tools, listed)


def _server(
    made: resources.MCPServer,
    given: resources.Settings,
    definitions: Definitions,
    bridges: Mapping[names.ServerId, str],
) -> Iterator[Finding]:
    spec = made.spec
    if spec.endpoint.command is not None and made.id not in bridges:
        yield Finding(
            Severity.ERROR, Reason.COMMAND_WITHOUT_BRIDGE, *about(made), "spec.endpoint.command",
            "nothing runs this command, so the server is left out",
            "Use `outrider dev`, which runs it behind a bridge, or give the server a url.",
        )  # fmt: skip
    if spec.endpoint.command is None and not spec.credentials:
        yield Finding(
            Severity.WARNING, Reason.NO_CREDENTIAL, *about(made), "spec.credentials",
            "no credential is listed, so an agent that reaches the server may call it past the proxy",
            "Let the server demand a credential and list it here, or say `none: true` if that is meant.",
        )  # fmt: skip
    listed = _listed((made.id,), definitions)
    for index, entry in enumerate(spec.credentials or ()):
        path = f"spec.credentials[{index}]"
        yield from _selectors(made, f"{path}.from", entry.from_, given, within=frozenset({scope.EVERYBODY}))
        yield from _unknown(about(made), f"{path}.tools", entry.tools, listed)
    yield from _unknown(about(made), "spec.tools.include", spec.tools.include, listed)
    yield from _unknown(about(made), "spec.tools.exclude", spec.tools.exclude, listed, deny=True)
    priced = tuple(entry.name for entry in spec.tools.cost.per_tool)
    yield from _unknown(about(made), "spec.tools.cost.perTool", priced, listed)
    for index, redaction in enumerate(spec.tools.redact):
        yield from _unknown(about(made), f"spec.tools.redact[{index}].tools", redaction.tools, listed)


def _callers(
    made: resources.MCPToolPolicy | resources.MCPBudget,
    path: str,
    selectors: tuple[fields.Selector, ...] | None,
    given: resources.Settings,
) -> Iterator[Finding]:
    """Entries that match nobody; an object that only speaks as a consumer is about its own workloads at most."""
    own = made.metadata.namespace
    narrow = own != given.platform_namespace and all(
        target.namespace not in (None, own) for target in made.spec.target_refs
    )
    within: frozenset[scope.Place] = frozenset({(own, None) if narrow else scope.EVERYBODY})
    yield from _selectors(made, path, selectors or (), given, within=within)


def _selectors(
    made: resources.MCPServer | resources.MCPToolPolicy | resources.MCPBudget,
    path: str,
    selectors: tuple[fields.Selector, ...],
    given: resources.Settings,
    *,
    within: frozenset[scope.Place],
) -> Iterator[Finding]:
    own, teams = made.metadata.namespace, {team.name for team in given.teams}
    for index, selector in enumerate(selectors):
        at = f"{path}[{index}]"
        unknown = [team for team in selector.teams or () if team not in teams]
        for team in unknown:
            near = difflib.get_close_matches(team, sorted(teams), n=1)
            yield Finding(
                Severity.WARNING, Reason.NEVER_MATCHES, *about(made), f"{at}.teams",
                f'the settings know no team "{team}"',
                f'Did you mean "{near[0]}"?' if near else "Add it to the settings, or correct the name.",
            )  # fmt: skip
        reach = scope.reachable(own, selector, given)
        if not reach and not unknown:
            yield Finding(
                Severity.WARNING, Reason.NEVER_MATCHES, *about(made), at,
                "its conditions exclude one another: all fields of one entry must match the same caller",
                "Write them as entries of their own if any of them is enough.",
            )  # fmt: skip
        elif reach and not scope.meet(reach, within):
            yield Finding(
                Severity.WARNING, Reason.NEVER_MATCHES, *about(made), at,
                f"about servers of other namespaces this object governs only callers of {own}, and this entry has none",
                f"Select callers of {own}, or put the object where the servers or the callers are.",
            )  # fmt: skip


def _covered(
    own: str,
    targets: Iterable[fields.TargetRef],
    known: frozenset[names.ServerId],
    given: resources.Settings,
) -> tuple[names.ServerId, ...]:
    """The servers that targets of an object in namespace `own` mean."""
    platform = given.platform_namespace
    found: set[names.ServerId] = set()
    for target in targets:
        if target.name != "*":
            one = names.ServerId(target.namespace or own, target.name)
            found |= {one} & known if scope.covers(own, target, one, platform=platform) else set()
        else:
            found |= {server for server in known if scope.covers(own, target, server, platform=platform)}
    return tuple(sorted(found))


def _listed(servers: Iterable[names.ServerId], definitions: Definitions) -> frozenset[str] | None:
    """The tools of all these servers; None when it is not known of every one of them (or there is none)."""
    lists = [definitions.get(server) for server in servers]
    if not lists or any(one is None for one in lists):
        return None
    return frozenset(tool for one in lists for tool in one or ())


def _unknown(
    subject: tuple[str, str, str],
    path: str,
    globs: tuple[str, ...],
    listed: frozenset[str] | None,
    *,
    deny: bool = False,
) -> Iterator[Finding]:
    for index, glob in enumerate(globs):
        if listed is None or glob.strip("*") == "":
            continue
        matcher = (rules.folded if deny else rules.exact)((glob,))
        if any(matcher(tool) for tool in listed):
            continue
        near = difflib.get_close_matches(glob, sorted(listed), n=1)
        yield Finding(
            Severity.WARNING, Reason.UNKNOWN_TOOL, *subject, f"{path}[{index}]",
            f'no tool of the servers concerned matches "{glob}"',
            f'Did you mean "{near[0]}"?' if near else "Correct it, or remove it.",
        )  # fmt: skip


def _consent(world: resources.World) -> Iterator[Finding]:
    """For the laptop's own workload: servers that allow it, to which its namespace has not agreed."""
    who = world.settings.workload
    if who is None:
        return
    case = scope.case(world, who.namespace, who.service_account)
    for placed in world.servers:
        made = placed.resource
        view = views.view(case, made, url="https://unused.invalid/")
        if view is None or not view.consumer_key_needed:
            continue
        allows = [rule for rule in view.rules if rule.effect is rules.Effect.ALLOW]
        if not any(rule.key in (rules.Key.CONSUMER, rules.Key.PLATFORM) for rule in allows):
            yield Finding(
                Severity.WARNING, Reason.CONSENT_MISSING, *about(made), "",
                f"{allows[0].ref} allows {case.workload}, but no policy of namespace {who.namespace} agrees to it",
                f"Add an MCPToolPolicy in {who.namespace} with an Allow for {made.id}, or set consumerConsent: Implied.",
            )  # fmt: skip
