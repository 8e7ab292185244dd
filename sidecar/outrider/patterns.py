# SPDX-License-Identifier: Apache-2.0
"""How large a regular expression of a schema is, before it is compiled or let at a long text.

Called by effort only. Reads just enough of the syntax to count; refuses to say whether a pattern is right.
"""

from __future__ import annotations

import re
from typing import Any, Final

STATES_MAX: Final = 50_000
"""The size of all patterns of a schema together, repetitions written out: compiling them takes about 25 ms at most."""

_VERBOSE = re.compile(r"\(\?[A-Za-z-]*x")


def states(pattern: Any) -> int:
    """How many states a pattern has, counted repetitions written out: what one character can cost at worst."""
    if not isinstance(pattern, str):
        return 0
    if _VERBOSE.search(pattern):
        return STATES_MAX + 1  # comments inside a pattern would have to be understood to count
    sums, last, at = [0], 0, 0
    while at < len(pattern):
        each, at = pattern[at], at + 1
        if each == "\\":
            sums[-1] += 1
            last, at = 1, at + 1
            if pattern[at - 1 : at + 1] in ("p{", "P{", "x{", "u{", "U{"):
                at = _after(pattern, "}", at)
        elif each == "[":
            at = _after_class(pattern, at)
            sums[-1] += 1
            last = 1
        elif each == "(":
            sums.append(0)
        elif each == ")" and len(sums) > 1:
            last = sums.pop()
            sums[-1] += last
        elif each == "{":
            end = _after(pattern, "}", at)
            counts = [
                int(text)
                for text in pattern[at : end - 1].split(",")
                if text.strip().isdigit() and len(text) < 10
            ]
            last, grown = last * max(*counts, 1, 1), last
            sums[-1] += last - grown
            at = end
        elif each in "*+?":
            sums[-1] += 1
        else:
            sums[-1] += 1
            last = 1
    return min(sum(sums), STATES_MAX + 1)


def _after(pattern: str, closing: str, at: int) -> int:
    found = pattern.find(closing, at)
    return len(pattern) if found < 0 else found + 1


def _after_class(pattern: str, at: int) -> int:
    """Behind the class whose bracket was just read; classes nest."""
    depth = 1
    if pattern[at : at + 1] == "^":
        at += 1
    if pattern[at : at + 1] == "]":
        at += 1
    while at < len(pattern) and depth:
        each = pattern[at]
        at += 2 if each == "\\" else 1
        depth += (each == "[") - (each == "]")
    return at
