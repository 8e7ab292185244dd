# SPDX-License-Identifier: Apache-2.0
"""How credentials fare, told to the operator: what is news, what is not, and what nobody need hear of."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable

import pytest
from tests import lending

from outrider import decision, names, reports
from outrider_sidecar import credentials, faring, loans, telling

R = decision.Reason
CRM = names.ServerId("crm", "salesforce")
WELL = loans.Standing(lending.SECRET, refreshed=1)
SEALED = dataclasses.replace(
    WELL, available=False, failing=R.CREDENTIAL_UNAVAILABLE, why="Vault is sealed\n(503)", failed=1
)  # fmt: skip
SOON = dataclasses.replace(SEALED, available=True, expires_at=1_060.0)


class Stage:
    """Everything around it: an operator that answers `status`, and what is to be seen. Epoch time is loop time and a thousand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rows: list[credentials.Row] = []
        self.providers: list[faring.Keys] = []
        self.status = 200
        self.told: list[reports.Report] = []
        self.news = asyncio.Event()
        views = faring.Views(
            lambda: self.rows, lambda: self.providers, lambda: self.now, lambda: 1_000.0 + self.now
        )
        self.faring = faring.Faring(self.post, telling.Pace(0.0, 300.0), views, jitter=lambda: 0.0)

    async def post(self, body: bytes) -> tuple[int, bytes]:
        self.told.append(reports.decode(body))
        self.news.set()
        if not self.status:
            raise ConnectionError
        return self.status, b""

    def show(self, standing: loans.Standing, name: str = "org") -> None:
        self.rows = [each for each in self.rows if each.credential != name]
        self.rows.append(credentials.Row(CRM, name, standing))

    def row(self, standing: loans.Standing) -> reports.Lending:
        self.show(standing)
        (row,) = self.faring.report().credentials or ()
        return row

    async def hear(self, times: int = 1) -> None:
        """Waits for so many reports more."""
        until = len(self.told) + times
        while len(self.told) < until:
            self.news.clear()
            await self.news.wait()


def run(monkeypatch: pytest.MonkeyPatch, act: Callable[[Stage], Awaitable[None]]) -> None:
    monkeypatch.setattr(faring, "LOOK_SECONDS", 0.002)

    async def main() -> None:
        stage = Stage()
        telling_ = asyncio.create_task(stage.faring.run())
        try:
            await act(stage)
            assert not telling_.done()
        finally:
            telling_.cancel()
            await asyncio.gather(telling_, return_exceptions=True)

    asyncio.run(asyncio.wait_for(main(), 30))


def test_what_nobody_has_asked_for_is_not_spoken_of() -> None:
    stage = Stage()
    stage.show(loans.Standing(lending.SECRET))
    stage.providers = [faring.Keys("okta", serve=False, failing="")]
    assert stage.faring.report() == reports.Report(credentials=(), providers=())


def test_what_cannot_be_lent_fails_at_once_with_why_in_one_line() -> None:
    row = Stage().row(SEALED)
    assert (row.server, row.credential, row.state) == ("crm/salesforce", "org", "Failing")
    assert (row.reason, row.why) == ("CredentialUnavailable", "Vault is sealed (503)")


def test_what_is_still_held_expires_when_it_cannot_be_renewed_for_a_while() -> None:
    stage = Stage()
    assert stage.row(SOON).state == "Ready"
    stage.now = faring.LASTING_SECONDS
    row = stage.row(SOON)
    assert (row.state, row.why, row.expires_in_seconds) == ("Expiring", "Vault is sealed (503)", 30.0)
    assert stage.row(SEALED).state == "Failing"


def test_one_refresh_that_failed_and_was_made_good_is_nothing() -> None:
    stage = Stage()
    stage.row(SOON)
    stage.now = faring.LASTING_SECONDS - 1
    assert stage.row(WELL).state == "Ready"
    stage.now += 2
    assert stage.row(SOON).state == "Ready"


def test_what_failed_and_does_not_any_more_has_recovered_for_a_while() -> None:
    stage = Stage()
    stage.row(SEALED)
    row = stage.row(WELL)
    assert (row.state, row.reason, row.why) == ("Recovered", "", "")
    stage.now = reports.RECOVERED_SECONDS
    assert stage.row(WELL).state == "Ready"


