# SPDX-License-Identifier: Apache-2.0
"""Globs and rules: the strings of a policy, and the matchers made of them once per snapshot.

Called by compile (which writes rules into a snapshot) and bind (which matches them against tool names, never per call).
Globs know `*` and nothing else. Allow and `include` match byte-exactly; Deny and `exclude` fold case (NFKC and Unicode
case folding), so that a look-alike can only ever lose rights (resources.md).
"""

from __future__ import annotations

import enum
import unicodedata
from collections.abc import Callable

import msgspec

from outrider import names


class Effect(enum.Enum):
    ALLOW = "Allow"
    DENY = "Deny"


class Key(enum.Enum):
    """Whose policy it is: the server's namespace, the caller's, or the platform's (which counts as both)."""

    PROVIDER = "Provider"
    CONSUMER = "Consumer"
    PLATFORM = "Platform"


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A rule that already matched the workload of its snapshot; only names are left to test.

    `enforced` is False for a policy in Audit mode: evaluated, recorded, never counted.
    """

    ref: names.RuleRef
    effect: Effect
    key: Key
    tools: tuple[str, ...]
    enforced: bool = True
    message: str = ""


Matcher = Callable[[str], bool]


def fold(text: str) -> str:
    """NFKC, then Unicode case folding, then NFKC again (folding can denormalise)."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def matches(glob: str, name: str) -> bool:
    """Byte-exact match of one glob: two pointers over the pattern, linear space, no regular expression."""
    if "*" not in glob:
        return glob == name
    if glob.strip("*") == "":
        return True
    first, *middle, last = glob.split("*")
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def exact(globs: tuple[str, ...]) -> Matcher:
    """The matcher of an Allow or an `include`: any of the globs, byte-exact."""
    return _matcher(globs)


def folded(globs: tuple[str, ...]) -> Matcher:
    """The matcher of a Deny or an `exclude`: any of the globs, case-folded on both sides."""
    plain = _matcher(tuple(fold(glob) for glob in globs))
    return lambda name: plain(fold(name))


def _matcher(globs: tuple[str, ...]) -> Matcher:
    literal = frozenset(glob for glob in globs if "*" not in glob)
    patterns = tuple(glob for glob in globs if "*" in glob)
    if not patterns:
        return literal.__contains__
    if any(glob.strip("*") == "" for glob in patterns):
        return lambda _name: True
    return lambda name: name in literal or any(matches(glob, name) for glob in patterns)
