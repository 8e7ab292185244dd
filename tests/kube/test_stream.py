# SPDX-License-Identifier: Apache-2.0
"""The config stream at a real API server: who is let in, who is told what, and how receipts come together."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from tests.kube import streams

from outrider import snapshot, wire
from outrider_operator import reviewer


@pytest.fixture
def secret(cluster):
    return streams.prepared(cluster)


def test_each_workload_is_told_its_own_and_a_change_is_in_force_everywhere(cluster, secret, tmp_path) -> None:
    made = [streams.pod(cluster), streams.pod(cluster, "cat")]

    async def work():
        async with streams.two(cluster, tmp_path, secret) as (first, second):
            for _, known in made:
                streams.let_in(known, first, second)
            proxies = [
                streams.Proxy(tmp_path / known.name, one.url, streams.token(cluster, raw), one.keeper.bundle)
                for one, (raw, known) in zip((first, second), made, strict=True)
            ]
            await streams.until(lambda: all(each.title for each in proxies), "both have a configuration")
            assert [each.title for each in proxies] == ["first for bot", "first for cat"]
            for one in (first, second):
                one.source.say("second")
                assert await one.publisher.refresh() == 1
            await streams.until(
                lambda: [each.title[:6] for each in proxies] == ["second"] * 2, "the change is in force"
            )

            def both():
                found = first.gathering.receipts()
                return len(found) == 2 and all(each.acked == each.offered != "" for each in found.values())

            await streams.until(both, "the holder has both receipts")
            assert {each.replica for each in first.gathering.receipts().values()} == {"a", "b"}
            for each in proxies:
                await each.leave()

    streams.running(work)


def test_only_a_token_that_is_bound_to_an_injected_pod_opens(cluster, secret, tmp_path) -> None:
    raw, known = streams.pod(cluster)
    stranger, _ = streams.pod(cluster)
    unbound = cluster.kubectl(
        "create", "token", "bot", "-n", streams.AGENTS, "--audience", reviewer.STREAM_AUDIENCE
    ).stdout.strip()
    cases = {
        "bound to no pod": unbound,
        "made for other audiences": streams.token(cluster, raw, reviewer.API_AUDIENCE),
        "not known here as injected": streams.token(cluster, stranger),
        "projected token": "garbage",
        "present a token": None,
        "made for other audiences ": cluster.token(streams.AGENTS, "bot", cluster.audience, pod=raw),
    }

    async def work():
        async with streams.two(cluster, tmp_path, secret) as (first, _):
            streams.let_in(known, first)
            for words, given in cases.items():
                status, said = await streams.status_of(first, given)
                assert (status, words.strip() in said["error"]) == (401, True), said
            assert (await streams.status_of(first, streams.token(cluster, raw)))[0] == 200

    streams.running(work)


def test_a_pod_that_is_gone_is_sent_away_and_not_let_in_again(cluster, secret, tmp_path) -> None:
    raw, known = streams.pod(cluster)
    given = streams.token(cluster, raw)

    async def work():
        async with streams.two(cluster, tmp_path, secret, review_seconds=1.0) as (first, _):
            streams.let_in(known, first)
            async with (
                aiohttp.ClientSession(headers={"Authorization": f"Bearer {given}"}) as session,
                session.get(
                    f"{first.url}/v1/config/stream?schema=2", ssl=first.keeper.client_context()
                ) as stream,
            ):
                assert isinstance(wire.decode(await stream.content.readline()), wire.Hello)
                await asyncio.to_thread(
                    cluster.kubectl,
                    "delete",
                    "pod",
                    known.name,
                    "-n",
                    streams.AGENTS,
                    "--grace-period=0",
                    "--force",
                )
                last = None
                async for line in stream.content:
                    last = wire.decode(line)
                assert isinstance(last, wire.GoAway)
                assert "its pod is gone" in last.reason
            assert (await streams.status_of(first, given))[0] == 401

    streams.running(work)


def test_who_takes_the_lease_knows_every_receipt_within_seconds(cluster, secret, tmp_path) -> None:
    made = [streams.pod(cluster) for _ in range(3)]

    async def work():
        async with streams.two(cluster, tmp_path, secret) as (first, second):
            for _, known in made:
                streams.let_in(known, first, second)
            proxies = [
                streams.Proxy(tmp_path / known.name, one.url, streams.token(cluster, raw), one.keeper.bundle)
                for one, (raw, known) in zip((first, second, second), made, strict=True)
            ]
            await streams.until(lambda: len(streams.in_sync(first)) == 3, "the holder counts three")
            first.holder = second.holder = second
            second.gathering.begin()
            assert second.gathering.settling
            await streams.until(
                lambda: len(streams.in_sync(second)) == 3, "the next holder counts three", 6.5
            )
            assert [row["inSync"] for row in (await streams.rows(first, cluster))["sidecars"]] == [True] * 3
            for each in proxies:
                await each.leave()

    streams.running(work)


def test_an_answer_that_the_service_takes_to_another_replica_counts(cluster, secret, tmp_path) -> None:
    raw, known = streams.pod(cluster)

    async def work():
        async with streams.two(cluster, tmp_path, secret) as (first, second):
            streams.let_in(known, first, second)
            headers = {"Authorization": f"Bearer {streams.token(cluster, raw)}"}
            trusted = first.keeper.client_context()
            async with (
                aiohttp.ClientSession(headers=headers) as session,
                session.get(f"{first.url}/v1/config/stream?schema=2", ssl=trusted) as stream,
            ):
                while not isinstance(
                    message := wire.decode(await stream.content.readline()), wire.SnapshotOffer
                ):
                    pass
                given = wire.Ack(version=message.version, position=dict(message.position), ok=True)
                async with session.post(
                    f"{second.url}/v1/config/ack", data=wire.encode(given), ssl=trusted
                ) as answer:
                    assert answer.status == 200
                await streams.until(
                    lambda: len(streams.in_sync(first)) == 1, "the holder joins stream and answer", 5
                )

    streams.running(work)


def test_status_is_for_whoever_may_see_it(cluster, secret, tmp_path) -> None:
    raw, known = streams.pod(cluster)
    _, never = streams.pod(cluster)
    cluster.service_account(streams.SYSTEM, "nobody")

    async def work():
        async with streams.two(cluster, tmp_path, secret) as (first, second):
            streams.let_in(known, first, second)
            streams.let_in(never, first, second)
            proxy = streams.Proxy(
                tmp_path / "p", second.url, streams.token(cluster, raw), second.keeper.bundle
            )
            await streams.until(lambda: len(streams.in_sync(first)) == 1, "the holder knows it")
            for one in (first, second):
                body = await streams.rows(one, cluster)
                assert (body["replica"], body["complete"], body["why"]) in (
                    ("a", False, "the replica that collects receipts has just taken over"), (one.name, True, ""),
                )  # fmt: skip
                rows = {row["pod"]: row for row in body["sidecars"]}
                assert rows[known.name]["inSync"] is True
                assert rows[known.name]["version"]
                assert (rows[never.name]["connected"], rows[never.name]["offered"]) == (False, None)
            refused = cluster.token(streams.SYSTEM, "nobody", reviewer.API_AUDIENCE)
            status, said = await streams.status_of(first, refused, "/v1/status")
            assert (status, "outrider-view" in said["error"]) == (403, True)
            status, said = await streams.status_of(first, refused, "/v1/receipts")
            assert (status, "system:serviceaccount:stream-system:outrider" in said["error"]) == (403, True)
            assert (await streams.status_of(first, streams.token(cluster, raw), "/v1/status"))[0] == 401
            await proxy.leave()

    streams.running(work)


def test_a_proxy_that_is_too_new_or_too_old_is_told_which_side_to_update(cluster, secret, tmp_path) -> None:
    raw, known = streams.pod(cluster)

    async def work():
        async with streams.two(cluster, tmp_path, secret) as (first, _):
            streams.let_in(known, first)
            given = streams.token(cluster, raw)
            for schema, side in ((str(snapshot.SCHEMA + 1), "operator"), ("0", "sidecar"), ("", "sidecar")):
                status, said = await streams.status_of(first, given, f"/v1/config/stream?schema={schema}")
                assert status == 400
                assert said["error"].endswith(
                    f"these are: {', '.join(map(str, snapshot.SCHEMAS))}; update the {side}"
                )

    streams.running(work)
