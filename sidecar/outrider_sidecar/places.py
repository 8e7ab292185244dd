# SPDX-License-Identifier: Apache-2.0
"""Who may be connected when not everybody fits: the newcomer comes in, the oldest connection without a purpose goes.

Used by the door, which closes whom it is told to. First go strangers, connections that never had a request admitted, the
oldest first; then idle ones, the longest idle first. Refuses to name a connection that has a request under way: when all
have, the newcomer stays outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Guest(Protocol):
    """A connection, as far as its place goes."""

    @property
    def busy(self) -> bool:
        """True while a request is under way, or has arrived and is about to be."""


T = TypeVar("T", bound=Guest)


class Places(Generic[T]):
    """The connections of one door, at most `limit`; what one step costs does not grow with those that only wait."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._strangers: dict[T, None] = {}
        self._known: dict[T, None] = {}

    def __len__(self) -> int:
        return len(self._strangers) + len(self._known)

    def __iter__(self) -> Iterator[T]:
        """Those that are connected now, also when some leave meanwhile."""
        return iter((*self._strangers, *self._known))

    def enter(self, guest: T) -> tuple[bool, T | None]:
        """Whether there is a place for `guest`, and who has to go for it: no longer here, and to be closed."""
        leaving = None
        if len(self) >= self._limit:
            leaving = next(
                (each for held in (self._strangers, self._known) for each in held if not each.busy), None
            )
            if leaving is None:
                return False, None
            self.leave(leaving)
        self._strangers[guest] = None
        return True, leaving

    def admitted(self, guest: T) -> None:
        """A request of `guest` was let in."""
        self._seen(guest)

    def idle(self, guest: T) -> None:
        """The request of `guest` is over; one that never was let in remains the stranger it was."""
        if guest in self._known:
            self._seen(guest)

    def leave(self, guest: T) -> None:
        """The connection is gone. Safe to call again."""
        self._strangers.pop(guest, None)
        self._known.pop(guest, None)

    def _seen(self, guest: T) -> None:
        """Puts it last; one that has left meanwhile stays away."""
        if guest in self._strangers or guest in self._known:
            self.leave(guest)
            self._known[guest] = None
