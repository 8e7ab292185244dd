# SPDX-License-Identifier: Apache-2.0
"""Event streams, against a naive reader of the whole text."""

from __future__ import annotations

import random
import re

import hypothesis
import pytest
from hypothesis import strategies

from outrider_sidecar import streams

Event = streams.Event


def naive(text: bytes) -> list[Event]:
    """The standard's algorithm over the whole text at once, as plainly as it can be written."""
    text = text.removeprefix(b"\xef\xbb\xbf")
    lines = re.split(rb"\r\n|\r|\n", text)[:-1]
    events, data, name, event_id, retry = [], [], b"", None, None
    for line in lines:
        if line == b"":
            if data:
                events.append(
                    Event(b"\n".join(data), name.decode("utf-8", "replace") or "message", event_id, retry)
                )
            data, name, event_id, retry = [], b"", None, None
            continue
        if line.startswith(b":"):
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
        elif field == b"id" and b"\0" not in value:
            event_id = value.decode("utf-8", "replace")
        elif field == b"retry" and re.fullmatch(rb"[0-9]{1,12}", value):
            retry = int(value)
    return events


def parse(*chunks, event_max=1_000_000, stream_max=10_000_000):
    parser = streams.SseParser(event_max, stream_max)
    return [event for chunk in chunks for event in parser.feed(chunk)]


PIECES = [
    b"data", b"event", b"id", b"retry", b":", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"x", b"{}", b"12",
    b"\0", b"\xef\xbb\xbf", b"\xef", b"\xbb", b"\xff", b"data: a\n\n", b"data:b\r\n\r\n", b":c\n", b"id: 1\n",
]  # fmt: skip


@hypothesis.given(
    strategies.lists(strategies.sampled_from(PIECES), max_size=40).map(b"".join),
    strategies.randoms(use_true_random=False),
)
@hypothesis.settings(max_examples=400, deadline=None)
def test_any_text_split_anywhere_parses_as_the_whole_does(text, source: random.Random):
    expected = naive(text)
    cuts = sorted(source.randrange(len(text) + 1) for _ in range(source.randrange(6)))
    chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert parse(text) == expected
    assert parse(*chunks) == expected
    assert parse(*(text[at : at + 1] for at in range(len(text)))) == expected


EXAMPLES = [
    (b"data: one\n\ndata: two\n\n", [Event(b"one"), Event(b"two")]),
    (b"data: a\ndata: b\ndata\ndata:\n\n", [Event(b"a\nb\n\n")]),
    (b"\xef\xbb\xbfdata: x\n\n", [Event(b"x")]),
    (b"data:  two spaces\n\n", [Event(b" two spaces")]),
    (b"event: message\r\ndata: x\r\n\r\n", [Event(b"x")]),
    (b"event: ping\rdata: x\r\r", [Event(b"x", "ping")]),
    (b": comment\n\nid: 7\nretry: 1500\ndata: {}\n\n", [Event(b"{}", "message", "7", 1500)]),
    (b"id: 1\ndata:\n\n", [Event(b"", "message", "1")]),
    (b"event: lost\n\ndata: x\n\n", [Event(b"x")]),
    (b"data: never dispatched", []),
    (b"data: never dispatched\n", []),
    (b"retry: soon\nid: a\0b\ndata: x\n\n", [Event(b"x")]),
]


@pytest.mark.parametrize(("text", "events"), EXAMPLES)
def test_examples_of_the_standard(text, events):
    assert parse(text) == events == naive(text)


def test_the_last_event_id_outlives_events_without_one():
    parser = streams.SseParser(100, 1000)
    parser.feed(b"id: 5\ndata: x\n\ndata: y\n\n")
    assert parser.last_event_id == "5"
    parser.feed(b"id: 6\n\n")
    assert parser.last_event_id == "6"


@pytest.mark.parametrize("line", [b"data: " + b"x" * 94, b"data\n" * 200, b":" + b"x" * 200, b"x" * 200])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_what_is_kept_of_one_event_is_bounded_however_it_arrives(line, step):
    parser = streams.SseParser(99, 10_000)
    text = line + b"\n"
    with pytest.raises(streams.SseTooLarge, match="event"):
        feed_all(parser, (text[at : at + step] for at in range(0, len(text), step)))
    with pytest.raises(streams.SseTooLarge):
        parser.feed(b"\n\n")


@pytest.mark.parametrize("piece", [b"data: x\n\n", b": comment\n"])
def test_a_stream_of_small_events_and_of_comments_ends_at_its_bound(piece):
    with pytest.raises(streams.SseTooLarge, match="stream"):
        feed_all(streams.SseParser(100, 1000), [piece] * 1000)


def feed_all(parser, chunks):
    for chunk in chunks:
        parser.feed(chunk)


def test_large_events_in_small_pieces_are_parsed_in_linear_time():
    body = b"x" * 3_000_000
    text = b"data: " + body + b"\n\n"
    chunks = [text[at : at + 1000] for at in range(0, len(text), 1000)]
    assert parse(*chunks, event_max=4_000_000) == [Event(body)]


@hypothesis.given(strategies.binary(max_size=200), strategies.sampled_from(["message", "endpoint", "x y"]))
def test_what_is_encoded_parses_back_with_its_line_ends_as_lf(data, name):
    encoded = streams.encode_event(data, name)
    assert b"\r" not in encoded
    lines = re.sub(rb"\r\n|\r", b"\n", data)
    assert parse(encoded) == [Event(lines, name)]


def test_an_events_name_cannot_inject_lines():
    with pytest.raises(ValueError, match="one line"):
        streams.encode_event(b"x", "a\ndata: evil")


ACCEPTS = [
    (None, (True, False)),
    (b"application/json", (True, False)),
    (b"text/event-stream", (False, True)),
    (b"application/json, text/event-stream", (True, True)),
    (b"Text/Event-Stream;q=0.5 , APPLICATION/JSON ; q=1", (True, True)),
    (b"*/*", (True, True)),
    (b"application/json, text/event-stream;q=0", (True, False)),
    (b"application/json;q=0.000, text/*", (False, True)),
    (b"application/jsonp, text/event-streams", (False, False)),
    (b"", (False, False)),
]


@pytest.mark.parametrize(("value", "expected"), ACCEPTS)
def test_accept_is_read_as_whole_media_types(value, expected):
    found = streams.accepted(() if value is None else ((b"accept", value),))
    assert (found.json, found.sse) == expected
