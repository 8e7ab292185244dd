# SPDX-License-Identifier: Apache-2.0
"""The chain that makes tampering with the audit show: frames, how to read them, and how to verify a whole journal.

A frame is `length u32 | crc32 u32 | sha256(previous digest + body) | body`, big-endian. Used by the journal to write and to
replay, and by `outrider audit verify`. The head, which says where the chain ends, is sealed with a key that lies elsewhere.
Tamper-evident, never tamper-proof: who has the folder and the key can make a new chain, and who has the folder can put an
older state of all of it back; a digest noted elsewhere tells both. Refuses to repair anything.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from outrider import audit, budgets

GENESIS: Final = bytes(32)
"""What the first frame of the first segment follows."""
FRAME_BYTES_MAX: Final = 64 * 1024 * 1024
"""No body is larger: an opening with 100,000 pools has about 12 MB."""

KEY_BYTES: Final = 32
"""What the head is sealed with."""

_SEAL: Final = b"outrider journal head 1\n"
_HEADER = struct.Struct(">II32s")
HEADER_BYTES: Final = _HEADER.size


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """One frame whose check sums and place in the chain are right; `end` is the offset after it."""

    offset: int
    end: int
    digest: bytes
    body: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Torn:
    """From `offset` on there is no complete frame, as a write that was cut short leaves it."""

    offset: int
    why: str


@dataclasses.dataclass(frozen=True, slots=True)
class Tampered:
    """The frame at `offset` is complete and does not follow the one before it: no crash does that."""

    offset: int
    why: str


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far the journal was on disk at its last sync; kept beside the segments so that a cut tail shows.

    Segment 0 before the first record. `closed`: the proxy ended in peace, nothing was on its way.
    """

    segment: int
    offset: int
    digest: str
    closed: bool = False


class _Sealed(Head, frozen=True, forbid_unknown_fields=True):
    """A head as it stands in its file."""

    mac: str = ""


class Forged(ValueError):
    """A head that was not written by who holds the key."""


