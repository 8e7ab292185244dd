# SPDX-License-Identifier: Apache-2.0
"""A replica's book on its way to the holder of the Lease, over real TLS; the API server's part is tested in tests/kube/test_stream.py."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time

import aiohttp
import msgspec
import pytest
from aiohttp import web

from outrider_operator import certificates, cluster, pods, receipts, replicas, reviewer

NAME = "outrider.outrider-system.svc"
OWN = "system:serviceaccount:outrider-system:outrider"
WHO = reviewer.Principal("agents", "bot", "bot-1", "uid-1")
PEOPLE = {"ours": reviewer.Caller(OWN), "jane": reviewer.Caller("jane", ("dev",))}


class Replica:
    """One of them, over TLS on a port of its own."""

    def __init__(self, name, folder):
        self.name, self.folder, self.port = name, folder, 0
        self.leading, self.holder, self.allowed = False, "", True
        self.merged, self.carried, self.known, self.troubles = [], b'{"seen":1}', {}, {}
        self.token_file = folder / f"{name}-token"
        self.token_file.write_text("ours\n")
        self.gathering = receipts.Gathering(receipts.Book(), replica=name)
        self.subject = replicas.Replicas(
            self.gathering,
            replicas.Peers(
                leading=lambda: self.leading, holder=lambda: self.holder, context=lambda: self.trusted,
                server_name=NAME, token_file=self.token_file,
            ),
            replicas.Callers(caller=self.caller, own=OWN, may=self.may),
            known=lambda: self.known,
            carried=replicas.Carried(lambda _known: (self.carried, 0), lambda *given: self.merged.append(given)),
            troubles=lambda: self.troubles,
        )  # fmt: skip

    async def caller(self, token):
        return PEOPLE.get(token, reviewer.Refused("nobody"))

    async def may(self, caller, namespace):
        if isinstance(self.allowed, Exception):
            raise self.allowed
        return self.allowed and (caller.username, namespace) != ("jane", "secret")

    async def asked(self, method, path, token="jane", **more):
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                method, f"https://127.0.0.1:{self.port}{path}", headers=headers, ssl=self.trusted, server_hostname=NAME, **more
            ) as answer,
        ):  # fmt: skip
            return answer.status, await answer.json()


@contextlib.asynccontextmanager
async def two(folder):
    """The first leads and the second knows it."""
    kept = certificates.planned(certificates.Kept(), certificates.Wishes((NAME,)), time.time())
    (folder / "crt").write_bytes(kept.tls_cert)
    (folder / "key").write_bytes(kept.tls_key)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(folder / "crt", folder / "key")
    both = [Replica(name, folder) for name in "ab"]
    async with contextlib.AsyncExitStack() as stack:
        for one in both:
            one.trusted = ssl.create_default_context(cadata=kept.bundle)
            app = web.Application()
            for path, door in one.subject.doors.items():
                app.router.add_route("*", path, door)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=served).start()
            one.port = runner.addresses[0][1]
        first, second = both
        first.leading = True
        first.holder = second.holder = f"127.0.0.1:{first.port}"
        for one in both:
            running = asyncio.create_task(one.subject.run())
            stack.callback(running.cancel)
        yield first, second


def acknowledged(one, who=WHO):
    one.gathering.own.opened(who, 2, "0.1.0", "")
    one.gathering.own.offered(who, "a" * 64, {"servers": 1}, ())
    one.gathering.own.answered(who, "a" * 64, {"servers": 1}, None)


async def until(condition, seconds=10.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def test_a_book_and_what_travels_with_it_arrive_soon_and_a_change_within_about_a_second(tmp_path) -> None:
    async def run():
        async with two(tmp_path) as (first, second):
            acknowledged(second)
            await until(first.gathering.receipts)
            other = reviewer.Principal("agents", "bot", "bot-2", "uid-2")
            acknowledged(second, other)
            started = time.monotonic()
            await until(lambda: len(first.gathering.receipts()) == 2)
            return time.monotonic() - started, first.merged[0], first.gathering.receipts()["uid-1"].replica

    seconds, merged, replica = asyncio.run(run())
    assert seconds < 2.5
    assert (merged, replica) == (("b", b'{"seen":1}'), "b")


def test_what_did_not_change_is_not_sent_every_second(tmp_path) -> None:
    async def run():
        async with two(tmp_path) as (first, second):
            await until(lambda: first.merged)
            for _ in range(20):
                await second.subject.send()
            await asyncio.sleep(0.1)
            return len(first.merged)

    assert asyncio.run(run()) == 1


def test_a_holder_that_is_not_reached_is_said_once_and_tried_again(tmp_path, caplog) -> None:
    caplog.set_level(logging.WARNING, "outrider.operator")

    async def run():
        async with two(tmp_path) as (first, second):
            reached, second.holder = second.holder, "127.0.0.1:1"
            acknowledged(second)
            await until(lambda: caplog.records)
            await second.subject.send()
            second.holder = reached
            await until(first.gathering.receipts)
            second.token_file.unlink()
            acknowledged(second)
            await second.subject.send()

    asyncio.run(run())
    said = [record.fields["why"] for record in caplog.records if record.message == "receipts not delivered"]
    assert len(said) == 2
    assert "connection refused" in said[0]
    assert "no such file" in said[1]


def test_only_our_own_replicas_bring_books_and_only_to_the_holder(tmp_path) -> None:
    summary = msgspec.json.encode(replicas.Summary("z", []))

    async def run():
        async with two(tmp_path) as (first, second):
            path = replicas.RECEIPTS_PATH
            found = [
                await first.asked("POST", path, data=summary),
                await first.asked("POST", path, "nobody", data=summary),
                await second.asked("POST", path, "ours", data=summary),
                await first.asked("POST", path, "ours", data=b'{"replica":5}'),
                await first.asked("DELETE", path, "ours"),
                await first.asked("POST", path, "ours", data=summary),
            ]
            for number in range(20):
                many = msgspec.json.encode(replicas.Summary(f"z{number}", []))
                last = await first.asked("POST", path, "ours", data=many)
            return [*(status for status, _ in found), last[0]], found[0][1]

    statuses, said = asyncio.run(run())
    assert statuses == [403, 401, 409, 400, 405, 200, 429]
    assert said == {"error": f"this is for {OWN}, and you are jane"}


def test_every_replica_shows_every_proxy_and_says_when_it_cannot(tmp_path) -> None:
    async def run():
        async with two(tmp_path) as (first, second):
            first.known = {
                "uid-1": pods.Pod("uid-1", "agents", "bot-1", "bot", "Running", "image:1", "node-1")
            }
            acknowledged(first)
            whole = await second.asked("GET", replicas.STATUS_PATH)
            second.holder = "127.0.0.1:1"
            part = await second.asked("GET", replicas.STATUS_PATH)
            second.holder = ""
            alone = await second.asked("GET", replicas.STATUS_PATH)
            return whole, part, alone

    (status, whole), (_, part), (_, alone) = asyncio.run(run())
    assert (status, whole["replica"], whole["complete"]) == (200, "b", True)
    [row] = whole["sidecars"]
    assert row.pop("since").endswith("Z")
    assert row == {
        "namespace": "agents", "pod": "bot-1", "uid": "uid-1", "serviceAccount": "bot", "node": "node-1", "phase": "Running",
        "image": "image:1", "version": "0.1.0", "schema": 2, "connected": True, "replica": "a", "offered": "a" * 64,
        "acked": "a" * 64, "inSync": True, "refusal": None, "unexpressed": [], "troubles": [],
    }  # fmt: skip
    assert (part["complete"], "was not reached" in part["why"], part["sidecars"]) == (False, True, [])
    assert alone["why"] == "no replica holds the Lease"


def test_what_is_amiss_with_a_pods_credentials_is_in_its_row(tmp_path) -> None:
    async def run():
        async with two(tmp_path) as (first, second):
            first.troubles = {"uid-1": [{"server": "crm/salesforce", "credential": "token"}], "uid-9": [{}]}
            acknowledged(first)
            return (await second.asked("GET", replicas.STATUS_PATH))[1]["sidecars"]

    [row] = asyncio.run(run())
    assert row["troubles"] == [{"server": "crm/salesforce", "credential": "token"}]


def test_a_holder_that_has_just_taken_over_says_so(tmp_path) -> None:
    async def run():
        async with two(tmp_path) as (first, _):
            first.gathering.begin()
            return await first.asked("GET", replicas.STATUS_PATH)

    assert "just taken over" in asyncio.run(run())[1]["why"]


@pytest.mark.parametrize(
    ("allowed", "query", "status", "words"),
    [
        (False, "", 403, "outrider-view"), (True, "?namespace=secret", 403, "in namespace secret"),
        (cluster.ClusterError(0, "NoAnswer", "gone"), "", 503, "could not be asked"), (True, "?namespace=agents", 200, ""),
    ],
)  # fmt: skip
def test_who_may_see_it_is_the_api_servers_to_say(tmp_path, allowed, query, status, words) -> None:
    async def run():
        async with two(tmp_path) as (first, _):
            first.allowed = allowed
            acknowledged(first)
            acknowledged(first, reviewer.Principal("secret", "bot", "bot-9", "uid-9"))
            return await first.asked("GET", replicas.STATUS_PATH + query)

    found, body = asyncio.run(run())
    assert (found, words in body.get("error", "")) == (status, True)
    if status == 200:
        assert [row["namespace"] for row in body["sidecars"]] == ["agents"]


def test_status_is_read_only(tmp_path) -> None:
    async def run():
        async with two(tmp_path) as (first, _):
            return [
                await first.asked("POST", replicas.STATUS_PATH),
                await first.asked("GET", replicas.STATUS_PATH, "nobody"),
            ]

    assert [status for status, _ in asyncio.run(run())] == [405, 401]
