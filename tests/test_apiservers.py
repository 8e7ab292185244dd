# SPDX-License-Identifier: Apache-2.0
"""Where the API server's endpoints are: heard of again and again, and never forgotten because somebody did not say."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import pytest

from outrider_operator import apiservers, cluster

HERE, THERE = ("10.0.0.7",), ("10.0.0.7", "10.0.0.9")
FORBIDDEN = cluster.ClusterError(403, "Forbidden", 'cannot get resource "endpointslices"')


class Stage:
    """What is answered, one after another and then the last for ever, and how often somebody was told of a change."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = self.changes = 0
        self.subject = apiservers.ApiServers(self.ask, self.changed)

    async def ask(self):
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            await asyncio.Event().wait()
        return answer

    def changed(self):
        self.changes += 1

    def look(self, times=1):
        async def run():
            for _ in range(times):
                await self.subject.look()

        asyncio.run(run())
        return self.subject.addresses


def warnings(caplog):
    return [each for each in caplog.records if each.levelno == logging.WARNING]


def test_what_is_answered_is_known_and_only_another_answer_is_news() -> None:
    stage = Stage(HERE, HERE, THERE, HERE)
    assert stage.subject.addresses == ()
    assert [stage.look() for _ in range(4)] == [HERE, HERE, THERE, HERE]
    assert stage.changes == 3
    assert stage.subject.problem == ""


@pytest.mark.parametrize(
    "answer",
    [FORBIDDEN, cluster.ClusterError(0, "NoAnswer", "it does not answer"), (), KeyError("metadata"), None],
    ids=["forbidden", "away", "names nobody", "is nonsense", "hangs"],
)
def test_without_an_answer_what_was_known_stays_and_it_is_said_once(monkeypatch, caplog, answer) -> None:
    monkeypatch.setattr(apiservers, "LOOK_SECONDS_MAX", 0.05 if answer is None else 30.0)
    stage = Stage(HERE, answer)
    assert stage.look(times=4) == HERE
    assert stage.changes == 1
    assert stage.subject.problem
    [said] = warnings(caplog)
    assert said.fields == {"why": stage.subject.problem, "so": "the 1 known stay in force"}


def test_what_is_in_the_way_is_said_in_its_own_words_and_so_is_that_it_is_over(caplog) -> None:
    caplog.set_level(logging.INFO)
    stage = Stage(FORBIDDEN, FORBIDDEN, HERE, FORBIDDEN, HERE)
    stage.look(times=5)
    said = [(each.levelname, each.fields["why"]) for each in warnings(caplog)]
    assert [level for level, _ in said] == ["WARNING", "WARNING"]
    assert all('cannot get resource "endpointslices"' in why for _, why in said)
    over = [each for each in caplog.records if each.getMessage().endswith("is known again")]
    assert len(over) == 1, "where nothing was known before, the first answer is told instead"


def test_of_too_many_as_many_are_told_as_a_snapshot_holds_and_the_log_counts_the_rest(caplog) -> None:
    caplog.set_level(logging.INFO)
    many = tuple(f"10.0.{n}.1" for n in range(100))
    assert Stage(many).look() == many[:64]
    assert caplog.records[-1].fields["notTold"] == 36


def test_it_is_looked_again_and_again_sooner_when_it_failed(monkeypatch) -> None:
    monkeypatch.setattr(apiservers, "SECONDS", 0.01)
    monkeypatch.setattr(apiservers, "RETRY_SECONDS", 0.01)

    async def run():
        stage = Stage(FORBIDDEN, HERE, FORBIDDEN, THERE)
        looking = asyncio.create_task(stage.subject.run())
        await stage.subject.looked()
        assert stage.asked == 1
        async with asyncio.timeout(30):
            while stage.subject.addresses != THERE:
                await asyncio.sleep(0.01)
        assert not looking.done()
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking

    asyncio.run(run())


def test_the_first_configuration_waits_for_the_first_look_however_it_ends() -> None:
    async def run():
        stage = Stage(FORBIDDEN)
        waiting = asyncio.create_task(stage.subject.looked())
        await asyncio.sleep(0)
        assert not waiting.done()
        await stage.subject.look()
        await asyncio.wait_for(waiting, 30)

    asyncio.run(run())
