# SPDX-License-Identifier: Apache-2.0
"""What does not do what it seems to do: findings across objects.

Called by compile. Changes no decision and refuses nothing: objects may arrive in any order. Every claim here is sound (what
is called shadowed or impossible is), none is complete.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Mapping

from outrider import findings, names, resources, rules
from outrider.compile import entries, objects, scope, shadows, spending, views
from outrider.compile.objects import about
from outrider.findings import Finding, Reason, Severity
from outrider.resources import fields

Definitions = Mapping[names.ServerId, tuple[str, ...]]
"""The names that servers list, of one kind."""

_ALIKE_MAX = 500
"""Servers looked through for the one a mistyped target may have meant."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ground:
    """What is looked at: the objects, the tools and prompts that servers list, the bridges of commands, who is in each team."""

    objects: objects.Objects
    definitions: Definitions
    bridges: Mapping[names.ServerId, str]
    members: Mapping[str, frozenset[scope.Place]]
    prompts: Definitions = dataclasses.field(default_factory=dict)
    denied: Mapping[str, frozenset[scope.Place]] = dataclasses.field(default_factory=dict)
    """Who a Deny of each team may be about: everybody, where one of its users may come with any workload."""

    @property
    def settings(self) -> resources.Settings:
        return self.objects.world.settings


def ground(
    known: objects.Objects,
    definitions: Definitions,
    bridges: Mapping[names.ServerId, str],
    prompts: Definitions | None = None,
) -> Ground:
    """The ground of one world."""
    members = scope.members(known.world)
    anywhere = dict.fromkeys(scope.grouped(known.world.settings), frozenset({scope.EVERYBODY}))
    return Ground(known, definitions, bridges, members, prompts or {}, {**members, **anywhere})


def findings_of(
    world: resources.World,
    definitions: Definitions,
    bridges: Mapping[names.ServerId, str],
    prompts: Definitions | None = None,
) -> tuple[findings.Finding, ...]:
    """Every finding, ordered by severity, reason and object."""
    here = ground(objects.Objects(world), definitions, bridges, prompts)
    found: set[Finding] = set()
    for kind in (world.policies, world.budgets, world.servers):
        for placed in kind:
            found.update(of(here, placed.resource))
    return tuple(sorted(found))


def of(
    here: Ground, made: resources.MCPServer | resources.MCPToolPolicy | resources.MCPBudget
) -> tuple[findings.Finding, ...]:
    """Every finding about one object, in order. It depends on the object, what its targets cover, and their policies."""
    found: list[Finding] = []
    if isinstance(made, resources.MCPToolPolicy):
        found += [*_targets(here, made), *_policy(here, made), *shadows.of(here.objects, made)]
    elif isinstance(made, resources.MCPBudget):
        found += [*_targets(here, made), *_budget(here, made), *spending.of(here.objects, made)]
    else:
        found += [*_server(here, made), *_consent(here, made)]
    return tuple(sorted(set(found)))


def _targets(here: Ground, made: resources.MCPToolPolicy | resources.MCPBudget) -> Iterator[Finding]:
    own = made.metadata.namespace
    for index, target in enumerate(made.spec.target_refs):
        path = f"spec.targetRefs[{index}]"
        if own == here.settings.platform_namespace and target.namespace is None:
            yield Finding(
                Severity.ERROR, Reason.PLATFORM_TARGET_NEEDS_NAMESPACE, *about(made), path,
                "a target of the platform's namespace names no namespace, so it governs nothing",
                f'Add `namespace:`, for example "{own}", or "*" with the name "*".',
            )  # fmt: skip
        elif target.namespace != "*" and not here.objects.covered(own, (target,)):
            wanted = f"{target.namespace or own}/{target.name}"
            near = difflib.get_close_matches(wanted, _alike(here, own, target), n=1)
            yield Finding(
                Severity.ERROR, Reason.TARGET_NOT_FOUND, *about(made), path,
                f"there is no MCPServer {wanted}",
                f"Did you mean {near[0]}?" if near else "Create it, or correct the name or the namespace.",
            )  # fmt: skip


def _alike(here: Ground, own: str, target: fields.TargetRef) -> list[str]:
    """Names to suggest: to a tenant those of its own namespace only, for what others run is not its business."""
    found = here.objects.alike(target.namespace or own, target.name)
    if here.settings.workload is None and own != here.settings.platform_namespace:
        found = frozenset(server for server in found if server.namespace == own)
    return [str(server) for server in sorted(found)[:_ALIKE_MAX]]


def _policy(here: Ground, made: resources.MCPToolPolicy) -> Iterator[Finding]:
    covered = here.objects.covered(made.metadata.namespace, made.spec.target_refs)
    listed, prompts = _listed(covered, here.definitions), _listed(covered, here.prompts)
    for index, rule in enumerate(made.spec.rules):
        path = f"spec.rules[{index}]"
        deny = rule.effect is rules.Effect.DENY
        yield from _callers(here, made, f"{path}.from", rule.from_, deny=deny)
        yield from _unknown(about(made), f"{path}.tools", rule.tools or (), listed, deny=deny)
        for finding in _unknown(about(made), f"{path}.prompts", rule.prompts or (), prompts, deny=deny):
            text = finding.message.replace("no tool", "no prompt", 1)
            yield dataclasses.replace(finding, reason=Reason.UNKNOWN_PROMPT, message=text)


