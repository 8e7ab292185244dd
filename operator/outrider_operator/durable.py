# SPDX-License-Identifier: Apache-2.0
"""A file replaced whole, for its owner alone, so that neither a reader nor a crash sees half of it."""

from __future__ import annotations

import os
import pathlib


def write(file: pathlib.Path, content: bytes) -> None:
    """Replaces `file` (mode 0600): a reader or a crash sees the old content or the new. Raises OSError."""
    scratch = file.with_name(f".{file.name}.{os.getpid()}.new")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    scratch.replace(file)
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
