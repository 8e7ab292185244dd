# SPDX-License-Identifier: Apache-2.0
"""The config stream when something changes underneath it: authorities, replicas, the API server, the age of a proxy."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tarfile

import pytest
from tests import laptop
from tests.kube import balancer, streams

from outrider import wire
from outrider_operator import keeper

ROOT = pathlib.Path(__file__).resolve().parents[2]
BEFORE = "e1f29f7"
"""The last commit whose proxy reads schema 1."""


@pytest.fixture
def secret(cluster):
    return streams.prepared(cluster)


async def _hurried(*replicas):
    """Has them look at the Secret more often than every ten seconds."""
    while True:
        for each in replicas:
            each.keeper.wake()
        await asyncio.sleep(0.5)


def _leaf(one):
    return one.keeper._kept.tls_cert


def _authority(cluster, secret):
    data = cluster.get("secret", secret[1], secret[0])["data"]
    return base64.b64decode(data["ca.crt"]).decode()


def test_a_new_authority_reaches_live_streams_and_ends_none(cluster, secret, tmp_path) -> None:
    made = [streams.pod(cluster) for _ in range(6)]

    async def work():
        async with streams.two(cluster, tmp_path, secret) as (first, second):
            for _, known in made:
                streams.let_in(known, first, second)
            old = first.keeper.bundle
            proxies = [
                streams.Proxy(tmp_path / known.name, one.url, streams.token(cluster, raw), old)
                for one, (raw, known) in zip(itertools.cycle((first, second)), made[:-1])
            ]
            await streams.until(lambda: len(streams.in_sync(first)) == 5, "all hold the configuration")
            before = {*first.publisher.streams, *second.publisher.streams}
            leaf = _leaf(first)
            annotations = {"metadata": {"annotations": {keeper.ROTATE_ANNOTATION: "now"}}}
            cluster.kubectl(
                "patch", "secret", secret[1], "-n", secret[0], "--type=merge", "-p", json.dumps(annotations)
            )
            hurrying = asyncio.create_task(_hurried(first, second))
            await streams.until(lambda: first.keeper.bundle != old, "there is a new authority")
            await streams.until(
                lambda: second.keeper.bundle == first.keeper.bundle, "the other replica has it", 15
            )
            digest = wire.bundle_digest(first.keeper.bundle)
            await streams.until(lambda: first.keeper.spread(digest), "every proxy says that it trusts it")
            await streams.until(
                lambda: _leaf(first) != leaf and _leaf(second) == _leaf(first), "it is served", 30
            )
            hurrying.cancel()
            first.source.say("after")
            second.source.say("after")
            await asyncio.gather(first.publisher.refresh(), second.publisher.refresh())
            await streams.until(
                lambda: all(each.title.startswith("after") for each in proxies), "streams live on"
            )
            assert {*first.publisher.streams, *second.publisher.streams} == before
            assert _authority(cluster, secret).encode() not in old.encode()

            # A pod made before, whose annotation knows the old authority alone, and one that starts anew.
            raw, known = made[-1]
            late = streams.Proxy(tmp_path / known.name, first.url, streams.token(cluster, raw), old)
            await proxies[0].leave()
            again = streams.Proxy(
                tmp_path / "again", first.url, streams.token(cluster, made[0][0]), first.keeper.bundle
            )
            await streams.until(lambda: late.title and again.title, "both are let in")
            for each in (*proxies, late, again):
                await each.leave()

    streams.running(work)


def test_a_replica_that_stops_hands_its_streams_over(cluster, secret, tmp_path) -> None:
    """Through a Service: the proxies find the other replica by themselves, and one short line is all they need."""
    made = [streams.pod(cluster) for _ in range(4)]
    service = balancer.Balancer().start()

    async def work():
        async with streams.two(cluster, tmp_path, secret) as (first, second):
            service.targets([("127.0.0.1", second.port)])
            for _, known in made:
                streams.let_in(known, first, second)
            url = f"https://127.0.0.1:{service.port}"
            proxies = [
                streams.Proxy(tmp_path / known.name, url, streams.token(cluster, raw), first.keeper.bundle)
                for raw, known in made
            ]
            await streams.until(lambda: len(streams.in_sync(first)) == 4, "all are at the second replica")
            service.targets([("127.0.0.1", first.port)])
            await second.publisher.drain(0.3)
            await streams.until(lambda: len(first.publisher.streams) == 4, "all are at the first")
            await streams.until(
                lambda: len(streams.in_sync(first)) == 4, "and are known to hold what is offered"
            )
            assert {each.replica for each in first.gathering.receipts().values()} == {"a"}
            assert [len(each.changes) for each in proxies] == [1] * 4, (
                "nobody was sent the configuration again"
            )
            for each in proxies:
                await each.leave()

    try:
        streams.running(work)
    finally:
        service.close()


def test_an_api_server_that_is_away_ends_no_stream(own_cluster, tmp_path) -> None:
    own_cluster.namespace(streams.SYSTEM)
    own_cluster.namespace(streams.AGENTS)
    own_cluster.service_account(streams.SYSTEM, "outrider")
    own_cluster.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "c", "namespace": streams.SYSTEM}}
    )
    raw, known = streams.pod(own_cluster)
    given, fresh = streams.token(own_cluster, raw), streams.token(own_cluster, raw)

    async def work():
        async with streams.two(own_cluster, tmp_path, (streams.SYSTEM, "c"), review_seconds=1.0) as (
            first,
            _,
        ):
            streams.let_in(known, first)
            proxy = streams.Proxy(tmp_path / "p", first.url, given, first.keeper.bundle)
            await streams.until(lambda: proxy.title, "it has a configuration")
            [stream] = first.publisher.streams
            await asyncio.to_thread(own_cluster.stop_api)
            await asyncio.sleep(2.5)  # two reviews
            assert list(first.publisher.streams) == [stream]
            first.source.say("while away")
            await first.publisher.refresh()
            await streams.until(lambda: proxy.title.startswith("while away"), "pushes go on")
            status, said = await streams.status_of(first, fresh)
            assert (status, "could not be asked" in said["error"]) == (503, True)
            await proxy.leave()

    streams.running(work)


def older(folder):
    """The proxy of the commit before, unpacked."""
    packed = subprocess.run(["git", "archive", BEFORE, "sidecar"], cwd=ROOT, capture_output=True, check=False)
    assert packed.returncode == 0, (
        f"commit {BEFORE} is needed (fetch the whole history): {packed.stderr.decode()}"
    )
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as opened:
        opened.extractall(folder, filter="data")
    return folder / "sidecar"


def test_the_proxy_of_the_release_before_is_served_what_it_can_read(cluster, secret, tmp_path) -> None:
    """Schema 1: it takes, acknowledges and keeps; what it cannot express it denies, and status can say so."""
    raw, known = streams.pod(cluster)
    source = older(tmp_path / "before")

    async def work():
        async with streams.two(cluster, tmp_path, secret) as (first, _):
            streams.let_in(known, first)
            (tmp_path / "token").write_text(streams.token(cluster, raw))
            (tmp_path / "ca.pem").write_text(first.keeper.bundle)
            line = [
                sys.executable, "-m", "outrider_sidecar.main", "--operator", first.url, "--token-file", tmp_path / "token",
                "--state", tmp_path / "state", "--port", "0", "--admin-port", "0", "--address-file", tmp_path / "address",
            ]  # fmt: skip
            env = {**os.environ, "PYTHONPATH": str(source), "SSL_CERT_FILE": str(tmp_path / "ca.pem")}
            process = laptop.Process("older", line, logs=tmp_path / "logs", env=env)
            try:
                await streams.until(lambda: len(streams.in_sync(first)) == 1, "it acknowledges")
                [receipt] = first.gathering.receipts().values()
                assert (receipt.schema, receipt.unexpressed) == (1, ())
                assert (tmp_path / "state" / "last-good.json").exists()
                first.publisher.trust(first.keeper.bundle)  # which it would not understand
                first.source.say("with a service", service=True)
                await first.publisher.refresh()
                await streams.until(
                    lambda: streams.in_sync(first) and streams.in_sync(first)[0].unexpressed,
                    "it acknowledges that too",
                )
                [receipt] = streams.in_sync(first)
                assert receipt.unexpressed == ("MCPServer crm/salesforce",)
                kept = json.loads((tmp_path / "state" / "last-good.json").read_bytes())
                effects = [rule["effect"] for rule in kept["content"]["servers"][0]["rules"]]
                assert effects == ["Allow", "Deny"]
                await first.publisher.drain()
                await streams.until(lambda: not first.publisher.streams, "it leaves when sent away")
                assert process.ended is None
            finally:
                process.stop()

    streams.running(work)
