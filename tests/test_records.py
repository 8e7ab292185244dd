# SPDX-License-Identifier: Apache-2.0
"""What is written down of a call and of a refusal, and what is not."""

from __future__ import annotations

import dataclasses
import json

import pytest

from outrider import audit, bind, budgets, call, decide, decision, names, snapshot, testing
from outrider_sidecar import ledger, records

KEY = bytes(32)
ABOUT = records.About("01J", testing.AGENT, "d" * 64, "2026-07-28", "tools/call", "ab" * 16)
ARGUMENTS = {"deal": 7, "pin": "1234"}


def a_permit(**view: object) -> decision.Permit:
    bound = testing.bound_to(testing.a_server(testing.allow(), **view), "query")
    verdict = decide.decide(bound, call.Call(testing.CRM, "query", ARGUMENTS), budgets.UNLIMITED, now=1.0)
    assert isinstance(verdict, decision.Permit)
    return verdict


def an_intent(**view: object) -> audit.Intent:
    permit = a_permit(**view)
    held = ledger.Ledger()
    return records.Writer(KEY).intent(ABOUT, permit, held.reserve(permit.reservations, 1_700_000_000.0))


def test_an_intent_names_who_what_by_which_rule_and_at_most_for_how_much() -> None:
    """R30."""
    intent = an_intent(
        limits=(testing.a_limit(calls=5),),
        default_price=budgets.Price(per_call=3, per_thousand_result_tokens=1000, result_bytes_max=4000),
        credentials=(snapshot.Credential(name="key"),),
        credential_required=True,
    )
    assert (intent.event, intent.request_id, intent.era, intent.method) == (
        "01J",
        "01J",
        "2026-07-28",
        "tools/call",
    )
    assert (intent.principal.workload, intent.server, intent.tool) == ("crm/bot", "crm/salesforce", "query")
    assert [(each.policy, each.rule, each.generation) for each in intent.rules] == [("crm/p", "r", 1)]
    assert (intent.snapshot, intent.credential, intent.trace_id) == ("d" * 64, "key", "ab" * 16)
    assert intent.cost_max == budgets.reserve(
        budgets.Price(per_call=3, per_thousand_result_tokens=1000, result_bytes_max=4000)
    )
    assert [charge.amount for charge in intent.charges] == [budgets.MICRO]


def test_a_policy_that_only_watches_is_recorded_as_what_it_would_have_said() -> None:
    watched = testing.deny("query", enforced=False, message="soon")
    bound = testing.bound_to(testing.a_server(testing.allow(), watched), "query")
    verdict = decide.decide(bound, call.Call(testing.CRM, "query"), budgets.UNLIMITED, now=1.0)
    assert isinstance(verdict, decision.Permit)
    intent = records.Writer(KEY).intent(ABOUT, verdict, ledger.Ledger().reserve((), 1.0))
    assert intent.would == verdict.would
    assert [each.split()[0] for each in intent.would] == ["would-deny"]


@pytest.mark.parametrize("level", list(snapshot.AuditLevel))
def test_each_level_keeps_arguments_and_results_as_it_says(level: snapshot.AuditLevel) -> None:
    rules = snapshot.AuditRules(level=level)
    arguments = an_intent(audit=rules).arguments
    result = records.Writer(KEY).result(a_permit(audit=rules), b'{"content":[]}')
    assert arguments is not None
    assert bool(arguments.content) is (level is not snapshot.AuditLevel.METADATA)
    assert bool(result.content) is (level is snapshot.AuditLevel.FULL)
    assert len(arguments.digest) == len(result.digest) == 64
    assert result.bytes == 14


@pytest.mark.parametrize("glob", ["query", "QUERY", "qu*", "*"])
def test_redactions_match_names_in_any_case(glob: str) -> None:
    redact = (snapshot.Redaction(tools=(glob,), arguments=("/pin",), result=("/pin",)),)
    rules = snapshot.AuditRules(level=snapshot.AuditLevel.FULL, redact=redact)
    arguments = an_intent(audit=rules).arguments
    assert arguments is not None
    assert json.loads(arguments.content) == {"deal": 7, "pin": audit.REDACTED}
    result = records.Writer(KEY).result(a_permit(audit=rules), b'{"pin":"1234"}')
    assert json.loads(result.content) == {"pin": audit.REDACTED}


