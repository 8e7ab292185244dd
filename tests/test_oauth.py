# SPDX-License-Identifier: Apache-2.0
"""The proxy's own access tokens, from a real authorization server and from ones that misbehave; exchanges: test_oauth_exchanges."""

from __future__ import annotations

import asyncio
import logging
import math

import pytest
from tests import granting
from tests import test_assertions as keys
from tests.authserver import canned
from tests.servers import flights

from outrider import decision, snapshot
from outrider_sidecar import oauth

R = decision.Reason


def test_a_token_is_for_the_resource_audience_and_scopes_of_the_entry(authserver, tmp_path):
    authserver.register("outrider", secret="s3cret", targets=frozenset({granting.RESOURCE, "crm"}))

    async def main():
        async with granting.sources(tmp_path) as by:
            where = granting.own(
                authserver.token_url, granting.client(tmp_path), scopes=("read", "write"),
                resource=granting.RESOURCE, audience="crm",
            )  # fmt: skip
            want = granting.wanted(where)
            assert by.own.at_hand(want) is None
            loan = await by.own.fetch(want)
            assert by.own.at_hand(want) is loan
            return loan

    loan = asyncio.run(main())
    claims = authserver.active(loan.value.decode())
    assert claims["aud"] == [granting.RESOURCE, "crm"]
    assert claims["scope"] == "read write"
    assert claims["client_id"] == "outrider"
    assert abs(claims["exp"] - loan.expires_at) < 60
    (issued,) = authserver.oauth.issued
    assert issued.method == "client_secret_basic"
    assert set(issued.form) == {"grant_type", "scope", "resource", "audience"}
    assert "eyJ" not in repr(loan)


def test_a_secret_can_go_into_the_form(authserver, tmp_path):
    authserver.register("outrider", secret="s3cret %&=+", method="client_secret_post")

    async def main():
        async with granting.sources(tmp_path) as by:
            client = granting.client(tmp_path, "s3cret %&=+\n", post=True)
            await by.own.fetch(granting.wanted(granting.own(authserver.token_url, client)))

    asyncio.run(main())
    (issued,) = authserver.oauth.issued
    assert issued.method == "client_secret_post"
    assert "authorization" not in issued.headers


def test_a_secret_with_any_character_arrives_in_the_header(authserver, tmp_path):
    authserver.register("outrider", secret="s3 %:+/\u00e4&=~")

    async def main():
        async with granting.sources(tmp_path) as by:
            client = granting.client(tmp_path, "s3 %:+/\u00e4&=~")
            await by.own.fetch(granting.wanted(granting.own(authserver.token_url, client)))

    asyncio.run(main())
    assert len(authserver.oauth.issued) == 1


@pytest.mark.parametrize(("algorithm", "key", "kind"), [
    ("RS256", keys.RSA, "RSA"), ("PS256", keys.RSA, "RSA"), ("ES256", keys.EC, "EC"), ("EdDSA", keys.ED, "OKP"),
])  # fmt: skip
def test_a_private_key_proves_the_client_and_each_assertion_once(authserver, tmp_path, algorithm, key, kind):
    authserver.register("outrider", method="private_key_jwt", key=keys.public(key).decode(), key_type=kind)
    (tmp_path / "key").write_bytes(keys.pem(key))
    client = snapshot.OAuthClient(
        id="outrider", key=snapshot.FileSecret(path=str(tmp_path / "key")), algorithm=algorithm, key_id="k"
    )
    where = granting.own(authserver.token_url, client)
    oauth.prepare([where])

    async def main():
        async with granting.sources(tmp_path) as by:
            first = await by.own.fetch(granting.wanted(where))
            second = await by.own.fetch(granting.wanted(where), refused=first.version)
            return first, second

    first, second = asyncio.run(main())
    assert first.value != second.value
    assert [each.method for each in authserver.oauth.issued] == ["private_key_jwt"] * 2


def test_a_key_that_is_not_the_clients_is_an_invalid_client(authserver, tmp_path):
    authserver.register(
        "outrider", method="private_key_jwt", key=keys.public(keys.EC).decode(), key_type="EC"
    )
    (tmp_path / "key").write_bytes(keys.pem(keys.ec.generate_private_key(keys.ec.SECP256R1())))
    where = snapshot.FileSecret(path=str(tmp_path / "key"))
    client = snapshot.OAuthClient(id="outrider", key=where, algorithm="ES256")

    async def main():
        async with granting.sources(tmp_path) as by:
            return await granting.unavailable(
                by.own, granting.wanted(granting.own(authserver.token_url, client))
            )

    error = asyncio.run(main())
    assert error.reason is R.CREDENTIAL_UNAVAILABLE
    assert "refused with invalid_client" in str(error)


