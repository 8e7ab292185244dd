# SPDX-License-Identifier: Apache-2.0
"""What a client's key signs is what RFC 7523 wants, by another library's reading; and which keys sign nothing."""

from __future__ import annotations

import time

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from joserfc import errors as jose_errors
from joserfc import jwk, jws, jwt

from outrider_sidecar import assertions

URL = "https://as.example/token"


def pem(key, password=None):
    encryption = (
        serialization.NoEncryption() if password is None else serialization.BestAvailableEncryption(password)
    )
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def public(key):
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form)


RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def made(key, algorithm="RS256", *, key_id="", now=None, jti="1"):
    return assertions.assertion(
        key,
        client="outrider",
        audience=URL,
        algorithm=algorithm,
        key_id=key_id,
        now=now or time.time(),
        jti=jti,
    )


@pytest.mark.parametrize(
    ("algorithm", "key", "kind"),
    [("RS256", RSA, "RSA"), ("PS256", RSA, "RSA"), ("ES256", EC, "EC"), ("EdDSA", ED, "OKP")],
)
def test_another_library_takes_what_is_signed(algorithm, key, kind):
    before = int(time.time())
    token = made(pem(key), algorithm, key_id="k 1")
    read = jwt.decode(token, jwk.import_key(public(key), kind), algorithms=[algorithm])
    assert read.header == {"alg": algorithm, "typ": "JWT", "kid": "k 1"}
    claims = read.claims
    assert (claims["iss"], claims["sub"], claims["aud"], claims["jti"]) == ("outrider", "outrider", URL, "1")
    assert claims["exp"] - claims["iat"] == 60
    assert before <= claims["iat"] <= time.time()
    assert set(claims) == {"iss", "sub", "aud", "jti", "iat", "exp"}


def test_a_key_without_a_name_is_given_none():
    assert jws.extract_compact(made(pem(EC), "ES256").encode()).headers() == {"alg": "ES256", "typ": "JWT"}


BAD = [
    (pem(RSA), "ES256", "does not sign with ES256"),
    (pem(EC), "RS256", "does not sign with RS256"),
    (pem(EC), "EdDSA", "does not sign with EdDSA"),
    (pem(ED), "RS256", "does not sign with RS256"),
    (pem(RSA), "none", "does not sign with none"),
    (pem(RSA), "HS256", "does not sign with HS256"),
    (pem(ec.generate_private_key(ec.SECP384R1())), "ES256", "does not sign with ES256"),
    (pem(rsa.generate_private_key(65537, 1024)), "RS256", "has 1024 bits"),
    (pem(rsa.generate_private_key(65537, 4104)), "RS256", "has 4104 bits"),
    (pem(RSA, b"password"), "RS256", "without a password"),
    (public(RSA), "RS256", "no private key"),
    (b"canary-1f", "RS256", "no private key"),
    (b"", "RS256", "no private key"),
    (b"\x00" * 100, "RS256", "no private key"),
    (b"a" * 20_000, "RS256", "longer than"),
]


@pytest.mark.parametrize(("key", "algorithm", "says"), BAD)
def test_a_key_that_does_not_fit_signs_nothing_and_is_not_quoted(key, algorithm, says):
    with pytest.raises(assertions.BadKey) as bad:
        made(key, algorithm)
    assert says in str(bad.value)
    assert "canary" not in str(bad.value)
    assert bad.value.__cause__ is None


@pytest.mark.parametrize("part", ["p", "q", "d", "dmp1", "iqmp"])
def test_a_broken_key_signs_nothing_or_what_nobody_takes(part):
    """Its primes are not tested, which would stop the loop: it must do no harm all the same."""
    whole = RSA.private_numbers()
    parts = {name: getattr(whole, name) for name in ("p", "q", "d", "dmp1", "dmq1", "iqmp")}
    parts[part] += 2
    numbers = rsa.RSAPrivateNumbers(**parts, public_numbers=whole.public_numbers)
    try:
        token = made(pem(numbers.private_key(unsafe_skip_rsa_key_validation=True)))
    except (assertions.BadKey, ValueError):
        return
    # What OpenSSL computes the short way it checks, and then takes the long one: faults there leak nothing.
    assert _fits(token) or part in ("p", "q", "d")


def _fits(token):
    try:
        jws.deserialize_compact(token, jwk.import_key(public(RSA), "RSA"))
    except jose_errors.BadSignatureError:
        return False
    return True
