# SPDX-License-Identifier: Apache-2.0
"""Who is at the other end of a config stream: a token in, a subject out, or nobody.

Called by publishing for every request, before its body is read. On a laptop the token is one of a file that only its owner
can read; in a cluster the same protocol will be a TokenReview. Refuses whatever it cannot compare.
"""

from __future__ import annotations

import hmac
import os
import pathlib
import secrets
import stat
from typing import Protocol

TOKEN_BYTES = 32
_TOKEN_CHARACTERS_MIN = 32
_FILE_BYTES_MAX = 4096


class TokenFileError(Exception):
    """The token's file cannot be used; the text says why and what to do."""


class Reviewer(Protocol):
    """Tells who presents a token."""

    async def review(self, token: str) -> str | None:
        """The subject the token stands for; None when it stands for nobody."""


class FileReviewer:
    """The one token of a file, read anew each time: it may have been replaced."""

    __slots__ = ("_file",)

    def __init__(self, file: pathlib.Path) -> None:
        self._file = file

    async def review(self, token: str) -> str | None:
        try:
            wanted = read(self._file)
        except TokenFileError:
            return None
        # Compared as bytes: compare_digest takes constant time, and refuses text that is not ASCII.
        return (
            "laptop"
            if hmac.compare_digest(token.encode("utf-8", "surrogateescape"), wanted.encode())
            else None
        )


def ensure(file: pathlib.Path) -> None:
    """Makes the file with a fresh token, mode 0600, if it is absent. Raises TokenFileError if it cannot be used."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        read(file)
        return
    except OSError as error:
        raise TokenFileError(
            f"the token file {file} cannot be made: {error.strerror}; choose another folder"
        ) from None
    with os.fdopen(descriptor, "w") as opened:
        opened.write(secrets.token_hex(TOKEN_BYTES) + "\n")
        opened.flush()
        os.fsync(opened.fileno())


def read(file: pathlib.Path) -> str:
    """The token. Raises TokenFileError when others could read it too, or when it is too short to be one."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise TokenFileError(f"the token file {file} cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as opened:
        status = os.fstat(opened.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise TokenFileError(f"the token file {file} is not a regular file")
        if status.st_mode & 0o077:
            raise TokenFileError(f"others may read the token file {file}; run: chmod 600 {file}")
        token = opened.read(_FILE_BYTES_MAX).decode("ascii", "replace").strip()
    if len(token) < _TOKEN_CHARACTERS_MIN or not token.isascii() or not token.isprintable() or " " in token:
        raise TokenFileError(
            f"the token file {file} holds no token of {_TOKEN_CHARACTERS_MIN} or more characters; remove it to have one made"
        )
    return token
