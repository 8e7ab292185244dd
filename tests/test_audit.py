# SPDX-License-Identifier: Apache-2.0
"""Records and bodies: what is kept, what is redacted before it is kept, and that nothing a caller sends breaks them."""

from __future__ import annotations

import copy
import hashlib
import hmac

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider import audit, budgets, identity, names, snapshot, testing

KEY = b"k" * 32
LEVEL = snapshot.AuditLevel

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def entry(record, **fields):
    return audit.Entry(**{"instance": "i", "sequence": 7, "time": 12.5} | fields, record=record)


def intent(**fields):
    given_fields = {
        "event": "01EVENT",
        "request_id": "01REQUEST",
        "principal": audit.Principal(workload="agents/bot", teams=("sales",)),
        "server": "crm/salesforce",
        "tool": "query",
        "snapshot": "ab" * 32,
    }
    return audit.Intent(**given_fields | fields)


@pytest.mark.parametrize(
    "record",
    [
        audit.Opening(
            segment=2,
            boot_id="b",
            previous="00" * 32,
            spent=(budgets.Charge("crm/b/c", 1, 2, 3),),
            open_calls=(audit.OpenCall(event="e", charges=(budgets.Charge("p", 1, 2, 3),)),),
        ),
        intent(
            rules=(audit.ruling(names.RuleRef("crm", "sales", "read", 4)),),
            charges=(budgets.Charge("crm/b/c", 1, 2, 3),),
            arguments=audit.Body(bytes=2, content="{}"),
        ),
        audit.Outcome(event="e", request_id="r", status=audit.Status.FAILED, reason="ToolError", cost=5),
        audit.RefusalRecord(event="e", request_id="r", reason="NotAllowed", visible=False),
        audit.Summary(since=1.0, until=61.0, counts={"LocalAuthRefused": 5}),
    ],
)
def test_every_record_reads_back_as_it_was_written(record):
    assert audit.decode(audit.encode(entry(record))) == entry(record)


def test_records_are_camel_case_json_that_names_its_type():
    written = msgspec.json.decode(audit.encode(entry(intent(cost_max=9))))
    assert written["record"]["type"] == "intent"
    assert written["record"]["requestId"] == "01REQUEST"
    assert written["record"]["costMax"] == 9
    assert "credential" not in written["record"]


def test_a_reader_ignores_fields_of_a_later_version():
    later = msgspec.json.decode(audit.encode(entry(intent())))
    later["record"]["fingerprint"] = "new"
    assert audit.decode(msgspec.json.encode(later)) == entry(intent())


def test_what_is_not_a_record_is_said_to_be_none():
    with pytest.raises(msgspec.DecodeError):
        audit.decode(b'{"instance": "i"}')


def test_text_that_is_not_unicode_is_kept_readable():
    written = audit.encode(entry(audit.RefusalRecord(event="e", request_id="r", reason="x", tool="a\udc80b")))
    assert audit.decode(written).record.tool == "a\\udc80b"


def test_a_caller_cannot_make_a_refusal_long():
    record = audit.RefusalRecord(
        event="e",
        request_id="r",
        reason="ToolUnknown",
        tool="t" * 10**6,
        detail="d" * 10**6,
        server="s" * 10**6,
    )
    assert len(audit.encode(entry(record))) < 2_500
    assert record.tool.endswith("…")


def test_principals_and_rules_are_named_as_everywhere():
    workload = identity.Workload(namespace="agents", service_account="bot", teams=("hr", "sales"))
    assert audit.principal(workload) == audit.Principal(workload="agents/bot", teams=("hr", "sales"))
    assert audit.ruling(names.RuleRef("crm", "sales", "read", 4)) == audit.Ruling(
        policy="crm/sales", rule="read", generation=4
    )


