# SPDX-License-Identifier: Apache-2.0
"""snapshot + observed definitions -> targets: everything about one callable name, joined once.

Called by the proxy when a snapshot or a server's list arrives, and by `can-i` and `explain` on a folder. Nothing here is
done per call: a decision is lookups in what this module built, so it costs the same with 10 rules and with 10,000.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from outrider import budgets, call, catalog, findings, names, rules, schemas, snapshot


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """One callable name. `consumer` None = no consumer's key needed. `watched` are rules of Audit-mode policies.

    `credential` is what would be lent; `credential_missing` is True when the server lists some and none fits.
    """

    server: snapshot.ServerView
    kind: call.Kind
    name: str
    exposed: str
    definition: catalog.Definition | None
    denies: tuple[rules.Rule, ...]
    provider: tuple[rules.Rule, ...]
    consumer: tuple[rules.Rule, ...] | None
    watched: tuple[rules.Rule, ...]
    credential: snapshot.Credential | None
    credential_missing: bool
    price: budgets.Price
    reservations: tuple[budgets.Reservation, ...]
    validate: schemas.Validator | None

    @property
    def in_sight(self) -> bool:
        """Both keys are turned and no silent Deny matches: a call of it does not look unknown (decide: `reachable`)."""
        keys = bool(self.provider) and (self.consumer is None or bool(self.consumer))
        return keys and (not self.denies or any(rule.message for rule in self.denies))


Targets = Mapping[tuple[call.Kind, str], Target]


class _Names:
    """Rules by tool name: literal names in a table, globs in a list, so that a lookup reads only what can match."""

    __slots__ = ("_folded", "_globs", "_literal")

    def __init__(self, subject: tuple[rules.Rule, ...], *, folded: bool) -> None:
        self._folded = folded
        self._literal: dict[str, list[rules.Rule]] = {}
        self._globs: list[tuple[rules.Matcher, rules.Rule]] = []
        for rule in subject:
            texts = tuple(rules.fold(text) for text in rule.tools) if folded else rule.tools
            for text in texts:
                if "*" not in text:
                    self._literal.setdefault(text, []).append(rule)
            if patterns := tuple(text for text in texts if "*" in text):
                self._globs.append((rules.exact(patterns), rule))

    def of(self, name: str) -> tuple[rules.Rule, ...]:
        """The rules that match, in the snapshot's order, each once."""
        wanted = rules.fold(name) if self._folded else name
        found = {rule.ref: rule for rule in self._literal.get(wanted, ())}
        found.update({rule.ref: rule for matcher, rule in self._globs if matcher(wanted)})
        return tuple(found[ref] for ref in sorted(found))


class Index:
    """One server's view, ready to join with any name. `workload_namespace` decides exposed names."""

    __slots__ = (
        "_allows", "_credentials", "_denies", "_exclude", "_include", "_limits", "_namespace", "_prices",
        "_watched_allows", "_watched_denies", "open",
        "view",
    )  # fmt: skip

    def __init__(self, view: snapshot.ServerView, workload_namespace: str) -> None:
        self.view = view
        self._namespace = workload_namespace
        self._include = rules.exact(view.include)
        self._exclude = rules.folded(view.exclude)
        self._allows = _Names(_select(view, rules.Effect.ALLOW, enforced=True), folded=False)
        self._denies = _Names(_select(view, rules.Effect.DENY, enforced=True), folded=True)
        self._watched_allows = _Names(_select(view, rules.Effect.ALLOW, enforced=False), folded=False)
        self._watched_denies = _Names(_select(view, rules.Effect.DENY, enforced=False), folded=True)
        self._credentials = tuple((rules.exact(entry.tools), entry) for entry in view.credentials)
        self._limits = tuple((rules.exact(limit.tools), limit) for limit in view.limits)
        self._prices = dict(view.prices)
        self.open = _is_open(view)

    def target(self, name: str, definition: catalog.Definition | None) -> Target | None:
        """Joins one name; None when `include` or `exclude` leave it out, or it could be nobody's tool name.

        None too when arguments must be checked and its schema cannot be used: nobody could ever call it.
        """
        if not self._includes(name) or (definition is not None and self._flaw(definition) is not None):
            return None
        view = self.view
        allows = self._allows.of(name)
        credential = next((entry for matcher, entry in self._credentials if matcher(name)), None)
        price = self._prices.get(name, view.default_price)
        schema = definition.input_schema if definition is not None and view.validate_arguments else None
        return Target(
            server=view,
            kind=call.Kind.TOOL,
            name=name,
            exposed=catalog.exposed_name(view.id, name, self._namespace),
            definition=definition,
            denies=self._denies.of(name),
            provider=tuple(rule for rule in allows if rule.key is not rules.Key.CONSUMER),
            consumer=(
                tuple(rule for rule in allows if rule.key is not rules.Key.PROVIDER)
                if view.consumer_key_needed
                else None
            ),
            watched=(*self._watched_denies.of(name), *self._watched_allows.of(name)),
            credential=credential,
            credential_missing=view.credential_required and credential is None,
            price=price,
            reservations=self._reservations(name, price),
            validate=None if schema is None else schemas.Validator(schema),
        )

    def flaws(self, observed: catalog.Definitions) -> tuple[tuple[str, str], ...]:
        """Tools that are left out because arguments must be checked and cannot be: (name, what is wrong)."""
        found = ((each.name, self._flaw(each)) for each in observed.tools if self._includes(each.name))
        return tuple((name, flaw) for name, flaw in found if flaw is not None)

    def _includes(self, name: str) -> bool:
        return names.is_tool_name(name) and self._include(name) and not self._exclude(name)

    def _flaw(self, definition: catalog.Definition) -> str | None:
        if not self.view.validate_arguments or definition.input_schema is None:
            return None
        return schemas.flaw(definition.input_schema)

    def _reservations(self, name: str, price: budgets.Price) -> tuple[budgets.Reservation, ...]:
        """One call, or the most it can cost, of every limit that counts this tool."""
        return tuple(
            budgets.Reservation(
                budgets.pool_of(limit, self.view.id, name),
                budgets.MICRO if limit.unit is budgets.Unit.CALLS else budgets.reserve(price),
            )
            for matcher, limit in self._limits
            if matcher(name)
        )


