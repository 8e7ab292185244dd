# SPDX-License-Identifier: Apache-2.0
"""bytes -> value, refusing whatever two parsers could read differently (security.md R7, R8).

Called by the proxy on every body an agent sends. One C scan with hooks does the work: duplicate keys are seen where
objects are made, numbers where they are read. Nesting and the number of values are measured before that scan, on the few
bodies whose brackets and commas say that they could be too much: nothing is built of what will be refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from outrider import rules

DEPTH_MAX = 64
VALUES_MAX = 20_000

_BOM = b"\xef\xbb\xbf"
_NUMBER_CHARACTERS_MAX = 64
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
# A string with the colon that makes it a key, a bracket, or a run of what can only be a number or a word. A string that
# never ends takes the rest, so that no text is read twice.
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"\s*+(:)?)?+|[\[\]{}]|[^\s\[\]{},:"]++', re.DOTALL)


class StrictError(ValueError):
    """The bytes are not one strict JSON text. The message quotes nothing of them."""


def parse(data: bytes) -> Any:
    """The value. Raises StrictError and nothing else.

    Refused: anything but UTF-8, a BOM, lone surrogates, NaN and infinities (as words or as 1e400), keys of one object
    that are equal when case is folded, more than DEPTH_MAX levels or VALUES_MAX values.
    """
    if data.startswith(_BOM):
        raise StrictError("a byte order mark is not allowed")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise StrictError("the body is not UTF-8") from None
    brackets = text.count("[") + text.count("{")
    # Every value but the outermost comes first behind a bracket or behind a comma, so this bounds their number.
    if brackets > DEPTH_MAX or brackets + text.count(",") >= VALUES_MAX:
        _measure(text)
    try:
        value = _DECODER.decode(text)
    except StrictError:
        raise
    except (ValueError, RecursionError) as error:
        raise StrictError(f"the body is not JSON: {_plain(error)}") from None
    if _SURROGATE.search(text) is not None:
        _no_lone_surrogates(value)
    return value


def disguised(keys: Iterable[str], meant: frozenset[str]) -> bool:
    """Whether a key differs in case alone from one that is meant: we would not read it, and some readers would (R7)."""
    folded = {rules.fold(each) for each in meant}
    return any(key not in meant and rules.fold(key) in folded for key in keys)


def _plain(error: Exception) -> str:
    return (
        f"{error.msg} at character {error.pos}"
        if isinstance(error, json.JSONDecodeError)
        else "nested too deeply"
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise StrictError("an object has the same key twice")
    if len(pairs) > 1 and len({_folded(key) for key in made}) != len(pairs):
        raise StrictError("an object has two keys that differ only in case")
    return made


def _folded(key: str) -> str:
    return key.lower() if key.isascii() else rules.fold(key)


def _integer(text: str) -> int:
    if len(text) > _NUMBER_CHARACTERS_MAX:
        raise StrictError("a number is too long")
    return int(text)


def _real(text: str) -> float:
    if len(text) > _NUMBER_CHARACTERS_MAX:
        raise StrictError("a number is too long")
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise StrictError("a number is too large")
    return number


def _constant(_text: str) -> Any:
    raise StrictError("NaN and Infinity are not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_real, parse_constant=_constant
)


def _measure(text: str) -> None:
    """Nesting and values, token by token, before anything recurses or is built; stops at the first that is too much."""
    depth = values = keys = 0
    for token in _TOKEN.finditer(text):
        first = text[token.start()]
        if first in "]}":
            depth -= 1
            if depth < 0:
                return  # not JSON, as the decoder will say
            continue
        if first in "[{":
            depth += 1
            if depth > DEPTH_MAX:
                raise StrictError(f"nested deeper than {DEPTH_MAX} levels")
        if token[1] is not None:
            keys += 1
        else:
            values += 1
        if values > VALUES_MAX or keys > VALUES_MAX:
            raise StrictError(f"more than {VALUES_MAX} values")


def _walk(value: Any) -> Any:
    """Every value and key of a tree, without recursion."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        yield each
        if isinstance(each, dict):
            yield from each
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)


def _no_lone_surrogates(value: Any) -> None:
    for each in _walk(value):
        if isinstance(each, str) and not each.isascii():
            try:
                each.encode()
            except UnicodeEncodeError:
                raise StrictError("a string has half of a surrogate pair") from None
