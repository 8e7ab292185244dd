# SPDX-License-Identifier: Apache-2.0
"""snapshot + observed definitions -> targets: everything about one callable name, joined once.

Called by the proxy when a snapshot or a server's list arrives, and by `can-i` and `explain` on a folder. Nothing here is
done per call: a decision is lookups in what this module built, so it costs the same with 10 rules and with 10,000.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from outrider import call, catalog, findings, names, rules, snapshot, uris
from outrider.targets import Index as Index  # noqa: PLC0414 -- part of what this module offers
from outrider.targets import Key as Key  # noqa: PLC0414
from outrider.targets import Target as Target  # noqa: PLC0414

Targets = Mapping[Key, Target]
_NOTHING: Targets = {}
_NO_TEMPLATES: Mapping[str, Target] = {}

MEMO_MAX = 512
"""URIs of one server that are kept joined though it lists none of them; then all are forgotten and joined anew."""


@dataclasses.dataclass(frozen=True, slots=True)
class BoundServer:
    """A server with its targets; `targets` None until its definitions have been observed.

    `templates` are its URI templates by their text. `in_sight`: whether the server exists at all for this workload, because some
    call of it would not look unknown, by some user if it depends on one. Until its tools have been observed it does when both
    keys could turn for some of them. Found out once, not once per call.
    """

    index: Index
    targets: Targets | None
    exposed: Targets
    in_sight: bool
    templates: Mapping[str, Target] = dataclasses.field(default_factory=dict)
    unobserved: frozenset[call.Kind] = frozenset()
    _memo: dict[str, Target] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    @property
    def view(self) -> snapshot.ServerView:
        return self.index.view

    def observed(self, kind: call.Kind) -> bool:
        """Whether it is known what the server lists of this kind."""
        return self.targets is not None and (not self.unobserved or kind not in self.unobserved)

    def target(self, kind: call.Kind, name: str) -> Target | None:
        """What is known of one name; None when it is unknown, or not observed yet. No list is needed for a resource."""
        found = None if self.targets is None else self.targets.get((kind, name))
        if found is None and kind is call.Kind.RESOURCE:
            return self._unlisted(name)
        return found

    def template(self, text: str) -> Target | None:
        """What is known of one URI template, whether or not the server lists it."""
        return self.templates.get(text) or self.index.template(text, None)

    def _unlisted(self, uri: str) -> Target | None:
        found = self._memo.get(uri)
        if found is None and (found := self.index.target(uri, None, call.Kind.RESOURCE)) is not None:
            if len(self._memo) >= MEMO_MAX:
                self._memo.clear()
            self._memo[uri] = found
        return found


@dataclasses.dataclass(frozen=True, slots=True)
class Bound:
    """What decisions are made on: immutable, swapped whole, read without a lock."""

    snapshot: snapshot.Snapshot
    digest: str
    servers: Mapping[names.ServerId, BoundServer]
    aliases: Mapping[str, names.ServerId]

    def with_definitions(self, server: names.ServerId, observed: catalog.Definitions) -> Bound:
        """A Bound in which one server's definitions are these; itself when it has no such server."""
        held = self.servers.get(server)
        if held is None:
            return self
        return dataclasses.replace(self, servers={**self.servers, server: _join(held.index, observed, held)})

    def named(self, exposed: str, kind: call.Kind = call.Kind.TOOL) -> tuple[names.ServerId, str] | None:
        """The server and original name behind the name of a tool or prompt on the merged endpoint.

        A name whose server has not been observed resolves by its prefix, so that the decision can ask for the
        definitions; one that was cut or changed is known only once they are there.
        """
        alias, _, rest = exposed.partition("__")
        if (prefixed := self.aliases.get(alias)) is not None:
            found = self.servers[prefixed].exposed.get((kind, exposed))
            if found is not None or not self.servers[prefixed].observed(kind):
                return prefixed, found.name if found is not None else rest
        for server, held in self.servers.items():
            if (target := held.exposed.get((kind, exposed))) is not None:
                return server, target.name
        return (prefixed, rest) if prefixed is not None else None


def bind_server(index: Index, observed: catalog.Definitions, before: Targets = _NOTHING) -> Targets:
    """Everything the server lists and the entry includes, kind by kind, in the server's order.

    What was joined `before`, of the same index and the same definition, is taken as it is.
    """
    lists = (
        (call.Kind.TOOL, observed.tools),
        (call.Kind.PROMPT, observed.prompts),
        (call.Kind.RESOURCE, observed.resources),
    )
    found: dict[Key, Target] = {}
    for kind, listed in lists:
        for each in listed:
            held = before.get((kind, each.name))
            made = (
                held if held is not None and held.definition == each else index.target(each.name, each, kind)
            )
            if made is not None:
                found[kind, each.name] = made
    return found


