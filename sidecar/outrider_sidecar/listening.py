# SPDX-License-Identifier: Apache-2.0
"""What the door needs of the system before anybody comes: a port with a long queue, and enough open files.

Used by the door. Refuses nothing: a system that gives less is worked with.
"""

from __future__ import annotations

import resource
import socket

BACKLOG = 4_096
"""Connections that may wait to be accepted; the system caps it (net.core.somaxconn)."""
SPARE_DESCRIPTORS = 512
"""Open files besides the door's connections: those to servers, the journal's, and connections being closed."""


def bound(host: str, port: int) -> socket.socket:
    """A socket that will listen on an address; port 0 lets the kernel choose. Raises OSError when it cannot be bound."""
    return socket.create_server(
        (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=BACKLOG
    )


def raise_descriptors(wanted: int) -> None:
    """Lets the process open `wanted` files, as far as its hard limit goes, so that connections meet our limit first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
