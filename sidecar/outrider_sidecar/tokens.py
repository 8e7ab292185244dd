# SPDX-License-Identifier: Apache-2.0
"""What a user's token says, and whether it is one for us, here and now; the signature apart, which is `signatures`' matter.

Called by users for every token that is not known yet. A token is a signed JWT (RFC 7515, 7519) of a provider that the settings
name. It is read strictly: whatever two readers could understand differently is refused, and so is what would have us trust a
key that the token brings along. Nothing here looks anything up, and nothing that is told of a token is the token.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import enum
from collections.abc import Iterable, Mapping
from typing import Any

from outrider import identity, snapshot, strictjson

TOKEN_CHARACTERS_MAX = 16_384
"""What servers take as one header; tokens with hundreds of groups fit."""

LEEWAY_SECONDS = 30.0
"""How far the clocks of a provider and of this machine may be apart, for every time in a token."""

GROUPS_MAX = 512
"""A token that names more is refused, not cut: a Deny could hang on any of them."""

GROUP_CHARACTERS_MAX = 256
SUBJECT_CHARACTERS_MAX = 255
AUDIENCES_MAX = 64
KID_CHARACTERS_MAX = 256

ALGORITHMS = {
    "RS256": "RSA", "RS384": "RSA", "RS512": "RSA", "PS256": "RSA", "PS384": "RSA", "PS512": "RSA",
    "ES256": "EC", "ES384": "EC", "ES512": "EC", "EdDSA": "OKP",
}  # fmt: skip
"""Those that are accepted, with the type of key that each needs: all asymmetric, for with a shared secret whoever verifies could sign."""

_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
_BRINGS_A_KEY = ("jwk", "jku", "x5u", "x5c")
_SHOWN_MAX = 128


class Flaw(enum.Enum):
    """Why a token is refused: the class of it, in words that an agent may hear."""

    HEADER = "the header is there twice, is empty, or holds what no token does"
    MALFORMED = "not a signed JWT"
    KIND = "not a token of a kind that is accepted"
    ALGORITHM = "signed with an algorithm that is not accepted"
    BRINGS_A_KEY = "brings along the key to verify it with"
    ISSUER = "not of an issuer that is known here"
    AUDIENCE = "for another audience"
    EXPIRED = "expired"
    NOT_YET = "not valid yet"
    LIFETIME = "valid for longer than is accepted, or without a time that is needed"
    CLIENT = "given to a client that is not accepted"
    SUBJECT = "without a usable subject"
    GROUPS = "with groups that cannot all be taken"
    KEY_UNKNOWN = "signed with a key that its issuer does not publish"
    KEYS_UNAVAILABLE = "not verifiable now: its issuer's keys cannot be had"
    SIGNATURE = "its signature is wrong"


@dataclasses.dataclass(frozen=True, slots=True)
class Refused:
    """`about` is for the log: what the token claims of itself, printable and short; the token is in neither."""

    flaw: Flaw
    about: str = ""

    def __str__(self) -> str:
        return self.flaw.value + (f" ({self.about})" if self.about else "")


class _Flawed(Exception):
    """Ends the reading."""

    def __init__(self, flaw: Flaw, about: str = "") -> None:
        super().__init__(flaw.value)
        self.refused = Refused(flaw, about)


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Claimed:
    """A token that is good if its signature is: `user` is nobody until that has been seen. `kid` is "" when it names no key."""

    provider: snapshot.IdentityProvider
    algorithm: str
    kid: str
    signed: bytes
    signature: bytes
    user: identity.User


class Providers:
    """The settings' providers, by issuer."""

    def __init__(self, providers: Iterable[snapshot.IdentityProvider]) -> None:
        self._by_issuer: dict[str, list[snapshot.IdentityProvider]] = {}
        for each in providers:
            self._by_issuer.setdefault(each.issuer, []).append(each)

    def claimed(self, token: str, now: float) -> Claimed | Refused:
        """Everything but the signature; `now` in epoch seconds."""
        try:
            header, claims, signed, signature = _parts(token)
            algorithm, kid = _header(header)
            provider = self._provider(claims)
            _times(claims, provider, now)
            user = _user(claims, provider, token)
        except _Flawed as flawed:
            return flawed.refused
        return Claimed(provider, algorithm, kid, signed, signature, user)

    def _provider(self, claims: Mapping[str, Any]) -> snapshot.IdentityProvider:
        issuer = claims.get("iss")
        known = self._by_issuer.get(issuer) if isinstance(issuer, str) else None
        if not known:
            raise _Flawed(Flaw.ISSUER, f"iss {shown(issuer)}")
        audiences = claims.get("aud")
        named = [audiences] if isinstance(audiences, str) else audiences
        if (
            not isinstance(named, list)
            or len(named) > AUDIENCES_MAX
            or not all(isinstance(each, str) for each in named)
        ):
            raise _Flawed(Flaw.AUDIENCE, f"aud is no text, nor a list of at most {AUDIENCES_MAX}")
        found = next((each for each in known if each.audience in named), None)
        if found is None:
            raise _Flawed(Flaw.AUDIENCE, f"iss {shown(issuer)}, aud {shown(' '.join(named))}")
        return found


