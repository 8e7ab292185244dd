# SPDX-License-Identifier: Apache-2.0
"""N7: an older configuration never replaces a newer one, and one that does not verify never replaces any (NACK)."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import shutil
import threading

import pytest
from aiohttp import web
from tests import laptop
from tests.scenarios import recorder

from outrider import snapshot

SERVER = "tools/recorder"


@pytest.fixture
def seen():
    with recorder.running() as found:
        yield found


def policy(*rules):
    return laptop.policy("outrider-system/p", SERVER, *rules)


@pytest.fixture
def home(tmp_path, seen):
    files = {"servers.yaml": laptop.server(SERVER, seen.url), "p.yaml": policy(laptop.allow("echo"))}
    with laptop.running(tmp_path, files) as made:
        yield made


def reason(home, tool="echo"):
    return laptop.reason(home.agent.call(SERVER, tool))


def put_in_force(home, *rules, wanted):
    home.write("p.yaml", policy(*rules))
    laptop.until(lambda: reason(home) == wanted, f"calls are {wanted or 'allowed'}")
    laptop.until(lambda: all(one["acked"] == one["offered"] for one in home.status()["sidecars"]), "ack")


def test_an_operator_restarted_with_an_older_state_does_not_bring_back_what_was_revoked(home):
    older = home.folder / "older"
    assert reason(home) == ""
    shutil.copytree(home.operator_state, older)
    put_in_force(home, laptop.deny("echo", message="Revoked."), laptop.allow("echo"), wanted="Denied")

    home.operator.kill()
    shutil.rmtree(home.operator_state)
    shutil.copytree(older, home.operator_state)
    home.write("p.yaml", policy(laptop.allow("echo")))
    home.start_operator()
    position = home.status()["position"]["files"]
    assert position == 1, "the operator is back at the older position"
    laptop.until(lambda: "knows less" in home.proxy.text(), "the proxy has met the older operator")
    assert reason(home) == "Denied"

    # The restarted proxy has it from disk and holds on to it too.
    home.proxy.kill()
    home.start_proxy()
    laptop.until(lambda: home.proxy.text().count("knows less") > 1, "the restarted proxy has met it too")
    assert reason(home) == "Denied"


class ControlPlane:
    """A control plane that says what a test wants, over real sockets; `acks` are the proxy's answers."""

    def __init__(self):
        self.port = 0
        self.acks = []
        self.dials = []
        self._lines = asyncio.Queue()
        self._loop = None
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self):
        self._thread.start()
        assert self._started.wait(laptop.PATIENCE_SECONDS)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def say(self, message):
        self._loop.call_soon_threadsafe(self._lines.put_nowait, json.dumps(message).encode() + b"\n")

    def answer_to(self, offer):
        before = len(self.acks)
        self.say(offer)
        laptop.until(lambda: len(self.acks) > before, "the proxy answers the offer")
        return self.acks[-1]

    async def _serve(self):
        self._loop = asyncio.get_running_loop()
        app = web.Application()
        app.router.add_get("/v1/config/stream", self._stream)
        app.router.add_post("/v1/config/ack", self._ack)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        self._started.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _stream(self, request):
        self.dials.append(dict(request.query))
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(await self._lines.get())

    async def _ack(self, request):
        self.acks.append(await request.json())
        return web.json_response({})


def offered(home):
    """What the real operator offers a proxy that knows nothing: hello, then a snapshot."""
    token = (home.operator_state / "operator-token").read_text().strip()
    connection = http.client.HTTPConnection("127.0.0.1", home.operator_port, timeout=10)
    connection.request(
        "GET", f"/v1/config/stream?schema={snapshot.SCHEMA}", headers={"Authorization": f"Bearer {token}"}
    )
    answer = connection.getresponse()
    hello, offer = json.loads(answer.readline()), json.loads(answer.readline())
    connection.close()
    return hello, offer


