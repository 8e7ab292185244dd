# SPDX-License-Identifier: Apache-2.0
"""An upstream's answer as messages, however it is cut into pieces."""

from __future__ import annotations

import itertools
import json
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from outrider import decision
from outrider_sidecar import exchange, jsonrpc, reading

R = decision.Reason
JSON = ((b"content-type", b"application/json"),)
SSE = ((b"content-type", b"Text/Event-Stream; charset=utf-8"),)
ANSWER = b'{"jsonrpc":"2.0","id":1,"result":{"a":1}}'
NOTE = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}'
SECRET = b"canary-secret-value"


class Kept:
    """What an owner is told, in order."""

    def __init__(self, *, limit: int = 1000, room: bool = True, secrets: tuple[bytes, ...] = ()) -> None:
        self.messages: list[jsonrpc.Answer] = []
        self.ends: list[exchange.Failed | None] = []
        self.cancelled = 0
        self.room = room
        self.reading = reading.Reading(
            result_bytes_max=limit, on_message=self.heard, on_end=self.ends.append, secrets=secrets
        )
        self.reading.flight = self

    def heard(self, message: jsonrpc.Answer) -> bool:
        assert not self.ends
        self.messages.append(message)
        return self.room

    def resume(self) -> None:
        raise AssertionError("a reading never resumes")

    def cancel(self) -> None:
        self.cancelled += 1

    def read(self, status: int, headers: exchange.Headers, *chunks: bytes, end: Any = None) -> Kept:
        self.reading.head(status, headers)
        for chunk in chunks:
            self.reading.data(chunk)
        self.reading.done(end or exchange.Complete())
        return self

    @property
    def reason(self) -> R | None:
        (end,) = self.ends
        return None if end is None else end.reason


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(each % (len(data) + 1) for each in at)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@hypothesis.given(st.lists(st.integers(0, 500), max_size=8))
def test_however_a_json_body_is_cut_it_is_one_message(at: list[int]) -> None:
    kept = Kept().read(200, JSON, *cut(ANSWER, at))
    assert [(each.id, each.payload) for each in kept.messages] == [(1, b'{"a":1}')]
    assert kept.ends == [None]


@hypothesis.given(st.lists(st.integers(0, 500), max_size=8), st.sampled_from([b"\n", b"\r\n"]))
def test_however_a_stream_is_cut_it_is_the_same_messages(at: list[int], line: bytes) -> None:
    stream = b"".join(b"data: " + each + line * 2 for each in (NOTE, b"", NOTE, ANSWER))
    kept = Kept().read(200, SSE, *cut(b": hello" + line * 2 + stream, at))
    assert [each.kind.name for each in kept.messages] == ["NOTIFICATION", "NOTIFICATION", "RESULT"]
    assert kept.ends == [None]


def test_a_message_of_a_stream_is_handed_on_before_the_next_has_arrived() -> None:
    kept = Kept()
    kept.reading.head(200, SSE)
    kept.reading.data(b"data: " + NOTE + b"\n\ndata: {")
    assert len(kept.messages) == 1


def test_an_event_of_another_type_is_passed_over() -> None:
    kept = Kept().read(200, SSE, b"event: ping\ndata: x\n\nevent: message\ndata: " + ANSWER + b"\n\n")
    assert [each.payload for each in kept.messages] == [b'{"a":1}']
    assert kept.ends == [None]


@pytest.mark.parametrize("room", [True, False])
def test_no_room_for_a_message_pauses_the_flight(room: bool) -> None:
    kept = Kept(room=room)
    kept.reading.head(200, SSE)
    assert kept.reading.data(b"data: " + NOTE + b"\n\n") is room


@pytest.mark.parametrize(
    "headers",
    [(), ((b"content-type", b"text/html"),), JSON + JSON, JSON + SSE, ((b"content-type", b"application/jsonp"),)],
)  # fmt: skip
def test_a_body_that_is_neither_json_nor_events_is_refused_and_nothing_at_all_is_not(
    headers: exchange.Headers,
) -> None:
    kept = Kept().read(200, headers, b"", ANSWER, ANSWER)
    assert (kept.reason, kept.messages, kept.cancelled) == (R.UPSTREAM_PROTOCOL_ERROR, [], 1)
    empty = Kept().read(200, headers, b"")
    assert (empty.reason, empty.messages, empty.cancelled) == (None, [], 0)


