# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.decision`: what one decision costs with 10, 100, 1,000 and 10,000 tools and as many rules.

Sizes take turns in every round, in an order drawn anew, and are shown as ratios to the smallest. CPU time of this process,
collector off. Every verdict is checked: a wrong one makes the run void (exit 3).
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import random
import statistics
import sys
import time
from collections.abc import Sequence

from bench import ratios
from outrider import bind, budgets, call, decide, decision, testing

SIZES = (10, 100, 1_000, 10_000)
DENIED_EVERY = 10
HOT = 10
BATCH = 2_000
GOAL = 1.05


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """One size, bound. `hot` are calls of ten tools over and over, `cold` of any tool; with what must be said of each."""

    size: int
    bound: bind.Bound
    hot: list[tuple[call.Call, bool]]
    cold: list[tuple[call.Call, bool]]


def subject(size: int, drawn: random.Random) -> Subject:
    """A server with `size` tools and `size` rules, one for each tool; every tenth tool is denied by its own rule."""
    chosen = []
    for number in range(size):
        name = f"tool_{number:05d}"
        if number % DENIED_EVERY == DENIED_EVERY - 1:
            chosen.append(testing.deny(name, name=f"deny-{number}"))
        elif number % DENIED_EVERY == DENIED_EVERY - 2:
            # Its neighbour would be allowed too, so that the Deny is what refuses it.
            chosen.append(testing.allow(name, f"tool_{number + 1:05d}", name=f"allow-{number}"))
        else:
            chosen.append(testing.allow(name, name=f"allow-{number}"))
    view = testing.a_server(*chosen)
    bound = testing.bound_to(view, *(f"tool_{number:05d}" for number in range(size)))
    return Subject(size, bound, _calls(range(HOT), drawn), _calls(range(size), drawn))


def _calls(numbers: range, drawn: random.Random) -> list[tuple[call.Call, bool]]:
    arguments = {"id": "c1", "token": "0" * 32}
    picked = drawn.choices(numbers, k=BATCH)
    return [
        (
            call.Call(testing.CRM, f"tool_{number:05d}", dict(arguments)),
            number % DENIED_EVERY != DENIED_EVERY - 1,
        )
        for number in picked
    ]


def timed(bound: bind.Bound, calls: Sequence[tuple[call.Call, bool]]) -> float:
    """CPU microseconds per decision over one batch. Raises ValueError for a wrong verdict."""
    units = budgets.UNLIMITED
    start = time.process_time_ns()
    verdicts = [decide.decide(bound, one, units, now=0.0) for one, _ in calls]
    spent = time.process_time_ns() - start
    for verdict, (one, allowed) in zip(verdicts, calls, strict=True):
        right = (
            isinstance(verdict, decision.Permit)
            if allowed
            else isinstance(verdict, decision.Refusal) and verdict.objection.rule is not None
        )
        if not right:
            raise ValueError(f"{one.name}: decided {type(verdict).__name__}, which is wrong")
    return spent / len(calls) / 1000


def measure(sizes: Sequence[int], rounds: int, *, seed: int = 1) -> dict[tuple[int, str], list[float]]:
    """Microseconds per decision by size and kind (`hot`, `cold`), one figure per round."""
    drawn = random.Random(seed)
    subjects = [subject(size, drawn) for size in sizes]
    found: dict[tuple[int, str], list[float]] = {
        (size, kind): [] for size in sizes for kind in ("hot", "cold")
    }
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for each in subjects:
            timed(each.bound, each.hot)
        for _ in range(rounds):
            for each in drawn.sample(subjects, len(subjects)):
                found[each.size, "hot"].append(timed(each.bound, each.hot))
                found[each.size, "cold"].append(timed(each.bound, each.cold))
    finally:
        gc.enable()
        gc.unfreeze()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.decision", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21, help="interleaved rounds (default 21)")
    given = parser.parse_args(arguments)
    if given.rounds < 1:
        parser.error("--rounds must be above zero")
    try:
        found = measure(SIZES, given.rounds)
    except ValueError as wrong:
        print(f"VOID: {wrong}", file=sys.stderr)
        return 3
    print(
        f"decide(): CPU per decision relative to {SIZES[0]} tools and rules; median of {given.rounds} rounds [lowest-highest]"
    )
    print(f"{'tools, rules':>12}  {'ten tools in use':<24}{'every tool in use':<24}{'us (this run only)'}")
    for size in SIZES:
        cells = [ratios.ratio(found[size, kind], found[SIZES[0], kind]) for kind in ("hot", "cold")]
        shown = "".join(f"{f'{cell.median:.3f} [{cell.low:.2f}-{cell.high:.2f}]':<24}" for cell in cells)
        times = " / ".join(f"{statistics.median(found[size, kind]):.2f}" for kind in ("hot", "cold"))
        print(f"{size:>12}  {shown}{times}")
    print(
        f"goal: flat, at most {GOAL:g} with ten tools in use; with every tool in use the processor's caches are measured too"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
