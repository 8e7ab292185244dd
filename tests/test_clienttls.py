# SPDX-License-Identifier: Apache-2.0
"""A client certificate becomes a TLS context without touching a disk, or is refused without a byte of its key."""

from __future__ import annotations

import pathlib

import pytest
from tests import authorities

from outrider import decision
from outrider_sidecar import clienttls, loans

CA = authorities.Authority()


def test_a_certificate_and_its_key_make_a_context_that_trusts_the_bundle_alone() -> None:
    context = clienttls.context(CA.bundle, CA.client("agent"))
    assert [dict(pair[0] for pair in each["subject"])["commonName"] for each in context.get_ca_certs()] == [
        "the authority of a test"
    ]
    assert context.check_hostname


def test_no_file_of_it_is_left_open() -> None:
    before = {str(each.readlink()) for each in pathlib.Path("/proc/self/fd").iterdir() if each.exists()}
    clienttls.context(CA.bundle, CA.client("agent"))
    after = {str(each.readlink()) for each in pathlib.Path("/proc/self/fd").iterdir() if each.exists()}
    assert not {each for each in after - before if "outrider-certificate" in each}


@pytest.mark.parametrize(
    ("chain", "key"),
    [
        (b"", b""), (b"not PEM", b"hunter2"), (CA.client("a").chain, b""), (b"", CA.client("a").key),
        (CA.client("a").chain, CA.client("b").key), (CA.client("a").chain, b"-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----"),
        (CA.client("a").chain, CA.encrypted_key()),
    ],
)  # fmt: skip
def test_what_does_not_belong_together_is_malformed_and_shows_nothing_of_the_key(
    chain: bytes, key: bytes
) -> None:
    with pytest.raises(loans.Unavailable, match="belong together") as refused:
        clienttls.context(CA.bundle, loans.Certificate(chain, key, "1"))
    assert refused.value.reason is decision.Reason.CREDENTIAL_MALFORMED
    assert "hunter2" not in f"{refused.value!r} {refused.value.__cause__!r}"
