# SPDX-License-Identifier: Apache-2.0
"""Which keys of a set are used, and for what; the sets that are none stand in test_keysets."""

from __future__ import annotations

import json

import jwt
import pytest
from tests.servers import idp

from outrider_sidecar import signatures, tokens

SIGNED = b"header.claims"


def read(*listed):
    return signatures.keys(
        json.dumps({"keys": [idp.jwk(each) if isinstance(each, str) else each for each in listed]}).encode()
    )


def made(name, algorithm):
    return jwt.get_algorithm_by_name(algorithm).sign(SIGNED, idp.private(name))


@pytest.mark.parametrize(
    ("name", "able"),
    [
        ("rs-1", {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
        ("es-1", {"ES256"}),
        ("es384-1", {"ES384"}),
        ("es512-1", {"ES512"}),
        ("ed-1", {"EdDSA"}),
    ],
)
def test_a_key_verifies_what_its_type_and_curve_are_for_and_nothing_else(name, able):
    (key,) = read(name)
    assert key.algorithms == able
    for algorithm in able:
        signature = made(name, algorithm)
        assert key.verifies(SIGNED, signature, algorithm)
        assert not key.verifies(SIGNED + b"x", signature, algorithm)
        assert not key.verifies(SIGNED, signature[:-1], algorithm)
        assert not key.verifies(SIGNED, b"", algorithm)
        for other in set(tokens.ALGORITHMS) - {algorithm}:
            assert not key.verifies(SIGNED, signature, other)
    for other in ("none", "HS256", "ES256K", ""):
        assert not key.verifies(SIGNED, b"", other)


def test_alg_of_a_key_narrows_it():
    (key,) = read(idp.jwk("rs-1", alg="PS256"))
    assert key.algorithms == {"PS256"}
    assert not key.verifies(SIGNED, made("rs-1", "RS256"), "RS256")


@pytest.mark.parametrize(
    "members",
    [
        {"use": "enc"},
        {"use": 1},
        {"key_ops": ["encrypt"]},
        {"key_ops": "verify"},
        {"alg": "HS256"},
        {"alg": ["ES256"]},
        {"kty": "oct"},
        {"kty": ["EC"]},
        {"kty": None},
        {"crv": "P-384"},
        {"crv": "secp256k1"},
        {"x": "not base64 !"},
        {"y": None},
        {"kid": 5},
        {"kid": "k" * 257},
        {"d": "AAAA"},
        {"k": "AAAA"},
    ],
)
def test_what_is_not_a_public_key_for_signatures_is_left_out(members):
    (key,) = read(idp.jwk("es-1", **members), "es-2")
    assert key.kid == "es-2"


def test_weak_keys_are_left_out():
    assert [key.kid for key in read("weak-1", "rs-1")] == ["rs-1"]


@pytest.mark.parametrize("exponent", ["AQ", "AA", "Ag"])  # 1, 0, 2
def test_an_exponent_that_makes_forging_easy_is_none(exponent):
    assert [key.kid for key in read(idp.jwk("rs-1", e=exponent), "es-1")] == ["es-1"]


def test_a_key_without_use_and_kid_is_one():
    (key,) = read(idp.jwk("es-1", use=None, kid=None))
    assert key.kid == ""


def test_keys_are_told_apart_by_what_they_are():
    first, again, renamed, other = read(
        "es-1", "es-1", {**idp.jwk("es-1"), "kid": "x"}, {**idp.jwk("es-2"), "kid": "es-1"}
    )
    assert first.identity == again.identity
    assert len({first.identity, renamed.identity, other.identity}) == 3
    assert "object" not in repr(first)
