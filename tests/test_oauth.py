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
from tests.servers import flights, upstreams

from outrider import decision, snapshot
from outrider_sidecar import fetcher, oauth

R = decision.Reason


def own(url, client, **options):
    return snapshot.ClientCredentials(token_url=url, client=client, **options)


async def soon(true):
    """Waits for a condition."""
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.01)


def test_a_token_is_for_the_resource_audience_and_scopes_of_the_entry(authserver, tmp_path):
    authserver.register("outrider", secret="s3cret", targets=frozenset({granting.RESOURCE, "crm"}))

    async def main():
        async with granting.sources(tmp_path) as by:
            where = own(
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
            await by.own.fetch(granting.wanted(own(authserver.token_url, client)))

    asyncio.run(main())
    (issued,) = authserver.oauth.issued
    assert issued.method == "client_secret_post"
    assert "authorization" not in issued.headers


def test_a_secret_with_any_character_arrives_in_the_header(authserver, tmp_path):
    authserver.register("outrider", secret="s3 %:+/\u00e4&=~")

    async def main():
        async with granting.sources(tmp_path) as by:
            client = granting.client(tmp_path, "s3 %:+/\u00e4&=~")
            await by.own.fetch(granting.wanted(own(authserver.token_url, client)))

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
    where = own(authserver.token_url, client)
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
            return await granting.unavailable(by.own, granting.wanted(own(authserver.token_url, client)))

    error = asyncio.run(main())
    assert error.reason is R.CREDENTIAL_UNAVAILABLE
    assert "refused with invalid_client" in str(error)


def test_behind_tls_the_entrys_own_bundle_is_trusted_and_no_other(authserver_tls, tmp_path):
    authserver_tls.register("outrider", secret="s3cret")

    async def main():
        async with granting.sources(tmp_path) as by:
            client = granting.client(tmp_path)
            await by.own.fetch(
                granting.wanted(own(authserver_tls.token_url, client, ca_bundle=authserver_tls.ca_pem))
            )
            return await granting.unavailable(by.own, granting.wanted(own(authserver_tls.token_url, client)))

    error = asyncio.run(main())
    assert "has a certificate that is not trusted" in str(error)
    assert len(authserver_tls.oauth.issued) == 1


def test_a_thousand_calls_at_once_ask_for_one_token(authserver, tmp_path):
    authserver.register("outrider", secret="s3cret")

    async def main():
        async with granting.sources(tmp_path) as by:
            want = granting.wanted(own(authserver.token_url, granting.client(tmp_path)))
            lent = await asyncio.gather(*(by.own.fetch(want) for _ in range(1000)))
            return {each.value for each in lent}

    assert len(asyncio.run(main())) == 1
    assert authserver.requests == 1


def test_a_token_is_refreshed_before_it_ends_though_nobody_asks(authserver, tmp_path):
    authserver.register("outrider", secret="s3cret")
    authserver.oauth.lifetime = 2

    async def main():
        async with granting.sources(tmp_path) as by:
            want = granting.wanted(own(authserver.token_url, granting.client(tmp_path)))
            first = await by.own.fetch(want)
            await soon(lambda: by.own.at_hand(want) is not None and by.own.at_hand(want) is not first)
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
            want = granting.wanted(own(authserver.token_url, granting.client(tmp_path)))
            first = await by.own.fetch(want)
            await asyncio.sleep(0.3)
            assert authserver.requests == 1
            client.secret = "s3cret-2"
            (tmp_path / "secret").write_text("s3cret-2")
            await soon(lambda: by.own.at_hand(want) is not first)
            return first, by.own.at_hand(want)

    first, second = asyncio.run(main())
    assert first.value != second.value
    assert authserver.requests == 2


def test_a_secret_that_is_not_taken_any_more_is_got_anew_once(authserver, tmp_path):
    client = authserver.register("outrider", secret="s3cret")

    async def main():
        async with granting.sources(tmp_path) as by:
            want = granting.wanted(own(authserver.token_url, granting.client(tmp_path)))
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
            where = own(authserver.token_url, granting.client(tmp_path), **asked)
            error = await granting.unavailable(by.own, granting.wanted(where))
            return error, list(by.own.standing())

    error, (standing,) = asyncio.run(main())
    assert error.reason is R.CREDENTIAL_UNAVAILABLE
    assert error.retry_after_seconds > 0
    assert str(error).startswith(f"OAuth client 'outrider': {authserver.token_url} {says}")
    assert then in str(error)
    assert (standing.available, standing.failing, standing.why) == (False, error.reason, str(error))
    assert standing.failed == 1


def test_a_server_that_goes_away_and_comes_back_is_asked_again_and_the_token_serves_meanwhile(
    authserver, tmp_path
):
    authserver.register("outrider", secret="s3cret")
    authserver.oauth.lifetime = 4

    async def main():
        async with granting.sources(tmp_path) as by:
            want = granting.wanted(own(authserver.token_url, granting.client(tmp_path)))
            first = await by.own.fetch(want)
            await asyncio.to_thread(authserver.stop)
            await soon(lambda: next(iter(by.own.standing())).failing is not None)
            (away,) = by.own.standing()
            served_on = by.own.at_hand(want) is first
            by.slept = 10.0  # its own end has come
            gone = await granting.unavailable(by.own, want)
            by.slept = 0.0
            await asyncio.to_thread(authserver.start)
            await soon(lambda: next(iter(by.own.standing())).failing is None)
            return away, served_on, gone, by.own.at_hand(want), first

    away, served_on, gone, second, first = asyncio.run(main())
    assert (away.available, served_on) == (True, True)
    assert "ECONNREFUSED" in away.why
    assert gone.reason is R.CREDENTIAL_UNAVAILABLE
    assert "ECONNREFUSED" in str(gone)
    assert second is not None
    assert second is not first


def test_a_server_that_keeps_silent_costs_a_call_no_more_than_its_deadline(authserver, tmp_path):
    authserver.register("outrider", secret="s3cret")

    async def main():
        async with granting.sources(tmp_path) as by:
            loop = asyncio.get_running_loop()
            where = own(authserver.token_url, granting.client(tmp_path))
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
            want = granting.wanted(own(server.url, granting.client(tmp_path)))
            error = await granting.unavailable(by.own, want)
            again = await granting.unavailable(by.own, want)
            assert len(server.forms) == 1  # and in the pause nobody is asked
            await soon(lambda: len(server.forms) == 2)
            await soon(lambda: next(iter(by.own.standing())).refreshed == 1)
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
                loan = await by.own.fetch(granting.wanted(own(server.url, granting.client(tmp_path))))
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
                by.own, granting.wanted(own(server.url, granting.client(tmp_path)))
            )

    assert asyncio.run(main()).reason is R.CREDENTIAL_UNAVAILABLE


