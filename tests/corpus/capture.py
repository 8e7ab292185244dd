# SPDX-License-Identifier: Apache-2.0
"""A loopback server that keeps what real clients send and answers with what the proxy would: our functions, no transport.

Called by tests of both eras. Whatever it cannot read it answers as the proxy does, so a client that sends something
unexpected fails its test loudly.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import itertools
import json
import threading
from collections.abc import Iterator

from outrider import bind, decision, names, testing
from outrider_sidecar import (
    answers,
    asked,
    conventions,
    exchange,
    introductions,
    jsonrpc,
    legacy,
    local,
    modern,
    sessions,
)

TOOL = b'{"name":"query","inputSchema":{"type":"object","properties":{"amount":{"type":"integer"}}},"x-kept":1.0}'
NO_SERVERS = bind.bound(testing.a_snapshot(), {})
REQUEST_ID = "01J0000000000000000000TEST"
DENIED = decision.Objection(
    decision.Reason.DENIED, visible=True, rule=names.RuleRef("crm", "sales-only", "big", 3),
    detail="Deals above 50,000 go through the deal desk",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Kept:
    """One request as it arrived; `body` empty unless it was a POST."""

    method: str
    headers: exchange.Headers
    body: bytes

    @property
    def message(self) -> jsonrpc.Message:
        return jsonrpc.parse(self.body)


@dataclasses.dataclass
class Capture:
    """`refused` holds what our functions would not take: a test expects none. `eras` offered: both, or legacy only."""

    url: str = ""
    modern: bool = True
    kept: list[Kept] = dataclasses.field(default_factory=list)
    refused: list[str] = dataclasses.field(default_factory=list)
    wrapped: bytes | None = None

    def posts(self, method: str) -> list[Kept]:
        return [each for each in self.kept if each.method == "POST" and each.message.method == method]


def judge(each: Kept) -> asked.Asked:
    """What the pipeline asks of a POST before it looks at its method. Raises Malformed."""
    jsonrpc.check_content_type(each.headers)
    message = each.message
    is_modern = asked.is_modern(each.headers, message)
    if is_modern:
        modern.check(each.headers, message)
        version = conventions.MODERN
    elif message.method == conventions.INITIALIZE:
        version = legacy.chosen_version(message.params)
    else:
        version = legacy.version_of(each.headers)
    return asked.Asked(is_modern, version, message, asked.trace(each.headers, message))


def _unmet(_server: names.ServerId) -> introductions.Introduction:
    return introductions.Introduction()


def _result(subject: asked.Asked, wrapped: bytes | None) -> bytes | None:
    method = subject.message.method
    if method == conventions.DISCOVER:
        return local.discovered(NO_SERVERS, None, _unmet)
    if method == conventions.INITIALIZE:
        return local.initialized(NO_SERVERS, None, _unmet, version=subject.version)
    if method == conventions.PING:
        return b"{}"
    if method == conventions.LIST_TOOLS:
        page = jsonrpc.spliced({"tools": b"[" + TOOL + b"]", "ttlMs": b"1000", "cacheScope": b'"private"'})
        return modern.adapted(page, modern=subject.modern, method=method)
    if method == conventions.CALL_TOOL and wrapped is not None:
        return modern.adapted(wrapped, modern=subject.modern, method=method)
    return None


def _answer(capture: Capture, each: Kept, sealer: sessions.Sealer) -> answers.Answer:
    try:
        subject = judge(each)
    except jsonrpc.Malformed as error:
        capture.refused.append(str(error))
        return answers.malformed(error)
    message = subject.message
    if message.kind is not jsonrpc.Kind.REQUEST:
        return answers.accepted()
    if subject.modern and not capture.modern:
        return answers.unknown_method(message.id, modern=True)
    if not subject.modern and message.method != conventions.INITIALIZE:
        text = asked.header(each.headers, conventions.HEADER_SESSION) or ""
        if sealer.read(text, principal="p", endpoint="/mcp") is None:
            return answers.unknown_session(message.id)
    if (raw := _result(subject, capture.wrapped)) is not None:
        more = ()
        if message.method == conventions.INITIALIZE:
            sealed, _ = sealer.open(version=subject.version, principal="p", endpoint="/mcp")
            more = ((conventions.HEADER_SESSION, sealed.encode()),)
        return answers.json(jsonrpc.result(message.id, raw), *more)
    if message.method == conventions.CALL_TOOL:
        objection = DENIED
        if message.name != "query":
            objection = decision.Objection(decision.Reason.TOOL_UNKNOWN, visible=False)
        body = answers.refused(subject, objection, request_id=REQUEST_ID, name=message.name or "")
        return answers.json(body)
    return answers.unknown_method(message.id, modern=subject.modern)


@contextlib.contextmanager
def serving(*, offer_modern: bool = True, wrapped: bytes | None = None) -> Iterator[Capture]:
    """Serves until the block ends. `wrapped` is what a server answered to `tools/call`; None: calls are refused."""
    capture = Capture(modern=offer_modern, wrapped=wrapped)
    count = itertools.count(1)
    sealer = sessions.Sealer(
        bytes(32), entropy=lambda size: next(count).to_bytes(size, "big"), wall=lambda: 1.0
    )

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = tuple(
                (name.lower().encode(), value.encode("latin-1")) for name, value in self.headers.items()
            )
            each = Kept(self.command, headers, body)
            capture.kept.append(each)
            told = answers.method_not_allowed(b"POST, DELETE")
            if self.command == "POST":
                told = _answer(capture, each, sealer)
            elif self.command == "DELETE":
                told = answers.Answer(200, (), b"")
            self.send_response(told.status)
            for name, value in told.headers:
                self.send_header(name.decode(), value.decode())
            self.send_header("content-length", str(len(told.body)))
            self.end_headers()
            self.wfile.write(told.body)

        do_POST = do_GET = do_DELETE = _serve  # noqa: N815 -- the names the library looks for

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the library's parameter
            """Tests keep quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    capture.url = f"http://127.0.0.1:{server.server_address[1]}/mcp"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield capture
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def conversation(told: str) -> dict[str, object]:
    """What a client's process wrote: one JSON object on its last line."""
    found: dict[str, object] = json.loads(told.strip().splitlines()[-1])
    return found
