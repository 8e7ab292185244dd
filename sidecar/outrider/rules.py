# SPDX-License-Identifier: Apache-2.0
"""Globs and rules: the strings of a policy, and the matchers made of them once per snapshot.

Called by compile (which writes rules into a snapshot) and targets (which matches them against names, never per call).
Globs know `*` and nothing else. Allow and `include` match byte-exactly; Deny and `exclude` fold case (NFKC and Unicode
case folding), so that a look-alike can only ever lose rights (resources.md).
"""

from __future__ import annotations

import enum
import unicodedata
from collections.abc import Callable

import msgspec

from outrider import call, identity, names


class Effect(enum.Enum):
    ALLOW = "Allow"
    DENY = "Deny"


class Key(enum.Enum):
    """Whose policy it is: the server's namespace, the caller's, or the platform's (which counts as both)."""

    PROVIDER = "Provider"
    CONSUMER = "Consumer"
    PLATFORM = "Platform"


class UserTest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What one entry of a `from`, whose workload fields matched already, says about the user. Fields are AND; () says nothing.

    `users`, `groups` and `clients` are exact `provider:value`. `teams` are the groups of the entry's teams; `teams_alone` is what
    they say when there is no user: an Allow's team is satisfied by its workload, a Deny's team that the workload is not in is not.
    """

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    teams: tuple[str, ...] = ()
    teams_alone: bool = True

    def matches(self, user: identity.User | None) -> bool | None:
        """None: it cannot be said without a user (resources.md, "Unknown is never lenient")."""
        if user is None:
            if self.teams and not self.teams_alone:
                return False
            return None if self.users or self.groups or self.clients else True
        if self.users and user.names.isdisjoint(self.users):
            return False
        if self.groups and user.groups.isdisjoint(self.groups):
            return False
        if self.clients and user.client not in self.clients:
            return False
        return not self.teams or not user.groups.isdisjoint(self.teams)


Callers = tuple[UserTest, ...]
"""Entries are alternatives; () says nothing about users, so it matches with or without one."""


def admits(callers: Callers, user: identity.User | None) -> bool | None:
    """Whether any entry matches; None when none does for certain and one might."""
    if not callers:
        return True
    found = [test.matches(user) for test in callers]
    return True if True in found else None if None in found else False


def in_words(callers: Callers) -> str:
    """Which users are meant, for people; "" for what says nothing about users."""
    return "; or ".join(_test_in_words(test) for test in callers)


def _test_in_words(test: UserTest) -> str:
    parts = (
        ("", test.users),
        ("in group ", test.groups),
        ("through client ", test.clients),
        ("of a team by group " if test.teams_alone else "of a team, by group alone, ", test.teams),
    )
    said = [f"{word}{' or '.join(named)}" for word, named in parts if named]
    return " and ".join(said) or "anybody"


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A rule that already matched the workload of its snapshot; only names, and its `callers`' users, are left to test.

    No globs of a kind: it says nothing about that kind. `enforced` is False for a policy in Audit mode: evaluated, recorded,
    never counted.
    """

    ref: names.RuleRef
    effect: Effect
    key: Key
    tools: tuple[str, ...]
    prompts: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    enforced: bool = True
    message: str = ""
    callers: Callers = ()

    def globs(self, kind: call.Kind) -> tuple[str, ...]:
        """What it says about one kind; empty for nothing."""
        if kind is call.Kind.TOOL:
            return self.tools
        return self.prompts if kind is call.Kind.PROMPT else self.resources


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


def is_all(glob: str) -> bool:
    """Whether it matches every name."""
    return glob.strip("*") == "" and glob != ""


def meet(one: str, other: str) -> bool:
    """Whether some name matches both globs, byte-exactly."""
    # Which of the places in `other` can be reached when so much of `one` has been read; two rows of len(other) + 1.
    row = [True]
    for mark in other:
        row.append(row[-1] and mark == "*")
    for mine in one:
        fresh = [row[0] and mine == "*"]
        for at, theirs in enumerate(other):
            if mine == "*":
                fresh.append(row[at + 1] or fresh[at])
            elif theirs == "*":
                fresh.append(fresh[at] or row[at + 1])
            else:
                fresh.append(row[at] and mine == theirs)
        row = fresh
    return row[-1]


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
