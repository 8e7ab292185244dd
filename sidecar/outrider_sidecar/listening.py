# SPDX-License-Identifier: Apache-2.0
"""What the door needs of the system: a port or a Unix socket with a long queue, who is at its other end, enough open files.

Used by the door. Refuses nothing: a system that gives less is worked with.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import resource
import socket
import struct

BACKLOG = 4_096
"""Connections that may wait to be accepted; the system caps it (net.core.somaxconn)."""
SPARE_DESCRIPTORS = 2_048
"""Open files besides the door's connections: those to servers, the journal's, and connections being closed."""


_CREDENTIALS = struct.Struct("3i")
"""pid, uid, gid of whoever connected, as the kernel has them."""


def bound(host: str, port: int) -> socket.socket:
    """A socket that will listen on an address; port 0 lets the kernel choose. Raises OSError when it cannot be bound."""
    return socket.create_server(
        (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=BACKLOG
    )


def unix(path: pathlib.Path) -> socket.socket:
    """A Unix socket that anybody may reach (who is let in is another matter: `stranger`), in place of a former one."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind(str(scratch))
        scratch.chmod(0o666)  # the uid of a caller is asked of the kernel instead
        scratch.replace(path)
    except OSError:
        made.close()
        raise
    return made


def stranger(wire: asyncio.BaseTransport | None, uid: int | None) -> bool:
    """Whether the process at the other end of a Unix socket runs as another uid; never, when `uid` is None."""
    if uid is None:
        return False
    end = wire.get_extra_info("socket") if wire is not None else None
    if end is None:
        return True
    found = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(found)[1]) != uid


def raise_descriptors(wanted: int) -> None:
    """Lets the process open `wanted` files, as far as its hard limit goes, so that connections meet our limit first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
