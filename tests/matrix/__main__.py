# SPDX-License-Identifier: Apache-2.0
"""Every client at every server, directly and through the proxy: `python -m tests.matrix`. Exit code 1 when anything differs."""

from __future__ import annotations

import itertools
import pathlib
import sys
import tempfile

from tests import conftest  # noqa: F401 -- importing it says where things are
from tests.matrix import pairs


def main() -> int:
    if missing := pairs.missing():
        sys.exit(missing)
    wrong = total = 0
    with tempfile.TemporaryDirectory() as scratch, pairs.touring(pathlib.Path(scratch)) as tour:
        for pair in itertools.chain.from_iterable(going.result() for going in tour.values()):
            found = pair.differences()
            total, wrong = total + 1, wrong + bool(found)
            verdict = "differs" if found else "same"
            steps = f"{len(pair.steps)} steps"
            print(f"{pair.traveller.name:26} {pair.place.name:12} {steps:9} {verdict}", flush=True)
            for each in found:
                print(f"    {each}", flush=True)
    print(f"{total} pairs, {wrong} with differences")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