def test_in_a_cluster_no_token_endpoint_is_dialled_that_no_server_may_be(authserver, tmp_path):
    async def main():
        async with granting.sources(tmp_path, network=snapshot.Network()) as by:
            client = granting.client(tmp_path)
            plain = await granting.unavailable(by.own, granting.wanted(own(authserver.token_url, client)))
            metadata = await granting.unavailable(
                by.own, granting.wanted(own("https://169.254.169.254/token", client))
            )
            return str(plain), str(metadata)

    plain, metadata = asyncio.run(main())
    assert "use https" in plain
    assert "link-local (instance metadata) addresses are never dialled" in metadata
    assert authserver.requests == 0


def test_what_a_new_snapshot_does_not_name_is_forgotten_and_not_refreshed(authserver, tmp_path):
    authserver.register("outrider", secret="s3cret")
    authserver.oauth.lifetime = 2

    async def main():
        async with granting.sources(tmp_path) as by:
            client = granting.client(tmp_path)
            kept, dropped = (own(authserver.token_url, client, scopes=scopes) for scopes in ((), ("read",)))
            for each in (kept, dropped):
                await by.own.fetch(granting.wanted(each))
            by.own.keep(frozenset({kept, client.secret}))
            assert by.own.at_hand(granting.wanted(dropped)) is None
            assert [each.where for each in by.own.standing()] == [kept]
            await soon(lambda: authserver.requests >= 4)
            return [each.form.get("scope") for each in authserver.oauth.issued]

    assert asyncio.run(main())[2:4] == [None, None]


def test_different_entries_never_share_a_token(authserver, tmp_path):
    authserver.register("outrider", secret="s3cret")

    async def main():
        async with granting.sources(tmp_path) as by:
            client = granting.client(tmp_path)
            places = [
                own(authserver.token_url, client),
                own(authserver.token_url, client, resource="https://a.example/"),
                own(authserver.token_url, client, resource="https://b.example/"),
                own(authserver.token_url, client, audience="a"),
                own(authserver.token_url, client, scopes=("read",)),
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
            want = granting.wanted(own(server.url, granting.client(tmp_path, "canary-55aa")))
            loan = await by.own.fetch(want)
            await soon(lambda: next(iter(by.own.standing())).failing is not None)
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
            want = granting.wanted(own(authserver.token_url, granting.client(tmp_path)), deadline=math.inf)
            loan = await by.own.fetch(want)
            assert all(by.own.at_hand(want) is loan for _ in range(1000))

    asyncio.run(main())
    assert authserver.requests == 1
