# SPDX-License-Identifier: Apache-2.0
"""Inspection: `compile.check` with a memory, done piece by piece when there is time.

Called by the operator after a push, never before it: a finding changes no decision. When everything is done it says what
`compile.check` says (a property of the tests); until then what it said last about the objects that are still to be looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from outrider import findings, names, resources
from outrider.compile import checks, objects, shadows
from outrider.compile.checks import Definitions
from outrider.compile.objects import Object
from outrider.findings import Reason

Governing = resources.MCPToolPolicy | resources.MCPBudget


class Inspection:
    """Findings about the objects that a Compiler knows."""

    def __init__(
        self, known: objects.Objects, *, bridges: Mapping[names.ServerId, str] | None = None
    ) -> None:
        self._known = known
        self._bridges = bridges or {}
        self._definitions: Definitions = {}
        self._prompts: Definitions = {}
        self._ground: checks.Ground | None = None
        self._found: dict[Object, tuple[findings.Finding, ...]] = {}
        self._counts: Counter[str] = Counter()
        self._governing: dict[Object, Governing] = {}
        self._lost: set[Object] = set()
        self._stale: dict[Object, None] = {}

    @property
    def done(self) -> bool:
        """False while something is still to be looked at."""
        return not self._stale

    def of(self, thing: Object) -> tuple[findings.Finding, ...]:
        """What was found about one object."""
        return self._found.get(thing, ())

    def all(self) -> tuple[findings.Finding, ...]:
        """Everything found, in the order of `compile.check`."""
        return tuple(sorted(found for about_one in self._found.values() for found in about_one))

    def counts(self) -> Mapping[str, int]:
        """How many findings there are of each reason."""
        return dict(self._counts)

    def learn(self, definitions: Definitions, prompts: Definitions | None = None) -> None:
        """The names of the tools and prompts that each server lists; of servers that are not in it none is unknown."""
        tools_before, self._definitions = self._definitions, dict(definitions)
        prompts_before, self._prompts = self._prompts, dict(prompts or {})
        self._ground = None
        for before, now in ((tools_before, self._definitions), (prompts_before, self._prompts)):
            for server in {*before, *now}:
                if before.get(server) != now.get(server):
                    self._about(server)

    def note(self, delta: objects.Delta) -> None:
        """The objects changed so: what may be found about them, and about others because of them, is stale."""
        self._ground = None
        for policy in delta.policies:
            self._file(policy.object, policy.new)
        for budget in delta.budgets:
            self._file(budget.object, budget.new)
        world = self._known.world
        if delta.settings or (delta.namespaces and world.settings.team_from_namespace_label):
            self._mark(*self._governing, *(("MCPServer", *server) for server in self._known.servers))
        self._mark(*delta.objects)
        for server in delta.servers:
            self._about(names.ServerId(*server.object[1:]))
            if server.old is None or server.new is None:
                # Another server came or went: what a mistyped target may have meant can be another one.
                self._mark(*self._lost)
        for edit in delta.policies:
            if world.settings.workload is not None or any(shadows.closes(side) for side in edit.sides):
                self._beside(edit)

    def work(self) -> Iterator[Object]:
        """Looks at one object at each step; ends when nothing is left. Yields it, changed or not."""
        while self._stale:
            thing = next(iter(self._stale))
            del self._stale[thing]
            self._look(thing)
            yield thing

    def _look(self, thing: Object) -> None:
        made: Governing | resources.MCPServer | None = self._governing.get(thing)
        if thing[0] == "MCPServer":
            made = self._known.servers.get(names.ServerId(*thing[1:]))
        found: tuple[findings.Finding, ...] = ()
        if made is not None:
            if self._ground is None:
                self._ground = checks.ground(self._known, self._definitions, self._bridges, self._prompts)
            found = checks.of(self._ground, made)
        self._counts.subtract(each.reason.value for each in self._found.pop(thing, ()))
        self._counts.update(each.reason.value for each in found)
        self._counts += Counter()  # Reasons of which none is left are left out.
        if found:
            self._found[thing] = found
        self._lost.discard(thing)
        if any(each.reason is Reason.TARGET_NOT_FOUND for each in found):
            self._lost.add(thing)

    def _file(self, thing: Object, made: Governing | None) -> None:
        if made is None:
            self._governing.pop(thing, None)
        else:
            self._governing[thing] = made

    def _about(self, server: names.ServerId) -> None:
        """A server, and whatever speaks about it."""
        self._mark(("MCPServer", *server))
        self._mark(*map(objects.about, self._known.policies.about(server)))
        self._mark(*map(objects.about, self._known.budgets.about(server)))

    def _beside(self, edit: objects.Edit[resources.MCPToolPolicy]) -> None:
        """Whatever speaks about a server that this policy governs, or governed."""
        for side in edit.sides:
            targets = side.spec.target_refs
            if any(target.namespace == "*" for target in targets):
                self._mark(*self._governing, *(("MCPServer", *server) for server in self._known.servers))
                return
            for server in self._known.covered(side.metadata.namespace, targets):
                self._about(server)

    def _mark(self, *things: Object) -> None:
        self._stale.update(dict.fromkeys(things))
