# SPDX-License-Identifier: Apache-2.0
"""May this call happen? The one function behind every method, era, list, `can-i` and `explain`.

Called by the proxy's pipeline and lists and by the CLI. `CHECKS` is the whole of it: a list of functions, the first
objection wins, and only unanimity makes a Permit, which is made nowhere else (tests/test_tidy.py). It knows no protocol,
no clock and no file. Anything unexpected inside a check is a refusal.

The order is what an agent can observe: whatever fails up to `reachable` looks like a name that does not exist.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Iterator

import msgspec

from outrider import bind, budgets, call, choosing, decision, identity, names, rules, snapshot, uris

Reason = decision.Reason


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """What the checks look at. `held` and `target` are None when the call names nothing we know.

    `reservations` are what must be set aside.
    """

    subject: call.Call
    held: bind.BoundServer | None
    target: bind.Target | None
    units: budgets.Units
    now: float
    round_of: str = ""
    reservations: tuple[budgets.Reservation, ...] = ()


Finding = decision.Objection | decision.Need | None
Check = Callable[[Case], Finding]


class Reach(enum.Enum):
    """Whether a principal could call a target with some arguments. MAYBE joins with conditions on arguments."""

    NEVER = "Never"
    ALWAYS = "Always"


def _hidden(reason: Reason, rule: names.RuleRef | None = None, detail: str = "") -> decision.Objection:
    return decision.Objection(reason, visible=False, rule=rule, detail=detail)


def server_known(case: Case) -> Finding:
    """The server is in this workload's snapshot at all."""
    return None if case.held is not None else _hidden(Reason.SERVER_UNKNOWN)


_UNKNOWN = {
    call.Kind.TOOL: Reason.TOOL_UNKNOWN,
    call.Kind.PROMPT: Reason.PROMPT_UNKNOWN,
    call.Kind.RESOURCE: Reason.RESOURCE_UNKNOWN,
}


def tool_known(case: Case) -> Finding:
    """The server lists the tool or prompt, and `include` and `exclude` leave it in; a resource has a URI that means one thing."""
    assert case.held is not None
    kind = case.subject.kind
    if case.target is not None:
        return None
    if (
        kind is not call.Kind.RESOURCE
        and not case.held.observed(kind)
        and case.held.view.lifecycle is not snapshot.Lifecycle.DISABLED
    ):
        return _need(case.held, case.subject)
    flaw = uris.flaw(case.subject.name) if kind is call.Kind.RESOURCE else None
    return _hidden(_UNKNOWN[kind], detail=flaw or "")


def _need(held: bind.BoundServer, subject: call.Call) -> Finding:
    """Its list; unless only in a user's name that could be asked for, and there is none: then whatever was named."""
    if choosing.leave(held.view, subject.user) is Reason.USER_REQUIRED:
        detail = "what the server lists is asked for in a user's name"
        return decision.Objection(Reason.USER_REQUIRED, visible=True, detail=detail)
    return decision.Need(definitions=subject.server)


def reachable(case: Case) -> Finding:
    """Both keys are turned (the provider's; the consumer's too across namespaces) and no silent Deny matches."""
    target = case.target
    assert target is not None
    if target.in_sight:
        return None
    if target.lacks is None:
        return _hidden(Reason.DENIED_HIDDEN, target.denies[0].ref)
    whose = (
        f"{target.server.id.namespace} (provider)"
        if target.lacks is rules.Key.PROVIDER
        else "the workload's namespace (consumer)"
    )
    who = " that matches this user" if case.subject.user is not None and target.conditions is not None else ""
    return _hidden(Reason.NOT_ALLOWED, detail=f"no Allow of {whose} or the platform{who}")


def enabled(case: Case) -> Finding:
    """The entry's kill switch is off."""
    assert case.target is not None
    if case.target.server.lifecycle is snapshot.Lifecycle.DISABLED:
        return decision.Objection(Reason.SERVER_DISABLED, visible=True)
    return None


def user_present(case: Case) -> Finding:
    """A user is present where the entry requires one (`requireUser`), or where only a user can make an Allow match or a silent Deny not."""
    target = case.target
    assert target is not None
    if not target.user_wanted:
        return None
    if target.server.require_user:
        return decision.Objection(
            Reason.USER_REQUIRED, visible=True, detail="the MCPServer says `requireUser`"
        )
    # Named for the journal: a silent Deny that may match, else an Allow that may.
    hinges = next(rule for rule in target.doubtful if not rule.message)
    return decision.Objection(Reason.USER_REQUIRED, visible=True, rule=hinges.ref)


def arguments_fit(case: Case) -> Finding:
    """The arguments are what the tool's inputSchema asks for (unless `validateArguments` is false)."""
    assert case.target is not None
    if case.target.validate is None:
        return None
    complaint = case.target.validate.objection(case.subject.arguments or {})
    return (
        None
        if complaint is None
        else decision.Objection(Reason.ARGUMENTS_INVALID, visible=True, detail=complaint)
    )


