# SPDX-License-Identifier: Apache-2.0
"""The config stream over real sockets: who may read it, what comes first, and what a slow reader gets."""

from __future__ import annotations

import asyncio
import contextlib
import json

import aiohttp
import pytest
from aiohttp import web

from outrider import identity, snapshot, wire
from outrider_operator import laptop, reviewer, streaming

STREAM = "/v1/config/stream"


def made(name="bot", padding=0):
    teams = tuple(f"{'x' * 1000}{n}" for n in range(padding))
    return snapshot.Snapshot(
        epoch=1, workload=identity.Workload(namespace="agents", service_account=name, teams=teams)
    )


def padded(desk):
    """About the length of the line in force."""
    return len(desk.offer(reviewer.LAPTOP.subject, snapshot.SCHEMA).content) + 200


class Served:
    """An operator's HTTP on a port of the kernel's choice, and a client with its token."""

    def __init__(self, desk, session, url, transports):
        self.desk, self.session, self.url, self.transports = desk, session, url, transports

    def get(self, path=STREAM, **query):
        return self.session.get(self.url + path, params={"schema": str(snapshot.SCHEMA), **query})


@contextlib.asynccontextmanager
async def served(folder, *, ping_seconds=15.0, streams_max=64, on_report=None, who=None, **manner):
    reviewer.ensure(folder / "token")
    desk = laptop.Laptop(laptop.Counter(folder / "position.json"))
    who = who or reviewer.FileReviewer(folder / "token")
    app = streaming.application(
        desk.publisher,
        who,
        manner=streaming.Manner(ping_seconds=ping_seconds, streams_max=streams_max, **manner),
        on_report=on_report,
        elsewhere={"/v1/status": streaming.status_door(who, desk.status)},
    )
    transports = []

    async def note(request, _response):
        transports.append(request.transport)

    app.on_response_prepare.append(note)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    token = (folder / "token").read_text().strip()
    async with aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {token}"}, read_bufsize=2**24
    ) as session:
        yield Served(desk, session, f"http://127.0.0.1:{runner.addresses[0][1]}", transports)
    await desk.publisher.drain()
    await runner.cleanup()


async def heard(response):
    """The next message of a stream."""
    return wire.decode(await asyncio.wait_for(response.content.readline(), 10))


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer ", "Basic abc", "bearer x"])
@pytest.mark.parametrize(
    ("method", "path"), [("GET", STREAM), ("POST", "/v1/config/ack"), ("GET", "/v1/status"), ("GET", "/x")]
)
def test_without_the_token_nothing_is_told_and_no_body_is_read(tmp_path, header, method, path) -> None:
    async def run():
        async with served(tmp_path) as one, aiohttp.ClientSession() as stranger:
            headers = {} if header is None else {"Authorization": header}
            async with stranger.request(
                method, one.url + path, headers=headers, data=b"x" * 200_000
            ) as answer:
                return answer.status, await answer.json()

    status, body = asyncio.run(run())
    assert status == 401
    assert set(body) == {"error"}


def test_a_stream_says_hello_then_the_snapshot_then_every_newer_one(tmp_path) -> None:
    async def run():
        async with served(tmp_path) as one:
            one.desk.publish(made(), ())
            async with one.get() as stream:
                hello, first = await heard(stream), await heard(stream)
                one.desk.publish(made("cat"), ())
                return one.desk.epoch, hello, first, await heard(stream)

    epoch, hello, first, second = asyncio.run(run())
    assert hello == wire.Hello(epoch=epoch, schema=snapshot.SCHEMA, heartbeat_seconds=15.0)
    assert wire.decode_snapshot(bytes(first.content)) == made()
    assert wire.decode_snapshot(bytes(second.content)) == made("cat")
    assert (first.position, second.position) == ({"files": 1}, {"files": 2})


def test_whoever_can_inflate_is_sent_less_and_the_others_are_not(tmp_path) -> None:
    async def run():
        async with served(tmp_path) as one, one.get(deflate="1") as able, one.get() as plain:
            lines = []
            for stream in (able, plain):
                await heard(stream)
            one.desk.publish(made(), ())
            for stream in (able, plain):
                lines.append(await asyncio.wait_for(stream.content.readline(), 10))
            return lines

    deflated, whole = asyncio.run(run())
    assert b'"type":"deflated"' in deflated
    assert b'"type":"snapshot"' in whole
    assert wire.decode(deflated) == wire.decode(whole)


def test_whoever_holds_the_current_version_hears_one_short_line(tmp_path) -> None:
    async def run():
        async with served(tmp_path) as one:
            one.desk.publish(made(), ())
            version = one.desk.version
            async with one.get(version=version, position='{"files":1}') as stream:
                await heard(stream)
                unchanged = await heard(stream)
                return version, unchanged, one.desk.status()["sidecars"][0]["acked"]

    version, unchanged, acked = asyncio.run(run())
    assert unchanged == wire.Unchanged(version=version, position={"files": 1})
    assert acked == version