def test_behind_tls_the_entrys_own_bundle_is_trusted_and_no_other(authserver_tls, tmp_path):
    authserver_tls.register("outrider", secret="s3cret")

    async def main():
        async with granting.sources(tmp_path) as by:
            client = granting.client(tmp_path)
            await by.own.fetch(
                granting.wanted(
                    granting.own(authserver_tls.token_url, client, ca_bundle=authserver_tls.ca_pem)
                )
            )
            return await granting.unavailable(
                by.own, granting.wanted(granting.own(authserver_tls.token_url, client))
            )

    error = asyncio.run(main())
    assert "has a certificate that is not trusted" in str(error)
    assert len(authserver_tls.oauth.issued) == 1


def test_a_thousand_calls_at_once_ask_for_one_token(authserver, tmp_path):
    authserver.register("outrider", secret="s3cret")

    async def main():
        async with granting.sources(tmp_path) as by:
            want = granting.wanted(granting.own(authserver.token_url, granting.client(tmp_path)))
            lent = await asyncio.gather(*(by.own.fetch(want) for _ in range(1000)))
            return {each.value for each in lent}

    assert len(asyncio.run(main())) == 1
    assert authserver.requests == 1


def test_a_token_is_refreshed_before_it_ends_though_nobody_asks(authserver, tmp_path):
    authserver.register("outrider", secret="s3cret")
    authserver.oauth.lifetime = 2

    async def main():
        async with granting.sources(tmp_path) as by:
            want = granting.wanted(granting.own(authserver.token_url, granting.client(tmp_path)))
            first = await by.own.fetch(want)
            await granting.soon(
                lambda: by.own.at_hand(want) is not None and by.own.at_hand(want) is not first
            )
            (standing,) = by.own.standing()
            return standing

    standing = asyncio.run(main())
    assert standing.available
    assert standing.refreshed >= 2
    assert standing.failed == 0


def test_a_new_secret_leads_to_a_new_token_though_the_old_one_is_good(authserver, tmp_path, monkeypatch):
    monkeypatch.setattr(oauth, "CHECK_SECONDS", 0.05)
    client = authserver.register("outrider", secret="s3cret")

    async def main():
        async with granting.sources(tmp_path) as by:
            want = granting.wanted(granting.own(authserver.token_url, granting.client(tmp_path)))
            first = await by.own.fetch(want)
            await asyncio.sleep(0.3)
            assert authserver.requests == 1
            client.secret = "s3cret-2"
            (tmp_path / "secret").write_text("s3cret-2")
            await granting.soon(lambda: by.own.at_hand(want) is not first)
            return first, by.own.at_hand(want)

    first, second = asyncio.run(main())
    assert first.value != second.value
    assert authserver.requests == 2


def test_a_secret_that_is_not_taken_any_more_is_got_anew_once(authserver, tmp_path):
    client = authserver.register("outrider", secret="s3cret")

    async def main():
        async with granting.sources(tmp_path) as by:
            want = granting.wanted(granting.own(authserver.token_url, granting.client(tmp_path)))
            first = await by.own.fetch(want)
            client.secret = "s3cret-2"
            (tmp_path / "secret").write_text(
                "s3cret-2"
            )  # and the file source trusts what it read for a second
            second = await by.own.fetch(want, refused=first.version)
            client.secret = "s3cret-3"
            same = await by.own.fetch(want, refused=second.version)
            return first, second, same

    first, second, same = asyncio.run(main())
    assert first.value != second.value
    assert same is second
    assert authserver.requests == 1 + 2 + 1


def test_a_server_that_goes_away_and_comes_back_is_asked_again_and_the_token_serves_meanwhile(
    authserver, tmp_path
):
    authserver.register("outrider", secret="s3cret")

    async def main():
        async with granting.sources(tmp_path) as by:
            want = granting.wanted(granting.own(authserver.token_url, granting.client(tmp_path)))
            first = await by.own.fetch(want)
            await asyncio.to_thread(authserver.stop)
            same = await by.own.fetch(want, refused=first.version)
            (away,) = by.own.standing()
            served_on = same is first and by.own.at_hand(want) is first
            by.slept = 4000.0  # its own end has come
            gone = await granting.unavailable(by.own, want)
            by.slept = 0.0
            await asyncio.to_thread(authserver.start)
            await granting.soon(lambda: next(iter(by.own.standing())).failing is None)
            return away, served_on, gone, by.own.at_hand(want) is not first

    away, served_on, gone, renewed = asyncio.run(main())
    assert (away.available, served_on, renewed) == (True, True, True)
    assert "ECONNREFUSED" in away.why
    assert gone.reason is R.CREDENTIAL_UNAVAILABLE
    assert "ECONNREFUSED" in str(gone)


