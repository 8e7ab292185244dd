# SPDX-License-Identifier: Apache-2.0
"""A finding of `outrider doctor`: one line that says what, why, and the next command. And the way a list of checks is gone through.

Called by doctor and its checks. A check is a function that looks at one thing and yields what it found. Refuses to call well what
could not be looked at.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Iterator, Sequence

from outrider_cli import kubectl


class Level(enum.Enum):
    OK = "ok"
    NOTE = "note"
    """Worth knowing; nothing is broken by it."""
    UNSEEN = "unseen"
    """Could not be looked at, mostly for lack of rights."""
    BAD = "bad"


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """`check` is the name of what was looked at, "" for that of the check that found it; `then` is a command or an edit."""

    level: Level
    check: str
    what: str
    why: str = ""
    then: str = ""

    def line(self) -> str:
        """One line for people."""
        text = f"{self.what}: {self.why}" if self.why else self.what
        return f"{text.rstrip('.')}. Next: {self.then}" if self.then else text


Check = Callable[[kubectl.Kubectl], Iterator[Finding]]


def gone_through(kube: kubectl.Kubectl, checks: Sequence[tuple[str, Check]]) -> Iterator[Finding]:
    """Every check in its order. Raises Failed only when the API server does not answer: then nothing else would either."""
    for name, check in checks:
        try:
            yield from (dataclasses.replace(found, check=found.check or name) for found in check(kube))
        except kubectl.Failed as failed:
            if failed.kind in (kubectl.Kind.UNREACHABLE, kubectl.Kind.UNAUTHORIZED):
                raise
            yield Finding(Level.UNSEEN, name, failed.what, failed.why, failed.then)


def ok(what: str) -> Finding:
    return Finding(Level.OK, "", what)


def note(what: str, why: str = "", *, then: str = "") -> Finding:
    return Finding(Level.NOTE, "", what, why, then)


def bad(what: str, why: str = "", *, then: str) -> Finding:
    return Finding(Level.BAD, "", what, why, then)


def several(names: Iterable[str], most: int = 5) -> str:
    """The first few names, and how many there are besides."""
    listed = sorted(names)
    more = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {more} more" if more > 0 else "")


def counted(number: int, one: str, more: str) -> str:
    """`1 pod is`, `2 pods are`."""
    return f"{number} {one} is" if number == 1 else f"{number} {more} are"
