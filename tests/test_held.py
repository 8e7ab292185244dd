# SPDX-License-Identifier: Apache-2.0
"""When a token is lent, when it is asked for anew, and what happens while it cannot be had."""

from __future__ import annotations

import asyncio
import logging
import math

import pytest

from outrider import decision
from outrider_sidecar import grants, held, loans, pacing

R = decision.Reason
WALL = 1_800_000_000.0


class Origin:
    """An authorization server in one variable: what it says next; counts what it was asked. Its time stands still unless moved."""

    def __init__(self, *says, jitter=0.5):
        self.now = 100.0
        self.slept = 0.0
        self.says = list(says)
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()
        times = pacing.Timing(lambda: self.now, lambda: WALL + self.now + self.slept, lambda: jitter)
        self.place = held.Place("the token", times, held.Pause(times))

    async def obtain(self):
        self.asked += 1
        await self.gate.wait()
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        if isinstance(said, Exception):
            raise said
        return said

    def held(self, *, eager=False, ends_at=None):
        return held.Held(self.place, self.obtain, eager=eager, ends_at=ends_at)


def token(text="t", seconds=100.0):
    return grants.Granted(text.encode(), seconds)


def failure(text="away", *, common=True, wait=0.0, reason=R.CREDENTIAL_UNAVAILABLE):
    return held.Failed(loans.Unavailable(reason, text), common=common, wait_seconds=wait)


async def settled(one):
    """The refresh under way, if any, is over."""
    async with asyncio.timeout(10):
        while one.busy:
            await asyncio.sleep(0)


async def unavailable(one, refused=None):
    with pytest.raises(loans.Unavailable) as failed:
        await one.fetch(math.inf, refused)
    return failed.value


def test_a_token_is_asked_for_once_and_lent_until_shortly_before_its_end():
    async def main():
        origin = Origin(token("a"), token("b"))
        one = origin.held()
        assert one.at_hand() is None
        first = await one.fetch(math.inf, None)
        assert (first.value, first.expires_at) == (b"a", WALL + 200.0)
        assert one.at_hand() is first
        assert await one.fetch(math.inf, None) is first
        assert origin.asked == 1
        origin.now = 100.0 + 94.9
        assert one.good is first
        origin.now = 100.0 + 95.1  # five seconds before its end
        assert one.good is None
        assert (await one.fetch(math.inf, None)).value == b"b"

    asyncio.run(main())


def test_everybody_who_asks_at_once_shares_one_request():
    async def main():
        origin = Origin(token())
        one = origin.held()
        origin.gate.clear()
        asking = [asyncio.create_task(one.fetch(math.inf, None)) for _ in range(100)]
        await asyncio.sleep(0)
        origin.gate.set()
        lent = await asyncio.gather(*asking)
        assert len({id(each) for each in lent}) == 1
        assert origin.asked == 1

    asyncio.run(main())


def test_at_four_fifths_of_its_life_it_is_refreshed_behind_the_call_that_finds_that_out():
    async def main():
        origin = Origin(token("a"), token("b"))
        one = origin.held()
        first = await one.fetch(math.inf, None)
        origin.now = 100.0 + 79.9
        assert one.at_hand() is first
        assert not one.busy
        origin.now = 100.0 + 80.1
        assert one.at_hand() is first
        assert one.busy
        await settled(one)
        assert one.at_hand().value == b"b"
        assert one.at_hand().version != first.version
        assert origin.asked == 2

    asyncio.run(main())


@pytest.mark.parametrize(("jitter", "at"), [(0.0, 75.0), (1.0, 85.0)])
def test_proxies_do_not_refresh_all_at_once(jitter, at):
    async def main():
        origin = Origin(token("a"), token("b"), jitter=jitter)
        one = origin.held()
        await one.fetch(math.inf, None)
        origin.now = 100.0 + at - 0.1
        one.at_hand()
        assert not one.busy
        origin.now = 100.0 + at + 0.1
        one.at_hand()
        assert one.busy
        await settled(one)

    asyncio.run(main())


