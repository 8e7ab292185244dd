# SPDX-License-Identifier: Apache-2.0
"""Governed requests: decided, once more if something had to be fetched, then an attempt; and those under way.

Called by the pipeline for every method in `governed`. Every refusal leaves through `refusals`, so that it is recorded and
counted like a call. No policy is written here.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from outrider import bind, call, decide, decision, mirrors, names
from outrider_sidecar import (
    agents,
    answers,
    attempt,
    conventions,
    crossing,
    endings,
    governed,
    interviews,
    jsonrpc,
    lists,
    orders,
    refusals,
    resuming,
    states,
    streams,
    visits,
)
from outrider_sidecar import current as in_force

_R = decision.Reason
_NOWHERE = names.ServerId("", "")

_POLLED_SINCE = "2025-11-25"
"""The first revision whose clients can bear a stream that is closed to be polled."""

_NEEDS_MAX = 2
"""How often a call may wait for something and be decided again: definitions once, after a swap once more."""


class Calls:
    """`calls_max` in flight; what comes on top is refused as Overloaded."""

    def __init__(  # noqa: PLR0913 -- wired in one place
        self, parts: orders.Parts, desk: refusals.Desk, current: in_force.Current, catalogue: lists.Lists,
        host: interviews.Host, *, call_later: streams.CallLater, calls_max: int,
    ) -> None:  # fmt: skip
        self._parts = parts
        self._desk = desk
        self._current = current
        self._catalogue = catalogue
        self._host = host
        self._call_later = call_later
        self.answers = resuming.Answers(desk.ids, call_later)
        self._calls_max = calls_max
        self._under_way: dict[tuple[str, jsonrpc.Id], attempt.Attempt] = {}
        self._anonymous: set[attempt.Attempt] = set()

    def __len__(self) -> int:
        return len(self._under_way) + len(self._anonymous)

    @property
    def streaming(self) -> int:
        """Answers that are open as event streams now."""
        return sum(each.streaming for each in self._all())

    def _all(self) -> Iterator[attempt.Attempt]:
        yield from self._under_way.values()
        yield from self._anonymous

    def cancel(self, agent: agents.Agent, id_: jsonrpc.Id) -> None:
        """The agent does not wait for this request of its session any more. Unknown ids mean nothing."""
        if (under_way := self._under_way.get((agent.key, id_))) is not None:
            under_way.cancel()

    def end(self, agent: agents.Agent) -> None:
        """Cancels whatever is under way in a session that is over."""
        for key, each in tuple(self._under_way.items()):
            if key[0] == agent.key:
                each.cancel()
        self.answers.end(agent)

    # The decision -----------------------------------------------------------------------------------------------------

    def begin(self, visit: visits.Visit, bound: bind.Bound) -> Coroutine[Any, Any, None] | None:
        """A `visits.Handler`."""
        return self._decided(visit, bound, 0)

    def _decided(
        self, visit: visits.Visit, bound: bind.Bound, needs: int, *, renewed: bool = False
    ) -> Coroutine[Any, Any, None] | None:
        """Decides on the current Bound and units; both are read in this turn of the loop and used in it."""
        subject = self._named(visit, bound)
        if isinstance(subject, decision.Refusal):
            self._desk.call(visit, subject, bound)
            return None
        after = self._after(visit, subject) if interviews.goes_on(visit.subject) else None
        if isinstance(after, decision.Reason):
            self._desk.of_caller(after, place=visit.endpoint)
            answers.unknown_state(visit.subject.id).give(visit.reply)
            return None
        round_of = "" if after is None else self._host.judge.states.origin(after)
        now = self._parts.wall()
        verdict = decide.decide(bound, subject, self._parts.ledger, now=now, round_of=round_of)
        if isinstance(verdict, decision.Permit):
            return self._attempt(visit, verdict, after)
        if isinstance(verdict, decision.Refusal):
            if not renewed and self._may_be_new(verdict, bound):
                return self._once_renewed(visit, bound, verdict, needs)
            self._desk.call(visit, verdict, bound)
            return None
        if verdict.definitions is not None:
            return self._once_observed(visit, bound, subject, needs)
        objection = decision.Objection(_R.LEDGER_UNAVAILABLE, visible=True)
        self._desk.call(visit, decision.Refusal(subject, objection), bound)
        return None

    def _after(self, visit: visits.Visit, subject: call.Call) -> states.State | decision.Reason:
        """The state that a call goes on with; why not, when it is not one of this very call of this caller."""
        text, principal = visit.subject.message.params["requestState"], visit.principal
        return self._host.judge.states.opened(text, subject, principal=principal) or _R.STATE_UNKNOWN

    async def _once_observed(
        self, visit: visits.Visit, bound: bind.Bound, subject: call.Call, needs: int
    ) -> None:
        """Fetches what the decision needs and decides again; a server that cannot be listed cannot be called."""
        server = subject.server
        deadline = visit.request.received + bound.servers[server].view.endpoint.call_seconds
        left = max(0.0, deadline - self._parts.clock())
        failed = await self._catalogue.ensure(server, subject.kind, seconds=left, user=subject.user)
        now = self._current.bound
        assert now is not None
        if failed is not None or needs >= _NEEDS_MAX:
            known = failed is not None and failed.reason not in endings.UNCERTAIN
            reason = failed.reason if failed is not None and known else _R.UPSTREAM_NOT_READY
            self._desk.call(visit, decision.Refusal(subject, decision.Objection(reason, visible=True)), now)
            return
        waiting = self._decided(visit, now, needs + 1)
        if waiting is not None:
            await waiting

    def _may_be_new(self, refusal: decision.Refusal, bound: bind.Bound) -> bool:
        """Whether what looks unknown could stand on its server's list by now.

        Asked of unknown and of hidden names alike, and only by what the caller sees of the server: how long a refusal takes
        must not tell which it was (R24).
        """
        server, kind = refusal.call.server, refusal.call.kind
        held = bound.servers.get(server)
        if refusal.objection.visible or kind is call.Kind.RESOURCE or held is None:
            return False
        return held.in_sight and decide.asked(held, kind) and self._catalogue.aged(server, kind)

    async def _once_renewed(
        self, visit: visits.Visit, bound: bind.Bound, refusal: decision.Refusal, needs: int
    ) -> None:
        """Decides once more when the list has been fetched; a server that cannot be listed soon has nothing new."""
        server, kind = refusal.call.server, refusal.call.kind
        deadline = visit.request.received + bound.servers[server].view.endpoint.call_seconds
        left = max(0.0, deadline - self._parts.clock())
        await self._catalogue.renewed(
            server, kind, seconds=min(left, lists.LOOK_SECONDS_MAX), user=refusal.call.user
        )
        now = self._current.bound
        assert now is not None
        waiting = self._decided(visit, now, needs, renewed=True)
        if waiting is not None:
            await waiting

    def _named(self, visit: visits.Visit, bound: bind.Bound) -> call.Call | decision.Refusal:
        """Which server's tool, prompt or resource is meant, and by whom. On the merged endpoint resources are nobody's."""
        named, user = governed.named(visit.subject.message), visit.user
        if visit.server is not None:
            return named.at(visit.server, user=user)
        found = bound.named(named.name, named.kind) if named.kind is not call.Kind.RESOURCE else None
        if found is None:
            nowhere = decision.Objection(_R.SERVER_UNKNOWN, visible=False)
            return decision.Refusal(named.at(_NOWHERE, user=user), nowhere)
        return named.at(found[0], found[1], user=user)

    # The attempt ------------------------------------------------------------------------------------------------------

    def _attempt(
        self, visit: visits.Visit, permit: decision.Permit, after: states.State | None
    ) -> Coroutine[Any, Any, None] | None:
        if visit.subject.modern and (complaint := _unmirrored(visit, permit)) is not None:
            self._desk.of_caller(_R.HEADER_MISMATCH, place=visit.endpoint, detail=complaint)
            error = jsonrpc.error(visit.subject.id, conventions.HEADER_MISMATCH, complaint)
            answers.json(error, status=400).give(visit.reply)
            return None
        if len(self) >= self._calls_max:
            objection = decision.Objection(_R.OVERLOADED, visible=True, retry_after_seconds=1.0)
            self._desk.call(visit, decision.Refusal(permit.call, objection), self._current.bound)
            return None
        out = self._out(visit, permit)
        key = self._cancel_key(visit)
        order = orders.Order(visit.about, permit, visit.subject, out, visit.request.received, after)
        if after is not None:
            self._host.judge.states.spend(after)
        made = attempt.Attempt(self._parts, order, self._host, ended=self._forget(key))
        if key is None:
            self._anonymous.add(made)
        else:
            self._under_way[key] = made
        if visit.subject.modern:
            out.on_gone(made.cancel)  # a legacy agent that is gone has cancelled nothing
        return made.start()

    def _out(self, visit: visits.Visit, permit: decision.Permit) -> resuming.Out:
        accepts = streams.accepted(visit.request.headers)
        keep_json = permit.price.result_bytes_max > streams.FRAME_BYTES_MAX
        if visit.agent is not None and visit.agent.version >= _POLLED_SINCE:
            return resuming.Resumable(
                visit.reply, self.answers, visit.agent, accepts=accepts, keep_json=keep_json, user=visit.user
            )
        return streams.Outgoing(
            visit.reply, accepts=accepts, call_later=self._call_later, keep_json=keep_json
        )

    def _cancel_key(self, visit: visits.Visit) -> tuple[str, jsonrpc.Id] | None:
        """By what a cancellation finds a call; None when another call in the session has its id already.

        Without a session nobody can tell whose call a cancellation means, so it means none.
        """
        if visit.agent is None or visit.subject.id is None:
            return None
        key = (visit.agent.key, visit.subject.id)
        return None if key in self._under_way else key

    def _forget(self, key: tuple[str, jsonrpc.Id] | None) -> Callable[[attempt.Attempt], None]:
        def ended(made: attempt.Attempt) -> None:
            if key is None:
                self._anonymous.discard(made)
            else:
                self._under_way.pop(key, None)

        return ended


def _unmirrored(visit: visits.Visit, permit: decision.Permit) -> str | None:
    return mirrors.objection(crossing.mirrored(permit), permit.call.arguments, visit.request.headers)
