# SPDX-License-Identifier: Apache-2.0
"""Compiler: `compile.snapshot` with a memory, so that a change costs what it concerns.

Called by the operator, which gives it one world after another and asks for the workloads it serves. It remembers, and nothing
else: for the same world it says byte for byte what `compile.snapshot` says (a property of the tests). Refuses to keep what no
workload in use needs.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from outrider import names, resources
from outrider import snapshot as snapshots
from outrider.compile import assembly, audience, objects, scope, views
from outrider.compile.objects import Object
from outrider.compile.workloads import Memo

Subject = tuple[str, str]
"""(namespace, ServiceAccount): whom a snapshot is for."""

_ALIKE_MAX = 256
"""Different views of one server that workloads share."""

_CONTENT_BYTES_MAX = 64 * 1024 * 1024
"""Encoded snapshots kept; those used least lately are encoded again when somebody asks."""


@dataclasses.dataclass(frozen=True, slots=True)
class Changes:
    """What a new world may have changed: never too little, sometimes too much. `delta` says which objects differ."""

    delta: objects.Delta
    subjects: frozenset[Subject]
    """Of those in use, whose snapshot may be different now."""

    def __bool__(self) -> bool:
        return bool(self.delta)


@dataclasses.dataclass(frozen=True, slots=True)
class Compiled:
    """A snapshot in its one byte form; `version` is the digest of `content`."""

    content: bytes
    version: str


class Part(NamedTuple):
    """What one object is in a workload's snapshot: since which revision it is as it is now; `held` False: it is not in it."""

    since: int
    held: bool


