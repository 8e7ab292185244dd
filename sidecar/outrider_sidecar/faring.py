# SPDX-License-Identifier: Apache-2.0
"""Tells the operator how this proxy's credentials fare, and the keys of its identity providers: what fails, what will, what is well again.

Run by main and by the prober. It looks now and then at what the sources say of themselves, and tells all of it in one report of its
own when something has changed, and once in a while. Refuses to say anything about what nobody has asked for yet, about users, or to
an operator that does not know such reports.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
from collections.abc import Callable, Iterable, Iterator

import aiohttp

from outrider import decision, reports, wire
from outrider_sidecar import credentials, loans, telemetry, telling

log = logging.getLogger("outrider")

LOOK_SECONDS = 1.0

LASTING_SECONDS = 30.0
"""A refresh that failed is told of as `Expiring` when it has not been made good for so long: once is nothing."""

REWORD_SECONDS = 20.0
"""So long after a trouble was told of it may be told of again in other words; ever twice as long while its words go on changing.

Who mends the role should hear of the path next, and an outage that sounds different every second should not be heard every second.
"""

_BACKOFF_SECONDS_MAX = 60.0

_DIGITS = re.compile("[0-9]+")
_Marks = tuple[dict[tuple[str, str], tuple[str, str]], dict[str, tuple[str, str]]]
_Words = frozenset[tuple[str, str, str]]
_ORDER = ("Failing", "Expiring", "Recovered", "Ready")
_WELL = frozenset({"Recovered", "Ready"})
_NOTHING: _Marks = ({}, {})


@dataclasses.dataclass(frozen=True, slots=True)
class Keys:
    """One identity provider's keys: whether any serve, and why they could not be fetched anew, if they could not."""

    provider: str
    serve: bool
    failing: str


@dataclasses.dataclass(frozen=True, slots=True)
class Views:
    """What is looked at. `wall` gives epoch seconds, `clock` those of the loop."""

    credentials: Callable[[], Iterable[credentials.Row]]
    providers: Callable[[], Iterable[Keys]]
    clock: Callable[[], float]
    wall: Callable[[], float]


@dataclasses.dataclass(slots=True)
class _Past:
    """Of one subject: since when a refresh fails (loop time), and until when it is called recovered."""

    failing_since: float | None = None
    told_bad: bool = False
    recovered_until: float = 0.0

    def state(self, *, available: bool, failing: bool, now: float) -> reports.State:
        if not failing:
            if self.told_bad:
                self.told_bad, self.recovered_until = False, now + reports.RECOVERED_SECONDS
            self.failing_since = None
            return "Recovered" if now < self.recovered_until else "Ready"
        self.failing_since = now if self.failing_since is None else self.failing_since
        if available and now - self.failing_since < LASTING_SECONDS and not self.told_bad:
            return "Ready"
        self.told_bad = True
        return "Expiring" if available else "Failing"


