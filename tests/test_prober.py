# SPDX-License-Identifier: Apache-2.0
"""The prober as a process: over the operator's real stream, against real MCP servers, into the operator's catalogue."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web
from tests.servers import mcp, stages

from outrider import fingerprints, identity, names, snapshot
from outrider_operator import laptop, observations, reviewer, sightings, streaming

PROXY = pathlib.Path(sys.executable).parent / "outrider-sidecar"
PROBER = identity.Workload(namespace="outrider-system", service_account="outrider-prober")
LOOPBACK = snapshot.Network(loopback=True)


def crm(name: str) -> names.ServerId:
    return names.ServerId("crm", name)


class Site:
    """An operator's stream and store, and one prober; servers are what the test says."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.store = sightings.Sightings(lambda server: True)
        self.desk = laptop.Laptop(laptop.Counter(folder / "position.json"))
        self.reports = 0

    def publish(self, *peers: tuple[str, str], probing: bool = True) -> None:
        views = tuple(
            snapshot.ServerView(id=crm(name), generation=1, endpoint=snapshot.Endpoint(url=url))
            for name, url in sorted(peers)
        )
        made = snapshot.Snapshot(epoch=1, workload=PROBER, servers=views, network=LOOPBACK, probing=probing)
        self.desk.publish(made, ())

    def report(self, principal: reviewer.Principal, body: bytes) -> bytes:
        self.reports += 1
        who = sightings.Reporter("uid", f"{principal.namespace}/prober", prober=True)
        return self.store.received(who, body, now=time.time())

    def seen(self, name: str) -> observations.Observation:
        return self.store.seen().get(crm(name), observations.Observation())

    async def until(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def operating(site: Site) -> AsyncIterator[str]:
    reviewer.ensure(site.folder / "token")
    app = streaming.application(
        site.desk.publisher, reviewer.FileReviewer(site.folder / "token"), on_report=site.report
    )
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await site.desk.publisher.drain()
        await runner.cleanup()


@contextlib.asynccontextmanager
async def probing(site: Site, url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    state = site.folder / "state"
    line = [
        str(PROXY), "--role", "prober", "--operator", url, "--token-file", str(site.folder / "token"), "--state", str(state),
        "--admin-port", "0", "--address-file", str(site.folder / "address"),
    ]  # fmt: skip
    process = await asyncio.create_subprocess_exec(*line, stderr=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        _, said = await process.communicate()
        print(said.decode())


def run(
    folder: pathlib.Path, scenario: Callable[[Site, asyncio.subprocess.Process], Awaitable[None]]
) -> None:
    async def whole() -> None:
        site = Site(folder)
        async with operating(site) as url, probing(site, url) as process:
            await scenario(site, process)

    asyncio.run(whole())


def status(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_every_server_is_listed_and_what_it_says_is_in_the_catalogue(tmp_path: pathlib.Path) -> None:
    async def scenario(site: Site, process: asyncio.subprocess.Process) -> None:
        query = mcp.a_tool("query", description="Reads")
        modern, old = (
            mcp.Peer(tools=[query, mcp.a_tool("b"), {"name": "with space"}]),
            mcp.Peer("legacy", page=3),
        )
        async with mcp.serving(modern), mcp.serving(old):
            site.publish(("modern", modern.url), ("old", old.url), ("away", "http://127.0.0.1:9/mcp"))
            await site.until(lambda: len(site.store.seen()) == 3)
            found = site.seen("modern")
            assert (found.reachable, found.protocol_versions) == (True, (mcp.MODERN,))
            assert dict(found.tools)["query"] == fingerprints.of(json.dumps(query).encode())
            assert [name for name, _ in found.tools] == ["b", "query"]
            other = site.seen("old")
            assert [name for name, _ in other.tools] == sorted(mcp.BEHAVIOURS)
            assert (other.server_info, other.protocol_versions) == (
                {"name": "p", "version": "1"},
                (mcp.LEGACY,),
            )
            assert site.seen("away").reachable is False
            assert "refuses connections" in site.seen("away").message
            await site.until(lambda: not old.sessions)
            assert not modern.calls
            assert not old.calls

    run(tmp_path, scenario)


def test_prompts_resources_and_instructions_are_in_the_catalogue_and_what_cannot_be_listed_costs_no_tools(
    tmp_path: pathlib.Path,
) -> None:
    async def act(line: mcp.Line, heard: stages.Heard) -> bool:
        if heard.method == "server/discover":
            made = stages.answer(stages.Stage(), heard)
            made["result"]["instructions"] = "Use greet first."
            await line.json(made)
        elif heard.method == "prompts/list" and "broken" in heard.target:
            await line.json(stages.error(heard, -32603, "boom"))
        else:
            return False
        return True

    async def scenario(site: Site, process: asyncio.subprocess.Process) -> None:
        prompts = [stages.prompt("greet", title="é"), stages.prompt("say hello")]
        resources = [stages.resource("file:///a"), stages.resource("file:///b")]
        stage = stages.Stage(
            "modern", tools=[stages.tool("t")], prompts=prompts, resources=resources, page=1, act=act
        )
        async with stages.playing(stage):
            site.publish(("whole", stage.url), ("broken", f"{stage.url}/broken"))
            await site.until(lambda: len(site.store.seen()) == 2)
            found, broken = site.seen("whole"), site.seen("broken")
            assert dict(found.prompts) == {
                each["name"]: fingerprints.of(json.dumps(each).encode()) for each in prompts
            }
            assert found.instructions == fingerprints.of_text("Use greet first.")
            assert (broken.reachable, broken.prompts) == (True, ())
            assert [name for name, _ in found.tools] == [name for name, _ in broken.tools] == ["t"]
            assert (found.resource_count, found.template_count) == (2, 0)
            assert found.resources.startswith("sha256:")
            assert broken.resources == found.resources

    run(tmp_path, scenario)


def test_a_server_that_appears_moves_or_changes_is_seen_soon(tmp_path: pathlib.Path) -> None:
    async def scenario(site: Site, process: asyncio.subprocess.Process) -> None:
        one, two = mcp.Peer(tools=[mcp.a_tool("one")]), mcp.Peer(tools=[mcp.a_tool("two")])
        async with mcp.serving(one), mcp.serving(two):
            site.publish(("s", one.url))
            await site.until(lambda: site.seen("s").tools != ())
            listed = len(one.of("tools/list"))
            site.publish(("s", one.url), ("t", two.url))
            await site.until(lambda: site.seen("t").tools != ())
            assert len(one.of("tools/list")) == listed, "what did not change is not asked again at once"
            site.publish(("s", two.url), ("t", two.url))
            await site.until(lambda: [name for name, _ in site.seen("s").tools] == ["two"])

    run(tmp_path, scenario)


def test_a_server_that_comes_back_is_reachable_again_within_seconds(tmp_path: pathlib.Path) -> None:
    async def scenario(site: Site, process: asyncio.subprocess.Process) -> None:
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            port = reserved.getsockname()[1]
        site.publish(("s", f"http://127.0.0.1:{port}/mcp"))
        await site.until(lambda: site.seen("s").reachable is False)
        async with mcp.serving(mcp.Peer(port=port)):
            await site.until(lambda: site.seen("s").reachable is True)

    run(tmp_path, scenario)


def test_it_has_no_door_is_ready_with_a_configuration_and_ends_in_order(tmp_path: pathlib.Path) -> None:
    async def scenario(site: Site, process: asyncio.subprocess.Process) -> None:
        await site.until((tmp_path / "address").exists)
        ports = json.loads((tmp_path / "address").read_text())
        assert set(ports) == {"adminPort"}
        assert await asyncio.to_thread(status, ports["adminPort"], "/healthz") == 200
        assert await asyncio.to_thread(status, ports["adminPort"], "/readyz") == 503
        site.publish()
        for _ in range(200):
            if await asyncio.to_thread(status, ports["adminPort"], "/readyz") == 200:
                break
            await asyncio.sleep(0.05)
        assert await asyncio.to_thread(status, ports["adminPort"], "/readyz") == 200
        assert await asyncio.to_thread(status, ports["adminPort"], "/metrics") == 200
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await process.wait() == 0
        assert not (tmp_path / "state" / "journal").exists(), "nothing is called, so nothing is recorded"

    run(tmp_path, scenario)


def test_an_operator_that_starts_anew_learns_everything_again(tmp_path: pathlib.Path) -> None:
    async def scenario(site: Site, process: asyncio.subprocess.Process) -> None:
        async with mcp.serving(mcp.Peer()) as peer:
            site.publish(("s", peer.url))
            await site.until(lambda: site.seen("s").tools != ())
            listed = len(peer.of("tools/list"))
            site.store = sightings.Sightings(lambda server: True)
            await site.desk.publisher.drain()
            site.desk.publisher.draining = False
            await site.until(lambda: site.seen("s").tools != ())
            assert len(peer.of("tools/list")) == listed

    run(tmp_path, scenario)


def test_an_identity_that_is_not_the_probers_lists_nothing_and_says_so(tmp_path: pathlib.Path) -> None:
    async def scenario(site: Site, process: asyncio.subprocess.Process) -> None:
        async with mcp.serving(mcp.Peer()) as peer:
            site.publish(("s", peer.url), probing=False)
            assert process.stderr is not None
            async with asyncio.timeout(20):
                while b"not the prober's" not in await process.stderr.readline():
                    pass
            await site.until(lambda: site.seen("s").reachable is False)
            assert peer.seen == []

    run(tmp_path, scenario)


def test_servers_that_hang_do_not_hide_one_that_answers(tmp_path: pathlib.Path) -> None:
    async def scenario(site: Site, process: asyncio.subprocess.Process) -> None:
        hanging, well = mcp.Peer(mute=True), mcp.Peer()
        async with mcp.serving(hanging), mcp.serving(well):
            site.publish(
                *((f"h{number:02}", f"{hanging.url}/{number}") for number in range(20)), ("well", well.url)
            )
            await site.until(lambda: site.seen("well").tools != (), seconds=15)

    run(tmp_path, scenario)
