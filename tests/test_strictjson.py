# SPDX-License-Identifier: Apache-2.0
"""Strict JSON against the standard library, against careless readers, and against bodies made to hurt."""

from __future__ import annotations

import json
import sys
import tracemalloc
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from outrider import rules, strictjson

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def refusal(data: bytes) -> str:
    with pytest.raises(strictjson.StrictError) as caught:
        strictjson.parse(data)
    return str(caught.value)


def folds_apart(value: Any) -> bool:
    """Whether no object anywhere has two keys that are equal when folded."""
    if isinstance(value, dict):
        return len({rules.fold(key) for key in value}) == len(value) and all(map(folds_apart, value.values()))
    return all(map(folds_apart, value)) if isinstance(value, list) else True


@hypothesis.given(VALUES, st.booleans())
def test_what_is_accepted_reads_as_the_standard_library_reads_it(value: Any, escaped: bool) -> None:
    hypothesis.assume(folds_apart(value))
    data = json.dumps(value, ensure_ascii=escaped).encode()
    assert strictjson.parse(data) == value == json.loads(data)


@hypothesis.given(
    st.binary(max_size=64) | st.text('[]{}",:\\u0d8eE+-. 1atrfnN\n', max_size=40).map(str.encode)
)
def test_any_bytes_give_a_value_that_json_gives_too_or_a_strict_error(data: bytes) -> None:
    try:
        value = strictjson.parse(data)
    except strictjson.StrictError:
        value = None
    assert value is None or value == json.loads(data)


@hypothesis.given(VALUES, st.sampled_from(["a", "Straße", "ﬁ", "K", "name", "é"]), st.data())
def test_two_keys_that_fold_alike_are_refused_wherever_they_are(value: Any, key: str, data: Any) -> None:
    forms = [key, key.upper(), key.lower(), key.casefold(), rules.fold(key)]
    other = data.draw(st.sampled_from(forms))
    inner = f"{{{json.dumps(key)}:1,{json.dumps(other, ensure_ascii=False)}:2}}"
    body = f'[{json.dumps(value)},{{"x":[{inner}]}}]'.encode()
    hypothesis.assume(folds_apart(value))
    assert "key" in refusal(body)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a", "a"), ("a", "\\u0061"), ("amount", "Amount"), ("k", "\u212a"), ("s", "\u017f"), ("ss", "ß"),
        ("fi", "\ufb01"), ("é", "e\u0301"), ("Ａ", "a"), ("", ""), ("_meta", "_META"),
    ],
)  # fmt: skip
def test_keys_that_some_reader_takes_for_one_are_refused(first: str, second: str) -> None:
    assert "key" in refusal(f'{{"{first}":1,"{second}":2}}'.encode())


def test_equal_keys_of_different_objects_are_no_duplicates() -> None:
    assert strictjson.parse(b'[{"a":1},{"A":{"a":[{"a":2}]}}]') == [{"a": 1}, {"A": {"a": [{"a": 2}]}}]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"), (b" ", "not JSON"), (b"{", "not JSON"), (b"{}{}", "not JSON"), (b"[1,]", "not JSON"),
        (b"{'a':1}", "not JSON"), (b"// x\n1", "not JSON"), (b"01", "not JSON"), (b"+1", "not JSON"), (b".5", "not JSON"),
        (b"1.", "not JSON"), (b"0x10", "not JSON"), (b'"\t"', "not JSON"), (b'"\\x41"', "not JSON"), (b"tru", "not JSON"),
        (b"\xc2\xa01", "not JSON"), (b"\0", "not JSON"), ("\u0661".encode(), "not JSON"), (b"]" * 70, "not JSON"),
        (b"\xef\xbb\xbf{}", "byte order"), (b"\xff\xfe{\0}\0", "UTF-8"), ("{}".encode("utf-16"), "UTF-8"),
        (b'"\xc3"', "UTF-8"), (b'"\xc0\x80"', "UTF-8"), (b'"\xed\xa0\x80"', "UTF-8"), (b'"\xf5\x80\x80\x80"', "UTF-8"),
        (b"NaN", "NaN"), (b"[Infinity]", "NaN"), (b'{"a":-Infinity}', "NaN"), (b"1e400", "too large"),
        (b"[-1e400]", "too large"), (b"9" * 65, "too long"), (b"0." + b"1" * 80, "too long"),
        (b'"\\ud800"', "surrogate"), (b'"\\uDC00\\ud800"', "surrogate"), (b'{"\\ud83d":1}', "surrogate"),
        (b'["\\ud83d\\u0041"]', "surrogate"),
    ],
)  # fmt: skip
def test_what_two_parsers_could_read_differently_is_refused(data: bytes, words: str) -> None:
    assert words in refusal(data)


