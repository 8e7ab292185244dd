# SPDX-License-Identifier: Apache-2.0
"""Lends the secret a Permit names, for one upstream request.

Called by the pipeline after the intent is on disk, and by lists. Secrets live in this module's memory and in the `Lent`
it hands out, nowhere else: no log line, error or record here ever holds one (N4). Where they come from is a `Source`:
files on a laptop; Vault implements the same two methods.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import dataclasses
import pathlib
from collections.abc import Callable
from typing import Protocol

from outrider import decision, snapshot
from outrider_sidecar import exchange

VALUE_BYTES_MAX = 16_384
"""No server accepts a longer header; a bigger file is not a credential."""

_RECHECK_SECONDS = 1.0
"""How long a file's content is trusted before it is read again: a rotated secret is in use within this."""


class Unavailable(Exception):
    """The credential cannot be lent. `reason` is what the caller is told, the text is for the log and names no value."""

    def __init__(self, reason: decision.Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Source(Protocol):
    """One kind of place that secrets come from."""

    def cached(self, where: snapshot.FileSecret) -> bytes | None:
        """The value if it is at hand and fresh; None means `fetch`."""

    async def fetch(self, where: snapshot.FileSecret) -> bytes:
        """The value; raises Unavailable."""


@dataclasses.dataclass(slots=True)
class _Held:
    value: bytes
    read_at: float


class Files:
    """Secrets in files, for `outrider dev`. Re-read every second, off the loop."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._held: dict[str, _Held] = {}

    def cached(self, where: snapshot.FileSecret) -> bytes | None:
        held = self._held.get(where.path)
        return held.value if held is not None and self._clock() - held.read_at < _RECHECK_SECONDS else None

    async def fetch(self, where: snapshot.FileSecret) -> bytes:
        """Raises Unavailable naming the path and the system's reason, never the content."""
        try:
            value = await asyncio.to_thread(_read, where.path)
        except OSError as error:
            self._held.pop(where.path, None)
            raise Unavailable(
                decision.Reason.CREDENTIAL_UNAVAILABLE,
                f"cannot read credential file {where.path}: {error.strerror}; put the secret there with mode 0600",
            ) from None
        self._held[where.path] = _Held(value, self._clock())
        return value


def _read(path: str) -> bytes:
    with pathlib.Path(path).open("rb") as file:
        return file.read(VALUE_BYTES_MAX + 2)


class Credentials:
    """Turns a Permit's credential into request headers."""

    def __init__(self, files: Source) -> None:
        self._files = files

    def at_hand(self, permit: decision.Permit) -> exchange.Lent | None:
        """What can be lent without waiting; None when it must be fetched. Raises Unavailable for a malformed value."""
        entry = permit.credential
        if entry is None or entry.source is None:
            return exchange.Lent()
        value = self._files.cached(_file(entry))
        return None if value is None else _lent(entry, value)

    async def lend(self, permit: decision.Permit) -> exchange.Lent:
        """Like `at_hand`, waiting for the source. Raises Unavailable."""
        entry = permit.credential
        if entry is None or entry.source is None:
            return exchange.Lent()
        return _lent(entry, await self._files.fetch(_file(entry)))


def _file(entry: snapshot.Credential) -> snapshot.FileSecret:
    if not isinstance(entry.source, snapshot.FileSecret):
        text = f"credential {entry.name!r} is one that this proxy cannot lend"
        raise Unavailable(decision.Reason.CREDENTIAL_UNAVAILABLE, text)
    return entry.source


def _lent(entry: snapshot.Credential, value: bytes) -> exchange.Lent:
    """One trailing newline is an editor's and is taken off; anything else odd is refused, never repaired."""
    secret = value.removesuffix(b"\n").removesuffix(b"\r")
    if not secret or len(secret) > VALUE_BYTES_MAX or any(byte < 0x20 or byte > 0x7E for byte in secret):
        raise Unavailable(
            decision.Reason.CREDENTIAL_MALFORMED,
            f"credential {entry.name!r} is empty, too long or not one line of printable ASCII",
        )
    header = (entry.header.lower().encode(), entry.prefix.encode() + secret)
    return exchange.Lent((header,), (secret, *_inside(entry.prefix, secret)))


def _inside(prefix: str, secret: bytes) -> tuple[bytes, ...]:
    """User and password of Basic authentication, together and the password alone."""
    if prefix.strip().lower() != "basic":
        return ()
    try:
        pair = base64.b64decode(secret, validate=True)
    except binascii.Error:
        return ()
    return (pair, pair.partition(b":")[2])
