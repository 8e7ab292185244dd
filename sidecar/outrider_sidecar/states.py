# SPDX-License-Identifier: Apache-2.0
"""requestState of the stateless era: the server's own, inside a seal that says whose call it goes on with (rule 10).

Called when a server asks for input (`seal`) and when the agent comes back with it (`opened`, `origin`, `spend`). A state is good for one
more round of the same call: same server, name and arguments, same workload and user, within ten minutes, once. Anything else looks
unknown (R18). Sealed and not encrypted, as sessions are and for the same reasons (decision 0004): a server shows its state
to the client anyhow, and what stands beside it here is no secret of anybody's.
"""

from __future__ import annotations

import collections
import hashlib
import hmac
from collections.abc import Callable

import msgspec

from outrider import call, identity
from outrider_sidecar import seals

ROUNDS_MAX = 5
"""How often a server may ask within one call (R22)."""

AGE_SECONDS_MAX = 600.0
"""How long people may take to answer."""

STATE_BYTES_MAX = 65_536
"""Of a server's own state, as UTF-8."""

SPENT_MAX = 10_000
"""Spent states that are remembered; what was made before the oldest forgotten one is not free any more."""

TEXT_CHARACTERS_MAX = 4 * (STATE_BYTES_MAX + 16_384) // 3
_PURPOSE = b"outrider request state 1\0"
_CLOCK_SECONDS = 60.0


class State(msgspec.Struct, frozen=True, array_like=True):
    """`upstream` is the server's own state, None when it gave none; `round` the number of the ask, from 1.

    `first` is the request that the call began with, where all of it was charged; `made` is in epoch seconds.
    """

    upstream: str | None
    server: str
    kind: str
    name: str
    digest: bytes
    principal: str
    round: int
    first: str
    made: float
    nonce: bytes


def principal(workload: identity.Workload | None, user: identity.User | None) -> str:
    """Whose a state is: nobody else's looks known, nor that of the same workload for another user, or for none."""
    return str(workload) if user is None else f"{workload}\0{user.id}"


class States:
    """`key` is 32 bytes that outlive the process; `entropy(n)` gives n random bytes; `wall` epoch seconds."""

    def __init__(self, key: bytes, *, entropy: Callable[[int], bytes], wall: Callable[[], float]) -> None:
        self._seal = seals.Seal(key, _PURPOSE)
        self._entropy = entropy
        self._wall = wall
        self._spent: collections.OrderedDict[bytes, float] = collections.OrderedDict()
        self._since = wall()

    def seal(
        self, subject: call.Call, *, principal: str, upstream: str | None, after: State | None, request: str
    ) -> str | None:
        """The state an agent gets with an ask; `after` is the one it came with, `request` our id of the call it asks in.

        None when there may be no further round, or the server's state is too large to carry.
        """
        number = 1 if after is None else after.round + 1
        if number > ROUNDS_MAX or (upstream is not None and len(upstream.encode()) > STATE_BYTES_MAX):
            return None
        state = State(
            upstream=upstream,
            server=str(subject.server),
            kind=subject.kind.value,
            name=subject.name,
            digest=_digest(subject),
            principal=principal,
            round=number,
            first=request if after is None else after.first,
            made=self._wall(),
            nonce=self._entropy(16),
        )
        body = msgspec.msgpack.encode(state)
        return self._seal.close(body)

    def opened(self, text: object, subject: call.Call, *, principal: str) -> State | None:
        """What an agent came back with, None when it is not an unspent state of this very call. Spends nothing."""
        state = self._read(text) if isinstance(text, str) else None
        if state is None:
            return None
        of_this_call = (
            state.principal == principal
            and (state.server, state.kind, state.name)
            == (str(subject.server), subject.kind.value, subject.name)
            and hmac.compare_digest(state.digest, _digest(subject))
        )
        age = self._wall() - state.made
        alive = -_CLOCK_SECONDS <= age <= AGE_SECONDS_MAX and 1 <= state.round <= ROUNDS_MAX
        return state if of_this_call and alive and state.nonce not in self._spent else None

    def origin(self, state: State) -> str:
        """The request where this call was charged; "" when nobody can say that the state is unspent, so that it is charged again.

        That is so for states made before this process, or before the oldest spent one that is still remembered.
        """
        return state.first if state.made > self._since else ""

    def spend(self, state: State) -> None:
        """The round goes ahead: the state is used up."""
        self._spent[state.nonce] = state.made
        while len(self._spent) > SPENT_MAX:
            _, made = self._spent.popitem(last=False)
            self._since = max(self._since, made)

    def _read(self, text: str) -> State | None:
        body = self._seal.open(text, characters_max=TEXT_CHARACTERS_MAX)
        if body is None:
            return None
        try:
            return msgspec.msgpack.decode(body, type=State)
        except msgspec.DecodeError:
            return None


_CANONICAL = msgspec.json.Encoder(order="deterministic")


def _digest(subject: call.Call) -> bytes:
    """Of the arguments, whatever order an agent writes their members in; none and an empty object are the same."""
    return hashlib.sha256(_CANONICAL.encode(subject.arguments or {})).digest()