@dataclasses.dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong first, and where. `sequence` is that of the last record before it that is right."""

    segment: int
    offset: int
    sequence: int | None
    why: str


class Tally:
    """Adds up records, oldest first: what was spent per pool and period, and which intents still lack an outcome.

    The journal keeps one going while it writes and puts it into every Opening, so that a replay which starts at any
    segment ends with the same sums as one which read everything.
    """

    def __init__(self) -> None:
        self.open_calls: dict[str, audit.OpenCall] = {}
        self.latest = 0.0
        self.boot_id = ""
        self._spent: dict[tuple[str, int, int], int] = {}

    def apply(self, entry: audit.Entry) -> None:
        """Takes one record into account."""
        record = entry.record
        self.latest = max(self.latest, entry.time)
        if isinstance(record, audit.Intent):
            self.open_calls[record.event] = audit.OpenCall(
                event=record.event,
                request_id=record.request_id,
                cost_max=record.cost_max,
                charges=record.charges,
            )
        elif isinstance(record, audit.Outcome):
            self.open_calls.pop(record.event, None)
            self._add(record.charges)
        elif isinstance(record, audit.Opening):
            self.open_calls = {call.event: call for call in record.open_calls}
            self.latest = max(record.latest, entry.time)
            self.boot_id = record.boot_id
            self._spent = {}
            self._add(record.spent)

    def spent(self) -> tuple[budgets.Charge, ...]:
        """What outcomes charged, per pool and period. Periods that ended before the latest record are forgotten."""
        self._spent = {key: amount for key, amount in self._spent.items() if key[2] > self.latest}
        return tuple(budgets.Charge(*key, amount) for key, amount in self._spent.items())

    def _add(self, charges: Iterable[budgets.Charge]) -> None:
        for charge in charges:
            key = (charge.pool, charge.start, charge.end)
            self._spent[key] = self._spent.get(key, 0) + charge.amount


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """What verify found. `torn_bytes` at the very end were never promised to anybody and are no damage.

    The journal goes on after `digest`, which ends at `end` of segment `last` (0 when there is none), with `tally`'s sums.
    """

    segments: int
    records: int
    torn_bytes: int
    damage: Damage | None
    last: int
    end: int
    digest: bytes
    tally: Tally


def seal(head: Head, key: bytes) -> bytes:
    """The content of a head file: the head, and the hex HMAC-SHA256 over all of it."""
    return msgspec.json.encode(_Sealed(head.segment, head.offset, head.digest, head.closed, _mac(head, key)))


def read_head(content: bytes, key: bytes | None = None) -> Head:
    """The head in a head file's content. Raises ValueError when it is not one, Forged when it was not sealed with `key`.

    `key` None believes whatever stands there.
    """
    try:
        held = msgspec.json.decode(content, type=_Sealed)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not a head: {error}") from error
    head = Head(held.segment, held.offset, held.digest, held.closed)
    if key is not None and not hmac.compare_digest(
        held.mac.encode(errors="replace"), _mac(head, key).encode()
    ):
        raise Forged("it was not written by a proxy that holds this key")
    return head


def _mac(head: Head, key: bytes) -> str:
    return hmac.digest(key, _SEAL + msgspec.json.encode(head), "sha256").hex()


def frame(previous: bytes, body: bytes) -> tuple[bytes, bytes]:
    """The frame of `body` after `previous`, and its digest. Raises ValueError for a body above FRAME_BYTES_MAX."""
    if not 0 < len(body) <= FRAME_BYTES_MAX:
        raise ValueError(f"a frame's body has 1 to {FRAME_BYTES_MAX} bytes, not {len(body)}")
    digest = hashlib.sha256(previous + body).digest()
    return _HEADER.pack(len(body), zlib.crc32(body), digest) + body, digest


def scan(data: bytes, previous: bytes, offset: int = 0) -> Iterator[Frame | Torn | Tampered]:
    """Every frame from `offset` on that follows `previous`; a Torn or Tampered, if there is one, comes last."""
    while offset < len(data):
        left = len(data) - offset
        if left < HEADER_BYTES:
            yield Torn(offset, f"{left} bytes are less than a frame's header")
            return
        length, crc, digest = _HEADER.unpack_from(data, offset)
        end = offset + HEADER_BYTES + length
        if not 0 < length <= FRAME_BYTES_MAX:
            yield Torn(offset, f"a frame of {length} bytes cannot be")
            return
        if end > len(data):
            yield Torn(offset, f"the frame needs {end - len(data)} bytes more than there are")
            return
        body = data[offset + HEADER_BYTES : end]
        if zlib.crc32(body) != crc:
            yield Torn(offset, "the check sum does not fit the record")
            return
        if hashlib.sha256(previous + body).digest() != digest:
            yield Tampered(offset, "the record does not follow the one before it")
            return
        yield Frame(offset, end, digest, body)
        previous, offset = digest, end


def opening(data: bytes) -> audit.Opening | None:
    """What the first record of a segment claims, unverified; None when there is no such record."""
    if len(data) < HEADER_BYTES:
        return None
    length = _HEADER.unpack_from(data)[0]
    try:
        record = audit.decode(data[HEADER_BYTES : HEADER_BYTES + length]).record
    except msgspec.DecodeError:
        return None
    return record if isinstance(record, audit.Opening) else None


def verify(
    segments: Iterable[tuple[int, bytes]], head: Head | None, *, first: int = 1, expect: bytes | None = None
) -> Report:
    """Reads segments (number, content; ascending) and says whether anything was edited, deleted, moved or cut off.

    `first` is the number of the oldest segment that must be there: above 1 when older ones were exported and removed.
    `expect` is a digest that was noted of this journal: some record, or what the oldest segment continues, must have it.
    What lies beyond the head of a proxy that did not end in peace is the end of a crash and may be torn; everything else
    that does not fit is damage.
    """
    check = _Verifier(head, first, expect)
    for number, data in segments:
        check.segment(number, data)
        if check.damage is not None:
            break
    else:
        check.finish()
    return Report(
        segments=check.segments,
        records=check.records,
        torn_bytes=check.torn_bytes,
        damage=check.damage,
        last=check.last,
        end=check.end,
        digest=check.previous,
        tally=check.tally,
    )


def _is_digest(text: str) -> bool:
    return re.fullmatch("[0-9a-f]{64}", text) is not None


class _Verifier:
    """The state of one verification: what the next record must be."""

    def __init__(self, head: Head | None, first: int, expect: bytes | None) -> None:
        self.head = head
        self._expect = expect
        self.segments = self.records = self.torn_bytes = 0
        self.damage: Damage | None = None
        self.tally = Tally()
        self.last = 0
        self._number = first
        self.previous = GENESIS
        self.end = 0
        self._sequence: int | None = None
        self._instance = ""
        self._head_seen = head is not None and head.segment == 0
        self._met(GENESIS)

    def segment(self, number: int, data: bytes) -> None:
        if number != self._number:
            self._damaged(self._number, 0, f"segment {self._number} is missing: the next one is {number}")
            return
        claimed = opening(data)
        if self.segments == 0 and number > 1 and claimed is not None and _is_digest(claimed.previous):
            self.previous, self.end = bytes.fromhex(claimed.previous), claimed.previous_bytes
            self._met(self.previous)
        if not self._is_continued(number, claimed, data):
            return
        self.segments, self.torn_bytes, self._number, self.last = self.segments + 1, 0, number + 1, number
        end = 0
        for item in scan(data, self.previous):
            if isinstance(item, Tampered):
                self._damaged(number, item.offset, item.why)
                return
            if isinstance(item, Torn):
                if self._promised(number) > item.offset:
                    self._damaged(number, item.offset, item.why)
                    return
                self.torn_bytes = len(data) - item.offset
                break
            end = item.end
            if not self._record(number, item, is_first=item.offset == 0):
                return
        self.end = end

    def finish(self) -> None:
        """What only shows once everything has been read: an end before the head, or a digest that never came."""
        if self.head is None:
            if self.segments:
                self._damaged(self._number - 1, self.end, "the head file is missing")
        elif not self._head_seen:
            self._damaged(
                self.head.segment,
                self.head.offset,
                f"the journal ends at segment {self._number - 1} offset {self.end},"
                f" and had reached segment {self.head.segment} offset {self.head.offset}",
            )
        if self.damage is None and self._expect is not None:
            self._damaged(
                self.last,
                self.end,
                f"no record has the digest {self._expect.hex()}: what led to it is gone or changed",
            )

    def _met(self, digest: bytes) -> None:
        """The chain passes through `digest`."""
        if digest == self._expect:
            self._expect = None

    def _promised(self, number: int) -> int:
        """Up to which offset this segment was on disk at the last sync."""
        if self.head is None or number > self.head.segment:
            return 0
        return self.head.offset if number == self.head.segment else 0

    def _is_continued(self, number: int, claimed: audit.Opening | None, data: bytes) -> bool:
        if claimed is None:
            if self._promised(number) == 0 and self._may_lack_an_opening(number):
                self.torn_bytes += len(data)
                self._number = number + 1
                return False
            self._damaged(number, 0, "the segment does not begin with an opening record")
        elif self.torn_bytes != claimed.abandoned_bytes:
            self._damaged(number - 1, self.end, f"{self.torn_bytes} bytes follow the last record")
        elif claimed.segment != number:
            self._damaged(number, 0, f"this is segment {claimed.segment}, moved to the place of {number}")
        elif claimed.previous != self.previous.hex() or claimed.previous_bytes != self.end:
            self._damaged(
                number, 0, f"it continues another chain than segment {number - 1}, whose end was changed"
            )
        else:
            return True
        return False

    def _may_lack_an_opening(self, number: int) -> bool:
        """A crash while a segment is begun leaves one without a record; the head cannot be in it or beyond."""
        return self.head is not None and self.head.segment < number

    def _record(self, number: int, item: Frame, *, is_first: bool) -> bool:
        try:
            entry = audit.decode(item.body)
        except msgspec.DecodeError as error:
            self._damaged(number, item.offset, f"not a record this version understands: {error}")
            return False
        fresh = is_first and entry.instance != self._instance
        if self._sequence is not None and not fresh and entry.sequence != self._sequence + 1:
            self._damaged(number, item.offset, f"record {entry.sequence} follows record {self._sequence}")
            return False
        if self.head is not None and (number, item.end) == (self.head.segment, self.head.offset):
            self._head_seen = item.digest.hex() == self.head.digest
        elif (
            self.head is not None
            and self.head.closed
            and (number, item.end) > (self.head.segment, self.head.offset)
        ):
            self._damaged(number, item.offset, "a record follows where the journal was closed")
            return False
        self._met(item.digest)
        self._instance, self._sequence, self.previous = entry.instance, entry.sequence, item.digest
        self.tally.apply(entry)
        self.records += 1
        return True

    def _damaged(self, segment: int, offset: int, why: str) -> None:
        self.damage = Damage(segment, offset, self._sequence, why)
