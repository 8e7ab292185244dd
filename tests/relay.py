# SPDX-License-Identifier: Apache-2.0
"""A real HTTP relay before OpenBao that counts what passes and, when told to, does what bad networks and gateways do.

`relay.before(address)` serves until the block ends. `asked` is every request that came, in order; `fault` is asked for each one what to
do instead of passing it on: `None` to pass it, or a `Fault`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import http.server
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """An answer that is not OpenBao's: after `seconds` of silence; `status` 0 ends the connection without one."""

    status: int = 0
    body: bytes = b""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    drip_seconds: float = 0.0


class Relay(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: str) -> None:
        parts = urllib.parse.urlsplit(address)
        assert parts.hostname is not None
        self.target = (parts.hostname, parts.port)
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.fault: Callable[[str], Fault | None] = lambda _: None
        self.ended = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def count(self, part: str) -> int:
        """Requests whose "METHOD /path" has this in it."""
        return sum(part in each for each in self.asked)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Relay

    def log_message(self, *args: object) -> None:
        """Quiet: what passes may be secret."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        line = f"{self.command} {self.path}"
        self.server.asked.append(line)
        self.server.headers.append(dict(self.headers))
        fault = self.server.fault(line)
        if fault is None:
            self._pass(body)
        else:
            self._fail(fault)

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 -- as the library wants them

    def _pass(self, body: bytes) -> None:
        onward = http.client.HTTPConnection(*self.server.target, timeout=30)
        try:
            sent = {key: value for key, value in self.headers.items() if key.lower() != "host"}
            onward.request(self.command, self.path, body or None, sent)
            answer = onward.getresponse()
            content = answer.read()
        except OSError:
            self.close_connection = True
            return
        finally:
            onward.close()
        self._answer(answer.status, {"Content-Type": answer.getheader("Content-Type", "")}, content)

    def _fail(self, fault: Fault) -> None:
        if fault.seconds:
            self.server.ended.wait(fault.seconds)
        if not fault.status:
            self.close_connection = True
            return
        self._answer(fault.status, fault.headers, fault.body, drip=fault.drip_seconds)

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes, *, drip: float = 0.0) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            if not drip:
                self.wfile.write(body)
            for byte in body if drip else b"":
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(drip)


@contextlib.contextmanager
def before(address: str) -> Iterator[Relay]:
    made = Relay(address)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.ended.set()
        made.shutdown()
        made.server_close()
        thread.join()