def _is_open(view: snapshot.ServerView) -> bool:
    """Whether both keys could turn for some tool: without, the server is neither asked nor shown."""
    turned = {rule.key for rule in view.rules if rule.enforced and rule.effect is rules.Effect.ALLOW}
    platform = rules.Key.PLATFORM in turned
    provider = platform or rules.Key.PROVIDER in turned
    return provider and (platform or not view.consumer_key_needed or rules.Key.CONSUMER in turned)


def _select(view: snapshot.ServerView, effect: rules.Effect, *, enforced: bool) -> tuple[rules.Rule, ...]:
    return tuple(rule for rule in view.rules if rule.effect is effect and rule.enforced is enforced)


def bind_server(index: Index, observed: catalog.Definitions) -> Targets:
    """Every tool the server lists and the entry includes, in the server's order."""
    joined = (index.target(definition.name, definition) for definition in observed.tools)
    return {(target.kind, target.name): target for target in joined if target is not None}


@dataclasses.dataclass(frozen=True, slots=True)
class BoundServer:
    """A server with its targets; `targets` None until its definitions have been observed.

    `in_sight`: whether the server exists at all for this caller, because some call of it would not look unknown. Until
    its tools have been observed it does when both keys could turn for some of them. Found out once, not once per call.
    """

    index: Index
    targets: Targets | None
    exposed: Mapping[str, Target]
    in_sight: bool

    @property
    def view(self) -> snapshot.ServerView:
        return self.index.view


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
        return dataclasses.replace(self, servers={**self.servers, server: _join(held.index, observed)})

    def named(self, exposed: str) -> tuple[names.ServerId, str] | None:
        """The server and original name behind a name on the merged endpoint.

        A name whose server has not been observed resolves by its prefix, so that the decision can ask for the
        definitions; one that was cut or changed is known only once they are there.
        """
        alias, _, rest = exposed.partition("__")
        if (prefixed := self.aliases.get(alias)) is not None:
            found = self.servers[prefixed].exposed.get(exposed)
            if found is not None or self.servers[prefixed].targets is None:
                return prefixed, found.name if found is not None else rest
        for server, held in self.servers.items():
            if (target := held.exposed.get(exposed)) is not None:
                return server, target.name
        return (prefixed, rest) if prefixed is not None else None


def _join(index: Index, observed: catalog.Definitions | None) -> BoundServer:
    if observed is None:
        return BoundServer(index, None, {}, index.open)
    targets = bind_server(index, observed)
    in_sight = any(target.in_sight for target in targets.values())
    return BoundServer(index, targets, {target.exposed: target for target in targets.values()}, in_sight)


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
        text = f"the tool {dropped.name!r} is left out: {dropped.detail or _CAUSES[dropped.reason]}"
        made.append(_finding(view.id, "MCPServer", "spec.endpoint", dropped.reason, text))
    for name, flaw in held.index.flaws(observed):
        text = f"the tool {name!r} is left out: arguments cannot be checked against its inputSchema: {flaw}"
        unusable = _finding(view.id, "MCPServer", "spec.tools.validateArguments", _REFUSED, text)
        made.append(dataclasses.replace(unusable, remedy=_UNCHECKED))
    listed = [*(each.name for each in observed.tools), *(each.name for each in observed.dropped)]
    for rule in view.rules:
        denies = rule.effect is rules.Effect.DENY
        if rule.key is rules.Key.PLATFORM or (denies and rule.key is rules.Key.CONSUMER):
            continue
        matcher = rules.folded if denies else rules.exact
        for glob in rule.tools:
            if not any(map(matcher((glob,)), listed)):
                place = names.ServerId(rule.ref.namespace, rule.ref.policy)
                path = f"spec.rules[{rule.ref.rule}].tools"
                text = f"{view.id} lists no tool that {glob!r} matches"
                made.append(_finding(place, "MCPToolPolicy", path, findings.Reason.UNKNOWN_TOOL, text))
    return tuple(made)


_REFUSED = findings.Reason.DEFINITIONS_REFUSED
_CAUSES = {
    findings.Reason.DUPLICATE_NAME: "an earlier tool of the list has the same name",
    findings.Reason.UNUSABLE_TOOL_NAME: "its name does not fit [A-Za-z0-9_.-]{1,128}",
    findings.Reason.TOO_MANY_TOOLS: f"the list has more than {catalog.TOOLS_MAX:,} tools",
    _REFUSED: "its definition cannot be used",
}


def _finding(
    place: names.ServerId, kind: str, path: str, reason: findings.Reason, message: str
) -> findings.Finding:
    return findings.Finding(
        findings.Severity.WARNING, reason, kind, place.namespace, place.name, path, message, reason.remedy
    )
