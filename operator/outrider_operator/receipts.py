# SPDX-License-Identifier: Apache-2.0
"""What each sidecar was offered and what it said to that: one replica's book, and all books together.

Publishing writes a replica's own book; `replicas` carries it to the replica that writes status, where `Gathering` joins them. Read by
fleet, which counts who enforces what, and by `outrider proxy-status`. A pod that acknowledged and lost its stream still enforces what
it holds, so what is known of it stays until the pod is gone.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

import msgspec

from outrider import snapshot

SILENT_SECONDS_MAX = 15.0
"""A replica not heard for this long is taken for gone, and so are its streams."""

SETTLING_SECONDS = 6.0
"""Within this every living replica has sent its book to a new holder (it does so every 5 s)."""

_PODS_MAX = 50_000
_REPLICAS_MAX = 16


class Refusal(msgspec.Struct, frozen=True):
    """A sidecar's words about the version it was offered; `source` such as `MCPToolPolicy crm/sales-only`, '' if unknown."""

    error: str
    path: str = ""
    source: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Receipt:
    """One pod's sidecar. `offered` and `acked` are versions as sent in its schema, '' before any.

    `unexpressed`: what its schema cannot say (`MCPServer ns/name`); denied instead. `connected` False: it holds `acked` still.
    `since` (Unix seconds) is when its stream was opened or lost; `replica` the one it was or is at.
    """

    subject: tuple[str, str]
    pod: str
    namespace: str
    schema: int
    offered: str = ""
    acked: str = ""
    refusal: Refusal | None = None
    unexpressed: tuple[str, ...] = ()
    connected: bool = True
    software: str = ""
    trust: str = ""
    since: float = 0.0
    replica: str = ""


class Principal(Protocol):
    """Whose sidecar it is; `reviewer.Principal`."""

    @property
    def namespace(self) -> str: ...
    @property
    def service_account(self) -> str: ...
    @property
    def pod(self) -> str: ...
    @property
    def uid(self) -> str: ...


class Answer(msgspec.Struct, frozen=True):
    """What a sidecar said of a version at a position; `at` in Unix seconds."""

    version: str
    position: dict[str, int]
    at: float
    refusal: Refusal | None = None


class Record(msgspec.Struct):
    """What one replica knows of one pod's sidecar. `streams` are those it has open here."""

    uid: str
    namespace: str
    service_account: str
    pod: str
    streams: int = 0
    since: float = 0.0
    schema: int = snapshot.SCHEMA
    software: str = ""
    trust: str = ""
    offered: str = ""
    position: dict[str, int] = {}
    unexpressed: tuple[str, ...] = ()
    accepted: Answer | None = None
    refused: Answer | None = None


