# SPDX-License-Identifier: Apache-2.0
"""Every report of probers and sidecars, of this replica and, as summaries, of the others: the catalogue as it is known now.

Called by streaming (a report has come), by receipts (summaries between replicas) and by controller (what is known). The loop's
thread only. Refuses to hold what is not about a server that exists, lists whose digest is not theirs, and more than its bounds.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import msgspec

from outrider import fingerprints, names, reports
from outrider_operator import observations

log = logging.getLogger("outrider.operator.sightings")

TOOLS_HELD_MAX = 200_000
"""Names of tools in memory, about 30 MB; of servers that come after that only the number of tools is known."""

GROUPS_MAX = 8
"""Different lists of one server that are kept apart."""

PROBERS_MAX = 8

FORGOTTEN_SECONDS = 660.0
"""Sidecars repeat what they are shown every five minutes, to whichever replica; one that told another one is not meant here."""

SILENT_SECONDS = 15.0
"""A replica that has not been heard of for this long is gone."""

SUMMARY_BYTES_MAX = 2_097_152
"""Roughly; what does not fit is in the next one."""

_TOOL_BYTES = 120


@dataclasses.dataclass(frozen=True, slots=True)
class Reporter:
    """Who reports: a pod, whether it is the prober (whose word is the catalogue's), and of what it may.

    The prober may of all `servers`; None is no limit. `needs`: (server, credential) and ("", identity provider) of its snapshot.
    """

    uid: str
    pod: str
    prober: bool = False
    servers: frozenset[names.ServerId] | None = None
    needs: frozenset[tuple[str, str]] | None = None

    @property
    def namespace(self) -> str:
        return self.pod.partition("/")[0]

    def may_tell(self, server: names.ServerId) -> bool:
        return self.prober or self.servers is None or server in self.servers


class Summary(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one replica has heard since another revision. `contents`: lists by server and digest."""

    revision: int
    entries: dict[str, observations.Entry] = msgspec.field(default_factory=dict)
    contents: dict[str, dict[str, observations.Listed]] = msgspec.field(default_factory=dict)


class _Sight(NamedTuple):
    """A pod, when it was shown a list, and when it said so."""

    pod: str
    listed_at: float
    heard_at: float


@dataclasses.dataclass(slots=True)
class _Content:
    listed: observations.Listed
    revision: int


@dataclasses.dataclass(slots=True)
class _Server:
    """One server as reporters of this replica have told it."""

    revision: int = 0
    probes: dict[str, observations.Probe] = dataclasses.field(default_factory=dict)
    sights: dict[str, dict[str, _Sight]] = dataclasses.field(default_factory=dict)
    contents: dict[str, _Content] = dataclasses.field(default_factory=dict)

    def entry(self) -> observations.Entry:
        groups = [
            observations.Group(
                digest,
                max(sight.listed_at for sight in pods.values()),
                tuple(sorted(sight.pod for sight in pods.values())[: observations.PODS_NAMED_MAX]),
                len(pods),
            )
            for digest, pods in sorted(self.sights.items())
        ]
        return observations.Entry(tuple(self.probes[uid] for uid in sorted(self.probes)), tuple(groups))

    def listings(self) -> dict[str, observations.Listed]:
        return {digest: content.listed for digest, content in self.contents.items()}


@dataclasses.dataclass(slots=True)
class _Replica:
    """Another replica's word, as its summaries have told it so far; `heard_at` is when it last said anything."""

    heard_at: float = 0.0
    entries: dict[names.ServerId, observations.Entry] = dataclasses.field(default_factory=dict)
    contents: dict[names.ServerId, dict[str, observations.Listed]] = dataclasses.field(default_factory=dict)


class Sightings:
    """What is known of every server. `exists` says which servers there are."""

    def __init__(self, exists: Callable[[names.ServerId], bool]) -> None:
        self._exists = exists
        self._servers: dict[names.ServerId, _Server] = {}
        self._replicas: dict[str, _Replica] = {}
        self._revision = 0
        self._held = 0
        self._dirty: set[names.ServerId] = set()
        self._seen: dict[names.ServerId, observations.Observation] = {}

    def reported(self, who: Reporter, report: reports.Report, *, now: float) -> reports.Wanted:
        """Takes a report in; the answer names the servers of which the tools themselves are needed."""
        wanted = []
        for seen in report.servers:
            server = names.server_id(seen.server)
            if server is None or not self._exists(server) or not who.may_tell(server):
                continue
            held = self._servers.setdefault(server, _Server())
            if seen.error:
                if who.prober:
                    self._failed(held, who, seen, now=now)
                    self._touch(server)
                continue
            if not self._content(held, seen):
                if seen.tools is None:
                    wanted.append(seen.server)
                continue
            if who.prober:
                self._probed(held, who, seen, now=now)
            else:
                self._sighted(server, who, seen, now=now)
            self._trim(held)
            self._touch(server)
        return reports.Wanted(servers=tuple(wanted))

    def received(self, who: Reporter, body: bytes, *, now: float) -> bytes:
        """The same as bytes. Raises wire.WireError."""
        return reports.encode(self.reported(who, reports.decode(body), now=now))

    def seen(self) -> Mapping[names.ServerId, observations.Observation]:
        """What is known, of this and all other replicas; the same object until something new is."""
        if self._dirty:
            fresh = dict(self._seen)
            for server in self._dirty:
                made = self._merged(server)
                if made is None:
                    fresh.pop(server, None)
                else:
                    fresh[server] = made
            self._dirty.clear()
            self._seen = fresh
        return self._seen

    def keep(self, pods: Collection[str], *, now: float) -> None:
        """Forgets pods (by uid), servers and replicas that are gone or silent. To be called now and then, on every replica."""
        self._retain(pods, now - FORGOTTEN_SECONDS)
        for replica in [
            each for each, other in self._replicas.items() if other.heard_at < now - SILENT_SECONDS
        ]:
            self._dirty |= self._replicas.pop(replica).entries.keys()
        known = {*self._servers, *(server for other in self._replicas.values() for server in other.entries)}
        for server in [each for each in known if not self._exists(each)]:
            held = self._servers.pop(server, None)
            if held is not None:
                held.probes, held.sights = {}, {}
                self._trim(held)
            for other in self._replicas.values():
                other.entries.pop(server, None)
                other.contents.pop(server, None)
            self._dirty.add(server)

    def _retain(self, pods: Collection[str], since: float) -> None:
        """Keeps what these pods have said since then."""
        for server, held in self._servers.items():
            gone = {
                uid
                for sights in held.sights.values()
                for uid, sight in sights.items()
                if uid not in pods or sight.heard_at < since
            }
            for uid in gone:
                _leave(held, uid)
            if gone:
                self._trim(held)
                self._touch(server)

    def summary(self, known: int) -> Summary:
        """What this replica's own reporters have told after revision `known` (0: everything), a summary's worth of it."""
        found = [
            (held.revision, server, "") for server, held in self._servers.items() if held.revision > known
        ]
        found += [
            (content.revision, server, digest)
            for server, held in self._servers.items()
            for digest, content in held.contents.items()
            if content.revision > known
        ]
        entries: dict[str, observations.Entry] = {}
        contents: dict[str, dict[str, observations.Listed]] = {}
        size, revision = 0, known
        for at, server, digest in sorted(found):
            if size > SUMMARY_BYTES_MAX and at > revision:
                break
            held, revision = self._servers[server], at
            if digest:
                listed = held.contents[digest].listed
                contents.setdefault(str(server), {})[digest] = listed
                size += len(listed.tools) * _TOOL_BYTES
            else:
                entries[str(server)] = held.entry()
                size += _TOOL_BYTES * (8 + sum(len(probe.prompts) for probe in held.probes.values()))
        return Summary(revision, entries, contents)

    @property
    def revision(self) -> int:
        """The latest: a summary that has it leaves nothing out."""
        return self._revision

    def told(self, known: int) -> tuple[bytes, int]:
        """The same as JSON, and the revision up to which it goes."""
        summary = self.summary(known)
        return msgspec.json.encode(summary), summary.revision

    def heard(self, replica: str, told: bytes, *, now: float) -> None:
        """Takes what another replica's `told` made; what cannot be read, of another version's replica, is passed over."""
        try:
            self.merge(replica, msgspec.json.decode(told, type=Summary), now=now)
        except msgspec.DecodeError as error:
            log.warning("sightings not understood", extra={"fields": {"replica": replica, "why": str(error)}})

    def merge(self, replica: str, summary: Summary, *, now: float) -> None:
        """Takes another replica's summary in."""
        other = self._replicas.setdefault(replica, _Replica())
        other.heard_at = now
        for text, listings in summary.contents.items():
            if (server := names.server_id(text)) is not None and self._exists(server):
                other.contents.setdefault(server, {}).update(listings)
                self._dirty.add(server)
        for text, entry in summary.entries.items():
            server = names.server_id(text)
            if server is None:
                continue
            self._dirty.add(server)
            if not self._exists(server):
                other.entries.pop(server, None)
                other.contents.pop(server, None)
                continue
            other.entries[server] = entry
            used = {probe.digest for probe in entry.probes} | {group.digest for group in entry.groups}
            held = other.contents.get(server, {})
            other.contents[server] = {digest: held[digest] for digest in held if digest in used}

    def _merged(self, server: names.ServerId) -> observations.Observation | None:
        own = self._servers.get(server)
        entries = [] if own is None else [own.entry()]
        contents: dict[str, observations.Listed] = {}
        for other in self._replicas.values():
            if server in other.entries:
                entries.append(other.entries[server])
                contents.update(other.contents.get(server, {}))
        if own is not None:
            contents.update(own.listings())
        return observations.merged(entries, contents)

    def _content(self, held: _Server, seen: reports.Seen) -> bool:
        """Whether the list behind the digest is known, or told here and true."""
        if seen.digest in held.contents:
            return True
        tools = seen.tools
        if tools is None or len(dict(tools)) != len(tools) or fingerprints.digest(tools) != seen.digest:
            return False
        ordered = sorted(tools)
        most = observations.FINGERPRINTS_MAX
        shown = (*ordered[:most], *((name, "") for name, _ in ordered[most:]))
        if self._held + len(shown) > TOOLS_HELD_MAX:
            shown = ()
        self._held += len(shown)
        held.contents[seen.digest] = _Content(observations.Listed(shown, len(tools)), self._revision + 1)
        return True

    def _probed(self, held: _Server, who: Reporter, seen: reports.Seen, *, now: float) -> None:
        before = held.probes.get(who.uid)
        at = now - seen.age_seconds
        same = before is not None and before.digest == seen.digest
        info = {"name": seen.server_name, "version": seen.server_version}
        # What could not be listed this time is still what was listed last.
        prompts, count = (seen.prompts, seen.prompt_count) if seen.prompts is not None else (
            ((), 0) if before is None else (before.prompts, before.prompt_count)
        )  # fmt: skip
        told = before if seen.resources is None and before is not None else seen
        held.probes[who.uid] = observations.Probe(
            who.uid, at, good_at=at, since=before.since if same and before is not None else at,
            digest=seen.digest, unusable=seen.unusable,
            server_info={key: text for key, text in info.items() if text},
            protocol_versions=seen.protocol_versions, prompts=tuple(sorted(prompts)), prompt_count=count,
            instructions=seen.instructions, resources=told.resources or "", resource_count=told.resource_count,
            template_count=told.template_count,
        )  # fmt: skip
        _bounded(held)

    def _failed(self, held: _Server, who: Reporter, seen: reports.Seen, *, now: float) -> None:
        before = held.probes.get(who.uid) or observations.Probe(who.uid, 0.0)
        held.probes[who.uid] = msgspec.structs.replace(
            before, tried_at=now - seen.age_seconds, error=seen.error
        )
        _bounded(held)

    def _sighted(self, server: names.ServerId, who: Reporter, seen: reports.Seen, *, now: float) -> None:
        held = self._servers[server]
        _leave(held, who.uid)
        crowded = seen.digest not in held.sights and len(held.sights) >= GROUPS_MAX
        digest = "" if crowded else seen.digest
        held.sights.setdefault(digest, {})[who.uid] = _Sight(who.pod, now - seen.age_seconds, now)

    def _trim(self, held: _Server) -> None:
        """Forgets lists that nobody is shown any more."""
        used = {probe.digest for probe in held.probes.values()} | held.sights.keys()
        for digest in held.contents.keys() - used:
            self._held -= len(held.contents.pop(digest).listed.tools)

    def _touch(self, server: names.ServerId) -> None:
        self._revision += 1
        self._servers[server].revision = self._revision
        self._dirty.add(server)


def _leave(held: _Server, uid: str) -> None:
    """A pod is not shown any of the lists any more."""
    for digest in [each for each, pods in held.sights.items() if uid in pods]:
        del held.sights[digest][uid]
        if not held.sights[digest]:
            del held.sights[digest]


def _bounded(held: _Server) -> None:
    """Probers come and go under new uids: the ones that tried last count."""
    while len(held.probes) > PROBERS_MAX:
        del held.probes[min(held.probes, key=lambda uid: held.probes[uid].tried_at)]
