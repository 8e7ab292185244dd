# SPDX-License-Identifier: Apache-2.0
"""N1: whatever reaches a server has its intent in the journal, also when the proxy is killed with calls under way (kill -9)."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time

import aiohttp
import pytest
from tests import journals, laptop
from tests.scenarios import crowds, recorder

from outrider import audit

SERVER = "tools/recorder"
KILLS = 20
CALLS = 200
ROUNDS = 2
"""The second call goes over a connection that is open already: nothing is quicker at the server."""
QUOTA = 7_000
"""Less than would be asked for in all, more than all storms but the last can use up."""
RESTART_SECONDS_MAX = 2.0


@pytest.fixture
def seen():
    with recorder.running() as found:
        yield found


def manifests(seen, quota):
    limit = {"name": "calls", "unit": "Calls", "quota": {"amount": str(quota), "period": "Month"}}
    return {
        "all.yaml": laptop.documents(
            laptop.server(SERVER, seen.url),
            laptop.policy("outrider-system/p", SERVER, laptop.allow()),
            laptop.budget("tools/b", SERVER, limit),
        )
    }


def intents(home) -> list[audit.Intent]:
    return [each for each in journals.records(home.journal) if isinstance(each, audit.Intent)]


def token(intent: audit.Intent) -> str:
    assert intent.arguments is not None
    return json.loads(intent.arguments.content)["token"]


async def storm(home, seen, number: int, kill_at: int) -> list[dict | None]:
    """CALLS agents at once, each of which calls ROUNDS times; the proxy is killed at the moment when `kill_at` of them are at the server, at the latest at the
    end. The server itself does it, so that as little time as possible is left to write down what is already sent.
    """
    last = len(seen.tokens) + kill_at
    seen.arrived = lambda arrived: os.kill(home.proxy.pid, signal.SIGKILL) if arrived == last else None
    connector = aiohttp.TCPConnector(limit=CALLS)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def agent(each: int) -> list[dict | None]:
            told: list[dict | None] = []
            while len(told) < ROUNDS and None not in told:
                mine = {"token": f"{number}-{each}-{len(told)}", "seconds": each / CALLS / 10}
                told.append(await crowds.one(session, home.agent, SERVER, "slow", mine, each))
            return told

        answers = await asyncio.gather(*(agent(each) for each in range(CALLS)))
    home.proxy.kill()
    return [each for told in answers for each in told]


def restarted(home) -> float:
    """Seconds from the start of the process until a call was decided and answered."""
    began = time.monotonic()
    home.start_proxy()
    result = home.agent.call(SERVER, "echo", {"token": f"again-{began}"})
    assert laptop.reason(result) in ("", "BudgetExceeded")
    return time.monotonic() - began


@pytest.mark.slow
def test_no_call_reaches_a_server_without_its_intent_though_the_proxy_is_killed_again_and_again(
    tmp_path, seen
):
    chance = random.Random(20_260_728)
    took, broken, reasons = [], [], set()
    with laptop.running(tmp_path, manifests(seen, QUOTA)) as home:
        for number in range(KILLS):
            answers = asyncio.run(storm(home, seen, number, chance.randint(1, CALLS * ROUNDS - CALLS // 4)))
            broken.append(sum(each is None for each in answers))
            reasons |= {laptop.reason(each["result"]) for each in answers if each is not None}
            took.append(restarted(home))
        while laptop.reason(home.agent.call(SERVER, "echo", {"token": f"rest-{time.monotonic()}"})) == "":
            assert len(seen.tokens) <= QUOTA
        verified = home.verify()
        written = {token(each) for each in intents(home)}
        interrupted = [
            each
            for each in journals.records(home.journal)
            if isinstance(each, audit.Outcome) and each.reason == audit.INTERRUPTED
        ]

    print(f"restart after kill -9: median {sorted(took)[KILLS // 2]:.2f} s, worst {max(took):.2f} s")
    print(
        f"{len(seen.tokens)} calls reached the server of {QUOTA}; {sum(broken)} broke; {len(interrupted)} interrupted"
    )
    assert set(seen.tokens) <= written
    assert len(set(seen.tokens)) == len(seen.tokens), "a call was sent twice (N8)"
    assert len(seen.tokens) <= QUOTA
    assert all(broken[:-2]), f"each time the proxy was killed with calls under way: {broken}"
    assert len(interrupted) >= KILLS
    assert reasons <= {"", "BudgetExceeded"}
    assert verified.returncode == 0, verified.stdout + verified.stderr
    # Half of them: a machine that does something else at one of twenty moments says nothing about the proxy.
    assert sorted(took)[KILLS // 2] < RESTART_SECONDS_MAX


def test_an_intent_stands_in_the_journal_before_the_server_answers(tmp_path, seen):
    with laptop.running(tmp_path, manifests(seen, 10)) as home:
        asked = [("hold", {"token": "held"}, 1)]

        async def held():
            call = asyncio.create_task(crowds.calls(home.agent, SERVER, asked, at_once=1))
            while not seen.tokens:
                await asyncio.sleep(0)
            try:
                return [token(each) for each in intents(home)]
            finally:
                seen.release()
                await call

        assert asyncio.run(held()) == ["held"]
