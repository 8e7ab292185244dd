# SPDX-License-Identifier: Apache-2.0
"""Why a server could not be listed, by failures that really happened: each sentence names the place and what to do."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import ssl
from collections.abc import AsyncIterator

import pytest
from tests.kube import certs
from tests.servers import mcp

from outrider import bind, decision, names, snapshot, testing
from outrider_sidecar import complaints, credentials, current, lists, servers, telemetry, upstream

R = decision.Reason
HERE = names.ServerId("crm", "s")


@contextlib.asynccontextmanager
async def answering(raw: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that answers anything with the same bytes."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.read(65_536)
            writer.write(raw)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def words(endpoint: snapshot.Endpoint, *, loopback: bool = True) -> str:
    """What the prober would say of a visit to this endpoint."""
    view = snapshot.ServerView(id=HERE, generation=1, endpoint=endpoint)
    made = testing.a_snapshot(view, network=snapshot.Network(loopback=loopback), probing=True)
    held = current.Current(bind.bound(made, {}))
    loop = asyncio.get_running_loop()
    out = upstream.AiohttpUpstream(loop, network=lambda: made.network)
    visiting = servers.Servers(
        upstream=out, credentials=credentials.Credentials({}, clock=loop.time), current=held,
        telemetry=telemetry.Telemetry(), clock=loop.time,
    )  # fmt: skip
    try:
        await visiting.visit(HERE)
    except lists.ListingFailed as failure:
        return complaints.words(failure.reason, failure.text, endpoint)
    finally:
        await out.close()
    raise AssertionError("it was listed")


def said(url: str, *, loopback: bool = True, **more: object) -> str:
    return asyncio.run(words(snapshot.Endpoint(url=url, **more), loopback=loopback))  # type: ignore[arg-type]


def test_nobody_listens() -> None:
    assert said("http://127.0.0.1:9/mcp") == (
        "127.0.0.1:9 refuses connections; is the server running, and is this the port it listens on?"
    )


def test_a_name_that_nobody_knows() -> None:
    text = said("http://no-such-name.invalid/mcp")
    assert text.startswith("The name no-such-name.invalid cannot be resolved; check the endpoint's host")


@pytest.mark.parametrize(
    ("url", "why"), [("http://10.1.2.3/mcp", "private"), ("http://169.254.169.254/", "link-local")]
)
def test_an_address_that_may_not_be_dialled_says_which_and_why(url: str, why: str) -> None:
    text = said(url, loopback=False)
    assert why in text
    assert url.split("/")[2] in text


def answered(raw: bytes, **more: object) -> str:
    async def scenario() -> str:
        async with answering(raw) as port:
            return await words(snapshot.Endpoint(url=f"http://127.0.0.1:{port}/mcp", **more))  # type: ignore[arg-type]

    return asyncio.run(scenario())


def http(status: str, *headers: str, body: str = "") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers, "", body]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_a_credential_is_needed(status: str) -> None:
    text = answered(http(status))
    assert text.startswith("It needs a credential to list its tools")
    assert status[:3] in text


def test_a_redirect_says_where_it_leads_and_that_it_is_not_followed() -> None:
    text = answered(http("308 Permanent Redirect", "location: https://x.example/mcp/?token=hunter2"))
    assert "redirect" in text
    assert "/mcp/" in text
    assert "never followed" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    "raw",
    [
        http("200 OK", "content-type: text/html", body="<html>hello</html>"),
        http("200 OK", "content-type: application/json", body="{"),
        http("200 OK", "content-type: application/json", body='{"ok": true}'),
        http("404 Not Found"),
        http("500 Oops"),
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    ],
)
def test_what_answers_and_is_no_mcp_server(raw: bytes) -> None:
    text = answered(raw)
    assert text.startswith("It answers, but not as an MCP server does")
    assert "check the endpoint's path" in text


def test_a_plain_port_behind_an_https_url() -> None:
    async def scenario() -> str:
        async with answering(http("200 OK")) as port:
            return await words(snapshot.Endpoint(url=f"https://127.0.0.1:{port}/mcp"))

    assert "does not speak TLS" in asyncio.run(scenario())


@pytest.mark.parametrize("trusted", [False, True], ids=["issuer nobody trusts", "for another name"])
def test_a_certificate_that_cannot_be_believed(tmp_path: pathlib.Path, *, trusted: bool) -> None:
    made = certs.Authority.make(tmp_path, ["another.example"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.server_cert, made.server_key)
    bundle = made.ca_file.read_text() if trusted else None

    async def scenario() -> str:
        async with answering(http("200 OK"), context) as port:
            return await words(snapshot.Endpoint(url=f"https://127.0.0.1:{port}/mcp", ca_bundle=bundle))

    text = asyncio.run(scenario())
    assert text.startswith("The certificate of 127.0.0.1 is not trusted or is for another name")
    assert "`endpoint.tls.caBundle`" in text


def test_a_server_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "CONTACT_SECONDS", 0.3)

    async def scenario() -> str:
        async with mcp.serving(mcp.Peer(mute=True)) as peer:
            return await words(snapshot.Endpoint(url=peer.url))

    assert "took the connection and did not answer in time" in asyncio.run(scenario())


def test_a_list_that_is_too_large() -> None:
    async def scenario() -> str:
        peer = mcp.Peer(tools=[mcp.a_tool("a", description="x" * 200_000)])
        async with mcp.serving(peer):
            return await words(snapshot.Endpoint(url=peer.url, result_bytes_max=10_000))

    assert "larger than `endpoint.maxResultBytes` allows" in asyncio.run(scenario())


def test_an_endpoint_that_cannot_be_used_at_all() -> None:
    assert said("https://x.example/", ca_bundle="no PEM").startswith("The endpoint cannot be used")


@pytest.mark.parametrize("reason", list(R))
def test_every_reason_has_words_that_are_a_sentence(reason: decision.Reason) -> None:
    text = complaints.words(reason, "HTTP status 418", snapshot.Endpoint(url="https://x.example/mcp"))
    assert text[0].isupper() or text[0].isdigit()
    assert text[-1] in ".?"
