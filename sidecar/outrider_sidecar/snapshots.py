# SPDX-License-Identifier: Apache-2.0
"""The configuration in force: received, verified, bound, swapped whole, acknowledged.

Run by main as one task. The pipeline reads `Current.bound` (one reference, no lock). Whatever does not verify is
refused with a NACK and the old configuration stays; without any, everything is refused. The last good snapshot is kept
in the memory folder, so that a restart does not depend on the control plane. Losing the control plane changes nothing
but that it is dialled again.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib.metadata
import json
import logging
import os
import pathlib
import ssl
import urllib.parse
from collections.abc import Awaitable, Callable

import aiohttp
import msgspec

from outrider import bind, catalog, names, snapshot, wire
from outrider_sidecar import blame, current, telemetry, trust

log = logging.getLogger("outrider")

LINE_BYTES_MAX = wire.CONTENT_BYTES_MAX
"""A snapshot line above this is refused; 10,000 rules are about 2 MB."""

_PINGS_MISSED_MAX = 3
_SILENCE_SECONDS_MAX = 45.0
"""Three missed pings of a control plane that does not say how often it pings: the stream is dead and is dialled again."""

_FIRST_RETRY_SECONDS_MAX = 0.1
_BACKOFF_SECONDS_MAX = 10.0

_AGE_SECONDS = 1800.0
"""A stream is dialled anew after this, give or take a fifth: replicas that came later get their share."""

_CONNECT_SECONDS_MAX = 5.0
_ANSWER_SECONDS_MAX = 10.0
_ERROR_BYTES_MAX = 2048
_WORDS_MAX = 4096


class _Kept(msgspec.Struct, frozen=True):
    version: str
    position: dict[str, int]
    content: msgspec.Raw


@dataclasses.dataclass(frozen=True, slots=True)
class Dial:
    """Where the control plane is, what proves us to it, where the last good snapshot is kept, and whom TLS must lead to."""

    operator: str
    token_file: pathlib.Path
    memory: pathlib.Path
    ca_file: pathlib.Path | None = None
    age_seconds: float = _AGE_SECONDS


class _Leave(Exception):
    """The stream is to be dialled anew, after `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


class Config:
    """The client's end of the config stream. `jitter` gives numbers from 0 up to 1.

    `greeted` is called when a stream has told something: whoever is at its other end may know nothing of us. `prepare` is waited
    for before a snapshot comes into force; it raises ImportError for one that cannot be enforced here.
    """

    def __init__(  # noqa: PLR0913 -- wired in one place
        self,
        held: current.Current,
        dial: Dial,
        *,
        changed: Callable[[bind.Bound], None],
        jitter: Callable[[], float],
        greeted: Callable[[], None] = lambda: None,
        prepare: Callable[[snapshot.Snapshot], Awaitable[None]] | None = None,
    ) -> None:
        self._current = held
        self._dial = dial
        self._greeted = greeted
        self._prepare = prepare
        self._file = dial.memory / "last-good.json"
        self._trust = trust.Trust(dial.ca_file, dial.memory)
        self._changed = changed
        self._jitter = jitter
        self._position: snapshot.Position = {}
        self._version = ""
        self._in_touch = False
        self._silence_seconds = _SILENCE_SECONDS_MAX
        self._session: aiohttp.ClientSession | None = None
        self._unsaid: dict[type, wire.Ack | wire.Trusted] = {}
        self._to_say = asyncio.Event()
        self._agent = f"outrider-sidecar/{importlib.metadata.version('outrider')}"

    async def restore(self) -> None:
        """Serves the last good configuration of an earlier run, if it is whole."""
        try:
            kept = msgspec.json.decode(self._file.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError) as error:
            log.warning(
                "last good configuration unreadable; waiting for the control plane", extra=_why(error)
            )
            return
        refusal = await self._take(kept.version, kept.position, bytes(kept.content))
        if refusal is not None:
            log.warning("last good configuration refused; waiting for the control plane", extra=_why(refusal))

    async def follow(self) -> None:
        """Dials for ever, with jittered back-off; returns only by cancellation."""
        connector = aiohttp.TCPConnector(limit=8, ttl_dns_cache=0)
        headers = {"User-Agent": self._agent}
        async with aiohttp.ClientSession(connector=connector, read_bufsize=2**18, headers=headers) as session:
            self._session = session
            saying = asyncio.create_task(self._say())
            try:
                await self._dialling()
            finally:
                self._session = None
                saying.cancel()
                await asyncio.gather(saying, return_exceptions=True)

    async def post(
        self, path: str, body: bytes, *, answer_bytes_max: int = _ERROR_BYTES_MAX
    ) -> tuple[int, bytes]:
        """Status and body of a POST to the control plane; the status is 0 before `follow`.

        Raises ClientError, OSError, TimeoutError or WireError.
        """
        if self._session is None:
            return 0, b""
        headers = {**self._authorization(), "Content-Type": "application/json"}
        timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS_MAX)
        async with self._session.post(
            f"{self._dial.operator}{path}",
            data=body,
            headers=headers,
            timeout=timeout,
            ssl=self._tls(),
            allow_redirects=False,
        ) as answer:
            said = bytearray()
            while len(said) < answer_bytes_max and (chunk := await answer.content.read(answer_bytes_max)):
                said += chunk
            return answer.status, bytes(said)

    async def _dialling(self) -> None:
        attempt, last = 0, ""
        while True:
            self._in_touch = False
            try:
                await self._stream()
            except _Leave as leave:
                attempt, last = 0, ""
                await asyncio.sleep(leave.seconds * self._jitter())
                continue
            except (aiohttp.ClientError, OSError, TimeoutError, wire.WireError) as error:
                attempt = 1 if self._in_touch else attempt + 1
                if attempt in (1, 10, 100) or str(error) != last:
                    log.warning(
                        "config stream lost; the last good configuration stays in force", extra=_why(error)
                    )
                last = str(error)
            # All of them lose the same replica at once: the first retry is quick but not at one moment, later ones spread out.
            seconds = min(_BACKOFF_SECONDS_MAX, _FIRST_RETRY_SECONDS_MAX * 2 ** min(attempt - 1, 10))
            await asyncio.sleep(seconds * self._jitter())

    async def _stream(self) -> None:
        """One stream until its end. Raises _Leave when it is to be dialled anew without a complaint."""
        assert self._session is not None, "dialling has begun"
        query = {
            "schema": str(snapshot.SCHEMA),
            "deflate": "1",
            "version": self._version,
            "position": json.dumps(dict(self._position)),
            "epoch": "" if self._current.bound is None else str(self._current.bound.snapshot.epoch),
            **({"trust": self._trust.digest} if self._secure else {}),
        }
        url = f"{self._dial.operator}/v1/config/stream?{urllib.parse.urlencode(query)}"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS_MAX)
        until = asyncio.get_running_loop().time() + self._dial.age_seconds * (0.8 + 0.4 * self._jitter())
        self._silence_seconds = _SILENCE_SECONDS_MAX
        async with (
            asyncio.timeout(_SILENCE_SECONDS_MAX) as patience,
            self._session.get(
                url, headers=self._authorization(), timeout=timeout, ssl=self._tls(), allow_redirects=False
            ) as answer,
        ):
            if answer.status != 200:
                said = await answer.content.read(_ERROR_BYTES_MAX)
                raise wire.WireError("", f"the control plane answered {answer.status}: {_sentence(said)}")
            buffer = bytearray()
            searched = 0
            async for chunk in answer.content.iter_any():
                buffer += chunk
                if len(buffer) > LINE_BYTES_MAX:
                    raise wire.WireError("", f"a line is larger than {LINE_BYTES_MAX} bytes")
                while (end := buffer.find(b"\n", searched)) >= 0:
                    line = bytes(buffer[:end])
                    del buffer[: end + 1]
                    searched = 0
                    # However long we take ourselves, the other side is not silent meanwhile.
                    patience.reschedule(None)
                    await self._heard(line)
                searched = len(buffer)
                now = asyncio.get_running_loop().time()
                if not buffer and now >= until:
                    raise _Leave(_FIRST_RETRY_SECONDS_MAX)
                patience.reschedule(now + self._silence_seconds)
        raise wire.WireError("", "the control plane ended the stream")

    @property
    def _secure(self) -> bool:
        return self._dial.operator.startswith("https:")

    def _tls(self) -> ssl.SSLContext | bool:
        return self._trust.context() if self._secure else True

    def _authorization(self) -> dict[str, str]:
        """Read again each time: the token may have been rotated. Raises OSError or WireError."""
        token = self._dial.token_file.read_bytes().strip()
        if not token or not all(0x20 < byte < 0x7F for byte in token):
            raise wire.WireError("", "the token file does not hold one word of printable ASCII")
        return {"Authorization": f"Bearer {token.decode()}"}

    async def _heard(self, line: bytes) -> None:
        """Acts on one message. Raises _Leave or WireError when the stream should be dialled again."""
        message = wire.decode(line)
        if isinstance(message, wire.GoAway):
            raise _Leave(max(message.spread_ms / 1000, _FIRST_RETRY_SECONDS_MAX))
        # Hello and Behind alone are not worth an eager dial: a control plane that knows less would be asked for ever.
        if not self._in_touch and not isinstance(message, wire.Hello | wire.Behind):
            self._in_touch = True
            self._greeted()
        match message:
            case wire.Hello() if message.heartbeat_seconds:
                self._silence_seconds = max(1.0, message.heartbeat_seconds * _PINGS_MISSED_MAX)
            case wire.Behind():
                raise wire.WireError("", "this control plane knows less than what is in force here (N7)")
            case wire.Unchanged() if message.version == self._version:
                self._position = dict(message.position)
            case wire.Trust():
                self._trusting(message.bundle)
            case wire.SnapshotOffer():
                await self._offered(message)

    async def _offered(self, message: wire.SnapshotOffer) -> None:
        """Puts an offer in force, or says why not."""
        content = bytes(message.content)
        refusal = await self._take(message.version, dict(message.position), content)
        if refusal is None:
            await self._kept(message)
            answer = wire.Ack(version=message.version, position=dict(message.position), ok=True)
        else:
            log.error("configuration refused; the old one stays in force", extra=_why(refusal))
            source, generation = blame.source(content, refusal.path)
            answer = wire.Ack(
                version=message.version, position=dict(message.position), ok=False,
                error=refusal.text[:_WORDS_MAX], path=refusal.path[:_WORDS_MAX], source=source, generation=generation,
            )  # fmt: skip
        self._unsaid[wire.Ack] = answer
        self._to_say.set()

    def _trusting(self, bundle: str) -> None:
        try:
            if not self._trust.take(bundle):
                return
        except (OSError, wire.WireError) as error:
            log.error("authorities not taken over; those so far stay", extra=_why(error))  # noqa: TRY400 - a sentence
            return
        log.info("authorities of the control plane taken over")
        self._unsaid[wire.Trusted] = wire.Trusted(digest=wire.bundle_digest(bundle))
        self._to_say.set()

    async def _say(self) -> None:
        """Delivers the newest answer of each kind, until it is taken or there is a newer one."""
        attempt = 0
        while True:
            await self._to_say.wait()
            self._to_say.clear()
            for kind, answer in list(self._unsaid.items()):
                try:
                    status, _ = await self.post("/v1/config/ack", wire.encode(answer))
                except (aiohttp.ClientError, OSError, TimeoutError, wire.WireError):
                    status = 0
                # 401: the token may just have been replaced. What else is refused will be refused again.
                if status and status != 401 and status < 500 and self._unsaid.get(kind) is answer:
                    del self._unsaid[kind]
            attempt = attempt + 1 if self._unsaid else 0
            if self._unsaid:
                self._to_say.set()
                seconds = min(_BACKOFF_SECONDS_MAX, _FIRST_RETRY_SECONDS_MAX * 2 ** min(attempt, 10))
                await asyncio.sleep(seconds * self._jitter())

    async def _take(self, version: str, position: dict[str, int], content: bytes) -> wire.WireError | None:
        """Verifies, binds server by server, swaps. Returns why not, as a value."""
        if snapshot.digest(content) != version:
            return wire.WireError("", "the version is not the digest of the content")
        try:
            fresh = wire.decode_snapshot(content)
        except wire.WireError as refusal:
            return refusal
        held = self._current.bound
        if (
            held is not None
            and held.snapshot.epoch == fresh.epoch
            and snapshot.behind(position, self._position)
        ):
            return wire.WireError("position", "it is older than the configuration in force (N7)")
        if self._prepare is not None:
            try:
                await self._prepare(fresh)
            except ImportError as lacking:
                return wire.WireError("", f"this proxy lacks what the configuration needs: {lacking.name}")
        bound = bind.bound(fresh, {}, digest=version)
        for server, found in self._still_valid(fresh).items():
            bound = bound.with_definitions(server, found)
            await asyncio.sleep(0)  # ten thousand tools in one piece would stop the loop
        self._position, self._version = position, version
        self._current.swap(bound)
        self._changed(bound)
        return None

    def _still_valid(self, fresh: snapshot.Snapshot) -> dict[names.ServerId, catalog.Definitions]:
        """Definitions observed at an endpoint that has not changed."""
        held = self._current.bound
        before = {} if held is None else {server: kept.view.endpoint for server, kept in held.servers.items()}
        return {
            view.id: self._current.definitions[view.id]
            for view in fresh.servers
            if view.id in self._current.definitions and before.get(view.id) == view.endpoint
        }

    async def _kept(self, offer: wire.SnapshotOffer) -> None:
        """A configuration that cannot be kept is in force all the same; only a restart would miss it."""
        try:
            await asyncio.to_thread(self._keep, offer)
        except OSError as error:
            log.error(  # noqa: TRY400 -- a full disk needs no traceback
                "configuration in force but not kept: a restart without the control plane would serve an older one",
                extra=_why(error),
            )

    def _keep(self, offer: wire.SnapshotOffer) -> None:
        kept = _Kept(offer.version, dict(offer.position), offer.content)
        scratch = self._file.with_suffix(".new")
        with contextlib.suppress(FileNotFoundError):
            scratch.unlink()
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(kept))
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(self._file)


def _sentence(said: bytes) -> str:
    """The sentence of an answer that is an error."""
    try:
        return str(msgspec.json.decode(said)["error"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return "it gives no reason in words"


def _why(error: Exception) -> dict[str, dict[str, object]]:
    return telemetry.fields(why=str(error) or type(error).__name__)
