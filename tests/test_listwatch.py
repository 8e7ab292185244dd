# SPDX-License-Identifier: Apache-2.0
"""List and watch against an API server in trouble, and at a real one: pages, expiry, garbage, silence, half lines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from tests.kube import fakeapi

from outrider_operator import access, collection, listwatch

THINGS = listwatch.Watched("example.com", "v1", "things")


def with_fake(main: Callable[[fakeapi.FakeApi, listwatch.Source], Awaitable[Any]]) -> Any:
    async def whole() -> Any:
        async with fakeapi.serving() as (fake, given), given.session() as session:
            return await main(fake, listwatch.Source(given, session, THINGS))

    return asyncio.run(asyncio.wait_for(whole(), 30))


async def listed(source: listwatch.Source) -> tuple[list[str], int]:
    found, version = await source.listed(collection.Collection())
    return sorted(name for _, name in found), version


def answers(*each: web.Response | Callable[[], web.Response]):
    """A script that gives these answers, one after another, and none afterwards."""
    left = list(each)

    async def script(_request: web.Request) -> web.StreamResponse | None:
        if not left:
            return None
        made = left.pop(0)
        return made() if callable(made) else made

    return script


def page(version: int, following: str, *names: str, **more: Any) -> web.Response:
    metadata = {"resourceVersion": str(version), "continue": following}
    return web.json_response(
        {"metadata": metadata, "items": [fakeapi.thing(name, 1, **more) for name in names]}
    )


# Lists ----------------------------------------------------------------------------------------------------------------


def test_a_list_is_read_page_by_page():
    async def main(fake, source):
        fake.script = answers(page(7, "next", "a", "b"), page(7, "", "c"))
        assert await listed(source) == (["a", "b", "c"], 7)
        first, second = (dict(request.query) for request in fake.requests)
        assert first == {"limit": "500"}
        assert second == {"limit": "500", "continue": "next"}

    with_fake(main)


def test_a_list_that_expires_while_it_is_read_begins_anew():
    async def main(fake, source):
        fake.script = answers(page(7, "next", "a"), fakeapi.status(410, "Expired"), page(9, "", "b"))
        assert await listed(source) == (["b"], 9)

    with_fake(main)


def test_a_list_that_keeps_expiring_is_given_up_for_now():
    async def main(fake, source):
        async def script(_request):
            return fakeapi.status(410, "Expired")

        fake.script = script
        with pytest.raises(listwatch.Refused, match="kept expiring"):
            await listed(source)
        assert len(fake.requests) == listwatch.LIST_RESTARTS_MAX

    with_fake(main)


def test_after_a_large_page_the_next_is_smaller(monkeypatch):
    monkeypatch.setattr(listwatch, "PAGE_BYTES", 1000)

    async def main(fake, source):
        fake.script = answers(page(7, "next", "a", text="x" * 2000), page(7, "", "b"))
        await listed(source)
        assert [request.query["limit"] for request in fake.requests] == ["500", "250"]

    with_fake(main)


def test_a_page_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(listwatch, "PAGE_BYTES_MAX", 1000)

    async def main(fake, source):
        fake.script = answers(page(7, "", "a", text="x" * 2000))
        with pytest.raises(listwatch.Refused, match="larger than 1000 bytes"):
            await listed(source)

    with_fake(main)


def test_more_objects_than_can_be_kept_are_refused_before_all_are_read(monkeypatch):
    monkeypatch.setattr(collection, "OBJECTS_MAX", 1)

    async def main(fake, source):
        fake.script = answers(page(7, "next", "a", "b"))
        with pytest.raises(collection.TooMany):
            await listed(source)
        assert len(fake.requests) == 1

    with_fake(main)


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (lambda: fakeapi.status(403, "Forbidden", "not you"), 403, "403 Forbidden: not you"),
        (
            lambda: web.Response(status=502, text="<html>bad gateway"),
            502,
            "502 Bad Gateway: <html>bad gateway",
        ),
        (lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}), 302, "302 Found"),
        (lambda: web.Response(text="not json"), 0, "not JSON"),
        (lambda: web.Response(body=b'"\xff"'), 0, "not JSON"),
        (lambda: web.json_response([1]), 0, "not an object"),
        (lambda: web.json_response({"items": []}), 0, "lacks or garbles"),
        (lambda: web.json_response({"metadata": {"resourceVersion": "abc"}}), 0, "lacks or garbles"),
        (
            lambda: web.json_response({"metadata": {"resourceVersion": "1"}, "items": [{}]}),
            0,
            "lacks or garbles",
        ),
        (
            lambda: web.json_response({"metadata": {"resourceVersion": "1"}, "items": [7]}),
            0,
            "lacks or garbles",
        ),
    ],
)
def test_what_is_no_list_is_refused_in_words(answer, code, words):
    async def main(fake, source):
        fake.script = answers(answer)
        with pytest.raises(listwatch.Refused) as caught:
            await listed(source)
        assert caught.value.status == code
        assert words in str(caught.value)

    with_fake(main)


def test_a_server_that_is_busy_says_when_to_come_back():
    async def main(fake, source):
        fake.script = answers(fakeapi.status(429, "TooManyRequests", **{"Retry-After": "7"}))
        with pytest.raises(listwatch.Refused) as caught:
            await listed(source)
        assert caught.value.retry_after == 7

    with_fake(main)


def test_a_server_that_does_not_answer_is_an_outage(monkeypatch):
    monkeypatch.setattr(listwatch, "PAGE_SECONDS_MAX", 0.2)

    async def main(fake, source):
        async def hang(_request):
            await asyncio.sleep(60)

        fake.script = hang
        with pytest.raises(listwatch.Refused, match="does not answer") as caught:
            await listed(source)
        assert caught.value.status == 0

    with_fake(main)


def test_one_object_is_looked_up_and_may_be_absent():
    async def main(fake, source):
        fake.put("a", 12)
        assert (await source.one(("crm", "a")))["metadata"]["resourceVersion"] == "12"
        assert await source.one(("crm", "b")) is None
        assert fake.requests[0].path == "/apis/example.com/v1/namespaces/crm/things/a"
        fake.script = answers(fakeapi.status(403, "Forbidden"))
        with pytest.raises(listwatch.Refused):
            await source.one(("crm", "a"))

    with_fake(main)


def test_paths_are_the_api_servers():
    settings = listwatch.Watched("", "v1", "configmaps", namespace="ns", field_selector="metadata.name=x")
    assert settings.path == "/api/v1/namespaces/ns/configmaps"
    assert settings.selectors == {"fieldSelector": "metadata.name=x"}
    assert (
        listwatch.Watched("", "v1", "namespaces").path_of(("", "a/b"), namespaced=False)
        == "/api/v1/namespaces/a%2Fb"
    )
    assert str(THINGS) == "things.example.com"
    assert str(settings) == "configmaps"


# Watches --------------------------------------------------------------------------------------------------------------


async def watched(fake, source, *, runs: int = 100) -> list[tuple[str, str]]:
    found = []
    async with source.watch(10, 300) as batches:
        async for events in batches:
            found += [(str(event.kind), event.object["metadata"].get("name", "")) for event in events]
            if len(found) >= runs:
                break
    return found


def line(kind: str, name: str, version: int = 11) -> bytes:
    return json.dumps({"type": kind, "object": fakeapi.thing(name, version)}).encode() + b"\n"


def test_events_arrive_however_they_are_cut():
    async def main(fake, source):
        whole = line("ADDED", "a") + line("MODIFIED", "b") + b"\n" + line("DELETED", "c")
        for start in range(0, len(whole), 37):
            fake.write(whole[start : start + 37])
        fake.tell("BOOKMARK", {"metadata": {"resourceVersion": "20"}})
        fake.end()
        assert await watched(fake, source) == [
            ("ADDED", "a"),
            ("MODIFIED", "b"),
            ("DELETED", "c"),
            ("BOOKMARK", ""),
        ]
        query = dict(fake.requests[0].query)
        assert query == {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": "10",
            "timeoutSeconds": "300",
        }

    with_fake(main)


def test_an_event_of_a_kind_that_is_not_known_is_passed_over():
    async def main(fake, source):
        fake.write(line("PONDERED", "a") + line("ADDED", "b"))
        fake.end()
        assert await watched(fake, source) == [("ADDED", "b")]

    with_fake(main)


@pytest.mark.parametrize(
    ("raw", "code", "words"),
    [
        (
            b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}\n',
            410,
            "too old",
        ),
        (b'{"type":"ERROR","object":{}}\n', 500, ""),
        (b"garbage\n", 0, "not JSON"),
        (b'{"type":"ADDED","object":{"metadata":{"resourceVersion":"1"}}}\n', 0, "lacks or garbles"),
        (b'{"type":"ADDED","object":{"metadata":{"name":"a"}}}\n', 0, "lacks or garbles"),
        (b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"x"}}}\n', 0, "lacks or garbles"),
    ],
)
def test_what_is_no_event_ends_a_watch_in_words(raw, code, words):
    async def main(fake, source):
        fake.write(raw)
        fake.end()
        with pytest.raises(listwatch.Refused) as caught:
            await watched(fake, source)
        assert caught.value.status == code
        assert caught.value.gone == (code == 410)
        assert words in str(caught.value)

    with_fake(main)


def test_an_event_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(listwatch, "LINE_BYTES_MAX", 1000)

    async def main(fake, source):
        fake.write(b"x" * 2000)
        with pytest.raises(listwatch.Refused, match="larger than 1000 bytes"):
            await watched(fake, source)

    with_fake(main)


def test_half_a_line_at_the_end_is_no_event():
    async def main(fake, source):
        fake.write(line("ADDED", "a") + line("DELETED", "b")[:-10])
        fake.end()
        assert await watched(fake, source) == [("ADDED", "a")]

    with_fake(main)


def test_a_watch_on_which_nothing_comes_is_noticed(monkeypatch):
    monkeypatch.setattr(listwatch, "SILENCE_SECONDS_MAX", 0.3)

    async def main(fake, source):
        fake.write(line("ADDED", "a"))
        with pytest.raises(listwatch.Silent, match=r"nothing was heard for 0\.3 s"):
            await watched(fake, source)

    with_fake(main)


# At a real API server -------------------------------------------------------------------------------------------------


def test_a_position_that_is_too_old_is_said_to_be_gone(own_cluster):
    """etcd has forgotten it, and so has the API server, which was restarted."""
    own_cluster.namespace("crm")
    for n in range(5):
        own_cluster.namespace("crm", turn=str(n))
    revision = own_cluster.get("namespace", "crm")["metadata"]["resourceVersion"]
    own_cluster.etcdctl("compact", revision)
    own_cluster.restart_api()

    async def main():
        given = access.load(own_cluster.kubeconfig)
        async with given.session() as session:
            source = listwatch.Source(given, session, listwatch.Watched("", "v1", "namespaces"))
            with pytest.raises(listwatch.Refused) as caught:
                await watched(None, source)
            assert caught.value.gone
            found, version = await source.listed(collection.Collection())
            assert ("", "crm") in found
            assert version >= int(revision)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_pages_of_a_real_api_server_make_one_list(cluster, monkeypatch):
    monkeypatch.setattr(listwatch, "PAGE_OBJECTS", 7)
    namespace = cluster.namespace("listwatch-test")
    about = {"apiVersion": "v1", "kind": "ConfigMap"}
    made = [{**about, "metadata": {"name": f"c-{n}", "namespace": namespace}} for n in range(30)]
    cluster.apply(*made)

    async def main():
        given = access.load(cluster.kubeconfig)
        async with given.session() as session:
            found, _ = await listwatch.Source(
                given, session, listwatch.Watched("", "v1", "configmaps", namespace=namespace)
            ).listed(collection.Collection())
            assert {name for _, name in found} == {f"c-{n}" for n in range(30)}

    asyncio.run(asyncio.wait_for(main(), 60))
