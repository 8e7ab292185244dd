# SPDX-License-Identifier: Apache-2.0
"""An answer to a legacy agent that may come in several streams, when the server's does: closed to be polled, taken up by GET.

Made by calls for agents of 2025-11-25 with a session, in place of a plain `streams.Outgoing`, and one until the server primes its
stream (an event with an id and no data). From then on our events have ids too; when the server closes its stream to be polled, so
do we, the call goes on, and what comes meanwhile waits for the agent (SEP-1699). Ids are unguessable and bound to the session
and to the user of the call: anybody else's look unknown (R18). What waits is bounded, and forgotten a while after the answer.
"""

from __future__ import annotations

from collections.abc import Callable

from outrider import identity
from outrider_sidecar import agents, exchange, ids, streams

ANSWERS_MAX = 1_000
"""Answers that can be taken up; those on top come in one stream, as before a server polls."""

WAITING_BYTES_MAX = 67_108_864
"""What waits of all answers together; then the oldest of them waits no longer."""

KEPT_SECONDS = 60.0
"""How long an answer waits for an agent that does not take it up."""

_ANYWAY = streams.Accepted(json=False, sse=True)


class Answers:
    """Every answer that can be taken up. `identifiers` make what nobody can guess."""

    def __init__(self, identifiers: ids.Ids, call_later: streams.CallLater) -> None:
        self.call_later = call_later
        self._ids = identifiers
        self._open: dict[str, Resumable] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._open)

    def add(self, answer: Resumable) -> str:
        """Its token; "" when there are too many already."""
        if len(self._open) >= ANSWERS_MAX:
            return ""
        token = self._ids.next()
        self._open[token] = answer
        return token

    def forget(self, token: str) -> None:
        self._open.pop(token, None)

    def weigh(self, size: int) -> None:
        """So many bytes more wait, or fewer. Makes room by what was begun first."""
        self._bytes += size
        while self._bytes > WAITING_BYTES_MAX:
            oldest = next((each for each in self._open.values() if each.waiting), None)
            if oldest is None:
                return
            oldest.forget()

    def take_up(
        self, agent: agents.Agent, last: str, reply: exchange.Reply, *, user: identity.User | None = None
    ) -> bool:
        """Goes on with an answer behind its event `last`; False when there is none of this agent's for this user."""
        token, _, number = last.partition(".")
        answer = self._open.get(token)
        if answer is None or answer.agent is not agent or not number.isdigit() or len(number) > 9:
            return False
        if answer.user_id != _id(user):
            return False
        answer.take_up(reply, int(number))
        return True

    def end(self, agent: agents.Agent) -> None:
        """Its session is over: nobody will come."""
        for answer in [each for each in self._open.values() if each.agent is agent]:
            answer.forget()


