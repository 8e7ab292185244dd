# SPDX-License-Identifier: Apache-2.0
"""What is known of servers because somebody called them: the prober's catalogue, and what sidecars were shown instead.

`merged` is called by sightings, its result read by conditions and by the inspection of rules that name tools. Pure. Nothing here
is a promise: it says when it was seen, and what is only believed is not called different.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterable, Mapping

import msgspec

FINGERPRINTS_MAX = 500
"""Of the tools beyond, in the order of their names, only the name is kept."""

PODS_NAMED_MAX = 5
_TOOLS_NAMED_MAX = 3

_AGREE_SECONDS = 180.0
"""Probers that tried within this of each other look at the same moment: one that gets through is enough."""

Tools = tuple[tuple[str, str], ...]
"""(name, fingerprint), by name."""


@dataclasses.dataclass(frozen=True, slots=True)
class Observation:
    """One server as it was last seen, at `seen_at` (Unix seconds).

    `prompts` are the first by name of `prompt_count`, None when no prober has told; `instructions` and `resources` are the
    fingerprints of those the server gives, '' for none.
    `reachable` None: not tried yet. `tools`: (name, fingerprint), kept while the server is away; of those beyond the first 500 the
    fingerprint is ''. `complete` False: there are more than are held. `differing`: the pods that are shown other definitions, and
    in what.
    """

    reachable: bool | None = None
    message: str = ""
    tools: Tools = ()
    protocol_versions: tuple[str, ...] = ()
    server_info: Mapping[str, str] = dataclasses.field(default_factory=dict)
    seen_at: float = 0.0
    differing: tuple[tuple[str, str], ...] = ()
    total: int = 0
    complete: bool = True
    prompts: Tools | None = None
    prompt_count: int = 0
    instructions: str = ""
    resources: str = ""
    resource_count: int = 0
    template_count: int = 0


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Travels between replicas inside a summary."""


class Listed(_Part, frozen=True):
    """A list of tools, as much of it as is held; `total` counts them all."""

    tools: Tools = ()
    total: int = 0


class Probe(_Part, frozen=True):
    """What one prober (a pod's uid) found: its last try, and the last one that went well (`good_at` 0: none).

    `since`: from when on it has found `digest`. Times in Unix seconds.
    """

    uid: str
    tried_at: float
    error: str = ""
    good_at: float = 0.0
    since: float = 0.0
    digest: str = ""
    unusable: int = 0
    server_info: dict[str, str] = msgspec.field(default_factory=dict)
    protocol_versions: tuple[str, ...] = ()
    prompts: Tools = ()
    prompt_count: int = 0
    instructions: str = ""
    resources: str = ""
    resource_count: int = 0
    template_count: int = 0


class Group(_Part, frozen=True):
    """Pods that are shown one and the same list, and when the latest of them was; some of their names, and how many they are.

    `digest` '': lists of which there are too many to keep apart.
    """

    digest: str
    listed_at: float
    pods: tuple[str, ...]
    count: int


class Entry(_Part, frozen=True):
    """One server as one replica has heard of it."""

    probes: tuple[Probe, ...] = ()
    groups: tuple[Group, ...] = ()


def merged(entries: Iterable[Entry], contents: Mapping[str, Listed]) -> Observation | None:
    """What several replicas have heard of one server, as one; None when that is nothing. `contents` are lists by digest."""
    parts = list(entries)
    probes = _latest(probe for entry in parts for probe in entry.probes)
    groups = _joined(group for entry in parts for group in entry.groups)
    good = max((probe for probe in probes if probe.good_at), key=lambda probe: probe.good_at, default=None)
    if not probes:
        return _as_sidecars_see_it(groups, contents)
    newest = max(probes, key=lambda probe: probe.tried_at)
    now = [probe for probe in probes if probe.tried_at > newest.tried_at - _AGREE_SECONDS]
    reachable = any(not probe.error for probe in now)
    message = "" if reachable else _away(newest.error, good)
    if good is None:
        shown = _as_sidecars_see_it(groups, contents)
        made = Observation(reachable, message, seen_at=newest.tried_at)
        return made if shown is None else dataclasses.replace(
            made, tools=shown.tools, total=shown.total, complete=shown.complete
        )  # fmt: skip
    listed = contents.get(good.digest, Listed())
    return Observation(
        reachable=reachable,
        message=message,
        tools=listed.tools,
        protocol_versions=good.protocol_versions,
        server_info=good.server_info,
        seen_at=newest.tried_at,
        differing=_differing(good, listed, groups, contents),
        prompts=good.prompts,
        prompt_count=good.prompt_count,
        instructions=good.instructions,
        resources=good.resources,
        resource_count=good.resource_count,
        template_count=good.template_count,
        total=listed.total,
        complete=listed.total == len(listed.tools),
    )