def test_a_server_that_keeps_silent_costs_a_call_no_more_than_its_deadline(authserver, tmp_path):
    authserver.register("outrider", secret="s3cret")

    async def main():
        async with granting.sources(tmp_path) as by:
            loop = asyncio.get_running_loop()
            where = granting.own(authserver.token_url, granting.client(tmp_path))
            with authserver.paused():
                late = await granting.unavailable(by.own, granting.wanted(where, deadline=loop.time() + 0.2))
            # What was asked then goes on: whoever comes next finds its answer.
            loan = await by.own.fetch(granting.wanted(where))
            return late, loan

    late, loan = asyncio.run(main())
    assert late.reason is R.CREDENTIAL_UNAVAILABLE
    assert "not had in the time there was" in str(late)
    assert late.retry_after_seconds > 0
    assert authserver.active(loan.value.decode()) is not None
    assert authserver.requests == 1


def test_what_a_new_snapshot_does_not_name_is_forgotten_and_not_refreshed(authserver, tmp_path):
    authserver.register("outrider", secret="s3cret")
    authserver.oauth.lifetime = 1

    async def main():
        async with granting.sources(tmp_path) as by:
            client = granting.client(tmp_path)
            kept, dropped = (
                granting.own(authserver.token_url, client, scopes=scopes) for scopes in ((), ("read",))
            )
            for each in (kept, dropped):
                await by.own.fetch(granting.wanted(each))
            by.own.keep(frozenset({kept, client.secret}))
            before = len(authserver.oauth.issued)
            assert by.own.at_hand(granting.wanted(dropped)) is None
            assert [each.where for each in by.own.standing()] == [kept]

            def since(scope):
                return [each.form.get("scope") for each in authserver.oauth.issued[before:]].count(scope)

            await granting.soon(lambda: since(None) >= 3)
            return since("read")

    assert asyncio.run(main()) <= 1  # one may have been on its way


def test_different_entries_never_share_a_token(authserver, tmp_path):
    authserver.register("outrider", secret="s3cret")

    async def main():
        async with granting.sources(tmp_path) as by:
            client = granting.client(tmp_path)
            places = [
                granting.own(authserver.token_url, client),
                granting.own(authserver.token_url, client, resource="https://a.example/"),
                granting.own(authserver.token_url, client, resource="https://b.example/"),
                granting.own(authserver.token_url, client, audience="a"),
                granting.own(authserver.token_url, client, scopes=("read",)),
            ]
            return [(await by.own.fetch(granting.wanted(each))).value for each in places]

    assert len(set(asyncio.run(main()))) == 5


def test_no_log_line_and_no_error_holds_a_secret_or_a_token(tmp_path, caplog):
    echo = {"error": "invalid_client", "error_description": "the secret canary-55aa is not s3cret"}

    async def main():
        async with (
            canned.serving(
                canned.token("canary-token", expires_in=1), canned.said(echo, status=b"401 No")
            ) as server,
            granting.sources(tmp_path) as by,
        ):
            want = granting.wanted(granting.own(server.url, granting.client(tmp_path, "canary-55aa")))
            loan = await by.own.fetch(want)
            await granting.soon(lambda: next(iter(by.own.standing())).failing is not None)
            error = str(next(iter(by.own.standing())))
            return repr(loan) + error + repr(by.own) + repr(want) + repr(by.endpoint)

    with caplog.at_level(logging.DEBUG):
        said = asyncio.run(main())
    assert any(record.message == "a credential cannot be refreshed" for record in caplog.records)
    assert "canary" not in said + caplog.text + str([vars(record) for record in caplog.records])


def test_a_warm_token_is_lent_without_waiting_or_asking(authserver, tmp_path):
    authserver.register("outrider", secret="s3cret")

    async def main():
        async with granting.sources(tmp_path, network=flights.LAPTOP) as by:
            want = granting.wanted(
                granting.own(authserver.token_url, granting.client(tmp_path)), deadline=math.inf
            )
            loan = await by.own.fetch(want)
            assert all(by.own.at_hand(want) is loan for _ in range(1000))

    asyncio.run(main())
    assert authserver.requests == 1
