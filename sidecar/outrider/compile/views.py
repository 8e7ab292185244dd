# SPDX-License-Identifier: Apache-2.0
"""One MCPServer as one workload may use it: rules, credentials, prices and limits, resolved for that workload.

Called by compile. Refuses to show a server whose own side (or the platform) allows this workload nothing: the address of a
server is nobody's business who may not call it, whatever that workload's own namespace allows itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from outrider import budgets, choosing, names, resources, rules, snapshot
from outrider.compile import assembly, lending, scope
from outrider.resources import budget, endpoints, fields, policy, server


def view(case: scope.Case, made: resources.MCPServer, *, url: str) -> snapshot.ServerView | None:
    """The view of one server at `url`; None when the workload may not know it."""
    found = tuple(sorted(_rules(case, made.id), key=lambda rule: (rule.ref, rule.key.value)))
    if not any(rule.effect is rules.Effect.ALLOW and rule.key is not rules.Key.CONSUMER for rule in found):
        return None
    spec, own = made.spec, made.metadata.namespace
    listed = spec.credentials or ()
    consent = case.settings.consumer_consent.value == "Required"
    cost = spec.tools.cost
    return snapshot.ServerView(
        id=made.id,
        generation=made.metadata.generation,
        endpoint=endpoint(spec.endpoint, url=url),
        title=spec.title,
        description=spec.description,
        version=spec.version,
        lifecycle=spec.lifecycle,
        include=spec.tools.include,
        exclude=spec.tools.exclude,
        rules=found,
        consumer_key_needed=consent and case.workload.namespace != own,
        credential_required=bool(listed),
        credentials=tuple(_credentials(case, made)),
        default_price=price(cost.default),
        prices=tuple(sorted((entry.name, price(entry, default=cost.default)) for entry in cost.per_tool)),
        limits=tuple(sorted(_limits(case, made.id), key=_limit_order)),
        validate_arguments=spec.tools.validate_arguments,
        audit=_audit(spec),
        features=_features(spec.client_features),
        instructions=spec.instructions == "Pass",
        require_user=spec.require_user,
        idempotent=spec.tools.idempotent,
    )


def price(own: server.Price, *, default: server.Price | None = None) -> budgets.Price:
    """A price in micro-units; what `own` leaves out is as in `default`, and then as in budgets.Price."""
    plain, other = budgets.Price(), default or own
    call = own.per_call or other.per_call
    tokens = own.per_thousand_result_tokens or other.per_thousand_result_tokens
    return budgets.Price(
        per_call=fields.micro(call) if call else plain.per_call,
        per_thousand_result_tokens=fields.micro(tokens) if tokens else plain.per_thousand_result_tokens,
        result_bytes_max=own.max_result_bytes or other.max_result_bytes or plain.result_bytes_max,
        on_error=own.on_error or other.on_error or plain.on_error,
    )


def endpoint(given: endpoints.Endpoint, *, url: str) -> snapshot.Endpoint:
    """Where the server is, durations in seconds, header names in lower case."""
    return snapshot.Endpoint(
        url=url,
        service=given.service is not None,
        transport=given.transport,
        protocol=assembly.default_text(given.protocol),
        headers=tuple(sorted((name.lower(), value) for name, value in (given.headers or {}).items())),
        ca_bundle=given.tls.ca_bundle if given.tls else None,
        connect_seconds=fields.seconds(given.timeouts.connect),
        call_seconds=fields.seconds(given.timeouts.call),
        stream_seconds=fields.seconds(given.timeouts.stream),
        pool_idle_seconds=fields.seconds(given.timeouts.pool_idle),
        result_bytes_max=given.max_result_bytes,
    )


def _rules(case: scope.Case, server_id: names.ServerId) -> list[rules.Rule]:
    found = []
    for made in case.policies.about(server_id):
        metadata, spec = made.metadata, made.spec
        keys = case.keys(metadata.namespace, spec.target_refs, server_id)
        for rule in spec.rules if keys else ():
            deny = rule.effect is rules.Effect.DENY
            callers = case.callers(metadata.namespace, rule.from_, deny=deny)
            if callers is None:
                continue
            ref = names.RuleRef(metadata.namespace, metadata.name, rule.name, metadata.generation)
            # A Deny that names no kind is about all of them; an Allow names one.
            unnamed = () if rule.tools or rule.prompts or rule.resources else ("*",)
            found += [
                rules.Rule(
                    ref=ref,
                    effect=rule.effect,
                    key=key,
                    tools=rule.tools or unnamed,
                    prompts=rule.prompts or unnamed,
                    resources=rule.resources or unnamed,
                    enforced=spec.mode is policy.Mode.ENFORCE,
                    message=rule.message or "",
                    callers=callers,
                )
                for key in keys
            ]
    return found


def _credentials(case: scope.Case, made: resources.MCPServer) -> Iterator[snapshot.Credential]:
    """The entries whose `from` may match, up to the first that takes whatever is left: what stands below is never this workload's,
    so its proxy need not know where it is, nor fetch it. One that must not be used ends the list, too: nothing is lent in its place.
    """
    borrower = lending.Borrower(case.settings, made.id, case.workload.namespace)
    for entry in made.spec.credentials or ():
        callers = case.callers(made.metadata.namespace, entry.from_)
        if callers is None:
            continue
        lent = lending.lent(borrower, entry, callers)
        if lent is None:
            return
        yield lent
        if "*" in lent.tools and not choosing.conditional(lent):
            return


def _limits(case: scope.Case, server_id: names.ServerId) -> list[budgets.Limit]:
    found = []
    for made in case.budgets.about(server_id):
        metadata, spec = made.metadata, made.spec
        own = metadata.namespace
        callers = case.callers(own, spec.from_)
        if callers is None or not case.keys(own, spec.target_refs, server_id):
            continue
        for limit in spec.limits:
            found += [
                budgets.Limit(
                    namespace=own,
                    budget=metadata.name,
                    name=limit.name,
                    unit=limit.unit,
                    tools=spec.tools,
                    quota=_quota(limit.quota),
                    rate=_rate(limit.rate),
                    key=key,
                    per_server=budget.Per.SERVER in spec.per,
                    per_tool=budget.Per.TOOL in spec.per,
                    deny=spec.on_exceeded == "Deny",
                    callers=callers,
                )
                for key in _keys(case, spec.per)
            ]
    return found


def _keys(case: scope.Case, per: tuple[budget.Per, ...]) -> list[tuple[tuple[str, str], ...]]:
    """The counters that this workload's calls go to: one, or one for each of its teams under `per: [team]`."""
    who = case.workload
    fixed = []
    if budget.Per.NAMESPACE in per:
        fixed.append(("namespace", who.namespace))
    if budget.Per.SERVICE_ACCOUNT in per:
        fixed.append(("serviceAccount", str(who)))
    if budget.Per.TEAM not in per:
        return [tuple(sorted(fixed))]
    return [tuple(sorted([*fixed, ("team", team)])) for team in who.teams or ("-",)]


