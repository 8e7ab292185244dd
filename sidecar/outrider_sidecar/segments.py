# SPDX-License-Identifier: Apache-2.0
"""The journal's folder on disk: one proxy's lock, numbered segments, the head, and space kept free for completions.

Called by journal and its syncs. Knows the chain and no record: frames arrive as bytes. The head is sealed with a key beside
the folder, not in it, so that writing the folder is not enough to move its end. Every failure is JournalUnavailable with what
the system said; nothing half-written is left behind, or it is declared so that the chain can account for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import pathlib
import secrets
import stat

import msgspec

from outrider import chain

HEAD = "head.json"
LOCK = "lock"
KEY = "digest.key"
HEAD_KEY = "journal-key"
"""Beside the folder: what the head is sealed with."""
RESERVE = "reserve"
KEY_BYTES = 32
_SUFFIX = ".seg"


class JournalUnavailable(Exception):
    """The journal cannot take a record now; the text says why and what to do. The call may not happen."""


class JournalDamaged(JournalUnavailable):
    """What is on disk does not verify, so what was spent is not known; nothing was changed."""


def unavailable(doing: str, error: OSError) -> JournalUnavailable:
    """The system's refusal in words; the frequent ones with what helps."""
    remedy = {
        errno.ENOSPC: "; free space on its disk, calls go on by themselves",
        errno.EDQUOT: "; raise the disk quota, calls go on by themselves",
        errno.EFBIG: "; raise the file size limit (ulimit -f)",
        errno.EROFS: "; mount its folder writable",
        errno.EACCES: "; its folder must belong to the proxy's user",
        errno.EIO: "; the disk reports errors",
    }.get(error.errno or 0, "")
    return JournalUnavailable(f"cannot {doing}: {error.strerror or error}{remedy}")