class Resumable:
    """As `streams.Outgoing`."""

    __slots__ = (
        "_away",
        "_bytes",
        "_flight",
        "_forgotten",
        "_gone",
        "_last",
        "_number",
        "_out",
        "_store",
        "_timer",
        "_token",
        "_waiting",
        "agent",
        "user_id",
    )

    def __init__(  # noqa: PLR0913 -- made by calls alone
        self,
        reply: exchange.Reply,
        store: Answers,
        agent: agents.Agent,
        *,
        accepts: streams.Accepted,
        keep_json: bool = False,
        user: identity.User | None = None,
    ) -> None:
        self.agent = agent
        self.user_id = _id(user)
        self._store = store
        self._out = streams.Outgoing(reply, accepts=accepts, call_later=store.call_later, keep_json=keep_json)
        self._out.on_gone(self._lost)
        self._flight: exchange.Flight | None = None
        self._gone: list[Callable[[], None]] = []
        self._token = ""
        self._number = 0
        self._waiting: list[tuple[int, bytes]] = []
        self._bytes = 0
        self._away = self._last = self._forgotten = False
        self._timer: streams.Timer | None = None

    @property
    def streaming(self) -> bool:
        return bool(self._token) or self._out.streaming

    @property
    def waiting(self) -> bool:
        """Something waits for the agent to take it up."""
        return bool(self._waiting)

    @property
    def ended(self) -> bool:
        return self._last if self._token else self._out.ended

    @property
    def mute(self) -> bool:
        return self._last if self._token else self._out.mute

    def on_gone(self, then: Callable[[], None]) -> None:
        """As of a plain one; who may come back has not gone."""
        self._gone.append(then)

    def feeding(self, flight: exchange.Flight) -> None:
        self._flight = flight
        self._out.feeding(flight)

    def notify(self, message: bytes) -> bool:
        return self._out.notify(message) if not self._token else self._say(message)

    def answer(self, body: bytes, *, status: int = 200) -> None:
        """The answer, now or when it is asked for."""
        if not self._token:
            self._out.answer(body, status=status)
        elif not self._last:
            self._say(body, last=True)

    def abort(self) -> None:
        self._out.abort()
        self.forget()

    # Instalments --------------------------------------------------------------------------------------------------------

    def prime(self, retry: float | None) -> None:
        """The server's stream can be taken up again, so ours can; only before anything else was said on it."""
        if self._token or self._out.mute or self._out.streaming:
            return
        self._token = self._store.add(self)
        if self._token:
            self._out.frame(b"id: %b.0\n%bdata: \n\n" % (self._token.encode(), _retry(retry)))

    def pause(self, retry: float | None) -> None:
        """The server closed its stream to be polled: the agent may do the same."""
        if self._token and not self._away and not self._last:
            self._away = True
            self._out.last(_retry(retry) + b"\n")

    def take_up(self, reply: exchange.Reply, after: int) -> None:
        """The agent has come for the rest."""
        before, self._away = self._out, False
        self._out = streams.Outgoing(reply, accepts=_ANYWAY, call_later=self._store.call_later)
        self._out.on_gone(self._lost)
        if self._flight is not None:
            self._out.feeding(self._flight)
        if not before.ended:
            before.last(b"\n")  # the newest stream wins
        self._out.frame(b"id: %b.%d\ndata: \n\n" % (self._token.encode(), after))  # as it began
        waiting = self._waiting
        self._drop()
        for number, frame in waiting:
            if number > after:
                self._write(frame, last=self._last and number == self._number)
        if self._last and (not waiting or waiting[-1][0] <= after):
            self._out.last(b"\n")
            self.forget()

    def forget(self) -> None:
        """Nobody can take it up any more."""
        self._forgotten = True
        self._store.forget(self._token)
        self._drop()
        if self._timer is not None:
            self._timer.cancel()

    def _say(self, message: bytes, *, last: bool = False) -> bool:
        if self._last:
            return True
        self._last = last
        self._number += 1
        frame = b"id: %b.%d\n%b" % (self._token.encode(), self._number, streams.encode_event(message))
        if not self._away and not self._out.ended:
            return self._write(frame, last=last)
        if self._forgotten:
            return True
        before = self._bytes
        self._waiting.append((self._number, frame))
        self._bytes += len(frame)
        while len(self._waiting) > streams.FRAMES_MAX or (
            self._bytes > streams.FRAME_BYTES_MAX and len(self._waiting) > 1
        ):
            self._bytes -= len(self._waiting.pop(0)[1])  # the answer, which comes last, is kept
        if last:
            self._timer = self._store.call_later(KEPT_SECONDS, self.forget)
        self._store.weigh(self._bytes - before)
        return True

    def _drop(self) -> None:
        """Nothing waits any more."""
        size, self._waiting, self._bytes = self._bytes, [], 0
        self._store.weigh(-size)

    def _write(self, frame: bytes, *, last: bool) -> bool:
        if not last:
            return self._out.frame(frame)
        self._out.last(frame)
        self.forget()
        return True

    def _lost(self) -> None:
        """The connection broke. Who was given an id may come back; anybody else has gone."""
        if self._token and not self._last:
            self._away = True
            if self._flight is not None:
                self._flight.resume()  # it may have been paused for a reader that is not there any more
        elif not self._token:
            told, self._gone = self._gone, []
            for then in told:
                then()


Out = streams.Outgoing | Resumable
"""Whatever an answer goes out by."""


def _id(user: identity.User | None) -> str | None:
    return None if user is None else user.id


def _retry(seconds: float | None) -> bytes:
    return b"" if seconds is None else b"retry: %d\n" % round(seconds * 1000)