def not_denied(case: Case) -> Finding:
    """No Deny rule matches: of the provider, the consumer or the platform, any one wins over every Allow."""
    assert case.target is not None
    rule = case.target.telling
    if rule is None:
        return None
    return decision.Objection(Reason.DENIED, visible=True, rule=rule.ref, detail=rule.message)


def credential_chosen(case: Case) -> Finding:
    """The server lists no credentials, or one of them is for this caller (and tool); none is passed over in doubt."""
    assert case.target is not None
    if case.target.credential_doubtful:
        return decision.Objection(
            Reason.USER_REQUIRED, visible=True, detail="which credential is lent depends on the user"
        )
    if case.target.credential_missing:
        return decision.Objection(Reason.NO_CREDENTIAL_FOR_CALLER, visible=True)
    return None


def rate_within(case: Case) -> Finding:
    """Every rate limit that counts this call has a token left."""
    return _within(case, Reason.RATE_LIMITED, rates=True)


def budget_within(case: Case) -> Finding:
    """Every quota that counts this call covers the most it can cost."""
    return _within(case, Reason.BUDGET_EXCEEDED, rates=False)


def _within(case: Case, reason: Reason, *, rates: bool) -> Finding:
    assert case.target is not None
    unknown = []
    for held in case.reservations:
        if (held.pool.limit.rate is not None) is not rates:
            continue
        available = case.units.available(held.pool, case.now)
        if available is None:
            unknown.append(held.pool)
        elif available < held.amount:
            wait = budgets.retry_after(held.pool.limit, held.amount, available=available, now=case.now)
            return decision.Objection(
                reason, visible=True, pool=held.pool, detail=held.pool.id, retry_after_seconds=wait
            )
    return decision.Need(pools=tuple(unknown)) if unknown else None


CHECKS: tuple[Check, ...] = (
    server_known,
    tool_known,
    reachable,
    enabled,
    user_present,
    arguments_fit,
    not_denied,
    credential_chosen,
    rate_within,
    budget_within,
)


def _case(
    bound: bind.Bound, subject: call.Call, units: budgets.Units, now: float, round_of: str = ""
) -> Case:
    held = bound.servers.get(subject.server)
    if held is None:
        return Case(subject, None, None, units, now, round_of)
    if subject.kind is call.Kind.TOOL and held.targets is not None and not held.unobserved:
        target = held.targets.get(
            (call.Kind.TOOL, subject.name)
        )  # nearly every call: no function more than it takes
    else:
        target = _target(held, subject)
    if target is not None and target.conditions is not None and subject.user is not None:
        target = target.of(subject.user)
    if target is None or not target.reservations:
        return Case(subject, held, target, units, now, round_of)
    return Case(subject, held, target, units, now, round_of, _to_set_aside(target, subject.method, round_of))


def _target(held: bind.BoundServer, subject: call.Call) -> bind.Target | None:
    kind, name = subject.kind, subject.name
    if subject.method is call.Method.COMPLETE and kind is call.Kind.RESOURCE and "{" in name:
        return held.template(name)
    if not held.observed(kind) and not asked(held):
        return held.index.target(name, None, kind)  # the answer does not depend on what the server lists
    return held.target(kind, name)


def _to_set_aside(target: bind.Target, method: call.Method, round_of: str) -> tuple[budgets.Reservation, ...]:
    """A later round was paid for in the first; what only helps or waits counts as a call and costs no money."""
    if round_of:
        return ()
    if method not in call.ASIDE:
        return target.reservations
    return tuple(held for held in target.reservations if held.pool.limit.unit is budgets.Unit.CALLS)


def decide(
    bound: bind.Bound, subject: call.Call, units: budgets.Units, *, now: float, round_of: str = ""
) -> decision.Permit | decision.Refusal | decision.Need:
    """The verdict. `now` in seconds of wall clock. `round_of`: the request this one provably goes on with (`states`), "" for none.

    A Need means: fetch this once, decide again on the then current Bound. Never raises: an exception in a check is a
    bug of ours, and refuses with reason Internal. A later round passes the same checks, and spends nothing.
    """
    try:
        case = _case(bound, subject, units, now, round_of)
        for check in CHECKS:
            found = check(case)
            if found is None:
                continue
            if isinstance(found, decision.Need):
                return found
            return decision.Refusal(subject, found, _would(case.target))
        return _permit(case)
    except Exception as bug:  # noqa: BLE001 -- anything unexpected inside the decision denies (resources.md 1)
        return decision.Refusal(
            subject, decision.Objection(Reason.INTERNAL, visible=True, detail=type(bug).__name__)
        )


def _permit(case: Case) -> decision.Permit:
    target = case.target
    assert target is not None
    deciding: tuple[names.RuleRef, ...] = (target.provider[0].ref,)
    if target.consumer and target.consumer[0].ref != deciding[0]:
        deciding += (target.consumer[0].ref,)
    free = bool(case.round_of) or case.subject.method in call.ASIDE
    return decision.Permit(
        call=case.subject,
        server=target.server,
        target=target,
        rules=deciding,
        reservations=case.reservations,
        credential=target.credential,
        price=_for_nothing(target.price) if free else target.price,
        would=_would(target),
        round_of=case.round_of,
    )