def test_a_principal_without_a_user_is_written_as_before_there_were_users():
    workload = identity.Workload(namespace="agents", service_account="bot", teams=("sales",))
    body = audit.encode(entry(intent(principal=audit.principal(workload))))
    assert b'"principal":{"workload":"agents/bot","teams":["sales"]}' in body
    sent_once = audit.Outcome(event="e", request_id="r", status=audit.Status.COMPLETED, reason="Allowed")
    assert b"sends" not in audit.encode(entry(sent_once))
    assert b'"sends":2' in audit.encode(entry(msgspec.structs.replace(sent_once, sends=2)))


def test_a_users_groups_are_sorted_and_bounded_and_what_is_left_out_is_counted():
    workload = identity.Workload(namespace="agents", service_account="bot")
    groups = [f"okta:{number:03}" for number in range(audit.GROUPS_MAX + 3)]
    found = audit.principal(workload, testing.a_user(*groups))
    assert (list(found.groups), found.groups_left_out) == (groups[: audit.GROUPS_MAX], 3)
    exact = audit.principal(workload, testing.a_user(*groups[: audit.GROUPS_MAX]))
    assert (len(exact.groups), exact.groups_left_out) == (audit.GROUPS_MAX, 0)


def test_what_a_provider_says_of_a_user_cannot_be_long():
    long = "okta:" + "x" * 5_000
    found = audit.principal(
        identity.Workload(namespace="agents", service_account="bot"),
        testing.a_user(long, id=long, client=long, actor=long),
    )
    for text in (found.user, found.client, found.actor, *found.groups):
        assert len(text) == audit.TEXT_CHARACTERS_MAX + 1
        assert text.endswith("…")


def test_an_outcome_without_its_text_keeps_what_the_text_was():
    result = audit.Body(bytes=10, content="0123456789", digest="d")
    record = audit.Outcome(
        event="e", request_id="r", status=audit.Status.COMPLETED, reason="Allowed", cost=3, result=result,
        detail="x" * 1000,
    )  # fmt: skip
    bare = audit.bare(record)
    assert (bare.result, bare.cost) == (audit.Body(bytes=10, truncated=10, digest="d"), 3)
    assert len(bare.detail) == 256


def test_an_interrupted_call_is_charged_at_its_maximum():
    charge = budgets.Charge("p", 1, 2, 30)
    record = audit.interrupted(audit.OpenCall(event="e", request_id="r", cost_max=30, charges=(charge,)))
    assert (record.status, record.reason) == (audit.Status.UNKNOWN, "Interrupted")
    assert (record.cost, record.charges) == (30, (charge,))


# Redaction


@pytest.mark.parametrize(
    ("pointer", "left"),
    [
        (
            "/card/number",
            {"card": {"number": "[redacted]", "name": "A"}, "items": [{"k": 1}, {"k": 2}], "a/b": 1},
        ),
        (
            "/items/1/k",
            {"card": {"number": "4", "name": "A"}, "items": [{"k": 1}, {"k": "[redacted]"}], "a/b": 1},
        ),
        (
            "/items/*/k",
            {
                "card": {"number": "4", "name": "A"},
                "items": [{"k": "[redacted]"}, {"k": "[redacted]"}],
                "a/b": 1,
            },
        ),
        ("/a~1b", {"card": {"number": "4", "name": "A"}, "items": [{"k": 1}, {"k": 2}], "a/b": "[redacted]"}),
        ("", "[redacted]"),
    ],
)
def test_a_pointer_takes_out_what_it_names_and_nothing_else(pointer, left):
    value = {"card": {"number": "4", "name": "A"}, "items": [{"k": 1}, {"k": 2}], "a/b": 1}
    before = copy.deepcopy(value)
    assert audit.redact(value, [pointer]) == left
    assert value == before


@pytest.mark.parametrize(
    "pointer", ["/nowhere", "/items/9", "/items/01", "/items/-", "/card/number/deeper", "/0"]
)
def test_a_pointer_that_leads_nowhere_changes_nothing(pointer):
    value = {"card": {"number": "4"}, "items": [1]}
    assert audit.redact(value, [pointer]) is value


