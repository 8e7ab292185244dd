# SPDX-License-Identifier: Apache-2.0
"""Ports of a replica: kept before they are served, told apart when one cannot be had."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import socket
import ssl

import aiohttp
import pytest
from aiohttp import web
from tests.kube import certs

from outrider_operator import listening


def application() -> web.Application:
    async def hello(_request: web.Request) -> web.Response:
        return web.Response(text="hello")

    made = web.Application()
    made.router.add_get("/", hello)
    return made


async def asked(port: int, context: ssl.SSLContext | None = None) -> str:
    scheme = "http" if context is None else "https"
    url = f"{scheme}://127.0.0.1:{port}/"
    async with aiohttp.ClientSession() as session, session.get(url, ssl=context or True) as answer:
        return await answer.text()


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_a_port_is_bound_in_the_family_of_its_address(host: str, family: socket.AddressFamily) -> None:
    with listening.bound(host, 0, "stream") as made:
        assert made.family == family
        assert made.getsockname()[1] > 0


def test_a_port_that_somebody_has_is_refused_with_what_it_was_for_and_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match="cannot be listened on") as refused:
            listening.bound("127.0.0.1", port, "webhook")
    assert str(refused.value) == (
        f"webhook: 127.0.0.1 port {port} cannot be listened on (Address already in use); "
        "stop whoever has it, or choose another by --webhook-port or --listen"
    )


def test_an_address_of_another_machine_is_refused_in_the_same_words() -> None:
    with pytest.raises(OSError, match=r"^metrics: 192\.0\.2\.1 port 0 cannot be listened on \(Cannot assign"):
        listening.bound("192.0.2.1", 0, "metrics")


def test_nobody_connects_before_it_is_served_nor_after() -> None:
    async def run() -> None:
        at = listening.bound("127.0.0.1", 0, "metrics")
        port = at.getsockname()[1]
        with pytest.raises(aiohttp.ClientConnectorError):
            await asked(port)
        async with contextlib.AsyncExitStack() as stack:
            await listening.serve(stack, application(), at, "metrics")
            assert await asked(port) == "hello"
        with pytest.raises(aiohttp.ClientConnectorError):
            await asked(port)

    asyncio.run(run())


def test_it_is_served_over_tls_when_there_is_a_context(tmp_path: pathlib.Path) -> None:
    keys = certs.Authority.make(tmp_path, ["127.0.0.1"])

    async def run() -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(keys.server_cert, keys.server_key)
        async with contextlib.AsyncExitStack() as stack:
            at = listening.bound("127.0.0.1", 0, "stream")
            await listening.serve(stack, application(), at, "stream", context)
            return await asked(at.getsockname()[1], ssl.create_default_context(cafile=str(keys.ca_file)))

    assert asyncio.run(run()) == "hello"


def test_a_port_that_is_kept_can_be_served_by_another_socket_of_ours_again_and_again() -> None:
    """As kopf does: it binds for itself, and once more each time it is started."""

    async def run() -> None:
        with listening.bound("127.0.0.1", 0, "webhook") as kept:
            port = kept.getsockname()[1]
            for _ in range(3):
                runner = web.AppRunner(application(), access_log=None)
                await runner.setup()
                await web.TCPSite(runner, "127.0.0.1", port).start()
                assert await asked(port) == "hello"
                await runner.cleanup()

    asyncio.run(run())


def test_of_two_that_kept_one_port_the_second_to_serve_is_told_so() -> None:
    async def run() -> None:
        with listening.bound("127.0.0.1", 0, "metrics") as first:
            port = first.getsockname()[1]
            with listening.bound("127.0.0.1", port, "metrics") as second:
                async with contextlib.AsyncExitStack() as stack:
                    await listening.serve(stack, application(), first, "metrics")
                    with pytest.raises(OSError, match=rf"^metrics: 127\.0\.0\.1 port {port} cannot be"):
                        await listening.serve(stack, application(), second, "metrics")
                    assert await asked(port) == "hello"

    asyncio.run(run())
