# SPDX-License-Identifier: Apache-2.0
"""One server's view joined with any one name: the rules, the credential, the price and the limits that concern it.

Called by bind, when a list arrives and when a URI is first named, and never once per call. Refuses names that could be nobody's:
those get no Target, so that nothing can be decided about them but that they are unknown. Only where something about a name
depends on the user is a Target made once more for each user who calls or lists it (`Target.of`).
"""

from __future__ import annotations

import dataclasses

from outrider import budgets, call, catalog, choosing, identity, names, rules, schemas, snapshot, uris

_OTHER_COUNTERS = {call.Kind.PROMPT: "(prompts)", call.Kind.RESOURCE: "(resources)"}
"""Under `per: [tool]` all prompts of a server are one counter, and all its resources: URIs are without end, counters are not."""

_COMPARED_MAX = 256
"""Silent Denies of URIs that are compared with every Allow; of more it is assumed that they leave something."""


USERS_MAX = 16
"""Users for whom one name is kept made; then all are forgotten and made anew."""

_Seen = tuple[frozenset[str], frozenset[str], str] | None


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """One name, or one URI template, as it stands for one user, or for nobody. `consumer` None = no consumer's key needed.

    Rules that match for certain are in `denies`, `provider` and `consumer`; `doubtful` are those of which that cannot be said
    without a user: an Allow there opens nothing, a Deny there denies. `watched` are rules of Audit-mode policies.
    `lacks` is a key that nobody's Allow turns, not even for some user. `telling` is the Deny whose message is told.
    `in_sight`: a call does not look unknown. `listed`: with some arguments (and, without a user, by some user) it could be
    called. `user_wanted`: a call needs a user and has none.

    `definition` is None for a resource that the server does not list. `credential` is what would be lent; `credential_missing`
    is True when the server lists some and none fits, `credential_doubtful` when which one fits depends on the user who is absent.
    `conditions` is what `of` reads; None when it is the same for everybody.
    """

    server: snapshot.ServerView
    kind: call.Kind
    name: str
    exposed: str
    definition: catalog.Definition | None
    denies: tuple[rules.Rule, ...]
    provider: tuple[rules.Rule, ...]
    consumer: tuple[rules.Rule, ...] | None
    doubtful: tuple[rules.Rule, ...]
    watched: tuple[rules.Rule, ...]
    lacks: rules.Key | None
    telling: rules.Rule | None
    in_sight: bool
    listed: bool
    user_wanted: bool
    credential: snapshot.Credential | None
    credential_missing: bool
    credential_doubtful: bool
    price: budgets.Price
    reservations: tuple[budgets.Reservation, ...]
    validate: schemas.Validator | None
    conditions: Whole | None

    def of(self, user: identity.User | None) -> Target:
        """The same name as it stands for this user; None: for a call that presents nobody, and for lists."""
        return self if self.conditions is None else self.conditions.of(user)


Key = tuple[call.Kind, str]