def paths(value, at=""):
    yield at
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, each in members:
        yield from paths(each, f"{at}/{str(key).replace('~', '~0').replace('/', '~1')}")


@given(json_values, st.data())
def test_a_secret_at_any_place_never_reaches_a_body(value, data):
    pointer = data.draw(st.sampled_from(sorted(paths(value))))
    canary = "CANARY-6f1c"

    def planted(node, steps):
        if not steps:
            return {"inner": [canary]}
        key = steps[0].replace("~1", "/").replace("~0", "~")
        if isinstance(node, list):
            return [planted(each, steps[1:]) if str(at) == key else each for at, each in enumerate(node)]
        return {name: planted(each, steps[1:]) if name == key else each for name, each in node.items()}

    secret = planted(value, pointer.split("/")[1:])
    for given_value in (secret, msgspec.json.encode(secret)):
        kept = audit.body(given_value, pointers=[pointer], key=KEY, keep=True)
        assert canary not in kept.content
        assert kept.redacted == (pointer,)


# Bodies


def test_levels_decide_whose_text_is_kept():
    def kept(level):
        arguments = audit.arguments_body({"a": 1}, level, key=KEY)
        result = audit.result_body({"b": 2}, level, key=KEY)
        assert arguments.digest
        assert result.digest
        return arguments.content, result.content

    assert kept(LEVEL.METADATA) == ("", "")
    assert kept(LEVEL.ARGUMENTS) == ('{"a":1}', "")
    assert kept(LEVEL.FULL) == ('{"a":1}', '{"b":2}')


def test_the_digest_is_keyed_and_taken_after_redaction():
    plain = audit.arguments_body({"q": 1, "secret": "s"}, LEVEL.ARGUMENTS, pointers=["/secret"], key=KEY)
    other = audit.arguments_body({"secret": "t", "q": 1}, LEVEL.ARGUMENTS, pointers=["/secret"], key=KEY)
    assert plain == other
    assert plain.digest == hmac.new(KEY, b'{"q":1,"secret":"[redacted]"}', hashlib.sha256).hexdigest()
    assert plain.digest != audit.arguments_body({"q": 1, "secret": "s"}, LEVEL.ARGUMENTS, key=KEY).digest
    assert (
        plain.digest
        != audit.arguments_body(
            {"q": 1, "secret": "s"}, LEVEL.ARGUMENTS, pointers=["/secret"], key=b"x"
        ).digest
    )


def test_a_long_body_is_cut_counted_and_still_covered_by_its_digest():
    value = {"text": "é" * 10_000}
    whole = msgspec.json.encode(value)
    kept = audit.body(value, pointers=(), key=KEY, keep=True)
    assert kept.bytes == len(whole)
    assert len(kept.content.encode()) + kept.truncated == kept.bytes
    assert 8_190 <= len(kept.content.encode()) <= 8_192
    assert kept.digest == hmac.new(KEY, whole, hashlib.sha256).hexdigest()


def test_bytes_that_cannot_be_searched_for_secrets_are_withheld():
    kept = audit.body(b'{"secret": "CANARY"', pointers=["/secret"], key=KEY, keep=True)
    assert (kept.content, kept.truncated, kept.digest) == ("", 19, "")
    assert audit.body(b'{"a": ', pointers=(), key=KEY, keep=True).content == '{"a": '


@given(json_values | st.text() | st.binary(max_size=20))
def test_any_value_makes_a_body_that_can_be_written(value):
    kept = audit.body(value, pointers=["/a", "/*/b"], key=KEY, keep=True)
    assert kept.bytes >= len(kept.content.encode()) - 3 * kept.content.count("�")
    assert audit.decode(audit.encode(entry(intent(arguments=kept)))).record.arguments == kept


def test_lone_surrogates_in_arguments_are_kept_readable():
    assert audit.body({"a": "\ud800"}, pointers=(), key=KEY, keep=True).content == '{"a":"\\\\ud800"}'
