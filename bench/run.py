# SPDX-License-Identifier: Apache-2.0
"""One interleaved run: every way in every round, in an order drawn anew, each cell checked before it counts.

Called by the command. Gives raw cells; `table` makes ratios of them. Refuses to give anything when a check fails.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench import compiled, ours, paths, processes, validity

CANARY_EVERY = 100
WARM_SECONDS = 0.3


class Void(Exception):
    """The run must not be believed; the text says what differs."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is run. `rate` is the open loop's, in calls/s."""

    ways: tuple[str, ...] = ("direct", "nginx", "plain", "full")
    rounds: int = 5
    seconds: float = 2.0
    rate: float = 800.0
    tools: int = 0
    seed: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Loop:
    """One kind of load."""

    name: str
    arguments: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One way under one load in one round. Latencies are microseconds of allowed calls; `cpu` is of the way's tree.

    `cpu` and `waited` are microseconds per call, None where nothing stands in between. `beside` is what the control plane
    used meanwhile, in CPU seconds per second.
    """

    way: str
    loop: str
    round: int
    p50: float
    p95: float
    p99: float
    per_second: float
    backlog: int
    cpu: float | None
    waited: float | None
    memory: float | None
    beside: float
    sent: validity.Sent


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """A valid run."""

    plan: Plan
    cells: tuple[Cell, ...]
    versions: dict[str, str]
    skipped: dict[str, str]
    memory_kind: str


def loops(plan: Plan) -> tuple[Loop, ...]:
    """The three loads: one agent, sixteen, and a steady stream."""
    return (
        Loop("c1", ("--mode", "closed", "--connections", "1")),
        Loop("c16", ("--mode", "closed", "--connections", "16")),
        Loop("open", ("--mode", "open", "--connections", "64", "--rate", f"{plan.rate:g}")),
    )


@contextlib.contextmanager
def ways(plan: Plan, place: paths.Place) -> Iterator[tuple[list[paths.Way], dict[str, str]]]:
    """Starts what was asked for; what is not installed is named instead."""
    starters: dict[str, Callable[[paths.Place], contextlib.AbstractContextManager[paths.Way]]] = {
        "direct": paths.direct,
        "nginx": paths.nginx,
        "envoy": paths.envoy,
        "plain": lambda where: ours.start(where, "plain"),
        "full": lambda where: ours.start(where, "full"),
    }
    skipped: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        started = []
        for name in plan.ways:
            if name == "nginx" and paths.nginx_command() is None:
                skipped[name] = "not installed (`apt-get install nginx-light`)"
                continue
            try:
                started.append(stack.enter_context(starters[name](place.inside(name))))
            except compiled.Unable as unable:
                if name != "envoy":
                    raise
                skipped[name] = str(unable)
        yield started, skipped


def run(plan: Plan, place: paths.Place) -> Result:
    """Runs the plan. Raises Void when a call is unaccounted for, Unable when something cannot start."""
    drawn = random.Random(plan.seed)
    cells: list[Cell] = []
    with ways(plan, place) as (started, skipped):
        for number in range(plan.rounds):
            for way in drawn.sample(started, len(started)):
                for loop in loops(plan):
                    seed = drawn.getrandbits(63)
                    cells.append(_cell(way, loop, place, number=number, options=_options(plan, seed)))
            print(f"round {number + 1} of {plan.rounds}", file=sys.stderr)
        for way in started:
            _settled(way, [cell.sent for cell in cells if cell.way == way.name])
        kinds = {processes.memory(way.process)[1] for way in started if way.process is not None}
        versions = {way.name: way.version for way in started if way.version}
    return Result(plan, tuple(cells), versions, skipped, "/".join(sorted(kinds)))


def _options(plan: Plan, seed: int) -> tuple[str, ...]:
    return ("--seconds", f"{plan.seconds:g}", "--warm", f"{WARM_SECONDS:g}", "--seed", str(seed))


def _cell(way: paths.Way, loop: Loop, place: paths.Place, *, number: int, options: Sequence[str]) -> Cell:
    """One measurement between two readings of every counter. Raises Void."""
    arrived = paths.arrived(place.upstream)
    before = processes.usage(way.process) if way.process is not None else None
    aside = processes.usage(way.beside).cpu if way.beside is not None else 0.0
    said = load(way, [*loop.arguments, *options], core=place.cores.load)
    after = processes.usage(way.process) if way.process is not None else None
    beside = processes.usage(way.beside).cpu - aside if way.beside is not None else 0.0
    fields = {field.name for field in dataclasses.fields(validity.Sent)}
    sent = validity.Sent(**{name: value for name, value in said.items() if name in fields})
    found = validity.of_answers(sent, refuses=way.refuses)
    found += validity.of_upstream(
        sent, paths.arrived(place.upstream).since(arrived), refuses=way.refuses, credential=way.credential
    )
    _refuse(found, f"{way.name}, {loop.name}, round {number + 1}")
    used = waited = None
    if before is not None and after is not None:
        used = (after.cpu - before.cpu) * 1e6 / sent.sent
        waited = (after.waited - before.waited) * 1e6 / sent.sent
    return Cell(
        way=way.name,
        loop=loop.name,
        round=number,
        p50=said["p50"],
        p95=said["p95"],
        p99=said["p99"],
        per_second=said["per_second"],
        backlog=said["backlog_max"],
        cpu=used,
        waited=waited,
        memory=processes.memory(way.process)[0] if way.process is not None else None,
        beside=beside / (said["seconds"] + WARM_SECONDS),
        sent=sent,
    )


def load(way: paths.Way, arguments: Sequence[str], *, core: int | None) -> dict[str, Any]:
    """Runs the load generator once and gives what it says. Raises Void when it says nothing."""
    command = [str(compiled.binary("load")), "--port", str(way.port), "--path", way.path]
    command += ["--authorization", way.authorization, "--canary-every", str(CANARY_EVERY)]
    command += ["--canaries", ",".join(way.canaries), "--canary-expect", way.expect, *arguments]
    ran = subprocess.run(
        processes.pinned(core, command), capture_output=True, text=True, check=False, timeout=600
    )
    if ran.returncode != 0:
        raise Void(f"{way.name}: the load generator failed: {ran.stderr.strip() or ran.returncode}")
    said: dict[str, Any] = json.loads(ran.stdout)
    return said


def _settled(way: paths.Way, parts: list[validity.Sent]) -> None:
    """What only the end can tell: journal, metrics and budgets of our own ways. Raises Void."""
    if way.admin_port is None:
        return
    sent = validity.total(parts)
    found = validity.of_records(sent, ours.kept(way), bodies=way.name == "full")
    found += ours.budgets_differ(way, sent)
    _refuse(found, way.name)


def _refuse(found: list[str], where: str) -> None:
    if found:
        raise Void(f"{where}: " + "; ".join(found))
