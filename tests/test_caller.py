# SPDX-License-Identifier: Apache-2.0
"""The local door: Host, Origin, token."""

from __future__ import annotations

import pytest

from outrider import decision
from outrider_sidecar import caller

GUARD = caller.Guard(b"s3cret", frozenset({b"proxy.example", b"other.example:8443"}))
HOST = (b"host", b"127.0.0.1:15100")
TOKEN = (b"authorization", b"Bearer s3cret")


def reason(*headers: tuple[bytes, bytes]) -> decision.Reason | None:
    found = GUARD.objection(headers)
    return None if found is None else found.reason


@pytest.mark.parametrize(
    "host",
    [
        b"127.0.0.1",
        b"localhost:1",
        b"[::1]:15100",
        b"LOCALHOST",
        b"proxy.example",
        b"proxy.example:9",
        b"other.example:8443",
    ],
)
def test_loopback_and_allowed_hosts_are_accepted(host: bytes) -> None:
    assert reason((b"host", host), TOKEN) is None


@pytest.mark.parametrize(
    "host",
    [b"evil.example", b"127.0.0.1.evil.example", b"", b"localhost:x", b"other.example", b"127.0.0.1:1:2"],
)
def test_any_other_host_is_refused(host: bytes) -> None:
    assert reason((b"host", host), TOKEN) is decision.Reason.HOST_REFUSED


def test_no_host_or_two_are_refused() -> None:
    assert reason(TOKEN) is decision.Reason.HOST_REFUSED
    assert reason(HOST, HOST, TOKEN) is decision.Reason.HOST_REFUSED


@pytest.mark.parametrize("origin", [b"http://localhost:6274", b"http://127.0.0.1", b"https://[::1]:1"])
def test_browsers_on_loopback_are_accepted(origin: bytes) -> None:
    assert reason(HOST, TOKEN, (b"origin", origin)) is None


@pytest.mark.parametrize(
    "origin",
    [
        b"null",
        b"",
        b"https://evil.example",
        b"http://localhost.evil.example",
        b"file://localhost",
        b"localhost",
    ],
)
def test_any_other_origin_is_refused(origin: bytes) -> None:
    assert reason(HOST, TOKEN, (b"origin", origin)) is decision.Reason.HOST_REFUSED


def test_two_origins_are_refused() -> None:
    origin = (b"origin", b"http://localhost")
    assert reason(HOST, TOKEN, origin, origin) is decision.Reason.HOST_REFUSED


@pytest.mark.parametrize(
    "value", [b"", b"Bearer", b"Bearer ", b"Bearer wrong", b"Basic s3cret", b"s3cret", b"Bearer s3cret x"]
)
def test_a_wrong_token_is_refused(value: bytes) -> None:
    assert reason(HOST, (b"authorization", value)) is decision.Reason.LOCAL_AUTH_REFUSED


def test_no_token_or_two_are_refused_and_the_scheme_is_case_insensitive() -> None:
    assert reason(HOST) is decision.Reason.LOCAL_AUTH_REFUSED
    assert reason(HOST, TOKEN, TOKEN) is decision.Reason.LOCAL_AUTH_REFUSED
    assert reason(HOST, (b"authorization", b"bearer s3cret")) is None


def test_where_no_token_is_asked_host_and_origin_still_are() -> None:
    door = caller.Guard(None)
    assert door.objection((HOST,)) is None
    assert door.objection((HOST, (b"authorization", b"Basic whatever"))) is None
    for headers in (((b"host", b"evil.example"),), (HOST, (b"origin", b"https://evil.example")), ()):
        found = door.objection(headers)
        assert found is not None
        assert found.reason is decision.Reason.HOST_REFUSED