class _Names:
    """Rules about one kind, by name: literal names in a table, globs in a list, so that a lookup reads only what can match."""

    __slots__ = ("_folded", "_globs", "_literal", "_texts")

    def __init__(self, subject: tuple[rules.Rule, ...], kind: call.Kind, *, folded: bool) -> None:
        self._folded = folded
        self._literal: dict[str, list[rules.Rule]] = {}
        self._globs: list[tuple[rules.Matcher, rules.Rule]] = []
        self._texts = [(rule.globs(kind), rule) for rule in subject]
        for globs, rule in self._texts:
            texts = tuple(rules.fold(text) for text in globs) if folded else globs
            for text in texts:
                if "*" not in text:
                    self._literal.setdefault(text, []).append(rule)
            if patterns := tuple(text for text in texts if "*" in text):
                self._globs.append((rules.exact(patterns), rule))

    def of(self, *guises: str) -> tuple[rules.Rule, ...]:
        """The rules that match a name in any of its guises, in the snapshot's order, each once."""
        found: dict[names.RuleRef, rules.Rule] = {}
        for name in guises:
            wanted = rules.fold(name) if self._folded else name
            found.update({rule.ref: rule for rule in self._literal.get(wanted, ())})
            found.update({rule.ref: rule for matcher, rule in self._globs if matcher(wanted)})
        return tuple(found[ref] for ref in sorted(found))

    def meeting(self, glob: str) -> tuple[rules.Rule, ...]:
        """The rules that match some name that `glob` matches too."""
        found = {
            rule.ref: rule for texts, rule in self._texts if any(rules.meet(each, glob) for each in texts)
        }
        return tuple(found[ref] for ref in sorted(found))


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """The rules that concern one name."""

    denies: tuple[rules.Rule, ...]
    allows: tuple[rules.Rule, ...]
    watched: tuple[rules.Rule, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Whole:
    """Everything about one name before it is known who the user is. `entries` are the credentials that fit the name, in order.

    `_memo` holds what was made of it, by what a user is to rules; a user itself has a token in it, which is kept nowhere.
    """

    server: snapshot.ServerView
    kind: call.Kind
    name: str
    exposed: str
    definition: catalog.Definition | None
    found: Found
    entries: tuple[snapshot.Credential, ...]
    price: budgets.Price
    reservations: tuple[budgets.Reservation, ...]
    validate: schemas.Validator | None
    _memo: dict[_Seen, Target] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    def of(self, user: identity.User | None) -> Target:
        """As `target`, made once for each of the users who came last, so that a call costs the same with one rule and with many."""
        seen = None if user is None else (user.names, user.groups, user.client)
        found = self._memo.get(seen)
        if found is None:
            if len(self._memo) >= USERS_MAX:
                self._memo.clear()
            found = self._memo[seen] = self.target(user)
        return found

    @property
    def conditional(self) -> bool:
        """Whether a user makes a difference to anything."""
        chosen = (*self.found.denies, *self.found.allows, *self.found.watched)
        return (
            self.server.require_user
            or any(rule.callers for rule in chosen)
            or any(map(choosing.conditional, self.entries))
            or any(held.pool.limit.callers for held in self.reservations)
        )

    def target(self, user: identity.User | None) -> Target:
        view, found = self.server, self.found
        denies, doubted = _parted(found.denies, user)
        allows, awaited = _parted(found.allows, user)
        provider, consumer = _keys(view, allows)
        some_provider, some_consumer = _keys(view, (*allows, *awaited))
        lacks = None
        if not some_provider:
            lacks = rules.Key.PROVIDER
        elif some_consumer is not None and not some_consumer:
            lacks = rules.Key.CONSUMER
        telling = next((rule for rule in (*denies, *doubted) if rule.message), None)
        callable_ = lacks is None and not denies
        turned = bool(provider) and (consumer is None or bool(consumer))
        silent = any(not rule.message for rule in doubted)
        lent = choosing.choice(self.entries, user)
        return Target(
            server=view,
            kind=self.kind,
            name=self.name,
            exposed=self.exposed,
            definition=self.definition,
            denies=denies,
            provider=provider,
            consumer=consumer,
            doubtful=(*doubted, *awaited),
            watched=tuple(rule for rule in found.watched if _watched(rule, user)),
            lacks=lacks,
            telling=telling,
            in_sight=lacks is None and (not denies or telling is not None),
            listed=callable_ and view.lifecycle is not snapshot.Lifecycle.DISABLED,
            user_wanted=user is None and callable_ and (view.require_user or not turned or silent),
            credential=lent.entry,
            credential_missing=view.credential_required and lent.entry is None and not lent.doubtful,
            credential_doubtful=lent.doubtful,
            price=self.price,
            reservations=tuple(
                held for held in self.reservations if rules.admits(held.pool.limit.callers, user) is not False
            ),
            validate=self.validate,
            conditions=self if self.conditional else None,
        )


def _parted(
    chosen: tuple[rules.Rule, ...], user: identity.User | None
) -> tuple[tuple[rules.Rule, ...], tuple[rules.Rule, ...]]:
    """Those that match for certain, and those of which it cannot be said without a user."""
    said = [(rules.admits(rule.callers, user), rule) for rule in chosen]
    return tuple(rule for says, rule in said if says), tuple(rule for says, rule in said if says is None)


def _keys(
    view: snapshot.ServerView, allows: tuple[rules.Rule, ...]
) -> tuple[tuple[rules.Rule, ...], tuple[rules.Rule, ...] | None]:
    """The Allows that turn the provider's key, and those that turn the consumer's; None where that is not needed."""
    provider = tuple(rule for rule in allows if rule.key is not rules.Key.CONSUMER)
    if not view.consumer_key_needed:
        return provider, None
    return provider, tuple(rule for rule in allows if rule.key is not rules.Key.PROVIDER)


def _watched(rule: rules.Rule, user: identity.User | None) -> bool:
    """What would have counted, as it would have: in doubt a Deny does and an Allow does not."""
    says = rules.admits(rule.callers, user)
    return says is True or (says is None and rule.effect is rules.Effect.DENY)


class _Rules:
    """What the policies say about one kind of one server."""

    __slots__ = ("_allows", "_denies", "_watched_allows", "_watched_denies")

    def __init__(self, view: snapshot.ServerView, kind: call.Kind) -> None:
        deny, allow = rules.Effect.DENY, rules.Effect.ALLOW
        self._allows = _Names(_select(view, allow, enforced=True), kind, folded=False)
        self._denies = _Names(_select(view, deny, enforced=True), kind, folded=True)
        self._watched_allows = _Names(_select(view, allow, enforced=False), kind, folded=False)
        self._watched_denies = _Names(_select(view, deny, enforced=False), kind, folded=True)

    def of(self, name: str, guises: tuple[str, ...]) -> Found:
        """An Allow means the name itself, byte for byte; a Deny every guise of it."""
        watched = (*self._watched_denies.of(*guises), *self._watched_allows.of(name))
        return Found(self._denies.of(*guises), self._allows.of(name), watched)

    def of_template(self, template: str) -> Found:
        """An Allow that matches something the template can become; a Deny that matches everything it can."""
        glob, anything = uris.pattern(template), uris.anything(template)
        watched = (*self._watched_denies.of(anything), *self._watched_allows.meeting(glob))
        return Found(self._denies.of(anything), self._allows.meeting(glob), watched)


class Index:
    """One server's view, ready to join with any name. `workload_namespace` decides exposed names.

    `opens`: the kinds of which both keys could turn for some name. None: the server is neither asked nor shown.
    `resources_in_sight`: some URI could be read, or its refusal would be told, whatever the server lists.
    """

    __slots__ = (
        "_credentials", "_exclude", "_include", "_limits", "_namespace", "_prices", "_rules", "opens", "resources_in_sight",
        "view",
    )  # fmt: skip

    def __init__(self, view: snapshot.ServerView, workload_namespace: str) -> None:
        self.view = view
        self._namespace = workload_namespace
        self._include = rules.exact(view.include)
        self._exclude = rules.folded(view.exclude)
        self._rules = {kind: _Rules(view, kind) for kind in call.Kind}
        self._credentials = tuple((rules.exact(entry.tools), entry) for entry in view.credentials)
        self._limits = tuple((rules.exact(limit.tools), limit) for limit in view.limits)
        self._prices = dict(view.prices)
        self.opens = frozenset(kind for kind in call.Kind if _opens(view, kind))
        self.resources_in_sight = call.Kind.RESOURCE in self.opens and _some_resource(view)

    @property
    def open(self) -> bool:
        """Whether both keys could turn for anything."""
        return bool(self.opens)

    def target(
        self, name: str, definition: catalog.Definition | None, kind: call.Kind = call.Kind.TOOL
    ) -> Target | None:
        """Joins one name; None when it could be nobody's, or `include` or `exclude` leave a tool out.

        None too when a tool's arguments must be checked and its schema cannot be used: nobody could ever call it.
        """
        if kind is call.Kind.TOOL:
            if not self._includes(name) or (definition is not None and self._flaw(definition) is not None):
                return None
        elif not _nameable(kind, name):
            return None
        guises = uris.forms(name) if kind is call.Kind.RESOURCE else (name,)
        return self._made(name, kind, definition, self._rules[kind].of(name, guises))

    def template(self, template: str, definition: catalog.Definition | None) -> Target | None:
        """Joins one URI template: reachable when something that it can become could be read."""
        if uris.template_flaw(template) is not None:
            return None
        kind = call.Kind.RESOURCE
        return self._made(template, kind, definition, self._rules[kind].of_template(template))

    def _made(
        self, name: str, kind: call.Kind, definition: catalog.Definition | None, found: Found
    ) -> Target:
        view, is_tool = self.view, kind is call.Kind.TOOL
        price = self._prices.get(name, view.default_price) if is_tool else view.default_price
        checked = is_tool and definition is not None and view.validate_arguments
        schema = definition.input_schema if checked and definition is not None else None
        whole = Whole(
            server=view,
            kind=kind,
            name=name,
            exposed=catalog.exposed_name(view.id, name, self._namespace),
            definition=definition,
            found=found,
            entries=tuple(entry for matcher, entry in self._credentials if not is_tool or matcher(name)),
            price=price,
            reservations=self._reservations(name, kind, price),
            validate=None if schema is None else schemas.Validator(schema),
        )
        return whole.of(None)

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

    def _reservations(
        self, name: str, kind: call.Kind, price: budgets.Price
    ) -> tuple[budgets.Reservation, ...]:
        """One call, or the most it can cost, of every limit that counts it.

        What is no tool is counted by the limits that count every tool.
        """
        is_tool = kind is call.Kind.TOOL
        counter = name if is_tool else _OTHER_COUNTERS[kind]
        return tuple(
            budgets.Reservation(
                budgets.pool_of(limit, self.view.id, counter),
                budgets.MICRO if limit.unit is budgets.Unit.CALLS else budgets.reserve(price),
            )
            for matcher, limit in self._limits
            if (matcher(name) if is_tool else any(rules.is_all(glob) for glob in limit.tools))
        )


def _nameable(kind: call.Kind, name: str) -> bool:
    return names.is_prompt_name(name) if kind is call.Kind.PROMPT else uris.flaw(name) is None


def _opens(view: snapshot.ServerView, kind: call.Kind) -> bool:
    """Whether both keys could turn for some name of this kind, for some user."""
    turned = {rule.key for rule in _select(view, rules.Effect.ALLOW, enforced=True) if rule.globs(kind)}
    platform = rules.Key.PLATFORM in turned
    provider = platform or rules.Key.PROVIDER in turned
    return provider and (platform or not view.consumer_key_needed or rules.Key.CONSUMER in turned)


def _some_resource(view: snapshot.ServerView) -> bool:
    """Whether what is allowed is not all silently denied again, to everybody.

    Globs are compared with globs, so it may say yes where only a combination of several Denies leaves nothing.
    """
    kind = call.Kind.RESOURCE
    silent = [
        rules.fold(glob)
        for rule in _select(view, rules.Effect.DENY, enforced=True)
        if not rule.message and rules.admits(rule.callers, None)
        for glob in rule.globs(kind)
    ]
    if any(rules.is_all(glob) for glob in silent):
        return any(
            rule.message for rule in _select(view, rules.Effect.DENY, enforced=True) if rule.globs(kind)
        )
    if not silent or len(silent) > _COMPARED_MAX:
        return True
    allowed = [
        (rule.key, rules.fold(glob.replace("*", uris.VARIABLE)))
        for rule in _select(view, rules.Effect.ALLOW, enforced=True)
        for glob in rule.globs(kind)
    ]
    left = {key for key, text in allowed if not any(rules.matches(glob, text) for glob in silent)}
    provider = bool(left - {rules.Key.CONSUMER})
    return provider and (not view.consumer_key_needed or bool(left - {rules.Key.PROVIDER}))


def _select(view: snapshot.ServerView, effect: rules.Effect, *, enforced: bool) -> tuple[rules.Rule, ...]:
    return tuple(rule for rule in view.rules if rule.effect is effect and rule.enforced is enforced)
