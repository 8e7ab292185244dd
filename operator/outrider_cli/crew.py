# SPDX-License-Identifier: Apache-2.0
"""Keeps the processes of `outrider dev` running: a dead one is started again, a little later each time.

Called by running. While dev starts, a death is final; afterwards what is left keeps serving until the dead one is back.
Refuses to go on for ever: what dies too often ends the run, with the last lines of its log.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from outrider_cli import children, folder, output, tether

RESTARTS_MAX = 5
WINDOW_SECONDS = 60.0
"""One process is started again at most RESTARTS_MAX times in WINDOW_SECONDS."""
BACKOFF_SECONDS = 0.2
"""Before the first restart of a window; twice as long before each further one."""


@dataclasses.dataclass(slots=True)
class Member:
    """A process that is kept: `line` starts it (change it when a restart needs another one), `without` says what its absence
    means, in a sentence. `with_child`: it is a bridge, which ends when the server it runs as its child ends.
    """

    name: str
    line: Sequence[str]
    without: str
    env: Mapping[str, str] | None = None
    with_child: bool = False
    child: children.Child | None = None
    deaths: list[float] = dataclasses.field(default_factory=list)
    due: float | None = None


class Crew:
    """The processes of one run, in one folder."""

    def __init__(self, home: folder.Folder) -> None:
        self._home = home
        self._members: list[Member] = []

    def start(self, member: Member) -> Member:
        """Starts it and keeps it from then on; the latest are told first to stop."""
        self._launch(member)
        self._members.insert(0, member)
        return member

    def check(self) -> None:
        """Raises Stop when any of them has ended."""
        for member in self._members:
            code = self._code(member)
            if code is not None:
                raise _gone(member, f"{member.name} ended with code {code}")

    def tend(self, now: float) -> list[str]:
        """Starts again what has ended and whose time has come; what to say about it. `now` in seconds, monotonic.

        Raises Stop when one of them died too often.
        """
        said = []
        for member in self._members:
            if member.due is not None:
                if now >= member.due:
                    member.due = None
                    self._launch(member, again=True)
                    said.append(f"{member.name}: started again.")
                continue
            code = self._code(member)
            if code is not None:
                said.append(self._bury(member, code, now))
        return said

    def tails(self) -> str:
        """The last lines of every log."""
        return "\n".join(filter(None, (member.child.tail() for member in self._members if member.child)))

    def close(self) -> None:
        """Ends every process, each waited for."""
        children.stop([member.child for member in self._members if member.child])

    def _launch(self, member: Member, *, again: bool = False) -> None:
        line = [tether.WITH_CHILD, *member.line] if member.with_child else member.line
        logs = self._home.state / "logs"
        member.child = children.start(
            member.name, line, logs=logs, cwd=self._home.path, env=member.env, again=again
        )

    def _code(self, member: Member) -> int | None:
        return member.child.ended() if member.child else None

    def _bury(self, member: Member, code: int, now: float) -> str:
        member.deaths = [when for when in member.deaths if now - when < WINDOW_SECONDS]
        lost = member.with_child and code == tether.CHILD_LOST
        what = "the server behind it ended" if lost else f"ended with code {code}"
        if len(member.deaths) >= RESTARTS_MAX:
            often = f"{RESTARTS_MAX} restarts in {WINDOW_SECONDS:.0f} s did not help"
            raise _gone(member, f"{member.name} {'is gone: ' if lost else ''}{what}, and {often}")
        delay = BACKOFF_SECONDS * 2 ** len(member.deaths)
        member.deaths.append(now)
        member.due = now + delay
        return (
            f"{member.name}: {what}. {member.without} Starting it again in {delay:.1f} s"
            f" ({len(member.deaths)} of at most {RESTARTS_MAX} restarts a minute). Its log: {member.child and member.child.log}"
        )


def _gone(member: Member, what: str) -> output.Stop:
    assert member.child is not None
    output.progress(member.child.tail())
    return output.Stop(
        output.UNREACHABLE, what, why="its last lines are above", then=f"read {member.child.log}"
    )