def test_redactions_of_other_tools_change_nothing() -> None:
    redact = (snapshot.Redaction(tools=("other",), arguments=("/pin",)),)
    arguments = an_intent(audit=snapshot.AuditRules(redact=redact)).arguments
    assert arguments is not None
    assert json.loads(arguments.content) == ARGUMENTS


@pytest.mark.parametrize(
    "raw", [b'{"\\ud800":1}', b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", b'{"a":1,"a":2}', b"{" + b" " * 100_000 + b"}"],
    ids=range(4),
)  # fmt: skip
@pytest.mark.parametrize(
    "redact", [(), (snapshot.Redaction(tools=("*",), result=("/a/*",)),)], ids=["plain", "redacted"]
)
def test_a_result_of_any_kind_can_be_recorded(raw: bytes, redact: tuple[snapshot.Redaction, ...]) -> None:
    rules = snapshot.AuditRules(level=snapshot.AuditLevel.FULL, redact=redact)
    body = records.Writer(KEY).result(a_permit(audit=rules), raw)
    outcome = audit.Outcome(
        event="e", request_id="e", status=audit.Status.COMPLETED, reason="Allowed", result=body
    )
    entry = audit.Entry(instance="i", sequence=1, time=1.0, record=outcome)
    assert audit.decode(audit.encode(entry)) == entry
    assert len(body.content.encode()) <= audit.BODY_BYTES_MAX


def test_no_arguments_are_no_body() -> None:
    permit = a_permit()
    bare = decision.Refusal(
        call.Call(testing.CRM, "query"), decision.Objection(decision.Reason.DENIED, visible=True)
    )
    record = records.Writer(KEY).refusal(ABOUT, bare, view=permit.server, ours=5)
    assert (record.arguments, record.ours_micros) == (None, 5)


def test_a_refusal_names_its_rule_its_pool_and_whether_it_was_seen() -> None:
    rule = names.RuleRef("crm", "p", "d", 3)
    pool = budgets.Pool("crm/b/l[]", testing.a_limit(calls=1))
    objection = decision.Objection(
        decision.Reason.BUDGET_EXCEEDED, visible=False, rule=rule, pool=pool, detail="why"
    )
    subject = call.Call(testing.CRM, "query", ARGUMENTS)
    refused = decision.Refusal(subject, objection, ("would-deny x",))
    record = records.Writer(KEY).refusal(ABOUT, refused, view=a_permit().server, ours=1)
    assert record.rule is not None
    assert (record.rule.policy, record.rule.rule, record.rule.generation) == ("crm/p", "d", 3)
    assert (record.reason, record.visible, record.pool, record.detail) == (
        "BudgetExceeded",
        False,
        "crm/b/l[]",
        "why",
    )
    assert record.would == ("would-deny x",)
    assert record.arguments is not None
    assert json.loads(record.arguments.content) == ARGUMENTS


def test_of_a_server_nobody_has_no_argument_is_kept() -> None:
    """No entry, no rules about what may be kept."""
    subject = call.Call(testing.CRM, "query", ARGUMENTS)
    refused = decision.Refusal(subject, decision.Objection(decision.Reason.SERVER_UNKNOWN, visible=False))
    about = records.About("01J", None, "", "", "tools/call", "")
    record = records.Writer(KEY).refusal(about, refused, view=None, ours=0)
    assert (record.arguments, record.principal) == (None, None)


def test_a_name_as_long_as_a_body_does_not_fill_the_journal() -> None:
    subject = call.Call(testing.CRM, "x" * 4_000_000)
    refused = decision.Refusal(subject, decision.Objection(decision.Reason.TOOL_UNKNOWN, visible=False))
    record = records.Writer(KEY).refusal(ABOUT, refused, view=None, ours=0)
    assert len(record.tool) <= audit.TEXT_CHARACTERS_MAX + 1


@pytest.mark.parametrize(
    "rules",
    [
        snapshot.AuditRules(redact=(snapshot.Redaction(tools=("query",), arguments=("/password",)),)),
        snapshot.AuditRules(level=snapshot.AuditLevel.METADATA),
    ],
)
def test_a_complaint_about_arguments_quotes_nothing_that_is_not_kept_of_them(
    rules: snapshot.AuditRules,
) -> None:
    schema = {"type": "object", "properties": {"password": {"type": "integer"}}}
    view = testing.a_server(testing.allow(), audit=rules)
    bound = bind.bound(testing.a_snapshot(view), {view.id: testing.tools("query", schema=schema)})
    asked = call.Call(testing.CRM, "query", {"password": "canary-4711"})
    refused = decide.decide(bound, asked, budgets.UNLIMITED, now=0.0)
    assert isinstance(refused, decision.Refusal)
    assert "canary" in refused.objection.detail, "the agent is told what does not fit"
    about = records.About("01J", testing.AGENT, "d", "2026-07-28", "tools/call", "")
    for kept, quoted in ((view, False), (testing.a_server(testing.allow()), True)):
        record = records.Writer(b"k").refusal(about, refused, view=kept, ours=1)
        body = audit.encode(audit.Entry(instance="i", sequence=1, time=0.0, record=record))
        assert (b"canary" in body) is quoted


def the_principal(about: records.About, writer: records.Writer | None = None) -> audit.Principal:
    permit = a_permit()
    held = ledger.Ledger().reserve(permit.reservations, 1_700_000_000.0)
    return (writer or records.Writer(KEY)).intent(about, permit, held).principal


def test_every_record_of_a_user_names_user_client_actor_and_groups_and_never_the_token() -> None:
    """R30."""
    user = testing.a_user(
        "b", "a", names=("okta:ada@corp.example",), client="okta:desk", actor="okta:agent", token="CANARY"
    )
    about = dataclasses.replace(ABOUT, user=user)
    writer = records.Writer(KEY)
    permit = a_permit()
    refused = decision.Refusal(permit.call, decision.Objection(decision.Reason.DENIED, visible=True))
    made = (
        writer.intent(about, permit, ledger.Ledger().reserve((), 1.0)),
        writer.ask(about, permit, event="01K", method="elicitation/create", params=b"{}"),
        writer.refused_ask(about, permit, event="01K", method="elicitation/create", params=b"{}", why="no"),
        writer.refusal(about, refused, view=permit.server, ours=1),
    )
    for record in made:
        assert record.principal == audit.Principal(
            workload="crm/bot",
            user="okta:ada",
            names=("okta:ada@corp.example",),
            client="okta:desk",
            actor="okta:agent",
            groups=("okta:a", "okta:b"),
        )
        assert b"CANARY" not in audit.encode(audit.Entry(instance="i", sequence=1, time=1.0, record=record))
    assert "CANARY" not in repr(about)


def test_two_users_of_one_workload_and_one_whose_groups_change_are_principals_of_their_own() -> None:
    writer = records.Writer(KEY)
    seen = [
        the_principal(dataclasses.replace(ABOUT, user=user), writer)
        for user in (
            None, testing.a_user("a"), testing.a_user("a", id="okta:bob"), testing.a_user("a", "b"),
            testing.a_user("a", client="okta:x"), testing.a_user("a", actor="okta:x"), testing.a_user("a", names=("okta:x",)), testing.a_user("a", token="t"),
        )
    ]  # fmt: skip
    assert [each.user for each in seen] == ["", "okta:ada", "okta:bob", *["okta:ada"] * 5]
    assert len(set(seen)) == 7
    assert seen[-1] is seen[1]


def test_no_more_principals_are_kept_than_the_bound_says() -> None:
    writer = records.Writer(KEY)
    for number in range(records.PRINCIPALS_MAX + 10):
        about = dataclasses.replace(ABOUT, user=testing.a_user(id=f"okta:{number}"))
        assert the_principal(about, writer).user == f"okta:{number}"
    assert len(writer._principals) == 10
