# SPDX-License-Identifier: Apache-2.0
"""The user's token exchanged for one that a server takes (RFC 8693): for that user alone, and no longer than it is good itself."""

from __future__ import annotations

import asyncio
import collections
import logging
import time

import pytest
from tests import granting
from tests.authserver import canned, exchange
from tests.authserver import server as authservers

from outrider import decision, identity, snapshot
from outrider_sidecar import oauth

R = decision.Reason


@pytest.fixture
def exchanging(authserver, tmp_path):
    """The authorization server with our client, and the pod's own token in its file."""
    authserver.register("outrider", secret="s3cret", actor_required=True)
    (tmp_path / "actor").write_text(authserver.actor_token("agents", "bot") + "\n")
    return authserver


def entry(url, folder, **options):
    return snapshot.TokenExchange(token_url=url, client=granting.client(folder), **options)


def actors(tmp_path):
    return {"actor_file": tmp_path / "actor"}


def test_what_is_lent_is_for_the_user_names_the_workload_and_is_for_the_server(exchanging, tmp_path):
    async def main():
        async with granting.sources(tmp_path, **actors(tmp_path)) as by:
            where = entry(exchanging.token_url, tmp_path, resource=granting.RESOURCE, scopes=("read",))
            want = granting.wanted(where, granting.user(exchanging, "alice"))
            assert by.exchanged.at_hand(want) is None
            loan = await by.exchanged.fetch(want)
            assert by.exchanged.at_hand(want) is loan
            return loan, want.user

    loan, user = asyncio.run(main())
    claims = exchanging.active(loan.value.decode())
    assert (claims["sub"], claims["aud"], claims["scope"]) == ("alice", [granting.RESOURCE], "read")
    assert claims["act"] == {"sub": "system:serviceaccount:agents:bot", "iss": authservers.CLUSTER}
    (issued,) = exchanging.oauth.issued
    assert set(issued.form) == {
        "grant_type", "scope", "resource", "subject_token", "subject_token_type", "requested_token_type",
        "actor_token", "actor_token_type",
    }  # fmt: skip
    assert issued.form["subject_token_type"] == exchange.TYPE + "access_token"
    assert issued.form["subject_token"] == user.token
    assert loan.expires_at <= user.expires_at


@pytest.mark.parametrize("kind", ["jwt", "id_token"])
def test_the_users_token_is_called_what_the_authorization_server_calls_it(exchanging, tmp_path, kind):
    exchanging.oauth.subject_types = (exchange.TYPE + kind,)

    async def main():
        async with granting.sources(tmp_path, **actors(tmp_path)) as by:
            user = granting.user(exchanging)
            named = granting.wanted(entry(exchanging.token_url, tmp_path, subject_type=kind), user)
            await by.exchanged.fetch(named)
            other = granting.wanted(entry(exchanging.token_url, tmp_path), user)
            return await granting.unavailable(by.exchanged, other)

    assert "refused with invalid_request" in str(asyncio.run(main()))


def test_without_an_actor_none_is_sent_and_a_server_that_wants_one_says_so(exchanging, tmp_path):
    async def main():
        async with granting.sources(tmp_path) as by:
            where = entry(exchanging.token_url, tmp_path, actor=False)
            want = granting.wanted(where, granting.user(exchanging))
            error = await granting.unavailable(by.exchanged, want)
            exchanging.oauth.clients["outrider"].actor_required = False
            bob = granting.wanted(where, granting.user(exchanging, "bob"))
            return error, await by.exchanged.fetch(bob)

    error, loan = asyncio.run(main())
    assert "refused with invalid_request (an actor is needed)" in str(error)
    claims = exchanging.active(loan.value.decode())
    assert "act" not in claims
    assert "actor_token" not in exchanging.oauth.issued[0].form


def test_two_users_at_once_never_get_one_anothers_token(exchanging, tmp_path):
    names = [f"user-{number}" for number in range(20)]

    async def main():
        async with granting.sources(tmp_path, **actors(tmp_path)) as by:
            where = entry(exchanging.token_url, tmp_path)
            users = [granting.user(exchanging, name) for name in names]
            wants = [granting.wanted(where, user) for user in users]
            lent = await asyncio.gather(*(by.exchanged.fetch(want) for want in wants * 5))
            warm = [by.exchanged.at_hand(want) for want in wants]
            return lent, warm

    lent, warm = asyncio.run(main())
    subjects = [exchanging.active(loan.value.decode())["sub"] for loan in lent]
    assert subjects == names * 5
    assert [exchanging.active(loan.value.decode())["sub"] for loan in warm] == names
    assert collections.Counter(each.claims["sub"] for each in exchanging.oauth.issued) == dict.fromkeys(
        names, 1
    )


