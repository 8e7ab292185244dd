# SPDX-License-Identifier: Apache-2.0
"""How credentials and the keys of identity providers fare at the proxies that need them: who cannot lend what, and why.

Called by hearing with each report and with what other replicas have heard; read by reporting, for the condition CredentialsReady, and
by replicas, for `outrider proxy-status` and `outrider doctor`. The loop's thread only. A pod tells of servers of its own snapshot and of
no others; it may tell any replica, so that of what it says twice the later counts. Refuses names that are not in the snapshot of the pod
that tells them, and to hold more than its bounds: of many pods with one trouble some are named and the others counted, and no namespace's
pods take the place of another's.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import msgspec

from outrider import names, reports, snapshot
from outrider_operator import shares, sightings

log = logging.getLogger("outrider.operator.lendings")

ROWS_MAX = 50
"""Pods of one trouble of which a replica tells the one that writes status; the others are counted."""

ENTRIES_MAX = 200_000
"""(pod, credential) in memory, about 60 MB, but for those of the prober, which are few. When it is full, whoever's namespace has most of
it gives way to whoever's has less."""

CREDENTIALS_MAX = 64
"""Of one server, which has 32 at a time; for the names that it had before and that are told of still."""

_SAME_SECONDS = 30.0
"""The same moment of expiry, told twice, differs by how long telling takes."""

