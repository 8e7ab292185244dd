# SPDX-License-Identifier: Apache-2.0
"""Ports and what is served on them.

Called by controller: a port is known (and told to others) before there is a certificate to serve with.
"""

from __future__ import annotations

import contextlib
import socket
import ssl

from aiohttp import web

BACKLOG = 1024
"""Connections that wait to be accepted: a thousand proxies may dial in one moment."""

_SHUTDOWN_SECONDS = 3.0


def bound(host: str, port: int) -> socket.socket:
    """A port of ours to which nobody can connect yet; 0 lets the kernel choose. Raises OSError."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    return made


async def serve(
    stack: contextlib.AsyncExitStack,
    app: web.Application,
    at: socket.socket,
    context: ssl.SSLContext | None = None,
) -> None:
    """Serves `app` there until `stack` is closed, over TLS with `context`."""
    runner = web.AppRunner(
        app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS, handler_cancellation=True
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, at, ssl_context=context, backlog=BACKLOG).start()
