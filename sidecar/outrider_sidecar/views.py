# SPDX-License-Identifier: Apache-2.0
"""Whether a list shows something else than before: to the agent that watches it, not at the server.

Used by `audience`, so that an agent hears of a change when what it may see has changed, whoever changed it: a server, or a
policy of ours. What it may not see changes without its knowledge. Pure; nothing is kept of lists that nobody watches.
"""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Iterable, Iterator

from outrider import bind, call, decide, identity, names

Place = tuple[names.ServerId | None, call.Kind]
"""The list of a kind at an endpoint; None is the merged one."""


def shown(bound: bind.Bound, place: Place, user: identity.User | None = None) -> bytes | None:
    """A digest of what a list shows to a user; None while what it will show is not known, because a server was not asked yet."""
    server, kind = place
    chosen = (
        bound.servers.values()
        if server is None
        else [bound.servers[server]]
        if server in bound.servers
        else []
    )
    if not any(held.observed(kind) or not decide.asked(held, kind) for held in chosen) and chosen:
        return None
    made = hashlib.sha256()
    for target in _listed(bound, place, user):
        raw = b"" if target.definition is None else target.definition.raw
        for part in (target.exposed.encode(), raw):
            made.update(b"%d:" % len(part) + part)
    return made.digest()


def _listed(bound: bind.Bound, place: Place, user: identity.User | None) -> Iterator[bind.Target]:
    server, kind = place
    yield from decide.listed(bound, server, kind, user)
    if kind is call.Kind.RESOURCE:
        yield from decide.templates(bound, server, user)


class Views:
    """The lists that somebody watches as one user, or as nobody, and what each showed when it was last looked at."""

    def __init__(self, user: identity.User | None = None) -> None:
        self._user = user
        self._watchers: collections.Counter[Place] = collections.Counter()
        self._shown: dict[Place, bytes | None] = {}

    def __len__(self) -> int:
        return len(self._watchers)

    def watch(self, bound: bind.Bound, places: Iterable[Place]) -> None:
        """Somebody more watches these; what they show now is what he knows."""
        for place in places:
            self._watchers[place] += 1
            if place not in self._shown:
                self._shown[place] = shown(bound, place, self._user)

    def leave(self, places: Iterable[Place]) -> None:
        """One watcher less."""
        for place in places:
            self._watchers[place] -= 1
            if self._watchers[place] <= 0:
                del self._watchers[place]
                self._shown.pop(place, None)

    def changed(self, bound: bind.Bound) -> set[Place]:
        """Which of them show something else than when this was last asked."""
        found = set()
        for place in self._watchers:
            before, after = self._shown[place], shown(bound, place, self._user)
            if after is None or after == before:
                continue
            self._shown[place] = after
            if before is not None:  # a list that is seen for the first time has not changed
                found.add(place)
        return found