def _latest(probes: Iterable[Probe]) -> list[Probe]:
    """Each prober's latest, for it may have talked to several replicas in turn."""
    found: dict[str, Probe] = {}
    for probe in probes:
        held = found.get(probe.uid)
        if held is None or held.tried_at < probe.tried_at:
            found[probe.uid] = probe
    return [found[uid] for uid in sorted(found)]


def _joined(groups: Iterable[Group]) -> list[Group]:
    found: dict[str, Group] = {}
    for group in groups:
        held = found.get(group.digest)
        if held is not None:
            pods = tuple(sorted({*held.pods, *group.pods})[:PODS_NAMED_MAX])
            latest = max(held.listed_at, group.listed_at)
            group = Group(group.digest, latest, pods, held.count + group.count)  # noqa: PLW2901 -- the two as one
        found[group.digest] = group
    return [found[digest] for digest in sorted(found)]


def _away(error: str, good: Probe | None) -> str:
    if good is None:
        return error
    return f"{error.rstrip('.')}; it last answered at {stamp(good.good_at)}."


def stamp(seconds: float) -> str:
    """A moment as Kubernetes writes it."""
    moment = dt.datetime.fromtimestamp(int(seconds), tz=dt.UTC)
    return moment.isoformat().replace("+00:00", "Z")


def _as_sidecars_see_it(groups: list[Group], contents: Mapping[str, Listed]) -> Observation | None:
    """Without a prober's catalogue: what most pods are shown."""
    known = [group for group in groups if group.digest in contents]
    if not known:
        return None
    most = max(known, key=lambda group: (group.count, group.listed_at, group.digest))
    listed = contents[most.digest]
    return Observation(
        reachable=True,
        tools=listed.tools,
        seen_at=max(group.listed_at for group in known),
        total=listed.total,
        complete=listed.total == len(listed.tools),
    )


def _differing(
    good: Probe, listed: Listed, groups: list[Group], contents: Mapping[str, Listed]
) -> tuple[tuple[str, str], ...]:
    """The pods that were shown something else while the prober, before and after, found what it finds now.

    A list from before the last change, or after the prober's last look, may just be of another time.
    """
    found: list[tuple[str, str]] = []
    for group in groups:
        if group.digest == good.digest or not good.since <= group.listed_at <= good.good_at:
            continue
        text = _difference(listed, contents.get(group.digest))
        if group.count > len(group.pods):
            text = f"{text} (so are {group.count - len(group.pods)} more pods)"
        found += [(pod, text) for pod in group.pods]
    return tuple(sorted(found))


def _difference(ours: Listed, theirs: Listed | None) -> str:
    if theirs is None:
        return "its list is not the catalogue's"
    here, there = dict(ours.tools), dict(theirs.tools)
    changed = [name for name, mark in here.items() if there.get(name, mark) != mark]
    more, less = [name for name in there if name not in here], [name for name in here if name not in there]
    said = [
        f"{verb} {_several(which)}"
        for verb, which in (("changed:", changed), ("more:", more), ("missing:", less))
        if which
    ]
    return "; ".join(said) or f"it differs beyond the first {FINGERPRINTS_MAX} tools"


def _several(which: list[str]) -> str:
    rest = len(which) - _TOOLS_NAMED_MAX
    return ", ".join(sorted(which)[:_TOOLS_NAMED_MAX]) + (f" and {rest} more" if rest > 0 else "")
