# SPDX-License-Identifier: Apache-2.0
"""The operator's HTTP for proxies: the config stream, acknowledgements and reports.

Called by main and controller. Every request is reviewed before its body is read. One line in flight per stream: a slow reader gets
the newest version when it has read the one before, never two. Refuses what it cannot read with a sentence in JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from aiohttp import hdrs, web

from outrider import snapshot, wire
from outrider_operator import publishing, reviewer, writing

log = logging.getLogger("outrider.operator")

PING_SECONDS = 15.0
STALLED_SECONDS_MAX = 60.0
"""A reader that takes nothing for this long is gone; it dials again if it is not."""

REVIEW_SECONDS = 300.0
"""How often whoever listens is looked at again; a pod that is gone hears nothing new after that (plus the API server's cache)."""

STREAMS_MAX = 5_000
POD_STREAMS_MAX = 8
"""A sidecar needs one, and a second while it dials anew; whoever has taken its token must not take everybody's places."""

_ACK_BYTES_MAX = 65_536
_REPORT_BYTES_MAX = 4 * 1024 * 1024
_PRINCIPAL = web.RequestKey("principal", reviewer.Principal)
_TOKEN = web.RequestKey("token", str)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

OnReport = Callable[[reviewer.Principal, bytes], bytes]
"""Takes what a proxy saw of servers and gives the answer, JSON; raises wire.WireError for what it cannot read."""


@dataclasses.dataclass(frozen=True, slots=True)
class Manner:
    """How streams are kept: seconds between pings and between reviews, how many there may be, who we are, and whether we serve.

    `unready` gives a sentence while no stream may be served (a replica that knows nothing yet). `catch_up` is told a position that
    a proxy holds and we have not reached.
    """

    ping_seconds: float = PING_SECONDS
    review_seconds: float = REVIEW_SECONDS
    streams_max: int = STREAMS_MAX
    controller: str = ""
    unready: Callable[[], str] = lambda: ""
    catch_up: Callable[[snapshot.Position], None] = lambda _position: None


def application(
    publisher: publishing.Publisher,
    who: reviewer.Reviewer,
    *,
    manner: Manner | None = None,
    on_report: OnReport | None = None,
    elsewhere: Mapping[str, _Handler] | None = None,
) -> web.Application:
    """The application of one operator. Paths of `elsewhere` (path to handler of GET and POST) review their callers themselves."""
    doors = _Doors(publisher, who, manner or Manner(), on_report)
    own = elsewhere or {}
    app = web.Application(middlewares=[_reviewed(who, frozenset(own))], client_max_size=_REPORT_BYTES_MAX)
    app.router.add_get("/v1/config/stream", doors.stream)
    app.router.add_post("/v1/config/ack", doors.ack)
    if on_report is not None:
        app.router.add_post("/v1/config/report", doors.report)
    for path, handler in own.items():
        app.router.add_route("*", path, handler)
    return app


def status_door(who: reviewer.Reviewer, status: Callable[[], dict[str, Any]]) -> _Handler:
    """`GET /v1/status` for whoever has the laptop's token."""

    async def door(request: web.Request) -> web.StreamResponse:
        found = await who.review(bearer(request))
        return refusal(found) if isinstance(found, reviewer.Refused) else web.json_response(status())

    return door


def bearer(request: web.Request) -> str:
    """The token of a request; '' without exactly one."""
    given = request.headers.getall(hdrs.AUTHORIZATION, [])
    return given[0].removeprefix("Bearer ") if len(given) == 1 and given[0].startswith("Bearer ") else ""


def refusal(found: reviewer.Refused) -> web.Response:
    """The answer to somebody who is nobody."""
    headers = {"Connection": "close"}
    if found.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return error(found.status, found.text, headers)


def error(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    """A sentence in JSON."""
    return web.json_response({"error": text}, status=status, headers=headers)


async def body(request: web.Request, bytes_max: int) -> bytes:
    """The body, never more than `bytes_max` of it in memory. Raises HTTPRequestEntityTooLarge."""
    taken = bytearray()
    async for chunk in request.content.iter_any():
        taken += chunk
        if len(taken) > bytes_max:
            raise web.HTTPRequestEntityTooLarge(max_size=bytes_max, actual_size=len(taken))
    return bytes(taken)


def _reviewed(who: reviewer.Reviewer, elsewhere: frozenset[str]) -> Any:
    @web.middleware
    async def review(request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            if request.path not in elsewhere:
                request[_TOKEN] = bearer(request)
                found = await who.review(request[_TOKEN])
                if isinstance(found, reviewer.Refused):
                    return refusal(found)
                request[_PRINCIPAL] = found
            return await handler(request)
        except web.HTTPException as wrong:
            return error(wrong.status, wrong.reason)

    return review


class _Doors:
    def __init__(
        self,
        publisher: publishing.Publisher,
        who: reviewer.Reviewer,
        manner: Manner,
        on_report: OnReport | None,
    ) -> None:
        self._publisher = publisher
        self._who = who
        self._manner = manner
        self._on_report = on_report

    async def ack(self, request: web.Request) -> web.StreamResponse:
        who = request[_PRINCIPAL]
        try:
            message = wire.decode(await body(request, _ACK_BYTES_MAX))
        except wire.WireError as wrong:
            return error(400, str(wrong))
        if isinstance(message, wire.Trusted):
            self._publisher.trusted(message.digest, who)
        elif not isinstance(message, wire.Ack):
            return error(400, "the body is a message, but no ack")
        elif not self._publisher.acknowledge(message, who):
            return error(409, "no open stream was offered this version; dial the stream first")
        elif not message.ok:
            fields = {
                "sidecar": str(who),
                "why": message.error,
                "path": message.path,
                "source": message.source,
            }
            log.warning("configuration refused by a sidecar", extra={"fields": fields})
        return web.json_response({"recorded": True})

    async def report(self, request: web.Request) -> web.StreamResponse:
        assert self._on_report is not None, "there is no route without it"
        try:
            answer = self._on_report(request[_PRINCIPAL], await body(request, _REPORT_BYTES_MAX))
        except wire.WireError as wrong:
            return error(400, str(wrong))
        return web.Response(body=answer, content_type="application/json")

    async def stream(self, request: web.Request) -> web.StreamResponse:
        held = _held(request)
        if isinstance(held, str):
            return error(400, held)
        if why := self._manner.unready():
            return error(503, f"{why}; dial again")
        if len(self._publisher.streams) >= self._manner.streams_max:
            return error(503, f"{self._manner.streams_max} streams are open here already; dial again")
        who = request[_PRINCIPAL]
        if who.uid and self._publisher.listening(who) >= POD_STREAMS_MAX:
            return error(429, f"{POD_STREAMS_MAX} streams of this pod are open here already; dial again")
        response = web.StreamResponse(
            headers={hdrs.CONTENT_TYPE: "application/x-ndjson", hdrs.CACHE_CONTROL: "no-store"}
        )
        writer = await response.prepare(request)
        assert writer is not None and request.transport is not None  # noqa: PT018 - one thought
        one = publishing.Stream(
            principal=who,
            peer=_peer(request),
            schema=held.schema,
            deflate=held.deflate,
            software=held.software,
            trust=held.trust,
        )
        self._publisher.opened(one)
        reviewing = asyncio.create_task(self._review(one, request[_TOKEN]))
        try:
            line = writing.Line(writer, request.transport, seconds_max=STALLED_SECONDS_MAX)
            await self._talk(line, one, held)
        except (ConnectionError, TimeoutError):
            # The reader is gone or stalled; what it missed it asks for when it dials again.
            if request.transport is not None:
                request.transport.abort()
        finally:
            reviewing.cancel()
            self._publisher.closed(one)
        return response

    async def _talk(self, line: writing.Line, one: publishing.Stream, held: _Held) -> None:
        publisher, manner = self._publisher, self._manner
        more = one.schema > 1
        hello = wire.Hello(epoch=publisher.epoch, schema=one.schema)
        if more:
            ours = {"controller": manner.controller, "heartbeat_seconds": manner.ping_seconds}
            hello = msgspec.structs.replace(hello, **ours)
        await line.send(wire.encode(hello))
        known, first = held.version, True
        while one.leaving is None:
            one.changed.clear()
            if more and publisher.bundle and wire.bundle_digest(publisher.bundle) != one.trust:
                one.trust = wire.bundle_digest(publisher.bundle)
                await line.send(wire.encode(wire.Trust(bundle=publisher.bundle)))
            offer = publisher.newest(one)
            if offer is not None and (first or offer.version != known):
                await self._say(line, one, offer, held if first else _Held(known, {}, None))
                known, first = offer.version, False
            if one.changed.is_set():
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(manner.ping_seconds):
                    await one.changed.wait()
                continue
            await line.send(wire.encode(wire.Ping()))
        assert one.leaving is not None
        await line.send(wire.encode(one.leaving if more else wire.GoAway(reason=one.leaving.reason)))

    async def _say(
        self, line: writing.Line, one: publishing.Stream, offer: publishing.Offer, held: _Held
    ) -> None:
        """Tells the reader the newest of its workload, in as few words as it needs."""
        publisher = self._publisher
        if held.ahead_of(offer, publisher.epoch):
            self._manner.catch_up(held.position)
            publisher.offering(one, offer, held=False)
            await line.send(wire.encode(wire.Behind()))
        elif offer.version == held.version:
            publisher.offering(one, offer, held=True)
            position = dict(offer.position)
            await line.send(wire.encode(wire.Unchanged(version=offer.version, position=position)))
        else:
            publisher.offering(one, offer, held=False)
            with publisher.line(one, offer) as encoded:
                await line.send(encoded)

    async def _review(self, one: publishing.Stream, token: str) -> None:
        """Sends away whoever is nobody any more. An API server that is away changes nothing."""
        while True:
            await asyncio.sleep(self._manner.review_seconds * random.uniform(0.9, 1.1))  # noqa: S311 - spreads load
            found = await self._who.again(token)
            if isinstance(found, reviewer.Refused) and found.status == 401:
                one.leave(f"the token of this stream is not accepted any more: {found.text}")
                return


class _Held:
    """What the sidecar says of itself: what it holds, its position and epoch, what it reads, trusts and is."""

    __slots__ = ("_epoch", "deflate", "position", "schema", "software", "trust", "version")

    def __init__(self, version: str, position: dict[str, int], epoch: int | None) -> None:
        self.version = version
        self.position = position
        self._epoch = epoch
        self.schema = snapshot.SCHEMA
        self.deflate = False
        self.software = ""
        self.trust = ""

    def ahead_of(self, offer: publishing.Offer, epoch: int) -> bool:
        """True when it holds something newer of the same epoch; positions of different epochs do not compare."""
        return self._epoch == epoch and snapshot.behind(offer.position, self.position)


def _held(request: web.Request) -> _Held | str:
    """The query of a stream, or what is wrong with it."""
    query = request.query
    spoken = ", ".join(str(each) for each in snapshot.SCHEMAS)
    schema = query.get("schema", "")
    if schema not in [str(each) for each in snapshot.SCHEMAS]:
        older = (
            "operator"
            if re.fullmatch(r"[1-9][0-9]{0,3}", schema) and int(schema) > snapshot.SCHEMA
            else "sidecar"
        )
        return f"schema {schema[:8]!r} is not spoken here, these are: {spoken}; update the {older}"
    version, trust = query.get("version", ""), query.get("trust", "")
    if not re.fullmatch(r"([0-9a-f]{64})?", version):
        return "version is the digest of the snapshot held, or empty"
    if not re.fullmatch(r"([0-9a-f]{64})?", trust):
        return "trust is the digest of the bundle of authorities held, or empty"
    epoch = query.get("epoch", "")
    if not re.fullmatch(r"[0-9]{0,16}", epoch):
        return "epoch is a number"
    try:
        position = json.loads(query.get("position", "{}"))
    except (ValueError, RecursionError):
        position = None
    if not isinstance(position, dict) or not all(type(at) is int and at >= 0 for at in position.values()):
        return 'position is a JSON object of counters, such as {"files":3}'
    found = _Held(version, position, int(epoch) if epoch else None)
    agent = re.match(r"outrider-sidecar/([A-Za-z0-9.+-]{1,40})", request.headers.get(hdrs.USER_AGENT, ""))
    found.deflate = query.get("deflate") == "1"
    found.schema, found.trust, found.software = int(schema), trust, agent[1] if agent else ""
    return found


def _peer(request: web.Request) -> str:
    name = request.transport.get_extra_info("peername") if request.transport else None
    return f"{name[0]}:{name[1]}" if name else "unknown"
