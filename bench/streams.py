# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.streams`: many long streams with progress through one sidecar, and one client that does not read.

The installed commands over real files, one upstream process, all streams open the whole time; at half time a client joins that asks for
more than it reads. Every event is numbered: a lost, doubled or reordered one, or a stream without its answer, voids the run. Goals: memory as
flat at the end as at the beginning, and the others' events no later beside the slow client than without it.

Exit codes: 0 a valid run; 2 usage; 3 the run is void, or something is missing to run at all.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import pathlib
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence

from bench import compiled, ours, paths, processes, run

CLOSED = 3
_MODERN = "2026-07-28"
_META = {
    "io.modelcontextprotocol/protocolVersion": _MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}
_WARM_SECONDS = 3.0
_FLOOD_BYTES = 10_000
_PADDING_BYTES = 100
_SLOW_BYTES, _SLOW_SECONDS = 4_096, 0.5
"""How much the slow client reads, and how often."""


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """`streams` at once, each with an event every `every` seconds, for `seconds`."""

    streams: int
    every: float
    seconds: float


@dataclasses.dataclass
class Seen:
    """What came out of all streams. Latencies are milliseconds from the upstream's writing to our having read, by phase."""

    alone: list[float] = dataclasses.field(default_factory=list)
    beside: list[float] = dataclasses.field(default_factory=list)
    events: int = 0
    complaints: list[str] = dataclasses.field(default_factory=list)
    slow_bytes: int = 0
    slow_end: str = "did not begin"
    resident: list[float] = dataclasses.field(default_factory=list)
    cpu: float = 0.0


def request(way: paths.Way, number: int, **arguments: float) -> bytes:
    """One call of the streaming tool, with a progress token of its own."""
    params = {"name": "echo", "arguments": arguments, "_meta": {**_META, "progressToken": f"t{number}"}}
    body = json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}).encode()
    head = (
        f"POST {way.path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {way.authorization}\r\n"
        "content-type: application/json\r\naccept: application/json, text/event-stream\r\n"
        f"mcp-protocol-version: {_MODERN}\r\nmcp-method: tools/call\r\nmcp-name: echo\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Stream:
    """One call's stream, read as it comes, every event checked against the one before."""

    def __init__(self, number: int, seen: Seen, began: float, plan: Plan) -> None:
        self._number = number
        self._seen = seen
        self._from = began + _WARM_SECONDS
        self._half = began + plan.seconds / 2
        self._last = 0
        self.answered = False

    async def follow(self, way: paths.Way, plan: Plan) -> None:
        """From the request to the answer. Streams begin spread over the time between two events, or all would come at once."""
        await asyncio.sleep(plan.every * self._number / plan.streams)
        reader, writer = await asyncio.open_connection("127.0.0.1", way.port)
        given = {"seconds": plan.seconds, "every": plan.every, "bytes": _PADDING_BYTES}
        writer.write(request(way, self._number, **given))
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200") or b"text/event-stream" not in head:
                self._complain(f"answered with {head[:100]!r}")
                return
            kept = b""
            while size := int(await reader.readline(), 16):
                kept += (await reader.readexactly(size + 2))[:-2]
                *events, kept = kept.split(b"\n\n")
                for event in events:
                    self._event(event)
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            self._complain(f"broke off after event {self._last}: {error!r}")
        finally:
            writer.close()
        if not self.answered:
            self._complain(f"ended without its answer after event {self._last}")

    def _event(self, event: bytes) -> None:
        data = b"".join(line[6:] for line in event.split(b"\n") if line.startswith(b"data: "))
        if not data:
            return  # a comment that keeps the stream alive
        message = json.loads(data)
        if "method" not in message:
            self.answered = True
            if message["id"] != self._number or message["result"]["content"][0]["text"] != str(self._last):
                self._complain(f"has seen {self._last} events and is answered {data[:200]!r}")
            return
        params, now = message["params"], time.monotonic()
        if params["progressToken"] != f"t{self._number}":
            self._complain(f"was sent somebody else's event: {data[:200]!r}")
        if params["progress"] != self._last + 1:
            self._complain(f"event {params['progress']} follows {self._last}")
        self._last = params["progress"]
        self._seen.events += 1
        if now >= self._from:
            late = now * 1000 - int(params["message"].split(" ")[0]) / 1e6
            (self._seen.alone if now < self._half else self._seen.beside).append(late)

    def _complain(self, text: str) -> None:
        self._seen.complaints.append(f"stream {self._number} {text}")


async def slow(way: paths.Way, seen: Seen, seconds: float) -> None:
    """Asks for as much as there is and reads a little now and then."""
    loop = asyncio.get_running_loop()
    with socket.socket() as narrow:
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SLOW_BYTES)
        narrow.setblocking(False)
        await loop.sock_connect(narrow, ("127.0.0.1", way.port))
        given = {"seconds": seconds, "every": 0.0, "bytes": _FLOOD_BYTES}
        await loop.sock_sendall(narrow, request(way, 0, **given))
        end = time.monotonic() + seconds
        seen.slow_end = "was still being served at the end"
        while time.monotonic() < end:
            try:
                got = await asyncio.wait_for(
                    loop.sock_recv(narrow, _SLOW_BYTES), max(0.1, end - time.monotonic())
                )
            except (TimeoutError, OSError) as error:
                seen.slow_end = f"was cut off ({type(error).__name__})"
                return
            if not got:
                seen.slow_end = "was cut off"
                return
            seen.slow_bytes += len(got)
            await asyncio.sleep(_SLOW_SECONDS)


