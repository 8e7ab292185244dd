# SPDX-License-Identifier: Apache-2.0
"""The journal's folder on a real disk: private, locked, and never left with half a frame."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import textwrap

import pytest

from outrider import chain
from outrider_sidecar import segments

GENESIS_HEAD = chain.Head(0, 0, chain.GENESIS.hex())


@pytest.fixture
def folder(tmp_path):
    held = segments.Folder.open(tmp_path / "journal", reserve_bytes=8192)
    yield held
    held.close()


def test_the_folder_and_its_files_are_private(tmp_path):
    (tmp_path / "journal").mkdir(mode=0o755)
    held = segments.Folder.open(tmp_path / "journal", reserve_bytes=8192)
    os.close(held.begin(1).fd)
    held.write_head(GENESIS_HEAD)
    held.key()
    assert stat.S_IMODE(held.path.stat().st_mode) == 0o700
    files = [*held.path.iterdir(), tmp_path / "journal-key"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert {path.name for path in tmp_path.iterdir()} == {"journal", "journal-key"}
    held.close()


def test_two_proxies_never_share_a_journal(folder):
    with pytest.raises(segments.JournalUnavailable, match="another proxy"):
        segments.Folder.open(folder.path, reserve_bytes=8192)


def test_a_lock_ends_with_its_holder(folder):
    folder.close()
    again = segments.Folder.open(folder.path, reserve_bytes=8192)
    assert again.has_reserve
    folder._lock = os.dup(again._lock)
    again.close()


def test_a_folder_that_cannot_be_made_is_said_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(segments.JournalUnavailable, match=r"cannot open the journal .*Not a directory"):
        segments.Folder.open(tmp_path / "file" / "journal", reserve_bytes=8192)


def test_completion_space_is_really_taken_from_the_disk(folder):
    assert (folder.path / "reserve").stat().st_blocks * 512 >= 8192
    folder.free_reserve()
    assert not (folder.path / "reserve").exists()
    folder.keep_reserve()
    assert folder.has_reserve


def test_segments_are_found_in_order_and_strangers_left_alone(folder):
    for number in (2, 10, 1):
        os.close(folder.begin(number).fd)
    (folder.path / "notes.seg").write_text("mine")
    assert folder.numbers() == [1, 2, 10]
    with pytest.raises(segments.JournalUnavailable, match="File exists"):
        folder.begin(2)


def test_the_size_of_the_others_is_what_the_cap_counts(folder):
    for number in (1, 2, 3):
        segment = folder.begin(number)
        segment.append(b"x" * number)
        os.close(segment.fd)
    assert folder.bytes_besides(3) == 3


def test_a_head_is_replaced_whole_and_read_back(folder):
    assert folder.head() is None
    for offset in (5, 7):
        folder.write_head(chain.Head(1, offset, "ab"))
    assert folder.head() == chain.Head(1, 7, "ab")
    (folder.path / "head.json").write_text("{")
    with pytest.raises(segments.JournalDamaged, match="not readable"):
        folder.head()


def opened(path):
    return segments.Folder.open(path, reserve_bytes=8192)


def test_a_head_of_anybody_without_the_key_is_refused(folder):
    for content in (chain.seal(GENESIS_HEAD, bytes(32)), b'{"segment":0,"offset":0,"digest":""}'):
        (folder.path / "head.json").write_bytes(content)
        with pytest.raises(segments.JournalDamaged, match=r"head file and .*journal-key do not belong"):
            folder.head()


def test_the_heads_key_is_made_once_outside_the_folder_and_shared_by_its_neighbours(tmp_path):
    first = opened(tmp_path / "one")
    first.write_head(GENESIS_HEAD)
    key = (tmp_path / "journal-key").read_bytes()
    assert len(key) == 32
    second = opened(tmp_path / "two")
    second.close()
    first.close()
    again = opened(tmp_path / "one")
    assert again.head() == GENESIS_HEAD
    again.close()
    assert (tmp_path / "journal-key").read_bytes() == key


@pytest.mark.parametrize("key", [None, b"", b"short"])
def test_a_journal_whose_key_is_gone_or_spoilt_is_not_used_and_gives_its_lock_back(tmp_path, key):
    held = opened(tmp_path / "journal")
    held.write_head(GENESIS_HEAD)
    held.close()
    path = tmp_path / "journal-key"
    kept = path.read_bytes()
    path.unlink() if key is None else path.write_bytes(key)
    with pytest.raises(
        segments.JournalDamaged, match=f"{path}, (is missing|has {len(key or b'')} bytes, not 32)"
    ):
        opened(tmp_path / "journal")
    path.write_bytes(kept)
    opened(tmp_path / "journal").close()


def cut(path):
    os.truncate(path, 3)


def rename(path):
    path.rename(path.with_suffix(".old"))


def replace(path):
    rename(path)
    path.write_bytes(b"12345")


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (cut, "00000001.seg was cut from 5 to 3 bytes"),
        (rename, "00000001.seg was renamed"),
        (replace, "00000001.seg was replaced"),
        (os.unlink, "00000001.seg was deleted"),
    ],
)
@pytest.mark.parametrize("is_current", [True, False])
def test_a_flush_notices_what_was_done_to_a_segment_and_leaves_the_head_where_the_end_should_be(
    folder, how, why, is_current
):
    segment, other = folder.begin(1), folder.begin(2)
    segment.append(b"12345")
    how(folder.file(1))
    head = chain.Head(1, 5, "ab") if is_current else chain.Head(2, 0, "ab")
    work = segments.Flush((), segment, head) if is_current else segments.Flush((segment,), other, head)
    with pytest.raises(segments.JournalDamaged, match=f"{why}.*move the folder aside"):
        folder.flush(work)
    assert folder.head() == head
    folder.flush(segments.Flush((), other, chain.Head(2, 9, "cd")))
    assert folder.head() == head
    os.close(other.fd)
    if is_current:
        os.close(segment.fd)


def test_a_segment_with_more_bytes_than_were_promised_is_whole(folder):
    segment = folder.begin(1)
    segment.append(b"12345")
    folder.flush(segments.Flush((), segment, chain.Head(1, 3, "ab")))
    assert folder.head() == chain.Head(1, 3, "ab")
    os.close(segment.fd)


def test_the_key_is_made_once(folder):
    key = folder.key()
    assert len(key) == 32
    assert folder.key() == key


def test_a_flush_closes_what_is_retired_and_moves_the_head(folder):
    old, new = folder.begin(1), folder.begin(2)
    folder.flush(segments.Flush((old,), new, chain.Head(2, 0, "cd")))
    assert folder.head() == chain.Head(2, 0, "cd")
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(old.fd)
    os.close(new.fd)


def test_a_flush_that_fails_closes_what_is_retired_and_leaves_the_head(folder):
    folder.write_head(GENESIS_HEAD)
    reading, writing = os.pipe()
    current = folder.begin(1)
    with pytest.raises(OSError, match="Invalid argument"):
        folder.flush(segments.Flush((segments.Segment(7, writing),), current, chain.Head(1, 0, "")))
    assert folder.head() == GENESIS_HEAD
    assert os.read(reading, 1) == b"", "the writing end is closed"
    os.close(reading)
    os.close(current.fd)


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "free space"),
        (errno.EROFS, "mount its folder writable"),
        (errno.EIO, "disk reports errors"),
    ],
)
def test_failures_say_what_the_system_said_and_what_helps(code, remedy):
    text = str(segments.unavailable("write to the journal", OSError(code, os.strerror(code))))
    assert os.strerror(code) in text
    assert remedy in text


PARTIAL = """
    import pathlib, resource, sys
    from outrider_sidecar import segments
    folder = segments.Folder.open(pathlib.Path(sys.argv[1]), reserve_bytes=16)
    segment = folder.begin(1)
    segment.append(b"a" * 60)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    for size in (60, 60):
        try:
            segment.append(b"b" * size)
        except segments.JournalUnavailable as error:
            print(error)
    print(folder.file(1).stat().st_size, segment.size, segment.excess)
    segment.append(b"c" * 40)
    try:
        segment.append(b"d")
    except segments.JournalUnavailable as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    segment.append(b"e" * 50)
    print(folder.file(1).read_bytes().decode())
"""


def test_a_write_that_fits_only_in_part_is_taken_back(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PARTIAL), str(tmp_path / "journal")],
        capture_output=True,
        text=True,
        check=True,
    )
    first, second, sizes, third, content = ran.stdout.splitlines()
    assert "only 40 of 60 bytes fit" in first
    assert "only 40 of 60 bytes fit" in second
    assert sizes == "60 60 0"
    assert "File too large" in third
    assert content == "a" * 60 + "c" * 40 + "e" * 50