def test_another_token_of_the_same_user_is_exchanged_for_itself(exchanging, tmp_path):
    async def main():
        async with granting.sources(tmp_path, **actors(tmp_path)) as by:
            where = entry(exchanging.token_url, tmp_path)
            first, second = granting.user(exchanging, seconds=600), granting.user(exchanging, seconds=60)
            assert first.id == second.id
            loans = [await by.exchanged.fetch(granting.wanted(where, user)) for user in (first, second)]
            assert by.exchanged.at_hand(granting.wanted(where, first)) is loans[0]
            return loans, second

    (long, short), second = asyncio.run(main())
    assert long.value != short.value
    assert short.expires_at <= second.expires_at < long.expires_at


def test_different_entries_never_share_a_token_of_a_user(exchanging, tmp_path):
    async def main():
        async with granting.sources(tmp_path, **actors(tmp_path)) as by:
            user = granting.user(exchanging)
            places = [
                entry(exchanging.token_url, tmp_path, resource=f"https://{name}.example/") for name in "ab"
            ]
            return [(await by.exchanged.fetch(granting.wanted(each, user))).value for each in places]

    assert len(set(asyncio.run(main()))) == 2


def test_without_a_user_nothing_is_exchanged(exchanging, tmp_path):
    async def main():
        async with granting.sources(tmp_path, **actors(tmp_path)) as by:
            where = entry(exchanging.token_url, tmp_path)
            assert by.exchanged.at_hand(granting.wanted(where)) is None
            nobody = await granting.unavailable(by.exchanged, granting.wanted(where))
            tokenless = identity.User("idp:x", frozenset({"idp:x"}))
            return nobody, await granting.unavailable(by.exchanged, granting.wanted(where, tokenless))

    errors = asyncio.run(main())
    assert {error.reason for error in errors} == {R.USER_REQUIRED}
    assert exchanging.requests == 0


def test_a_user_whose_own_token_is_over_or_of_another_issuer_is_refused_and_nobody_else(exchanging, tmp_path):
    async def main():
        async with granting.sources(tmp_path, **actors(tmp_path)) as by:
            where = entry(exchanging.token_url, tmp_path)
            over = granting.user(exchanging, seconds=-5)
            stranger = granting.user(exchanging, "mallory", aud="elsewhere")
            refused = [
                await granting.unavailable(by.exchanged, granting.wanted(where, each))
                for each in (over, stranger)
            ]
            again = await granting.unavailable(by.exchanged, granting.wanted(where, stranger))
            asked = exchanging.requests
            loan = await by.exchanged.fetch(granting.wanted(where, granting.user(exchanging, "alice")))
            return refused, again, asked, loan, list(by.exchanged.standing())

    refused, again, asked, loan, (standing,) = asyncio.run(main())
    for error in refused:
        assert error.reason is R.CREDENTIAL_UNAVAILABLE
        assert "refused with invalid_grant" in str(error)
    assert again.retry_after_seconds > 0
    assert asked == 2
    assert exchanging.active(loan.value.decode())["sub"] == "alice"
    assert (standing.available, standing.failing, standing.expires_at) == (True, None, None)
    assert (standing.refreshed, standing.failed) == (1, 2)


def test_the_workloads_token_is_read_anew_for_each_exchange(exchanging, tmp_path):
    async def main():
        async with granting.sources(tmp_path, **actors(tmp_path)) as by:
            where = entry(exchanging.token_url, tmp_path)
            await by.exchanged.fetch(granting.wanted(where, granting.user(exchanging, "alice")))
            (tmp_path / "actor").write_text(exchanging.actor_token("agents", "other"))
            await by.exchanged.fetch(granting.wanted(where, granting.user(exchanging, "bob")))

    asyncio.run(main())
    accounts = [each.claims["act"]["sub"].rpartition(":")[2] for each in exchanging.oauth.issued]
    assert accounts == ["bot", "other"]


