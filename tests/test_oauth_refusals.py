# SPDX-License-Identifier: Apache-2.0
"""Authorization servers that refuse, misbehave or may not be asked: what is told, and that nothing of it is a token."""

from __future__ import annotations

import asyncio

import pytest
from tests import granting
from tests.authserver import canned, exchange
from tests.servers import upstreams

from outrider import decision, snapshot
from outrider_sidecar import fetcher

R = decision.Reason


WRONG = [
    ({"secret": "other"}, {}, ("refused with invalid_client", "its secret or key")),
    ({"secret": "s3cret", "method": "client_secret_post"}, {}, ("refused with invalid_client", "")),
    ({"secret": "s3cret"}, {"scopes": ("admin",)}, ("refused with invalid_scope", "`scopes`")),
    ({"secret": "s3cret", "targets": frozenset({"x"})}, {"resource": granting.RESOURCE}, ("refused with invalid_target", "`resource`")),
    ({"secret": "s3cret", "grants": frozenset()}, {}, ("refused with unauthorized_client", "allow this client")),
]  # fmt: skip


@pytest.mark.parametrize(("registered", "asked", "said"), WRONG)
def test_what_the_authorization_server_refuses_is_told_in_one_line(
    authserver, tmp_path, registered, asked, said
):
    says, then = said
    authserver.register("outrider", **registered)

    async def main():
        async with granting.sources(tmp_path) as by:
            where = granting.own(authserver.token_url, granting.client(tmp_path), **asked)
            error = await granting.unavailable(by.own, granting.wanted(where))
            return error, list(by.own.standing())

    error, (standing,) = asyncio.run(main())
    assert error.reason is R.CREDENTIAL_UNAVAILABLE
    assert error.retry_after_seconds > 0
    assert str(error).startswith(f"OAuth client 'outrider': {authserver.token_url} {says}")
    assert then in str(error)
    assert (standing.available, standing.failing, standing.why) == (False, error.reason, str(error))
    assert standing.failed == 1


