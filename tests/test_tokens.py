# SPDX-License-Identifier: Apache-2.0
"""The limits of what a token may say, to the number; that its text is told nowhere. Most of it stands in corpus/tokens.yaml."""

from __future__ import annotations

import time

import pytest
from tests.servers import idp

from outrider_sidecar import tokens

F = tokens.Flaw
NOW = 1_800_000_000.0
OKTA = idp.Provider()


def read(*, now=NOW, settings=None, **claims):
    token = OKTA.token(**{"now": NOW, **claims})
    return tokens.Providers([settings or OKTA.settings()]).claimed(token, now)


def test_what_is_claimed_is_not_shown():
    claimed = read()
    assert isinstance(claimed, tokens.Claimed)
    assert claimed.user.token not in repr(claimed)
    assert (claimed.algorithm, claimed.kid, claimed.provider.name) == ("ES256", "es-1", "okta")


@pytest.mark.parametrize(
    ("claims", "ahead", "flaw"),
    [
        ({}, 300 + 29.9, None),
        ({}, 300 + 30, F.EXPIRED),
        ({"iat": int(NOW) + 30, "exp": int(NOW) + 60}, 0, None),
        ({"iat": int(NOW) + 31, "exp": int(NOW) + 60}, 0, F.NOT_YET),
        ({"nbf": int(NOW) + 30}, 0, None),
        ({"nbf": int(NOW) + 31}, 0, F.NOT_YET),
        ({"exp": int(NOW) + 5400}, 0, None),
        ({"exp": int(NOW) + 5401}, 0, F.LIFETIME),
        ({"exp": int(NOW), "iat": int(NOW)}, 0, F.LIFETIME),
        ({"exp": 10**40}, 0, F.LIFETIME),
        ({"iat": -(10**60)}, 0, F.LIFETIME),
    ],
)
def test_clocks_may_differ_by_thirty_seconds_and_lives_are_bounded(claims, ahead, flaw):
    found = read(now=NOW + ahead, **claims)
    assert (found.flaw if isinstance(found, tokens.Refused) else None) is flaw


@pytest.mark.parametrize(
    ("claims", "flaw"),
    [
        ({"groups": [f"g{number}" for number in range(512)]}, None),
        ({"groups": [f"g{number}" for number in range(513)]}, F.GROUPS),
        ({"groups": ["g" * 256]}, None),
        ({"groups": ["g" * 257]}, F.GROUPS),
        ({"groups": [""]}, F.GROUPS),
        ({"groups": None}, None),
        ({"groups": "a b"}, None),
        ({"sub": "s" * 255}, None),
        ({"sub": "s" * 256}, F.SUBJECT),
        ({"aud": ["outrider"] * 64}, None),
        ({"aud": ["outrider"] * 65}, F.AUDIENCE),
        ({"azp": "a", "client_id": "a"}, None),
        ({"azp": ""}, F.CLIENT),
        ({"azp": "a", "client_id": 1}, None),
        ({"act": "deputy"}, F.CLIENT),
        ({"act": {"sub": "deputy"}}, None),
        ({"_claim_names": {"roles": "src1"}}, None),
    ],
)
def test_what_is_listed_is_bounded_and_never_cut(claims, flaw):
    found = read(**claims)
    assert (found.flaw if isinstance(found, tokens.Refused) else None) is flaw


def test_groups_come_from_the_claim_that_the_settings_name():
    found = read(
        settings=OKTA.settings(groups_claim="https://idp.example/roles"),
        **{"https://idp.example/roles": ["x"], "groups": ["y"]},
    )
    assert found.user.groups == {"okta:x"}


def test_the_client_comes_from_the_claim_that_the_settings_name():
    okta = OKTA.settings(client_claim="cid", clients=("agent",))
    assert read(settings=okta, cid="agent", azp="whatever").user.client == "okta:agent"
    for claims in ({"azp": "agent"}, {"cid": "stranger"}, {"cid": ["agent"]}):
        assert read(settings=okta, **claims).flaw is F.CLIENT


def test_one_text_is_one_group_whatever_is_in_it():
    assert read(groups="a b").user.groups == {"okta:a b"}


@pytest.mark.parametrize("value", ["a\nb", "x" * 5000, "\x1b[31m", "\u202e", "\ud800", 7, None, ["x"]])
def test_what_strangers_claim_is_told_printable_and_short(value):
    told = tokens.shown(value)
    assert told.isprintable()
    assert told.isascii()
    assert len(told) < 200


def test_a_refusal_is_one_line():
    found = read(iss="https://evil.example/\n{}\x00" + "x" * 9000)
    assert isinstance(found, tokens.Refused)
    assert str(found).isprintable()
    assert len(str(found)) < 300
    assert str(tokens.Refused(F.EXPIRED)) == "expired"


def test_reading_takes_no_longer_for_tokens_made_to_be_slow():
    providers, began = tokens.Providers([OKTA.settings()]), time.perf_counter()
    for text in (
        "." * 16_384,
        "A" * 16_384,
        "{" * 16_384,
        "e30." * 4096,
        "e30.e30." + "A" * 16_000,
        "W" * 8000 + "." + "W" * 8000 + ".W",
    ):
        for _ in range(20):
            assert isinstance(providers.claimed(text, NOW), tokens.Refused)
    assert time.perf_counter() - began < 20
