# SPDX-License-Identifier: Apache-2.0
"""What of an agent's params reaches a server: all of it as it was, but the name, `_meta`, and what belongs to one hop."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests import asking

from outrider_sidecar import conventions, crossing

PARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
RAW = b'{"jsonrpc":"2.0","id":1,"method":"%b","params":%b}'


def crossed(method: str, params: bytes) -> dict[str, bytes]:
    subject = asking.subject(raw=RAW % (method.encode(), params))
    return crossing.params(subject, asking.permit(subject))


def test_members_nobody_knows_cross_byte_for_byte_and_in_order() -> None:
    made = crossed(
        "tools/call", b'{"z": [1.50, {"$x":1e2}],"name":"q","arguments":{ "a":1.0 },"future":null}'
    )
    assert list(made.items()) == [
        ("z", b'[1.50, {"$x":1e2}]'), ("name", b'"q"'), ("arguments", b'{ "a":1.0 }'), ("future", b"null"),
    ]  # fmt: skip


@pytest.mark.parametrize("member", ["task", "inputResponses", "requestState", "_meta"])
def test_what_belongs_to_one_hop_stays_here(member: str) -> None:
    assert set(crossed("tools/call", json.dumps({"name": "q", member: {}}).encode())) == {"name"}


def test_null_arguments_are_none() -> None:
    assert set(crossed("prompts/get", b'{"name":"p","arguments":null}')) == {"name"}


def test_a_resource_is_named_by_its_uri() -> None:
    assert crossed("resources/read", b'{"uri":"a:\\/\\/b","x":1}') == {"uri": b'"a://b"', "x": b"1"}


@pytest.mark.parametrize(
    ("ref", "sent"),
    [
        (b'{"type":"ref/prompt","name":"p","uri":"u","x":[1.0]}', {"type": "ref/prompt", "name": "p", "x": [1.0]}),
        (b'{"type":"ref/resource","uri":"a://{b}","name":"p"}', {"type": "ref/resource", "uri": "a://{b}"}),
    ],
)  # fmt: skip
def test_a_reference_names_what_was_decided_and_nothing_else(ref: bytes, sent: dict[str, Any]) -> None:
    made = crossed("completion/complete", b'{"ref":%b,"argument":{"name":"n","value":"v"}}' % ref)
    assert json.loads(made["ref"]) == sent
    assert made["argument"] == b'{"name":"n","value":"v"}'


# _meta ----------------------------------------------------------------------------------------------------------------


def meta(given: dict[str, Any], trace: conventions.Trace = asking.NO_TRACE) -> dict[str, Any]:
    subject = asking.subject(params={"name": "q", "_meta": given}, trace=trace)
    return {key: json.loads(value) for key, value in crossing.meta(subject, 41).items()}


def test_members_of_others_cross_and_those_of_the_protocol_do_not() -> None:
    given = {
        "com.example/x": {"a": [1]}, "plain": None, "baggage": "k=v",
        conventions.META_CLIENT_INFO: {"name": "agent"}, conventions.META_CAPABILITIES: {"sampling": {}},
        conventions.META_VERSION: "x", "io.modelcontextprotocol/unheard-of": 1, conventions.META_REFUSAL: {},
    }  # fmt: skip
    assert meta(given) == {"com.example/x": {"a": [1]}, "plain": None, "baggage": "k=v"}


@pytest.mark.parametrize("token", [7, "7", ""])
def test_the_progress_token_is_ours_if_one_was_given(token: Any) -> None:
    assert meta({"progressToken": token}) == {"progressToken": 41}
    assert meta({"progressToken": True}) == meta({}) == {}


def test_the_trace_is_the_one_that_was_read() -> None:
    assert meta({"traceparent": "nonsense", "tracestate": "a=b"}) == {}
    assert meta({"traceparent": "x"}, conventions.Trace(PARENT, "a=b")) == {
        "traceparent": PARENT,
        "tracestate": "a=b",
    }
    assert meta({}, conventions.Trace(PARENT)) == {"traceparent": PARENT}


@pytest.mark.parametrize("key", ["IO.ModelContextProtocol/related-task", "io.modelcontextprotocol/x", "Dev.Outrider/refusal"])  # fmt: skip
def test_no_other_spelling_of_a_reserved_member_crosses(key: str) -> None:
    assert meta({key: 1, "x": 2}) == {"x": 2}