# A JWS in compact form -------------------------------------------------------------------------------------------------


def _parts(token: str) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
    """Header, claims, what is signed, and the signature."""
    if len(token) > TOKEN_CHARACTERS_MAX:
        raise _Flawed(Flaw.MALFORMED, f"longer than {TOKEN_CHARACTERS_MAX} characters")
    if token[:7].lower() == "bearer ":
        raise _Flawed(Flaw.MALFORMED, "the header takes the token alone, without `Bearer`")
    segments = token.split(".")
    if len(segments) == 5:
        raise _Flawed(Flaw.MALFORMED, "encrypted (JWE)")
    if len(segments) != 3:
        raise _Flawed(Flaw.MALFORMED, "not three parts with a dot between them")
    head, body, signature = segments
    return (
        _object(_decoded(head), "header"),
        _object(_decoded(body), "claims"),
        f"{head}.{body}".encode("ascii"),
        _decoded(signature),
    )


def _decoded(segment: str) -> bytes:
    """Base64url without padding, in its one spelling."""
    try:
        raw = base64.b64decode(segment + "=" * (-len(segment) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _Flawed(Flaw.MALFORMED, "a part is not base64url") from None
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != segment:
        raise _Flawed(Flaw.MALFORMED, "a part is not base64url in its one spelling")
    return raw


def _object(raw: bytes, what: str) -> dict[str, Any]:
    try:
        value = strictjson.parse(raw)
    except strictjson.StrictError as error:
        raise _Flawed(Flaw.MALFORMED, f"{what}: {error}") from None
    if not isinstance(value, dict):
        raise _Flawed(Flaw.MALFORMED, f"{what}: no object")
    return value


def _header(header: Mapping[str, Any]) -> tuple[str, str]:
    """(alg, kid). Whatever would change how the token is to be read is refused, critical or not."""
    brought = [name for name in _BRINGS_A_KEY if name in header]
    if brought:
        raise _Flawed(Flaw.BRINGS_A_KEY, f"header {brought[0]}")
    unread = [name for name in ("crit", "b64", "zip", "enc") if name in header]
    if unread:
        raise _Flawed(Flaw.KIND, f"header {unread[0]}")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise _Flawed(Flaw.KIND, f"typ {shown(kind)}")
    if "cty" in header:
        raise _Flawed(Flaw.KIND, f"nested: cty {shown(header['cty'])}")
    algorithm, kid = header.get("alg"), header.get("kid", "")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise _Flawed(Flaw.ALGORITHM, f"alg {shown(algorithm)}")
    if not isinstance(kid, str) or len(kid) > KID_CHARACTERS_MAX or not kid.isprintable():
        raise _Flawed(Flaw.MALFORMED, f"kid {shown(kid)}")
    return algorithm, kid


# Claims ----------------------------------------------------------------------------------------------------------------


def _times(claims: Mapping[str, Any], provider: snapshot.IdentityProvider, now: float) -> None:
    expires, issued = _time(claims, "exp"), _time(claims, "iat")
    if expires is None or issued is None:
        raise _Flawed(Flaw.LIFETIME, "exp and iat are both needed")
    begins = _time(claims, "nbf")
    if now >= expires + LEEWAY_SECONDS:
        raise _Flawed(Flaw.EXPIRED, f"{min(now - expires, 1e9):.0f} s ago, iss {shown(provider.issuer)}")
    if issued > now + LEEWAY_SECONDS:
        raise _Flawed(Flaw.NOT_YET, "iat is in the future")
    if begins is not None and begins > now + LEEWAY_SECONDS:
        raise _Flawed(Flaw.NOT_YET, "nbf is in the future")
    if not 0 < expires - issued <= provider.lifetime_seconds_max:
        most = provider.lifetime_seconds_max
        raise _Flawed(
            Flaw.LIFETIME, f"exp - iat is not within {most} s, the most that provider {provider.name} may"
        )


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    """NumericDate; None when absent."""
    value = claims.get(name)
    if name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Flawed(Flaw.LIFETIME, f"{name} is no number")
    try:
        return float(value)
    except OverflowError:
        raise _Flawed(Flaw.LIFETIME, f"{name} is too large") from None


def _user(claims: Mapping[str, Any], provider: snapshot.IdentityProvider, token: str) -> identity.User:
    subject = claims.get("sub")
    if not _is_name(subject, SUBJECT_CHARACTERS_MAX):
        raise _Flawed(Flaw.SUBJECT, f"sub {shown(subject)}")
    assert isinstance(subject, str)
    client, actor = _given_to(claims, provider)
    qualified = f"{provider.name}:{{}}".format
    addresses = _addresses(claims, subject, provider)
    return identity.User(
        id=qualified(subject),
        names=frozenset(map(qualified, (subject, *addresses))),
        groups=frozenset(map(qualified, _groups(claims, provider))),
        client=qualified(client) if client else "",
        actor=qualified(actor) if actor else "",
        expires_at=float(claims["exp"]),
        token=token,
    )


def _given_to(claims: Mapping[str, Any], provider: snapshot.IdentityProvider) -> tuple[str, str]:
    """(client, actor), each "" when the token names none; both must be among the provider's clients, if it lists any."""
    members = (provider.client_claim,) if provider.client_claim else ("azp", "client_id")
    named = {claims[name] for name in members if _is_name(claims.get(name), SUBJECT_CHARACTERS_MAX)}
    present = sum(name in claims for name in members)
    act = claims.get("act")
    actor = act.get("sub") if isinstance(act, dict) else None
    unusable = present and not named
    if unusable or len(named) > 1 or ("act" in claims and not _is_name(actor, SUBJECT_CHARACTERS_MAX)):
        raise _Flawed(
            Flaw.CLIENT, f"{' or '.join(members)} or act is unusable, or they contradict each other"
        )
    client = next(iter(named), "")
    parties = {each for each in (client, actor or "") if each}
    if provider.clients and (not parties or not parties <= set(provider.clients)):
        told = " ".join(sorted(parties)) or "none"
        raise _Flawed(Flaw.CLIENT, f"client {shown(told)} is none of provider {provider.name}")
    return client, actor or ""


def _groups(claims: Mapping[str, Any], provider: snapshot.IdentityProvider) -> list[str]:
    """All of them or none: whoever cannot be told completely is refused."""
    name = provider.groups_claim
    left_out = claims.get("_claim_names")
    if isinstance(left_out, dict) and name in left_out:
        raise _Flawed(Flaw.GROUPS, f"the provider left {shown(name)} out for there being too many")
    given = claims.get(name, [])
    groups = [given] if isinstance(given, str) else given
    if not isinstance(groups, list) or len(groups) > GROUPS_MAX:
        raise _Flawed(Flaw.GROUPS, f"{shown(name)} is no list of at most {GROUPS_MAX}")
    if not all(_is_name(each, GROUP_CHARACTERS_MAX) for each in groups):
        raise _Flawed(
            Flaw.GROUPS, f"{shown(name)} holds what is no text of 1 to {GROUP_CHARACTERS_MAX} characters"
        )
    return groups


def _addresses(claims: Mapping[str, Any], subject: str, provider: snapshot.IdentityProvider) -> list[str]:
    """The e-mail address as the provider writes it and in lower case, if its settings let it count and it says that it is verified.

    A subject that looks like such an address and is not the user's own would be taken for somebody else: it is refused.
    """
    domains = {each.lower() for each in provider.email_domains}
    address = claims.get("email")
    verified = (
        claims.get("email_verified") is True
        and _is_name(address, SUBJECT_CHARACTERS_MAX)
        and isinstance(address, str)
        and _domain(address) in domains
    )
    own = [address, address.lower()] if verified and isinstance(address, str) else []
    if _domain(subject) in domains and subject.lower() not in own:
        raise _Flawed(Flaw.SUBJECT, f"sub {shown(subject)} looks like an e-mail address that is not verified")
    return own


def _domain(address: str) -> str:
    """Behind the one @; "" for what is no address."""
    local, at, domain = address.partition("@")
    return domain.lower() if at and local and "@" not in domain else ""


def _is_name(value: object, characters_max: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= characters_max and value.isprintable()


def shown(value: object) -> str:
    """Something that a stranger claims, for a log: printable, short, and never more than a line."""
    if not isinstance(value, str):
        return f"is no text but {type(value).__name__}" if value is not None else "is missing"
    cut = value[:_SHOWN_MAX] + ("..." if len(value) > _SHOWN_MAX else "")
    return ascii(cut)