Subject = tuple[str, str]
"""(`namespace/server`, credential), or ("", identity provider)."""


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one pod said of one subject at `heard_at`; times in Unix seconds, `expires_at` None for what does not expire."""

    pod: str
    state: reports.State
    heard_at: float
    reason: str = ""
    why: str = ""
    expires_at: float | None = None


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """One subject as one replica has heard of it: by pod uid whoever is in trouble or was lately, and how many are besides."""

    rows: dict[str, Row] = {}
    failing: int = 0
    expiring: int = 0
    ready: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """How one credential of a server fares in the fleet. `name` is the entry's.

    `failing` and `expiring` count pods; `pod` is one of the worse kind there is, `reason` and `why` its words, and `expires_at` when the
    first of those that cannot renew it stops. `ready`: some proxy has it.
    """

    name: str
    failing: int = 0
    expiring: int = 0
    ready: bool = False
    pod: str = ""
    reason: str = ""
    why: str = ""
    expires_at: float | None = None


@dataclasses.dataclass(slots=True)
class _Held:
    """One subject as pods of this replica have told it: the rows of those in trouble or recovered, and who is well."""

    rows: dict[str, Row] = dataclasses.field(default_factory=dict)
    ready: set[str] = dataclasses.field(default_factory=set)
    _told: Told | None = None

    def put(self, uid: str, row: Row) -> bool:
        """True when others should hear of it."""
        before, first = self.rows.get(uid), not self.ready
        self._told = None
        if row.state == "Ready":
            self.ready.add(uid)
            return self.rows.pop(uid, None) is not None or first
        self.ready.discard(uid)
        self.rows[uid] = row = _steady(before, row)
        return before is None or msgspec.structs.replace(before, heard_at=row.heard_at) != row

    def drop(self, uid: str) -> bool:
        """True when others should hear of it."""
        self._told = None
        self.ready.discard(uid)
        return self.rows.pop(uid, None) is not None or not (self.rows or self.ready)

    def told(self) -> Told:
        if self._told is None:
            bad, soon = self._in("Failing"), self._in("Expiring")
            # Whoever has recovered silences what another replica still believes of it, so many of those are told.
            named = [*bad[:ROWS_MAX], *soon[:ROWS_MAX], *self._in("Recovered")[: 10 * ROWS_MAX]]
            self._told = Told(
                {uid: self.rows[uid] for uid in named},
                max(0, len(bad) - ROWS_MAX), max(0, len(soon) - ROWS_MAX), len(self.ready),
            )  # fmt: skip
        return self._told

    def _in(self, state: reports.State) -> list[str]:
        """The pods in a state, of each namespace one before any has its second: nobody's many hide another's few."""
        before: collections.Counter[str] = collections.Counter()
        turns = []
        for uid in sorted(uid for uid, row in self.rows.items() if row.state == state):
            namespace = self.rows[uid].pod.partition("/")[0]
            turns.append((before[namespace], uid))
            before[namespace] += 1
        return [uid for _, uid in sorted(turns)]


@dataclasses.dataclass(slots=True)
class _Pod:
    """A pod that has told something: when, whether it is the prober, and about what."""

    heard_at: float
    prober: bool
    namespace: str
    subjects: set[Subject] = dataclasses.field(default_factory=set)


@dataclasses.dataclass(slots=True)
class _Replica:
    heard_at: float = 0.0
    told: dict[str, dict[str, Told]] = dataclasses.field(default_factory=dict)


class Lendings:
    """What is known of every credential. `exists` says which servers there are; `revision` grows with what others should hear."""

    def __init__(self, exists: Callable[[names.ServerId], bool]) -> None:
        self._exists = exists
        self._pods: dict[str, _Pod] = {}
        self._held: dict[str, dict[str, _Held]] = {}
        self._replicas: dict[str, _Replica] = {}
        self._shares = shares.Shares(ENTRIES_MAX)
        self._dirty: set[str] = set()
        self._seen: dict[names.ServerId, tuple[Standing, ...]] = {}
        self.revision = 0

    def reported(self, who: sightings.Reporter, report: reports.Report, *, now: float) -> None:
        """Takes in what a report says of credentials and providers: all that this pod has, so that the rest is of no concern to it."""
        if report.credentials is None and report.providers is None:
            return
        pod = self._pods.setdefault(who.uid, _Pod(now, who.prober, who.namespace))
        pod.heard_at = now
        said = dict(self._said(who, report, now=now))
        silent = {at for at in pod.subjects if (report.credentials if at[0] else report.providers) is None}
        for subject in pod.subjects - silent - said.keys():
            self._drop(subject, who.uid)
        refused = False
        for subject, row in said.items():
            if subject in pod.subjects:
                self._put(subject, who.uid, row)
            elif not refused:  # once its namespace has its share, there is none for the next either
                refused = not self._taken(subject, who.uid, row)

    def seen(self) -> Mapping[names.ServerId, tuple[Standing, ...]]:
        """How the credentials of every server fare, by name; the same object until something new is."""
        if self._dirty:
            fresh = dict(self._seen)
            for text in self._dirty:
                server, told = names.server_id(text), self._told(text)
                if server is None:
                    continue
                fresh.pop(server, None)
                if told:
                    fresh[server] = tuple(_standing(name, told[name]) for name in sorted(told))
            self._dirty.clear()
            self._seen = fresh
        return self._seen

    def troubles(self) -> Mapping[str, list[dict[str, object]]]:
        """What is amiss by pod uid, as JSON for people."""
        found: dict[str, list[dict[str, object]]] = {}
        for server in sorted(
            {*self._held, *(each for other in self._replicas.values() for each in other.told)}
        ):
            for name, told in sorted(self._told(server).items()):
                for uid, row in _newest(told).items():
                    if row.state in ("Failing", "Expiring"):
                        found.setdefault(uid, []).append(_trouble((server, name), row))
        return found

    def keep(self, pods: Collection[str], *, now: float) -> None:
        """Forgets pods (by uid), servers and replicas that are gone or silent. To be called now and then, on every replica."""
        since = now - sightings.FORGOTTEN_SECONDS
        for uid, pod in list(self._pods.items()):
            gone = pod.heard_at < since or (not pod.prober and uid not in pods)
            for subject in [at for at in pod.subjects if gone or not self._is_there(at[0])]:
                self._drop(subject, uid)
            if gone:
                del self._pods[uid]
        for replica, other in list(self._replicas.items()):
            if other.heard_at < now - sightings.SILENT_SECONDS:
                self._dirty |= self._replicas.pop(replica).told.keys()

    def told(self) -> bytes:
        """Everything this replica has heard, as JSON for another."""
        told = {at: {name: held.told() for name, held in each.items()} for at, each in self._held.items()}
        return msgspec.json.encode(told)

    def heard(self, replica: str, told: bytes | None, *, now: float) -> None:
        """Takes what another replica's `told` made, None: nothing new; what cannot be read, of another version's, is passed over."""
        other = self._replicas.setdefault(replica, _Replica())
        other.heard_at = now
        if told is None:
            return
        try:
            fresh = msgspec.json.decode(told, type=dict[str, dict[str, Told]])
        except msgspec.DecodeError as error:
            log.warning("lendings not understood", extra={"fields": {"replica": replica, "why": str(error)}})
            return
        moved = {server for server in {*fresh, *other.told} if fresh.get(server) != other.told.get(server)}
        self._dirty |= moved
        other.told = fresh

    # What is held ---------------------------------------------------------------------------------------------------

    def _said(
        self, who: sightings.Reporter, report: reports.Report, *, now: float
    ) -> Iterator[tuple[Subject, Row]]:
        needs = who.needs
        for each in report.credentials or ():
            server, subject = names.server_id(each.server), (each.server, each.credential)
            if server is None or not self._exists(server) or not who.may_tell(server):
                continue
            if needs is None or subject in needs:
                yield subject, _row(who.pod, each, now=now)
        for keys in report.providers or ():
            if needs is None or ("", keys.provider) in needs:
                yield ("", keys.provider), _row(who.pod, keys, now=now)

    def _taken(self, subject: Subject, uid: str, row: Row) -> bool:
        """Holds what a pod did not say before; False when that would be too much."""
        pod = self._pods[uid]
        there = self._held.get(subject[0], {})
        if subject[1] not in there and len(there) >= CREDENTIALS_MAX:
            return True  # of this server, which says nothing of the next
        if not pod.prober:
            if self._shares.full:
                spared = self._shares.spared(pod.namespace)
                if spared is None:
                    return False
                self._drop(spared[1], spared[0])
            self._shares.add(pod.namespace, (uid, subject))
        pod.subjects.add(subject)
        self._put(subject, uid, row)
        return True

    def _put(self, subject: Subject, uid: str, row: Row) -> None:
        if self._held.setdefault(subject[0], {}).setdefault(subject[1], _Held()).put(uid, row):
            self._news(subject[0])

    def _drop(self, subject: Subject, uid: str) -> None:
        pod = self._pods[uid]
        pod.subjects.discard(subject)
        if not pod.prober:
            self._shares.remove(pod.namespace, (uid, subject))
        there = self._held[subject[0]]
        held = there[subject[1]]
        if held.drop(uid):
            self._news(subject[0])
        if not held.rows and not held.ready:
            del there[subject[1]]
            if not there:
                del self._held[subject[0]]

    def _is_there(self, text: str) -> bool:
        server = names.server_id(text)
        return not text or (server is not None and self._exists(server))

    def _told(self, server: str) -> dict[str, list[Told]]:
        """What every replica has heard of one server's credentials, this one included."""
        found: dict[str, list[Told]] = {}
        for name, held in self._held.get(server, {}).items():
            found.setdefault(name, []).append(held.told())
        for other in self._replicas.values():
            for name, told in other.told.get(server, {}).items():
                found.setdefault(name, []).append(told)
        return found

    def _news(self, server: str) -> None:
        self.revision += 1
        self._dirty.add(server)


