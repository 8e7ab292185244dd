# SPDX-License-Identifier: Apache-2.0
"""A sealed requestState goes on with one call of one principal, once, within ten minutes (rule 10, R18)."""

from __future__ import annotations

import itertools
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from outrider import call, identity, names
from outrider_sidecar import sessions, states

KEY = bytes(range(32))
NOW = 1_800_000_000.0
SERVER = names.ServerId("crm", "sales")
CALL = call.Call(SERVER, "query", {"a": 1, "b": [2]})
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)


class Clock:
    """Wall time, set by hand; it moves by itself a little, as time does."""

    def __init__(self, at: float = NOW) -> None:
        self.at = at

    def __call__(self) -> float:
        self.at += 0.001
        return self.at


def some_states(key: bytes = KEY, clock: Clock | None = None) -> states.States:
    count = itertools.count(1)
    return states.States(key, entropy=lambda size: next(count).to_bytes(size, "big"), wall=clock or Clock())


def sealed(
    held: states.States,
    subject: call.Call = CALL,
    *,
    upstream: str | None = "theirs",
    after: states.State | None = None,
    principal: str = "crm/bot",
) -> str:
    text = held.seal(subject, principal=principal, upstream=upstream, after=after, request="01FIRST")
    assert text is not None
    return text


def opened(
    held: states.States, text: object, subject: call.Call = CALL, principal: str = "crm/bot"
) -> states.State | None:
    return held.opened(text, subject, principal=principal)


@hypothesis.given(
    st.none() | TEXT,
    TEXT,
    st.dictionaries(TEXT, TEXT | st.integers(), max_size=4),
    st.sampled_from(call.Kind),
)
def test_a_state_gives_back_what_the_server_gave(
    upstream: str | None, name: str, arguments: dict[str, Any], kind: call.Kind
) -> None:
    held = some_states()
    subject = call.Call(SERVER, name, arguments, kind)
    state = opened(held, sealed(held, subject, upstream=upstream), subject)
    assert state is not None
    assert (state.upstream, state.round, state.first) == (upstream, 1, "01FIRST")


def test_arguments_in_another_order_are_the_same_call_and_none_are_the_same_as_no_members() -> None:
    held = some_states()
    assert opened(held, sealed(held), call.Call(SERVER, "query", {"b": [2], "a": 1})) is not None
    bare = call.Call(SERVER, "query", None)
    assert opened(held, sealed(held, bare), call.Call(SERVER, "query", {})) is not None


@pytest.mark.parametrize(
    "other",
    [
        call.Call(SERVER, "query", {"a": 1, "b": [3]}),
        call.Call(SERVER, "query", {"a": "1", "b": [2]}),
        call.Call(SERVER, "query", {"a": 1, "b": [2], "c": None}),
        call.Call(SERVER, "query", None),
        call.Call(SERVER, "delete", CALL.arguments),
        call.Call(SERVER, "query", CALL.arguments, call.Kind.PROMPT, call.Method.GET),
        call.Call(names.ServerId("crm", "sale"), "query", CALL.arguments),
        call.Call(names.ServerId("ops", "sales"), "query", CALL.arguments),
    ],
)
def test_it_goes_on_with_no_other_call(other: call.Call) -> None:
    held = some_states()
    assert opened(held, sealed(held), other) is None


def test_it_is_of_no_use_to_another_principal() -> None:
    held = some_states()
    assert opened(held, sealed(held), principal="crm/other") is None


def test_it_is_good_once() -> None:
    held = some_states()
    text = sealed(held)
    state = opened(held, text)
    assert state is not None
    assert opened(held, text) == state, "looking at it spends nothing"
    assert held.origin(state) == "01FIRST"
    held.spend(state)
    assert opened(held, text) is None


def test_each_round_has_a_state_of_its_own_and_goes_on_with_the_first_request() -> None:
    held, seen, after = some_states(), set(), None
    for number in range(1, states.ROUNDS_MAX + 1):
        text = held.seal(
            CALL, principal="crm/bot", upstream="same", after=after, request=f"01REQUEST{number}"
        )
        assert text is not None
        seen.add(text)
        after = opened(held, text)
        assert after is not None
        assert (after.round, held.origin(after)) == (number, "01REQUEST1")
        held.spend(after)
    assert len(seen) == states.ROUNDS_MAX