@pytest.mark.parametrize(("content", "says"), [
    (None, "cannot be read"), (b"", "is none"), (b"two words", "is none"), (b"\xff", "is none"), (b"a" * 20_000, "is none"),
])  # fmt: skip
def test_a_workload_without_a_token_for_exchanges_is_told_which_file(exchanging, tmp_path, content, says):
    (tmp_path / "actor").unlink()
    if content is not None:
        (tmp_path / "actor").write_bytes(content)

    async def main():
        async with granting.sources(tmp_path, **actors(tmp_path)) as by:
            where = entry(exchanging.token_url, tmp_path)
            return await granting.unavailable(by.exchanged, granting.wanted(where, granting.user(exchanging)))

    error = asyncio.run(main())
    assert error.reason is R.CREDENTIAL_UNAVAILABLE
    assert says in str(error)
    assert str(tmp_path / "actor") in str(error)
    assert exchanging.requests == 0


def test_a_proxy_that_was_given_no_such_file_says_what_to_do(exchanging, tmp_path):
    async def main():
        async with granting.sources(tmp_path) as by:
            where = entry(exchanging.token_url, tmp_path)
            return await granting.unavailable(by.exchanged, granting.wanted(where, granting.user(exchanging)))

    error = asyncio.run(main())
    assert "--exchange-token-file" in str(error)
    assert "`actor: Nobody`" in str(error)


@pytest.mark.parametrize(("more", "says"), [
    ({}, "gave nothing as issued_token_type"),
    ({"issued_token_type": exchange.TYPE + "id_token"}, "id_token as issued_token_type"),
    ({"issued_token_type": exchange.TYPE + "access_token", "token_type": "N_A"}, "of type N_A"),
])  # fmt: skip
def test_an_exchange_that_gives_something_else_gives_nothing(exchanging, tmp_path, more, says):
    async def main():
        async with (
            canned.serving(canned.token(**more)) as server,
            granting.sources(tmp_path, **actors(tmp_path)) as by,
        ):
            want = granting.wanted(entry(server.url, tmp_path), granting.user(exchanging))
            return await granting.unavailable(by.exchanged, want)

    error = asyncio.run(main())
    assert error.reason is R.CREDENTIAL_MALFORMED
    assert says in str(error)


def test_while_the_server_is_away_users_keep_what_they_have_and_new_ones_wait_in_one_pause(
    exchanging, tmp_path
):
    async def main():
        async with granting.sources(tmp_path, **actors(tmp_path)) as by:
            where = entry(exchanging.token_url, tmp_path)
            alice = granting.wanted(where, granting.user(exchanging, "alice"))
            held = await by.exchanged.fetch(alice)
            newcomers = [
                granting.wanted(where, granting.user(exchanging, f"u{number}")) for number in range(5)
            ]
            await asyncio.to_thread(exchanging.stop)
            errors = [await granting.unavailable(by.exchanged, each) for each in newcomers]
            assert by.exchanged.at_hand(alice) is held
            (away,) = by.exchanged.standing()
            await asyncio.to_thread(exchanging.start)
            async with asyncio.timeout(30):
                while True:
                    try:
                        await by.exchanged.fetch(newcomers[0])
                        break
                    except oauth.loans.Unavailable as paused:
                        await asyncio.sleep(paused.retry_after_seconds)
            (back,) = by.exchanged.standing()
            return errors, away, back

    errors, away, back = asyncio.run(main())
    assert len({str(error) for error in errors}) == 1
    assert "ECONNREFUSED" in str(errors[0])
    assert (away.available, away.failed) == (False, 1)
    assert (back.available, back.why) == (True, "")


def test_users_are_forgotten_when_they_are_too_many_or_their_tokens_are_over(
    exchanging, tmp_path, monkeypatch
):
    monkeypatch.setattr(oauth, "USERS_MAX", 3)
    monkeypatch.setattr(oauth, "SWEEP_SECONDS", 0.05)

    async def main():
        async with granting.sources(tmp_path, **actors(tmp_path)) as by:
            where = entry(exchanging.token_url, tmp_path)
            wants = [granting.wanted(where, granting.user(exchanging, f"u{number}")) for number in range(4)]
            for want in wants[:3]:
                await by.exchanged.fetch(want)
            assert by.exchanged.at_hand(wants[0]) is not None  # used last, so the second one goes
            await by.exchanged.fetch(wants[3])
            held = [by.exchanged.at_hand(want) is not None for want in wants]
            by.slept = 3600.0
            async with asyncio.timeout(30):
                while by.exchanged._entries[where].tokens:
                    await asyncio.sleep(0.01)
            return held

    assert asyncio.run(main()) == [True, False, True, True]


