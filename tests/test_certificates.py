# SPDX-License-Identifier: Apache-2.0
"""What an authority and a serving certificate should be, over the years; chains are checked by OpenSSL itself."""

from __future__ import annotations

import dataclasses
import ipaddress
import ssl
import time

import pytest
from cryptography import x509

from outrider_operator import certificates

NAMES = ("outrider.outrider-system.svc", "10.0.0.7")
WISHES = certificates.Wishes(NAMES)
NOW = 1_800_000_000.0
DAY = certificates.DAY
EMPTY = certificates.Kept()


def planned(kept, at=NOW, **more):
    return certificates.planned(kept, dataclasses.replace(WISHES, **more), at)


def leaf(kept):
    made = certificates.certificate(kept.tls_cert)
    assert made is not None
    return made


def served(kept, trusted, tmp_path, name=NAMES[0]):
    """Whether a client that trusts these authorities takes what a server of `kept` shows; no socket is needed."""
    (tmp_path / "crt").write_bytes(kept.tls_cert)
    (tmp_path / "key").write_bytes(kept.tls_key)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    client_context = ssl.create_default_context(cadata=trusted)
    # Python 3.13 turns this on by default.
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(down, up, server_hostname=name)
    server = server_context.wrap_bio(up, down, server_side=True)
    for _ in range(6):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return client.getpeercert() is not None


def test_out_of_nothing_comes_an_authority_and_a_certificate_that_it_vouches_for(tmp_path) -> None:
    made = planned(EMPTY, at=time.time())
    assert set(made.data) == {"ca.crt", "ca.key", "tls.crt", "tls.key"}
    assert certificates.Kept.of(made.data) == made
    for name in NAMES:
        assert served(made, made.bundle, tmp_path, name)
    assert not served(made, made.bundle, tmp_path, "elsewhere.example")
    names = leaf(made).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names) == {x509.DNSName(NAMES[0]), x509.IPAddress(ipaddress.ip_address("10.0.0.7"))}


def test_what_is_good_is_left_alone() -> None:
    made = planned(EMPTY)
    assert planned(made, NOW + 59 * DAY) is made


def test_the_serving_certificate_is_renewed_at_two_thirds_and_the_authority_stays() -> None:
    made = planned(EMPTY)
    later = planned(made, NOW + 60 * DAY)
    assert later.tls_cert != made.tls_cert
    assert (later.ca_cert, later.previous, later.cross) == (made.ca_cert, b"", b"")
    assert certificates.expiries(later)["serving"] == pytest.approx(NOW + 150 * DAY, abs=1)


@pytest.mark.parametrize(
    "damage", [{"tls_cert": b""}, {"tls_key": b""}, {"tls_cert": b"garbage"}, {"tls_key": b"garbage"}]
)
def test_a_serving_certificate_that_does_not_serve_is_made_again(damage) -> None:
    made = planned(EMPTY)
    mended = planned(dataclasses.replace(made, **damage))
    assert mended.ca_cert == made.ca_cert
    assert leaf(mended).issuer == certificates.certificate(made.ca_cert).subject


def test_another_name_is_another_certificate() -> None:
    made = planned(EMPTY)
    assert planned(made, names=NAMES[:1]) is made
    assert planned(made, names=(*NAMES, "more.example")).tls_cert != made.tls_cert


def test_a_new_authority_is_trusted_before_anything_depends_on_it(tmp_path) -> None:
    now = time.time()
    old = planned(EMPTY, now)
    new = planned(old, now + 1, rotate=True)
    assert new.ca_cert != old.ca_cert
    assert new.tls_cert == old.tls_cert
    assert new.bundle.count("BEGIN CERTIFICATE") == 2
    assert served(new, old.bundle, tmp_path)
    assert planned(new, now + 2) is new
    moved = planned(new, now + 3, spread=True)
    assert leaf(moved).issuer == certificates.certificate(new.ca_cert).subject
    assert served(moved, new.ca_cert.decode(), tmp_path)
    assert served(moved, old.bundle, tmp_path), "whoever only knows the old authority follows the chain"
    stranger = planned(EMPTY, now)
    assert not served(moved, stranger.bundle, tmp_path)


def test_after_a_day_the_certificate_moves_whoever_has_not_heard() -> None:
    new = planned(planned(EMPTY), NOW + 1, rotate=True)
    assert planned(new, NOW + 1 + 0.9 * DAY) is new
    assert leaf(planned(new, NOW + 1 + DAY)).issuer == certificates.certificate(new.ca_cert).subject


def test_the_old_authority_is_trusted_for_thirty_days() -> None:
    new = planned(planned(EMPTY), NOW, rotate=True, spread=True)
    assert new.previous
    assert planned(new, NOW + 29 * DAY).previous
    after = planned(new, NOW + 30 * DAY)
    assert (after.previous, after.cross) == (b"", b"")
    assert after.bundle == new.ca_cert.decode()


def test_an_authority_is_replaced_at_two_thirds_of_its_ten_years() -> None:
    made = planned(EMPTY)
    before = planned(made, NOW + 6.6 * 365 * DAY)
    assert before.ca_cert == made.ca_cert
    after = planned(before, NOW + 6.7 * 365 * DAY)
    assert after.ca_cert != made.ca_cert
    assert after.previous == made.ca_cert


@pytest.mark.parametrize(
    "damage", [{"ca_key": b""}, {"ca_key": b"garbage"}, {"ca_cert": b""}, {"ca_cert": b"garbage"}]
)
def test_an_authority_that_can_sign_nothing_is_replaced(damage) -> None:
    made = planned(EMPTY)
    mended = planned(dataclasses.replace(made, **damage))
    assert certificates.usable(mended)
    assert mended.ca_cert != made.ca_cert
    assert (made.ca_cert == mended.previous) is ("ca_key" in damage)


def test_many_rotations_keep_a_bounded_bundle() -> None:
    made = planned(EMPTY)
    for number in range(10):
        made = planned(made, NOW + number, rotate=True)
    assert made.bundle.count("BEGIN CERTIFICATE") == 4
