# SPDX-License-Identifier: Apache-2.0
"""Certificates in the one Secret of a real API server, served over real connections that outlive every change."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import ssl
import time

import pytest
from cryptography import x509

from outrider import wire
from outrider_operator import access, certificates, keeper
from outrider_operator import cluster as api

NAMES = ("outrider.outrider-system.svc", "localhost")
GARBAGE = base64.b64encode(b"garbage").decode()
_numbers = itertools.count()


@pytest.fixture
def secret(cluster):
    """An empty Secret, as the chart makes it."""
    namespace = cluster.namespace(f"keeper-{next(_numbers)}")
    made = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "outrider-certs", "namespace": namespace},
    }
    cluster.apply(made)
    return namespace, "outrider-certs"


def in_secret(cluster, secret):
    data = cluster.get("secret", secret[1], secret[0]).get("data") or {}
    return certificates.Kept.of({name: base64.b64decode(value) for name, value in data.items()})


def patched(cluster, secret, patch):
    cluster.kubectl("patch", "secret", secret[1], "-n", secret[0], "--type=merge", "-p", json.dumps(patch))


def with_replicas(cluster, secret, folder, work, *, count=2):
    """Runs `work(replicas)`; the first leads. Each has a client of its own."""

    async def main():
        clients = [api.Cluster(access.load(cluster.kubeconfig)) for _ in range(count)]
        replicas = []
        for number, client in enumerate(clients):
            made = keeper.Keeper(folder / str(number), names=NAMES, secrets=client, secret=secret)
            made.leading = (lambda: True) if number == 0 else (lambda: False)
            replicas.append(made)
        try:
            return await asyncio.wait_for(work(*replicas), 60)
        finally:
            for client in clients:
                client.close()

    return asyncio.run(main())


@contextlib.asynccontextmanager
async def served(one):
    """A TLS server that echoes lines; gives its port."""

    async def echo(reader, writer):
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=one.context())
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def dialled(port, bundle, name=NAMES[0]):
    context = ssl.create_default_context(cadata=bundle)
    return await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)


async def echoed(connection):
    reader, writer = connection
    writer.write(b"still there\n")
    return await asyncio.wait_for(reader.readline(), 10) == b"still there\n"


def shown(connection):
    """The serving certificate of a connection."""
    return x509.load_der_x509_certificate(
        connection[1].get_extra_info("ssl_object").getpeercert(binary_form=True)
    )


def test_the_leader_makes_what_every_replica_serves(cluster, secret, tmp_path) -> None:
    async def work(first, second):
        await second.step()
        assert not second.ready
        await first.step()
        await second.step()
        async with served(second) as port:
            assert await echoed(await dialled(port, first.bundle))
        return first.bundle, second.bundle, first.expiries

    first, second, expiries = with_replicas(cluster, secret, tmp_path, work)
    assert first == second
    assert set(expiries) == {"serving", "authority"}
    assert expiries["serving"] == pytest.approx(time.time() + 90 * certificates.DAY, abs=60)
    files = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "1").iterdir()}
    assert files == {"tls.crt": 0o600, "tls.key": 0o600, "ca.crt": 0o600}
    assert (tmp_path / "0" / "ca.crt").read_text() == first


def test_two_that_think_they_lead_end_with_one_authority(cluster, secret, tmp_path) -> None:
    async def work(first, second):
        second.leading = lambda: True
        await asyncio.gather(first.step(), second.step())
        await asyncio.gather(first.step(), second.step())
        return first.bundle, second.bundle

    first, second = with_replicas(cluster, secret, tmp_path, work)
    assert first == second == in_secret(cluster, secret).bundle


def test_a_new_authority_comes_without_a_restart_and_ends_no_connection(cluster, secret, tmp_path) -> None:
    """Trusted first, served once everybody connected says so; who only knows the old one still gets in."""
    trusted, told = [], []

    async def tell(bundle):
        told.append(bundle)

    async def work(first, second):
        second.changed = trusted.append
        first.tell = tell
        await first.step()
        await second.step()
        old = first.bundle
        async with served(second) as port:
            kept_open = await dialled(port, old)
            before = shown(kept_open)
            patched(cluster, secret, {"metadata": {"annotations": {keeper.ROTATE_ANNOTATION: "monday"}}})
            for each in (first, second, first, second):
                await each.step()
            assert wire.bundle_digest(second.bundle) != wire.bundle_digest(old)
            assert shown(await dialled(port, second.bundle)) == before, "nobody says that they trust it yet"
            first.spread = lambda digest: digest == wire.bundle_digest(second.bundle)
            await first.step()
            await second.step()
            for bundle in (second.bundle, old):
                moved = await dialled(port, bundle)
                assert shown(moved) != before
                assert await echoed(moved)
            assert await echoed(kept_open)
        await first.step()
        return old, second.bundle

    old, new = with_replicas(cluster, secret, tmp_path, work)
    assert trusted == told == [old, new]
    assert old.strip() in new
    annotations = cluster.get("secret", secret[1], secret[0])["metadata"]["annotations"]
    assert annotations[keeper.ROTATED_ANNOTATION] == "monday"


@pytest.mark.parametrize(
    "emptied",
    [
        None,
        {"ca.crt": "", "ca.key": ""},
        {"ca.crt": GARBAGE, "previous-ca.crt": "/w=="},
        {"previous-ca.crt": "/w=="},
    ],
)
def test_an_emptied_secret_is_filled_again_with_what_everybody_trusts(
    cluster, secret, tmp_path, emptied
) -> None:
    async def work(first, second):
        await first.step()
        await second.step()
        before = first.bundle
        patched(cluster, secret, {"data": emptied})
        with contextlib.suppress(ssl.SSLError, keeper.CertificateError):
            await second.step()
        await first.step()
        await second.step()
        return before, first.bundle, second.bundle

    assert len(set(with_replicas(cluster, secret, tmp_path, work))) == 1


def test_what_the_secret_should_not_hold_changes_nothing(cluster, secret, tmp_path) -> None:
    async def work(first, second):
        await first.step()
        await second.step()
        good = (tmp_path / "1" / "tls.crt").read_bytes()
        garbage = base64.b64encode(b"garbage").decode()
        patched(cluster, secret, {"data": {"tls.crt": garbage, "more": garbage}})
        with pytest.raises(ssl.SSLError):
            await second.step()
        async with served(second) as port:
            assert await echoed(await dialled(port, second.bundle))
        assert (tmp_path / "1" / "tls.crt").read_bytes() == good
        await first.step()
        await second.step()

    with_replicas(cluster, secret, tmp_path, work)
    assert cluster.get("secret", secret[1], secret[0])["data"]["more"], "what is not ours stays"


def test_a_secret_that_is_gone_is_said_and_what_is_served_is_served_on(cluster, secret, tmp_path) -> None:
    async def work(first, _second):
        running = asyncio.create_task(first.run())
        try:
            await first.wait(10)
            cluster.kubectl("delete", "secret", secret[1], "-n", secret[0])
            first.wake()
            while not first.problem:
                await asyncio.sleep(0.01)
            async with served(first) as port:
                assert await echoed(await dialled(port, first.bundle))
            return first.problem
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    assert "does not exist; the Helm chart makes it" in with_replicas(cluster, secret, tmp_path, work)


def test_nobody_serves_before_there_is_a_certificate(cluster, secret, tmp_path) -> None:
    async def work(_first, second):
        for ask in (second.context, second.client_context):
            with pytest.raises(keeper.CertificateError, match="no certificate yet"):
                ask()
        with pytest.raises(keeper.CertificateError, match="no replica has made"):
            await second.wait(0.01)

    with_replicas(cluster, secret, tmp_path, work)


def provided(folder, kept):
    folder.mkdir(exist_ok=True)
    for name, content in (("tls.crt", kept.tls_cert), ("tls.key", kept.tls_key), ("ca.crt", kept.ca_cert)):
        (folder / name).write_bytes(content)


def test_provided_files_are_read_again_and_only_whole(tmp_path) -> None:
    first, second = (
        certificates.planned(certificates.Kept(), certificates.Wishes(NAMES), time.time()) for _ in range(2)
    )

    async def main():
        one = keeper.Keeper(tmp_path)
        with pytest.raises(keeper.CertificateError, match=r"tls\.crt cannot be read"):
            await one.step()
        provided(tmp_path, first)
        await one.step()
        async with served(one) as port:
            assert await echoed(await dialled(port, first.bundle))
            (tmp_path / "tls.key").write_bytes(second.tls_key)
            with pytest.raises(ssl.SSLError):
                await one.step()
            assert await echoed(await dialled(port, first.bundle))
            provided(tmp_path, second)
            await one.step()
            assert await echoed(await dialled(port, second.bundle, "localhost"))
            nameless = ssl.create_default_context(cadata=second.bundle)
            nameless.check_hostname = False
            assert await echoed(
                await asyncio.open_connection("127.0.0.1", port, ssl=nameless, server_hostname="")
            )
            with pytest.raises(ssl.SSLCertVerificationError):
                await dialled(port, first.bundle)

    asyncio.run(main())
