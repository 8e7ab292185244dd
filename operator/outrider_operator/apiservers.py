# SPDX-License-Identifier: Apache-2.0
"""Where the API server's endpoints are: addresses that no proxy may dial (R15), looked at again and again.

Used by the Kubernetes source, which puts them into its World. An API server keeps one EndpointSlice of itself and its like, so one
object is read, whole, and watching nothing is enough: it changes when a control plane is rebuilt. Refuses to forget what it knew: an
answer that cannot be had, or that names nobody, changes nothing, and is told once.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from outrider import snapshot

log = logging.getLogger("outrider.operator.apiservers")

SECONDS = 120.0
"""From one look to the next, more or less."""

RETRY_SECONDS = 15.0

LOOK_SECONDS_MAX = 5.0
"""The first configuration waits for the first look, and no longer than this."""


class ApiServers:
    """`ask` gives the addresses, sorted; `changed` is told when they are others. `problem` says why they are not known better, ''."""

    def __init__(self, ask: Callable[[], Awaitable[tuple[str, ...]]], changed: Callable[[], None]) -> None:
        self._ask, self._changed = ask, changed
        self._looked = asyncio.Event()
        self.addresses: tuple[str, ...] = ()
        self.problem = "it was not looked yet"

    async def looked(self) -> None:
        """Returns when there was a first look, whatever came of it."""
        await self._looked.wait()

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            await self.look()
            pause = RETRY_SECONDS if self.problem else SECONDS
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - spreads replicas

    async def look(self) -> None:
        """Once. Raises nothing: whatever is in the way, what was known stays."""
        try:
            async with asyncio.timeout(LOOK_SECONDS_MAX):
                found = await self._ask()
            problem = "" if found else "the EndpointSlice default/kubernetes names no address"
        except TimeoutError:
            found, problem = (), "the API server took too long to say where its endpoints are"
        except Exception as error:  # noqa: BLE001 - asked again whatever it was; log and metrics say that it is missing
            found, problem = (), str(error) or repr(error)
        self._tell(problem)
        self.problem = problem
        told = found[: snapshot.REFUSED_MAX]
        if told and told != self.addresses:
            self.addresses = told
            more = {"notTold": len(found) - len(told)} if len(found) > len(told) else {}
            fields = {"addresses": list(told), **more}
            log.info("no proxy dials the API server's endpoints", extra={"fields": fields})
            self._changed()
        self._looked.set()

    def _tell(self, problem: str) -> None:
        """A problem once, and that it is over."""
        if problem and problem != self.problem:
            kept = f"the {len(self.addresses)} known stay in force" if self.addresses else "none is known"
            fields = {"why": problem, "so": kept}
            log.warning("where the API server's endpoints are is not known", extra={"fields": fields})
        elif not problem and self.problem and self.addresses:
            log.info("where the API server's endpoints are is known again")