def _budget(here: Ground, made: resources.MCPBudget) -> Iterator[Finding]:
    yield from _callers(here, made, "spec.from", made.spec.from_)
    listed = _listed(here.objects.covered(made.metadata.namespace, made.spec.target_refs), here.definitions)
    yield from _unknown(about(made), "spec.tools", made.spec.tools, listed)


def _server(here: Ground, made: resources.MCPServer) -> Iterator[Finding]:
    spec = made.spec
    if spec.endpoint.command is not None and made.id not in here.bridges:
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
    yield from entries.of(here.settings, made)
    listed, everybody = _listed((made.id,), here.definitions), frozenset({scope.EVERYBODY})
    for index, entry in enumerate(spec.credentials or ()):
        path = f"spec.credentials[{index}]"
        for position, selector in enumerate(entry.from_):
            at = f"{path}.from[{position}]"
            yield from _selector(here, made, at, selector, within=everybody, teams=here.members)
        yield from _unknown(about(made), f"{path}.tools", entry.tools, listed)
    yield from _unknown(about(made), "spec.tools.include", spec.tools.include, listed)
    yield from _unknown(about(made), "spec.tools.exclude", spec.tools.exclude, listed, deny=True)
    priced = tuple(entry.name for entry in spec.tools.cost.per_tool)
    yield from _unknown(about(made), "spec.tools.cost.perTool", priced, listed)
    for index, redaction in enumerate(spec.tools.redact):
        yield from _unknown(about(made), f"spec.tools.redact[{index}].tools", redaction.tools, listed)


def _callers(
    here: Ground,
    made: resources.MCPToolPolicy | resources.MCPBudget,
    path: str,
    selectors: tuple[fields.Selector, ...] | None,
    *,
    deny: bool = False,
) -> Iterator[Finding]:
    """Entries that match nobody; an object that only speaks as a consumer is about its own workloads at most."""
    own = made.metadata.namespace
    narrow = own != here.settings.platform_namespace and all(
        target.namespace not in (None, own) for target in made.spec.target_refs
    )
    within: frozenset[scope.Place] = frozenset({(own, None) if narrow else scope.EVERYBODY})
    teams = here.denied if deny else here.members
    for index, selector in enumerate(selectors or ()):
        yield from _selector(here, made, f"{path}[{index}]", selector, within=within, teams=teams)


def _selector(  # noqa: PLR0913 -- the last two say whom it could be about at all
    here: Ground,
    made: resources.MCPServer | resources.MCPToolPolicy | resources.MCPBudget,
    at: str,
    selector: fields.Selector,
    *,
    within: frozenset[scope.Place],
    teams: Mapping[str, frozenset[scope.Place]],
) -> Iterator[Finding]:
    own = made.metadata.namespace
    yield from _providers(here, made, at, selector)
    nobody = [team for team in selector.teams or () if not teams.get(team)]
    for team in nobody:
        near = difflib.get_close_matches(team, sorted(teams), n=1)
        remedy = f'Did you mean "{near[0]}"?' if near else "Add it to the settings, or correct the name."
        known = team in teams
        yield Finding(
            Severity.WARNING, Reason.NEVER_MATCHES, *about(made), f"{at}.teams",
            f'no workload is in team "{team}", and a pod\'s must be' if known else f'the settings know no team "{team}"',
            "Add its namespaces or ServiceAccounts to the settings, or name its groups in `groups`." if known else remedy,
        )  # fmt: skip
    reach = scope.reachable(own, selector, teams)
    if not reach and not nobody:
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


def _providers(
    here: Ground,
    made: resources.MCPServer | resources.MCPToolPolicy | resources.MCPBudget,
    at: str,
    selector: fields.Selector,
) -> Iterator[Finding]:
    """Users whose tokens nobody here can verify."""
    known = [provider.name for provider in here.settings.identity_providers]
    personal = {"users": selector.users, "groups": selector.groups, "clients": selector.clients}
    for field, values in personal.items():
        for index, value in enumerate(values or ()):
            provider, _, rest = value.partition(":")
            if provider in known:
                continue
            near = difflib.get_close_matches(provider, known, n=1)
            yield Finding(
                Severity.WARNING, Reason.UNKNOWN_PROVIDER, *about(made), f"{at}.{field}[{index}]",
                f'the settings know no identity provider "{provider}"',
                f'Did you mean "{near[0]}:{rest}"?' if near else "Add it to identityProviders of the settings.",
            )  # fmt: skip


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


def _consent(here: Ground, made: resources.MCPServer) -> Iterator[Finding]:
    """For the laptop's own workload: a server that allows it, to which its namespace has not agreed."""
    who = here.settings.workload
    if who is None:
        return
    case = here.objects.case(who.namespace, who.service_account)
    view = views.view(case, made, url="https://unused.invalid/")
    if view is None or not view.consumer_key_needed:
        return
    allows = [rule for rule in view.rules if rule.effect is rules.Effect.ALLOW]
    if not any(rule.key in (rules.Key.CONSUMER, rules.Key.PLATFORM) for rule in allows):
        yield Finding(
            Severity.WARNING, Reason.CONSENT_MISSING, *about(made), "",
            f"{allows[0].ref} allows {case.workload}, but no policy of namespace {who.namespace} agrees to it",
            f"Add an MCPToolPolicy in {who.namespace} with an Allow for {made.id}, or set consumerConsent: Implied.",
        )  # fmt: skip
