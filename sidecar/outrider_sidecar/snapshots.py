# SPDX-License-Identifier: Apache-2.0
"""The configuration in force: received, verified, bound, swapped whole, acknowledged.

Run by main as one task. The pipeline reads `Current.bound` (one reference, no lock). Whatever does not verify is
refused with a NACK and the old configuration stays; without any, everything is refused. The last good snapshot is kept
in the state folder, so that a restart does not depend on the control plane.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import pathlib
import urllib.parse
from collections.abc import Callable

import aiohttp
import msgspec

from outrider import bind, catalog, names, snapshot, wire
from outrider_sidecar import current, telemetry

log = logging.getLogger("outrider")

LINE_BYTES_MAX = 64 * 1024 * 1024
"""A snapshot line above this is refused; 10,000 rules are about 2 MB."""

_SILENCE_SECONDS_MAX = 45.0
"""Three missed pings: the stream is dead and is dialled again."""

_BACKOFF_SECONDS_MAX = 5.0


class _Kept(msgspec.Struct, frozen=True):
    version: str
    position: dict[str, int]
    content: msgspec.Raw


@dataclasses.dataclass(frozen=True, slots=True)
class Dial:
    """Where the control plane is, what proves us to it, and where the last good snapshot is kept."""

    operator: str
    token_file: pathlib.Path
    state: pathlib.Path


class Config:
    """The client's end of the config stream."""

    def __init__(
        self,
        held: current.Current,
        dial: Dial,
        *,
        changed: Callable[[bind.Bound], None],
        jitter: Callable[[], float],
    ) -> None:
        self._current = held
        self._operator = dial.operator
        self._token_file = dial.token_file
        self._file = dial.state / "last-good.json"
        self._changed = changed
        self._jitter = jitter
        self._position: snapshot.Position = {}
        self._version = ""
        self._in_touch = False

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
        attempt, last = 0, ""
        while True:
            self._in_touch = False
            try:
                async with aiohttp.ClientSession(read_bufsize=2**20) as session:
                    await self._stream(session)
                attempt = 0
            except (aiohttp.ClientError, OSError, TimeoutError, wire.WireError) as error:
                attempt = 1 if self._in_touch else attempt + 1
                if attempt in (1, 10, 100) or str(error) != last:
                    log.warning(
                        "config stream lost; the last good configuration stays in force", extra=_why(error)
                    )
                last = str(error)
            await asyncio.sleep(
                min(_BACKOFF_SECONDS_MAX, 0.1 * 2 ** min(attempt, 6)) * (0.5 + self._jitter())
            )

    async def _stream(self, session: aiohttp.ClientSession) -> None:
        query = {
            "schema": str(snapshot.SCHEMA),
            "version": self._version,
            "position": json.dumps(dict(self._position)),
            "epoch": "" if self._current.bound is None else str(self._current.bound.snapshot.epoch),
        }
        url = f"{self._operator}/v1/config/stream?{urllib.parse.urlencode(query)}"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=_SILENCE_SECONDS_MAX)
        async with session.get(
            url, headers=self._authorization(), timeout=timeout, allow_redirects=False
        ) as answer:
            if answer.status != 200:
                raise wire.WireError(
                    "", f"the control plane answered {answer.status}; is the token file right?"
                )
            buffer = bytearray()
            async for chunk in answer.content.iter_any():
                buffer += chunk
                if len(buffer) > LINE_BYTES_MAX:
                    raise wire.WireError("", f"a line is larger than {LINE_BYTES_MAX} bytes")
                while (end := buffer.find(b"\n")) >= 0:
                    line = bytes(buffer[:end])
                    del buffer[: end + 1]
                    if not await self._heard(session, line):
                        return

    def _authorization(self) -> dict[str, str]:
        """Read again each time: the token may have been rotated. Raises OSError or WireError."""
        token = self._token_file.read_bytes().strip()
        if not token or not all(0x20 < byte < 0x7F for byte in token):
            raise wire.WireError("", "the token file does not hold one word of printable ASCII")
        return {"Authorization": f"Bearer {token.decode()}"}

    async def _heard(self, session: aiohttp.ClientSession, line: bytes) -> bool:
        """Acts on one message; False when the stream should be dialled again."""
        message = wire.decode(line)
        if isinstance(message, wire.GoAway):
            return False
        # Hello and Behind alone are not worth an eager dial: a control plane that knows less would be asked for ever.
        self._in_touch = self._in_touch or not isinstance(message, wire.Hello | wire.Behind)
        if isinstance(message, wire.Behind):
            raise wire.WireError("", "this control plane knows less than what is in force here (N7)")
        if isinstance(message, wire.Unchanged) and message.version == self._version:
            self._position = dict(message.position)
        if isinstance(message, wire.SnapshotOffer):
            refusal = await self._take(message.version, dict(message.position), bytes(message.content))
            if refusal is None:
                await self._kept(message)
            else:
                log.error("configuration refused; the old one stays in force", extra=_why(refusal))
            ack = wire.Ack(
                version=message.version,
                position=dict(message.position),
                ok=refusal is None,
                error="" if refusal is None else refusal.text,
                path="" if refusal is None else refusal.path,
            )
            headers = {**self._authorization(), "Content-Type": "application/json"}
            async with session.post(
                f"{self._operator}/v1/config/ack", data=wire.encode(ack), headers=headers
            ) as answer:
                await answer.read()
        return True

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


def _why(error: Exception) -> dict[str, dict[str, object]]:
    return telemetry.fields(why=str(error) or type(error).__name__)
