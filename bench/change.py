# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.change`: what one edited policy costs the operator, alone and among 5,000 objects that have nothing to do with it.

The operator's own Compiler, in one process: the edit is taken in and the snapshots it concerns are compiled and encoded, as before a
push. Small and large world take turns, so that the ratio is of one run. Goal: flat.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from outrider import compile as compiler
from outrider import manifests, names, resources

SUBJECTS = 20
ROUNDS = 40
_LINE = "{:<44}{:>12}{:>12}{:>12}"


def obj(kind: str, name: str, namespace: str, spec: dict[str, Any], generation: int = 1) -> Any:
    metadata = {"name": name, "namespace": namespace, "generation": generation}
    made = manifests.kubernetes_object(
        {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
    )
    assert not isinstance(made, tuple), made
    return resources.Placed(made)


def server(name: str, namespace: str) -> Any:
    endpoint = {"url": f"https://{name}.{namespace}.example/mcp"}
    return obj("MCPServer", name, namespace, {"description": "Bench.", "endpoint": endpoint})


def policy(name: str, namespace: str, target: str, tools: Sequence[str], generation: int = 1) -> Any:
    rules = [{"name": "r", "effect": "Allow", "from": [{"namespaces": [namespace]}], "tools": list(tools)}]
    spec = {"targetRefs": [{"name": target}], "rules": rules}
    return obj("MCPToolPolicy", name, namespace, spec, generation)


@dataclasses.dataclass
class Edited:
    """A world in which one policy changes; the rest stays the very same objects, as in an operator."""

    unrelated: int

    def __post_init__(self) -> None:
        half = self.unrelated // 2
        others = [f"team-{n % 250}" for n in range(half)]
        self._servers = tuple(server(f"s-{n}", space) for n, space in enumerate(others))
        self._policies = tuple(policy(f"p-{n}", space, f"s-{n}", ["a"]) for n, space in enumerate(others))
        self._ours = server("crm", "crm")
        self._compiler = compiler.Compiler()
        self._generation = 0
        self.subjects = [("crm", f"bot-{n}") for n in range(SUBJECTS)]
        self.edit()

    def edit(self) -> float:
        """One edit, taken in and compiled for everybody it concerns; CPU seconds. Building the objects is not in it."""
        self._generation += 1
        tools = ["query", f"get_{self._generation}"]
        edited = policy("access", "crm", "crm", tools, self._generation)
        world = resources.World(servers=(self._ours, *self._servers), policies=(edited, *self._policies))
        began = time.process_time()
        self._compiler.update(world)
        versions = {self._compiler.compiled(*subject).version for subject in self.subjects}
        took = time.process_time() - began
        assert len(versions) == SUBJECTS, "each workload has a snapshot of its own"
        return took


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints milliseconds of CPU for an edit, and the ratio of the two worlds."""
    reader = argparse.ArgumentParser(prog="python -m bench.change", description=__doc__)
    reader.add_argument("--unrelated", type=int, default=5_000, help="objects in the large world (5000)")
    reader.add_argument("--rounds", type=int, default=ROUNDS, help="edits of each world, taking turns")
    given = reader.parse_args(arguments)
    worlds = [Edited(0), Edited(given.unrelated)]
    taken: list[list[float]] = [[], []]
    for _ in range(given.rounds):
        for held, world in zip(taken, worlds, strict=True):
            held.append(world.edit())
    out = [_LINE.format(f"one edit for {SUBJECTS} workloads, CPU ms", "median", "p90", "worst")]
    for world, held in zip(worlds, taken, strict=True):
        ordered = sorted(held)
        shown = (statistics.median(held), ordered[int(len(ordered) * 0.9)], ordered[-1])
        row = [f"{value * 1000:.2f}" for value in shown]
        out.append(_LINE.format(f"among {world.unrelated} unrelated objects", *row))
    ratio = statistics.median(taken[1]) / statistics.median(taken[0])
    out.append(f"ratio of the medians {ratio:.2f}; each further workload costs its own snapshot only")
    sys.stdout.write("\n".join(out) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