def test_keys_of_an_identity_provider_fare_like_credentials() -> None:
    stage = Stage()
    stage.providers = [
        faring.Keys("okta", serve=True, failing=""), faring.Keys("entra", serve=False, failing="it cannot be reached"),
    ]  # fmt: skip
    okta, entra = stage.faring.report().providers or ()
    assert (okta.provider, okta.state) == ("okta", "Ready")
    assert (entra.state, entra.reason, entra.why) == ("Failing", "UserTokenInvalid", "it cannot be reached")


def test_the_worst_are_told_when_not_all_can_be() -> None:
    stage = Stage()
    for number in range(reports.CREDENTIALS_MAX):
        stage.show(WELL, f"c{number}")
    stage.show(SEALED, "last")
    rows = stage.faring.report().credentials or ()
    assert len(rows) == reports.CREDENTIALS_MAX
    assert (rows[0].credential, rows[0].state) == ("last", "Failing")


def test_news_are_told_and_the_same_again_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(stage: Stage) -> None:
        stage.show(WELL)
        await stage.hear()
        stage.show(dataclasses.replace(WELL, refreshed=7, expires_at=2_000.0))
        stage.show(WELL, "other")
        await stage.hear()
        stage.show(dataclasses.replace(SEALED, why="Vault does not answer"), "other")
        await stage.hear()
        states = [[row.state for row in told.credentials or ()] for told in stage.told]
        assert states == [["Ready"], ["Ready", "Ready"], ["Failing", "Ready"]]

    run(monkeypatch, act)


def test_a_trouble_that_turns_into_another_is_told_of_soon_and_ever_more_seldom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def worded(why: str) -> loans.Standing:
        return dataclasses.replace(SEALED, why=why)

    async def act(stage: Stage) -> None:
        stage.show(worded("the role is not there, 1 s"))
        await stage.hear()
        stage.now = faring.REWORD_SECONDS
        stage.show(worded("the role is not there, 20 s"))
        await asyncio.sleep(0.05)  # nothing tells of what is not said
        assert len(stage.told) == 1
        stage.show(worded("the path is not there"))
        await stage.hear()
        stage.now = 2 * faring.REWORD_SECONDS
        stage.show(worded("the key is not there"))
        await asyncio.sleep(0.05)
        assert len(stage.told) == 2
        stage.now = 3 * faring.REWORD_SECONDS
        await stage.hear()
        assert [each.why for told in stage.told for each in told.credentials or ()] == [
            "the role is not there, 1 s", "the path is not there", "the key is not there",
        ]  # fmt: skip

    run(monkeypatch, act)


def test_everything_is_told_again_in_a_while_and_to_whoever_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(stage: Stage) -> None:
        stage.show(WELL)
        await stage.hear()
        stage.now += 300.0
        await stage.hear()
        stage.faring.repeat()
        await stage.hear()
        assert len({reports.encode(each) for each in stage.told}) == 1

    run(monkeypatch, act)


def test_that_there_is_nothing_any_more_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(stage: Stage) -> None:
        stage.show(WELL)
        await stage.hear()
        stage.rows.clear()
        await stage.hear()
        assert stage.told[-1] == reports.Report(credentials=(), providers=())
        stage.now += 1_000.0
        stage.show(WELL)
        await stage.hear()
        assert len(stage.told) == 3

    run(monkeypatch, act)


def test_an_operator_that_takes_no_such_reports_is_asked_no_more_until_another_greets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def act(stage: Stage) -> None:
        stage.status = 400
        stage.show(WELL)
        await stage.hear()
        stage.now += 1_000.0
        stage.show(SEALED)
        await asyncio.sleep(0.05)  # nothing tells of what is not said
        assert len(stage.told) == 1
        stage.status = 200
        stage.faring.repeat()
        await stage.hear()
        assert [row.state for row in stage.told[-1].credentials or ()] == ["Failing"]

    run(monkeypatch, act)


@pytest.mark.parametrize("status", [0, 401, 429, 503])
def test_an_operator_that_is_away_hears_of_it_later(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faring, "_BACKOFF_SECONDS_MAX", 0.01)

    async def act(stage: Stage) -> None:
        stage.status = status
        stage.show(WELL)
        await stage.hear(3)
        stage.status = 200
        await stage.hear()

    run(monkeypatch, act)