def test_an_operator_that_lags_says_so_only_within_one_epoch(tmp_path) -> None:
    async def run():
        async with served(tmp_path) as one:
            one.desk.publish(made(), ())
            found = []
            for epoch in (str(one.desk.epoch), "7"):
                async with one.get(version="0" * 64, position='{"files":9}', epoch=epoch) as stream:
                    await heard(stream)
                    found.append(type(await heard(stream)))
            return found

    assert asyncio.run(run()) == [wire.Behind, wire.SnapshotOffer]


def test_before_anything_is_known_there_are_hello_and_pings_only(tmp_path) -> None:
    async def run():
        async with served(tmp_path, ping_seconds=0.01) as one, one.get() as stream:
            before = [type(await heard(stream)) for _ in range(3)]
            one.desk.publish(made(), ())
            while isinstance(after := await heard(stream), wire.Ping):
                pass
            return before, type(after)

    assert asyncio.run(run()) == ([wire.Hello, wire.Ping, wire.Ping], wire.SnapshotOffer)


def test_draining_says_go_away_and_ends_the_stream(tmp_path) -> None:
    async def run():
        async with served(tmp_path) as one, one.get() as stream:
            await heard(stream)
            await one.desk.publisher.drain()
            return await heard(stream), await stream.content.readline()

    last, end = asyncio.run(run())
    assert isinstance(last, wire.GoAway)
    assert end == b""


@pytest.mark.parametrize(
    "query",
    [{"schema": str(snapshot.SCHEMA + 1)}, {"schema": ""}, {"version": "abc"}, {"position": "[]"}, {"position": "{"}, {"position": '{"files":-1}'},
     {"position": '{"files":true}'}, {"epoch": "x"}, {"position": "[" * 2000}],
)  # fmt: skip
def test_a_query_that_cannot_be_read_is_refused_with_a_sentence(tmp_path, query) -> None:
    async def run():
        async with served(tmp_path) as one, one.get(**query) as answer:
            return answer.status, await answer.json()

    status, body = asyncio.run(run())
    assert status == 400
    assert len(body["error"]) > 10


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{}", 400), (b'{"type":"ping"}', 400), (b"x" * 70_000, 413),
     (wire.encode(wire.Ack(version="0" * 64, position={}, ok=True)), 409)],
)  # fmt: skip
def test_an_answer_that_answers_nothing_is_refused(tmp_path, body, status) -> None:
    async def run():
        async with served(tmp_path) as one, one.session.post(one.url + "/v1/config/ack", data=body) as answer:
            return answer.status, await answer.json()

    assert asyncio.run(run())[0] == status


def test_an_acknowledgement_shows_in_status_until_the_stream_ends(tmp_path) -> None:
    async def run():
        async with served(tmp_path) as one:
            one.desk.publish(made(), ())
            async with one.get() as stream:
                await heard(stream)
                version = (await heard(stream)).version
                ack = wire.Ack(version=version, position={"files": 1}, ok=True)
                async with one.session.post(one.url + "/v1/config/ack", data=wire.encode(ack)) as answer:
                    assert answer.status == 200
                async with one.get("/v1/status") as answer:
                    during = await answer.json()
            while one.desk.publisher.streams:
                await asyncio.sleep(0)
            return version, during, one.desk.status()

    version, during, after = asyncio.run(run())
    assert [one["acked"] for one in during["sidecars"]] == [version]
    assert during["version"] == version
    assert after["sidecars"] == []


def test_a_slow_reader_gets_the_newest_version_and_never_a_queue(tmp_path) -> None:
    async def run():
        async with served(tmp_path) as one:
            reader, writer = await asyncio.open_connection(
                *one.url.removeprefix("http://").split(":"), limit=4096
            )
            token = (tmp_path / "token").read_text().strip()
            writer.write(
                f"GET {STREAM}?schema={snapshot.SCHEMA} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
            )
            while not one.desk.publisher.streams:
                await asyncio.sleep(0)
            big = 16_000  # about 16 MB: more than every socket buffer on the way
            for number in range(8):
                one.desk.publish(made(f"n{number}", padding=big), ())
                await asyncio.sleep(0.01)
            last = one.desk.version
            total, tail = 0, b""
            while last.encode() not in tail:
                chunk = await asyncio.wait_for(reader.read(2**20), 10)
                assert chunk
                total += len(chunk)
                tail = (tail + chunk)[-(2**21) :]
            writer.close()
            return total, padded(one.desk)

    total, line = asyncio.run(run())
    assert total < 3 * line, "the first version and the last, not the six between"