class Faring:
    """`post` as in `telling`; `pace` too."""

    def __init__(
        self, post: telling.Post, pace: telling.Pace, views: Views, *, jitter: Callable[[], float]
    ) -> None:
        self._post = post
        self._pace = pace
        self._views = views
        self._jitter = jitter
        self._past: dict[tuple[str, str], _Past] = {}
        self._told = _NOTHING
        self._words: _Words = frozenset()
        self._reword_seconds = REWORD_SECONDS
        self._reword_at = 0.0
        self._due = 0.0
        self._known_here = True

    def repeat(self) -> None:
        """Whoever is told now may know nothing, or more than the one before."""
        self._due, self._known_here = 0.0, True

    async def run(self) -> None:
        """Tells, for ever; returns only by cancellation."""
        failures = 0
        while True:
            await asyncio.sleep(LOOK_SECONDS * (0.5 + self._jitter()))
            report = self.report()
            marks = _marks(report)
            due = self._views.clock() >= self._due and marks != _NOTHING
            reworded = _words(report) != self._words and self._views.clock() >= self._reword_at
            if not self._known_here or not (due or reworded or marks != self._told):
                continue
            await asyncio.sleep(self._pace.wait_seconds * self._jitter())
            report = self.report()
            delivered = await self._delivered(reports.encode(report))
            failures = 0 if delivered else failures + 1
            if delivered:
                self._has_told(report)
                self._due = self._views.clock() + self._pace.repeat_seconds * (0.8 + 0.4 * self._jitter())
            else:
                seconds = min(_BACKOFF_SECONDS_MAX, 2.0 ** min(failures, 10))
                await asyncio.sleep(seconds * (0.5 + 0.5 * self._jitter()))

    def _has_told(self, report: reports.Report) -> None:
        marks = _marks(report)
        twice = min(2.0 * self._reword_seconds, self._pace.repeat_seconds)
        self._reword_seconds = twice if marks == self._told else REWORD_SECONDS
        self._reword_at = self._views.clock() + self._reword_seconds
        self._told, self._words = marks, _words(report)

    def report(self) -> reports.Report:
        """How everything fares now; the worst first, should there be more than a report holds."""
        now, seen = self._views.clock(), set[tuple[str, str]]()
        lendings = sorted(self._lendings(now, seen), key=lambda row: _ORDER.index(row.state))
        keys = tuple(self._keys(now, seen))
        self._past = {subject: past for subject, past in self._past.items() if subject in seen}
        return reports.Report(
            credentials=tuple(lendings[: reports.CREDENTIALS_MAX]), providers=keys[: reports.PROVIDERS_MAX]
        )

    def _lendings(self, now: float, seen: set[tuple[str, str]]) -> Iterator[reports.Lending]:
        for row in self._views.credentials():
            told = row.standing
            if not (told.refreshed or told.failed):
                continue  # nobody has asked for it
            subject = (str(row.server), row.credential)
            seen.add(subject)
            past = self._past.setdefault(subject, _Past())
            failing = told.failing is not None or not told.available
            state = past.state(available=told.available, failing=failing, now=now)
            reason = told.failing or decision.Reason.CREDENTIAL_UNAVAILABLE
            well = state in _WELL
            yield reports.Lending(
                server=subject[0],
                credential=row.credential,
                state=state,
                reason="" if well else reason.value,
                why="" if well else _line(told.why),
                expires_in_seconds=self._left(told),
            )

    def _keys(self, now: float, seen: set[tuple[str, str]]) -> Iterator[reports.Keys]:
        for each in self._views.providers():
            if not (each.serve or each.failing):
                continue
            subject = ("", each.provider)
            seen.add(subject)
            past = self._past.setdefault(subject, _Past())
            state = past.state(available=each.serve, failing=bool(each.failing), now=now)
            well = state in _WELL
            yield reports.Keys(
                provider=each.provider,
                state=state,
                reason="" if well else decision.Reason.USER_TOKEN_INVALID.value,
                why="" if well else _line(each.failing),
            )

    def _left(self, told: loans.Standing) -> float | None:
        return None if told.expires_at is None else min(max(0.0, told.expires_at - self._views.wall()), 1e9)

    async def _delivered(self, body: bytes) -> bool:
        """Whether the operator has it, or will never take it."""
        try:
            status, _ = await self._post(body)
        except (OSError, aiohttp.ClientError, TimeoutError, wire.WireError) as error:
            log.debug(
                "how credentials fare could not be told", extra=telemetry.fields(why=type(error).__name__)
            )
            return False
        if 400 <= status < 500 and status not in (401, 429):
            self._known_here = False  # an operator that takes no such reports: until another one greets us
            return True
        return status == 200


def _line(text: str) -> str:
    """One printable line of it."""
    return "".join(each if each.isprintable() else " " for each in text)[: reports.WHY_CHARACTERS_MAX]


def _marks(report: reports.Report) -> _Marks:
    """What makes a report news: not how long something has left, nor how its trouble is worded just now."""
    return (
        {(row.server, row.credential): (row.state, row.reason) for row in report.credentials or ()},
        {row.provider: (row.state, row.reason) for row in report.providers or ()},
    )


def _words(report: reports.Report) -> _Words:
    """How the troubles are worded, numbers apart: how long something still takes is no news."""
    lendings = ((row.server, row.credential, row.why) for row in report.credentials or ())
    keys = (("", row.provider, row.why) for row in report.providers or ())
    return frozenset((at, name, _DIGITS.sub("", why)) for at, name, why in (*lendings, *keys) if why)
