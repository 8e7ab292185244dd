# SPDX-License-Identifier: Apache-2.0
"""The operator's own authority and serving certificate: what they should be now, from what they are. Does no I/O.

Called by keeper, which reads and writes the Secret. A new authority is trusted by everybody before anything depends on it: its
certificate is signed by the old one too, so whoever knows only the old one still follows the chain, and the serving certificate
changes when the connected proxies have both (or after a day). The old one stays trusted for 30 days. Time is a number given.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import ipaddress
from collections.abc import Iterator, Mapping, Sequence

from cryptography import exceptions, x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = 86_400.0
CA_SECONDS = 3650 * DAY
SERVING_SECONDS = 90 * DAY
OLD_TRUSTED_SECONDS = 30 * DAY
SPREAD_SECONDS_MAX = DAY
"""After this the serving certificate comes from the new authority, whoever has not heard of it."""

RENEWED_AT = 2 / 3
"""Of a certificate's life."""

_BACKDATED_SECONDS = 3600.0
"""Clocks differ: a certificate is valid from an hour before it was made."""

_PREVIOUS_MAX = 3

_Key = ec.EllipticCurvePrivateKey


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """What is in the Secret, as PEM; b'' for what is absent. `cross` is the authority signed by the one before."""

    ca_cert: bytes = b""
    ca_key: bytes = b""
    tls_cert: bytes = b""
    tls_key: bytes = b""
    previous: bytes = b""
    cross: bytes = b""

    @classmethod
    def of(cls, data: Mapping[str, bytes]) -> Kept:
        """The keys of the Secret that are ours."""
        return cls(**{field: data.get(name, b"") for field, name in _NAMES.items()})

    @property
    def data(self) -> dict[str, bytes]:
        """As the Secret has it."""
        return {name: getattr(self, field) for field, name in _NAMES.items() if getattr(self, field)}

    @property
    def bundle(self) -> str:
        """Every authority to be trusted, the present one first."""
        return (self.ca_cert.strip() + b"\n" + self.previous.strip()).decode(
            "ascii", "replace"
        ).strip() + "\n"


_NAMES = {
    "ca_cert": "ca.crt",
    "ca_key": "ca.key",
    "tls_cert": "tls.crt",
    "tls_key": "tls.key",
    "previous": "previous-ca.crt",
    "cross": "cross-ca.crt",
}


KEYS = frozenset(_NAMES.values())
"""Of the Secret, that are ours."""


@dataclasses.dataclass(frozen=True, slots=True)
class Wishes:
    """`names` must be in the serving certificate. `rotate`: a new authority, now. `spread`: all connected proxies trust the bundle."""

    names: tuple[str, ...]
    rotate: bool = False
    spread: bool = False


def planned(kept: Kept, wishes: Wishes, now: float) -> Kept:
    """What should be kept from `now` (Unix seconds) on; `kept` itself when nothing is to be done."""
    made = _with_authority(kept, wishes, now)
    made = _without_the_old(made, now)
    return _with_serving(made, wishes, now)


def expiries(kept: Kept) -> dict[str, float]:
    """When each certificate ends, in Unix time."""
    found = {"serving": certificate(kept.tls_cert), "authority": certificate(kept.ca_cert)}
    return {name: each.not_valid_after_utc.timestamp() for name, each in found.items() if each is not None}


