# SPDX-License-Identifier: Apache-2.0
"""What a server may ask of a client: what the entry allows and the client declared, and never a secret (R22)."""

from __future__ import annotations

import json
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from outrider import snapshot
from outrider_sidecar import features

EVERYTHING = snapshot.ClientFeatures(
    elicitation_form=True, elicitation_url_hosts=("login.example.com",), sampling=True, roots=True
)
NOTHING = snapshot.ClientFeatures(elicitation_form=False)
WHOLE = {
    "elicitation": {"form": {}, "url": {}},
    "sampling": {"tools": {}, "context": {}},
    "roots": {"listChanged": True},
}


def rule(
    method: str,
    params: object,
    *,
    offered: dict[str, Any] = WHOLE,
    allowed: snapshot.ClientFeatures = EVERYTHING,
) -> features.Ruling:
    raw = params if isinstance(params, bytes) else json.dumps(params).encode()
    return features.ruling(method, raw, offered=offered, allowed=allowed)


def form(**properties: object) -> dict[str, Any]:
    return {"message": "Tell me", "requestedSchema": {"type": "object", "properties": properties}}


def url(address: object) -> dict[str, Any]:
    return {"mode": "url", "message": "Sign in", "url": address, "elicitationId": "1"}


@pytest.mark.parametrize(
    ("offered", "allowed", "told"),
    [
        (WHOLE, EVERYTHING, WHOLE),
        (WHOLE, NOTHING, {}),
        ({}, EVERYTHING, {}),
        ({"elicitation": {}}, EVERYTHING, {"elicitation": {}}),
        ({"elicitation": {}}, NOTHING, {}),
        (WHOLE, snapshot.ClientFeatures(), {"elicitation": {"form": {}}}),
        ({"elicitation": {"url": {}}}, snapshot.ClientFeatures(), {}),
        (
            {"elicitation": {"form": {}, "url": {}}},
            snapshot.ClientFeatures(elicitation_form=False, elicitation_url_hosts=("a.example",)),
            {"elicitation": {"url": {}}},
        ),
        ({"roots": {}, "sampling": {}}, snapshot.ClientFeatures(roots=True), {"roots": {}}),
    ],
)
def test_a_server_learns_of_the_capabilities_that_were_declared_and_are_allowed(
    offered: dict[str, Any], allowed: snapshot.ClientFeatures, told: dict[str, Any]
) -> None:
    assert features.narrowed(offered, allowed) == told


_CAPABILITIES = st.fixed_dictionaries(
    {},
    optional={
        "elicitation": st.sampled_from([{}, {"form": {}}, {"url": {}}, {"form": {}, "url": {}}]),
        "sampling": st.sampled_from([{}, {"tools": {}}]),
        "roots": st.sampled_from([{}, {"listChanged": True}]),
    },
)
_ALLOWED = st.builds(
    snapshot.ClientFeatures,
    elicitation_form=st.booleans(),
    elicitation_url_hosts=st.sampled_from([(), ("login.example.com",)]),
    sampling=st.booleans(),
    roots=st.booleans(),
)
_ASKS = st.sampled_from([
    ("elicitation/create", form(name={"type": "string"})),
    ("elicitation/create", url("https://login.example.com/x")),
    ("sampling/createMessage", {"messages": [], "maxTokens": 10}),
    ("sampling/createMessage", {"messages": [], "maxTokens": 10, "tools": []}),
    ("roots/list", {}),
])  # fmt: skip


@hypothesis.given(_CAPABILITIES, _ALLOWED, _ASKS)
def test_an_ask_is_relayed_exactly_when_the_server_was_told_that_it_may_ask(
    offered: dict[str, Any], allowed: snapshot.ClientFeatures, ask: tuple[str, dict[str, Any]]
) -> None:
    method, params = ask
    told = features.narrowed(offered, allowed)
    elicitation = told.get("elicitation")
    may = {
        "roots/list": "roots" in told,
        "sampling/createMessage": "sampling" in told
        and ("tools" not in params or "tools" in told["sampling"]),
        "elicitation/create": elicitation is not None
        and (
            "url" in elicitation if params.get("mode") == "url" else "form" in elicitation or not elicitation
        ),
    }[method]
    ruling = rule(method, params, offered=offered, allowed=allowed)
    assert (ruling.verdict is features.Verdict.RELAY) is may
    assert bool(ruling.why) is not may


@hypothesis.given(_CAPABILITIES, _ALLOWED)
def test_what_a_server_is_told_is_what_it_may_ask_written_down(
    offered: dict[str, Any], allowed: snapshot.ClientFeatures
) -> None:
    assert json.loads(features.told(offered, allowed)) == features.narrowed(offered, allowed)


def test_roots_that_are_not_allowed_are_answered_with_none_at_all() -> None:
    ruling = rule("roots/list", {}, allowed=NOTHING)
    assert (ruling.verdict, ruling.answer) == (features.Verdict.ANSWER, b'{"roots":[]}')


