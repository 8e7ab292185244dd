# SPDX-License-Identifier: Apache-2.0
"""The configuration in force on its way to proxies: offers, acknowledgements, status.

Called by main, which tells it what was read; read by `streaming`, which talks HTTP. Every change is a new version, made
durable before anybody hears of it. Refuses to count backwards and to replace what is in force by something broken.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import pathlib
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from outrider import findings, manifests, snapshot, wire

_EPOCH_MAX = 2**53
_ACKS_MAX = 64
_NOTICES_MAX = 64


class StateError(Exception):
    """What must survive restarts cannot be kept; the text says why and what to do."""


class Counter:
    """The persisted position of the file source: grows when the version changes, survives restarts."""

    def __init__(self, file: pathlib.Path) -> None:
        self._file = file
        self.epoch, self.files, self.version = self._restored()

    @property
    def position(self) -> dict[str, int]:
        return {"files": self.files}

    def advance(self, version: str) -> None:
        """Counts on, durably, if `version` is not the last one. Raises StateError, and has then not counted."""
        if version == self.version:
            return
        kept = {"epoch": self.epoch, "files": self.files + 1, "version": version}
        try:
            self._write(json.dumps(kept).encode())
        except OSError as error:
            text = (
                f"{self._file} cannot be written: {error.strerror}; free the disk or choose another --state"
            )
            raise StateError(text) from None
        self.files, self.version = self.files + 1, version

    def _restored(self) -> tuple[int, int, str]:
        try:
            kept = json.loads(self._file.read_bytes())
            epoch, files, version = kept["epoch"], kept["files"], kept["version"]
            if type(epoch) is int and type(files) is int and type(version) is str and files >= 0 < epoch:
                return epoch, files, version
        except FileNotFoundError:
            return 1 + secrets.randbelow(_EPOCH_MAX - 1), 0, ""
        except OSError as error:
            raise StateError(
                f"{self._file} cannot be read: {error.strerror}; mend it or choose another --state"
            ) from None
        except (ValueError, KeyError, TypeError):
            # A new epoch is what tells proxies that positions start over; guessing a number could hide a change.
            return 1 + secrets.randbelow(_EPOCH_MAX - 1), 0, ""
        return 1 + secrets.randbelow(_EPOCH_MAX - 1), 0, ""

    def _write(self, content: bytes) -> None:
        write_atomically(self._file, content)


def write_atomically(file: pathlib.Path, content: bytes) -> None:
    """Replaces `file` (mode 0600) so that a reader or a crash sees the old content or the new. Raises OSError."""
    scratch = file.with_name(f".{file.name}.{os.getpid()}.new")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    scratch.replace(file)
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@dataclasses.dataclass(frozen=True, slots=True)
class Offer:
    """A version and the line that carries it."""

    version: str
    position: snapshot.Position
    line: bytes


@dataclasses.dataclass(slots=True, eq=False)
class Sidecar:
    """One open stream: what was offered on it last and how that was answered."""

    subject: str
    peer: str
    offered: str = ""
    acked: str = ""
    refusal: dict[str, str] | None = None
    changed: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)


class Publisher:
    """What is in force, who is listening and what they said. Used on one event loop only."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._problems: tuple[manifests.Problem, ...] = ()
        self._findings: tuple[findings.Finding, ...] = ()
        self._answers: list[dict[str, Any]] = []
        self._notices: list[dict[str, Any]] = []
        self.sidecars: list[Sidecar] = []
        self.offer: Offer | None = None
        self.draining = False

    @property
    def epoch(self) -> int:
        return self._counter.epoch

    def publish(self, made: snapshot.Snapshot, found: tuple[findings.Finding, ...]) -> bool:
        """Puts `made` in force and wakes every stream; False when it already was. Raises StateError."""
        self._findings = found
        content = snapshot.canonical(made)
        version = snapshot.digest(content)
        if self.offer is not None and self.offer.version == version:
            return False
        self._counter.advance(version)
        position = self._counter.position
        message = wire.SnapshotOffer(version=version, position=position, content=wire.raw(content))
        self.offer = Offer(version, position, wire.encode(message))
        self._wake()
        return True

    def report(self, problems: tuple[manifests.Problem, ...]) -> None:
        """What now stands in the way of the files; () once they are sound. What is in force is left alone."""
        self._problems = problems

    def notice(self, notices: Iterable[Mapping[str, str]]) -> None:
        """What the change to the version in force does that its author may not have meant; the newest are kept."""
        at = self._counter.files
        self._notices = [*self._notices, *({**each, "files": at} for each in notices)][-_NOTICES_MAX:]

    def drain(self) -> None:
        """Sends every proxy away: this process ends."""
        self.draining = True
        self._wake()

    def acknowledge(self, ack: wire.Ack, subject: str) -> bool:
        """Records an answer; False when nothing of that version was offered to that subject.

        An answer does not say on which stream it was asked; of several streams of one subject the longest-waiting is meant.
        """
        asked = [one for one in self.sidecars if one.subject == subject and one.offered == ack.version]
        if not asked:
            return False
        waiting = [one for one in asked if one.acked != ack.version and one.refusal is None] or asked
        waiting[0].acked = ack.version if ack.ok else waiting[0].acked
        waiting[0].refusal = None if ack.ok else {"error": ack.error, "path": ack.path}
        answer = {"version": ack.version, "ok": ack.ok, "error": ack.error, "path": ack.path}
        self._answers = [*self._answers[1 - _ACKS_MAX :], answer]
        return True

    def status(self) -> dict[str, Any]:
        """Everything an operator of a laptop wants to know, as JSON values."""
        offer = self.offer
        return {
            "epoch": self._counter.epoch,
            "version": offer.version if offer else None,
            "position": dict(offer.position) if offer else None,
            "problems": [
                {
                    "file": p.file,
                    "line": p.line,
                    "field": p.field,
                    "message": p.message,
                    "allowed": list(p.allowed),
                }
                for p in self._problems
            ],
            "findings": [dataclasses.asdict(finding) for finding in self._findings],
            "notices": self._notices,
            "sidecars": [
                {
                    "subject": one.subject,
                    "peer": one.peer,
                    "offered": one.offered or None,
                    "acked": one.acked or None,
                    "refusal": one.refusal,
                }
                for one in self.sidecars
            ],
            "answers": self._answers,
        }

    def _wake(self) -> None:
        for one in self.sidecars:
            one.changed.set()
