# SPDX-License-Identifier: Apache-2.0
"""Admission as a part of a replica: what it needs of the others, and its thread's life.

Made by controller. Refuses to be called alive once its thread has ended: only a restart brings kopf back.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.metadata
import ssl
from collections.abc import Callable

from outrider import injection, resources
from outrider_operator import access, admission, events, handlers

STOP_SECONDS_MAX = 5.0
_POLL_SECONDS = 0.05


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where admission is served (port 0 lets the kernel choose), and where injected proxies dial."""

    host: str
    port: int
    operator_url: str


@dataclasses.dataclass(frozen=True, slots=True)
class Parts:
    """`settings` and `bundle` are None and '' before they are known; the others as admission and handlers have them."""

    settings: Callable[[], resources.Settings | None]
    bundle: Callable[[], str]
    may: admission.May
    post: Callable[[events.Event], object]
    told: Callable[[str, str, float], None]
    nudge: handlers.Nudge


class Admitting:
    """kopf's thread, once it was started."""

    def __init__(self, reached: access.Access, place: Place, parts: Parts) -> None:
        self._reached = reached
        self._place = place
        self._parts = parts
        self._thread: handlers.Thread | None = None

    @property
    def alive(self) -> bool:
        """False when it has ended, which nobody but a restart can mend."""
        return self._thread is None or self._thread.alive

    @property
    def problem(self) -> str:
        """Why admission is not served; '' when it is."""
        return "admission is not served yet" if self._thread is None else self._thread.problem

    async def start(self, context: ssl.SSLContext, *, stopping: asyncio.Event) -> int:
        """Starts it; its port, once it has one. 0 when it ended first, or we are to stop."""
        parts = admission.Parts(
            options=self._options,
            ca=self._parts.bundle,
            may=self._parts.may,
            post=self._parts.post,
            told=self._parts.told,
        )
        desk = admission.Desk(parts, asyncio.get_running_loop())
        serving = handlers.Serving(context, self._place.host, self._place.port)
        self._thread = handlers.Thread(self._reached, desk, serving=serving, nudge=self._parts.nudge)
        self._thread.start()
        while not self._thread.port and self._thread.alive and not stopping.is_set():  # noqa: ASYNC110 - another thread's
            await asyncio.sleep(_POLL_SECONDS)
        return self._thread.port

    async def stop(self) -> None:
        """Lets it end in order."""
        if self._thread is not None:
            await self._thread.stop(STOP_SECONDS_MAX)

    def _options(self) -> injection.Options | None:
        given = self._parts.settings()
        if given is None:
            return None
        version = importlib.metadata.version("outrider")
        return admission.options(given.injection, operator_url=self._place.operator_url, version=version)