def test_an_eager_one_is_refreshed_though_nobody_asks_and_after_failures_too():
    async def main():
        loop = asyncio.get_running_loop()
        origin = Origin(token("a", 0.5), failure(), token("b", 0.5), token("c", 1000.0))
        times = pacing.Timing(loop.time, lambda: WALL + loop.time(), lambda: 0.0)
        origin.place = held.Place("the token", times, held.Pause(times))
        one = origin.held(eager=True)
        await one.fetch(math.inf, None)
        async with asyncio.timeout(30):
            while origin.asked < 4 or one.busy:
                await asyncio.sleep(0.01)
        assert one.good.value == b"c"
        assert (origin.place.refreshed, origin.place.failed) == (3, 1)
        one.close()

    asyncio.run(main())


def test_while_no_other_can_be_had_the_old_one_serves_to_its_end_and_no_further(caplog):
    async def main():
        origin = Origin(token("a"), failure("gone"))
        one = origin.held()
        first = await one.fetch(math.inf, None)
        origin.now = 190.0
        assert one.at_hand() is first
        await settled(one)
        assert one.at_hand() is first
        assert str(one.failing()) == "gone"
        origin.now = 195.5
        error = await unavailable(one)
        assert (error.reason, str(error)) == (R.CREDENTIAL_UNAVAILABLE, "gone")
        assert error.retry_after_seconds > 0
        with pytest.raises(loans.Unavailable, match="gone"):
            one.at_hand()

    with caplog.at_level(logging.INFO, "outrider"):
        asyncio.run(main())
    assert [record.message for record in caplog.records] == ["a credential cannot be refreshed"]


def test_failures_are_followed_by_ever_longer_pauses_in_which_nobody_is_asked():
    async def main():
        origin = Origin(failure(), jitter=1.0)
        one = origin.held()
        pauses = []
        for _ in range(9):
            error = await unavailable(one)
            pauses.append(error.retry_after_seconds)
            asked = origin.asked
            for _ in range(10):
                with pytest.raises(loans.Unavailable):
                    one.at_hand()
                await unavailable(one)
            assert origin.asked == asked
            origin.now += error.retry_after_seconds + 0.001
            assert one.at_hand() is None
        assert [round(each) for each in pauses] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        origin.says = [token("back")]
        assert (await one.fetch(math.inf, None)).value == b"back"
        assert one.failing() is None

    asyncio.run(main())


def test_a_server_that_says_how_long_to_wait_is_left_alone_for_that_long():
    async def main():
        origin = Origin(failure(wait=120.0))
        assert (await unavailable(origin.held())).retry_after_seconds == 120.0

    asyncio.run(main())


def test_a_pause_is_drawn_between_half_and_all_of_it():
    async def main():
        for jitter, seconds in ((0.0, 0.5), (0.5, 0.75), (1.0, 1.0)):
            assert (await unavailable(Origin(failure(), jitter=jitter).held())).retry_after_seconds == seconds

    asyncio.run(main())


def test_a_failure_of_the_place_stops_everybody_there_and_one_of_ones_own_nobody_else():
    async def main():
        origin = Origin(failure("not this user", common=False), token("mine"))
        first, second = origin.held(), origin.held()
        await unavailable(first)
        assert (await second.fetch(math.inf, None)).value == b"mine"
        await unavailable(first)
        assert origin.asked == 2

        origin = Origin(failure("the place is away"))
        first, second = origin.held(), origin.held()
        await unavailable(first)
        assert str(await unavailable(second)) == "the place is away"
        assert origin.asked == 1

    asyncio.run(main())


def test_whoever_was_refused_gets_a_newer_one_and_one_request_serves_all_of_them():
    async def main():
        origin = Origin(token("a"), token("b"))
        one = origin.held()
        first = await one.fetch(math.inf, None)
        lent = await asyncio.gather(*(one.fetch(math.inf, first.version) for _ in range(50)))
        assert {each.value for each in lent} == {b"b"}
        assert origin.asked == 2
        # Somebody who is late: the newer one is there already.
        assert (await one.fetch(math.inf, first.version)).value == b"b"
        assert origin.asked == 2

    asyncio.run(main())


def test_whoever_was_refused_gets_the_same_one_when_there_is_no_other():
    async def main():
        origin = Origin(token("a"), failure())
        one = origin.held()
        first = await one.fetch(math.inf, None)
        assert await one.fetch(math.inf, first.version) is first
        assert await one.fetch(math.inf, first.version) is first  # and nobody is asked in the pause
        assert origin.asked == 2

    asyncio.run(main())