def test_a_surrogate_pair_is_one_character() -> None:
    assert strictjson.parse(b'"\\ud83d\\ude00 \\\\ud800"') == "\U0001f600 \\ud800"


@pytest.mark.parametrize("brackets", [("[", "]"), ('{"a":', "}")])
def test_sixty_four_levels_are_deep_enough(brackets: tuple[str, str]) -> None:
    opening, closing = brackets
    fits = opening * 64 + "1" + closing * 64
    assert strictjson.parse(fits.encode()) is not None
    assert "64 levels" in refusal(f"{opening * 65}1{closing * 65}".encode())


def test_brackets_within_strings_are_no_levels() -> None:
    assert strictjson.parse(json.dumps(["[" * 500, {'{"\\': "]}" * 500}]).encode())[0] == "[" * 500


@pytest.mark.parametrize(
    "unit",
    ["0", '"a,b[{"', "null", "[]", "{}", '{"k":0}', '{"k":{"k":{"k":[{"k":-1.5e3}]}}}', '["x",{"y":"z"}]'],
)
def test_exactly_twenty_thousand_values_pass_however_they_are_nested(unit: str) -> None:
    def values(value: Any) -> int:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return 1 + sum(map(values, inner))

    each = values(json.loads(unit))
    times, rest = divmod(strictjson.VALUES_MAX - 1, each)
    body = "[" + ",".join([unit] * times + ["7"] * rest) + "]"
    assert values(json.loads(body)) == strictjson.VALUES_MAX
    assert len(strictjson.parse(body.encode())) == times + rest
    assert "values" in refusal(f"{body[:-1]},7]".encode())


def test_values_without_commas_count_too() -> None:
    """Nesting adds values that no comma announces: 60 levels in each of 9,000 members are half a million."""
    body = b"[" + b",".join([b'{"a":' * 60 + b"0" + b"}" * 60] * 9_000) + b"]"
    assert "values" in refusal(body)


@pytest.mark.parametrize(
    "bomb",
    [
        b"[" * 1_000_000, b'{"a":' * 500_000, b'["' + b'\\"' * 1_000_000, b"[" * 65 + b'"' + b'\\"' * 1_000_000,
        b'"",' * 700_000, b'""' * 700_000 + b"[" * 65, b"0 " * 700_000 + b"[" * 65, b" " * 1_000_000 + b"[" * 65,
        b"]" * 1_000_000, b":" * 1_000_000 + b"[" * 65, b"9" * 1_000_000, b"-" * 1_000_000,
        b"[" + b"[]," * 500_000 + b"0]",
    ],
    ids=range(13),
)  # fmt: skip
def test_a_bomb_is_refused_without_anything_being_built_of_it(bomb: bytes) -> None:
    tracemalloc.start()
    try:
        refusal(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(bomb) + 1_000_000


def test_a_parser_near_the_end_of_its_stack_still_says_strict_error() -> None:
    """Whatever the depth of the caller, a body ends in a value or in StrictError; the stack belongs to us, not to it."""
    deep = b"[" * 64 + b"]" * 64

    def within(levels: int) -> Any:
        if levels:
            return within(levels - 1)
        try:
            return strictjson.parse(deep)
        except strictjson.StrictError as error:
            return error

    used = len(_frames())
    found = within(sys.getrecursionlimit() - used - 40)
    assert isinstance(found, list | strictjson.StrictError)


def _frames() -> list[Any]:
    frame, found = sys._getframe(), []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found


def test_the_message_quotes_nothing_of_the_body() -> None:
    for body in (b'{"hunter2":1,"hunter2":2}', b'{"a":hunter2}', b'"\\ud800 hunter2"', b"[hunter2"):
        assert "hunter2" not in refusal(body)


@pytest.mark.parametrize(
    ("keys", "told"),
    [(["mode", "other"], False), (["Mode"], True), (["mode", "MODE"], True), (["mоde"], False), (["ｍode"], True), ([], False)],
)  # fmt: skip
def test_a_key_that_only_some_readers_take_for_one_that_is_meant_is_disguised(
    keys: list[str], told: bool
) -> None:
    assert strictjson.disguised(keys, frozenset({"mode"})) is told
