# SPDX-License-Identifier: Apache-2.0
"""A hypothetical call, check by check: what each check looked at, what it found, and what was assumed.

Called by explain. Plain JSON values, for people and programs alike. Refuses to call "ok" what was only assumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from outrider import bind, budgets, call, choosing, decide, decision, identity, names, rules, snapshot
from outrider.compile import scope, shadows
from outrider_cli import asking, output, supposed

_ASSUMED_BUDGET = "assumed: nothing is spent here, so every limit counts as untouched"


def explained(desk: asking.Desk, question: asking.Question) -> dict[str, Any]:
    """Every check in order, the objects that were joined to the name, and the verdict.

    `missing` says, when there is nothing by that name for this workload, which objects come closest and why they do not apply.
    """
    answer = desk.ask(question)
    target = desk.target(question)
    who = desk.workload(question.workload)
    assumed = _assumed(answer, target)
    return {
        "server": str(question.server),
        "kind": question.kind.value,
        question.word: question.name,
        "as": f"sa:{who}",
        "teams": list(who.teams),
        **supposed.as_json(question.user),
        "assumed": "" if question.user is None else supposed.assumed(question.user),
        "snapshot": desk.digest(question.workload),
        "checks": [_step(step, assumed.get(step.check, "")) for step in desk.explain(question)],
        "objects": []
        if target is None
        else _objects(target, desk.enforced(question.workload).currency, question.user),
        "missing": [] if answer.allowed else list(_missing(desk, question)),
        "today": answer.as_json(),
    }


def _assumed(answer: asking.Answer, target: bind.Target | None) -> dict[str, str]:
    """Check -> why its consent means less than usual."""
    found = {}
    if not answer.checked:
        found["tool_known"] = f"assumed: {asking.UNCHECKED}"
    if answer.question.kind is not call.Kind.TOOL:
        pass  # a prompt's arguments are texts, and the server's to judge; a resource has none
    elif answer.question.arguments is None:
        found["arguments_fit"] = "assumed: no arguments were given"
    elif not (answer.checked and answer.schemas):
        found["arguments_fit"] = "assumed: the tool's inputSchema is not known here"
    limits = [held.pool.limit for held in target.reservations] if target else []
    if any(limit.rate is not None for limit in limits):
        found["rate_within"] = _ASSUMED_BUDGET
    if any(limit.quota is not None for limit in limits):
        found["budget_within"] = _ASSUMED_BUDGET
    return found


def _step(step: decide.Step, assumed: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "check": step.check,
        "promise": step.promise,
        "reached": step.reached,
        "ok": None,
        "assumed": "",
    }
    if not step.reached:
        return made
    found = step.found
    assert not isinstance(found, decision.Need), "definitions stand in and units are unlimited"
    if found is None:
        return made | {"ok": True, "assumed": assumed}
    return made | {
        "ok": False,
        "reason": str(found.reason),
        "rule": None if found.rule is None else str(found.rule),
        "generation": None if found.rule is None else found.rule.generation,
        "detail": found.detail,
        "visible": found.visible,
    }


def _objects(target: bind.Target, currency: str, user: identity.User | None) -> list[dict[str, Any]]:
    """Everything that is joined to this name, in the order in which it is looked at."""
    view = target.server
    required = ", requires a user" if view.require_user else ""
    says = f"{view.lifecycle.value}, {view.endpoint.url}{required}"
    found = [_object(f"MCPServer {view.id}", view.generation, says)]
    for rule in _rules(target):
        mode = "" if rule.enforced else " (Audit mode: recorded, never enforced)"
        about = _about_users(rule.callers, rules.admits(rule.callers, user))
        says = f"{rule.effect.value} by rule {rule.ref.rule}, key: {rule.key.value}{about}{mode}"
        found.append(_object(f"MCPToolPolicy {rule.ref.object}", rule.ref.generation, says))
    for lent in _credentials(target, user):
        about = _about_users(lent.callers, choosing.lends(lent, user))
        found.append(
            _object(f"credential {lent.name}", view.generation, snapshot.described(lent.source) + about)
        )
    for held in target.reservations:
        limit = held.pool.limit
        calls = limit.unit is budgets.Unit.CALLS
        amount = "one call" if calls else f"at most {output.money(held.amount, currency)}"
        warn = "" if limit.deny else " (warns only)"
        found.append(_object(f"MCPBudget {held.pool.id}", None, f"counts {amount}{warn}"))
    return found


def _rules(target: bind.Target) -> Iterator[rules.Rule]:
    """All that name it, those too that do not match this user."""
    if target.conditions is None:
        yield from dict.fromkeys(
            (*target.denies, *target.provider, *(target.consumer or ()), *target.watched)
        )
        return
    found = target.conditions.found
    needed = {rules.Key.PLATFORM, rules.Key.PROVIDER} | (
        {rules.Key.CONSUMER} if target.consumer is not None else set()
    )
    yield from (*found.denies, *(rule for rule in found.allows if rule.key in needed), *found.watched)


def _credentials(target: bind.Target, user: identity.User | None) -> Iterator[snapshot.Credential]:
    """The entries that were looked at, up to the one that is lent or in doubt."""
    if target.conditions is None:
        yield from () if target.credential is None else (target.credential,)
        return
    for entry in target.conditions.entries:
        yield entry
        if choosing.lends(entry, user) is not False:
            return


def _about_users(callers: rules.Callers, says: bool | None) -> str:
    """What is said about users, and what that means for this one."""
    if not callers:
        return " (needs a user)" if says is None else ""
    means = {True: "matches", False: "not this caller", None: "not known without a user"}[says]
    return f", for users {rules.in_words(callers)} ({means})"


def _object(name: str, generation: int | None, says: str) -> dict[str, Any]:
    return {"object": name, "generation": generation, "says": says}


def _missing(desk: asking.Desk, question: asking.Question) -> Iterator[str]:
    """Why no Allow opens this name: every Allow about the server that names it, and what keeps it from counting."""
    world, server = desk.world, question.server
    if all(placed.resource.id != server for placed in world.servers):
        yield f"There is no MCPServer {server}."
        return
    case = scope.case(world, *question.workload)
    user = question.user
    keys: set[rules.Key] = set()
    for policy in case.policies.about(server):
        own = policy.metadata.namespace
        speaks = case.keys(own, policy.spec.target_refs, server)
        for rule in policy.spec.rules:
            named = rules.exact(shadows.globs(rule, question.kind))
            if rule.effect is not rules.Effect.ALLOW or not named(question.name):
                continue
            ref = names.RuleRef(own, policy.metadata.name, rule.name, policy.metadata.generation)
            if not speaks:
                yield f"Allow {ref} (generation {ref.generation}) governs only callers of namespace {own}."
            elif (callers := case.callers(own, rule.from_)) is None:
                yield f"Allow {ref} (generation {ref.generation}) is for other callers."
            elif rules.admits(callers, user) is False:
                yield f"Allow {ref} (generation {ref.generation}) is for users {rules.in_words(callers)}, and this caller is none of them."
            elif policy.spec.mode.value == "Audit":
                yield f"Allow {ref} (generation {ref.generation}) is in Audit mode: recorded, never counted."
            else:
                keys.update(speaks)
    needed = [(rules.Key.PROVIDER, f"of {server.namespace}, the server's namespace")]
    caller = question.workload[0]
    if caller != server.namespace and world.settings.consumer_consent.value == "Required":
        needed.append((rules.Key.CONSUMER, f"of {caller}, the caller's namespace"))
    for key, whose in needed:
        if not keys & {key, rules.Key.PLATFORM}:
            yield f"No Allow {whose}, or of the platform, opens this {question.word} to this caller."
