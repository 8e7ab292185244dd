# SPDX-License-Identifier: Apache-2.0
"""The objects of a Kubernetes API server, watched, as a World.

Called by controller. Truth is what the reflectors hold: this module turns it into objects in force, waits for a moment of quiet, and
says what it all stands for (position, epoch). Refuses to make a World before everything was read once, and to make one of settings
that are absent or broken: teams say whom a Deny is about, so nobody may guess them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any

import aiohttp

from outrider import compile as compiler
from outrider import manifests, names, resources, snapshot
from outrider.compile import scope
from outrider_operator import access, apiservers, arrivals, collection, events, pods, reflector
from outrider_operator.sources import configmap, objects

log = logging.getLogger("outrider.operator.source")

DEBOUNCE_SECONDS = 0.05
DEBOUNCE_SECONDS_MAX = 0.5
"""Changes are used when it has been quiet for a moment, and at the latest after this."""

_SLICE_SECONDS = 0.005
_RETRY_SECONDS = 2.0

COLLECTIONS = {"MCPServer": "servers", "MCPToolPolicy": "policies", "MCPBudget": "budgets"}
"""What positions, metrics and sentences call the objects of a kind."""

_POSITIONS = (*COLLECTIONS.values(), "namespaces", "settings")
"""What a snapshot is made of; pods are not."""

_NAMESPACES = reflector.Watched("", "v1", "namespaces")
_PODS = reflector.Watched(
    "",
    "v1",
    "pods",
    label_selector=f"{pods.INJECTED_LABEL}=true",
    field_selector="status.phase!=Succeeded,status.phase!=Failed",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """The installation: its namespace and its name. Everything of it is called after these."""

    namespace: str
    name: str

    @property
    def settings(self) -> str:
        return f"{self.name}-settings"


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """A World, what it stands for, and the objects that were read anew since the last one, broken ones included."""

    world: resources.World
    position: snapshot.Position
    epoch: int
    things: frozenset[compiler.Object]


@dataclasses.dataclass(frozen=True, slots=True)
class Api:
    """What is asked of the API server besides lists and watches."""

    crd_state: Callable[[str], Awaitable[Any]]
    kube_system_uid: Callable[[], Awaitable[str]]
    api_servers: Callable[[], Awaitable[tuple[str, ...]]]


class Source:
    """Everything watched. `tell` is given the events that a person should see."""

    def __init__(
        self,
        reached: access.Access,
        session: aiohttp.ClientSession,
        api: Api,
        place: Place,
        *,
        tell: Callable[[events.Event], None] = lambda _event: None,
    ) -> None:
        self._place, self._api, self._tell = place, api, tell
        self._shelf = objects.Shelf()
        self._pods: dict[str, pods.Pod] = {}
        self._labels: Mapping[str, Mapping[str, str]] = {}
        self._settings: resources.Settings | None = None
        self.complaints: tuple[manifests.Problem, ...] = ()
        self._installation = ""
        self._unidentified = "it was not asked for yet"
        self._world = resources.World()
        self._position: snapshot.Position = {}
        self._pending: dict[compiler.Object, Mapping[str, Any] | None] = {}
        self._fresh: set[compiler.Object] = set()
        self._dirty = asyncio.Event()
        self._frozen: set[str] = set()
        self._reset_for: int | None = None
        self.api_servers = apiservers.ApiServers(api.api_servers, self._dirty.set)
        self.reflectors = self._made(reached, session)

    # What others ask.

    @property
    def epoch(self) -> int:
        """Of the positions: another one when the cluster is another, or the settings say that etcd was restored."""
        given = self._settings.epoch if self._settings is not None else 0
        digest = hashlib.sha256(f"{self._installation}/{given}".encode()).digest()
        return int.from_bytes(digest[:6], "big") or 1

    @property
    def position(self) -> snapshot.Position:
        """What the last World stands for by now: with nothing left to be read, everything heard since."""
        heard = self._heard()
        if self._dirty.is_set() or self._pending or not self._position or not all(heard.values()):
            return self._position
        return heard

    @property
    def settings(self) -> resources.Settings | None:
        """Those in force; None before any were read."""
        return self._settings

    def pods(self) -> Mapping[str, pods.Pod]:
        """The injected pods that have not ended, by uid."""
        return self._pods

    def watched(self, thing: compiler.Object) -> objects.Watched | None:
        return self._shelf.of(thing[0]).get((thing[1], thing[2]))

    def everything(self) -> Iterable[compiler.Object]:
        """Every object of our kinds."""
        return [each.object for kind in COLLECTIONS for each in self._shelf.of(kind).values()]

    def frozen(self, kind: str) -> str:
        """Why a kind cannot be read now, as a sentence; '' when it can."""
        state = self.reflectors[COLLECTIONS[kind]].state
        if state.phase is not reflector.Phase.FROZEN:
            return ""
        return f"The operator stays on what it knew of {kind} objects: {state.why.rstrip('.')}."

    def gone(self) -> Mapping[str, str]:
        """The kinds whose CRD is absent or being deleted, each with the sentence: they are not ours to serve then."""
        absent = reflector.Reason.CRD_GONE
        states = {name: each.state for name, each in self.reflectors.items()}
        return {name: state.why for name, state in states.items() if state.reason is absent}

    def unready(self) -> tuple[str, ...]:
        """Why there is no World yet, a sentence each; () when there is one."""
        found = [
            f"{name}: {each.state.why or 'not read yet'}"
            for name, each in self.reflectors.items()
            if each.state.phase is reflector.Phase.WAITING
        ]
        if self._settings is None and not found:
            # Where there is no ConfigMap, nobody ever said that it changed.
            read = self._read_settings(self.reflectors["settings"].objects)
            found += [f"settings: {problem}" for problem in (read if isinstance(read, tuple) else ())]
        if not self._installation:
            found.append(f"which cluster this is (the uid of kube-system) is not known: {self._unidentified}")
        return tuple(found)

    def catch_up(self, position: snapshot.Position) -> None:
        """Somebody says they hold a higher position: looks at whatever is behind it, which is not believed before it is seen."""
        for name, held in position.items():
            each = self.reflectors.get(name)
            if each is not None:
                each.relist(held)

    def nudge(self, kind: str, namespace: str, name: str, resource_version: str) -> None:
        """Somebody heard of a change of one object, perhaps before its watch did."""
        self.reflectors[COLLECTIONS[kind]].nudge((namespace, name), resource_version)

    # What happens.

    async def run(self) -> None:
        """Watches until cancelled. A reflector ends only by a bug, and then this ends with it."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._identify())
            group.create_task(self.api_servers.run())
            for each in self.reflectors.values():
                group.create_task(each.run())

    async def readings(self) -> AsyncIterator[Reading]:
        """The first reading when everything was read once, then one after every change; never ends."""
        await self.api_servers.looked()
        while True:
            await self._dirty.wait()
            await self._settled()
            self._dirty.clear()
            await self._read()
            if self.unready() or self._settings is None:
                continue
            if not all(self._heard().values()):
                # Positions start over, and not everything was read anew yet.
                await asyncio.sleep(DEBOUNCE_SECONDS)
                self._dirty.set()
                continue
            self._world = self._assembled(self._settings)
            self._position = self._heard()
            things, self._fresh = frozenset(self._fresh), set()
            yield Reading(self._world, self._position, self.epoch, things)

    async def _settled(self) -> None:
        """Waits for a moment of quiet."""
        began = time.monotonic()
        while time.monotonic() - began < DEBOUNCE_SECONDS_MAX:
            self._dirty.clear()
            await asyncio.sleep(DEBOUNCE_SECONDS)
            if not self._dirty.is_set():
                return

    async def _read(self) -> None:
        """Reads what changed, in slices: thousands of objects at the start must not stop the loop."""
        began = time.monotonic()
        while self._pending:
            thing = next(iter(self._pending))
            raw = self._pending.pop(thing)
            kind, namespace, name = thing
            if raw is None:
                self._shelf.drop(kind, namespace, name)
            else:
                self._shelf.put(kind, raw)
            self._fresh.add(thing)
            if time.monotonic() - began > _SLICE_SECONDS:
                await asyncio.sleep(0)
                began = time.monotonic()

    def _assembled(self, given: resources.Settings) -> resources.World:
        servers, policies, budgets = (self._shelf.placed(kind) for kind in COLLECTIONS)
        return resources.World(
            servers=servers, policies=policies, budgets=budgets, settings=given, namespaces=self._labels,
            api_servers=self.api_servers.addresses,
        )  # fmt: skip

    def _heard(self) -> snapshot.Position:
        return {name: self.reflectors[name].resource_version for name in _POSITIONS}

    async def _identify(self) -> None:
        """Learns which cluster this is; positions of another one say nothing here."""
        while not self._installation:
            try:
                self._installation = await self._api.kube_system_uid()
            except Exception as error:  # noqa: BLE001 - asked again whatever it was; readiness says that it is missing
                why = str(error) or repr(error)
                if why != self._unidentified:
                    log.warning("the cluster's identity is not known", extra={"fields": {"why": why}})
                self._unidentified = why
                await asyncio.sleep(_RETRY_SECONDS)
        self._dirty.set()

    # What the reflectors say.

    def _made(self, reached: access.Access, session: aiohttp.ClientSession) -> dict[str, reflector.Reflector]:
        group, version = names.API_VERSION.split("/")
        made: dict[str, reflector.Reflector] = {}

        def watch(name: str, watched: reflector.Watched, changed: Callable[[Any], None], **more: Any) -> None:
            stated = functools.partial(self._stated, name)
            alarmed = functools.partial(self._alarmed, name)
            made[name] = reflector.Reflector(
                reached, session, watched, changed=changed, stated=stated, alarmed=alarmed, **more
            )

        for kind, plural in objects.PLURALS.items():
            crd_state = functools.partial(self._api.crd_state, f"{plural}.{group}")
            changed = functools.partial(self._changed, kind)
            watch(
                COLLECTIONS[kind],
                reflector.Watched(group, version, plural),
                changed,
                trim=objects.trim,
                crd_state=crd_state,
            )
        watch("namespaces", _NAMESPACES, self._relabelled, trim=objects.trim_namespace)
        selected = f"metadata.name={self._place.settings}"
        configured = reflector.Watched(
            "", "v1", "configmaps", namespace=self._place.namespace, field_selector=selected
        )
        watch("settings", configured, self._configured, trim=configmap.trim, looked=self._looked)
        watch("pods", _PODS, self._moved, trim=pods.trim, forward_only=False)
        return made

    def _changed(self, kind: str, changes: list[collection.Change]) -> None:
        for change in changes:
            namespace, name = change.key
            # Forgotten first, so that what is read last is what came last.
            self._pending.pop((kind, namespace, name), None)
            self._pending[kind, namespace, name] = change.after
        self._dirty.set()

    def _relabelled(self, changes: list[collection.Change]) -> None:
        labels = dict(self._labels)
        for change in changes:
            given = (change.after or {}).get("metadata", {}).get("labels", {})
            labels.pop(change.key[1], None)
            if scope.TEAM_LABEL in given:
                labels[change.key[1]] = {scope.TEAM_LABEL: given[scope.TEAM_LABEL]}
        if labels != self._labels:
            self._labels = labels
        self._dirty.set()

    def _moved(self, changes: list[collection.Change]) -> None:
        for change in changes:
            if change.before is not None:
                self._pods.pop(change.before["metadata"].get("uid", ""), None)
            if change.after is not None:
                made = pods.pod(change.after)
                self._pods[made.uid] = made
        for event in arrivals.news(changes, time.time()):
            self._tell(event)
        self._dirty.set()

    def _configured(self, _changes: list[collection.Change]) -> None:
        """Takes the settings as they are now; those that are broken or gone change nothing."""
        read = self._read_settings(self.reflectors["settings"].objects)
        if isinstance(read, resources.Settings):
            before, self._settings = self._settings, read
            self.complaints = ()
            if before is not None and before.epoch != read.epoch:
                self._reset(read.epoch)
        else:
            self.complaints = read
            text = "; ".join(str(problem) for problem in read)
            kept = (
                "the last valid ones stay in force"
                if self._settings is not None
                else "nothing is served without any"
            )
            log.error("settings not used", extra={"fields": {"why": text, "so": kept}})
            message = f"The settings are not used, {kept}: {text}"
            self._say(
                self._reference("v1", "ConfigMap", self._place.settings),
                events.Reason.SETTINGS_INVALID,
                message,
            )
        self._dirty.set()

    def _read_settings(self, found: configmap.Found) -> resources.Settings | tuple[manifests.Problem, ...]:
        return configmap.read(found, self._place.namespace, self._place.settings)

    def _looked(self, found: configmap.Found) -> None:
        """What the API server has while its positions went back: a raised epoch says that this is meant."""
        read = self._read_settings(found)
        known = self._settings.epoch if self._settings is not None else 0
        if isinstance(read, resources.Settings) and read.epoch > known:
            self._reset(read.epoch)

    def _reset(self, epoch: int) -> None:
        """Positions start over, once for an epoch however often it is read."""
        if epoch == self._reset_for:
            return
        self._reset_for = epoch
        log.warning("the settings' epoch changed; positions start over")
        for each in self.reflectors.values():
            each.reset()

    def _stated(self, name: str, state: reflector.State) -> None:
        """A reflector freezes, or goes on."""
        self._dirty.set()
        frozen = state.phase is reflector.Phase.FROZEN
        if frozen == (name in self._frozen):
            return
        (self._frozen.add if frozen else self._frozen.discard)(name)
        reason = events.Reason.FROZEN if frozen else events.Reason.THAWED
        text = f"{name} are frozen: {state.why}" if frozen else f"{name} can be read again."
        self._say(self._reference("coordination.k8s.io/v1", "Lease", self._place.name), reason, text)

    def _alarmed(self, name: str, deleted: int, known: int) -> None:
        text = f"{deleted} of {known} {name} were deleted at once. They are gone from the configuration; was it meant?"
        about = self._reference("coordination.k8s.io/v1", "Lease", self._place.name)
        self._say(about, events.Reason.MASS_DELETION, text)

    def _reference(self, api_version: str, kind: str, name: str) -> events.Reference:
        return events.Reference(api_version, kind, self._place.namespace, name)

    def _say(self, regarding: events.Reference, reason: events.Reason, text: str) -> None:
        kind = "Normal" if reason is events.Reason.THAWED else "Warning"
        self._tell(events.Event(regarding, kind, reason, text[:1024]))