class Compiler:
    """Snapshots of the current world, by workload."""

    def __init__(
        self, *, loopback: bool = False, bridges: Mapping[names.ServerId, str] | None = None
    ) -> None:
        self.objects = objects.Objects()
        self._site = assembly.Site(loopback=loopback, bridges=bridges or {})
        self._memos: dict[Subject, Memo] = {}
        self._openers: dict[str, dict[Object, resources.MCPToolPolicy]] = {}
        self._concerned: dict[Object, set[Subject]] = {}
        self._alike: dict[names.ServerId, dict[snapshots.ServerView, snapshots.ServerView]] = {}
        self._contents: OrderedDict[Subject, Compiled] = OrderedDict()
        self._content_bytes = 0

    @property
    def subjects(self) -> frozenset[Subject]:
        """The workloads remembered."""
        return frozenset(self._memos)

    def update(self, world: resources.World, *, epoch: int = 1) -> Changes:
        """Makes `world` the current one. Compiles nothing yet: that is done for who asks, when they ask."""
        delta = self.objects.advance(world)
        site = dataclasses.replace(self._site, epoch=epoch, refused=world.api_servers)
        everything, self._site = delta.settings or site != self._site, site
        self._reopen(delta)
        touched = self._touched(delta)
        for server in {server for touch in touched for server in touch.servers}:
            self._alike.pop(server, None)
        concerned = set()
        for subject, memo in self._memos.items():
            if everything or subject[0] in delta.namespaces:
                case = self.objects.case(*subject)
                if everything or case.workload != memo.case.workload:
                    memo.case, memo.fresh = case, False
                    concerned.add(subject)
                    continue
            if _touch(memo, touched):
                concerned.add(subject)
        return Changes(delta, frozenset(concerned))

    def snapshot(self, namespace: str, service_account: str) -> snapshots.Snapshot:
        """What the proxy of one ServiceAccount enforces; remembered until `keep` leaves it out."""
        made = self._current((namespace, service_account)).made
        assert made is not None, "a current memo has a snapshot"
        return made

    def compiled(self, namespace: str, service_account: str) -> Compiled:
        """The same as bytes, with their version."""
        subject = (namespace, service_account)
        memo = self._current(subject)
        found = self._contents.get(subject)
        if found is None:
            return self._encode(subject, memo)
        self._contents.move_to_end(subject)
        return found

    def note(self, subject: Subject, version: str) -> None:
        """Remembers `version`, made of the current snapshot for an older schema, as being of it."""
        self._current(subject).note(version)

    def revision(self, subject: Subject, version: str) -> int:
        """Which revision of its snapshot a version is; 0 for one that is not known."""
        memo = self._memos.get(subject)
        return 0 if memo is None else memo.versions.get(version, 0)

    def concerned(self, thing: Object) -> Mapping[Subject, Part]:
        """Whose snapshot holds this object, or held it until a change that not all of its pods have acknowledged."""
        found = {}
        for subject in sorted(self._concerned.get(thing, ())):
            memo = self._current(subject)
            if thing in memo.changed:
                found[subject] = Part(memo.changed[thing], thing in memo.held)
        return found

    def held(self, subject: Subject) -> frozenset[Object]:
        """The objects in a workload's snapshot."""
        return frozenset(self._current(subject).held)

    def spoken(self, subject: Subject) -> frozenset[Object]:
        """Every object of which `concerned` names this workload."""
        return frozenset(self._current(subject).changed)

    def settled(self, subject: Subject, revision: int) -> frozenset[Object]:
        """Every pod of the workload holds this revision or a later one: what left it before is forgotten, and returned."""
        memo = self._memos.get(subject)
        if memo is None:
            return frozenset()
        gone = frozenset(
            each for each, since in memo.changed.items() if since <= revision and each not in memo.held
        )
        for each in gone:
            del memo.changed[each]
            self._forget(each, subject)
        return gone

    def afresh(self) -> Compiler:
        """Another Compiler of the same world that remembers nothing, to compare with."""
        made = Compiler(loopback=self._site.loopback, bridges=self._site.bridges)
        made.update(self.objects.world, epoch=self._site.epoch)
        return made

    def reset(self) -> None:
        """Makes everything anew from the current world, should what is remembered ever be wrong."""
        world = self.objects.world
        self.objects.clear()
        self._openers.clear()
        self._alike.clear()
        self.update(world, epoch=self._site.epoch)
        for subject, memo in self._memos.items():
            memo.case, memo.fresh = self.objects.case(*subject), False

    def keep(self, subjects: Iterable[Subject]) -> None:
        """Forgets every other workload."""
        for subject in self._memos.keys() - set(subjects):
            for each in self._memos.pop(subject).changed:
                self._forget(each, subject)
            self._drop(subject)

    def _current(self, subject: Subject) -> Memo:
        """The memo of a workload, brought up to the current world."""
        memo = self._memos.get(subject)
        if memo is None:
            memo = self._memos[subject] = Memo(self.objects.case(*subject))
        if memo.fresh and not memo.stale:
            return memo
        viewing = memo.stale if memo.fresh else self._candidates(memo) | memo.views.keys()
        touched: set[Object] = set()
        for server in viewing:
            touched |= memo.see(server, self._view(memo.case, server))
        memo.fresh, memo.stale = True, set()
        made = assembly.assembled(memo.case, memo.views.values(), self._site)
        if made != memo.made:
            memo.made = made
            memo.revision += 1
            memo.mark(touched)
            self._encode(subject, memo)
            for each in touched:
                self._concerned.setdefault(each, set()).add(subject)
        return memo

    def _encode(self, subject: Subject, memo: Memo) -> Compiled:
        """The bytes of a memo's snapshot, kept as long as there is room."""
        assert memo.made is not None, "a current memo has a snapshot"
        content = snapshots.canonical(memo.made)
        found = Compiled(content, snapshots.digest(content))
        memo.note(found.version)
        self._drop(subject)
        self._contents[subject] = found
        self._content_bytes += len(content)
        while self._content_bytes > _CONTENT_BYTES_MAX and len(self._contents) > 1:
            self._drop(next(iter(self._contents)))
        return found

    def _view(self, case: scope.Case, server: names.ServerId) -> snapshots.ServerView | None:
        made = self.objects.servers.get(server)
        url = None if made is None else assembly.address(made, self._site)
        if made is None or url is None:
            return None
        view = views.view(case, made, url=url)
        if view is None:
            return None
        # Most workloads see a server alike: a thousand of them share one view.
        alike = self._alike.setdefault(server, {})
        if len(alike) >= _ALIKE_MAX:
            alike.clear()
        return alike.setdefault(view, view)

    def _candidates(self, memo: Memo) -> set[names.ServerId]:
        """Every server that some Allow could let the workload see."""
        platform = self.objects.world.settings.platform_namespace
        found: set[names.ServerId] = set()
        for mark in audience.marks(memo.case.workload):
            for made in self._openers.get(mark, {}).values():
                found |= self.objects.covered(made.metadata.namespace, audience.opening(made, platform))
        return found

    def _touched(self, delta: objects.Delta) -> list[audience.Touch]:
        """What the edits may have changed for whom, of the objects as they were and as they are."""
        everyone = frozenset({audience.EVERYONE})
        edited = frozenset(names.ServerId(*edit.object[1:]) for edit in delta.servers)
        found = [audience.Touch(everyone, edited)] if edited else []
        for policy in delta.policies:
            for made in policy.sides:
                found += audience.touches(self.objects, made)
        for budget in delta.budgets:
            for made_budget in budget.sides:
                found += audience.touches(self.objects, made_budget)
        return found

    def _reopen(self, delta: objects.Delta) -> None:
        """Keeps `_openers`: by mark, the policies whose Allows may let somebody with that mark see a server."""
        for edit in delta.policies:
            if edit.old is not None:
                for mark in audience.of_allows(edit.old):
                    del self._openers[mark][edit.object]
            if edit.new is not None:
                for mark in audience.of_allows(edit.new):
                    self._openers.setdefault(mark, {})[edit.object] = edit.new

    def _drop(self, subject: Subject) -> None:
        dropped = self._contents.pop(subject, None)
        self._content_bytes -= 0 if dropped is None else len(dropped.content)

    def _forget(self, thing: Object, subject: Subject) -> None:
        concerned = self._concerned.get(thing, set())
        concerned.discard(subject)
        if not concerned:
            self._concerned.pop(thing, None)


def _touch(memo: Memo, touched: Iterable[audience.Touch]) -> bool:
    """Marks what one workload has to view anew; True when that is anything."""
    if not memo.fresh:
        return True
    marks = audience.marks(memo.case.workload)
    for touch in touched:
        if touch.only not in (None, memo.case.workload.namespace) or marks.isdisjoint(touch.audience):
            continue
        if touch.opens:
            memo.stale |= touch.servers
        else:
            memo.stale.update(server for server in memo.views if server in touch.servers)
    return bool(memo.stale)
