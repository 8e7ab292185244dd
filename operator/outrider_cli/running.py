# SPDX-License-Identifier: Apache-2.0
"""One run of `outrider dev`: its processes in the right order, until agents can call; then what to say while it lasts.

Called by dev, which decides when it ends. Talks to the operator and the proxy as anybody could: by their address files, their
status and an agent's own question. Refuses to start without a child; a child lost later is started again by crew. A server
whose program is not there costs nobody else anything: it is named, and its calls reach nobody.
"""

from __future__ import annotations

import dataclasses
import json
import os
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import click

from outrider import compile as compiler
from outrider import names, resources
from outrider_cli import children, crew, folder, listings, loopback, news, output

START_SECONDS_MAX = 30.0
"""From its start until a child must have said where it listens."""

_POLL_SECONDS = 0.05
_WATCH_SECONDS = 0.4
_ASK_AGAIN_SECONDS = 2.0


class Stopped(Exception):
    """Ctrl-C or SIGTERM: not an error."""


@dataclasses.dataclass(slots=True)
class Running:
    """One run of `outrider dev`. Ports are 0 until they are known; `lending` are flags of the proxy about where credentials are."""

    home: folder.Folder
    world: resources.World
    who: tuple[str, str]
    stop: threading.Event
    lending: tuple[str, ...] = ()
    kept: crew.Crew = dataclasses.field(init=False)
    held: folder.Held | None = None
    bridges: dict[names.ServerId, str] = dataclasses.field(default_factory=dict)
    commands: dict[names.ServerId, list[str]] = dataclasses.field(default_factory=dict)
    unstarted: set[names.ServerId] = dataclasses.field(default_factory=set)
    operator_port: int = 0
    port: int = 0
    admin_port: int = 0

    def __post_init__(self) -> None:
        self.kept = crew.Crew(self.home)

    # Starting ------------------------------------------------------------------------------------------------------

    def start(self, port: int) -> None:
        """Everything, until an agent's call would be decided. Raises Stop, with the log of whatever failed."""
        state = self.home.state
        for stale in ("operator.json", "sidecar.json", "definitions.json", "mcp.json"):
            (state / stale).unlink(missing_ok=True)
        self.held = self.home.held()
        output.progress("Starting the control plane and the proxy.")
        self._start_bridges()
        self._start_operator()
        self._until(self._bridges_listen, "the bridges listen")
        self._start_sidecar(port)
        self._until(self._in_force, "the proxy accepts the configuration")
        self._until(self._ready, "the proxy is ready")

    def _start_operator(self) -> None:
        state = self.home.state
        line = [
            children.beside_us("outrider-operator"),
            "--files",
            str(self.home.path),
            "--state",
            str(state),
        ]
        line += ["--token-file", str(state / "operator-token")]
        line += ["--address-file", str(state / "operator.json")]
        for server, url in self.bridges.items():
            line += ["--bridge", f"{server}={url}"]
        without = "The proxy keeps serving the last good configuration."
        member = self.kept.start(crew.Member("operator", line, without))
        self.operator_port = self._address("operator")["port"]
        member.line = [*line, "--port", str(self.operator_port)]  # the proxy dials where it did

    def _start_sidecar(self, port: int) -> None:
        state = self.home.state
        line = [
            children.beside_us("outrider-sidecar"),
            "--operator",
            f"http://127.0.0.1:{self.operator_port}",
        ]
        line += ["--token-file", str(state / "operator-token"), "--state", str(state)]
        line += ["--address-file", str(state / "sidecar.json"), *self.lending]
        first = [*line, "--port", str(port), "--admin-port", "0"]
        member = self.kept.start(crew.Member("sidecar", first, "Nobody can call until it is back."))
        address = self._address("sidecar")
        self.port, self.admin_port = address["port"], address["adminPort"]
        member.line = [*line, "--port", str(self.port), "--admin-port", str(self.admin_port)]

    def _start_bridges(self) -> None:
        env = {**os.environ, "PATH": children.search_path()}
        self.commands = _commands(self.world)
        for server, command in self.commands.items():
            why = children.unstartable(command, self.home.path)
            if why:
                self.bridges[server] = folder.UNUSED_BRIDGE
                self.unstarted.add(server)
                output.progress(
                    f"{server}: spec.endpoint.command: {why}, then start `outrider dev` again."
                    " Until then its calls are refused as unreachable."
                )
                continue
            port = self.bridge_port(server)
            self.bridges[server] = f"http://127.0.0.1:{port}/mcp"
            line = [children.bridge(), "--host", "127.0.0.1", "--port", str(port), "--", *command]
            name, without = (
                f"bridge-{server.namespace}-{server.name}",
                f"Calls of {server} fail until it is back.",
            )
            self.kept.start(crew.Member(name, line, without, env=env, with_child=True))

    def bridge_port(self, server: names.ServerId) -> int:
        """The port of the last run if it is free, so that the same files are the same configuration again."""
        before = self.held.snapshot.servers if self.held else ()
        for view in before:
            port = urllib.parse.urlsplit(view.endpoint.url).port
            ours = view.id == server and view.endpoint.url != folder.UNUSED_BRIDGE
            if ours and port is not None and loopback.is_free(port):
                return port
        return loopback.free_port()

    def _address(self, name: str) -> dict[str, Any]:
        """What a child wrote into its address file once it listened."""
        file = self.home.state / f"{name}.json"
        self._until(file.exists, f"the {name} listens")
        found: dict[str, Any] = json.loads(file.read_bytes())
        return found

    def _bridges_listen(self) -> bool:
        started = [url for server, url in self.bridges.items() if server not in self.unstarted]
        return all(loopback.listening(urllib.parse.urlsplit(url).port or 0) for url in started)

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
                output.progress(self.kept.tails())
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
        self.kept.check()

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

    def servers(self, seconds: float) -> listings.Answered:
        """How many tools each server lists, None for one that did not answer or was not started; disabled ones are not asked."""

        def wait(pause: float) -> None:
            self.alive()
            self.stop.wait(pause)

        asked = self.asker().ask(self.port, self._agent_token(), seconds=seconds, wait=wait)
        return asked | {server: None for server in self.commands if server in self.unstarted}

    def asker(self) -> listings.Listings:
        """What asks the servers."""
        made = compiler.snapshot(self.world, *self.who, loopback=True, bridges=self.bridges)
        return listings.Listings(self.home, self.world, made)

    def status(self) -> dict[str, Any]:
        """What the operator says of itself. Raises Stop when it says nothing."""
        token = (self.home.state / "operator-token").read_text().strip()
        reply = loopback.get(self.operator_port, "/v1/status", token=token)
        if reply is None or reply.status != 200 or not isinstance(reply.body, dict):
            raise output.Stop(
                output.UNREACHABLE, "the operator does not answer", then=f"read {self.home.state / 'logs'}"
            )
        return reply.body

    def show(self, answered: dict[names.ServerId, int | None], status: dict[str, Any]) -> None:
        """The first screen."""
        base, home = f"http://127.0.0.1:{self.port}", self.home
        click.echo(f"Outrider is ready for {'/'.join(self.who)}.\n")
        rows = [
            [str(server), self._lists(server, tools), f"{base}/{server}/mcp"]
            for server, tools in answered.items()
        ]
        output.table(["SERVER", "LISTS", "ENDPOINT"], [*rows, ["all of them", "merged", f"{base}/mcp"]])
        click.echo(f"\n  client config  {home.state / 'mcp.json'} (holds the token)")
        click.echo(f"  agent's token  {home.state / 'agent-token'}")
        click.echo(f"  metrics        http://127.0.0.1:{self.admin_port}/metrics")
        click.echo(f"  logs           {home.state / 'logs'}\n")
        named = {server: tools for server, tools in answered.items() if server not in self.unstarted}
        for line in news.notes(status) + self.asker().missing(named):
            output.progress(line)
        click.echo("Try next:")
        click.echo(f"  outrider can-i --list -f {home.path}")
        click.echo(f"  outrider audit search -f {home.path}")
        click.echo(f"  edit a file in {home.path}: it is in force within a second")

    def _lists(self, server: names.ServerId, tools: int | None) -> str:
        if tools is not None:
            return f"{tools} tools"
        return "not started" if server in self.unstarted else "no answer yet"

    def edits(self) -> Iterator[str]:
        """What to say about commands that are edited, each time it is asked; only files that were written are read."""
        before: news.Commands = self.commands
        seen = None
        while True:
            stamp = self.home.stamp()
            world = self.home.sound() if stamp != seen else None
            seen = stamp
            said = news.commands(before, _commands(world), self.commands) if world else []
            before = _commands(world) if world else before
            yield "\n".join(said)

    def watch(self, status: dict[str, Any], answered: listings.Answered) -> None:
        """Reports what editing the files does and which servers come to answer; starts again what dies, until we are stopped."""
        output.progress("Running. Ctrl-C stops everything.")
        servers, asked_at = self.asker(), time.monotonic()
        before, edits = status, self.edits()
        silent = {server for server, tools in answered.items() if tools is None} - self.unstarted
        while True:
            self.stop.wait(_WATCH_SECONDS)
            if self.stop.is_set():
                raise Stopped
            for line in self.kept.tend(time.monotonic()):
                output.progress(line)
            if silent and time.monotonic() - asked_at > _ASK_AGAIN_SECONDS:
                servers.ask_again(self.port, self._agent_token(), silent)
                asked_at = time.monotonic()
            for server, tools in servers.answered().items() if silent else ():
                if server in silent and tools is not None:
                    silent.discard(server)
                    output.progress(f"{server} answers: {tools} tools.")
            if line := next(edits):
                output.progress(line)
            try:
                now = self.status()
            except output.Stop:
                continue  # busy, or dead and about to be started again
            for line in news.changes(before, now):
                output.progress(line)
            before = now

    def close(self) -> None:
        """Ends every child, each waited for."""
        self.kept.close()


def _commands(world: resources.World) -> dict[names.ServerId, list[str]]:
    every = ((placed.resource.id, placed.resource.spec.endpoint.command) for placed in world.servers)
    return {server: list(command) for server, command in every if command}
