# SPDX-License-Identifier: Apache-2.0
"""The chain: whatever is done to a journal, verify finds it; whatever a crash leaves, it forgives."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from outrider import audit, budgets, chain

DAY = 86_400


def charge(amount, pool="crm/b/c", start=0):
    return budgets.Charge(pool, start, start + DAY, amount)


def intent(event, amount=1):
    return audit.Intent(
        event=event, request_id=event, principal=audit.Principal(workload="a/b"), server="crm/s", tool="t",
        snapshot="", charges=(charge(amount),),
    )  # fmt: skip


def outcome(event, amount=1):
    return audit.Outcome(
        event=event,
        request_id=event,
        status=audit.Status.COMPLETED,
        reason="Allowed",
        charges=(charge(amount),),
    )


class Writer:
    """Writes segments as the journal does, without a disk."""

    def __init__(self):
        self.segments = {}
        self.digest, self.number, self.sequence = chain.GENESIS, 0, 0
        self.tally = chain.Tally()

    def roll(self, **fields):
        previous_bytes = len(self.segments.get(self.number, b"")) - fields.get("abandoned_bytes", 0)
        self.number += 1
        self.segments[self.number] = b""
        self.put(
            audit.Opening(
                segment=self.number,
                boot_id="boot",
                previous=self.digest.hex(),
                previous_bytes=previous_bytes,
                latest=self.tally.latest,
                spent=self.tally.spent(),
                open_calls=tuple(self.tally.open_calls.values()),
                **fields,
            )
        )

    def put(self, record):
        self.sequence += 1
        entry = audit.Entry(instance="i", sequence=self.sequence, time=float(self.sequence), record=record)
        data, self.digest = chain.frame(self.digest, audit.encode(entry))
        self.segments[self.number] += data
        self.tally.apply(entry)

    @property
    def head(self):
        return chain.Head(self.number, len(self.segments[self.number]), self.digest.hex())


def journal(segments=3, calls=3):
    writer = Writer()
    for number in range(segments):
        writer.roll()
        for call in range(calls):
            writer.put(intent(f"{number}-{call}", amount=call + 1))
            if call:
                writer.put(outcome(f"{number}-{call}", amount=call))
    return writer


WHOLE = journal()


def verify(segments, head=WHOLE.head, **options):
    return chain.verify(sorted(segments.items()), head, **options)


def frames(data, previous):
    return [item for item in chain.scan(data, previous) if isinstance(item, chain.Frame)]


def test_a_journal_nobody_touched_verifies():
    report = verify(WHOLE.segments)
    assert report.damage is None
    assert (report.segments, report.records, report.torn_bytes) == (3, 18, 0)
    assert (report.last, report.end, report.digest) == (3, len(WHOLE.segments[3]), WHOLE.digest)
    assert sorted(report.tally.open_calls) == ["0-0", "1-0", "2-0"]


def test_a_journal_that_has_not_begun_verifies():
    assert verify({}, chain.Head(0, 0, chain.GENESIS.hex())).damage is None


def test_a_frame_is_length_check_sum_digest_and_body():
    data, digest = chain.frame(chain.GENESIS, b"body")
    assert data[:4] == b"\x00\x00\x00\x04"
    assert data[8:40] == digest
    assert data[40:] == b"body"
    assert [frame.body for frame in frames(data, chain.GENESIS)] == [b"body"]


@pytest.mark.parametrize("size", [0, chain.FRAME_BYTES_MAX + 1])
def test_a_body_no_reader_would_accept_is_not_framed(size):
    with pytest.raises(ValueError, match="1 to"):
        chain.frame(chain.GENESIS, bytes(size))


@given(st.data())
def test_changing_any_byte_anywhere_is_found(data):
    number = data.draw(st.sampled_from(sorted(WHOLE.segments)))
    content = bytearray(WHOLE.segments[number])
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    damage = verify(WHOLE.segments | {number: bytes(content)}).damage
    assert damage is not None
    assert damage.segment == number
    assert damage.offset <= at


@given(st.data())
def test_cutting_anything_off_any_segment_is_found(data):
    number = data.draw(st.sampled_from(sorted(WHOLE.segments)))
    content = WHOLE.segments[number]
    assert verify(WHOLE.segments | {number: content[: data.draw(st.integers(0, len(content) - 1))]}).damage


@given(st.data())
def test_taking_a_record_out_is_found(data):
    number = data.draw(st.sampled_from(sorted(WHOLE.segments)))
    content, previous = WHOLE.segments[number], b""
    opening = chain.opening(content)
    previous = bytes.fromhex(opening.previous)
    frame = data.draw(st.sampled_from(frames(content, previous)))
    assert verify(WHOLE.segments | {number: content[: frame.offset] + content[frame.end :]}).damage


@given(st.data())
def test_moving_or_repeating_records_is_found(data):
    number = data.draw(st.sampled_from(sorted(WHOLE.segments)))
    content = WHOLE.segments[number]
    found = frames(content, bytes.fromhex(chain.opening(content).previous))
    pieces = [content[frame.offset : frame.end] for frame in found]
    order = data.draw(st.lists(st.integers(0, len(pieces) - 1), min_size=1, max_size=len(pieces) + 1))
    moved = b"".join(pieces[at] for at in order)
    damage = verify(WHOLE.segments | {number: moved}).damage
    assert (damage is None) is (moved == content)


@given(st.permutations([1, 2, 3]), st.sets(st.sampled_from([1, 2, 3])))
def test_deleting_or_swapping_segments_is_found(order, gone):
    segments = {
        place: WHOLE.segments[number]
        for place, number in zip((1, 2, 3), order, strict=True)
        if place not in gone
    }
    untouched = segments == WHOLE.segments
    assert (verify(segments).damage is None) is untouched


@given(st.binary(min_size=1, max_size=50))
def test_adding_to_a_sealed_segment_is_found(extra):
    assert verify(WHOLE.segments | {2: WHOLE.segments[2] + extra}).damage.segment == 2


def test_a_rewritten_record_with_a_right_check_sum_is_found():
    content = WHOLE.segments[2]
    frame = frames(content, bytes.fromhex(chain.opening(content).previous))[1]
    forged, _ = chain.frame(bytes(32), frame.body.replace(b'"t"', b'"u"'))
    damage = verify(WHOLE.segments | {2: content[: frame.offset] + forged + content[frame.end :]}).damage
    assert (damage.segment, damage.offset) == (2, frame.offset)
    assert "does not follow" in damage.why
    assert damage.sequence == 7


def test_the_oldest_segments_may_be_missing_only_when_that_is_said():
    later = {number: content for number, content in WHOLE.segments.items() if number > 1}
    assert "segment 1 is missing" in verify(later).damage.why
    report = verify(later, first=2)
    assert report.damage is None
    assert report.tally.spent() == WHOLE.tally.spent()


def test_a_missing_head_is_found():
    assert "head file is missing" in verify(WHOLE.segments, None).damage.why


def test_what_a_crash_tears_beyond_the_head_is_forgiven_and_counted():
    writer = journal(segments=2)
    head, end = writer.head, len(writer.segments[2])
    writer.put(intent("late"))
    torn = writer.segments | {2: writer.segments[2][:-5]}
    report = verify(torn, head)
    assert report.damage is None
    assert (report.torn_bytes, report.end) == (len(torn[2]) - end, end)
    zeros = verify(writer.segments | {2: writer.segments[2] + bytes(4096)}, head)
    assert (zeros.damage, zeros.torn_bytes) == (None, 4096)


def test_a_forged_record_beyond_the_head_is_still_found():
    writer = journal(segments=1)
    head, content = writer.head, writer.segments[1]
    forged, _ = chain.frame(bytes(32), b"{}")
    assert verify({1: content + forged}, head).damage.offset == len(content)


def test_a_segment_that_was_only_begun_is_forgiven_when_it_was_never_promised():
    writer = journal(segments=1)
    head = writer.head
    writer.roll()
    for size in (0, 10, len(writer.segments[2]) - 1):
        report = verify(writer.segments | {2: writer.segments[2][:size]}, head)
        assert (report.damage, report.last, report.torn_bytes) == (None, 1, size)


def test_bytes_that_could_not_be_cut_are_declared_by_the_next_segment():
    writer = journal(segments=1)
    writer.segments[1] += b"half a frame"
    writer.roll(abandoned_bytes=12)
    assert verify(writer.segments, writer.head).damage is None
    assert verify(writer.segments | {1: writer.segments[1] + b"!"}, writer.head).damage.segment == 1


def test_a_record_number_that_does_not_follow_is_found():
    writer = journal(segments=1)
    writer.sequence += 1
    writer.put(intent("skipped"))
    assert "follows record" in verify(writer.segments, writer.head).damage.why


def test_a_record_that_cannot_be_read_is_damage_and_not_an_exception():
    writer = journal(segments=1)
    data, digest = chain.frame(writer.digest, b'{"no": "record"}')
    writer.segments[1] += data
    writer.digest = digest
    assert "not a record" in verify(writer.segments, writer.head).damage.why


@given(st.binary(max_size=200))
def test_any_bytes_can_be_read_without_an_exception(content):
    assert len(list(chain.scan(content, chain.GENESIS))) <= 2
    assert chain.opening(content) is None
    assert verify({1: content}, chain.Head(0, 0, "")).records == 0


@given(
    st.lists(st.tuples(st.sampled_from("io"), st.integers(0, 5), st.integers(1, 9)), max_size=30),
    st.sets(st.integers(0, 30)),
)
def test_a_tally_from_any_segment_on_ends_with_the_sums_of_all(steps, rolls):
    writer = Writer()
    writer.roll()
    for at, (kind, event, amount) in enumerate(steps):
        if at in rolls:
            writer.roll()
        writer.put(intent(str(event), amount) if kind == "i" else outcome(str(event), amount))
    whole = verify(writer.segments, writer.head).tally
    for first in writer.segments:
        later = {number: content for number, content in writer.segments.items() if number >= first}
        tally = verify(later, writer.head, first=first).tally
        assert (tally.spent(), tally.open_calls, tally.latest) == (
            whole.spent(),
            whole.open_calls,
            whole.latest,
        )


def test_periods_that_ended_are_forgotten_once_time_has_passed_them():
    tally = chain.Tally()
    for time, start in ((10.0, 0), (DAY + 1.0, DAY)):
        record = audit.Outcome(
            event="e", request_id="r", status=audit.Status.COMPLETED, reason="Allowed",
            charges=(charge(5, start=start),),
        )  # fmt: skip
        tally.apply(audit.Entry(instance="i", sequence=1, time=time, record=record))
    assert tally.spent() == (charge(5, start=DAY),)


KEY = bytes(range(32))


def test_a_sealed_head_is_read_back_with_its_key_and_without_one():
    content = chain.seal(WHOLE.head, KEY)
    assert chain.read_head(content, KEY) == chain.read_head(content) == WHOLE.head


@given(st.sampled_from(["segment", "offset", "digest", "closed", "mac"]), st.data())
def test_a_head_that_was_changed_or_sealed_with_another_key_is_forged(field, data):
    held = json.loads(chain.seal(WHOLE.head, KEY))
    changed = data.draw({bool: st.booleans(), int: st.integers(0, 2**40), str: st.text()}[type(held[field])])
    assume(changed != held[field])
    with pytest.raises(chain.Forged):
        chain.read_head(json.dumps(held | {field: changed}).encode(), KEY)
    with pytest.raises(chain.Forged):
        chain.read_head(chain.seal(WHOLE.head, bytes(32)), KEY)


def test_a_head_without_a_seal_is_forged():
    held = json.loads(chain.seal(WHOLE.head, KEY))
    del held["mac"]
    with pytest.raises(chain.Forged):
        chain.read_head(json.dumps(held).encode(), KEY)


@given(st.data())
def test_a_digest_that_was_noted_is_found_as_long_as_its_record_is_there(data):
    number = data.draw(st.sampled_from(sorted(WHOLE.segments)))
    found = frames(WHOLE.segments[number], bytes.fromhex(chain.opening(WHOLE.segments[number]).previous))
    noted = data.draw(st.sampled_from(found)).digest
    assert verify(WHOLE.segments, expect=noted).damage is None


def test_a_journal_made_anew_up_to_its_head_lacks_the_digest_that_was_noted():
    other = journal(calls=2)
    assert verify(other.segments, other.head).damage is None
    damage = verify(other.segments, other.head, expect=WHOLE.digest).damage
    assert f"no record has the digest {WHOLE.digest.hex()}" in damage.why
    assert damage.segment == 3


def test_a_digest_of_segments_that_were_removed_is_what_the_oldest_one_continues():
    noted = bytes.fromhex(chain.opening(WHOLE.segments[2]).previous)
    later = {number: content for number, content in WHOLE.segments.items() if number > 1}
    assert verify(later, first=2, expect=noted).damage is None
    latest = {3: WHOLE.segments[3]}
    assert verify(latest, first=3, expect=noted).damage is not None


def test_nothing_follows_where_a_journal_was_closed():
    writer = journal(segments=1)
    head = msgspec.structs.replace(writer.head, closed=True)
    end = len(writer.segments[1])
    assert verify(writer.segments, head).damage is None
    writer.put(intent("forged"))
    damage = verify(writer.segments, head).damage
    assert (damage.segment, damage.offset) == (1, end)
    assert "closed" in damage.why
    fresh = journal(segments=1)
    fresh.roll()
    assert verify(fresh.segments, head).damage.segment == 2