def test_not_even_small_snapshots_queue_for_a_reader_that_reads_nothing(tmp_path) -> None:
    async def run():
        async with served(tmp_path) as one:
            _, writer = await asyncio.open_connection(*one.url.removeprefix("http://").split(":"), limit=1)
            token = (tmp_path / "token").read_text().strip()
            writer.write(
                f"GET {STREAM}?schema={snapshot.SCHEMA} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
            )
            while not one.desk.publisher.streams:
                await asyncio.sleep(0)
            [transport] = one.transports
            # The kernel's buffers take many versions; then the first one stays with us.
            number, more_at = 0, 10_000
            while number < more_at:
                one.desk.publish(made(f"n{number}", padding=40), ())
                await asyncio.sleep(0.002)
                number += 1
                if transport.get_write_buffer_size() and more_at == 10_000:
                    more_at = number + 20
            queued = transport.get_write_buffer_size()
            writer.transport.abort()
            return queued, padded(one.desk)

    queued, line = asyncio.run(run())
    assert 0 < queued < 1.5 * line, "a part of one version, never two"


def test_there_is_a_bound_on_streams(tmp_path) -> None:
    async def run():
        async with served(tmp_path, streams_max=1) as one, one.get() as stream:
            await heard(stream)
            async with one.get() as second:
                return second.status, json.loads(await second.text())

    status, body = asyncio.run(run())
    assert status == 503
    assert "streams are open" in body["error"]


class OnePod:
    """Whoever comes is the same pod."""

    async def review(self, _token):
        return reviewer.Principal("agents", "bot", "bot-1", "uid-1")

    again = review


def test_one_pod_cannot_take_the_places_of_all_others(tmp_path) -> None:
    async def run():
        async with served(tmp_path, who=OnePod()) as one, contextlib.AsyncExitStack() as stack:
            for _ in range(streaming.POD_STREAMS_MAX):
                assert (await stack.enter_async_context(one.get())).status == 200
            async with one.get() as more:
                return more.status, await more.json()

    status, body = asyncio.run(run())
    assert status == 429
    assert "streams of this pod" in body["error"]


def test_a_replica_that_knows_nothing_yet_serves_no_stream_and_says_why(tmp_path) -> None:
    async def run():
        async with (
            served(tmp_path, unready=lambda: "the objects have not been read yet") as one,
            one.get() as answer,
        ):
            return answer.status, await answer.json()

    assert asyncio.run(run()) == (503, {"error": "the objects have not been read yet; dial again"})


def test_a_replica_is_told_of_the_position_that_it_lags_behind(tmp_path) -> None:
    told = []

    async def run():
        async with served(tmp_path, catch_up=told.append) as one:
            one.desk.publish(made(), ())
            async with one.get(version="0" * 64, position='{"files":9}', epoch=str(one.desk.epoch)) as stream:
                await heard(stream)
                return await heard(stream)

    assert isinstance(asyncio.run(run()), wire.Behind)
    assert told == [{"files": 9}]


def test_new_authorities_are_said_once_and_not_to_who_has_them_or_reads_schema_1(tmp_path) -> None:
    async def run():
        async with served(tmp_path, ping_seconds=0.2) as one:
            one.desk.publisher.trust("PEM")
            found = []
            for query in ({}, {"trust": wire.bundle_digest("PEM")}, {"schema": "1"}):
                async with one.get(**query) as stream:
                    found.append([type(await heard(stream)) for _ in range(3)])
            async with one.get(trust=wire.bundle_digest("PEM")) as stream:
                await heard(stream)
                one.desk.publisher.trust("NEWER")
                found.append(await heard(stream))
            return found

    ping, hello = wire.Ping, wire.Hello
    assert asyncio.run(run()) == [
        [hello, wire.Trust, ping], [hello, ping, ping], [hello, ping, ping], wire.Trust(bundle="NEWER"),
    ]  # fmt: skip


def test_a_token_that_opens_nothing_any_more_ends_its_stream(tmp_path) -> None:
    async def run():
        async with served(tmp_path, review_seconds=0.05) as one, one.get() as stream:
            await heard(stream)
            (tmp_path / "token").write_text("n" * 64)
            return await heard(stream)

    last = asyncio.run(run())
    assert isinstance(last, wire.GoAway)
    assert "not accepted any more" in last.reason


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [(b"[1]", 200, "1 taken"), (b"", 400, "nothing in it"), (b"x" * (5 * 2**20), 413, "")],
    ids=range(3),
)
def test_reports_are_taken_from_whoever_is_known_and_are_bounded(tmp_path, body, status, words) -> None:
    def report(who, given):
        assert who == reviewer.LAPTOP
        if not given:
            raise wire.WireError("", "nothing in it")
        return b'"1 taken"'

    async def run():
        async with (
            served(tmp_path, on_report=report) as one,
            one.session.post(one.url + "/v1/config/report", data=body) as answer,
        ):
            return answer.status, await answer.text()

    found, said = asyncio.run(run())
    assert (found, words in said) == (status, True)
