# SPDX-License-Identifier: Apache-2.0
"""Request ids are ULIDs."""

from __future__ import annotations

import os
import re

from outrider_sidecar import ids


def test_an_id_is_a_ulid_that_sorts_by_time() -> None:
    clock = iter(range(1, 1000))
    maker = ids.Ids(wall=lambda: next(clock), entropy=os.urandom)
    made = [maker.next() for _ in range(200)]
    assert made == sorted(made)
    assert len(set(made)) == 200
    assert all(re.fullmatch("[0-7][0-9A-HJKMNP-TV-Z]{25}", each) for each in made)


def test_the_known_example_of_the_specification_comes_out() -> None:
    maker = ids.Ids(wall=lambda: 1469918176.385, entropy=bytes)
    assert maker.next() == "01ARYZ6S41" + "0" * 16