def _quota(given: budget.Quota | None) -> budgets.Quota | None:
    if given is None:
        return None
    return budgets.Quota(
        amount=fields.micro(given.amount),
        period=given.period,
        time_zone=given.time_zone,
        warn_at=given.warn_at,
    )


def _rate(given: budget.Rate | None) -> budgets.Rate | None:
    if given is None:
        return None
    return budgets.Rate(per_second=fields.micro(given.per_second), burst=given.burst * budgets.MICRO)


def _limit_order(limit: budgets.Limit) -> tuple[object, ...]:
    return (limit.namespace, limit.budget, limit.name, limit.key)


def _audit(spec: server.ServerSpec) -> snapshot.AuditRules:
    return snapshot.AuditRules(
        level=spec.audit.level,
        durability=spec.audit.durability,
        on_unavailable_deny=spec.audit.on_unavailable == "Deny",
        redact=tuple(
            snapshot.Redaction(tools=entry.tools, arguments=entry.arguments or (), result=entry.result or ())
            for entry in spec.tools.redact
        ),
    )


def _features(given: server.ClientFeatures) -> snapshot.ClientFeatures:
    return snapshot.ClientFeatures(
        elicitation_form=given.elicitation.form == "Allow",
        elicitation_url_hosts=given.elicitation.url_hosts,
        sampling=given.sampling == "Allow",
        roots=given.roots == "Allow",
    )