BAD = [
    (canned.said({"error": "server_error"}, status=b"500 Oops"), R.CREDENTIAL_UNAVAILABLE, "refused with server_error"),
    (canned.said(b"<html>", media=b"text/html", status=b"502 Bad Gateway"), R.CREDENTIAL_UNAVAILABLE, "status 502"),
    (canned.said(b"<html>", media=b"text/html"), R.CREDENTIAL_UNAVAILABLE, "text/html"),
    (canned.said(b"", b"location: https://elsewhere.example/", status=b"302 Found"), R.CREDENTIAL_UNAVAILABLE, "redirects"),
    (canned.said(b"{" + b" " * 70_000 + b"}"), R.CREDENTIAL_UNAVAILABLE, "more than 65536 bytes"),
    (canned.said({"access_token": "eyJ", "token_type": "mac"}), R.CREDENTIAL_MALFORMED, "of type mac"),
    (canned.said({"id_token": "eyJ", "token_type": "Bearer"}), R.CREDENTIAL_MALFORMED, "an id_token is none"),
    (canned.said(b'{"access_token":"a","access_token":"b","token_type":"Bearer"}'), R.CREDENTIAL_UNAVAILABLE, "key twice"),
    (canned.token(expires_in=0), R.CREDENTIAL_UNAVAILABLE, "over already"),
    (canned.token(expires_in=-60), R.CREDENTIAL_UNAVAILABLE, "over already"),
    (canned.token(expires_in="soon"), R.CREDENTIAL_MALFORMED, "expires_in"),
    (canned.token("a\nb"), R.CREDENTIAL_MALFORMED, "visible ASCII"),
    (canned.token("a" * 20_000), R.CREDENTIAL_MALFORMED, "visible ASCII"),
    (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 0\r\n\r\n", R.CREDENTIAL_UNAVAILABLE, "compressed"),
    (b"\x00 no HTTP\r\n\r\n", R.CREDENTIAL_UNAVAILABLE, "as HTTP demands"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "reason", "says"), BAD)
def test_a_bad_answer_is_no_token_and_a_good_one_after_the_pause_is(tmp_path, answer, reason, says):
    async def main():
        async with canned.serving(answer, canned.token()) as server, granting.sources(tmp_path) as by:
            want = granting.wanted(granting.own(server.url, granting.client(tmp_path)))
            error = await granting.unavailable(by.own, want)
            again = await granting.unavailable(by.own, want)
            assert len(server.forms) == 1  # and in the pause nobody is asked
            await granting.soon(lambda: len(server.forms) == 2)
            await granting.soon(lambda: next(iter(by.own.standing())).refreshed == 1)
            return error, again, by.own.at_hand(want)

    error, again, loan = asyncio.run(main())
    assert (error.reason, again.reason) == (reason, reason)
    assert says in str(error)
    assert str(again) == str(error)
    assert loan.value == b"canned"


def test_a_token_without_an_end_or_with_a_far_one_ends_after_five_minutes_or_a_day(tmp_path):
    async def main():
        lives = []
        for answer in (
            canned.said({"access_token": "t", "token_type": "Bearer"}),
            canned.token(expires_in=10**9),
        ):
            async with canned.serving(answer) as server, granting.sources(tmp_path) as by:
                loan = await by.own.fetch(
                    granting.wanted(granting.own(server.url, granting.client(tmp_path)))
                )
                lives.append(loan.expires_at - by.times.wall())
        return lives

    unsaid, far = asyncio.run(main())
    assert 200 < unsaid <= 300
    assert 86_300 < far <= 86_400


@pytest.mark.parametrize("name", ["hang", "slow_head", "half_close", "reset", "trickle"])
def test_a_broken_server_is_an_unavailable_credential(tmp_path, name, monkeypatch):
    monkeypatch.setattr(fetcher, "SECONDS_MAX", 0.5)

    async def main():
        async with upstreams.running(name) as server, granting.sources(tmp_path) as by:
            return await granting.unavailable(
                by.own, granting.wanted(granting.own(server.url, granting.client(tmp_path)))
            )

    assert asyncio.run(main()).reason is R.CREDENTIAL_UNAVAILABLE


def test_in_a_cluster_no_token_endpoint_is_dialled_that_no_server_may_be(authserver, tmp_path):
    async def main():
        async with granting.sources(tmp_path, network=snapshot.Network()) as by:
            client = granting.client(tmp_path)
            plain = await granting.unavailable(
                by.own, granting.wanted(granting.own(authserver.token_url, client))
            )
            metadata = await granting.unavailable(
                by.own, granting.wanted(granting.own("https://169.254.169.254/token", client))
            )
            return str(plain), str(metadata)

    plain, metadata = asyncio.run(main())
    assert "use https" in plain
    assert "link-local (instance metadata) addresses are never dialled" in metadata
    assert authserver.requests == 0


# One user and the others ------------------------------------------------------------------------------------------


def exchange_at(url, folder):
    return snapshot.TokenExchange(token_url=url, client=granting.client(folder), actor=False)


REFUSALS = [
    canned.said({"error": "invalid_target"}, status=b"400 No"),
    canned.said({"error": "invalid_scope"}, status=b"400 No"),
    canned.said({"error": "consent_needed"}, status=b"403 No"),
    canned.said(b"<html>", media=b"text/html", status=b"403 No"),
    canned.said(b"", media=b"text/plain", status=b"431 Too Large"),
    canned.said(b"", b"location: https://login.example/", status=b"302 Log in"),
    canned.token(expires_in=0),
    canned.token("a" * 20_000),
]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_user_whom_the_server_gives_nothing_keeps_nobody_else_from_theirs(authserver, tmp_path, refusal):
    good = canned.token(issued_token_type=exchange.TYPE + "access_token")

    async def main():
        async with (
            canned.serving(refusal, good) as server,
            granting.sources(tmp_path) as by,
        ):
            where = exchange_at(server.url, tmp_path)
            mallory = granting.wanted(where, granting.user(authserver, "mallory"))
            error = await granting.unavailable(by.exchanged, mallory)
            [before] = by.exchanged.standing()
            loan = await by.exchanged.fetch(granting.wanted(where, granting.user(authserver, "alice")))
            again = await granting.unavailable(by.exchanged, mallory)
            return error, again, before, loan, list(by.exchanged.standing()), len(server.forms)

    error, again, before, loan, [after], asked = asyncio.run(main())
    assert (loan.value, asked, str(again)) == (b"canned", 2, str(error))
    # As long as nobody was given anything it may be everybody's trouble, and is told.
    assert (before.available, before.why) == (False, str(error))
    assert (after.available, after.failing) == (True, None)


@pytest.mark.parametrize(
    "refusal",
    [
        canned.said({"error": "invalid_client"}, status=b"401 No"),
        canned.said({"error": "unauthorized_client"}, status=b"400 No"),
        canned.said(b"busy", media=b"text/plain", status=b"503 Busy"),
        canned.said({"error": "slow_down"}, status=b"429 Busy"),
    ],
)
def test_what_is_everybodys_trouble_is_asked_for_once_and_not_by_each_user(authserver, tmp_path, refusal):
    async def main():
        async with (
            canned.serving(refusal) as server,
            granting.sources(tmp_path) as by,
        ):
            where = exchange_at(server.url, tmp_path)
            users = [granting.user(authserver, f"user-{number}") for number in range(5)]
            for user in users:
                await granting.unavailable(by.exchanged, granting.wanted(where, user))
            return len(server.forms), next(iter(by.exchanged.standing())).available

    assert asyncio.run(main()) == (1, False)
