# SPDX-License-Identifier: Apache-2.0
"""Admission as a part of a replica: what it needs of the others, and the life of its threads.

Run by controller as one task. kopf looks at the API server once and gives up for good when it cannot, or is not known there for a
moment; a thread that has ended is followed by another, and meanwhile `problem` says why nobody is admitted here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.metadata
import logging
import ssl
from collections.abc import Callable

from outrider import injection, resources
from outrider.injection import choices
from outrider_operator import access, admission, handlers

log = logging.getLogger("outrider.operator")

STOP_SECONDS_MAX = 5.0
AGAIN_SECONDS = 1.0
AGAIN_SECONDS_MAX = 30.0
"""Between the end of a thread and the next one: longer each time, until one has served."""

_POLL_SECONDS = 0.25


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where admission is served, and where injected proxies dial. The port is kept for us: each thread binds it anew."""

    host: str
    port: int
    operator_url: str


@dataclasses.dataclass(frozen=True, slots=True)
class Parts:
    """`settings` and `bundle` are None and '' before they are known; `missing` says what has to be there first, ''.

    The others as admission and handlers have them.
    """

    settings: Callable[[], resources.Settings | None]
    bundle: Callable[[], str]
    missing: Callable[[], str]
    may: admission.May
    told: Callable[[str, str, float], None]
    nudge: handlers.Nudge


class Admitting:
    """kopf's thread, one after another. `again_seconds`: the first pause between two."""

    def __init__(self, reached: access.Access, parts: Parts, *, again_seconds: float = AGAIN_SECONDS) -> None:
        self._reached = reached
        self._parts = parts
        self._again_seconds = again_seconds
        self._thread: handlers.Thread | None = None
        self._ended = "admission is not served yet"

    @property
    def problem(self) -> str:
        """Why admission is not served; '' when it is."""
        return self._ended if self._thread is None else self._thread.problem

    async def run(self, place: Place, context: ssl.SSLContext) -> None:
        """Serves until cancelled, and then ends in order."""
        pause = self._again_seconds
        while True:
            while missing := self._parts.missing():
                self._ended = f"not served: {missing}"
                await asyncio.sleep(_POLL_SECONDS)
            thread = self._thread = self._made(place, context)
            try:
                served = await self._serving(thread)
            finally:
                await thread.stop(STOP_SECONDS_MAX)
            self._thread, self._ended = None, f"{thread.problem}; it is started again"
            pause = self._again_seconds if served else min(2 * pause, AGAIN_SECONDS_MAX)
            await asyncio.sleep(pause)

    async def _serving(self, thread: handlers.Thread) -> bool:
        """Until it has ended, or has to; whether it had come to serve. Another thread's state wakes nobody here."""
        served = lacking = False
        thread.start()
        while thread.alive:
            if thread.port and not served:
                served = True
                log.info("admission is served", extra={"fields": {"port": thread.port}})
            missing = bool(self._parts.missing())
            if lacking and not missing:
                log.info(
                    "admission starts anew: a kind is there again, and kopf knows only what it found at its start"
                )
                break
            lacking = missing
            await asyncio.sleep(_POLL_SECONDS)
        return served

    def _made(self, place: Place, context: ssl.SSLContext) -> handlers.Thread:
        parts = admission.Parts(
            options=lambda: self._options(place.operator_url),
            ca=self._parts.bundle,
            may=self._parts.may,
            told=self._parts.told,
        )
        desk = admission.Desk(parts, asyncio.get_running_loop())
        serving = handlers.Serving(context, place.host, place.port)
        return handlers.Thread(self._reached, desk, serving=serving, nudge=self._parts.nudge)

    def _options(self, operator_url: str) -> injection.Options | None:
        given = self._parts.settings()
        if given is None:
            return None
        version = importlib.metadata.version("outrider")
        return choices.options(given.injection, operator_url=operator_url, version=version)
