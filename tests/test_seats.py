# SPDX-License-Identifier: Apache-2.0
"""Which log messages are loud enough for an agent; the rest of a seat is in test_speaking, before whole servers."""

from __future__ import annotations

import json

import pytest

from outrider_sidecar import conventions, jsonrpc, seats


def message(level):
    params = {"level": level, "data": "x"}
    return jsonrpc.answer(
        json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": params}).encode()
    )


@pytest.mark.parametrize("level", conventions.LOG_LEVELS)
def test_a_level_lets_through_what_is_as_severe_and_nothing_less(level):
    at = conventions.LOG_LEVELS.index(level)
    heard = [each for each in conventions.LOG_LEVELS if seats.loud_enough(message(each), level)]
    assert heard == list(conventions.LOG_LEVELS[at:])


@pytest.mark.parametrize("odd", ["loud", None, 3, {}])
def test_a_level_nobody_knows_is_never_loud_enough_for_one_that_was_asked_for(odd):
    assert not seats.loud_enough(message(odd), "debug")
    assert seats.loud_enough(message(odd), None)
