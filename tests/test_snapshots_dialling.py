# SPDX-License-Identifier: Apache-2.0
"""How the control plane is dialled, left and dialled again, and that every answer is delivered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
import time

from aiohttp import web
from tests.test_snapshots import TOKEN, content, offer

from outrider import snapshot, wire
from outrider_operator import certificates
from outrider_sidecar import current, snapshots


class ControlPlane:
    """Says to every stream what `script` gives for its number, then stays; answers acknowledgements as it is told."""

    def __init__(self, script, *, answers=(), hello=None):
        self.script, self.answers = script, list(answers)
        self.hello = hello or wire.Hello(epoch=1, schema=snapshot.SCHEMA)
        self.dials, self.queries, self.posted, self.agents = [], [], [], []

    async def stream(self, request):
        self.dials.append(time.monotonic())
        self.queries.append(dict(request.query))
        self.agents.append(request.headers["user-agent"])
        lines = self.script(len(self.dials))
        if isinstance(lines, web.Response):
            return lines
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(wire.encode(self.hello) + b"".join(lines))
        await asyncio.Event().wait()
        return response

    async def ack(self, request):
        self.posted.append(wire.decode(await request.read()))
        return web.Response(status=self.answers.pop(0) if self.answers else 200)


@contextlib.asynccontextmanager
async def dialling(plane, folder, *, jitter=0.1, kept=None, **more):
    """A proxy that dials `plane`; with `kept`, over TLS that only these authorities vouch for."""
    app = web.Application()
    app.router.add_get("/v1/config/stream", plane.stream)
    app.router.add_post("/v1/config/ack", plane.ack)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    served = None
    if kept is not None:
        (folder / "crt").write_bytes(kept.tls_cert)
        (folder / "key").write_bytes(kept.tls_key)
        served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        served.load_cert_chain(folder / "crt", folder / "key")
        (folder / "ca.pem").write_text(kept.bundle)
        more["ca_file"] = folder / "ca.pem"
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=served).start()
    (folder / "token").write_text(TOKEN)
    scheme = "http" if served is None else "https"
    dial = snapshots.Dial(f"{scheme}://127.0.0.1:{runner.addresses[0][1]}", folder / "token", folder, **more)
    held = current.Current()
    config = snapshots.Config(held, dial, changed=lambda _bound: None, jitter=lambda: jitter)
    following = asyncio.create_task(config.follow())
    try:
        yield held, config
        assert not following.done()
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await runner.cleanup()


async def until(condition, seconds=20.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def test_a_refusal_names_the_object_and_its_generation(tmp_path) -> None:
    value = json.loads(content())
    value["servers"][0]["rules"][0]["tools"] = 5
    plane = ControlPlane(lambda _number: [offer(json.dumps(value).encode(), 1)])

    async def run():
        async with dialling(plane, tmp_path):
            await until(lambda: plane.posted)

    asyncio.run(run())
    [ack] = plane.posted
    assert (ack.ok, ack.path) == (False, "$.servers[0].rules[0].tools")
    assert (ack.source, ack.generation) == ("MCPToolPolicy crm/p", 1)


def test_an_answer_that_was_not_taken_is_given_again_until_it_is(tmp_path) -> None:
    plane = ControlPlane(lambda _number: [offer(content(), 1)], answers=[503, 401, 500])

    async def run():
        async with dialling(plane, tmp_path):
            await until(lambda: len(plane.posted) == 4)
            await asyncio.sleep(0.1)

    asyncio.run(run())
    assert [each.version for each in plane.posted] == [snapshot.digest(content())] * 4
    assert len(plane.dials) == 1, "the stream is not ended over it"


def test_an_answer_that_is_refused_for_good_is_not_given_again(tmp_path) -> None:
    plane = ControlPlane(lambda _number: [offer(content(), 1)], answers=[409])

    async def run():
        async with dialling(plane, tmp_path):
            await until(lambda: plane.posted)
            await asyncio.sleep(0.2)

    asyncio.run(run())
    assert len(plane.posted) == 1


def test_of_two_answers_that_wait_the_newest_is_given(tmp_path) -> None:
    plane = ControlPlane(
        lambda _number: [offer(content(number), number) for number in (1, 2, 3)], answers=[503] * 2
    )

    async def run():
        async with dialling(plane, tmp_path):
            await until(lambda: any(each.position == {"files": 3} for each in plane.posted[2:]))

    asyncio.run(run())


def test_whoever_is_sent_away_comes_back_within_the_spread_and_without_a_complaint(tmp_path, caplog) -> None:
    caplog.set_level(logging.WARNING, "outrider")
    plane = ControlPlane(
        lambda number: [wire.encode(wire.GoAway(reason="bye", spread_ms=1000))] if number == 1 else []
    )

    async def run():
        async with dialling(plane, tmp_path, jitter=0.4):
            await until(lambda: len(plane.dials) == 2)

    asyncio.run(run())
    assert 0.35 < plane.dials[1] - plane.dials[0] < 2
    assert caplog.records == []


def test_a_stream_is_dialled_anew_when_it_is_old(tmp_path, caplog) -> None:
    caplog.set_level(logging.WARNING, "outrider")
    plane = ControlPlane(lambda _number: [wire.encode(wire.Ping())])

    async def run():
        async with dialling(plane, tmp_path, age_seconds=0.0):
            await until(lambda: len(plane.dials) == 3)

    asyncio.run(run())
    assert caplog.records == []


def test_three_missed_pings_are_the_end_of_a_stream(tmp_path) -> None:
    hello = wire.Hello(epoch=1, schema=snapshot.SCHEMA, heartbeat_seconds=0.4)
    plane = ControlPlane(lambda _number: [], hello=hello)

    async def run():
        async with dialling(plane, tmp_path):
            await until(lambda: len(plane.dials) == 2)

    asyncio.run(run())
    assert 1.1 < plane.dials[1] - plane.dials[0] < 3


def test_the_control_planes_sentence_is_in_the_log(tmp_path, caplog) -> None:
    caplog.set_level(logging.WARNING, "outrider")
    words = ["the token is bound to no pod", None, 5]

    def refused(number):
        said = {"error": words[number - 1]} if number <= 3 and words[number - 1] else "?"
        return web.json_response(said, status=401)

    plane = ControlPlane(refused)

    async def run():
        async with dialling(plane, tmp_path):
            await until(lambda: len(plane.dials) >= 3)

    asyncio.run(run())
    why = [record.fields["why"] for record in caplog.records]
    assert why[0] == "the control plane answered 401: the token is bound to no pod"
    assert why[1].endswith("it gives no reason in words")


def test_the_first_retry_is_quick_and_later_ones_spread_out(tmp_path) -> None:
    plane = ControlPlane(lambda _number: web.Response(status=503))

    async def run():
        async with dialling(plane, tmp_path, jitter=0.999):
            await until(lambda: len(plane.dials) == 5)

    asyncio.run(run())
    gaps = [later - earlier for earlier, later in zip(plane.dials, plane.dials[1:], strict=False)]
    assert 0.09 < gaps[0] < 0.3
    assert gaps[3] > 0.75


def test_it_says_what_it_is(tmp_path) -> None:
    plane = ControlPlane(lambda _number: [])

    async def run():
        async with dialling(plane, tmp_path):
            await until(lambda: plane.agents)

    asyncio.run(run())
    assert plane.agents[0].startswith("outrider-sidecar/")


def authority():
    return certificates.planned(certificates.Kept(), certificates.Wishes(("127.0.0.1",)), time.time())


def test_only_a_control_plane_that_our_authorities_vouch_for_is_listened_to(tmp_path) -> None:
    plane = ControlPlane(lambda _number: [offer(content(), 1)])
    kept, other = authority(), authority()

    async def run():
        async with dialling(plane, tmp_path, kept=kept) as (held, _):
            (tmp_path / "ca.pem").write_text(other.bundle)
            await asyncio.sleep(0.3)
            assert held.bound is None
            (tmp_path / "ca.pem").write_text(kept.bundle)
            await until(lambda: held.bound is not None)

    asyncio.run(run())
    assert plane.queries[0]["trust"] == wire.bundle_digest(kept.bundle)


def test_new_authorities_are_kept_confirmed_and_stated(tmp_path) -> None:
    kept, more = authority(), authority()
    bundle = kept.bundle + more.bundle
    plane = ControlPlane(
        lambda number: [
            wire.encode(wire.Trust(bundle=bundle)),
            wire.encode(wire.Trust(bundle="garbage")),
            *([wire.encode(wire.GoAway())] if number == 1 else []),
        ]
    )

    async def run():
        async with dialling(plane, tmp_path, kept=kept):
            await until(lambda: len(plane.dials) == 2 and plane.posted)

    asyncio.run(run())
    assert plane.posted[0] == wire.Trusted(digest=wire.bundle_digest(bundle))
    assert plane.queries[1]["trust"] == wire.bundle_digest(bundle)


def test_before_it_follows_nothing_is_posted(tmp_path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    dial = snapshots.Dial("http://127.0.0.1:9", tmp_path / "token", tmp_path)
    config = snapshots.Config(current.Current(), dial, changed=lambda _bound: None, jitter=lambda: 0.0)
    assert asyncio.run(config.post("/v1/config/report", b"{}"))[0] == 0