@pytest.mark.parametrize("status", [202, 400, 404, 500])
def test_another_status_may_have_any_body_and_a_message_in_it_counts(status: int) -> None:
    assert Kept().read(status, (), b"<html>").ends == [None]
    error = b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m"}}'
    kept = Kept().read(status, (), error)
    assert [each.kind for each in kept.messages] == [jsonrpc.AnswerKind.ERROR]
    assert kept.reading.status == status


def test_what_is_too_large_is_given_up_at_once_and_read_no_further() -> None:
    limit = 1000 + reading.ENVELOPE_BYTES
    fits = b'{"id":1,"result":{"a":"%b"}}'
    whole = fits % (b"x" * (limit - len(fits) + 2))
    assert len(whole) == limit
    assert Kept().read(200, JSON, whole).reason is None
    kept = Kept().read(200, JSON, whole, b" ", b"more" * 1000)
    assert (kept.reason, kept.messages, kept.cancelled) == (R.UPSTREAM_TOO_LARGE, [], 1)
    assert len(kept.reading._body) == limit + 1


@pytest.mark.parametrize("event", [b"data: " + b"x" * 70_000, b":" + b"x" * 70_000])
def test_an_event_or_a_line_that_is_too_large_is_given_up(event: bytes) -> None:
    assert Kept().read(200, SSE, event).reason is R.UPSTREAM_TOO_LARGE


def test_a_stream_without_end_is_given_up() -> None:
    """R14: many small events are bounded together."""
    kept = Kept()
    kept.reading.head(200, SSE)
    for _ in range(200_000):
        kept.reading.data(b"data: " + NOTE + b"\n\n")
        if kept.cancelled:
            break
    assert kept.cancelled == 1
    assert len(kept.messages) < 20_000


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b"{}", b"null", ANSWER * 2, b"[" * 60_000])
def test_a_body_that_is_no_message_is_a_protocol_error(body: bytes) -> None:
    kept = Kept().read(200, JSON, body)
    assert (kept.reason, kept.messages) == (R.UPSTREAM_PROTOCOL_ERROR, [])
    streamed = Kept().read(
        200, SSE, b"data: " + NOTE + b"\n\ndata: " + body + b"\n\n", b"data: " + ANSWER + b"\n\n"
    )
    assert (streamed.reason, len(streamed.messages)) == (R.UPSTREAM_PROTOCOL_ERROR, 1)


@pytest.mark.parametrize("sent", list(exchange.Sent))
def test_a_failure_of_the_way_out_is_handed_on_and_half_a_body_is_no_message(sent: exchange.Sent) -> None:
    failed = exchange.Failed(R.UPSTREAM_TIMEOUT, sent, "late")
    kept = Kept().read(200, JSON, ANSWER, end=failed)
    assert (kept.ends, kept.messages) == ([failed], [])


def test_the_first_failure_is_the_one_that_counts() -> None:
    kept = Kept().read(
        200, (), b"x", end=exchange.Failed(R.CANCELLED, exchange.Sent.MAYBE_SENT)
    )  # what cancelling the flight leads to
    assert kept.reason is R.UPSTREAM_PROTOCOL_ERROR


def test_the_session_a_server_gives_is_kept() -> None:
    assert Kept().read(200, (*JSON, (b"mcp-session-id", b"s1")), ANSWER).reading.session == b"s1"
    assert Kept().read(200, JSON, ANSWER).reading.session is None


def test_a_lent_secret_is_taken_out_of_every_message() -> None:
    body = json.dumps({"id": 1, "result": {"echo": f"Bearer {SECRET.decode()}"}}).encode()
    for headers, data in ((JSON, body), (SSE, b"data: " + body + b"\n\n")):
        kept = Kept(secrets=(SECRET,)).read(200, headers, data)
        assert len(kept.messages) == 1
        assert SECRET not in kept.messages[0].payload
