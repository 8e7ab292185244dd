# SPDX-License-Identifier: Apache-2.0
"""The stream that a server of the handshake era speaks on by itself: how it is held, taken up again, and given up."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest
from tests.servers import flights, instalments

from outrider_sidecar import exchange, following, legs, loans

NEWER = exchange.Lent(((b"authorization", b"Bearer newer"),), version="2")
SAID = json.dumps({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})


class Lender:
    """Lends what stands in `lent`; `away` times it cannot."""

    def __init__(self, away=0):
        self.away = away
        self.lent = [flights.LENT]
        self.refused = []

    async def lend(self, _permit):
        if self.away:
            self.away -= 1
            raise loans.Unavailable(flights.decision.Reason.CREDENTIAL_UNAVAILABLE, "away")
        return self.lent[0] if len(self.lent) == 1 else self.lent.pop(0)

    async def renewed(self, _permit, refused, *, deadline):
        self.refused.append(refused)
        self.lent = [NEWER]


def followed(act, until, *, monkeypatch, lender=None, session=b"s1", **endpoint):
    """Follows one stream until the test has seen enough: (messages, how it ended by itself, what the server saw)."""
    monkeypatch.setattr(following, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(following, "BACKOFF_SECONDS_MAX", 0.1)

    async def main():
        async with instalments.serving(act) as served, flights.way_out() as out:
            heard, ends = [], []
            clock = asyncio.get_running_loop().time
            parts = following.Parts(out, lender or Lender(), clock, lambda: 0.0)
            to = flights.permit(served.url, **endpoint)
            made = following.Follower(
                parts, to, legs.Session("k", session, "2025-11-25"), hear=heard.append, over=ends.append
            )
            async with asyncio.timeout(10):
                while not until(served, heard, ends):
                    await asyncio.sleep(0.005)
            made.close()
            await asyncio.gather(made.task, return_exceptions=True)
            return heard, ends, served

    return asyncio.run(main())


def test_what_the_server_says_is_handed_on_as_it_comes(monkeypatch):
    async def act(line, seen):
        await line.event(SAID)
        await line.until_gone()

    heard, ends, served = followed(act, lambda _s, h, _e: h, monkeypatch=monkeypatch)
    assert [each.method for each in heard] == ["notifications/tools/list_changed"]
    assert ends == []
    (seen,) = served.seen
    assert (seen.verb, seen.body) == ("GET", b"")
    assert seen.headers["mcp-session-id"] == "s1"
    assert seen.headers["mcp-protocol-version"] == "2025-11-25"
    assert seen.headers["authorization"] == flights.CANARY.decode()
    assert "last-event-id" not in seen.headers
    assert "content-type" not in seen.headers


def test_a_stream_that_ended_is_taken_up_after_its_last_event(monkeypatch):
    async def act(line, seen):
        await line.event(SAID, id=f"e{len(line.served.seen)}")
        if len(line.served.seen) == 3:
            await line.until_gone()

    heard, _, served = followed(act, lambda _s, h, _e: len(h) == 3, monkeypatch=monkeypatch)
    assert len(heard) == 3
    assert [seen.headers.get("last-event-id") for seen in served.seen] == [None, "e1", "e2"]


def test_it_is_not_taken_up_sooner_than_the_server_asks(monkeypatch):
    times = []

    async def act(line, seen):
        times.append(asyncio.get_running_loop().time())
        await line.event("", id="e", retry=300)

    followed(act, lambda s, _h, _e: len(s.seen) == 3, monkeypatch=monkeypatch)
    assert all(later - before >= 0.3 for before, later in itertools.pairwise(times))


def test_a_stream_that_is_refused_is_opened_again_with_a_newer_credential(monkeypatch):
    async def act(line, seen):
        if seen.headers["authorization"] != "Bearer newer":
            await line.status(401)
            return
        await line.event(SAID)
        await line.until_gone()

    lender = Lender()
    heard, ends, served = followed(act, lambda _s, h, _e: h, monkeypatch=monkeypatch, lender=lender)
    assert (len(heard), ends, len(served.seen)) == (1, [], 2)
    assert lender.refused == [flights.LENT]


def test_a_server_without_such_a_stream_is_asked_once(monkeypatch):
    async def act(line, seen):
        await line.status(405)

    _, ends, served = followed(act, lambda _s, _h, e: e, monkeypatch=monkeypatch)
    assert ends == [following.End.NONE]
    assert len(served.seen) == 1


def test_a_page_is_no_stream(monkeypatch):
    async def act(line, seen):
        await line.status(200, b"<html>welcome", b"text/html")

    _, ends, served = followed(act, lambda _s, _h, e: e, monkeypatch=monkeypatch)
    assert ends == [following.End.NONE]
    assert len(served.seen) == 1


def test_a_session_that_is_unknown_is_told_and_not_asked_for_again(monkeypatch):
    async def act(line, seen):
        await line.status(404)

    _, ends, served = followed(act, lambda _s, _h, e: e, monkeypatch=monkeypatch)
    assert ends == [following.End.UNKNOWN_SESSION]
    assert len(served.seen) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_in_trouble_is_asked_ever_later(monkeypatch, status):
    times = []

    async def act(line, seen):
        times.append(asyncio.get_running_loop().time())
        await line.status(status)

    followed(act, lambda s, _h, _e: len(s.seen) == 4, monkeypatch=monkeypatch)
    gaps = [later - before for before, later in itertools.pairwise(times)]
    assert gaps[0] >= 0.04
    assert gaps[1] >= 0.08
    assert gaps[2] >= 0.1


def test_a_stream_has_an_absolute_deadline_and_is_opened_anew(monkeypatch):
    async def act(line, seen):
        await line.event("", id=f"e{len(line.served.seen)}")
        await line.until_gone()

    _, _, served = followed(
        act, lambda s, _h, _e: len(s.seen) == 3, monkeypatch=monkeypatch, stream_seconds=0.1
    )
    assert [seen.headers.get("last-event-id") for seen in served.seen] == [None, "e1", "e2"]


def test_a_message_too_large_ends_the_stream_and_not_the_following(monkeypatch):
    async def act(line, seen):
        await line.event("x" * 80_000 if len(line.served.seen) == 1 else SAID)

    heard, _, _ = followed(act, lambda _s, h, _e: h, monkeypatch=monkeypatch, result_bytes_max=1_000)
    assert len(heard) >= 1


def test_each_stream_is_opened_with_the_credential_there_is_then(monkeypatch):
    async def act(line, seen):
        await line.event(SAID)

    lender = Lender(away=1)
    renewed = flights.exchange.Lent(((b"authorization", b"Bearer renewed-7c1d"),))
    lender.lent = [flights.LENT, renewed]
    _, _, served = followed(act, lambda s, _h, _e: len(s.seen) == 2, monkeypatch=monkeypatch, lender=lender)
    assert [seen.headers["authorization"] for seen in served.seen] == [
        flights.CANARY.decode(),
        "Bearer renewed-7c1d",
    ]
