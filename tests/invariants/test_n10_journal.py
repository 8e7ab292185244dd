# SPDX-License-Identifier: Apache-2.0
"""N10: a journal that a running proxy wrote verifies until somebody touches it; then the place of the damage is named."""

from __future__ import annotations

import json
import shutil
import zlib

import pytest
from tests import journals, laptop
from tests.scenarios import recorder

from outrider import audit

SERVER = "tools/recorder"
CALLS = 40


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A laptop that has made calls over three lives of its proxy, so that there are three segments; all is stopped."""
    with recorder.running() as seen:
        files = {
            "all.yaml": laptop.documents(
                laptop.server(SERVER, seen.url),
                laptop.policy("outrider-system/p", SERVER, laptop.allow("echo")),
            )
        }
        with laptop.running(tmp_path_factory.mktemp("journal"), files) as home:
            for life in range(3):
                for number in range(CALLS):
                    assert laptop.reason(home.agent.call(SERVER, "echo", {"token": f"{life}-{number}"})) == ""
                assert laptop.reason(home.agent.call(SERVER, "slow")) == "ToolUnknown"
                if life < 2:
                    home.proxy.kill() if life else home.proxy.stop()
                    home.start_proxy()
            live = home.verify()
            assert live.returncode == 0, live.stdout + live.stderr
            home.proxy.stop()
            yield home


@pytest.fixture
def tampered(written, tmp_path):
    """A copy to do damage to, and the verdict on it."""
    folder = tmp_path / "journal"
    shutil.copytree(written.journal, folder)
    shutil.copy(written.journal.parent / "journal-key", tmp_path)

    def verify():
        return written.outrider("audit", "verify", "--journal", str(folder), "-o", "json")

    assert verify().returncode == 0
    return folder, sorted(folder.glob("*.seg")), verify


def place(verdict):
    """(segment, offset) as the verdict names it."""
    assert verdict.returncode == 1, verdict.stdout + verdict.stderr
    said = json.loads(verdict.stdout)
    assert said["ok"] is False
    assert said["why"]
    return said["segment"], said["offset"]


def test_the_journal_of_three_lives_is_whole(written):
    kept = [each for each in journals.records(written.journal) if isinstance(each, audit.Intent)]
    assert len(kept) == 3 * CALLS
    assert len(list(written.journal.glob("*.seg"))) == 3


@pytest.mark.parametrize("which", [0, 1, 2])
def test_an_edited_record_is_found_at_its_place(tampered, which):
    _, segments, verify = tampered
    data = segments[which].read_bytes()
    at = data.index(b"-17\\")
    [frame] = [each for each in journals.frames(data) if each.offset < at < each.end]
    segments[which].write_bytes(data[:at] + b"-71\\" + data[at + 4 :])
    assert place(verify()) == (which + 1, frame.offset)


def test_an_edit_with_a_mended_checksum_is_found_at_its_place_too(tampered):
    _, segments, verify = tampered
    data = segments[1].read_bytes()
    frame = journals.frames(data)[5]
    body = frame.body.replace(b"tools", b"fools", 1)
    mended = {
        zlib.crc32(frame.body).to_bytes(4, order): zlib.crc32(body).to_bytes(4, order)
        for order in ("big", "little")
    }
    header = data[frame.offset : frame.end - len(body)]
    changed = header
    for before, after in mended.items():
        changed = changed.replace(before, after)
    assert changed != header
    segments[1].write_bytes(data[: frame.offset] + changed + body + data[frame.end :])
    assert place(verify()) == (2, frame.offset)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_deleted_segment_is_found_and_named(tampered, which):
    _, segments, verify = tampered
    segments[which].unlink()
    assert place(verify())[0] == which + 1


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_deleted_record_is_found_at_its_place(tampered, which):
    _, segments, verify = tampered
    data = segments[which].read_bytes()
    gone = journals.frames(data)[5]
    segments[which].write_bytes(data[: gone.offset] + data[gone.end :])
    assert place(verify()) == (which + 1, gone.offset)


def test_two_records_in_the_other_order_are_found_at_their_place(tampered):
    _, segments, verify = tampered
    data = segments[1].read_bytes()
    one, two = journals.frames(data)[4:6]
    swapped = data[two.offset : two.end] + data[one.offset : one.end]
    segments[1].write_bytes(data[: one.offset] + swapped + data[two.end :])
    assert place(verify()) == (2, one.offset)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_segment_cut_after_a_whole_record_is_found_where_the_chain_misses_it(tampered, which):
    _, segments, verify = tampered
    data = segments[which].read_bytes()
    last = journals.frames(data)[-1]
    segments[which].write_bytes(data[: last.offset])
    # The next segment's opening knows how the one before ended; for the last one the head does.
    assert place(verify()) == ((which + 2, 0) if which < 2 else (3, len(data)))


def test_records_cut_off_together_with_a_head_made_by_hand_are_found(tampered):
    folder, segments, verify = tampered
    data = segments[2].read_bytes()
    last = journals.frames(data)[-2]
    segments[2].write_bytes(data[: last.end])
    held = json.loads((folder / "head.json").read_bytes())
    (folder / "head.json").write_text(json.dumps(held | {"offset": last.end, "digest": last.digest.hex()}))
    assert place(verify()) == (3, last.end)


def test_a_proxy_does_not_start_on_a_journal_that_was_edited(written):
    segment = max(written.journal.glob("*.seg"))
    whole = segment.read_bytes()
    at = whole.index(b"-17\\")
    segment.write_bytes(whole[:at] + b"-71\\" + whole[at + 4 :])
    try:
        with pytest.raises(AssertionError, match="ended with 1"):
            written.start_proxy()
        assert "journal" in written.proxy.text().splitlines()[-1]
    finally:
        written.proxy.stop()
        segment.write_bytes(whole)
