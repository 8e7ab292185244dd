# SPDX-License-Identifier: Apache-2.0
"""Sealed session ids: they outlive the process and are of no use to anybody else."""

from __future__ import annotations

import base64
import hmac
import itertools
import re

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from outrider_sidecar import sessions

KEY = bytes(range(32))
NOW = 1_800_000_000.0
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)


class Clock:
    """Wall time, set by hand."""

    def __init__(self, at: float = NOW) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


def a_sealer(key: bytes = KEY, clock: Clock | None = None) -> sessions.Sealer:
    count = itertools.count(1)
    return sessions.Sealer(key, entropy=lambda size: next(count).to_bytes(size, "big"), wall=clock or Clock())


def opened(sealer: sessions.Sealer, principal: str = "crm/bot", endpoint: str = "/mcp") -> str:
    return sealer.open(version="2025-11-25", principal=principal, endpoint=endpoint)[0]


def read(
    sealer: sessions.Sealer, text: str, principal: str = "crm/bot", endpoint: str = "/mcp"
) -> sessions.State | None:
    return sealer.read(text, principal=principal, endpoint=endpoint)


@hypothesis.given(TEXT, TEXT, st.sampled_from(["2025-03-26", "2025-06-18", "2025-11-25"]))
def test_a_session_reads_back_as_it_was_opened_also_after_a_restart(
    principal: str, endpoint: str, version: str
) -> None:
    text, _ = a_sealer().open(version=version, principal=principal, endpoint=endpoint)
    again = a_sealer()  # another process with the same key
    state = again.read(text, principal=principal, endpoint=endpoint)
    assert state == sessions.State(version, principal, endpoint, NOW, (1).to_bytes(16, "big"))


def test_an_id_is_visible_ascii_and_no_two_are_equal() -> None:
    sealer = a_sealer()
    ids = [opened(sealer) for _ in range(20)]
    assert len(set(ids)) == 20
    assert all(re.fullmatch(r"[\x21-\x7e]+", each) for each in ids)


@hypothesis.settings(max_examples=400)
@hypothesis.given(st.data())
def test_any_flipped_bit_makes_it_unknown(data: st.DataObject) -> None:
    """Of the sealed bytes and of the text alike: the spare bits of base64 are no second spelling."""
    sealer = a_sealer()
    text = opened(sealer)
    sealed = bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    assert read(sealer, base64.urlsafe_b64encode(bytes(sealed)).rstrip(b"=").decode()) is None
    written = bytearray(text.encode())
    bit = data.draw(st.integers(0, len(written) * 8 - 1))
    written[bit // 8] ^= 1 << bit % 8
    assert read(sealer, written.decode("latin-1")) is None


def test_every_other_spelling_of_the_same_bytes_is_unknown() -> None:
    sealer = a_sealer()
    text = opened(sealer)
    spellings = [
        f"{text}=",
        f"{text}==",
        f" {text}",
        f"{text}\n",
        text.upper(),
        text[:-1],
        text + "A",
        text * 2,
    ]
    standard = text.replace("-", "+").replace("_", "/")
    spellings += [standard] if standard != text else []
    assert [read(sealer, each) for each in spellings] == [None] * len(spellings)
    assert read(sealer, text) is not None


@hypothesis.given(
    st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: base64.urlsafe_b64encode(raw).decode())
)
def test_no_text_that_nobody_was_given_opens_anything(text: str) -> None:
    assert read(a_sealer(), text) is None


def test_an_id_of_any_length_is_looked_at_no_further_than_its_limit() -> None:
    assert read(a_sealer(), "A" * 10_000_000) is None


def test_another_principal_endpoint_or_key_does_not_know_it() -> None:
    sealer = a_sealer()
    text = opened(sealer)
    assert read(sealer, text, principal="crm/other") is None
    assert read(sealer, text, endpoint="/crm/salesforce/mcp") is None
    assert read(a_sealer(bytes(32)), text) is None


def test_a_seal_for_another_purpose_is_none_of_ours() -> None:
    """The same key may seal other things some day: the purpose and its version are part of the seal."""
    body = msgspec.msgpack.encode(sessions.State("2025-11-25", "crm/bot", "/mcp", NOW, b"n"))
    for purpose in (b"", b"outrider session 2\0", b"outrider cursor 1\0"):
        seal = hmac.digest(KEY, purpose + body, "sha256")
        assert read(a_sealer(), base64.urlsafe_b64encode(seal + body).rstrip(b"=").decode()) is None


@pytest.mark.parametrize(
    ("age", "alive"),
    [
        (0, True), (sessions.AGE_SECONDS_MAX, True), (sessions.AGE_SECONDS_MAX + 1, False),
        (10 * sessions.AGE_SECONDS_MAX, False), (-30, True), (-3600, False),
    ],
)  # fmt: skip
def test_a_session_lives_a_day_whatever_the_clock_says_of_its_birth(age: float, alive: bool) -> None:
    clock = Clock()
    sealer = a_sealer(clock=clock)
    text = opened(sealer)
    clock.at = NOW + age
    assert (read(sealer, text) is not None) is alive


def test_a_session_that_was_ended_stays_dead_and_its_neighbours_live() -> None:
    sealer = a_sealer()
    first, second = opened(sealer), opened(sealer)
    state = read(sealer, first)
    assert state is not None
    sealer.end(state.nonce)
    assert read(sealer, first) is None
    assert read(sealer, second) is not None


def test_the_dead_are_remembered_in_bounded_number_newest_first() -> None:
    sealer = a_sealer()
    ids = [opened(sealer) for _ in range(3)]
    states = [read(sealer, each) for each in ids]
    for index in range(sessions.ENDED_MAX - 1):
        sealer.end(b"%d" % index)
    for state in states:
        assert state is not None
        sealer.end(state.nonce)
    assert [read(sealer, each) for each in ids] == [None] * 3
    assert len(sealer._ended) == sessions.ENDED_MAX