class Segment:
    """One append-only file. `size` is where its last complete frame ends, `excess` what could not be cut off after it."""

    def __init__(self, number: int, fd: int, size: int = 0) -> None:
        self.number = number
        self.fd = fd
        self.size = size
        self.opening_bytes = 0
        self.excess = 0

    def append(self, data: bytes) -> None:
        """One write of one frame. Raises JournalUnavailable, and then nothing of it is left."""
        try:
            written = os.write(self.fd, data)
        except OSError as error:
            raise unavailable("write to the journal", error) from error
        if written == len(data):
            self.size += written
            return
        try:
            os.ftruncate(self.fd, self.size)
        except OSError as error:
            self.excess = written
            raise unavailable("take a partial write back", error) from error
        raise JournalUnavailable(
            f"cannot write to the journal: only {written} of {len(data)} bytes fit; free space on its disk"
            " or raise its file size limit, calls go on by themselves"
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Flush:
    """What one sync makes durable: retired segments (closed after), the current one, and the head that then holds."""

    retired: tuple[Segment, ...]
    current: Segment
    head: chain.Head


class Folder:
    """The folder, held by this process alone until `close`."""

    def __init__(self, path: pathlib.Path, lock: int, reserve_bytes: int) -> None:
        self.path = path
        self.reserve_bytes = reserve_bytes
        self.has_reserve = False
        self._lock = lock
        self._head_key = b""
        self._is_damaged = False

    @classmethod
    def open(cls, path: pathlib.Path, *, reserve_bytes: int) -> Folder:
        """Makes the folder (0700), takes its lock and sets completion space aside if there is any.

        Raises JournalUnavailable when it cannot be used or another proxy uses it.
        """
        lock = -1
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if stat.S_IMODE(path.stat().st_mode) != 0o700:
                path.chmod(0o700)
            lock = os.open(path / LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise JournalUnavailable(
                f"another proxy is using the journal {path}; stop it or give this one a --state folder of its own"
            ) from error
        except OSError as error:
            if lock >= 0:
                os.close(lock)
            raise unavailable(f"open the journal {path}", error) from error
        folder = cls(path, lock, reserve_bytes)
        try:
            folder._head_key = folder._held_head_key()
        except JournalUnavailable:
            folder.close()
            raise
        with contextlib.suppress(
            JournalUnavailable
        ):  # each intent asks for it again, and says why it cannot be
            folder.keep_reserve()
        return folder

    def numbers(self) -> list[int]:
        """The segments that exist, oldest first."""
        names = (entry.name.removesuffix(_SUFFIX) for entry in self.path.glob("*" + _SUFFIX))
        return sorted(int(name) for name in names if name.isdecimal())

    def file(self, number: int) -> pathlib.Path:
        """Where a segment is."""
        return self.path / f"{number:08d}{_SUFFIX}"

    def bytes_besides(self, number: int) -> int:
        """What all segments but one take up; those that are removed meanwhile count nothing."""
        total = 0
        for other in self.numbers():
            try:
                total += self.file(other).stat().st_size if other != number else 0
            except FileNotFoundError:
                continue
        return total

    def head(self) -> chain.Head | None:
        """The head as last written, None when there is none. Raises JournalDamaged when it is not ours."""
        try:
            return chain.read_head((self.path / HEAD).read_bytes(), self._head_key)
        except FileNotFoundError:
            return None
        except chain.Forged as error:
            raise JournalDamaged(
                _damaged(self, f"its head file and {self._head_key_file} do not belong together")
            ) from error
        except ValueError as error:
            raise JournalDamaged(
                f"the journal's head file {self.path / HEAD} is not readable: {error}"
            ) from error

    def begin(self, number: int) -> Segment:
        """A new segment, empty. Raises JournalUnavailable."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return Segment(number, os.open(self.file(number), flags, 0o600))
        except OSError as error:
            raise unavailable("begin a segment of the journal", error) from error

    def discard(self, segment: Segment) -> None:
        """Removes a segment whose opening could not be written."""
        os.close(segment.fd)
        try:
            self.file(segment.number).unlink(missing_ok=True)
        except OSError as error:
            raise unavailable("take back a segment of the journal", error) from error

    def cut(self, number: int, size: int) -> None:
        """Cuts a torn tail off. Raises JournalUnavailable."""
        try:
            os.truncate(self.file(number), size)
        except OSError as error:
            raise unavailable("cut the torn end of the journal", error) from error

    def flush(self, work: Flush) -> None:
        """Makes everything written durable, then says so in the head. Blocks: for the sync thread.

        Raises OSError; and JournalDamaged, once, when a segment is no longer what was written. From then on the head stays
        where the journal should have ended, so that no start takes the folder for whole.
        """
        failed: OSError | None = None
        missing = ""
        for segment in work.retired:
            try:
                os.fdatasync(segment.fd)
                missing = missing or self._missing(segment, segment.size)
            except OSError as error:
                failed = error
            finally:
                os.close(segment.fd)
        if failed is not None:
            raise failed
        os.fdatasync(work.current.fd)
        if self._is_damaged:
            return
        missing = missing or self._missing(work.current, work.head.offset)
        self._is_damaged = bool(missing)
        self.write_head(work.head)
        if missing:
            raise JournalDamaged(_damaged(self, missing))

    def _missing(self, segment: Segment, size: int) -> str:
        """What somebody did to a segment we hold open; "" when it is where it was, with all that was written."""
        held, name = os.fstat(segment.fd), self.file(segment.number).name
        try:
            named = self.file(segment.number).stat()
        except FileNotFoundError:
            return f"{name} was {'deleted' if held.st_nlink == 0 else 'renamed'} while the proxy wrote it"
        if not os.path.samestat(held, named):
            return f"{name} was replaced while the proxy wrote it"
        if held.st_size < size:
            return f"{name} was cut from {size} to {held.st_size} bytes while the proxy wrote it"
        return ""

    def write_head(self, head: chain.Head) -> None:
        """Replaces the head whole, durably, and with it makes new names in the folder durable. Raises OSError."""
        fresh = self.path / (HEAD + ".new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, chain.seal(head, self._head_key))
            os.fdatasync(fd)
        finally:
            os.close(fd)
        fresh.replace(self.path / HEAD)
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def key(self) -> bytes:
        """The key of this journal's digests, made once. Raises JournalUnavailable."""
        path = self.path / KEY
        try:
            key = path.read_bytes() if path.exists() else b""
            if len(key) != KEY_BYTES:
                key = secrets.token_bytes(KEY_BYTES)
                _write(path, key)
        except OSError as error:
            raise unavailable("keep the key of the journal's digests", error) from error
        return key

    @property
    def _head_key_file(self) -> pathlib.Path:
        return self.path.parent / HEAD_KEY

    def _held_head_key(self) -> bytes:
        """The key of the head, made for a journal that has not begun. Raises JournalUnavailable, JournalDamaged."""
        path = self._head_key_file
        try:
            if not path.exists():
                if (self.path / HEAD).exists():
                    raise JournalDamaged(_damaged(self, f"the key of its head, {path}, is missing"))
                fresh = path.with_name(f".{HEAD_KEY}.{os.getpid()}")
                _write(fresh, secrets.token_bytes(chain.KEY_BYTES))
                with contextlib.suppress(FileExistsError):  # another journal beside this one was first
                    os.link(fresh, path)
                fresh.unlink()
            key = path.read_bytes()
        except OSError as error:
            raise unavailable(f"keep the key of the journal's head, {path}", error) from error
        if len(key) != chain.KEY_BYTES:
            raise JournalDamaged(
                _damaged(self, f"the key of its head, {path}, has {len(key)} bytes, not {chain.KEY_BYTES}")
            )
        return key

    def keep_reserve(self) -> None:
        """Sets the completion space aside, unless it is. Raises JournalUnavailable when the disk has no room for it."""
        if self.has_reserve:
            return
        try:
            fd = os.open(self.path / RESERVE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, self.reserve_bytes)
            finally:
                os.close(fd)
        except OSError as error:
            self.free_reserve()  # what was set aside of it would only be missing elsewhere
            raise unavailable("keep space free for the outcomes of calls under way", error) from error
        self.has_reserve = True

    def free_reserve(self) -> None:
        """Gives the completion space back to the disk, for outcomes that otherwise would not fit."""
        self.has_reserve = False
        with contextlib.suppress(OSError):  # a disk that gives nothing back: the write that follows says why
            (self.path / RESERVE).unlink(missing_ok=True)

    def close(self) -> None:
        """Lets the lock go."""
        os.close(self._lock)


def recover(folder: Folder) -> tuple[chain.Head, chain.Report]:
    """Verifies from the head on and cuts what was never promised. Raises JournalDamaged, JournalUnavailable, OSError."""
    head, numbers = folder.head(), folder.numbers()
    if head is None:
        if numbers:
            raise JournalDamaged(_damaged(folder, "its head file is missing"))
        head = chain.Head(0, 0, chain.GENESIS.hex())
        folder.write_head(head)
    first = max(1, head.segment)
    recent = [number for number in numbers if number >= first]
    report = chain.verify(
        ((number, folder.file(number).read_bytes()) for number in recent), head, first=first
    )
    if report.damage is not None:
        at = f"segment {report.damage.segment} offset {report.damage.offset}: {report.damage.why}"
        raise JournalDamaged(_damaged(folder, at))
    for number in recent:
        if number > report.last:
            folder.file(number).unlink()
    if report.torn_bytes and report.last:
        folder.cut(report.last, report.end)
    if head.closed:  # so that a closed head is always the end, also when this start comes to nothing
        folder.write_head(msgspec.structs.replace(head, closed=False))
    return head, report


def _write(path: pathlib.Path, content: bytes) -> None:
    """A file only we may read, on disk when this returns. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)


def _damaged(folder: Folder, what: str) -> str:
    return (
        f"the journal {folder.path} does not verify ({what}), so what was spent is not known;"
        " run `outrider audit verify`, move the folder aside as evidence, then start again"
    )
