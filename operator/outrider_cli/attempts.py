# SPDX-License-Identifier: Apache-2.0
"""Reads a journal from its files and joins its records into attempts: one row for each call or refusal.

Used by `outrider audit` and `outrider explain`. Reads beside a running proxy without taking its lock. Refuses to change
anything, and to vouch for anything: that is `outrider audit verify`.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from outrider import audit, budgets, chain

HEAD = "head.json"
SUFFIX = ".seg"


USER_FIELDS: Mapping[str, Any] = MappingProxyType(
    {"user": "", "names": [], "client": "", "actor": "", "groups": [], "groupsLeftOut": 0}
)
"""What a row says of the user behind the agent; these where there is none."""


class JournalUnreadable(Exception):
    """There is no journal, or it may not be read; the text says where and what to do."""


@dataclasses.dataclass(frozen=True, slots=True)
class Break:
    """Where reading a segment had to stop although records follow."""

    segment: int
    offset: int
    why: str


def place(folder: pathlib.Path, journal: pathlib.Path | None) -> pathlib.Path:
    """The journal's folder: as named, or that of `outrider dev` in `folder`, or `folder` itself when it holds one.

    Raises JournalUnreadable when there is none.
    """
    candidates = [journal] if journal is not None else [folder / ".outrider" / "journal", folder]
    for candidate in candidates:
        try:
            if any(candidate.glob("*" + SUFFIX)) or (candidate / HEAD).exists():
                return candidate
        except OSError as error:
            raise JournalUnreadable(f"cannot read {candidate}: {error.strerror}") from error
    raise JournalUnreadable(
        f"there is no journal in {candidates[0]}; start `outrider dev`, or name one with --journal DIR"
    )


def segments(journal: pathlib.Path) -> list[tuple[int, pathlib.Path]]:
    """The segments that exist, oldest first."""
    found = [(path.name.removesuffix(SUFFIX), path) for path in journal.glob("*" + SUFFIX)]
    return sorted((int(name), path) for name, path in found if name.isdecimal())


class Reader:
    """Gives every record once, oldest first; asked again, what has been written since. `breaks` says what it skipped."""

    def __init__(self, journal: pathlib.Path) -> None:
        self.breaks: list[Break] = []
        self._journal = journal
        self._number = 0
        self._offset = 0
        self._previous = chain.GENESIS

    def bodies(self) -> Iterator[bytes]:
        """The records as they stand in the journal: one JSON document each. Raises JournalUnreadable."""
        for number, path in segments(self._journal):
            if number < self._number:
                continue
            try:
                with path.open("rb") as file:
                    if number > self._number:
                        self._begin(number, file.read())
                    file.seek(self._offset)
                    data = file.read()
            except FileNotFoundError:
                continue  # exported and removed meanwhile
            except OSError as error:
                raise JournalUnreadable(f"cannot read {path}: {error.strerror}") from error
            yield from self._scanned(number, data)

    def entries(self) -> Iterator[audit.Entry]:
        """The records, decoded. Raises JournalUnreadable, also for one of a later version."""
        for body in self.bodies():
            try:
                yield audit.decode(body)
            except msgspec.DecodeError as error:
                raise JournalUnreadable(
                    f"segment {self._number} holds a record this version cannot read ({error});"
                    " use the `outrider` that belongs to the proxy"
                ) from error

    def _begin(self, number: int, data: bytes) -> None:
        claimed = chain.opening(data)
        self._number, self._offset = number, 0
        try:
            self._previous = bytes.fromhex(claimed.previous) if claimed is not None else chain.GENESIS
        except ValueError:
            self._previous = chain.GENESIS

    def _scanned(self, number: int, data: bytes) -> Iterator[bytes]:
        start = self._offset
        for item in chain.scan(data, self._previous):
            if isinstance(item, chain.Frame):
                self._offset, self._previous = start + item.end, item.digest
                yield item.body
            elif isinstance(item, chain.Tampered):
                found = Break(number, start + item.offset, item.why)
                if found not in self.breaks:
                    self.breaks.append(found)


def rows(entries: Iterable[audit.Entry], under_way: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row per attempt that has ended, in the order of their ends; the others stay in `under_way`, by event."""
    for entry in entries:
        record = entry.record
        if isinstance(record, audit.Intent):
            under_way[record.event] = _row(entry, decision="Allowed") | {"status": "Open"}
        elif isinstance(record, audit.Outcome):
            row = under_way.pop(record.event, {"time": entry.time, "decision": "Allowed"})
            yield row | _known(record) | {"endedAt": entry.time, "cost": money(record.cost)}
        elif isinstance(record, audit.RefusalRecord):
            yield _row(entry, decision="Refused")
        elif isinstance(record, audit.Summary):
            for reason, count in record.counts.items():
                yield {
                    "type": "summary",
                    "time": record.since,
                    "endedAt": record.until,
                    "decision": "Refused",
                    "reason": reason,
                    "count": count,
                    "why": record.why,
                }


def money(micros: int) -> str:
    """Micro-units as a decimal number: exact, without zeros at the end."""
    whole, rest = divmod(abs(micros), budgets.MICRO)
    text = f"{whole}.{rest:06d}".rstrip("0").rstrip(".")
    return f"-{text}" if micros < 0 else text


def _row(entry: audit.Entry, *, decision: str) -> dict[str, Any]:
    row = _known(entry.record)
    who = row.pop("principal", None) or {}
    return {
        "time": entry.time,
        "instance": entry.instance,
        "sequence": entry.sequence,
        "decision": decision,
        "principal": who.get("workload", ""),
        "teams": who.get("teams", []),
        **{field: who.get(field, empty) for field, empty in USER_FIELDS.items()},
        **row,
    }


def _known(record: audit.Record) -> dict[str, Any]:
    """The record's fields, defaults included, so that a row always has the same ones."""
    fields: dict[str, Any] = {}
    for field in msgspec.structs.fields(record):
        value = getattr(record, field.name)
        fields[field.encode_name] = msgspec.to_builtins(value)
    if "cost" in fields:
        fields["costMicros"] = fields["cost"]
    return fields
