# SPDX-License-Identifier: Apache-2.0
"""What a definition is called by: one digest that changes with anything a model or a client could notice.

Called by the prober (the catalogue's fingerprints), by sidecars (what they are shown) and by the operator (whether both are the
same). SHA-256 over RFC 8785 canonical JSON of the whole definition less `execution`, so that neither the order of members nor
the way a number is written makes another one. Refuses nothing: what canonical JSON cannot express is digested as the bytes it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

_NOT_PART = "execution"
"""How a tool likes to be called, not what it is (resources.md)."""

_EXACT_CHARACTERS = 15
"""Integers of so many digits are the same as doubles."""

_FIXED_DIGITS_MAX = 21
_FIXED_ZEROS_MAX = 6


class _NotCanonical(ValueError):
    """Not I-JSON: a member twice, or a number no double can hold."""


def of(raw: bytes) -> str:
    """`sha256:` and 64 hex digits, of a tool's definition as its server wrote it.

    A definition with a member twice, a number beyond doubles or a lone surrogate has no canonical form, and two parsers may read
    it differently: its fingerprint is that of its bytes, so that whatever changes in it changes the fingerprint.
    """
    try:
        made = json.loads(raw, object_pairs_hook=_members, parse_int=_integer, parse_constant=_refused)
        if isinstance(made, dict):
            made.pop(_NOT_PART, None)
        digested = canonical(made).encode()
    except (ValueError, RecursionError):
        digested = raw
    return f"sha256:{hashlib.sha256(digested).hexdigest()}"


def of_text(text: str) -> str:
    """The same of a text, such as a server's instructions."""
    return of(json.dumps(text).encode())


def digest(tools: Iterable[tuple[str, str]]) -> str:
    """What a whole list of (name, fingerprint) is called by, in whichever order its server told it: 64 hex digits."""
    made = hashlib.sha256()
    for name, fingerprint in sorted(tools):
        made.update(f"{name}\0{fingerprint}\n".encode())
    return made.hexdigest()


def canonical(value: Any) -> str:
    """A value of JSON in its one form of RFC 8785. Raises ValueError for a number that is not finite."""
    if isinstance(value, dict):
        members = sorted(value.items(), key=_code_units)
        return f"{{{','.join(f'{_text(name)}:{canonical(inner)}' for name, inner in members)}}}"
    if isinstance(value, list):
        return f"[{','.join(map(canonical, value))}]"
    if isinstance(value, str):
        return _text(value)
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    return _number(float(value)) if isinstance(value, float) else str(value)


_text = json.JSONEncoder(ensure_ascii=False).encode
"""A string as ECMAScript's JSON.stringify writes it: short escapes, lower-case \\u00xx for the other controls."""


def _code_units(member: tuple[str, Any]) -> bytes:
    """RFC 8785 3.2.3: names are in the order of their UTF-16 code units."""
    return member[0].encode("utf-16-be")


def _number(value: float) -> str:
    """A double as ECMAScript's Number.prototype.toString writes it (RFC 8785 3.2.2.3)."""
    if value == 0:
        return "0"
    mantissa, _, exponent = repr(abs(value)).partition("e")
    if not mantissa[0].isdigit():
        raise _NotCanonical("the number is not finite")
    whole, _, rest = mantissa.partition(".")
    rest = "" if rest == "0" else rest
    point = len(whole) + int(exponent or 0)
    digits = f"{whole}{rest}".lstrip("0")
    point -= len(whole) + len(rest) - len(digits)
    digits = digits.rstrip("0")
    sign, count = "-" if value < 0 else "", len(digits)
    if count <= point <= _FIXED_DIGITS_MAX:
        return f"{sign}{digits}{'0' * (point - count)}"
    if 0 < point <= _FIXED_DIGITS_MAX:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -_FIXED_ZEROS_MAX < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if count > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{point - 1:+d}"


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _NotCanonical("a member stands twice")
    return made


def _integer(text: str) -> int | float:
    return int(text) if len(text) <= _EXACT_CHARACTERS else float(text)


def _refused(text: str) -> float:
    raise _NotCanonical(f"{text} is not JSON")
