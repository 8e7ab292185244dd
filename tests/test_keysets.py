# SPDX-License-Identifier: Apache-2.0
"""An issuer's keys: fetched seldom, kept while it is away, forgotten when it takes them back; and whatever it answers with."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from tests.servers import idp
from tests.test_users import F, Hands, flaw, verifying

from outrider import identity
from outrider_sidecar import keysets


async def fetched(provider, number):
    async with asyncio.timeout(10):
        while provider.fetches < number:
            await asyncio.sleep(0.001)


async def known(made, count):
    """Returns once a fetch that goes on in the background has been read."""
    async with asyncio.timeout(10):
        while [len(each) for each in made.sets()] != [count]:
            await asyncio.sleep(0.001)


def test_a_new_key_works_at_once():
    async def main():
        hands = Hands()
        async with verifying(hands, published=["es-1"]) as (made, provider):
            await made.verify(provider.token(now=hands.wall))
            hands.on(keysets.WAIT_SECONDS)
            provider.published = ["es-2", "es-1"]
            assert isinstance(await made.verify(provider.token(key="es-2", now=hands.wall)), identity.User)
            assert provider.fetches == 2

    asyncio.run(main())


def test_a_new_key_under_an_old_name_works_at_once():
    async def main():
        hands = Hands()
        async with verifying(hands, published=["es-1"]) as (made, provider):
            old = provider.token(now=hands.wall)
            await made.verify(old)
            hands.on(keysets.WAIT_SECONDS)
            provider.published = [{**idp.jwk("es-2"), "kid": "es-1"}]
            renewed = idp.signed(
                {"alg": "ES256", "kid": "es-1"},
                provider.claims(now=hands.wall),
                key=idp.private("es-2"),
                algorithm="ES256",
            )
            assert isinstance(await made.verify(renewed), identity.User)
            assert flaw(await made.verify(old)) is F.SIGNATURE  # and the old one's tokens are nobody's

    asyncio.run(main())


def test_a_flood_of_unknown_kids_asks_the_provider_once_in_thirty_seconds():
    async def main():
        hands = Hands()
        async with verifying(hands) as (made, provider):
            for number in range(300):
                forged = idp.signed(
                    {"alg": "ES256", "kid": f"k{number}"},
                    provider.claims(now=hands.wall),
                    key=idp.private("es-other"),
                    algorithm="ES256",
                )
                assert flaw(await made.verify(forged)) is F.KEY_UNKNOWN
                hands.on(0.3)
            assert 3 <= provider.fetches <= 4  # ninety seconds
            assert isinstance(
                made.verified(provider.token(now=hands.wall)), identity.User
            )  # nobody else waits for it

    asyncio.run(main())


def test_forged_signatures_ask_no_more_often():
    async def main():
        hands = Hands()
        async with verifying(hands) as (made, provider):
            for number in range(100):
                forged = idp.signed(
                    {"alg": "ES256", "kid": "es-1"},
                    provider.claims(f"u{number}", now=hands.wall),
                    key=idp.private("es-other"),
                    algorithm="ES256",
                )
                assert flaw(await made.verify(forged)) is F.SIGNATURE
            assert provider.fetches == 1

    asyncio.run(main())


def test_a_key_that_is_taken_away_is_accepted_for_five_minutes_at_most():
    async def main():
        hands = Hands()
        async with verifying(hands, published=["es-1", "es-2"], lifetime_seconds_max=5400) as (
            made,
            provider,
        ):
            token = provider.token(now=hands.wall, exp=int(hands.wall) + 3600)
            await made.verify(token)
            provider.published = ["es-2"]
            hands.on(keysets.AHEAD_SECONDS - 1)
            assert isinstance(made.verified(token), identity.User)
            hands.on(keysets.FRESH_SECONDS - keysets.AHEAD_SECONDS + 2)
            assert made.verified(token) is None  # nobody used it meanwhile, so it has to be asked for
            assert flaw(await made.verify(token)) is F.KEY_UNKNOWN

    asyncio.run(main())


def test_a_set_that_is_used_is_fetched_ahead_and_nobody_waits():
    async def main():
        hands = Hands()
        async with verifying(hands, published=["es-1"]) as (made, provider):
            token = provider.token(now=hands.wall, exp=int(hands.wall) + 3600)
            await made.verify(token)
            for number in range(2, 6):
                hands.on(keysets.AHEAD_SECONDS + 1)
                assert isinstance(made.verified(token), identity.User)
                await fetched(provider, number)
                async with asyncio.timeout(10):
                    while made.sets()[0]._under_way is not None:
                        await asyncio.sleep(0.001)

    asyncio.run(main())


def test_a_provider_that_is_away_is_done_without_for_a_day():
    async def main():
        hands = Hands()
        async with verifying(hands, lifetime_seconds_max=10**6) as (made, provider):
            token = provider.token(now=hands.wall, exp=int(hands.wall) + 10**5)
            await made.verify(token)
            provider.how = "away"
            hands.on(keysets.FRESH_SECONDS + 1)
            assert isinstance(await made.verify(token), identity.User)  # has waited for it once
            asked = provider.fetches
            for _ in range(20):
                hands.on(1.0)
                assert isinstance(made.verified(token), identity.User)  # and now nobody waits
            assert provider.fetches == asked
            hands.on(keysets.KEPT_SECONDS)
            assert flaw(await made.verify(token)) is F.KEYS_UNAVAILABLE
            provider.how = "well"
            hands.on(keysets.WAIT_SECONDS)
            assert isinstance(await made.verify(token), identity.User)

    asyncio.run(main())


@pytest.mark.parametrize("how", ["away", "error", "garbage", "redirect", "huge"])
def test_whatever_a_provider_answers_with_a_token_is_refused_and_later_taken(how, caplog):
    caplog.set_level(logging.INFO)

    async def main():
        hands = Hands()
        async with verifying(hands, how=how) as (made, provider):
            token = provider.token(now=hands.wall)
            assert flaw(await made.verify(token)) is F.KEYS_UNAVAILABLE
            assert made.sets()[0].failing
            assert flaw(made.verified(token)) is F.KEYS_UNAVAILABLE  # and is not asked at every call
            provider.how = "well"
            hands.on(keysets.FIRST_WAIT_SECONDS)
            assert isinstance(await made.verify(token), identity.User)
            assert made.sets()[0].failing == ""
            assert b"GET /elsewhere" not in b"".join(provider.requests)

    asyncio.run(main())
    said = [record.message for record in caplog.records if record.name == "outrider"]
    assert said == ["the keys of an identity provider cannot be had", "keys of an identity provider"]


def test_a_provider_that_does_not_answer_is_waited_for_and_no_longer(monkeypatch):
    monkeypatch.setattr(keysets, "FETCH_SECONDS", 0.2)

    async def main():
        async with verifying(how="slow") as (made, provider):
            assert flaw(await made.verify(provider.token())) is F.KEYS_UNAVAILABLE
            assert "in time" in made.sets()[0].failing

    asyncio.run(main())


def test_a_provider_that_stays_away_is_asked_less_and_less():
    async def main():
        hands = Hands()
        async with verifying(hands, how="error") as (made, provider):
            for _ in range(1200):
                await made.verify(provider.token(now=hands.wall))
                hands.on(0.25)
            assert 10 <= provider.fetches <= 16  # at 0, 1, 3, 7, 15, 31 s, and then every thirty

    asyncio.run(main())


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not a JWK set"),
        (b"[]", "no list"),
        (b'{"keys":{}}', "no list"),
        (b'{"keys":[]}', "none of the 0"),
        (b'{"keys":[1,"x",{}]}', "none of the 3"),
        (b'{"keys":[],"keys":[]}', "same key twice"),
        (json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "es-1"}]}).encode(), "none of the 1"),
        (json.dumps({"keys": [{}] * 200}).encode(), "more than 128"),
        (json.dumps({"keys": [idp.jwk("es-1", x="AAAA")]}).encode(), "none of the 1"),
        (json.dumps({"keys": [idp.jwk("es-1", d="AAAA")]}).encode(), "none of the 1"),
        (json.dumps({"keys": [idp.jwk("es-1", alg="RS256")]}).encode(), "none of the 1"),
        (json.dumps({"keys": [idp.jwk("weak-1")]}).encode(), "none of the 1"),
        (json.dumps({"keys": [idp.jwk("rs-1", key_ops=["encrypt"])]}).encode(), "none of the 1"),
    ],
)
def test_a_set_without_a_usable_key_is_no_set(body, why):
    async def main():
        async with verifying(body=body) as (made, provider):
            assert flaw(await made.verify(provider.token())) is F.KEYS_UNAVAILABLE
            assert why in made.sets()[0].failing

    asyncio.run(main())


def test_a_bad_answer_does_not_take_good_keys_away():
    async def main():
        hands = Hands()
        async with verifying(hands) as (made, provider):
            token = provider.token(now=hands.wall)
            await made.verify(token)
            hands.on(keysets.AHEAD_SECONDS + 1)
            provider.how = "garbage"
            made.verified(token)
            await fetched(provider, 2)
            await known(made, 2)
            assert isinstance(made.verified(token), identity.User)

    asyncio.run(main())
