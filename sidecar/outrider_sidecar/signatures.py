# SPDX-License-Identifier: Apache-2.0
"""Public keys out of a JWK set (RFC 7517), and whether one of them made a signature.

Called by keysets alone, which is imported when a snapshot first names a provider: this is where PyJWT and cryptography come in.
Which algorithms are accepted stands in `tokens`; a key verifies only what its own type, curve and `alg` are for, so that no
token can have a key used for something else. Keys that are not for signatures, too weak, or not public are left out.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt import algorithms

from outrider import strictjson
from outrider_sidecar import tokens

KEYS_MAX = 128
RSA_BITS_MIN = 2048
RSA_BITS_MAX = 8192
"""A signature of a larger one costs milliseconds, and nobody issues them."""

_CURVES = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}


class Unusable(Exception):
    """Not a JWK set that could verify anything; the text is for the log and quotes nothing of it."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Key:
    """One public key; `algorithms` are those that it verifies. Two keys are equal when they are the same object."""

    kid: str
    algorithms: frozenset[str]
    identity: str
    _public: Any = dataclasses.field(repr=False)

    def verifies(self, signed: bytes, signature: bytes, algorithm: str) -> bool:
        """Whether it made this signature with this algorithm."""
        if algorithm not in self.algorithms:
            return False
        return bool(jwt.get_algorithm_by_name(algorithm).verify(signed, self._public, signature))


def keys(body: bytes) -> tuple[Key, ...]:
    """What a set holds that can be used; raises Unusable when that is nothing."""
    try:
        found = strictjson.parse(body)
    except strictjson.StrictError as error:
        raise Unusable(f"not a JWK set: {error}") from None
    listed = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise Unusable("not a JWK set: it has no list `keys`")
    if len(listed) > KEYS_MAX:
        raise Unusable(f"the JWK set has more than {KEYS_MAX} keys")
    made = tuple(key for each in listed if isinstance(each, dict) and (key := _key(each)) is not None)
    if not made:
        raise Unusable(f"none of the {len(listed)} keys of the JWK set can verify a signature")
    return made


def _key(jwk: dict[str, Any]) -> Key | None:
    """None for a key that is left out."""
    operations = jwk.get("key_ops", ["verify"])
    private = "d" in jwk or "k" in jwk
    if (
        jwk.get("use", "sig") != "sig"
        or not isinstance(operations, list)
        or "verify" not in operations
        or private
    ):
        return None
    kid = jwk.get("kid", "")
    if not isinstance(kid, str) or len(kid) > tokens.KID_CHARACTERS_MAX:
        return None
    public = _public(jwk)
    able = _able(public)
    if "alg" in jwk:
        able &= frozenset({jwk["alg"]} if isinstance(jwk["alg"], str) else ())
    if public is None or not able:
        return None
    members = (jwk.get(name) for name in ("kty", "crv", "n", "e", "x", "y", "alg"))
    return Key(kid, able, "\0".join(str(each) for each in (kid, *members)), public)


def _public(jwk: dict[str, Any]) -> Any:
    """The library's key; None when it is not one."""
    readers: dict[Any, type[algorithms.Algorithm]] = {
        "RSA": algorithms.RSAAlgorithm, "EC": algorithms.ECAlgorithm, "OKP": algorithms.OKPAlgorithm,
    }  # fmt: skip
    kind = jwk.get("kty")
    reader = readers.get(kind) if isinstance(kind, str) else None
    if reader is None:
        return None
    try:
        return reader.from_jwk(jwk)
    except Exception:  # noqa: BLE001 -- the library raises many kinds; a key that cannot be read is left out
        return None


def _able(public: Any) -> frozenset[str]:
    """The algorithms that fit a key."""
    if isinstance(public, rsa.RSAPublicKey) and RSA_BITS_MIN <= public.key_size <= RSA_BITS_MAX:
        return frozenset(name for name, kind in tokens.ALGORITHMS.items() if kind == "RSA")
    if isinstance(public, ec.EllipticCurvePublicKey):
        return frozenset(name for name, curve in _CURVES.items() if curve == public.curve.name)
    if isinstance(public, ed25519.Ed25519PublicKey):
        return frozenset({"EdDSA"})
    return frozenset()