def test_a_server_may_ask_five_times_within_one_call() -> None:
    held = some_states()
    last = states.State(None, "crm/sales", "Tool", "query", b"", "crm/bot", states.ROUNDS_MAX, "01", NOW, b"")
    assert held.seal(CALL, principal="crm/bot", upstream=None, after=last, request="01") is None


def test_a_state_of_the_servers_that_is_too_large_is_not_carried() -> None:
    held = some_states()
    most = "é" * (states.STATE_BYTES_MAX // 2)
    state = opened(held, sealed(held, upstream=most))
    assert state is not None
    assert state.upstream == most
    assert held.seal(CALL, principal="crm/bot", upstream=most + "x", after=None, request="01") is None


def test_ten_minutes_later_it_looks_unknown() -> None:
    clock = Clock()
    held = some_states(clock=clock)
    text = sealed(held)
    clock.at += states.AGE_SECONDS_MAX - 1
    assert opened(held, text) is not None
    clock.at += 2
    assert opened(held, text) is None


def test_a_state_from_the_future_looks_unknown() -> None:
    text = sealed(some_states(clock=Clock(NOW + 120)))
    assert opened(some_states(clock=Clock(NOW)), text) is None


def test_a_restart_loses_no_call_but_charges_the_round_again_for_nobody_knows_what_was_spent() -> None:
    clock = Clock()
    before = some_states(clock=clock)
    text = sealed(before)
    state = opened(before, text)
    assert state is not None
    before.spend(state)
    after = some_states(clock=clock)
    again = opened(after, text)
    assert again is not None
    assert after.origin(again) == ""
    after.spend(again)
    assert opened(after, text) is None


def test_what_is_forgotten_is_not_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "SPENT_MAX", 3)
    held = some_states()
    texts = [sealed(held) for _ in range(5)]
    for text in texts:
        state = opened(held, text)
        assert state is not None
        held.spend(state)
    replayed = opened(held, texts[0])
    assert replayed is not None, "only the last three are remembered"
    assert held.origin(replayed) == ""
    fresh = opened(held, sealed(held))
    assert fresh is not None
    assert held.origin(fresh) == "01FIRST"


@pytest.mark.parametrize("text", [None, 7, "", "x", "é", "a" * 200_000, "A" * 44, ["a"], {"a": 1}, True])
def test_what_was_never_ours_looks_unknown(text: object) -> None:
    assert opened(some_states(), text) is None


@hypothesis.given(st.data())
def test_one_changed_character_makes_it_unknown(data: st.DataObject) -> None:
    held = some_states()
    text = sealed(held)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from("ABCxyz019-_=").filter(lambda each: each != text[at]))
    assert opened(held, text[:at] + other + text[at + 1 :]) is None
    assert opened(held, text + "-TAMPERED") is None
    assert opened(held, text[:-1]) is None


def test_another_key_and_another_purpose_seal_nothing_for_us() -> None:
    assert opened(some_states(), sealed(some_states(key=bytes(32)))) is None
    session = sessions.Sealer(KEY, entropy=bytes, wall=Clock()).open(
        version="2025-11-25", principal="crm/bot", endpoint="/mcp"
    )
    assert opened(some_states(), session) is None


def test_a_state_is_of_the_workload_and_of_the_user() -> None:
    workload = identity.Workload(namespace="crm", service_account="bot")
    alice = identity.User(id="okta:alice", names=frozenset())
    again = identity.User(id="okta:alice", names=frozenset(), groups=frozenset({"okta:x"}), token="another")
    bob = identity.User(id="okta:bob", names=frozenset())
    assert states.principal(workload, alice) == states.principal(workload, again)
    everybody = {states.principal(workload, each) for each in (None, alice, bob)}
    assert len(everybody) == 3
    held = some_states()
    text = sealed(held, principal=states.principal(workload, alice))
    assert opened(held, text, principal=states.principal(workload, again)) is not None
    for other in (None, bob):
        assert opened(held, text, principal=states.principal(workload, other)) is None