def _for_nothing(price: budgets.Price) -> budgets.Price:
    """The same bounds on the result, at no cost."""
    return msgspec.structs.replace(price, per_call=0, per_thousand_result_tokens=0)


def _would(target: bind.Target | None) -> tuple[str, ...]:
    """What policies in Audit mode would have said; recorded, never counted."""
    if target is None or not target.watched:
        return ()
    words = {rules.Effect.DENY: "would-deny", rules.Effect.ALLOW: "would-allow"}
    return tuple(f"{words[rule.effect]} {rule.ref}" for rule in target.watched)


def permit_listing(
    bound: bind.Bound,
    server: names.ServerId,
    *,
    credential: str | None = None,
    user: identity.User | None = None,
) -> decision.Permit | decision.Refusal:
    """Leave for the proxy itself to ask a server what it is and what it offers (Method.LIST).

    Given for servers that are `asked`: what the answer shows to the agent is decided tool by tool. The prober, which has no
    agent and no rules, may list every server in its snapshot. The credential is the entry of that name if one is given, else
    the first that is for this workload whoever the user is; only where there is none, that of `user`, in whose name it then asks.
    """
    subject = call.Call(server, "", method=call.Method.LIST)
    held = bound.servers.get(server)
    if held is None:
        return decision.Refusal(subject, _hidden(Reason.SERVER_UNKNOWN))
    view = held.view
    if view.lifecycle is snapshot.Lifecycle.DISABLED:
        return decision.Refusal(subject, decision.Objection(Reason.SERVER_DISABLED, visible=True))
    if not (held.index.open or bound.snapshot.probing):
        return decision.Refusal(subject, _hidden(Reason.NOT_ALLOWED))
    leave = choosing.leave(view, user, named=credential)
    if isinstance(leave, Reason):
        return decision.Refusal(subject, decision.Objection(leave, visible=True))
    if leave.user is not None:
        subject = dataclasses.replace(subject, user=leave.user)
    return decision.Permit(call=subject, server=view, target=None, credential=leave.entry)


def reach(target: bind.Target, user: identity.User | None = None) -> Reach:
    """Could this be called with some arguments, and without a user by some user? Lists and `can-i --list` show what is not NEVER.

    Budgets and rates never hide a tool; an unconditional Deny and a disabled server do.
    """
    return Reach.ALWAYS if (target if user is None else target.of(user)).listed else Reach.NEVER


def listed(
    bound: bind.Bound,
    server: names.ServerId | None = None,
    kind: call.Kind = call.Kind.TOOL,
    user: identity.User | None = None,
) -> Iterator[bind.Target]:
    """What is seen of one kind: of one server in its order, or of all in the snapshot's; each as it stands for `user`.

    Unobserved servers contribute nothing. Of resources it is those that the server lists: others can be read all the same.
    """
    for held in _chosen(bound, server):
        for (each, _), target in (held.targets or {}).items():
            if each is kind and (seen := target if user is None else target.of(user)).listed:
                yield seen


def templates(
    bound: bind.Bound, server: names.ServerId | None = None, user: identity.User | None = None
) -> Iterator[bind.Target]:
    """The URI templates that are seen: those that can become something that could be read.

    Not seen are those of which everything is denied, and those that no Allow of a needed key touches. A read decides anyway.
    """
    for held in _chosen(bound, server):
        yield from (seen for target in held.templates.values() if (seen := target.of(user)).listed)


def _chosen(bound: bind.Bound, server: names.ServerId | None) -> Iterable[bind.BoundServer]:
    if server is None:
        return bound.servers.values()
    return (bound.servers[server],) if server in bound.servers else ()


def asked(held: bind.BoundServer, kind: call.Kind | None = None) -> bool:
    """Whether the proxy asks this server for what it offers (of one kind, or at all): a disabled one is left alone, and so is
    one that this workload could call nothing of, because a key is missing. Nobody may make a proxy dial by writing only his own key.
    """
    opens = held.index.open if kind is None else kind in held.index.opens
    return opens and held.view.lifecycle is not snapshot.Lifecycle.DISABLED


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One check in `explain`: its name, its line of prose, and what it found. `reached` False: nothing to look at."""

    check: str
    promise: str
    reached: bool
    found: Finding


def explain(bound: bind.Bound, subject: call.Call, units: budgets.Units, *, now: float) -> tuple[Step, ...]:
    """The same CHECKS on the same case, without stopping at the first objection."""
    case = _case(bound, subject, units, now)
    steps = []
    for check in CHECKS:
        reached = (
            case.held is not None if check is tool_known else check is server_known or case.target is not None
        )
        promise = (check.__doc__ or "").partition("\n")[0]
        name = getattr(check, "__name__", "check")
        steps.append(Step(name, promise, reached, check(case) if reached else None))
    return tuple(steps)
