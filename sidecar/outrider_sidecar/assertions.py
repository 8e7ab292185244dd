# SPDX-License-Identifier: Apache-2.0
"""Signs what proves to an authorization server which client the proxy is: private_key_jwt (RFC 7523).

Called by `clients` in a thread: reading a key and signing take milliseconds. Imported when a snapshot first needs it, for it is the
one module of the OAuth sources that loads cryptography. Refuses keys that do not fit their algorithm, or are weak.
"""

from __future__ import annotations

import jwt
from cryptography import exceptions
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

LIFE_SECONDS = 60
"""An assertion is used at once; one that leaks is worth nothing a minute later."""

RSA_BITS_MIN = 2048
RSA_BITS_MAX = 4096
"""A longer one takes a call's worth of time to sign."""

PEM_BYTES_MAX = 16_384


class BadKey(Exception):
    """The key cannot sign. The text is one clause that quotes nothing of it."""


def assertion(  # noqa: PLR0913 -- what RFC 7523 wants in it, each a word
    pem: bytes, *, client: str, audience: str, algorithm: str, key_id: str, now: float, jti: str
) -> str:
    """A JWT for the token endpoint `audience` (RFC 7523 3), good for a minute from `now` (epoch seconds). Raises BadKey."""
    key = _key(pem, algorithm)
    issued = int(now)
    claims = {
        "iss": client, "sub": client, "aud": audience, "jti": jti, "iat": issued, "exp": issued + LIFE_SECONDS,
    }  # fmt: skip
    try:
        return jwt.encode(claims, key, algorithm, headers={"kid": key_id} if key_id else None)
    except (jwt.PyJWTError, ValueError, TypeError):
        raise BadKey(f"cannot sign with {algorithm}") from None


def _key(
    pem: bytes, algorithm: str
) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey:
    if len(pem) > PEM_BYTES_MAX:
        raise BadKey(f"is longer than {PEM_BYTES_MAX} bytes")
    try:
        # Testing its primes takes 90 ms of an RSA key, in which not even the loop's thread runs (it holds the interpreter). A key
        # that is broken makes signatures that nobody takes: OpenSSL checks each before it gives it out.
        key = serialization.load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, exceptions.UnsupportedAlgorithm):
        raise BadKey("is no private key in PEM without a password") from None
    if isinstance(key, rsa.RSAPrivateKey) and algorithm in ("RS256", "PS256"):
        if not RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
            raise BadKey(f"has {key.key_size} bits, and only {RSA_BITS_MIN} to {RSA_BITS_MAX} sign")
        return key
    if (
        isinstance(key, ec.EllipticCurvePrivateKey)
        and isinstance(key.curve, ec.SECP256R1)
        and algorithm == "ES256"
    ):
        return key
    if isinstance(key, ed25519.Ed25519PrivateKey) and algorithm == "EdDSA":
        return key
    raise BadKey(
        f"is of a kind that does not sign with {algorithm}; correct `algorithm`, or store another key"
    )
