# SPDX-License-Identifier: Apache-2.0
"""Heads after which nobody could say where the next request begins, and those that ask for what is not done here."""

from __future__ import annotations

import pytest

from outrider_sidecar import framing


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"content-length", b"1"), (b"content-length", b"1")], 400),
        ([(b"content-length", b"+1")], 400),
        ([(b"transfer-encoding", b"chunked"), (b"content-length", b"1")], 400),
        ([(b"transfer-encoding", b"gzip, chunked")], 400),
        ([(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")], 400),
        ([(b"upgrade", b"WebSocket")], 400),
        ([(b"expect", b"200-ok")], 417),
        ([(b"content-encoding", b"gzip")], 415),
    ],
)
def test_a_head_that_is_not_plain_is_refused(headers: list[tuple[bytes, bytes]], status: int) -> None:
    refused = framing.refusal(tuple(headers))
    assert refused is not None
    assert refused[0] == status


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-length", b"17")],
        [(b"transfer-encoding", b"Chunked")],
        [(b"upgrade", b"h2c")],
        [(b"expect", b"100-continue"), (b"content-length", b"0")],
        [(b"content-encoding", b"identity")],
    ],
)
def test_a_plain_head_is_taken(headers: list[tuple[bytes, bytes]]) -> None:
    assert framing.refusal(tuple(headers)) is None