def test_nobody_waits_longer_than_he_may_and_the_request_goes_on_without_him():
    async def main():
        origin = Origin(token("late"))
        one = origin.held()
        origin.gate.clear()
        with pytest.raises(loans.Unavailable, match="not had in the time there was") as failed:
            await one.fetch(origin.now + 0.01, None)
        assert failed.value.retry_after_seconds > 0
        assert one.busy
        origin.gate.set()
        await settled(one)
        assert one.at_hand().value == b"late"
        assert origin.asked == 1

    asyncio.run(main())


def test_a_caller_who_is_cancelled_cancels_nothing_for_the_others():
    async def main():
        origin = Origin(token("a"))
        one = origin.held()
        origin.gate.clear()
        first, second = (asyncio.create_task(one.fetch(math.inf, None)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        origin.gate.set()
        assert (await second).value == b"a"

    asyncio.run(main())


def test_no_token_is_lent_longer_than_the_users_own_is_good():
    async def main():
        origin = Origin(token("a", 3600.0))
        one = origin.held(ends_at=WALL + 130.0)
        loan = await one.fetch(math.inf, None)
        assert loan.expires_at == WALL + 130.0
        origin.now = 126.9
        assert one.good is loan
        origin.now = 127.1
        assert one.good is None
        late = origin.held(ends_at=WALL + 100.0)
        assert str(await unavailable(late)) == "the token: the user's own token is over"

    asyncio.run(main())


@pytest.mark.parametrize(("life", "asked"), [(3600.0, 1), (130.0, 1), (127.0, 1), (100.0, 2)])
def test_what_ends_with_the_users_own_token_is_not_asked_for_again(life, asked):
    async def main():
        origin = Origin(token("a", life))
        one = origin.held(ends_at=WALL + 230.0)
        await one.fetch(math.inf, None)
        origin.now = 100.0 + 0.9 * min(life, 130.0)
        one.at_hand()
        await settled(one)
        assert origin.asked == asked

    asyncio.run(main())


def test_a_machine_that_slept_lends_nothing_that_ended_meanwhile():
    async def main():
        origin = Origin(token("a"), token("b"))
        one = origin.held()
        await one.fetch(math.inf, None)
        origin.slept = 1000.0
        assert one.at_hand() is None
        assert (await one.fetch(math.inf, None)).value == b"b"

    asyncio.run(main())


def test_what_is_closed_lends_nothing_and_tells_whoever_waits():
    async def main():
        origin = Origin(token("a"))
        one = origin.held(eager=True)
        origin.gate.clear()
        waiting = asyncio.create_task(one.fetch(math.inf, None))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        one.close()
        with pytest.raises(loans.Unavailable, match="the configuration has changed"):
            await waiting
        assert one.at_hand() is None
        assert "not wanted any more" in str(await unavailable(one))

    asyncio.run(main())


def test_a_bug_is_an_outage_of_one_credential_and_tells_no_value():
    async def main():
        origin = Origin(ValueError("canary-9"))
        return await unavailable(origin.held())

    error = asyncio.run(main())
    assert (error.reason, str(error)) == (R.INTERNAL, "the token: ValueError")


def test_a_failing_secret_of_the_client_is_told_as_its_place_tells_it():
    async def main():
        said = loans.Unavailable(R.CREDENTIAL_MISPLACED, "for elsewhere", retry_after_seconds=50.0)
        error = await unavailable(Origin(said).held())
        return error.reason, str(error), error.retry_after_seconds

    assert asyncio.run(main()) == (R.CREDENTIAL_MISPLACED, "for elsewhere", 50.0)


def test_failures_are_logged_when_they_begin_change_and_end(caplog):
    async def main():
        origin = Origin(failure("one"), failure("one"), failure("two"), token())
        one = origin.held()
        for _ in range(3):
            await unavailable(one)
            origin.now += 100.0
        await one.fetch(math.inf, None)

    with caplog.at_level(logging.INFO, "outrider"):
        asyncio.run(main())
    assert [(record.message, record.fields.get("why")) for record in caplog.records] == [
        ("a credential cannot be refreshed", "one"),
        ("a credential cannot be refreshed", "two"),
        ("a credential can be refreshed again", None),
    ]
