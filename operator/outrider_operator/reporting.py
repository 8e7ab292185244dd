# SPDX-License-Identifier: Apache-2.0
"""From everything that is known to the statuses that are wanted: for the objects of which something new is true, after the push.

Called by controller, once per replica. Every replica looks for findings (they are counted in its metrics) and compares what it
remembers with what it would make anew; only the one that leads writes statuses and posts events. Refuses to hold up the loop: it
works in slices, and a status may be a second late.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Mapping

from outrider import compile as compiler
from outrider import names
from outrider_operator import (
    conditions,
    events,
    fleet,
    lendings,
    observations,
    pods,
    reasons,
    receipts,
    statuses,
)
from outrider_operator.sources import objects

log = logging.getLogger("outrider.operator.reporting")

TICK_SECONDS = 0.5
SLICE_SECONDS = 0.005
"""Worked at a stretch; then as long again belongs to everybody else."""

RECHECK_SECONDS = 600.0
"""Everything is looked at again this often, whether or not anything was heard of it."""

_SERVER = "MCPServer"
_OF_PROXIES = (
    reasons.Reason.CREDENTIALS_FAILING, reasons.Reason.CREDENTIALS_EXPIRING, reasons.Reason.CREDENTIALS_READY,
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Known:
    """What others know, asked for at every tick. `frozen`: why a kind cannot be read now, ''. `settling`: a replica is missing.

    `offer` makes what a workload is offered in a schema, so that the Compiler knows that version.
    """

    watched: Callable[[compiler.Object], objects.Watched | None]
    everything: Callable[[], Iterable[compiler.Object]]
    frozen: Callable[[str], str]
    pods: Callable[[], Mapping[str, pods.Pod]]
    receipts: Callable[[], Mapping[str, receipts.Receipt]]
    observations: Callable[[], Mapping[names.ServerId, observations.Observation]]
    settling: Callable[[], bool]
    lent: Callable[[], Mapping[names.ServerId, tuple[lendings.Standing, ...]]] = dict
    offer: Callable[[compiler.Subject, int], object] = lambda _subject, _schema: None


class Reporter:
    """The statuses of all objects, as far as they are not written yet. `mended` is told when what was remembered was wrong."""

    def __init__(
        self,
        compiled: compiler.Compiler,
        known: Known,
        writer: statuses.Writer,
        poster: events.Poster,
        *,
        mended: Callable[[], None] = lambda: None,
    ) -> None:
        self.inspection = compiler.Inspection(compiled.objects)
        self._compiled = compiled
        self._known = known
        self._writer = writer
        self._poster = poster
        self._mended = mended
        self._fleet = fleet.Fleet(compiled)
        self._sparing = events.Sparing()
        self._leading = False
        self._uids: dict[compiler.Object, str] = {}
        self._dirty: dict[compiler.Object, None] = {}
        self._seen: Mapping[names.ServerId, observations.Observation] = {}
        self._lent: Mapping[names.ServerId, tuple[lendings.Standing, ...]] = {}
        self._tools: dict[names.ServerId, tuple[str, ...]] = {}
        self._prompts: dict[names.ServerId, tuple[str, ...]] = {}
        self._frozen: dict[str, str] = {}
        self._settling = False
        self._rechecked = time.monotonic()
        self._sliced = 0.0

    def changed(self, changes: compiler.Changes, things: Iterable[compiler.Object]) -> None:
        """A new world is compiled and pushed; `things` are the objects that were read anew, those that are broken included."""
        self.inspection.note(changes.delta)
        self._mark(*things, *changes.delta.objects)
        for subject in changes.subjects & self._compiled.subjects:
            self._mark(*self._compiled.spoken(subject))

    def lead(self, leading: bool) -> None:
        """Whether this replica writes statuses from now on."""
        if leading and not self._leading:
            self._writer.doubt()
            self._mark(*self._known.everything())
        self._leading = leading

    async def run(self) -> None:
        """Reports until cancelled. A bug that one object shows is logged and keeps no other from being reported."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._sliced = time.monotonic()
            try:
                await self._tick()
            except Exception:  # the next tick looks at everything that is left
                log.exception("statuses are late because of a bug")

    async def _tick(self) -> None:
        if time.monotonic() - self._rechecked > RECHECK_SECONDS:
            self._rechecked = time.monotonic()
            await self._recheck()
        # What servers list is learnt before anything is found about the rules that name it.
        self._look()
        for thing in self.inspection.work():
            self._mark(thing)
            await self._slice()
        for subject in self._fleet.subjects:
            # Streams may have asked for it; a pod that no stream of ours serves is counted all the same.
            known = subject in self._compiled.subjects
            self._compiled.snapshot(*subject)
            if not known:
                self._mark(*self._compiled.spoken(subject))
            await self._slice()
        for subject, schema in self._fleet.older:
            # The version its sidecar acknowledges may have been made by another replica, and has to be known here.
            self._known.offer(subject, schema)
            await self._slice()
        if not self._leading:
            self._dirty.clear()
            return
        again = []
        for thing in tuple(self._dirty):
            self._dirty.pop(thing, None)
            if self._report(thing):
                again.append(thing)
            await self._slice()
        self._mark(*again)

    def _look(self) -> None:
        """Asks what others know, and marks the objects of which something else is true than at the last tick."""
        injected = self._known.pods()
        self._mark(*self._fleet.update(injected, self._known.receipts()))
        # Those of pods that do not run yet too: their sidecars wait for a first configuration.
        self._compiled.keep(pod.subject for pod in injected.values())
        seen = self._known.observations()
        moved = _moved(seen, self._seen)
        self._seen = dict(seen) if moved else self._seen
        lent = self._known.lent()
        if lent is not self._lent:
            moved |= _moved(lent, self._lent)
            self._lent = lent
        self._mark(*((_SERVER, *server) for server in moved))
        self._learn()
        frozen = {kind: self._known.frozen(kind) for kind in objects.PLURALS}
        settling = self._known.settling()
        if frozen != self._frozen or settling != self._settling:
            self._frozen, self._settling = frozen, settling
            self._mark(*self._known.everything())

    def _learn(self) -> None:
        """Tells the inspection what the servers list that were marked: as seen, or else as their status remembers."""
        before = dict(self._tools), dict(self._prompts)
        for thing in self._dirty:
            if thing[0] != _SERVER:
                continue
            server = names.ServerId(*thing[1:])
            observed, watched = self._seen.get(server), self._known.watched(thing)
            listed = None if watched is None else _listed(watched.status, "tools", "toolCount")
            prompts = None if watched is None else _listed(watched.status, "prompts", "promptCount")
            if observed is not None and (observed.reachable or observed.tools):
                listed = _names(observed.tools) if observed.complete else None
                if observed.prompts is not None:
                    whole = observed.prompt_count <= len(observed.prompts)
                    prompts = _names(observed.prompts) if whole else None
            for known, said in ((self._tools, listed), (self._prompts, prompts)):
                known.pop(server, None)
                if said is not None:
                    known[server] = said
        if before != (self._tools, self._prompts):
            self.inspection.learn(self._tools, self._prompts)

    def _report(self, thing: compiler.Object) -> bool:
        """Has one status written if it is another now; True when it has to be looked at again at the next tick."""
        watched = self._known.watched(thing)
        uid = "" if watched is None else watched.uid
        if self._uids.get(thing, uid) != uid or watched is None:
            self._writer.forget(thing)  # It is gone, or is another one of the same name.
        if watched is None:
            self._uids.pop(thing, None)
            return False
        self._uids[thing] = uid
        before = self._writer.last(thing) or watched.status
        first = not before.get("conditions")
        facts = self._facts(watched, counted=not first)
        status = conditions.status(facts, before, now=time.time(), timestamp=timestamp)
        self._writer.want(thing, status, live=watched.status, first=first)
        regarding = events.of_object(*thing, watched.uid)
        for event in events.transitions(regarding, before, status):
            # Proxies are tenants': one that flaps must not fill the cluster's Events.
            if event.reason not in _OF_PROXIES or self._sparing.may(thing, time.monotonic()):
                self._poster.add(event)
        return first

    def _facts(self, watched: objects.Watched, *, counted: bool) -> conditions.Facts:
        thing, made = watched.object, watched.placed.resource if watched.placed is not None else None
        targets = 0
        if made is not None and watched.kind != _SERVER:
            targets = len(self._compiled.objects.covered(watched.namespace, made.spec.target_refs))
        server = names.ServerId(watched.namespace, watched.name)
        seen = self._seen.get(server)
        return conditions.Facts(
            kind=watched.kind,
            generation=watched.generation,
            made=made,
            problems=watched.problems,
            instead=watched.instead,
            found=self.inspection.of(thing),
            fleet=self._fleet.of(thing, settling=self._settling) if counted else None,
            targets=targets,
            observation=seen if watched.kind == _SERVER else None,
            lent=self._lent.get(server, ()) if watched.kind == _SERVER else (),
            frozen=self._frozen.get(watched.kind, ""),
        )

    async def _recheck(self) -> None:
        """Compares what is remembered with what is made anew, workload by workload; whatever differed would be a bug."""
        self._writer.doubt()
        self._mark(*self._known.everything())
        afresh = self._compiled.afresh()
        for subject in self._compiled.subjects:
            if subject not in self._compiled.subjects:
                continue
            if afresh.objects.world is not self._compiled.objects.world:
                return  # It changed meanwhile; the next time will do.
            if afresh.compiled(*subject).version != self._compiled.compiled(*subject).version:
                log.error(
                    "a snapshot was not what its objects say; all are made anew",
                    extra={"fields": {"of": subject}},
                )
                self._compiled.reset()
                self._mended()
                return
            await self._slice()

    async def _slice(self) -> None:
        if time.monotonic() - self._sliced > SLICE_SECONDS:
            await asyncio.sleep(SLICE_SECONDS)
            self._sliced = time.monotonic()

    def _mark(self, *things: compiler.Object) -> None:
        self._dirty.update(dict.fromkeys(things))


def _moved(
    now: Mapping[names.ServerId, object], before: Mapping[names.ServerId, object]
) -> set[names.ServerId]:
    """The servers of which something else is known than before."""
    return {server for server in {*now, *before} if now.get(server) != before.get(server)}


def timestamp(at: float) -> str:
    """A time as Kubernetes writes it, in whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _names(seen: observations.Tools) -> tuple[str, ...]:
    return tuple(sorted(name for name, _ in seen))


def _listed(status: Mapping[str, object], member: str, counted: str) -> tuple[str, ...] | None:
    """The names of a list in a server's status; None when it does not hold them all."""
    entries, count = status.get(member), status.get(counted)
    if not isinstance(entries, list) or count != len(entries):
        return None
    with contextlib.suppress(TypeError, KeyError):
        return tuple(sorted(str(entry["name"]) for entry in entries))
    return None
