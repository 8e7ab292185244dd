# SPDX-License-Identifier: Apache-2.0
"""Lending secrets from files."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from outrider import bind, decide, decision, snapshot, testing
from outrider_sidecar import credentials


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def a_permit(path: pathlib.Path | None, **more: str) -> decision.Permit:
    source = None if path is None else snapshot.FileSecret(path=str(path))
    entry = snapshot.Credential(
        name="org", source=source, **{"header": "Authorization", "prefix": "Bearer ", **more}
    )
    view = testing.a_server(testing.allow(), credential_required=True, credentials=(entry,))
    permit = decide.permit_listing(bind.bound(testing.a_snapshot(view), {}), testing.CRM)
    assert isinstance(permit, decision.Permit)
    return permit


def test_a_file_becomes_a_header_with_one_newline_taken_off(tmp_path: pathlib.Path) -> None:
    secret = tmp_path / "token"
    secret.write_bytes(b"canary-1\n")
    lender = credentials.Credentials(credentials.Files(Clock()))
    assert lender.at_hand(a_permit(secret)) is None
    lent = asyncio.run(lender.lend(a_permit(secret)))
    assert lent.headers == ((b"authorization", b"Bearer canary-1"),)
    assert "canary" not in repr(lent)
    at_hand = lender.at_hand(a_permit(secret))
    assert at_hand is not None
    assert at_hand.headers == lent.headers


def test_a_rotated_file_is_in_use_after_a_second(tmp_path: pathlib.Path) -> None:
    secret, clock = tmp_path / "token", Clock()
    secret.write_bytes(b"old")
    lender = credentials.Credentials(credentials.Files(clock))
    asyncio.run(lender.lend(a_permit(secret)))
    secret.write_bytes(b"new")
    clock.now = 1.1
    assert lender.at_hand(a_permit(secret)) is None
    assert asyncio.run(lender.lend(a_permit(secret))).headers[0][1] == b"Bearer new"


@pytest.mark.parametrize(
    "value", [b"", b"\n", b"two\nlines", b"tab\there", b"caf\xc3\xa9", b"x" * 20_000, b"nul\0"]
)
def test_a_value_that_cannot_be_a_header_is_malformed_and_never_quoted(
    tmp_path: pathlib.Path, value: bytes
) -> None:
    secret = tmp_path / "token"
    secret.write_bytes(value)
    with pytest.raises(credentials.Unavailable) as refused:
        asyncio.run(credentials.Credentials(credentials.Files(Clock())).lend(a_permit(secret)))
    assert refused.value.reason is decision.Reason.CREDENTIAL_MALFORMED
    assert value.decode("latin-1") not in str(refused.value) or len(value) < 2


def test_a_missing_file_says_which_and_what_to_do(tmp_path: pathlib.Path) -> None:
    with pytest.raises(
        credentials.Unavailable, match=r"token: No such file.*put the secret there"
    ) as refused:
        asyncio.run(credentials.Credentials(credentials.Files(Clock())).lend(a_permit(tmp_path / "token")))
    assert refused.value.reason is decision.Reason.CREDENTIAL_UNAVAILABLE


def test_none_true_lends_nothing_at_once() -> None:
    lent = credentials.Credentials(credentials.Files(Clock())).at_hand(a_permit(None))
    assert lent is not None
    assert lent.headers == ()
