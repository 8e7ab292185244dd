# SPDX-License-Identifier: Apache-2.0
"""Events tell of transitions that a person can act on, once, and never hold anybody up."""

from __future__ import annotations

import asyncio

import pytest

from outrider_operator import events

REGARDING = events.of_object("MCPToolPolicy", "crm", "p", "u1")


def status(*, generation=1, **conditions):
    return {
        "conditions": [
            {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": "Words.",
                "observedGeneration": generation,
            }
            for kind, (status, reason) in conditions.items()
        ]
    }


GOOD = status(Accepted=("True", "Accepted"), Programmed=("True", "Programmed"))
BAD = status(Accepted=("False", "Invalid"), Programmed=("False", "NotAccepted"))
AWAY = status(Reachable=("False", "Unreachable"))
FAILING = status(CredentialsReady=("False", "CredentialsFailing"))
EXPIRING = status(CredentialsReady=("True", "CredentialsExpiring"))
REFUSED = status(Accepted=("True", "Accepted"), Programmed=("False", "Rejected"))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, GOOD, []),
        (GOOD, GOOD, []),
        ({}, BAD, [("Warning", "Invalid")]),
        (GOOD, BAD, [("Warning", "Invalid")]),
        (BAD, BAD, []),
        (BAD, status(generation=2, Accepted=("False", "UnknownField")), [("Warning", "UnknownField")]),
        (BAD, GOOD, [("Normal", "Accepted")]),
        (GOOD, REFUSED, [("Warning", "Rejected")]),
        (REFUSED, REFUSED, []),
        (REFUSED, GOOD, []),
        (GOOD, status(Programmed=("False", "SidecarTooOld")), [("Warning", "SidecarTooOld")]),
        (GOOD, status(Accepted=("True", "Accepted"), Programmed=("False", "SidecarsUnreachable")), []),
        ({}, status(ResolvedRefs=("False", "TargetNotFound")), [("Warning", "TargetNotFound")]),
        (status(ResolvedRefs=("False", "TargetNotFound")), status(ResolvedRefs=("True", "ResolvedRefs")), []),
        (GOOD, status(Enforceable=("False", "NeverMatches")), [("Warning", "NeverMatches")]),
        (status(Reachable=("Unknown", "NotProbed")), AWAY, [("Warning", "Unreachable")]),
        (AWAY, AWAY, []),
        (AWAY, status(Reachable=("True", "Reachable")), [("Normal", "Reachable")]),
        (GOOD, FAILING, [("Warning", "CredentialsFailing")]),
        (FAILING, FAILING, []),
        (FAILING, status(CredentialsReady=("True", "CredentialsReady")), [("Normal", "CredentialsReady")]),
        (GOOD, EXPIRING, [("Warning", "CredentialsExpiring")]),
        (EXPIRING, EXPIRING, []),
        (FAILING, EXPIRING, [("Warning", "CredentialsExpiring")]),
        ({"conditions": "garbage"}, GOOD, []),
    ],
)
def test_only_transitions_that_somebody_can_act_on_are_news(before, after, expected) -> None:
    found = events.transitions(REGARDING, before, after)
    assert [(event.type, event.reason) for event in found] == expected
    assert all(event.regarding is REGARDING and event.message == "Words." for event in found)


def event(number):
    return events.Event(REGARDING, "Normal", "Accepted", str(number))


def test_events_are_posted_in_order_and_one_that_fails_is_left_behind() -> None:
    posted = []

    async def post(given):
        if given.message == "1":
            raise OSError("no answer")
        posted.append(given.message)

    async def run():
        poster = events.Poster(post)
        running = asyncio.create_task(poster.run())
        poster.add(event(0), event(1), event(2))
        await asyncio.sleep(0.05)
        running.cancel()

    asyncio.run(run())
    assert posted == ["0", "2"]


def test_too_many_events_hold_nobody_up(caplog) -> None:
    async def run():
        poster = events.Poster(lambda _event: asyncio.sleep(3600))
        poster.add(*(event(number) for number in range(events.WAITING_MAX + 1)))

    asyncio.run(run())
    assert [record.message for record in caplog.records] == ["an event is left out: too many wait"]


def test_every_reason_says_what_it_means() -> None:
    assert all(reason.doc for reason in events.Reason)


def test_what_flaps_is_news_a_few_times_and_then_now_and_again() -> None:
    subject = events.Sparing(burst=3, seconds=100.0)
    assert [subject.may("a", 1_000.0 + second) for second in range(10)] == [True] * 3 + [False] * 7
    assert subject.may("b", 1_010.0), "another object is another matter"
    assert not subject.may("a", 1_099.0)
    assert subject.may("a", 1_101.0)
    assert not subject.may("a", 1_102.0)
    assert [subject.may("a", 5_000.0) for _ in range(4)] == [True, True, True, False]


def test_it_does_not_remember_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_REMEMBERED_MAX", 10)
    subject = events.Sparing(burst=1, seconds=10.0)
    for number in range(100):
        assert subject.may(number, 1_000.0 + 20 * number)
    assert len(subject._spent) <= 10
