# SPDX-License-Identifier: Apache-2.0
"""Which running pods an object concerns, and how many of them enforce it as it is.

Called by reporting. Counts pods that run, not streams that are open: a sidecar that nobody hears of is missing from no count. A pod
whose snapshot an object has left counts until it acknowledged that, for until then it may still enforce it.
"""

from __future__ import annotations

from collections.abc import Mapping

from outrider import compile as compiler
from outrider import snapshot
from outrider_operator import conditions, pods, receipts


class Fleet:
    """The running pods, what they acknowledged, and whom each object concerns."""

    def __init__(self, compiled: compiler.Compiler) -> None:
        self._compiled = compiled
        self._pods: dict[compiler.Subject, dict[str, pods.Pod]] = {}
        self._receipts: Mapping[str, receipts.Receipt] = {}
        self._known: Mapping[str, pods.Pod] = {}

    def update(
        self, known: Mapping[str, pods.Pod], given: Mapping[str, receipts.Receipt]
    ) -> frozenset[compiler.Object]:
        """Takes the injected pods and their receipts, by uid; the objects of which something else is true now."""
        moved = {
            subject
            for uid in {*self._known, *known}
            if (self._known.get(uid), self._receipts.get(uid)) != (known.get(uid), given.get(uid))
            for each in (self._known.get(uid), known.get(uid))
            if each is not None
            for subject in [each.subject]
        }
        self._known, self._receipts = dict(known), dict(given)
        for subject in moved:
            self._pods.pop(subject, None)
        for uid, each in known.items():
            if each.running and each.subject in moved:
                self._pods.setdefault(each.subject, {})[uid] = each
        return frozenset(thing for subject in moved for thing in self._settle(subject))

    @property
    def subjects(self) -> frozenset[compiler.Subject]:
        """The workloads that run."""
        return frozenset(self._pods)

    @property
    def older(self) -> frozenset[tuple[compiler.Subject, int]]:
        """The workloads of which a running sidecar reads an older schema, and that."""
        return frozenset(
            (subject, receipt.schema)
            for subject, running in self._pods.items()
            for uid in running
            if (receipt := self._receipts.get(uid)) is not None and receipt.schema != snapshot.SCHEMA
        )

    def of(self, thing: compiler.Object, *, settling: bool = False) -> conditions.Fleet:
        """Where the pods concerned stand. `settling`: other replicas have not reported yet."""
        counted = programmed = 0
        refusals: list[tuple[str, str]] = []
        others: dict[str, list[str]] = {"too_old": [], "unreachable": [], "lagging": []}
        for subject, part in self._compiled.concerned(thing).items():
            for uid, each in self._pods.get(subject, {}).items():
                receipt = self._receipts.get(uid)
                there = receipt is not None and self._compiled.revision(subject, receipt.acked) >= part.since
                if there and not part.held:
                    continue
                counted += 1
                if receipt is not None and there and _expressed(thing, receipt):
                    programmed += 1
                elif receipt is not None and there:
                    others["too_old"].append(str(each))
                elif receipt is not None and receipt.refusal is not None:
                    refusals.append((str(each), _words(receipt.refusal)))
                elif receipt is None or not receipt.connected:
                    others["unreachable"].append(str(each))
                else:
                    others["lagging"].append(str(each))
        return conditions.Fleet(
            pods=counted,
            programmed=programmed,
            refusals=tuple(sorted(refusals)),
            settling=settling,
            **{name: tuple(sorted(found)) for name, found in others.items()},
        )

    def _settle(self, subject: compiler.Subject) -> frozenset[compiler.Object]:
        """Forgets what left the workload's snapshot once all of its pods know; returns everything it is concerned by."""
        concerned = self._compiled.spoken(subject) if subject in self._compiled.subjects else frozenset()
        held = [
            self._compiled.revision(subject, receipt.acked) if (receipt := self._receipts.get(uid)) else 0
            for uid in self._pods.get(subject, ())
        ]
        if subject in self._compiled.subjects:
            # Without a running pod there is nobody left who could enforce what is gone.
            self._compiled.settled(subject, min(held, default=_EVERY_REVISION))
        return concerned


_EVERY_REVISION = 2**62


def _expressed(thing: compiler.Object, receipt: receipts.Receipt) -> bool:
    kind, namespace, name = thing
    return f"{kind} {namespace}/{name}" not in receipt.unexpressed


def _words(refusal: receipts.Refusal) -> str:
    place = " ".join(part for part in (refusal.source, refusal.path) if part)
    return f"{place}: {refusal.error}" if place else refusal.error
