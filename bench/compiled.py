# SPDX-License-Identifier: Apache-2.0
"""Builds the C programs of the benchmark once per source: the load generator and the upstream.

Called by whoever starts one. It keeps the binaries in the user's cache folder under a hash of their source, and refuses to
go on without a C compiler: a load generator in Python would be what is measured.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import subprocess

SOURCES = pathlib.Path(__file__).resolve().parent
FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror")


class Unable(Exception):
    """The benchmark cannot run here; the text says what to do about it."""


def cache() -> pathlib.Path:
    """The user's cache folder for this benchmark, made if absent."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(base) / "outrider-bench"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def compiler() -> str:
    """The C compiler's path. Raises Unable when there is none."""
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        if name and (found := shutil.which(name)):
            return found
    raise Unable(
        "the benchmark needs a C compiler for its load generator and upstream, and there is none; "
        "install one: `apt-get install gcc libc6-dev` (Debian, Ubuntu), `dnf install gcc` (Fedora), or set CC"
    )


def binary(name: str) -> pathlib.Path:
    """The compiled `name`.c. Raises Unable with the compiler's own words when it does not build."""
    parts = [SOURCES / f"{name}.c", SOURCES / "http.h", SOURCES / "json.h"]
    with_what = compiler()
    text = b"".join(part.read_bytes() for part in parts) + with_what.encode() + " ".join(FLAGS).encode()
    target = cache() / f"{name}-{hashlib.sha256(text).hexdigest()[:16]}"
    if target.exists():
        return target
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    ran = subprocess.run(
        [with_what, *FLAGS, "-o", str(scratch), str(parts[0])], capture_output=True, text=True, check=False
    )
    if ran.returncode != 0:
        raise Unable(
            f"{name}.c does not compile with {with_what} (it needs Linux and glibc):\n{ran.stderr[-2000:]}"
        )
    scratch.replace(target)
    return target
