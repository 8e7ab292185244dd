# SPDX-License-Identifier: Apache-2.0
"""A folder of YAML files, watched.

Called by main. The content decides, not the clock: a folder is read again when anything about its files changed or changed
very recently, and only different bytes are a change. Refuses to take an absent, unreadable or empty folder for one that
says nothing: that is a problem, and what was in force stays.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
import pathlib
import stat
import time
from collections.abc import AsyncIterator, Mapping

from outrider import manifests, resources

POLL_SECONDS = 0.15
DEBOUNCE_SECONDS = 0.05
DEBOUNCE_SECONDS_MAX = 0.5
"""A file that is being written is read when it has been still for a moment, and at the latest after this."""

FILES_MAX = 1_000
_RECENT_SECONDS = 2.0
"""File times are coarse: what changed this recently is read again even if nothing about it looks different."""

_Marks = tuple[tuple[str, int, int, int, int], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """One look at the source: a World, or every problem that stands in its way."""

    world: resources.World | None
    problems: tuple[manifests.Problem, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class _Contents:
    """The bytes of every file, what could not be read, and a digest of both."""

    files: Mapping[str, bytes]
    problems: tuple[manifests.Problem, ...]
    digest: str


class Folder:
    """The `*.yaml` and `*.yml` files directly in one folder; names that begin with a point are nobody's business."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self._marks: _Marks | None = None
        self._digest = ""

    async def readings(self) -> AsyncIterator[Reading]:
        """The first reading at once, then one after every change of the content; never ends."""
        while True:
            contents = await asyncio.to_thread(self._look)
            if contents is not None and contents.digest != self._digest:
                contents = await self._settled(contents)
                self._digest = contents.digest
                yield await asyncio.to_thread(self._parsed, contents)
            await asyncio.sleep(POLL_SECONDS)

    async def _settled(self, contents: _Contents) -> _Contents:
        """The contents once they were the same twice, so that half a file is not taken for a whole one."""
        if not self._digest:
            return contents
        waited = 0.0
        while waited < DEBOUNCE_SECONDS_MAX:
            await asyncio.sleep(DEBOUNCE_SECONDS)
            waited += DEBOUNCE_SECONDS
            again = await asyncio.to_thread(self._contents)
            if again.digest == contents.digest:
                break
            contents = again
        return contents

    def _look(self) -> _Contents | None:
        """The contents if they may have changed since the last look; None when they cannot have."""
        try:
            marks = self._mark()
        except OSError:
            return self._contents()
        recent = any(time.time() - max(mark[1], mark[4]) / 1e9 < _RECENT_SECONDS for mark in marks)
        if marks == self._marks and not recent:
            return None
        self._marks = marks
        return self._contents()

    def _mark(self) -> _Marks:
        found = []
        for name in self._names():
            status = (self._directory / name).stat()
            found.append((name, status.st_mtime_ns, status.st_size, status.st_ino, status.st_ctime_ns))
        return tuple(found)

    def _names(self) -> list[str]:
        listed = (path.name for path in self._directory.iterdir())
        return sorted(
            name for name in listed if name.endswith((".yaml", ".yml")) and not name.startswith(".")
        )

    def _contents(self) -> _Contents:
        files: dict[str, bytes] = {}
        problems: list[manifests.Problem] = []
        try:
            found = self._names()
        except OSError as error:
            found = []
            problems.append(_problem(str(self._directory), f"the folder cannot be read: {error.strerror}"))
        if not found and not problems:
            text = "the folder holds no *.yaml file; to deny everything, keep outrider.yaml alone"
            problems.append(_problem(str(self._directory), text))
        if len(found) > FILES_MAX:
            problems.append(_problem(str(self._directory), f"holds more than {FILES_MAX} files"))
        for name in found[:FILES_MAX]:
            shown = name.encode("utf-8", "replace").decode()
            try:
                files[shown] = _read(self._directory / name)
            except OSError as error:
                problems.append(_problem(shown, f"cannot be read: {error.strerror or error}"))
        digest = hashlib.sha256()
        for name, content in files.items():
            digest.update(b"%d:%s%d:%s" % (len(name.encode()), name.encode(), len(content), content))
        digest.update(repr(problems).encode())
        return _Contents(files, tuple(problems), digest.hexdigest())

    def _parsed(self, contents: _Contents) -> Reading:
        problems = list(contents.problems)
        world = None
        try:
            world = manifests.load(contents.files, folder=str(self._directory))
        except manifests.ManifestError as error:
            problems += error.problems
        if world is not None and world.settings.workload is None and not problems:
            text = "required on a laptop: the namespace and serviceAccount that the proxy speaks for"
            problems.append(manifests.Problem("outrider.yaml", 0, "workload", text))
        return Reading(None if problems else world, tuple(problems))


def _read(path: pathlib.Path) -> bytes:
    """The file, at most one byte more than is allowed. Never waits: a pipe or a device is not a file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise OSError(0, "not a regular file")
        return opened.read(manifests.FILE_BYTES_MAX + 1)


def _problem(file: str, message: str) -> manifests.Problem:
    return manifests.Problem(file, 0, "", message)