def _join(
    index: Index, observed: catalog.Definitions | None, before: BoundServer | None = None
) -> BoundServer:
    if observed is None:
        return BoundServer(index, None, {}, index.open)
    targets = bind_server(index, observed, (before.targets if before is not None else None) or _NOTHING)
    known = _NO_TEMPLATES if before is None else before.templates
    unseen = bool((observed.unobserved & index.opens) - {call.Kind.RESOURCE})
    in_sight = unseen or index.resources_in_sight or any(target.in_sight for target in targets.values())
    return BoundServer(
        index=index,
        targets=targets,
        exposed={
            (kind, target.exposed): target
            for (kind, _), target in targets.items()
            if kind is not call.Kind.RESOURCE
        },
        in_sight=in_sight,
        templates={
            each.name: made
            for each in observed.templates
            if (made := _template(index, each, known.get(each.name))) is not None
        },
        unobserved=observed.unobserved,
    )


def _template(index: Index, each: catalog.Definition, held: Target | None) -> Target | None:
    return held if held is not None and held.definition == each else index.template(each.name, each)


def bound(
    subject: snapshot.Snapshot,
    definitions: Mapping[names.ServerId, catalog.Definitions],
    *,
    digest: str = "",
) -> Bound:
    """Joins a snapshot with what has been observed of its servers so far."""
    namespace = subject.workload.namespace
    return Bound(
        snapshot=subject,
        digest=digest or snapshot.digest(snapshot.canonical(subject)),
        servers={
            view.id: _join(Index(view, namespace), definitions.get(view.id)) for view in subject.servers
        },
        aliases={catalog.alias(view.id, namespace): view.id for view in subject.servers},
    )


_UNCHECKED = (
    "Have the server's maintainers correct the schema, or set `tools.validateArguments: false` on the MCPServer to offer its"
    " tools with arguments unchecked."
)


def objections(held: BoundServer, observed: catalog.Definitions) -> tuple[findings.Finding, ...]:
    """What the server's own list shows to be wrong: tools left out, and rules whose names no listed tool has.

    A rule in a snapshot does not know which servers it was written for. So names are held against this server's list only
    where they were most likely meant for it: not those of the platform, nor what consumers deny.
    """
    view = held.view
    made = []
    for dropped in observed.dropped:
        word = _WORDS[dropped.kind][0]
        text = f"the {word} {dropped.name!r} is left out: {dropped.detail or _CAUSES[dropped.reason]}"
        made.append(_finding(view.id, "MCPServer", "spec.endpoint", dropped.reason, text))
    for name, flaw in held.index.flaws(observed):
        text = f"the tool {name!r} is left out: arguments cannot be checked against its inputSchema: {flaw}"
        unusable = _finding(view.id, "MCPServer", "spec.tools.validateArguments", _REFUSED, text)
        made.append(dataclasses.replace(unusable, remedy=_UNCHECKED))
    for rule in view.rules:
        denies = rule.effect is rules.Effect.DENY
        if rule.key is rules.Key.PLATFORM or (denies and rule.key is rules.Key.CONSUMER):
            continue
        place = names.ServerId(rule.ref.namespace, rule.ref.policy)
        for kind, glob in _strays(rule, observed):
            word, reason, field = _WORDS[kind]
            path = f"spec.rules[{rule.ref.rule}].{field}"
            text = f"{view.id} lists no {word} that {glob!r} matches"
            made.append(_finding(place, "MCPToolPolicy", path, reason, text))
    return tuple(made)


_WORDS = {
    call.Kind.TOOL: ("tool", findings.Reason.UNKNOWN_TOOL, "tools"),
    call.Kind.PROMPT: ("prompt", findings.Reason.UNKNOWN_PROMPT, "prompts"),
    call.Kind.RESOURCE: ("resource or template", findings.Reason.UNKNOWN_RESOURCE, "resources"),
}


def _strays(rule: rules.Rule, observed: catalog.Definitions) -> Iterator[tuple[call.Kind, str]]:
    """The globs of a rule that match nothing of what the server lists. A glob for everything is never one."""
    matcher = rules.folded if rule.effect is rules.Effect.DENY else rules.exact
    for kind in call.Kind:
        if kind in observed.unobserved:
            continue
        known = [*observed.names(kind), *(each.name for each in observed.dropped if each.kind is kind)]
        becoming = (
            [uris.pattern(each.name) for each in observed.templates] if kind is call.Kind.RESOURCE else []
        )
        for glob in rule.globs(kind):
            if rules.is_all(glob):
                continue
            if not any(map(matcher((glob,)), known)) and not any(rules.meet(glob, each) for each in becoming):
                yield kind, glob


_REFUSED = findings.Reason.DEFINITIONS_REFUSED
_CAUSES = {
    findings.Reason.DUPLICATE_NAME: "an earlier one of the list has the same name",
    findings.Reason.UNUSABLE_TOOL_NAME: "its name does not fit [A-Za-z0-9_.-]{1,128}",
    findings.Reason.UNUSABLE_PROMPT_NAME: "its name is not 1 to 128 characters without controls",
    findings.Reason.UNUSABLE_URI: "its URI is one that is never read",
    findings.Reason.TOO_MANY_TOOLS: f"the list has more than {catalog.TOOLS_MAX:,} entries",
    _REFUSED: "its definition cannot be used",
}


def _finding(
    place: names.ServerId, kind: str, path: str, reason: findings.Reason, message: str
) -> findings.Finding:
    return findings.Finding(
        findings.Severity.WARNING, reason, kind, place.namespace, place.name, path, message, reason.remedy
    )
