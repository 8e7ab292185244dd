# SPDX-License-Identifier: Apache-2.0
"""Whom a proxy trusts: the pod's file, newer authorities it was told of, and never something that is no certificate."""

from __future__ import annotations

import pytest

from outrider import wire
from outrider_operator import certificates
from outrider_sidecar import trust

WISHES = certificates.Wishes(("operator",))
FIRST, SECOND, THIRD = (certificates.planned(certificates.Kept(), WISHES, 1.8e9 + n).bundle for n in range(3))


def names(context):
    return {each["serialNumber"] for each in context.get_ca_certs()}


@pytest.fixture
def file(tmp_path):
    made = tmp_path / "ca.pem"
    made.write_text(FIRST)
    return made


def test_the_file_is_trusted_and_read_again_when_it_changes(file, tmp_path) -> None:
    held = trust.Trust(file, tmp_path)
    first = held.context()
    assert held.context() is first
    assert held.digest == wire.bundle_digest(FIRST)
    file.write_text(SECOND + "\n")
    assert names(held.context()) != names(first)
    assert held.digest == wire.bundle_digest(SECOND)


def test_what_is_told_takes_its_place_and_outlives_a_restart(file, tmp_path) -> None:
    assert trust.Trust(file, tmp_path).take(SECOND + FIRST)
    again = trust.Trust(file, tmp_path)
    assert again.digest == wire.bundle_digest(SECOND + FIRST)
    assert len(names(again.context())) == 2
    assert again.take(SECOND)
    assert len(names(again.context())) == 1, "a retired authority is forgotten"
    assert (tmp_path / "trust.json").stat().st_mode & 0o777 == 0o600


def test_a_file_that_changed_since_is_newer_than_what_was_told(file, tmp_path) -> None:
    held = trust.Trust(file, tmp_path)
    held.take(SECOND)
    file.write_text(THIRD)
    assert held.digest == wire.bundle_digest(THIRD)


@pytest.mark.parametrize(
    "bundle", ["", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "é"]
)
def test_no_certificate_is_no_authority(file, tmp_path, bundle) -> None:
    held = trust.Trust(file, tmp_path)
    with pytest.raises(wire.WireError, match="no certificates"):
        held.take(bundle)
    assert held.digest == wire.bundle_digest(FIRST)
    file.write_text(bundle)
    with pytest.raises(wire.WireError, match="no certificates"):
        held.context()


@pytest.mark.parametrize("kept", [b"", b"{", b'{"file":"x"}', b"\xff"])
def test_a_damaged_memory_is_as_none(file, tmp_path, kept) -> None:
    (tmp_path / "trust.json").write_bytes(kept)
    assert trust.Trust(file, tmp_path).digest == wire.bundle_digest(FIRST)


def test_a_file_that_is_gone_is_an_outage(file, tmp_path) -> None:
    file.unlink()
    with pytest.raises(OSError, match="No such file"):
        trust.Trust(file, tmp_path).context()


def test_without_a_file_the_systems_authorities_count_and_nothing_told(tmp_path) -> None:
    held = trust.Trust(None, tmp_path)
    assert not held.take(SECOND)
    assert held.digest == ""
    assert held.context().check_hostname