def test_more_users_than_can_be_waited_for_are_told_to_come_again(exchanging, tmp_path, monkeypatch):
    monkeypatch.setattr(oauth, "USERS_MAX", 2)

    async def main():
        async with granting.sources(tmp_path, **actors(tmp_path)) as by:
            where = entry(exchanging.token_url, tmp_path)
            wants = [granting.wanted(where, granting.user(exchanging, f"u{number}")) for number in range(3)]
            with exchanging.paused():
                waiting = [asyncio.create_task(by.exchanged.fetch(want)) for want in wants[:2]]
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                error = await granting.unavailable(by.exchanged, wants[2])
            await asyncio.gather(*waiting)
            return error

    error = asyncio.run(main())
    assert error.reason is R.CREDENTIAL_UNAVAILABLE
    assert "2 users are being waited for already" in str(error)


def test_an_entry_that_is_gone_or_a_proxy_that_ends_forgets_every_user(exchanging, tmp_path):
    async def main():
        async with granting.sources(tmp_path, **actors(tmp_path)) as by:
            want = granting.wanted(entry(exchanging.token_url, tmp_path), granting.user(exchanging))
            await by.exchanged.fetch(want)
            by.exchanged.keep(frozenset({want.where}))
            assert by.exchanged.at_hand(want) is not None
            by.exchanged.keep(frozenset())
            assert by.exchanged.at_hand(want) is None
            return list(by.exchanged.standing())

    assert asyncio.run(main()) == []


def test_a_token_that_the_server_refused_is_exchanged_again_for_the_same_user(exchanging, tmp_path):
    async def main():
        async with granting.sources(tmp_path, **actors(tmp_path)) as by:
            want = granting.wanted(entry(exchanging.token_url, tmp_path), granting.user(exchanging))
            first = await by.exchanged.fetch(want)
            exchanging.revoke_all()
            second = await by.exchanged.fetch(want, refused=first.version)
            return first, second

    first, second = asyncio.run(main())
    assert exchanging.active(first.value.decode()) is None
    assert exchanging.active(second.value.decode())["sub"] == "alice"


def test_no_log_line_and_no_error_holds_a_users_token_or_who_it_is(exchanging, tmp_path, caplog):
    user = granting.user(exchanging, "canary-alice")
    actor = (tmp_path / "actor").read_text().strip()
    echo = {"error": "invalid_grant", "error_description": f"no {user.token} and no {actor}"}

    async def main():
        async with (
            canned.serving(canned.said(echo, status=b"400 No")) as server,
            granting.sources(tmp_path, **actors(tmp_path)) as by,
        ):
            want = granting.wanted(entry(server.url, tmp_path), user)
            error = await granting.unavailable(by.exchanged, want)
            return (
                str(error)
                + repr(by.exchanged)
                + str(list(by.exchanged.standing()))
                + repr(want.user.token == "")
            )

    with caplog.at_level(logging.DEBUG):
        said = asyncio.run(main()) + caplog.text + str([vars(record) for record in caplog.records])
    assert "invalid_grant" in said
    for secret in (user.token, user.token[-20:], actor, actor[-20:], "canary-alice", "s3cret"):
        assert secret not in said


def test_a_users_token_is_over_at_the_end_that_the_proxy_believes(exchanging, tmp_path):
    """An authorization server may give more than it was given: it is not lent any longer for that."""
    issued_type = {"issued_token_type": exchange.TYPE + "access_token"}

    async def main():
        async with (
            canned.serving(canned.token(**issued_type)) as server,
            granting.sources(tmp_path, **actors(tmp_path)) as by,
        ):
            user = granting.user(exchanging, seconds=60)
            want = granting.wanted(entry(server.url, tmp_path), user)
            loan = await by.exchanged.fetch(want)
            by.slept = user.expires_at - time.time() + 0.1
            return loan.expires_at - user.expires_at, by.exchanged.at_hand(want)

    over, late = asyncio.run(main())
    assert over <= 0
    assert late is None
