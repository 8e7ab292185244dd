# SPDX-License-Identifier: Apache-2.0
"""An operator over files: one configuration for one principal, its persisted position, and what `outrider dev` shows of it.

Called by main, which tells it what was read. Every change is a new version, made durable before anybody hears of it. Refuses to
count backwards and to replace what is in force by something broken.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import secrets
import time
from collections.abc import Iterable, Mapping
from typing import Any

from outrider import findings, manifests, reports, skew, snapshot, wire
from outrider_operator import durable, lendings, publishing, reviewer, sightings

_EPOCH_MAX = 2**53
_ANSWERS_MAX = 64
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
        durable.write(self._file, content)


class Laptop:
    """What is in force, who is listening and what they said. Used on one event loop only."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._problems: tuple[manifests.Problem, ...] = ()
        self._findings: tuple[findings.Finding, ...] = ()
        self._answers: list[dict[str, Any]] = []
        self._notices: list[dict[str, Any]] = []
        self._lendings = lendings.Lendings(lambda _server: True)
        self._made: snapshot.Snapshot | None = None
        self._offers: dict[int, publishing.Offer] = {}
        self.publisher = publishing.Publisher(self, answered=self._heard)

    @property
    def epoch(self) -> int:
        return self._counter.epoch

    @property
    def version(self) -> str:
        """Of what is in force; '' while nothing is."""
        return self._offers[snapshot.SCHEMA].version if self._offers else ""

    @property
    def position(self) -> snapshot.Position:
        return self._counter.position

    def offer(self, _subject: publishing.Subject, schema: int) -> publishing.Offer | None:
        """The same for everybody. An older schema's is made when somebody reads it."""
        if self._made is None:
            return None
        if schema not in self._offers:
            content, unexpressed = skew.downgrade(self._made, schema)
            version = snapshot.digest(content)
            self._offers[schema] = publishing.Offer(version, self.position, content, unexpressed)
        return self._offers[schema]

    def publish(self, made: snapshot.Snapshot, found: tuple[findings.Finding, ...]) -> bool:
        """Puts `made` in force and wakes every stream; False when it already was. Raises StateError."""
        self._findings = found
        content = snapshot.canonical(made)
        version = snapshot.digest(content)
        if self.version == version:
            return False
        self._counter.advance(version)
        self._made = made
        self._offers = {snapshot.SCHEMA: publishing.Offer(version, self.position, content)}
        for subject in self.publisher.subjects:
            self.publisher.wake(subject)
        return True

    def report(self, problems: tuple[manifests.Problem, ...]) -> None:
        """What now stands in the way of the files; () once they are sound. What is in force is left alone."""
        self._problems = problems

    def notice(self, notices: Iterable[Mapping[str, str]]) -> None:
        """What the change to the version in force does that its author may not have meant; the newest are kept."""
        at = self._counter.files
        self._notices = [*self._notices, *({**each, "files": at} for each in notices)][-_NOTICES_MAX:]

    def reported(self, who: reviewer.Principal, body: bytes) -> bytes:
        """Takes what the proxy says of its credentials; what servers list is in its own folder. Raises WireError."""
        reporter = sightings.Reporter(uid=who.uid, pod=who.pod)
        self._lendings.reported(reporter, reports.decode(body), now=time.time())
        return reports.encode(reports.Wanted())

    def _heard(self, ack: wire.Ack, _seconds: float | None) -> None:
        """Keeps the newest answers for whoever asks."""
        answer = {"version": ack.version, "ok": ack.ok, "error": ack.error, "path": ack.path}
        self._answers = [*self._answers[1 - _ANSWERS_MAX :], answer]

    def status(self) -> dict[str, Any]:
        """Everything an operator of a laptop wants to know, as JSON values."""
        return {
            "epoch": self.epoch,
            "version": self.version or None,
            "position": dict(self.position) if self.version else None,
            "problems": [
                {"file": p.file, "line": p.line, "field": p.field, "message": p.message, "allowed": list(p.allowed)}
                for p in self._problems
            ],
            "findings": [dataclasses.asdict(finding) for finding in self._findings],
            "notices": self._notices,
            "sidecars": [_shown(stream) for stream in self.publisher.streams],
            "answers": self._answers,
            "troubles": [each for found in self._lendings.troubles().values() for each in found],
        }  # fmt: skip


def _shown(stream: publishing.Stream) -> dict[str, Any]:
    refusal = stream.refusal
    return {
        "subject": str(stream.principal),
        "peer": stream.peer,
        "offered": stream.offered or None,
        "acked": stream.acked or None,
        "refusal": None if refusal is None else {"error": refusal.error, "path": refusal.path},
    }