async def watch(way: paths.Way, seen: Seen) -> None:
    """The proxy's memory every second."""
    assert way.process is not None
    while True:
        await asyncio.sleep(1.0)
        seen.resident.append(processes.resident(way.process))


async def measure(way: paths.Way, plan: Plan) -> Seen:
    """The whole run."""
    seen, began = Seen(), time.monotonic()
    assert way.process is not None
    before = processes.usage(way.process).cpu
    watching = asyncio.create_task(watch(way, seen))
    streams = [Stream(number, seen, began, plan) for number in range(1, plan.streams + 1)]
    following = [asyncio.create_task(each.follow(way, plan)) for each in streams]
    await asyncio.sleep(plan.seconds / 2)
    slowly = asyncio.create_task(slow(way, seen, plan.seconds / 2 - 1))
    done, late = await asyncio.wait(following, timeout=plan.seconds + 60)
    if late:
        seen.complaints.append(f"{len(late)} streams did not end")
    for each in (*late, watching, slowly):
        each.cancel()
    told = await asyncio.gather(*done, *late, watching, slowly, return_exceptions=True)
    seen.complaints += [repr(each) for each in told if isinstance(each, Exception)]
    seen.cpu = processes.usage(way.process).cpu - before
    return seen


def text(plan: Plan, seen: Seen) -> str:
    """The figures, a line each."""

    def late(values: list[float]) -> str:
        if len(values) < 2:
            return "nothing"
        found = statistics.quantiles(values, n=100)
        return f"p50 {found[49]:.1f} ms, p99 {found[98]:.1f} ms, most {max(values):.1f} ms"

    part = max(1, min(60, len(seen.resident) // 5))
    first, last = (
        statistics.median(each or [0.0]) for each in (seen.resident[3 : 3 + part], seen.resident[-part:])
    )
    return "\n".join((
        f"streams: {plan.streams} for {plan.seconds:g} s, an event every {plan.every:g} s each",
        f"events: {seen.events}, none lost, doubled or out of order; {plan.streams} answers",
        f"late, without a slow client: {late(seen.alone)}",
        f"late, beside a slow client: {late(seen.beside)}",
        f"slow client: read {seen.slow_bytes} bytes and {seen.slow_end}",
        f"memory: {first:.1f} MiB in the first {part} s, {last:.1f} MiB in the last ({last - first:+.1f})",
        f"CPU: {seen.cpu / max(1, seen.events) * 1e6:.0f} us per event, {seen.cpu / plan.seconds * 100:.0f} % of a core",
    ))  # fmt: skip


def measured(plan: Plan, folder: pathlib.Path) -> Seen:
    """Starts everything, runs, ends everything. Raises Void for a run that must not be believed, Unable when it cannot start."""
    cores, file, log = processes.cores(), folder / "port", folder / "upstream.log"
    command = [sys.executable, "-m", "bench.streams_upstream", str(file)]
    with processes.running(command, core=cores.load, log=log) as process:
        processes.wait_for(file.exists, what="the upstream", process=process, log=log)
        place = paths.Place(int(file.read_text()), cores, folder)
        with ours.start(place, "plain", timeouts="{call: 3600s}") as way:
            if cores.load is not None:
                os.sched_setaffinity(0, {cores.load})
            seen = asyncio.run(measure(way, plan))
    if seen.complaints:
        raise run.Void(
            f"{len(seen.complaints)} complaints, the first of them: {'; '.join(seen.complaints[:5])}"
        )
    return seen


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The flags. Exits 2 with a sentence for values that cannot be run."""
    parser = argparse.ArgumentParser(prog="python -m bench.streams", description=__doc__, allow_abbrev=False)
    parser.add_argument("--streams", type=int, default=500, help="at once (default 500)")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long (default 5)")
    parser.add_argument(
        "--every", type=float, default=1.0, help="seconds between two events of a stream (default 1)"
    )
    given = parser.parse_args(arguments)
    if not 1 <= given.streams <= 2_000 or given.minutes < 0.1 or given.every <= 0 or given.minutes > 50:
        parser.error("--streams is 1 to 2000, --minutes 0.1 to 50, and --every above zero")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs and prints. Returns the exit code."""
    given = parse(arguments)
    plan = Plan(given.streams, given.every, given.minutes * 60)
    try:
        with tempfile.TemporaryDirectory(prefix="outrider-bench-") as folder:
            seen = measured(plan, pathlib.Path(folder))
    except compiled.Unable as unable:
        print(f"cannot run: {unable}", file=sys.stderr)
        return CLOSED
    except run.Void as void:
        print(f"VOID: {void}", file=sys.stderr)
        return CLOSED
    print(text(plan, seen))
    return 0


if __name__ == "__main__":
    sys.exit(main())
