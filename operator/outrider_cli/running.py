# SPDX-License-Identifier: Apache-2.0
"""One run of `outrider dev`: its processes in the right order, until agents can call; then what to say while it lasts.

Called by dev, which decides when it ends. Talks to the operator and the proxy as anybody could: by their address files, their
status and an agent's own question. Refuses to go on without a child: a death ends the run, with the last lines of its log.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import threading
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

import click

from outrider import compile as compiler
from outrider import names, resources, snapshot
from outrider_cli import children, folder, loopback, news, output

START_SECONDS_MAX = 30.0
"""From its start until a child must have said where it listens."""

_POLL_SECONDS = 0.05
_WATCH_SECONDS = 0.4


class Stopped(Exception):
    """Ctrl-C or SIGTERM: not an error."""


@dataclasses.dataclass(slots=True)
class Running:
    """One run of `outrider dev`. `started` in the order in which they are told to stop; ports are 0 until they are known."""

    home: folder.Folder
    world: resources.World
    who: tuple[str, str]
    stop: threading.Event
    started: list[children.Child] = dataclasses.field(default_factory=list)
    held: folder.Held | None = None
    bridges: dict[names.ServerId, str] = dataclasses.field(default_factory=dict)
    operator_port: int = 0
    port: int = 0
    admin_port: int = 0

    # Starting ------------------------------------------------------------------------------------------------------

    def start(self, port: int) -> None:
        """Everything, until an agent's call would be decided. Raises Stop, with the log of whatever failed."""
        state = self.home.state
        for stale in ("operator.json", "sidecar.json", "definitions.json", "mcp.json"):
            (state / stale).unlink(missing_ok=True)
        self.held = self.home.held()
        output.progress("Starting the control plane and the proxy.")
        self._start_bridges()
        operator = [
            children.beside_us("outrider-operator"),
            "--files",
            str(self.home.path),
            "--state",
            str(state),
        ]
        operator += [
            "--token-file",
            str(state / "operator-token"),
            "--address-file",
            str(state / "operator.json"),
        ]
        for server, url in self.bridges.items():
            operator += ["--bridge", f"{server}={url}"]
        self._start("operator", operator)
        self.operator_port = self._address("operator")["port"]
        self._until(self._bridges_listen, "the bridges listen")
        sidecar = [
            children.beside_us("outrider-sidecar"),
            "--operator",
            f"http://127.0.0.1:{self.operator_port}",
        ]
        sidecar += ["--token-file", str(state / "operator-token"), "--state", str(state), "--port", str(port)]
        sidecar += ["--admin-port", "0", "--address-file", str(state / "sidecar.json")]
        self._start("sidecar", sidecar)
        address = self._address("sidecar")
        self.port, self.admin_port = address["port"], address["adminPort"]
        self._until(self._in_force, "the proxy accepts the configuration")
        self._until(self._ready, "the proxy is ready")

    def _start_bridges(self) -> None:
        env = {**os.environ, "PATH": children.search_path()}
        for placed in self.world.servers:
            made = placed.resource
            line = made.spec.endpoint.command
            if not line:
                continue
            port = self.bridge_port(made.id)
            self.bridges[made.id] = f"http://127.0.0.1:{port}/mcp"
            bridge = [children.bridge(), "--host", "127.0.0.1", "--port", str(port), "--", *line]
            self._start(f"bridge-{made.id.namespace}-{made.id.name}", bridge, env=env)

    def bridge_port(self, server: names.ServerId) -> int:
        """The port of the last run if it is free, so that the same files are the same configuration again."""
        before = self.held.snapshot.servers if self.held else ()
        for view in before:
            port = urllib.parse.urlsplit(view.endpoint.url).port
            if view.id == server and port is not None and loopback.is_free(port):
                return port
        return loopback.free_port()

    def _start(self, name: str, line: list[str], *, env: dict[str, str] | None = None) -> None:
        child = children.start(name, line, logs=self.home.state / "logs", cwd=self.home.path, env=env)
        self.started.insert(0, child)  # the proxy first, then what it depends on

    def _address(self, name: str) -> dict[str, Any]:
        """What a child wrote into its address file once it listened."""
        file = self.home.state / f"{name}.json"
        self._until(file.exists, f"the {name} listens")
        found: dict[str, Any] = json.loads(file.read_bytes())
        return found

    def _bridges_listen(self) -> bool:
        return all(loopback.listening(urllib.parse.urlsplit(url).port or 0) for url in self.bridges.values())

    def _in_force(self) -> bool:
        """The proxy acknowledged what the operator offers. A refusal is final: waiting would not help."""
        status = self.status()
        for one in status["sidecars"]:
            if one["refusal"]:
                raise output.Stop(
                    output.NO, "the proxy refuses the configuration", why=json.dumps(one["refusal"])
                )
        return bool(news.in_force(status))

    def _ready(self) -> bool:
        reply = loopback.get(self.admin_port, "/readyz")
        return reply is not None and reply.status == 200

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        """Waits. Raises Stopped on a signal, Stop when a child died or it takes too long."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while not condition():
            self.alive()
            if time.monotonic() > deadline:
                tails = "\n".join(filter(None, (child.tail() for child in self.started)))
                output.progress(tails)
                raise output.Stop(
                    output.UNREACHABLE,
                    f"waited {START_SECONDS_MAX:.0f} s until {what}",
                    then=f"read {self.home.state / 'logs'}",
                )
            self.stop.wait(_POLL_SECONDS)

    def alive(self) -> None:
        """Raises Stopped when we were told to stop, and Stop when a child is no more."""
        if self.stop.is_set():
            raise Stopped
        for child in self.started:
            code = child.ended()
            if code is not None:
                output.progress(child.tail())
                raise output.Stop(
                    output.UNREACHABLE,
                    f"{child.name} ended with code {code}",
                    why="its last lines are above",
                    then=f"read {child.log}",
                )

    def write_client_config(self) -> None:
        """What MCP clients read: the merged endpoint and the token that opens it. Whoever waits for us waits for this file."""
        headers = {"Authorization": f"Bearer {self._agent_token()}"}
        server = {"type": "http", "url": f"http://127.0.0.1:{self.port}/mcp", "headers": headers}
        scratch = self.home.state / "mcp.json.new"
        scratch.unlink(missing_ok=True)
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"mcpServers": {"outrider": server}}, file, indent=2)
        scratch.replace(self.home.state / "mcp.json")

    def _agent_token(self) -> str:
        return (self.home.state / "agent-token").read_text().strip()

    # Running -------------------------------------------------------------------------------------------------------

    def servers(self, seconds: float) -> dict[names.ServerId, int | None]:
        """How many tools each server lists, None for one that did not answer in time; disabled ones are not asked."""
        made = compiler.snapshot(self.world, *self.who, loopback=True, bridges=self.bridges)
        asked = [view.id for view in made.servers if view.lifecycle is not snapshot.Lifecycle.DISABLED]
        token, deadline = self._agent_token(), time.monotonic() + seconds
        pool = concurrent.futures.ThreadPoolExecutor(max(1, len(asked)))
        for server in asked:
            # An agent's question is what makes the proxy ask; what it then knows is in the definitions it keeps.
            pool.submit(loopback.tools, self.port, server, token=token, seconds=seconds)
        found: folder.Definitions = {}
        while time.monotonic() < deadline and not set(asked) <= set(found):
            self.alive()
            found = folder.definitions(self.home, None)
            self.stop.wait(_POLL_SECONDS)
        pool.shutdown(wait=False, cancel_futures=True)
        return {server: len(found[server].tools) if server in found else None for server in asked}

    def status(self) -> dict[str, Any]:
        """What the operator says of itself. Raises Stop when it says nothing."""
        token = (self.home.state / "operator-token").read_text().strip()
        reply = loopback.get(self.operator_port, "/v1/status", token=token)
        if reply is None or reply.status != 200 or not isinstance(reply.body, dict):
            self.alive()
            raise output.Stop(
                output.UNREACHABLE, "the operator does not answer", then=f"read {self.home.state / 'logs'}"
            )
        return reply.body

    def show(self, answered: dict[names.ServerId, int | None], status: dict[str, Any]) -> None:
        """The first screen."""
        base, home = f"http://127.0.0.1:{self.port}", self.home
        click.echo(f"Outrider is ready for {'/'.join(self.who)}.\n")
        rows = [
            [str(server), "no answer yet" if tools is None else f"{tools} tools", f"{base}/{server}/mcp"]
            for server, tools in answered.items()
        ]
        output.table(["SERVER", "LISTS", "ENDPOINT"], [*rows, ["all of them", "merged", f"{base}/mcp"]])
        click.echo(f"\n  client config  {home.state / 'mcp.json'} (holds the token)")
        click.echo(f"  agent's token  {home.state / 'agent-token'}")
        click.echo(f"  metrics        http://127.0.0.1:{self.admin_port}/metrics")
        click.echo(f"  logs           {home.state / 'logs'}\n")
        silent = [self._why(server) for server, tools in answered.items() if tools is None]
        for line in news.notes(status) + self._missing_credentials() + silent:
            output.progress(line)
        click.echo("Try next:")
        click.echo(f"  outrider can-i --list -f {home.path}")
        click.echo(f"  outrider audit search -f {home.path}")
        click.echo(f"  edit a file in {home.path}: it is in force within a second")

    def _missing_credentials(self) -> list[str]:
        made = compiler.snapshot(self.world, *self.who, loopback=True, bridges=self.bridges)
        return [
            f"Note: {view.id} needs credential {entry.name}, and there is no file {entry.source.path}."
            for view in made.servers
            for entry in view.credentials
            if view.lifecycle is not snapshot.Lifecycle.DISABLED
            if entry.source is not None and not pathlib.Path(entry.source.path).is_file()
        ]

    def _why(self, server: names.ServerId) -> str:
        """Why a server does not answer, as the proxy last logged it."""
        why = "no answer yet"
        with contextlib.suppress(OSError):
            for line in (self.home.state / "logs" / "sidecar.log").read_text("utf-8", "replace").splitlines():
                with contextlib.suppress(ValueError, AttributeError):
                    found = json.loads(line)
                    if found.get("server") == str(server) and "why" in found:
                        why = str(found["why"])
        return f"Note: {server} does not answer: {output.printable(why)}."

    def watch(self, status: dict[str, Any]) -> None:
        """Reports what editing the files does, until we are stopped or a child dies."""
        output.progress("Running. Ctrl-C stops everything.")
        before = status
        while True:
            self.stop.wait(_WATCH_SECONDS)
            self.alive()
            try:
                now = self.status()
            except output.Stop:
                continue  # busy; were it gone, the next round would say so
            for line in news.changes(before, now):
                output.progress(line)
            before = now

    def close(self) -> None:
        """Ends every child, each waited for."""
        children.stop(self.started)