def changed(offer, *, position, change):
    """The offer with another content, and the version that this content has."""
    content = json.loads(json.dumps(offer["content"]))
    change(content)
    version = hashlib.sha256(canonical(content)).hexdigest()
    return {**offer, "content": content, "position": {"files": position}, "version": version}


def canonical(content):
    """As it stands in the line: `say` writes with the default separators, and the digest is over those bytes."""
    return json.dumps(content).encode()


@pytest.fixture
def plane(home):
    """The proxy of `home`, moved from the real operator to one of ours; it holds position 10."""
    hello, offer = offered(home)
    home.proxy.stop()
    shutil.rmtree(home.state)
    with ControlPlane() as made:
        home.operator_port = made.port
        made.say(hello)
        home.start_proxy(ready=False)
        made.offer = changed(offer, position=10, change=lambda content: None)
        assert made.answer_to(made.offer)["ok"] is True
        assert reason(home) == ""
        yield made


def revoke(content):
    [server] = content["servers"]
    server["rules"] = []


def test_an_older_position_of_the_same_epoch_is_refused_and_the_newer_configuration_stays(home, plane):
    ack = plane.answer_to(changed(plane.offer, position=9, change=revoke))
    assert (ack["ok"], ack["path"]) == (False, "position")
    assert "older" in ack["error"]
    assert reason(home) == ""
    assert plane.answer_to(changed(plane.offer, position=11, change=revoke))["ok"] is True
    assert home.agent.post(*home.agent.request(SERVER, "echo")).status == 404


def test_an_older_position_is_refused_after_a_restart_of_the_proxy_too(home, plane):
    laptop.until((home.state / "last-good.json").exists, "the configuration is kept")
    home.proxy.kill()
    home.start_proxy()
    laptop.until(lambda: len(plane.dials) == 2, "the proxy dials again")
    assert json.loads(plane.dials[-1]["position"]) == {"files": 10}
    ack = plane.answer_to(changed(plane.offer, position=9, change=revoke))
    assert (ack["ok"], ack["path"]) == (False, "position")
    assert reason(home) == ""


@pytest.mark.parametrize("kind", ["unknown field", "wrong type", "missing"])
def test_a_configuration_that_does_not_verify_is_refused_with_its_place_and_the_old_one_stays(
    home, plane, kind
):
    def change(content):
        [server] = content["servers"]
        if kind == "unknown field":
            server["endpoint"]["surprise"] = 1
        if kind == "wrong type":
            server["rules"] = "all"
        if kind == "missing":
            del server["id"]

    offer = changed(plane.offer, position=12, change=change)
    ack = plane.answer_to(offer)
    assert ack["ok"] is False
    assert ack["version"] == offer["version"]
    expected = {
        "unknown field": "$.servers[0].endpoint",
        "wrong type": "$.servers[0].rules",
        "missing": "$.servers[0]",
    }
    assert ack["path"] == expected[kind]
    assert ack["error"]
    assert reason(home) == ""
    assert home.is_ready()


@pytest.mark.parametrize("line", [b"\xff\xfe", b"[]", b'{"type":"nonsense"}', b"{" * 10_000])
def test_a_control_plane_that_talks_nonsense_is_dialled_again_and_changes_nothing(home, plane, line):
    dials = len(plane.dials)
    plane._loop.call_soon_threadsafe(plane._lines.put_nowait, line + b"\n")
    laptop.until(lambda: len(plane.dials) > dials, "the proxy dials again")
    assert reason(home) == ""
    assert home.proxy.ended is None


def test_bytes_that_are_not_what_their_version_says_are_not_used_and_asked_for_again(home, plane):
    dials = len(plane.dials)
    plane.say(changed(plane.offer, position=12, change=revoke) | {"version": "0" * 64})
    laptop.until(lambda: len(plane.dials) > dials, "the proxy dials again")
    assert json.loads(plane.dials[-1]["position"]) == {"files": 10}
    assert reason(home) == ""
