# SPDX-License-Identifier: Apache-2.0
"""N2, R35: a budget is never overspent, however many ask at once, and a restart gives nothing back."""

from __future__ import annotations

import asyncio
import decimal
import time

import pytest
from tests import journals, laptop
from tests.scenarios import crowds, recorder

from outrider import audit, budgets

SERVER = "tools/recorder"


@pytest.fixture
def seen():
    with recorder.running() as found:
        yield found


def manifests(seen, *limits, **server):
    return {
        "all.yaml": laptop.documents(
            laptop.server(SERVER, seen.url, **server),
            laptop.policy("outrider-system/p", SERVER, laptop.allow()),
            laptop.budget("tools/b", SERVER, *limits),
        )
    }


def quota(unit, amount):
    return {"name": unit.lower(), "unit": unit, "quota": {"amount": amount, "period": "Month"}}


def crowd(home, tool, count, **arguments):
    """The reasons of `count` calls made at once; "" is an allowed one."""
    asked = [(tool, {"token": f"{tool}-{each}", **arguments}, each) for each in range(count)]
    answers = asyncio.run(crowds.calls(home.agent, SERVER, asked, at_once=250))
    assert None not in answers
    return [laptop.reason(each["result"]) for each in answers]


def spent(home, pool):
    """As the metrics say, in units."""
    lines = home.admin("/metrics").body.decode().splitlines()
    [line] = [each for each in lines if each.startswith("outrider_budget_spent{") and pool in each]
    return decimal.Decimal(line.rpartition(" ")[2])


def test_of_a_thousand_parallel_calls_on_a_budget_of_a_hundred_exactly_a_hundred_reach_the_server(
    tmp_path, seen
):
    with laptop.running(tmp_path, manifests(seen, quota("Calls", "100"))) as home:
        reasons = crowd(home, "slow", 1_000)
        assert len(seen.tokens) == 100
        assert len(set(seen.tokens)) == 100
        assert sorted(reasons) == [""] * 100 + ["BudgetExceeded"] * 900
        assert spent(home, "calls") == 100

        home.proxy.kill()
        home.start_proxy()
        assert set(crowd(home, "slow", 50)) == {"BudgetExceeded"}
        assert home.proxy.stop() == 0
        home.start_proxy()
        assert set(crowd(home, "slow", 50)) == {"BudgetExceeded"}
        assert len(seen.tokens) == 100
        assert home.verify().returncode == 0


def test_money_is_never_overspent_and_what_was_reserved_and_not_used_can_be_spent(tmp_path, seen):
    price = {"perCall": "0.001", "perThousandResultTokens": "0.030", "maxResultBytes": 3_000}
    tools = {"cost": {"default": {"perCall": "0"}, "perTool": [{"name": "paid", **price}]}}
    with laptop.running(tmp_path, manifests(seen, quota("Cost", "1.00"), tools=tools)) as home:
        reasons = crowd(home, "paid", 400, bytes=1_200)
        allowed = reasons.count("")
        assert set(reasons) == {"", "BudgetExceeded"}
        assert len(seen.tokens) == allowed
        assert allowed * decimal.Decimal("0.001") <= 1
        outcomes = [each for each in journals.records(home.journal) if isinstance(each, audit.Outcome)]
        assert len(outcomes) == allowed
        costs = [decimal.Decimal(each.cost) / budgets.MICRO for each in outcomes]
        # Independently: 3 bytes are a token; a result's envelope is paid for too, so a call costs at least its text.
        least = decimal.Decimal("0.001") + decimal.Decimal("0.030") * 1_200 / 3 / 1_000
        assert all(least <= each < decimal.Decimal("0.0311") + least for each in costs)
        assert sum(costs) == spent(home, "cost")
        assert sum(costs) <= 1
        # The dearest call costs 0.031: less than that, and no more, may be left over.
        while laptop.reason(home.agent.call(SERVER, "paid", {"bytes": 1_200})) == "":
            pass
        assert decimal.Decimal("0.95") < spent(home, "cost") <= 1


def test_a_rate_lets_a_burst_through_and_then_so_many_a_second(tmp_path, seen):
    pace = {"name": "pace", "unit": "Calls", "rate": {"perSecond": "5", "burst": 10}}
    with laptop.running(tmp_path, manifests(seen, pace)) as home:
        home.agent.tools(SERVER)
        began = time.monotonic()
        reasons = crowd(home, "echo", 300)
        most = 10 + 5 * (time.monotonic() - began) + 1
        assert set(reasons) == {"", "RateLimited"}
        assert 10 <= len(seen.tokens) == reasons.count("") <= most
        result = home.agent.call(SERVER, "echo")
        if laptop.reason(result):
            assert result["_meta"]["dev.outrider/refusal"]["retryAfterSeconds"] >= 1


def test_a_budget_of_zero_blocks_and_lists_are_not_hidden_by_it(tmp_path, seen):
    with laptop.running(tmp_path, manifests(seen, quota("Calls", "0"))) as home:
        assert {tool["name"] for tool in home.agent.tools(SERVER)} == set(recorder.TOOLS)
        assert laptop.reason(home.agent.call(SERVER, "echo", {"token": "x"})) == "BudgetExceeded"
        assert seen.tokens == []


def test_an_interrupted_call_stays_charged(tmp_path, seen):
    with laptop.running(tmp_path, manifests(seen, quota("Calls", "3"))) as home:

        async def held():
            asked = [("hold", {"token": f"h{each}"}, each) for each in range(3)]
            calls = asyncio.create_task(crowds.calls(home.agent, SERVER, asked, at_once=3))
            while len(seen.tokens) < 3:
                await asyncio.sleep(0)
            home.proxy.kill()
            return await calls

        assert asyncio.run(held()) == [None] * 3
        home.start_proxy()
        assert laptop.reason(home.agent.call(SERVER, "echo", {"token": "after"})) == "BudgetExceeded"
        assert spent(home, "calls") == 3
        assert "after" not in seen.tokens
