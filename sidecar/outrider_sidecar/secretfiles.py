# SPDX-License-Identifier: Apache-2.0
"""Secrets in files: one that a laptop's `outrider.yaml` names, or a key of a Secret that the pod's author has mounted for a server.

A `loans.Source` for both. A file is read off the loop and trusted for a second, so that what was replaced (kubelet swaps a link) is
in use a second later. Refuses a path that leads out of the folder of its server, whatever is linked there.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Callable, Iterable

from outrider import decision, snapshot
from outrider_sidecar import loans

VALUE_BYTES_MAX = 16_384
"""No server accepts a longer header; a bigger file is not a credential."""

ORIGIN_KEY = "outrider_origin"
"""The key of a Secret that says for which scheme://host:port alone the others are."""

RECHECK_SECONDS = 1.0
"""How long a file's content is trusted before it is read again: a rotated secret is in use within this."""

_MOUNTED = re.compile(r"[a-z0-9-]{1,63}\.[a-z0-9-]{1,63}/[A-Za-z0-9_-][A-Za-z0-9_.-]{0,252}")
_ANNOTATION = "outrider.dev/secrets"

_Place = snapshot.FileSecret | snapshot.MountedSecret


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class _Content:
    value: bytes
    origin: str = ""


@dataclasses.dataclass(slots=True, repr=False)
class _Held:
    """One file as read last, and how that went. `number` counts contents: the version of what is lent."""

    content: _Content | None = None
    loan: loans.Loan | None = None
    read_at: float = -math.inf
    number: int = 0
    failing: loans.Unavailable | None = None
    failed: int = 0
    under_way: asyncio.Task[loans.Loan] | None = None


class Files:
    """`clock` is monotonic seconds; `folder` is where Secrets are mounted, None where none are."""

    def __init__(self, clock: Callable[[], float], folder: pathlib.Path | None = None) -> None:
        self._clock = clock
        self._folder = folder
        self._held: dict[snapshot.Source, _Held] = {}

    def at_hand(self, wanted: loans.Wanted) -> loans.Loan | None:
        """As `loans.Source.at_hand`."""
        held = self._held.get(wanted.where)
        return held.loan if held is not None and self._clock() - held.read_at < RECHECK_SECONDS else None

    async def fetch(self, wanted: loans.Wanted, *, refused: str | None = None) -> loans.Loan:  # noqa: ARG002 -- what is there is read now anyhow
        """As `loans.Source.fetch`: reads the file now. Errors name the path and the system's reason, never the content."""
        assert isinstance(wanted.where, _Place)
        held = self._held.setdefault(wanted.where, _Held())
        if held.under_way is None:
            held.under_way = asyncio.get_running_loop().create_task(self._refresh(wanted.where, held))
        return await asyncio.shield(held.under_way)

    async def _refresh(self, where: _Place, held: _Held) -> loans.Loan:
        try:
            content = await asyncio.to_thread(self._read, where)
        except loans.Unavailable as failure:
            held.loan = held.content = None
            held.failing, held.failed = failure, held.failed + 1
            raise
        finally:
            held.under_way = None
        if held.loan is None or content != held.content:
            held.number += 1
            held.content, held.loan = (
                content,
                loans.Loan(content.value, str(held.number), origin=content.origin),
            )
        held.failing, held.read_at = None, self._clock()
        return held.loan

    def keep(self, wanted: frozenset[snapshot.Source]) -> None:
        """As `loans.Source.keep`."""
        self._held = {where: held for where, held in self._held.items() if where in wanted}

    def standing(self) -> Iterable[loans.Standing]:
        """As `loans.Source.standing`: a content that was not there before counts as refreshed, not every look."""
        for where, held in self._held.items():
            failing = held.failing
            yield loans.Standing(
                where,
                available=failing is None,
                failing=None if failing is None else failing.reason,
                why="" if failing is None else str(failing),
                refreshed=held.number,
                failed=held.failed,
            )

    async def close(self) -> None:
        """As `loans.Source.close`: forgets everything."""
        self._held.clear()

    def _read(self, where: _Place) -> _Content:
        return _Content(_file(where.path)) if isinstance(where, snapshot.FileSecret) else self._mounted(where)

    def _mounted(self, where: snapshot.MountedSecret) -> _Content:
        folder_name, _, key = where.path.partition("/")
        server = folder_name.replace(".", "/", 1)
        remedy = f"name one that holds it in the pod's annotation {_ANNOTATION}: {server}=SECRET"
        if self._folder is None:
            raise _unavailable(f"this proxy has no Secrets mounted (--secrets-dir); for key {key}, {remedy}")
        if not _MOUNTED.fullmatch(where.path):
            raise _unavailable(f"{where.path!a} is not NAMESPACE.SERVER/KEY of a mounted Secret")
        folder = self._folder / folder_name
        try:
            # Kubelet links each key to a folder that it replaces whole: key and origin are read from the same one.
            root, real = folder.resolve(strict=True), (folder / key).resolve(strict=True)
            if not real.is_relative_to(root):
                raise _unavailable(f"key {key} of the Secret for {server} leads out of its folder")
            value = _bytes(real)
        except OSError as error:
            text = f"no Secret of this pod for {server} has key {key} ({error.strerror}); {remedy}"
            raise _unavailable(text) from None
        try:
            origin = _bytes(real.with_name(ORIGIN_KEY)).decode().strip()
        except FileNotFoundError:
            origin = ""
        except (OSError, UnicodeDecodeError):
            text = f"key {ORIGIN_KEY} of the Secret for {server} cannot be read as text, so it is not known where it may go"
            raise _unavailable(text) from None
        return _Content(value, origin)


def _file(path: str) -> bytes:
    try:
        return _bytes(pathlib.Path(path))
    except OSError as error:
        text = f"cannot read credential file {path}: {error.strerror}; put the secret there with mode 0600"
        raise _unavailable(text) from None


def _bytes(path: pathlib.Path) -> bytes:
    """What a file begins with, one byte and a line's end more than a value may have. A pipe is never waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(VALUE_BYTES_MAX + 3) or b""


def _unavailable(text: str) -> loans.Unavailable:
    return loans.Unavailable(decision.Reason.CREDENTIAL_UNAVAILABLE, text)
