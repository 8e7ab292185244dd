# SPDX-License-Identifier: Apache-2.0
"""The benchmark of long streams: a real small run, and that it cannot be fooled by a proxy that loses or shuffles events."""

from __future__ import annotations

import json
import os
import pathlib

import pytest
from bench import streams as command


def event(number: int, *, token: str = "t7", at: int = 0) -> bytes:
    params = {"progressToken": token, "progress": number, "message": f"{at} x"}
    return (
        b"event: message\ndata: "
        + json.dumps({"method": "notifications/progress", "params": params}).encode()
    )


def answer(told: str, *, id_: int = 7) -> bytes:
    return b"data: " + json.dumps({"id": id_, "result": {"content": [{"text": told}]}}).encode()


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([event(1), event(2), answer("2")], None),
        ([event(1), b": comment", event(2), answer("2")], None),
        ([event(1), event(3)], "event 3 follows 1"),
        ([event(2), event(1)], "event 2 follows 0"),
        ([event(1), event(1)], "event 1 follows 1"),
        ([event(1, token="t8")], "somebody else's"),
        ([event(1), answer("2")], "is answered"),
        ([event(1), answer("1", id_=8)], "is answered"),
    ],
)
def test_a_lost_doubled_shuffled_or_foreign_event_is_complained_about(
    events: list[bytes], said: str | None
) -> None:
    seen = command.Seen()
    one = command.Stream(7, seen, 0.0, command.Plan(1, 1.0, 10.0))
    for each in events:
        one._event(each)
    assert [said in each for each in seen.complaints][:1] == ([] if said is None else [True])


@pytest.mark.parametrize(
    "flags", [["--streams", "0"], ["--streams", "2001"], ["--minutes", "0"], ["--every", "0"], ["--unknown"]]
)
def test_flags_that_cannot_be_run_are_refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command.parse(flags)
    assert left.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_the_figures_say_when_there_are_none() -> None:
    assert "without a slow client: nothing" in command.text(command.Plan(1, 1.0, 10.0), command.Seen())


@pytest.mark.slow
def test_a_small_run_through_the_real_proxy_loses_nothing_and_says_what_it_measured(
    tmp_path: pathlib.Path,
) -> None:
    cores = os.sched_getaffinity(0)
    try:
        plan = command.Plan(streams=20, every=0.1, seconds=8.0)
        seen = command.measured(plan, tmp_path)
    finally:
        os.sched_setaffinity(0, cores)
    assert seen.events > 20 * 40
    assert seen.alone
    assert seen.beside
    assert seen.slow_bytes > 0
    assert "none lost" in command.text(plan, seen)
