# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.fuzz --minutes 10`: conversations drawn by chance, until the time is over or one of them finds something.

Exit codes: 0 nothing found; 1 found something, which stands above with the smallest conversation that shows it; 2 usage.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import hypothesis
from tests.fuzz import bout, words

EXAMPLES = 100


def round_of(it: bout.Bout, seed: int, examples: int) -> None:
    """So many conversations drawn from one seed. Raises AssertionError with what is wrong."""
    told: list[str] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink), print_blob=False,
    )  # fmt: skip
    @hypothesis.given(words.conversations)
    def holds(conversation) -> None:
        found = it.hold(conversation)
        told.extend(
            found if not told else ()
        )  # the first time: what depends on the moment does not happen again
        assert not found, "\n".join(found)

    try:
        holds()
    except BaseException as error:
        raise AssertionError("\n".join([f"seed {seed}:", *told])) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__, allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default 10)")
    parser.add_argument("--seed", type=int, default=None, help="the first seed (default: the time)")
    given = parser.parse_args(arguments)
    if given.minutes <= 0:
        parser.error("--minutes must be above zero")
    seed = int(time.time()) if given.seed is None else given.seed
    end = time.monotonic() + given.minutes * 60
    with bout.running() as it:
        while time.monotonic() < end:
            print(
                f"seed {seed}: {it.conversations} conversations, {it.requests} requests, {it.arrived} arrived",
                flush=True,
            )
            round_of(it, seed, EXAMPLES)
            seed += 1
        print(
            f"nothing found in {it.conversations} conversations of {it.requests} requests; {it.arrived} requests arrived"
        )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AssertionError as found:
        print(f"FOUND: {found}", file=sys.stderr)
        sys.exit(1)
