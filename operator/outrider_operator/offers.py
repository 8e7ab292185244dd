# SPDX-License-Identifier: Apache-2.0
"""What each workload should hold now, in the schema that its proxy reads: the Compiler's snapshots as the Publisher's source.

Called by controller (a new reading) and by publishing (an offer). Remembers what it made for older schemas. Refuses to offer anything
before everything was read once: a proxy without configuration waits, one with the wrong one would act on it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from outrider import compile as compiler
from outrider import resources, snapshot, wire
from outrider_operator import publishing
from outrider_operator.sources import kubernetes

Subject = publishing.Subject

_OLDER_MAX = 4_096
"""Snapshots kept in older schemas; upgrades end, and then nobody asks for these."""

Probing = Callable[[resources.World, int], snapshot.Snapshot]
"""(world, epoch) to what the prober should list."""


@dataclasses.dataclass(frozen=True, slots=True)
class Prober:
    """The one workload that is told of every server and may call none."""

    subject: Subject
    probing: Probing


class Offers:
    """`position` is asked at every offer: a world that did not change still stands for more and more."""

    def __init__(
        self, compiled: compiler.Compiler, prober: Prober, *, position: Callable[[], snapshot.Position]
    ) -> None:
        self._compiled = compiled
        self._prober = prober
        self._position = position
        self._reading: kubernetes.Reading | None = None
        self._listed: snapshot.Snapshot | None = None
        self._probed: compiler.Compiled | None = None
        self._older: dict[tuple[Subject, int], tuple[str, publishing.Offer]] = {}

    @property
    def epoch(self) -> int:
        return self._reading.epoch if self._reading is not None else 0

    @property
    def prober(self) -> Subject:
        """Whose offer every edit of a server may change."""
        return self._prober.subject

    @property
    def ready(self) -> bool:
        return self._reading is not None

    def take(self, reading: kubernetes.Reading) -> compiler.Changes:
        """Makes a reading the one that is offered; says whom that may concern."""
        changes = self._compiled.update(reading.world, epoch=reading.epoch)
        self._reading, self._listed, self._probed = reading, None, None
        return changes

    def offer(self, subject: Subject, schema: int) -> publishing.Offer | None:
        """The newest of a workload; None before the first reading."""
        if self._reading is None:
            return None
        made = self._newest(subject, self._reading)
        if schema == snapshot.SCHEMA:
            return publishing.Offer(made.version, self._position(), made.content)
        held, older = self._older.get((subject, schema), ("", None))
        if older is None or held != made.version:
            older = self._downgraded(subject, schema, self._reading)
            if len(self._older) >= _OLDER_MAX:
                self._older.clear()
            self._older[subject, schema] = (made.version, older)
        return dataclasses.replace(older, position=self._position())

    def given(self, subject: Subject) -> snapshot.Snapshot | None:
        """What a workload is offered in the newest schema, as a value; None before the first reading."""
        if self._reading is None:
            return None
        if subject != self._prober.subject:
            return self._compiled.snapshot(*subject)
        return self._probing(self._reading)

    def _probing(self, reading: kubernetes.Reading) -> snapshot.Snapshot:
        if self._listed is None:
            self._listed = self._prober.probing(reading.world, reading.epoch)
        return self._listed

    def _newest(self, subject: Subject, reading: kubernetes.Reading) -> compiler.Compiled:
        if subject != self._prober.subject:
            return self._compiled.compiled(*subject)
        if self._probed is None:
            content = snapshot.canonical(self._probing(reading))
            self._probed = compiler.Compiled(content, snapshot.digest(content))
        return self._probed

    def _downgraded(self, subject: Subject, schema: int, reading: kubernetes.Reading) -> publishing.Offer:
        probing = subject == self._prober.subject
        made = self._probing(reading) if probing else self._compiled.snapshot(*subject)
        content, unexpressed = wire.downgrade(made, schema)
        version = snapshot.digest(content)
        if not probing:
            # What a sidecar acknowledges is this version, and status counts it as of the current revision.
            self._compiled.note(subject, version)
        return publishing.Offer(version, {}, content, unexpressed)
