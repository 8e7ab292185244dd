# SPDX-License-Identifier: Apache-2.0
"""Which servers of a run answer: asked through the proxy as an agent would, and what to do about those that do not.

Called by running. Asks how each introduces itself, for which the proxy lists it, and reads what the proxy then knows and logs. Does not
ask for the list itself: that is refused while a server is away, and an agent's journal is not to fill with refusals of our own looking.
Refuses to wait for a server whose question was already answered with a failure.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import pathlib
import threading
import time
from collections.abc import Callable, Iterable

from outrider import names, resources, snapshot
from outrider_cli import folder, loopback, output

Answered = dict[names.ServerId, int | None]
"""How many tools each server lists; None for one that does not answer."""

START_ANNOTATION = "outrider.dev/start"
"""Annotation of an MCPServer: the command by which people start it. Shown, never run."""

ASK_SECONDS_MAX = 20.0
_ASKED = "server/discover"
_SETTLE_SECONDS = 1.0
"""From a server's answer to an agent until the proxy has written down what it lists."""
_POLL_SECONDS = 0.05


class Listings:
    """The servers of one proxy."""

    def __init__(self, home: folder.Folder, world: resources.World, made: snapshot.Snapshot) -> None:
        self._home = home
        self._views = {
            view.id: view for view in made.servers if view.lifecycle is not snapshot.Lifecycle.DISABLED
        }
        self._starts = {
            placed.resource.id: (placed.resource.metadata.annotations or {}).get(START_ANNOTATION, "")
            for placed in world.servers
        }
        self._asking: threading.Thread | None = None

    def ask(self, port: int, token: str, *, seconds: float, wait: Callable[[float], object]) -> Answered:
        """Asks all of them at once and waits until each has answered or failed, at most `seconds`.

        `wait` sleeps, and may raise to end this.
        """
        deadline = time.monotonic() + seconds
        pool = concurrent.futures.ThreadPoolExecutor(max(1, len(self._views)))
        asked = {
            server: pool.submit(loopback.agents, port, server, _ASKED, token=token, seconds=seconds)
            for server in self._views
        }
        failed_at: dict[names.ServerId, float] = {}
        try:
            while True:
                found, now = self.answered(), time.monotonic()
                silent = [server for server, tools in found.items() if tools is None]
                for server in silent:
                    if asked[server].done():
                        failed_at.setdefault(server, now)
                settled = all(now - failed_at.get(server, now) > _SETTLE_SECONDS for server in silent)
                if settled or now > deadline:
                    return found
                wait(_POLL_SECONDS)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def answered(self) -> Answered:
        """What is known now, without asking."""
        found = folder.definitions(self._home, None)
        return {server: len(found[server].tools) if server in found else None for server in self._views}

    def ask_again(self, port: int, token: str, servers: Iterable[names.ServerId]) -> None:
        """Asks these once more, in the background; at most one such round is under way."""
        if self._asking is not None and self._asking.is_alive():
            return
        asked = tuple(servers)

        def each() -> None:
            for server in asked:
                loopback.agents(port, server, _ASKED, token=token, seconds=ASK_SECONDS_MAX)

        self._asking = threading.Thread(target=each, daemon=True)
        self._asking.start()

    def missing(self, answered: Answered) -> list[str]:
        """A sentence for each server that does not answer, and for each credential that is not there."""
        silent = [server for server, tools in answered.items() if tools is None]
        return [self.why(server) for server in silent] + [
            f"Note: {view.id} needs credential {entry.name}, and there is no file {entry.source.path}. Next: write the secret there."
            for view in self._views.values()
            for entry in view.credentials
            if view.id not in silent and isinstance(entry.source, snapshot.FileSecret)
            if not pathlib.Path(entry.source.path).is_file()
        ]

    def why(self, server: names.ServerId) -> str:
        """Why a server does not answer, as the proxy last logged it, and what to do about it."""
        logged, view = self._logged(server), self._views[server]
        command = output.printable(self._starts.get(server, ""))
        gone = [
            entry.source.path
            for entry in view.credentials
            if isinstance(entry.source, snapshot.FileSecret) and not pathlib.Path(entry.source.path).is_file()
        ]
        if logged.startswith("CredentialUnavailable") and gone:
            why = f"the file of its credential is missing: {gone[0]}"
            then = f"write the secret there (mode 0600){f', or run `{command}`' if command else ''}"
        elif "ECONNREFUSED" in logged:
            why = f"nobody listens at {view.endpoint.url} (connection refused)"
            then = f"start it: `{command}`" if command else "start it, or correct endpoint.url"
        else:
            why = output.printable(logged) or "no answer yet"
            then = f"run `{command}`, or read" if command and logged else "read"
            then += f" {self._home.state / 'logs' / 'sidecar.log'}"
        return f"Note: {server} does not answer: {why}. Next: {then}."

    def _logged(self, server: names.ServerId) -> str:
        why = ""
        with contextlib.suppress(OSError):
            for line in (
                (self._home.state / "logs" / "sidecar.log").read_text("utf-8", "replace").splitlines()
            ):
                with contextlib.suppress(ValueError, AttributeError):
                    found = json.loads(line)
                    if found.get("server") == str(server) and "why" in found:
                        why = str(found["why"])
        return why
