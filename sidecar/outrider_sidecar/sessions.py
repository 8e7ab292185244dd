# SPDX-License-Identifier: Apache-2.0
"""Sessions of handshake-era agents: ids that carry their own state under a seal, so that a restart forgets none.

Called by agents. A 404 on a session breaks every official client for good, so an id must outlive the process: it
is state plus an HMAC under a key in the state folder (protocol.md rule 9). An id of another principal or endpoint, or one
that is too old or altered, looks unknown (R18).
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import msgspec

from outrider_sidecar import seals

AGE_SECONDS_MAX = 24 * 3600.0
ENDED_MAX = 10_000
"""DELETEd sessions that are remembered as dead; kept in memory, so a restart forgives them."""

_PURPOSE = b"outrider session 1\0"
ID_CHARACTERS_MAX = 1024


class State(msgspec.Struct, frozen=True, array_like=True):
    """`endpoint` is the path it was made on, `created` epoch seconds, `nonce` what tells equal sessions apart.

    `capabilities` are what the client declared, as `agents` keeps it: small, because the id carries it.
    """

    version: str
    principal: str
    endpoint: str
    created: float
    nonce: bytes
    capabilities: dict[str, Any] = {}


class Sealer:
    """`key` is 32 bytes that outlive the process; `entropy(n)` gives n random bytes; `wall` epoch seconds."""

    def __init__(self, key: bytes, *, entropy: Callable[[int], bytes], wall: Callable[[], float]) -> None:
        self._seal = seals.Seal(key, _PURPOSE)
        self._entropy = entropy
        self._wall = wall
        self._ended: collections.OrderedDict[bytes, None] = collections.OrderedDict()

    def open(
        self, *, version: str, principal: str, endpoint: str, capabilities: dict[str, Any] | None = None
    ) -> tuple[str, State]:
        """A new session: its id, which is visible ASCII, and what it carries."""
        state = State(version, principal, endpoint, self._wall(), self._entropy(16), capabilities or {})
        body = msgspec.msgpack.encode(state)
        return self._seal.close(body), state

    def read(self, text: str, *, principal: str, endpoint: str) -> State | None:
        """The session behind an id, None when it is not a live one of this principal on this endpoint."""
        body = self._seal.open(text, characters_max=ID_CHARACTERS_MAX)
        if body is None:
            return None
        try:
            state = msgspec.msgpack.decode(body, type=State)
        except msgspec.DecodeError:
            return None
        fits = state.principal == principal and state.endpoint == endpoint and state.nonce not in self._ended
        return state if fits and 0 <= self._wall() - state.created + 60 <= AGE_SECONDS_MAX + 60 else None

    def end(self, nonce: bytes) -> None:
        """The agent is done with the session of this nonce."""
        self._ended[nonce] = None
        while len(self._ended) > ENDED_MAX:
            self._ended.popitem(last=False)