def needed(given: snapshot.Snapshot | None) -> frozenset[Subject]:
    """Of what a proxy with this snapshot may say how it fares."""
    if given is None:
        return frozenset()
    lent = {(str(view.id), each.name) for view in given.servers for each in view.credentials}
    return frozenset(lent | {("", provider.name) for provider in given.providers})


def failure(standing: Standing) -> str:
    """A sentence about a credential that cannot be lent."""
    why = ": ".join(text for text in (standing.reason, standing.why) if text).rstrip(".")
    return f"{standing.name} cannot be lent by {_pods(standing.failing, standing.pod)}: {why or 'it does not say why'}."


def expiry(standing: Standing, *, timestamp: Callable[[float], str]) -> str:
    """A sentence about a credential that is lent still and cannot be renewed."""
    until = "" if standing.expires_at is None else f" until {timestamp(standing.expires_at)}"
    why = standing.why.rstrip(".") or "it does not say why"
    who = _pods(standing.expiring, standing.pod)
    return f"{standing.name} is lent{until} and could not be renewed by {who}: {why}."


def _pods(count: int, pod: str) -> str:
    return f"1 proxy ({pod})" if count == 1 else f"{count} proxies, such as {pod}"


def _row(pod: str, said: reports.Faring, *, now: float) -> Row:
    at = now - said.age_seconds
    ends = None if said.expires_in_seconds is None else at + said.expires_in_seconds
    return Row(pod, said.state, now, said.reason, _printable(said.why), ends)


def _steady(before: Row | None, row: Row) -> Row:
    """With the expiry that was told before, when it is the same moment: a status is not written anew for a second's difference."""
    if before is None or before.expires_at is None or row.expires_at is None:
        return row
    same = abs(before.expires_at - row.expires_at) < _SAME_SECONDS
    return msgspec.structs.replace(row, expires_at=before.expires_at) if same else row


def _printable(text: str) -> str:
    """A proxy's words end in statuses and terminals."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _newest(told: Iterable[Told]) -> dict[str, Row]:
    """By pod uid, what it said last."""
    found: dict[str, Row] = {}
    for each in told:
        for uid, row in each.rows.items():
            if uid not in found or found[uid].heard_at < row.heard_at:
                found[uid] = row
    return found


def _standing(name: str, told: list[Told]) -> Standing:
    rows = _newest(told).values()
    failing = [row for row in rows if row.state == "Failing"]
    expiring = [row for row in rows if row.state == "Expiring"]
    ready = any(each.ready for each in told) or any(row.state in ("Recovered", "Expiring") for row in rows)
    counts = (
        len(failing) + sum(each.failing for each in told),
        len(expiring) + sum(each.expiring for each in told),
    )
    worst = min(failing or expiring, key=lambda row: row.pod, default=None)
    if worst is None:
        return Standing(name, *counts, ready)
    ends = min((row.expires_at for row in expiring if row.expires_at is not None), default=None)
    return Standing(name, *counts, ready, worst.pod, worst.reason, worst.why, ends)


def _trouble(subject: Subject, row: Row) -> dict[str, object]:
    about = {"server": subject[0], "credential": subject[1]} if subject[0] else {"provider": subject[1]}
    return {**about, "state": row.state, "reason": row.reason, "why": row.why, "expiresAt": row.expires_at}
