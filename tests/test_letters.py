# SPDX-License-Identifier: Apache-2.0
"""One posted message by itself: exactly one head, exactly one end, whatever comes first."""

from __future__ import annotations

import asyncio

import pytest
from tests.servers import flights

from outrider import decision
from outrider_sidecar import exchange, letters

R = decision.Reason
ANSWER = b'{"jsonrpc":"2.0","id":1,"result":{}}'
CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call"}'
NOTE = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'


def run(steps, body=CALL, *, posted=True, seconds=5.0):
    """What the owner of a letter gets when `steps` befall it."""

    async def main():
        sink = flights.Sink()
        deadline = asyncio.get_running_loop().time() + seconds
        letter = letters.Letter(
            flights.permit("http://127.0.0.1:9/"), flights.LENT, flights.HEAD, body, sink,
            deadline=deadline, session=b"key",
        )  # fmt: skip
        if posted:
            letter.posted = letters.Told(letters.Unheard(), 200)
        await steps(letter)
        return sink, await sink.end()

    return asyncio.run(main())


def test_the_answer_may_come_before_the_message_was_accepted():
    async def steps(letter):
        letter.hear(ANSWER, last=True)
        letter.head(202, ())
        letter.data(b"Accepted")
        letter.done(exchange.Complete())
        letter.hear(ANSWER, last=True)
        letter.cancel()

    sink, end = run(steps)
    assert (sink.status, end) == (200, exchange.Complete())
    assert dict(sink.headers) == {b"content-type": b"text/event-stream", b"mcp-session-id": b"key"}
    assert sink.body.count(b"data: ") == 1


@pytest.mark.parametrize("body", [NOTE, ANSWER])
def test_what_needs_no_answer_is_over_when_it_was_accepted(body):
    async def steps(letter):
        letter.head(202, ())
        letter.done(exchange.Complete())

    sink, end = run(steps, body)
    assert (sink.status, sink.body, end) == (200, b"", exchange.Complete())


def test_a_post_that_fails_is_the_end_whatever_it_was():
    failed = exchange.Failed(R.UPSTREAM_UNREACHABLE, exchange.Sent.NOT_SENT, "refused")

    async def steps(letter):
        letter.done(failed)

    sink, end = run(steps)
    assert (sink.status, end) == (0, failed)


def test_nothing_in_time_is_a_timeout_that_says_whether_it_was_sent():
    async def steps(letter):
        await asyncio.sleep(0)

    for posted, sent in ((True, exchange.Sent.MAYBE_SENT), (False, exchange.Sent.NOT_SENT)):
        _, end = run(steps, posted=posted, seconds=0.05)
        assert (end.reason, end.sent) == (R.UPSTREAM_TIMEOUT, sent)


def test_a_status_that_is_told_comes_once_and_later_than_the_sending():
    async def main():
        sink = flights.Sink()
        told = letters.Told(sink, 404)
        assert sink.ends == []
        told.cancel()
        told.resume()
        return sink, await sink.end()

    sink, end = asyncio.run(main())
    assert (sink.status, end) == (404, exchange.Complete())
