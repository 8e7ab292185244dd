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


def bound(host: str, port: int, what: str) -> socket.socket:
    """A port of ours to which nobody can connect yet; 0 lets the kernel choose. `what` it is for. Raises OSError with a sentence.

    Whoever binds it again before it listens may (a second socket of ours does): until then it is only kept from being chosen.
    """
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise OSError(_refused(host, port, what, error)) from None
    return made


async def serve(
    stack: contextlib.AsyncExitStack,
    app: web.Application,
    at: socket.socket,
    what: str,
    context: ssl.SSLContext | None = None,
) -> None:
    """Serves `app` there until `stack` is closed, over TLS with `context`. Raises OSError when somebody listens there by now."""
    runner = web.AppRunner(
        app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS, handler_cancellation=True
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        await web.SockSite(runner, at, ssl_context=context, backlog=BACKLOG).start()
    except OSError as error:
        host, port = at.getsockname()[:2]
        raise OSError(_refused(host, port, what, error)) from None


def _refused(host: str, port: int, what: str, error: OSError) -> str:
    return (
        f"{what}: {host} port {port} cannot be listened on ({error.strerror or error}); "
        f"stop whoever has it, or choose another by --{what}-port or --listen"
    )
