# SPDX-License-Identifier: Apache-2.0
"""The client's end of the config stream against a control plane that says exactly what the test wants, and restarts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web

from outrider import bind, snapshot, testing, wire
from outrider_sidecar import current, snapshots

TOKEN = "bootstrap-token"


def content(generation: int = 1, *, url: str = "http://127.0.0.1:9/mcp", **more: Any) -> bytes:
    view = testing.a_server(testing.allow(), url=url, title=f"generation {generation}")
    return snapshot.canonical(testing.a_snapshot(view, **more))


def offer(raw: bytes, at: int) -> bytes:
    message = wire.SnapshotOffer(version=snapshot.digest(raw), position={"files": at}, content=wire.raw(raw))
    return wire.encode(message)


class ControlPlane:
    """Sends what `say` is given to whoever is connected; keeps queries, tokens and acknowledgements."""

    def __init__(self) -> None:
        self.port = 0
        self.status = 200
        self.queries: list[dict[str, str]] = []
        self.acks: asyncio.Queue[wire.Ack] = asyncio.Queue()
        self.dialled: asyncio.Queue[None] = asyncio.Queue()
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()

    def say(self, *lines: bytes) -> None:
        for line in lines:
            self._lines.put_nowait(line)

    def hang_up(self) -> None:
        self._lines.put_nowait(None)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        self.queries.append(dict(request.query))
        self.dialled.put_nowait(None)
        if self.status != 200:
            return web.Response(status=self.status)
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(wire.encode(wire.Hello(epoch=1, schema=snapshot.SCHEMA)))
        while (line := await self._lines.get()) is not None:
            await response.write(line)
        return response

    async def acknowledged(self, request: web.Request) -> web.Response:
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        message = wire.decode(await request.read())
        assert isinstance(message, wire.Ack)
        self.acks.put_nowait(message)
        return web.Response()

    async def ack(self) -> wire.Ack:
        async with asyncio.timeout(10):
            return await self.acks.get()


class Proxy:
    """What main makes of it."""

    def __init__(self, folder: pathlib.Path, port: int) -> None:
        (folder / "token").write_text(f"{TOKEN}\n")
        self.folder = folder
        self.current = current.Current()
        self.changes: list[bind.Bound] = []
        self.prepared: list[tuple[snapshot.Snapshot, bind.Bound | None]] = []
        self.lacking = ""
        dial = snapshots.Dial(f"http://127.0.0.1:{port}", folder / "token", folder)
        self.config = snapshots.Config(
            self.current, dial, changed=self.changes.append, jitter=lambda: 0.05, prepare=self.prepare
        )

    async def prepare(self, fresh: snapshot.Snapshot) -> None:
        self.prepared.append((fresh, self.current.bound))
        await asyncio.sleep(0)
        if self.lacking:
            raise ImportError(name=self.lacking)

    @property
    def title(self) -> str:
        assert self.current.bound is not None
        return self.current.bound.snapshot.servers[0].title


@contextlib.asynccontextmanager
async def control_plane() -> AsyncIterator[ControlPlane]:
    made = ControlPlane()
    app = web.Application()
    app.router.add_get("/v1/config/stream", made.stream)
    app.router.add_post("/v1/config/ack", made.acknowledged)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.port = runner.addresses[0][1]
    try:
        yield made
    finally:
        await runner.cleanup()


def run(scenario: Callable[[Proxy, ControlPlane], Awaitable[None]], *, prepare: bytes | None = None) -> None:
    async def main() -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            async with control_plane() as plane:
                proxy = Proxy(folder, plane.port)
                if prepare is not None:
                    (folder / "last-good.json").write_bytes(prepare)
                await proxy.config.restore()
                following = asyncio.create_task(proxy.config.follow())
                try:
                    await scenario(proxy, plane)
                    assert not following.done()
                finally:
                    following.cancel()
                    await asyncio.gather(following, return_exceptions=True)

    asyncio.run(asyncio.wait_for(main(), 30))


def kept(raw: bytes, at: int = 1, *, version: str = "") -> bytes:
    return (
        json.dumps({"version": version or snapshot.digest(raw), "position": {"files": at}}).encode()[:-1]
        + b',"content":%b}' % raw
    )


def test_a_configuration_is_in_force_acknowledged_and_kept() -> None:
    async def scenario(proxy: Proxy, plane: ControlPlane) -> None:
        raw = content()
        plane.say(offer(raw, 1))
        ack = await plane.ack()
        assert (ack.ok, ack.version, ack.position, ack.error) == (
            True,
            snapshot.digest(raw),
            {"files": 1},
            "",
        )
        assert proxy.title == "generation 1"
        assert [each.digest for each in proxy.changes] == [snapshot.digest(raw)]
        file = proxy.folder / "last-good.json"
        assert json.loads(file.read_bytes()) == json.loads(kept(raw))
        assert file.stat().st_mode & 0o777 == 0o600
        plane.say(offer(content(2), 2))
        assert (await plane.ack()).ok
        assert proxy.title == "generation 2"

    run(scenario)


def broken(change: Callable[[dict[str, Any]], None]) -> bytes:
    value = json.loads(content(2))
    change(value)
    return msgspec.json.encode(value, order="deterministic")


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda value: value.update(surprise=1), ""),
        (lambda value: value["servers"][0].update(allowEverything=True), "$.servers[0]"),
        (lambda value: value["servers"][0].update(lifecycle="Retired"), "$.servers[0].lifecycle"),
        (lambda value: value["servers"][0]["endpoint"].update(call_seconds="long"), "$.servers[0].endpoint.call_seconds"),
        (lambda value: value.update(schema=99), "$.schema"),
        (lambda value: value.pop("workload"), ""),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_with_its_path_and_the_old_one_stays(
    change: Callable[[dict[str, Any]], None], path: str
) -> None:
    async def scenario(proxy: Proxy, plane: ControlPlane) -> None:
        plane.say(offer(content(), 1))
        assert (await plane.ack()).ok
        before = (proxy.folder / "last-good.json").read_bytes()
        raw = broken(change)
        plane.say(offer(raw, 2))
        ack = await plane.ack()
        assert (ack.ok, ack.version, ack.path) == (False, snapshot.digest(raw), path)
        assert ack.error
        assert proxy.title == "generation 1"
        assert (proxy.folder / "last-good.json").read_bytes() == before
        plane.say(offer(content(3), 3))  # the stream lives on
        assert (await plane.ack()).ok
        assert proxy.title == "generation 3"

    run(scenario)


def test_an_older_position_is_refused_and_the_old_one_stays() -> None:
    """N7; an equal one is not older, and another epoch starts over."""

    async def scenario(proxy: Proxy, plane: ControlPlane) -> None:
        for generation, at, epoch, ok in (
            (1, 7, 1, True),
            (2, 6, 1, False),
            (3, 7, 1, True),
            (4, 1, 2, True),
        ):
            raw = content(generation).replace(b'"epoch":1', b'"epoch":%d' % epoch)
            plane.say(offer(raw, at))
            ack = await plane.ack()
            assert ack.ok is ok, (generation, ack)
        assert proxy.title == "generation 4"
        assert [each.snapshot.servers[0].title[-1] for each in proxy.changes] == ["1", "3", "4"]

    run(scenario)


@pytest.mark.parametrize(
    "line",
    [
        b"garbage\n", b"{}\n", b"\n", b'{"type":"surprise"}\n', b'{"type":"ping","more":1}\n',
        offer(content(2), 2).replace(b"generation 2", b"generation 9"), b"[" * 100_000 + b"\n", b"\xff\n",
    ],
    ids=range(8),
)  # fmt: skip
def test_a_line_that_is_damaged_ends_the_stream_which_is_dialled_again(line: bytes) -> None:
    async def scenario(proxy: Proxy, plane: ControlPlane) -> None:
        plane.say(offer(content(), 1))
        assert (await plane.ack()).ok
        await plane.dialled.get()
        plane.say(line)
        await plane.dialled.get()
        plane.hang_up()  # the first connection's handler still waits for a line
        assert proxy.title == "generation 1"
        held = {
            "version": proxy.changes[0].digest,
            "position": '{"files": 1}',
            "epoch": "1",
            "schema": str(snapshot.SCHEMA),
            "deflate": "1",
        }
        assert plane.queries[-1] == held
        plane.say(offer(content(3), 3))
        assert (await plane.ack()).ok

    run(scenario)


@pytest.mark.parametrize("message", [wire.GoAway(reason="stopping"), wire.Behind()])
def test_a_control_plane_that_sends_us_away_is_left_and_dialled_again(message: wire.AnyMessage) -> None:
    async def scenario(proxy: Proxy, plane: ControlPlane) -> None:
        plane.say(offer(content(), 5))
        assert (await plane.ack()).ok
        await plane.dialled.get()
        plane.say(wire.encode(message))
        await plane.dialled.get()
        assert proxy.title == "generation 1"

    run(scenario)


def test_what_a_configuration_needs_is_there_before_it_is_in_force() -> None:
    async def scenario(proxy: Proxy, plane: ControlPlane) -> None:
        plane.say(offer(content(1), 1))
        assert (await plane.ack()).ok
        ((fresh, bound),) = proxy.prepared
        assert (fresh.servers[0].title, bound) == ("generation 1", None)

    run(scenario)


def test_a_configuration_that_needs_what_is_not_here_is_refused_and_the_old_one_stays() -> None:
    async def scenario(proxy: Proxy, plane: ControlPlane) -> None:
        plane.say(offer(content(1), 1))
        assert (await plane.ack()).ok
        proxy.lacking = "cryptography"
        plane.say(offer(content(2), 2))
        assert (await plane.ack()).error == "this proxy lacks what the configuration needs: cryptography"
        assert proxy.title == "generation 1"

    run(scenario)


def test_unchanged_moves_the_position_only_of_what_is_held() -> None:
    async def scenario(proxy: Proxy, plane: ControlPlane) -> None:
        raw = content()
        plane.say(offer(raw, 1))
        await plane.ack()
        plane.say(wire.encode(wire.Unchanged(version=snapshot.digest(raw), position={"files": 8})))
        plane.say(wire.encode(wire.Unchanged(version="0" * 64, position={"files": 2})))
        plane.say(offer(content(2), 5))
        assert not (await plane.ack()).ok
        plane.say(offer(content(2), 9))
        assert (await plane.ack()).ok

    run(scenario)


def test_a_restart_serves_the_last_good_one_without_a_control_plane() -> None:
    async def scenario(proxy: Proxy, plane: ControlPlane) -> None:
        assert proxy.title == "generation 1"
        assert len(proxy.changes) == 1
        await plane.dialled.get()
        assert plane.queries[0]["version"] == snapshot.digest(content())
        plane.say(offer(content(2), 3))
        assert not (await plane.ack()).ok  # N7 holds across restarts
        plane.say(offer(content(2), 5))
        assert (await plane.ack()).ok

    run(scenario, prepare=kept(content(), 4))


@pytest.mark.parametrize(
    "damaged",
    [
        b"", b"{}", kept(content())[:-20], kept(content(), version="0" * 64), kept(broken(lambda v: v.update(x=1))),
        kept(content()).replace(b"generation 1", b"generation 2"), b"\xff\xfe", b"[" * 100_000,
    ],
    ids=range(8),
)  # fmt: skip
def test_a_last_good_one_that_is_not_whole_is_not_served(damaged: bytes) -> None:
    async def scenario(proxy: Proxy, plane: ControlPlane) -> None:
        assert proxy.current.bound is None
        plane.say(offer(content(3), 1))
        assert (await plane.ack()).ok
        assert proxy.title == "generation 3"

    run(scenario, prepare=damaged)


def test_one_that_cannot_be_kept_is_in_force_and_acknowledged_all_the_same() -> None:
    async def scenario(proxy: Proxy, plane: ControlPlane) -> None:
        (proxy.folder / "last-good.new" / "in the way").mkdir(parents=True)
        plane.say(offer(content(), 1))
        assert (await plane.ack()).ok
        assert proxy.title == "generation 1"
        assert not (proxy.folder / "last-good.json").exists()
        assert len(plane.queries) == 1  # the stream was not lost over it

    run(scenario)


@pytest.mark.parametrize("token", [b"", b"\n", b"two\nlines", b"\xff\xfe", None])
def test_a_token_file_that_is_none_is_read_again_until_it_is_one(token: bytes | None) -> None:
    async def scenario(proxy: Proxy, plane: ControlPlane) -> None:
        await plane.dialled.get()
        file = proxy.folder / "token"
        file.unlink() if token is None else file.write_bytes(token)
        plane.hang_up()
        await asyncio.sleep(0.05)
        assert len(plane.queries) == 1
        file.write_text(TOKEN)
        await plane.dialled.get()

    run(scenario)


def test_a_control_plane_that_refuses_us_changes_nothing() -> None:
    async def scenario(proxy: Proxy, plane: ControlPlane) -> None:
        plane.status = 401
        plane.hang_up()
        for _ in range(3):
            await plane.dialled.get()
        assert proxy.title == "generation 1"
        plane.status = 200
        plane.say(offer(content(2), 9))
        assert (await plane.ack()).ok

    run(scenario, prepare=kept(content(), 4))


def test_what_was_observed_stays_unless_its_server_moved() -> None:
    async def scenario(proxy: Proxy, plane: ControlPlane) -> None:
        plane.say(offer(content(), 1))
        await plane.ack()
        proxy.current.observed(testing.CRM, testing.tools("query"))
        for generation, url, known in (
            (2, "http://127.0.0.1:9/mcp", True),
            (3, "http://127.0.0.1:10/mcp", False),
            (4, "http://127.0.0.1:10/mcp", False),
        ):
            plane.say(offer(content(generation, url=url), generation))
            assert (await plane.ack()).ok
            assert proxy.current.bound is not None
            assert (proxy.current.bound.servers[testing.CRM].targets is not None) is known

    run(scenario)
