# SPDX-License-Identifier: Apache-2.0
"""A refused credential is fetched again once for everybody, and ever more seldom when that does not help."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref

import pytest
from tests import lending

from outrider import names
from outrider_sidecar import loans, renewals

WANTED = loans.Wanted(lending.SECRET, names.ServerId("crm", "salesforce"))


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_everybody_who_was_refused_waits_for_one_refresh() -> None:
    async def main() -> None:
        place, known = lending.Place(), renewals.Renewals(Clock())
        place.rotate(b"canary-2")
        place.open.clear()
        waiting = [asyncio.ensure_future(known.renewed(place, WANTED, "1")) for _ in range(100)]
        await asyncio.sleep(0)
        place.open.set()
        assert {loan.version for loan in await asyncio.gather(*waiting) if loan} == {"2"}
        assert place.fetched == ["1"]

    asyncio.run(main())


def test_refreshes_that_do_not_help_come_ever_more_seldom() -> None:
    async def main() -> list[float]:
        place, clock = lending.Place(), Clock()
        known, asked = renewals.Renewals(clock), []
        for _ in range(800):  # a call every quarter of a second, each one refused
            before = len(place.fetched)
            await known.renewed(place, WANTED, "1")
            if len(place.fetched) > before:
                asked.append(round(clock.now - 100.0))
            clock.now += 0.25
        return asked

    assert asyncio.run(main()) == [0, 1, 3, 7, 15, 31, 63, 123, 183]


def test_a_secret_that_rotates_every_few_seconds_is_renewed_each_time() -> None:
    async def main() -> None:
        place, clock = lending.Place(), Clock()
        known = renewals.Renewals(clock)
        for number in range(2, 30):
            place.rotate(b"canary-%d" % number)
            loan = await known.renewed(place, WANTED, str(number - 1))
            assert loan is not None
            assert loan.version == str(number)
            clock.now += 3.0

    asyncio.run(main())


def test_a_refused_call_does_not_wait_beyond_its_deadline_and_the_refresh_goes_on() -> None:
    async def main() -> None:
        place, loop = lending.Place(), asyncio.get_running_loop()
        known = renewals.Renewals(loop.time)
        place.open.clear()
        hurried = loans.Wanted(WANTED.where, WANTED.server, deadline=loop.time() + 0.01)
        assert await known.renewed(place, hurried, "1") is None
        patient = asyncio.ensure_future(known.renewed(place, WANTED, "1"))
        await asyncio.sleep(0)
        place.open.set()
        assert await patient is not None
        assert place.fetched == ["1"]

    asyncio.run(main())


def test_a_refresh_that_fails_is_told_to_whoever_waits_and_not_repeated_at_once() -> None:
    async def main() -> None:
        place, known = lending.Place(), renewals.Renewals(Clock())
        place.away = loans.Unavailable(lending.R.CREDENTIAL_UNAVAILABLE, "Vault is sealed")
        with pytest.raises(loans.Unavailable, match="sealed"):
            await known.renewed(place, WANTED, "1")
        assert await known.renewed(place, WANTED, "1") is None
        assert len(place.fetched) == 1

    asyncio.run(main())


def test_an_outage_of_its_origin_does_not_outlast_itself() -> None:
    """Found by `bench.vaulted`: for a minute after Vault was back every call was refused with a secret that was too old."""

    async def main() -> None:
        place, clock = lending.Place(), Clock()
        known = renewals.Renewals(clock)
        place.away = loans.Unavailable(lending.R.CREDENTIAL_UNAVAILABLE, "Vault is sealed")
        for _ in range(240):  # a minute of refused calls
            with contextlib.suppress(loans.Unavailable):
                await known.renewed(place, WANTED, "1")
            clock.now += 0.25
        place.away = None
        place.rotate(b"canary-2")
        clock.now += renewals.PAUSE_SECONDS
        loan = await known.renewed(place, WANTED, "1")
        assert loan is not None
        assert loan.version == "2"

    asyncio.run(main())


def test_what_came_by_another_way_is_not_paced_by_refreshes_that_did_not_help() -> None:
    """While Vault is away a source has nothing newer and says so; once it is back it looks for itself."""

    async def main() -> None:
        place, clock = lending.Place(), Clock()
        known = renewals.Renewals(clock)
        for _ in range(240):  # a minute of refused calls, and Vault has the same
            await known.renewed(place, WANTED, "1")
            clock.now += 0.25
        place.rotate(b"canary-2")  # version 2 was seen by somebody who looked
        place.rotate(b"canary-3")
        loan = await known.renewed(place, WANTED, "2")
        assert loan is not None
        assert loan.version == "3"

    asyncio.run(main())


def test_what_served_for_a_while_is_renewed_at_once_however_long_the_pause_has_become() -> None:
    async def main() -> None:
        place, clock = lending.Place(), Clock()
        known = renewals.Renewals(clock)
        for _ in range(240):
            await known.renewed(place, WANTED, "1")
            clock.now += 0.25
        clock.now += renewals.PAUSE_SECONDS_MAX
        place.rotate(b"canary-2")
        assert await known.renewed(place, WANTED, "1") is not None
        clock.now += renewals.SERVED_SECONDS
        place.rotate(b"canary-3")
        loan = await known.renewed(place, WANTED, "2")
        assert loan is not None
        assert loan.version == "3"

    asyncio.run(main())


def test_nothing_of_what_was_brought_is_kept() -> None:
    async def main() -> None:
        place, known = lending.Place(), renewals.Renewals(Clock())
        brought = await known.renewed(place, WANTED, "1")
        assert brought is not None
        gone = weakref.ref(brought)
        del brought
        place.loan, place.seen = loans.Loan(b"canary-2", "2"), None
        await asyncio.sleep(0)
        gc.collect()
        assert gone() is None

    asyncio.run(main())


def test_what_is_remembered_is_bounded() -> None:
    async def main() -> None:
        place, known = lending.Place(), renewals.Renewals(Clock())
        for number in range(renewals.REMEMBERED_MAX + 10):
            where = lending.snapshot.FileSecret(path=f"/{number}")
            await known.renewed(place, loans.Wanted(where, WANTED.server), "1")
        assert len(known._known) == renewals.REMEMBERED_MAX

    asyncio.run(main())
