# SPDX-License-Identifier: Apache-2.0
"""Lending: what becomes a header, what is refused to be one, for whom it is fetched, and what is forgotten."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import gc
import logging
import pathlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from tests import lending

from outrider import decision, identity, snapshot, testing
from outrider_sidecar import credentials, exchange, loans, secretfiles

R = decision.Reason
_Result = TypeVar("_Result")
EXCHANGE = snapshot.TokenExchange(
    token_url="https://as.example/token", client=snapshot.OAuthClient(id="crm", secret=lending.SECRET)
)  # fmt: skip
ANN = identity.User("okta:ann", frozenset({"okta:ann"}), token="canary-ann")
BOB = identity.User("okta:bob", frozenset({"okta:bob"}), token="canary-bob")


def lending_from(
    place: loans.Source, act: Callable[[credentials.Credentials], Awaitable[_Result]]
) -> _Result:
    """Runs `act` with credentials whose every kind comes from `place`."""

    async def main() -> _Result:
        kinds = (snapshot.VaultSecret, snapshot.TokenExchange, snapshot.FileSecret)
        loop = asyncio.get_running_loop()
        return await act(credentials.Credentials(dict.fromkeys(kinds, place), clock=loop.time))

    return asyncio.run(main())


def lent(place: loans.Source, permit: decision.Permit) -> exchange.Lent:
    return lending_from(place, lambda lender: lender.lend(permit))


def refused(place: loans.Source, permit: decision.Permit) -> loans.Unavailable:
    with pytest.raises(loans.Unavailable) as failure:
        lent(place, permit)
    return failure.value


def for_user(permit: decision.Permit, user: identity.User | None) -> decision.Permit:
    return dataclasses.replace(permit, call=dataclasses.replace(permit.call, user=user))


# What is lent ---------------------------------------------------------------------------------------------------------


def test_a_secret_becomes_a_header_with_one_newline_taken_off() -> None:
    made = lent(lending.Place(b"canary-1\n"), lending.a_permit(lending.entry()))
    assert made.headers == ((b"authorization", b"Bearer canary-1"),)
    assert made.secrets == (b"canary-1",)
    assert made.version == "1"
    assert "canary" not in repr(made)


def test_what_is_at_hand_is_lent_without_waiting_and_made_once() -> None:
    place, permit = lending.Place(), lending.a_permit(lending.entry())

    async def act(lender: credentials.Credentials) -> None:
        assert lender.at_hand(permit) is None
        first = await lender.lend(permit)
        assert lender.at_hand(permit) is first
        place.rotate(b"canary-2")
        place.seen = place.loan
        second = lender.at_hand(permit)
        assert second is not None
        assert second.headers == ((b"authorization", b"Bearer canary-2"),)
        assert lender.at_hand(permit) is second

    lending_from(place, act)


def test_a_secret_is_lent_by_the_entry_that_is_in_force() -> None:
    place, old = lending.Place(), lending.a_permit(lending.entry())
    new = lending.a_permit(lending.entry(header="X-Api-Key", prefix=""))

    async def act(lender: credentials.Credentials) -> None:
        await lender.lend(old)
        at_hand = lender.at_hand(new)
        assert at_hand is not None
        assert at_hand.headers == ((b"x-api-key", b"canary-1"),)

    lending_from(place, act)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\n",
        b"two\nlines",
        b"two\n\n",
        b"tab\there",
        b"caf\xc3\xa9",
        b"x" * 20_000,
        b"nul\0",
        b"del\x7f",
        b"cr\rx",
    ],
)
def test_a_value_that_cannot_be_a_header_is_malformed_and_never_quoted(value: bytes) -> None:
    failure = refused(lending.Place(value), lending.a_permit(lending.entry()))
    assert failure.reason is R.CREDENTIAL_MALFORMED
    assert value.decode("latin-1") not in str(failure) or len(value) < 2


def test_the_password_inside_of_basic_authentication_is_kept_from_coming_back_too() -> None:
    pair = base64.b64encode(b"outrider:canary-password")
    made = lent(lending.Place(pair), lending.a_permit(lending.entry(prefix="Basic ")))
    assert made.secrets == (pair, b"outrider:canary-password", b"canary-password")


def test_none_true_lends_nothing_at_once() -> None:
    place = lending.Place()
    permit = lending.a_permit(lending.entry(None))

    async def act(lender: credentials.Credentials) -> None:
        assert lender.at_hand(permit) == exchange.Lent()
        assert await lender.lend(permit) == exchange.Lent()

    lending_from(place, act)
    assert place.fetched == []


def test_a_kind_that_nothing_here_lends_is_refused_by_name() -> None:
    where = snapshot.ClientCertificate(role="r", path="outrider/pki/issue/agent", common_name="agent")
    failure = refused(lending.Place(), lending.a_permit(lending.entry(where)))
    assert failure.reason is R.CREDENTIAL_UNAVAILABLE
    assert "'org' is one that this proxy cannot lend" in str(failure)


# Where it may go ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "url"),
    [
        ("https://mcp.example", "https://mcp.example/mcp"), ("https://mcp.example:443", "https://mcp.example/mcp"),
        ("https://MCP.example", "https://mcp.example:443/"), ("http://[::1]:80", "http://[::1]/mcp"),
        ("http://10.0.0.1:8080", "http://10.0.0.1:8080/mcp?x=1"), ("", "https://anywhere.example/"),
    ],
)  # fmt: skip
def test_a_secret_goes_to_the_origin_that_it_names(origin: str, url: str) -> None:
    place = lending.Place(origin=origin)
    assert lent(place, lending.a_permit(lending.entry(), url=url)).headers


@pytest.mark.parametrize(
    ("origin", "url"),
    [
        ("https://mcp.example", "https://mcp.example.evil.example/mcp"), ("https://mcp.example", "http://mcp.example/mcp"),
        ("https://mcp.example:8443", "https://mcp.example/mcp"), ("https://mcp.example", "https://mcp.example@evil.example/"),
        ("mcp.example", "https://mcp.example/"), ("https://", "https://mcp.example/"), ("https://x:port", "https://x/"),
        (" ", "https://mcp.example/"), ("https://[::1", "https://mcp.example/"),
    ],
)  # fmt: skip
def test_a_secret_for_another_server_is_not_lent_to_this_one(origin: str, url: str) -> None:
    failure = refused(lending.Place(origin=origin), lending.a_permit(lending.entry(), url=url))
    assert failure.reason is R.CREDENTIAL_MISPLACED
    assert "outrider_origin" in str(failure)
    assert "canary" not in str(failure)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (lending.Place(origin="https://other.example"), R.CREDENTIAL_MISPLACED),
        (lending.Place(b"two\nlines"), R.CREDENTIAL_MALFORMED),
    ],
)
def test_what_its_source_has_and_may_not_be_lent_fares_badly_until_there_is_something_else(
    place: lending.Place, reason: decision.Reason
) -> None:
    async def act(lender: credentials.Credentials) -> None:
        bound = lending.a_bound(lending.entry())
        lender.keep(bound)
        await lender.warm(lambda: 0.0)
        (row,) = lender.standing()
        assert (row.standing.available, row.standing.failing) == (False, reason)
        assert "credential 'org'" in row.standing.why
        (figure,) = lender.figures()
        assert not figure.available
        place.rotate(b"canary-2")
        place.seen = place.loan
        (row,) = lender.standing()
        assert (row.standing.available, row.standing.failing) == (True, None)

    lending_from(place, act)


# For whom it is fetched -----------------------------------------------------------------------------------------------


def test_an_exchange_is_asked_for_the_user_of_the_call_and_nothing_of_it_is_kept_here() -> None:
    place = lending.Place()
    permit = lending.a_permit(lending.entry(EXCHANGE))

    async def act(lender: credentials.Credentials) -> None:
        await lender.lend(for_user(permit, ANN))
        place.rotate(b"of-bob")
        second = await lender.lend(for_user(permit, BOB))
        assert second.headers[0][1] == b"Bearer of-bob"
        assert second.secrets == (b"of-bob", b"canary-bob")
        del second
        assert [each.user for each in place.wanted] == [ANN, BOB]
        place.seen = None
        place.rotate(b"of-nobody-any-more")
        gc.collect()
        assert [len(slot.made) for slot in lender._slots.values()] == [0]  # the source forgot it: so did we

    lending_from(place, act)


def test_an_exchange_without_a_user_is_refused_before_anybody_is_asked() -> None:
    place = lending.Place()
    assert refused(place, lending.a_permit(lending.entry(EXCHANGE))).reason is R.USER_REQUIRED
    assert place.fetched == []


def test_a_credential_that_is_not_the_users_own_is_not_fetched_in_their_name() -> None:
    place = lending.Place()
    lent(place, for_user(lending.a_permit(lending.entry()), ANN))
    assert [each.user for each in place.wanted] == [None]


def test_a_call_does_not_wait_for_its_credential_beyond_its_own_time() -> None:
    place = lending.Place()

    async def act(lender: credentials.Credentials) -> loans.Unavailable:
        place.open.clear()
        with pytest.raises(loans.Unavailable) as failure:
            await lender.lend(lending.a_permit(lending.entry()), deadline=asyncio.get_running_loop().time())
        return failure.value

    failure = lending_from(place, act)
    assert failure.reason is R.CREDENTIAL_UNAVAILABLE
    assert failure.retry_after_seconds == 1.0


# After a 401 ----------------------------------------------------------------------------------------------------------


def test_what_a_server_refused_is_fetched_anew_and_lent_if_it_is_newer() -> None:
    place, permit = lending.Place(), lending.a_permit(lending.entry())

    async def act(lender: credentials.Credentials) -> None:
        until = asyncio.get_running_loop().time() + 60
        first = await lender.lend(permit)
        place.rotate(b"canary-2")
        second = await lender.renewed(permit, first, deadline=until)
        assert second is not None
        assert second.headers[0][1] == b"Bearer canary-2"
        assert place.fetched == [None, "1"]
        assert await lender.renewed(permit, first, deadline=until) is second  # it is at hand by now
        assert place.fetched == [None, "1"]

    lending_from(place, act)


def test_when_nothing_is_newer_there_is_nothing_to_try_again_with() -> None:
    place, permit = lending.Place(), lending.a_permit(lending.entry())

    async def act(lender: credentials.Credentials) -> None:
        until = asyncio.get_running_loop().time() + 60
        first = await lender.lend(permit)
        assert await lender.renewed(permit, first, deadline=until) is None
        assert await lender.renewed(lending.a_permit(lending.entry(None)), first, deadline=until) is None

    lending_from(place, act)


def test_a_refresh_that_fails_leaves_one_line_that_names_no_value(caplog: pytest.LogCaptureFixture) -> None:
    place, permit = lending.Place(), lending.a_permit(lending.entry())

    async def act(lender: credentials.Credentials) -> None:
        first = await lender.lend(permit)
        place.away = loans.Unavailable(R.CREDENTIAL_UNAVAILABLE, "Vault is sealed")
        until = asyncio.get_running_loop().time() + 60
        assert await lender.renewed(permit, first, deadline=until) is None

    with caplog.at_level(logging.WARNING, "outrider"):
        lending_from(place, act)
    (line,) = caplog.records
    assert line.fields["why"] == "Vault is sealed"  # type: ignore[attr-defined]
    assert "canary" not in str(line.__dict__)


# A configuration ------------------------------------------------------------------------------------------------------


def test_first_calls_find_what_was_fetched_when_the_configuration_came() -> None:
    place = lending.Place()
    bound = lending.a_bound(lending.entry(), lending.entry(EXCHANGE, name="own"))

    async def act(lender: credentials.Credentials) -> None:
        lender.keep(bound)
        await lender.warm(lambda: 0.0)
        assert lender.at_hand(lending.a_permit(lending.entry())) is not None

    lending_from(place, act)
    assert [each.where for each in place.wanted] == [lending.SECRET]
    assert place.kept == {lending.SECRET, EXCHANGE}


def test_what_cannot_be_had_yet_is_said_once_and_holds_up_nothing(caplog: pytest.LogCaptureFixture) -> None:
    place = lending.Place()
    place.away = loans.Unavailable(R.CREDENTIAL_UNAVAILABLE, "Vault is sealed")

    async def act(lender: credentials.Credentials) -> None:
        lender.keep(lending.a_bound(lending.entry()))
        await lender.warm(lambda: 0.0)
        (row,) = lender.standing()
        assert (row.server, row.credential, row.standing.available) == (testing.CRM, "org", False)

    with caplog.at_level(logging.WARNING, "outrider"):
        lending_from(place, act)
    (line,) = caplog.records
    assert line.fields == {  # type: ignore[attr-defined]
        "server": "crm/salesforce", "credential": "org", "reason": "CredentialUnavailable", "why": "Vault is sealed",
    }  # fmt: skip


def test_an_older_configurations_permit_does_not_take_the_place_of_the_one_in_force() -> None:
    place = lending.Place()
    old, bound = lending.a_permit(lending.entry()), lending.a_bound(lending.entry())

    async def act(lender: credentials.Credentials) -> None:
        lender.keep(bound)
        assert (await lender.lend(old)).headers
        (slot,) = lender._slots.values()
        assert slot.view is bound.servers[testing.CRM].view

    lending_from(place, act)


def test_at_the_end_every_source_is_closed_once(tmp_path: pathlib.Path) -> None:
    place = lending.Place()

    async def act(lender: credentials.Credentials) -> None:
        await lender.close()

    lending_from(place, act)
    assert place.closed


def test_a_real_file_is_lent_like_anything_else(tmp_path: pathlib.Path) -> None:
    (tmp_path / "token").write_bytes(b"canary-1\n")
    permit = lending.a_permit(lending.entry(snapshot.FileSecret(path=str(tmp_path / "token"))))

    async def main() -> exchange.Lent:
        loop = asyncio.get_running_loop()
        sources = {snapshot.FileSecret: secretfiles.Files(loop.time)}
        return await credentials.Credentials(sources, clock=loop.time).lend(permit)

    assert asyncio.run(main()).headers == ((b"authorization", b"Bearer canary-1"),)
