# SPDX-License-Identifier: Apache-2.0
"""The configuration in force, as one reference: read by every call without a lock, written by the loop's thread only.

`snapshots` swaps it when a configuration arrives, `lists` when a server's tools do. It decides nothing.
"""

from __future__ import annotations

import dataclasses

import msgspec

from outrider import bind, catalog, names
from outrider_sidecar import lists


@dataclasses.dataclass(slots=True)
class Current:
    """What decisions are made on now; `bound` None = nothing received yet. One writer: the loop's thread."""

    bound: bind.Bound | None = None
    definitions: dict[names.ServerId, catalog.Definitions] = dataclasses.field(default_factory=dict)

    def observed(self, server: names.ServerId, found: catalog.Definitions) -> bool:
        """A server's list has arrived, of every kind or of one: swap in a Bound that has it beside what is known of the others.

        False when it says what is known already: then the Bound stays the one it is.
        """
        before = self.definitions.get(server)
        known = lists.joined(before, found)
        if known == before:
            return False
        self.definitions[server] = known
        if self.bound is not None:
            self.bound = self.bound.with_definitions(server, known)
        return True

    def saved(self) -> bytes:
        """What is known of every server's lists, as `can-i --definitions` reads it: kinds that are not observed are absent."""
        made: dict[str, dict[str, list[msgspec.Raw]]] = {}
        for server, known in self.definitions.items():
            listed = zip(
                catalog.Form, (known.tools, known.prompts, known.resources, known.templates), strict=True
            )
            made[str(server)] = {
                form.value: [msgspec.Raw(each.raw) for each in kept]
                for form, kept in listed
                if form.kind not in known.unobserved
            }
        return msgspec.json.encode(made)

    def swap(self, fresh: bind.Bound) -> None:
        """A snapshot is in force from here on. Definitions it was not bound with (of servers that left or moved) are forgotten."""
        self.bound = fresh
        self.definitions = {
            server: found
            for server, found in self.definitions.items()
            if server in fresh.servers and fresh.servers[server].targets is not None
        }