class Book:
    """One replica's records, by pod uid. `revision` grows with every change. A principal without a pod leaves none."""

    def __init__(self, *, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self.records: dict[str, Record] = {}
        self.revision = 0

    def opened(self, who: Principal, schema: int, software: str, trust: str) -> None:
        """A stream of this pod begins."""
        if (record := self._of(who)) is not None:
            record.streams += 1
            record.since = self._wall()
            record.schema, record.software, record.trust = schema, software, trust

    def closed(self, who: Principal) -> None:
        """One has ended."""
        if (record := self._of(who)) is not None:
            record.streams = max(0, record.streams - 1)
            if not record.streams:
                record.since = self._wall()

    def offered(
        self, who: Principal, version: str, position: snapshot.Position, unexpressed: tuple[str, ...]
    ) -> None:
        """Notes what is about to be said to it."""
        if (record := self._of(who)) is not None:
            record.offered, record.position, record.unexpressed = version, dict(position), unexpressed

    def answered(
        self, who: Principal, version: str, position: snapshot.Position, refusal: Refusal | None
    ) -> None:
        """It says that it holds a version, or why not."""
        if (record := self._of(who)) is not None:
            answer = Answer(version, dict(position), self._wall(), refusal)
            if refusal is None:
                record.accepted = answer
            else:
                record.refused = answer

    def trusted(self, who: Principal, digest: str) -> None:
        """It says which authorities it trusts."""
        if (record := self._of(who)) is not None:
            record.trust = digest

    def keep(self, uids: Collection[str]) -> None:
        """Forgets the pods that are gone."""
        for uid in [each for each in self.records if each not in uids and not self.records[each].streams]:
            del self.records[uid]
            self.revision += 1

    def _of(self, who: Principal) -> Record | None:
        if not who.uid:
            return None
        self.revision += 1
        record = self.records.get(who.uid)
        if record is None:
            if len(self.records) >= _PODS_MAX:
                # The oldest without a stream; with none such, more pods are connected than are counted anywhere.
                idle = next((uid for uid, each in self.records.items() if not each.streams), None)
                if idle is None:
                    return None
                del self.records[idle]
            record = Record(who.uid, who.namespace, who.service_account, who.pod)
            self.records[who.uid] = record
        return record


class Gathering:
    """The books of all replicas at the one that writes status: its own, and each other's as last heard."""

    def __init__(self, own: Book, *, replica: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.own = own
        self.replica = replica
        self._clock = clock
        self._others: dict[str, tuple[float, dict[str, Record]]] = {}
        self._made: dict[str, Receipt] = {}
        self._made_of = -1
        self._revision = 0
        self._since = clock()

    def begin(self) -> None:
        """From now on this replica writes status, and others will send it their books."""
        self._since = self._clock()
        self._revision += 1

    @property
    def settling(self) -> bool:
        """True while a living replica may not have been heard yet."""
        return self._clock() - self._since < SETTLING_SECONDS

    @property
    def revision(self) -> int:
        """Grows whenever a receipt may have changed."""
        self._silence()
        return self.own.revision + self._revision

    def heard(self, replica: str, records: Iterable[Record]) -> bool:
        """Takes another replica's whole book; False for one replica too many."""
        if replica == self.replica:
            return True
        if replica not in self._others and len(self._others) >= _REPLICAS_MAX:
            return False
        before = self._others.get(replica, (0.0, {}))[1]
        now = {record.uid: record for record in records}
        self._others[replica] = (self._clock(), now)
        if now != before:
            self._revision += 1
        return True

    def keep(self, uids: Collection[str]) -> None:
        """Forgets the pods that are gone; whoever has a stream is not, and the prober is no injected pod."""
        self.own.keep(uids)
        for _, records in self._others.values():
            for uid in [each for each in records if each not in uids and not records[each].streams]:
                del records[uid]
                self._revision += 1
        self._others = {
            name: kept for name, kept in self._others.items() if kept[1] or not self._silent(kept[0])
        }

    def receipts(self) -> Mapping[str, Receipt]:
        """What is known of every pod, by uid."""
        if self._made_of != self.revision:
            found: dict[str, list[tuple[str, Record]]] = {}
            for uid, record in self.own.records.items():
                found.setdefault(uid, []).append((self.replica, record))
            for replica, (_, records) in self._others.items():
                for uid, record in records.items():
                    found.setdefault(uid, []).append((replica, record))
            self._made = {uid: joined(records) for uid, records in found.items()}
            self._made_of = self.revision
        return self._made

    def _silent(self, heard_at: float) -> bool:
        return self._clock() - heard_at > SILENT_SECONDS_MAX

    def _silence(self) -> None:
        """A replica that is gone has no streams; what its pods acknowledged they still enforce."""
        for heard_at, records in self._others.values():
            if self._silent(heard_at):
                for record in records.values():
                    if record.streams:
                        record.streams = 0
                        self._revision += 1


def joined(records: Iterable[tuple[str, Record]]) -> Receipt:
    """One pod's receipt from what each replica knows of it.

    The replica with the newest stream says what is offered. An answer may have gone to any of them; what was offered and its
    position tell which answer it belongs to, for clocks of replicas differ.
    """
    known = sorted(records, key=lambda each: (each[1].streams > 0, each[1].since, each[0]))
    replica, owner = known[-1]
    wanted = (owner.offered, owner.position)
    accepted = [record.accepted for _, record in known if record.accepted is not None]
    acked = max(accepted, key=lambda each: ((each.version, each.position) == wanted, each.at), default=None)
    refused = [record.refused for _, record in known if record.refused is not None]
    refusals = [each for each in refused if (each.version, each.position) == wanted]
    refusal = max(refusals, key=lambda each: each.at, default=None)
    in_force = acked is not None and (acked.version, acked.position) == wanted
    if in_force and refusal is not None and acked is not None and acked.at >= refusal.at:
        refusal = None
    trusts = [record.trust for _, record in known if record.trust]
    return Receipt(
        subject=(owner.namespace, owner.service_account),
        pod=owner.pod,
        namespace=owner.namespace,
        schema=owner.schema,
        offered=owner.offered,
        acked=acked.version if acked is not None else "",
        refusal=None if refusal is None else refusal.refusal,
        unexpressed=owner.unexpressed,
        connected=owner.streams > 0,
        software=owner.software,
        trust=owner.trust or (trusts[-1] if trusts else ""),
        since=owner.since,
        replica=replica,
    )
