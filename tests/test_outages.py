# SPDX-License-Identifier: Apache-2.0
"""What people read when the API server does not answer: real failures of both libraries, at real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import re
import socket
import ssl
import threading
from collections.abc import Iterator

import aiohttp
import pytest
import urllib3
from tests.kube import certs

from outrider_operator import outages

HERE = "https://127.0.0.1:6443"


@contextlib.contextmanager
def behaving(how: str, keys: certs.Authority | None = None) -> Iterator[int]:
    """The port of somebody who closes at once, says nothing, or has a certificate (`keys`)."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                taken.append(connection)
                if how == "closes":
                    connection.close()
                elif keys is not None:
                    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                    context.load_cert_chain(keys.server_cert, keys.server_key)
                    with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True):
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            for each in taken:
                each.close()


def by_urllib3(port: int, context: ssl.SSLContext, host: str = "127.0.0.1") -> BaseException:
    pools = urllib3.PoolManager(retries=urllib3.Retry(connect=0, read=0, redirect=0), ssl_context=context)
    with pytest.raises(urllib3.exceptions.HTTPError) as caught:
        pools.request("GET", f"https://{host}:{port}/", timeout=0.5)
    return caught.value


def by_aiohttp(port: int, context: ssl.SSLContext, host: str = "127.0.0.1") -> BaseException:
    async def ask() -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.5)) as session:
            await session.get(f"https://{host}:{port}/", ssl=context)

    with pytest.raises((aiohttp.ClientError, TimeoutError)) as caught:
        asyncio.run(ask())
    return caught.value


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> certs.Authority:
    return certs.Authority.make(tmp_path_factory.mktemp("outages"), ["127.0.0.1"])


@pytest.mark.parametrize("asked", [by_urllib3, by_aiohttp])
def test_one_sentence_whichever_library_asked(asked, keys) -> None:
    context = ssl.create_default_context(cafile=str(keys.ca_file))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = asked(free.getsockname()[1], context)
    with behaving("closes") as port:
        closed = asked(port, context)
    with behaving("waits") as port:
        silent = asked(port, context)
    said = [outages.unanswered(HERE, each) for each in (nobody, closed, silent)]
    assert said[0] == f"the API server {HERE} does not answer: connection refused"
    assert re.search(r"does not answer: (the connection was closed|connection reset by peer)$", said[1])
    assert said[2] == f"the API server {HERE} does not answer: it took too long"


@pytest.mark.parametrize("asked", [by_urllib3, by_aiohttp])
def test_a_certificate_of_another_cluster_is_said_with_what_to_look_at(asked, keys) -> None:
    with behaving("", keys) as port:
        strange = asked(port, ssl.create_default_context())
    said = outages.unanswered(HERE, strange)
    assert said.startswith(f"the API server {HERE} is not to be trusted: ")
    assert said.endswith("; look at the address and the certificate authority that were given for it")


@pytest.mark.parametrize("asked", [by_urllib3, by_aiohttp])
def test_a_name_that_nobody_has_is_said_in_the_resolvers_words(asked) -> None:
    said = outages.why(asked(443, ssl.create_default_context(), host="no-such-host.invalid"))
    assert "Unknown error" not in said
    assert "object at 0x" not in said


def test_a_file_that_cannot_be_read_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(OSError, match="token") as caught:
        (tmp_path / "token").read_bytes()
    assert outages.why(caught.value) == f"{tmp_path}/token: no such file or directory"


def test_a_no_is_the_servers_words_and_what_to_do() -> None:
    assert "does not know who asks" in outages.refused(401, "Unauthorized", "Unauthorized")
    assert outages.refused(403, "Forbidden", "x may not get y") == (
        "x may not get y; give the operator's ServiceAccount that right (the Helm chart does)"
    )
    assert outages.refused(409, "Conflict", "{it} changed") == "Conflict: {it} changed"
    assert outages.refused(0, "NoAnswer", "it is away") == "it is away"


def test_an_error_without_words_is_shown_as_it_is() -> None:
    assert outages.why(ValueError()) == "ValueError()"
    assert outages.why(ConnectionResetError()) == "the connection was closed"