def test_what_a_client_does_not_offer_is_told_apart_from_what_the_entry_forbids() -> None:
    undeclared = rule("elicitation/create", form(), offered={})
    forbidden = rule("elicitation/create", form(), offered={}, allowed=NOTHING)
    assert undeclared.undeclared
    assert "did not declare" in undeclared.why
    assert not forbidden.undeclared
    assert "clientFeatures" in forbidden.why


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", {}),
        ("ping", {}),
        ("Elicitation/create", form()),
        ("elicitation/create", []),
        ("elicitation/create", b"{"),
        ("elicitation/create", b"[" * 5000),
        (
            "elicitation/create",
            b'{"mode":"url","mode":"form","message":"x","requestedSchema":{"properties":{}}}',
        ),
        (
            "elicitation/create",
            b'{"Mode":"url","mode":"form","message":"x","requestedSchema":{"properties":{}}}',
        ),
        ("elicitation/create", {"message": "x"}),
        ("elicitation/create", {"message": "x", "requestedSchema": []}),
        ("elicitation/create", {"message": "x", "requestedSchema": {"properties": 3}}),
        ("elicitation/create", {"mode": "FORM", **form()}),
        ("elicitation/create", {"mode": None, **form()}),
        ("elicitation/create", {"Mode": "url", "url": "https://evil.example/", **form()}),
        ("elicitation/create", {"URL": "https://evil.example/", **url("https://login.example.com/")}),
        ("elicitation/create", {"RequestedSchema": {"properties": {"password": {}}}, **form()}),
        ("elicitation/create", {"requestedSchema": {"Properties": {"password": {}}, "properties": {}}}),
        ("elicitation/create", form(a={"Title": "Your password"})),
        ("sampling/createMessage", {"messages": [], "Tools": []}),
        ("sampling/createMessage", {"messages": [], "toolchoice": {}}),
        ("elicitation/create", {"_Meta": {"dev.outrider/server": "bank/trusted"}, **form()}),
        ("roots/list", b"[]"),
        ("roots/list", b'{"\\ud800":1}'),
        ("elicitation/create", form(**{f"f{n}": {"type": "string"} for n in range(101)})),
        ("sampling/createMessage", b"null"),
    ],
)
def test_anything_that_is_no_ask_of_ours_is_refused(method: str, params: object) -> None:
    assert rule(method, params).verdict is features.Verdict.REFUSE


@pytest.mark.parametrize(
    "name",
    [
        "password", "Password", "user_password", "userPassword", "PASSWORD1", "api_key", "apiKey", "APIKey", "apikey",
        "API-Key", "access_token", "accessToken", "token", "client secret", "cardNumber", "card_number", "CVV",
        "ｐａｓｓｗｏｒｄ", "private-key", "Passphrase", "seed_phrase", "secret_key", "pass word",
    ],
)  # fmt: skip
def test_a_form_that_asks_for_a_secret_is_refused_by_name_or_title(name: str) -> None:
    by_name = rule("elicitation/create", form(**{name: {"type": "string"}}))
    by_title = rule("elicitation/create", form(x={"type": "string", "title": f"Your {name}, please"}))
    assert (by_name.verdict, by_title.verdict) == (features.Verdict.REFUSE, features.Verdict.REFUSE)
    assert "secret" in by_name.why


@pytest.mark.parametrize(
    "name",
    [
        "name",
        "email",
        "max_tokens",
        "keyboard",
        "key",
        "monkey",
        "secretary",
        "tokenize",
        "cardinal",
        "x1",
        "",
        "number",
    ],
)
def test_a_form_with_harmless_fields_is_relayed(name: str) -> None:
    assert rule("elicitation/create", form(**{name: {"type": "string"}})).verdict is features.Verdict.RELAY


@pytest.mark.parametrize("address", ["https://login.example.com", "https://LOGIN.example.com:443/a?b=c#d"])
def test_people_are_sent_to_listed_hosts(address: str) -> None:
    assert rule("elicitation/create", url(address)).verdict is features.Verdict.RELAY


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.example/", "https://login.example.com.evil.example/", "https://evil.example#login.example.com",
        "https://login.example.com@evil.example/", "https://user@login.example.com/", "https://evil.example\\@login.example.com/",
        "https://evil.example\\.login.example.com/", "http://login.example.com/", "javascript:alert(1)", "//login.example.com/",
        "https:login.example.com", "https:///login.example.com/", "https://login.example.com:8443/", "https://login.example.com:x/",
        "https://login.example.com./", "https://login.example%2ecom/", "https://login.exämple.com/", "https://[::1/", " https://login.example.com/",
        "https://login.example.com/\n", "https://login.example.com\t/", "", None, 7, ["https://login.example.com/"],
    ],
)  # fmt: skip
def test_people_are_sent_nowhere_else(address: object) -> None:
    assert rule("elicitation/create", url(address)).verdict is features.Verdict.REFUSE


def test_without_listed_hosts_nobody_is_sent_anywhere() -> None:
    ruling = rule("elicitation/create", url("https://login.example.com/"), allowed=snapshot.ClientFeatures())
    assert ruling.verdict is features.Verdict.REFUSE
    assert "elicitation.urlHosts" in ruling.why


@hypothesis.given(st.text(max_size=40), st.binary(max_size=60))
def test_no_params_whatever_make_it_fail(method: str, params: bytes) -> None:
    ruling = features.ruling(method, params, offered=WHOLE, allowed=EVERYTHING)
    assert ruling.verdict in features.Verdict
