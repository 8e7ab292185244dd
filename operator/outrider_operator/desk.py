# SPDX-License-Identifier: Apache-2.0
"""`GET /healthz`, `/readyz` and `/metrics` of one replica, plain HTTP and nothing else.

Called by controller. Ready means: this replica may be sent admissions and streams. It says why it is not, for a person who asks
with curl; it changes nothing (R5).
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Reasons = tuple[str, ...]
"""Why this replica is not ready, a sentence each; () when it is."""


def application(
    *, alive: Callable[[], bool], unready: Callable[[], Reasons], render: Callable[[], bytes]
) -> web.Application:
    """The application; `alive` is False when only a restart helps."""

    async def healthz(_request: web.Request) -> web.Response:
        return (
            _text(200, "ok")
            if alive()
            else _text(
                500,
                "a part of this process has ended by a bug; it has to be started again, and the log says why",
            )
        )

    async def readyz(_request: web.Request) -> web.Response:
        why = unready()
        return _text(503, "\n".join(why)) if why else _text(200, "ok")

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=render(), headers={"Content-Type": _METRICS_TYPE})

    made = web.Application(client_max_size=1)
    made.router.add_get("/healthz", healthz)
    made.router.add_get("/readyz", readyz)
    made.router.add_get("/metrics", metrics)
    return made


def _text(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text + "\n")
