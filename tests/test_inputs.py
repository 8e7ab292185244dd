# SPDX-License-Identifier: Apache-2.0
"""input_required results are read in one way only, and what goes on is what was looked at."""

from __future__ import annotations

import json
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from outrider_sidecar import inputs

FORM = {
    "method": "elicitation/create",
    "params": {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}},
}


def a_result(**members: Any) -> bytes:
    return json.dumps({"resultType": "input_required", **members}).encode()


def test_what_is_asked_is_read_with_key_method_and_params_as_they_were() -> None:
    raw = b'{"resultType":"input_required","inputRequests":{"a b":{"method":"sampling/createMessage","params":{"x" : 1.50},"y":[]}},"requestState":"s","_meta":{"k":1}}'
    asked = inputs.required(raw)
    assert asked == inputs.Required(
        (inputs.Ask("a b", "sampling/createMessage", b'{"x" : 1.50}', {"y": b"[]"}),),
        "s",
        {"_meta": b'{"k":1}'},
    )


def test_roots_may_be_asked_for_without_params() -> None:
    asked = inputs.required(a_result(inputRequests={"r": {"method": "roots/list"}}))
    assert asked.asks == (inputs.Ask("r", "roots/list", b"{}", {}),)
    assert asked.state is None


def test_a_state_alone_is_enough_to_go_on_with() -> None:
    assert inputs.required(a_result(requestState="s")).asks == ()


@pytest.mark.parametrize(
    "raw",
    [
        a_result(),
        a_result(inputRequests={}),
        a_result(inputRequests=[FORM]),
        a_result(inputRequests={"a": "roots/list"}),
        a_result(inputRequests={"a": {"params": {}}}),
        a_result(inputRequests={"a": {"method": 3}}),
        a_result(inputRequests={"a": {"method": "roots/list", "params": []}}),
        a_result(inputRequests={"a": {"method": "roots/list", "params": None}}),
        a_result(inputRequests={"k" * 257: FORM}),
        a_result(inputRequests={str(n): FORM for n in range(17)}),
        a_result(requestState=7),
        a_result(requestState={"a": 1}),
        b'{"resultType":"input_required","requestState":"\\ud800"}',
        b'{"resultType":"task","requestState":"s"}',
        b'{"resultType":["input_required"],"requestState":"s"}',
        b'{"resultType":"input_required","inputRequests":{"a":{"method":"roots/list"},"a":{"method":"sampling/createMessage"}}}',
        b'{"resultType":"input_required","inputRequests":{"a":{"method":"roots/list","Method":"sampling/createMessage"}}}',
        b'{"resultType":"input_required","inputRequests":{"a":{"method":"elicitation/create","params":{"mode":"form","mode":"url"}}}}',
        a_result(requestState="s", InputRequests={"a": FORM}),
        a_result(requestState="s", INPUTREQUESTS={"a": FORM}),
        a_result(inputRequests={"a": {"method": "roots/list", "Params": {}}}),
        b"[]",
        b"{",
    ],
)
def test_what_could_be_read_in_two_ways_or_in_none_is_broken(raw: bytes) -> None:
    with pytest.raises(inputs.Broken) as told:
        inputs.required(raw)
    assert "sampling" not in str(told.value)


def test_an_agent_gets_our_state_and_hears_in_meta_only_who_asks() -> None:
    asked = inputs.required(
        a_result(
            inputRequests={"a": {**FORM, "vendor": [1]}, "r": {"method": "roots/list"}},
            requestState="theirs",
            _meta={"k": 1},
            vendor=1.5,
        )
    )
    told = json.loads(inputs.result(asked, state="ours", server="crm/sales"))
    named = {"_meta": {"dev.outrider/server": "crm/sales"}}
    assert told == {
        "resultType": "input_required",
        "inputRequests": {
            "a": {**FORM, "params": {**FORM["params"], **named}, "vendor": [1]},  # type: ignore[dict-item]
            "r": {"method": "roots/list", "params": named},
        },
        "requestState": "ours",
        "_meta": {"k": 1},
        "vendor": 1.5,
    }


def test_a_server_cannot_speak_in_the_name_of_another() -> None:
    forged = json.dumps({"_meta": {"dev.outrider/server": "bank/trusted", "progressToken": 3}}).encode()
    assert json.loads(inputs.signed(forged, "crm/sales")) == {
        "_meta": {"dev.outrider/server": "crm/sales", "progressToken": 3}
    }
    assert json.loads(inputs.signed(b'{"_meta":null}', "a/b")) == {"_meta": {"dev.outrider/server": "a/b"}}


def test_a_state_that_stands_alone_is_sent_on_without_requests() -> None:
    told = json.loads(inputs.result(inputs.required(a_result(requestState="s")), state="ours", server="a/b"))
    assert told == {"resultType": "input_required", "requestState": "ours"}


def test_the_next_round_carries_the_answers_as_they_were_and_the_servers_own_state() -> None:
    assert inputs.members(b'{"a" : 1}', "s\u00e9") == {
        "inputResponses": b'{"a" : 1}',
        "requestState": b'"s\\u00e9"',
    }
    assert inputs.members(None, None) == {}


def test_an_address_has_an_id_in_the_handshake_era_and_a_form_has_none() -> None:
    assert json.loads(inputs.of_handshake(b'{"mode":"url","url":"u"}', "7")) == {
        "mode": "url",
        "url": "u",
        "elicitationId": "7",
    }
    for raw in (b'{"mode":"form"}', b'{"message":"m"}', b'{"mode":"url","elicitationId":"theirs"}'):
        assert inputs.of_handshake(raw, "7") == raw


def test_the_error_that_sends_people_to_addresses_is_read_as_what_it_asks() -> None:
    visit = {"mode": "url", "elicitationId": "e1", "url": "https://login.example.com/", "message": "Sign in"}
    error = {"code": -32042, "message": "m", "data": {"elicitations": [visit, visit]}}
    asked = inputs.addresses(json.dumps(error).encode())
    assert asked is not None
    assert [(ask.key, ask.method, json.loads(ask.params)) for ask in asked.asks] == [
        ("address-1", "elicitation/create", visit),
        ("address-2", "elicitation/create", visit),
    ]
    assert inputs.addresses(b'{"code":-32602,"message":"m","data":{"elicitations":3}}') is None


@pytest.mark.parametrize(
    "data", [None, {}, {"elicitations": []}, {"elicitations": 3}, {"elicitations": [{}] * 17}, "x"]
)
def test_one_that_names_no_addresses_or_too_many_is_broken(data: object) -> None:
    error = {"code": -32042, "message": "m"} | ({} if data is None else {"data": data})
    with pytest.raises(inputs.Broken):
        inputs.addresses(json.dumps(error).encode())


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@hypothesis.given(_JSON, _JSON)
def test_whatever_a_server_sends_is_read_or_broken(requests: object, state: object) -> None:
    raw = a_result(inputRequests=requests, requestState=state)
    try:
        asked = inputs.required(raw)
    except inputs.Broken:
        return
    again = inputs.required(inputs.result(asked, state="x", server="a/b"))
    assert [(ask.key, ask.method) for ask in again.asks] == [(ask.key, ask.method) for ask in asked.asks]
