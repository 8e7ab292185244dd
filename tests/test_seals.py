# SPDX-License-Identifier: Apache-2.0
"""What is sealed comes back as it was or not at all."""

from __future__ import annotations

import string

import hypothesis
from hypothesis import strategies as st

from outrider_sidecar import seals

KEY = bytes(range(32))
SEAL = seals.Seal(KEY, b"a purpose\0")


def opened(text: str, seal: seals.Seal = SEAL, characters_max: int = 4096) -> bytes | None:
    return seal.open(text, characters_max=characters_max)


@hypothesis.given(st.binary(max_size=200))
def test_it_comes_back_as_it_was_and_is_visible_ascii(body: bytes) -> None:
    text = SEAL.close(body)
    assert set(text) <= set(string.ascii_letters + string.digits + "-_")
    assert opened(text) == body


@hypothesis.given(st.binary(min_size=1, max_size=60), st.data())
def test_no_change_of_one_character_goes_unseen(body: bytes, data: st.DataObject) -> None:
    text = SEAL.close(body)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from(sorted({*string.ascii_letters, *string.digits, *"-_ =é"} - {text[at]})))
    assert opened(text[:at] + other + text[at + 1 :]) is None


def test_another_key_another_purpose_and_too_much_are_nothing_to_it() -> None:
    text = SEAL.close(b"state")
    assert opened(text, seals.Seal(bytes(32), b"a purpose\0")) is None
    assert opened(text, seals.Seal(KEY, b"another\0")) is None
    assert opened(text, characters_max=len(text) - 1) is None
    assert opened(text + "=") is None
    assert opened("") is None
