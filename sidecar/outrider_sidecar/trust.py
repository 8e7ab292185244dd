# SPDX-License-Identifier: Apache-2.0
"""Whose certificates the control plane may show: the authorities the pod was made with, or newer ones it told us of since.

Called by snapshots at every dial. What the control plane says over a trusted connection takes the place of the file, until the file
itself changes; so a retired authority is forgotten here too. Refuses a bundle that is none.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import ssl

import msgspec

from outrider import wire

_FILE_BYTES_MAX = 262_144


class _Told(msgspec.Struct, frozen=True):
    """A bundle that we were told of, and the digest of the file it took the place of."""

    file: str
    bundle: str


class Trust:
    """`file` None: the system's authorities, and nothing that is told changes them."""

    def __init__(self, file: pathlib.Path | None, memory: pathlib.Path) -> None:
        self._file = file
        self._kept = memory / "trust.json"
        self._made: tuple[str, ssl.SSLContext] | None = None

    def context(self) -> ssl.SSLContext:
        """For the next connection. Raises OSError when the file cannot be read, WireError when it holds no authority."""
        bundle = self._bundle()
        if self._made is None or self._made[0] != bundle:
            self._made = bundle, _context(bundle) if self._file is not None else ssl.create_default_context()
        return self._made[1]

    @property
    def digest(self) -> str:
        """Of the bundle in use; '' for the system's. Raises OSError."""
        return wire.bundle_digest(self._bundle()) if self._file is not None else ""

    def take(self, bundle: str) -> bool:
        """Uses `bundle` from the next connection on, after restarts too; False when told ones are not used here.

        Raises WireError when it holds no authority, OSError when it cannot be kept.
        """
        if self._file is None:
            return False
        _context(bundle)
        told = _Told(wire.bundle_digest(_read(self._file)), bundle)
        scratch = self._kept.with_suffix(".new")
        with contextlib.suppress(FileNotFoundError):
            scratch.unlink()
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(msgspec.json.encode(told))
        scratch.replace(self._kept)
        return True

    def _bundle(self) -> str:
        if self._file is None:
            return ""
        given = _read(self._file)
        try:
            told = msgspec.json.decode(self._kept.read_bytes(), type=_Told)
        except (OSError, msgspec.DecodeError):
            return given
        return told.bundle if told.file == wire.bundle_digest(given) else given


def _read(file: pathlib.Path) -> str:
    with file.open("rb") as opened:
        return opened.read(_FILE_BYTES_MAX).decode("ascii", "replace")


def _context(bundle: str) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        made.load_verify_locations(cadata=bundle)
    except (ssl.SSLError, ValueError, TypeError) as error:
        raise wire.WireError(
            "", f"the authorities of the control plane are no certificates: {error}"
        ) from None
    return made