def certificate(pem: bytes) -> x509.Certificate | None:
    """The first certificate of a PEM text; None when there is none."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        return None


def usable(kept: Kept) -> bool:
    """True when there is an authority with its key."""
    authority, key = certificate(kept.ca_cert), _key(kept.ca_key)
    return authority is not None and key is not None and authority.public_key() == key.public_key()


def _with_authority(kept: Kept, wishes: Wishes, now: float) -> Kept:
    old = certificate(kept.ca_cert)
    if old is not None and usable(kept) and not wishes.rotate and not _due(old, now):
        return kept
    key = ec.generate_private_key(ec.SECP256R1())
    fresh = _authority(key, now)
    previous = [
        each for each in (old, *_certificates(kept.previous)) if each is not None and not _ended(each, now)
    ]
    cross = b""
    old_key = _key(kept.ca_key)
    if old is not None and old_key is not None and usable(kept) and not _ended(old, now):
        cross = _pem(_crossed(fresh, old, old_key, now))
    return dataclasses.replace(
        kept,
        ca_cert=_pem(fresh),
        ca_key=_key_pem(key),
        previous=b"".join(_pem(each) for each in previous[:_PREVIOUS_MAX]),
        cross=cross,
    )


def _without_the_old(kept: Kept, now: float) -> Kept:
    authority = certificate(kept.ca_cert)
    assert authority is not None, "there is one by now"
    sound = b"".join(_pem(each) for each in _certificates(kept.previous))
    if kept.previous and not (sound and kept.previous.isascii()):
        # Whoever adopts the whole would be kept from it by what nobody can trust anyway.
        kept = dataclasses.replace(kept, previous=sound)
    if not (kept.previous or kept.cross) or now - _made_at(authority) < OLD_TRUSTED_SECONDS:
        return kept
    return dataclasses.replace(kept, previous=b"", cross=b"")


def _with_serving(kept: Kept, wishes: Wishes, now: float) -> Kept:
    authority, key = certificate(kept.ca_cert), _key(kept.ca_key)
    assert authority is not None and key is not None, "there is one by now"  # noqa: PT018 - one thought
    held = certificate(kept.tls_cert)
    if held is not None and _serves(kept, held, wishes.names, now):
        if _issued(held, authority):
            return kept
        moving = wishes.spread or now - _made_at(authority) >= SPREAD_SECONDS_MAX
        if not moving and any(_issued(held, each) for each in _certificates(kept.previous)):
            return kept
    own = ec.generate_private_key(ec.SECP256R1())
    leaf = _leaf(own, authority, key, names=wishes.names, now=now)
    return dataclasses.replace(kept, tls_cert=_pem(leaf) + kept.cross, tls_key=_key_pem(own))


def _serves(kept: Kept, held: x509.Certificate, names: Sequence[str], now: float) -> bool:
    key = _key(kept.tls_key)
    if key is None or key.public_key() != held.public_key() or _due(held, now):
        return False
    try:
        listed = held.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return {_alternative(name) for name in names} <= set(listed)


def _issued(held: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        held.verify_directly_issued_by(authority)
    except (ValueError, TypeError, exceptions.InvalidSignature):
        return False
    return True


def _authority(key: _Key, now: float) -> x509.Certificate:
    # A name of its own for each: one that two authorities shared would be looked up by trial.
    name = _name(
        f"outrider-ca {dt.datetime.fromtimestamp(now, dt.UTC):%Y-%m-%d} {x509.random_serial_number():x}"[:40]
    )
    made = _builder(name, name, key.public_key(), now=now, seconds=CA_SECONDS)
    return _as_authority(made, key.public_key(), path_length=1).sign(key, hashes.SHA256())


def _crossed(fresh: x509.Certificate, old: x509.Certificate, old_key: _Key, now: float) -> x509.Certificate:
    """The new authority, as the old one vouches for it: for whoever only knows the old one."""
    public = fresh.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey), "we made it"
    left = old.not_valid_after_utc.timestamp() - now
    made = _builder(fresh.subject, old.subject, public, now=now, seconds=left)
    made = _as_authority(made, public, path_length=0)
    return made.add_extension(_issuer_of(old), critical=False).sign(old_key, hashes.SHA256())


def _leaf(
    own: _Key, authority: x509.Certificate, key: _Key, *, names: Sequence[str], now: float
) -> x509.Certificate:
    made = _builder(_name("outrider"), authority.subject, own.public_key(), now=now, seconds=SERVING_SECONDS)
    alternatives = x509.SubjectAlternativeName([_alternative(each) for each in names])
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    made = (
        made.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(usage, critical=False)
        .add_extension(alternatives, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
        .add_extension(_issuer_of(authority), critical=False)
    )
    return made.sign(key, hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, *, now: float, seconds: float
) -> x509.CertificateBuilder:
    moment = dt.datetime.fromtimestamp(now, dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - dt.timedelta(seconds=_BACKDATED_SECONDS))
        .not_valid_after(moment + dt.timedelta(seconds=seconds))
    )


def _as_authority(
    made: x509.CertificateBuilder, public: ec.EllipticCurvePublicKey, *, path_length: int
) -> x509.CertificateBuilder:
    return (
        made.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _issuer_of(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    key = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _certificates(pem: bytes) -> Iterator[x509.Certificate]:
    try:
        yield from x509.load_pem_x509_certificates(pem) if pem.strip() else ()
    except ValueError:
        return


def _key(pem: bytes) -> _Key | None:
    try:
        found = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, exceptions.UnsupportedAlgorithm):
        return None
    return found if isinstance(found, ec.EllipticCurvePrivateKey) else None


def _pem(made: x509.Certificate) -> bytes:
    return made.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: _Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _made_at(made: x509.Certificate) -> float:
    return made.not_valid_before_utc.timestamp() + _BACKDATED_SECONDS


def _ended(made: x509.Certificate, now: float) -> bool:
    return made.not_valid_after_utc.timestamp() <= now


def _due(made: x509.Certificate, now: float) -> bool:
    life = made.not_valid_after_utc.timestamp() - _made_at(made)
    return now - _made_at(made) >= life * RENEWED_AT
