# SPDX-License-Identifier: Apache-2.0
"""`outrider dev`: the control plane and the proxy on this machine, over a folder of YAML files.

Called by main. Starts the operator, the proxy and one bridge per `endpoint.command`, waits until agents can call, says how,
and stays until Ctrl-C or SIGTERM; what dies meanwhile is started again, within reason. It decides nothing and relays nothing: what works here works in a
pod, because it is the same two programs on the same wire. Refuses to start on a folder with problems.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import pathlib
import signal
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import click

from outrider import findings, names, resources
from outrider_cli import folder, loopback, output, running

ANSWER_SECONDS_MAX = 20.0
"""How long `--once` waits for the slowest server; stdio servers that install themselves take long."""
FIRST_LOOK_SECONDS_MAX = 5.0
"""How long the first screen waits for them otherwise."""


_FILE = click.Path(dir_okay=False, exists=True, path_type=pathlib.Path)


@click.command(name="dev", help="Run the control plane and the proxy on this machine.")
@click.option(
    "-f", "--folder", "path", default=".", show_default=True, help="Folder of the *.yaml files; watched."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=15100,
    show_default=True,
    help="Where agents call; 0: any.",
)
@click.option(
    "--vault-token-file",
    type=_FILE,
    help="A JWT that the settings' vault takes for a login (method JWT), read again at each.",
)
@click.option(
    "--exchange-token-file",
    type=_FILE,
    help="A JWT that says to authorization servers who acts for a user (tokenExchange).",
)
@click.option(
    "--secrets-dir",
    type=click.Path(file_okay=False, exists=True, path_type=pathlib.Path),
    help="Stands for a pod's Secrets (secretRef): a folder of NAMESPACE.SERVER/KEY.",
)
@click.option(
    "--once", is_flag=True, help="Start, check that every server answers, say so and leave: exit 0 or 1."
)
@click.pass_context
def command(
    context: click.Context, /, *, path: str, port: int, once: bool, **given: pathlib.Path | None
) -> None:
    """Owns everything it starts until the end."""
    home = folder.at(path)
    world = home.world()
    who = _principal(world)
    stop = threading.Event()
    with _signals(stop), _alone(home), contextlib.ExitStack() as stack:
        _free(port)
        session = running.Running(home, world, who, stop, _lending(given))
        stack.callback(session.close)
        try:
            session.start(port)
            answered = session.servers(ANSWER_SECONDS_MAX if once else FIRST_LOOK_SECONDS_MAX)
            session.write_client_config()
            status = session.status()
            session.show(answered, status)
            if once:
                context.exit(verdict(answered, status))
            session.watch(status, answered)
        except running.Stopped:
            output.progress("Stopping.")


def _lending(given: Mapping[str, pathlib.Path | None]) -> tuple[str, ...]:
    """The same flags for the proxy, which runs in the folder: paths are whole."""
    named = ((name.replace("_", "-"), path) for name, path in given.items() if path is not None)
    return tuple(f"--{name}={path.absolute()}" for name, path in named)


def verdict(answered: dict[names.ServerId, int | None], status: dict[str, Any]) -> int:
    """0 when every server answered and nothing that is written is without effect."""
    silent = [str(server) for server, tools in answered.items() if tools is None]
    broken = [one for one in status["findings"] if one["severity"] == findings.Severity.ERROR]
    if silent:
        output.progress(f"Not answering: {', '.join(silent)}; why and what to do is said above.")
    return output.NO if silent or broken or status["problems"] else output.OK


def _free(port: int) -> None:
    """Raises Stop when agents could not call at `port`; 0 is any port that is free."""
    why = loopback.taken(port) if port else ""
    if why:
        raise output.Stop(
            output.UNREACHABLE,
            f"port {port} of 127.0.0.1 cannot be used",
            why=why,
            then="stop whoever listens there, or choose another with `--port N`; `--port 0` takes any that is free",
        )


def _principal(world: resources.World) -> tuple[str, str]:
    settings = world.settings.workload
    if settings is None:
        raise output.Stop(
            output.NO,
            "nobody to run for",
            why="no file of kind Settings names a workload",
            then="write outrider.yaml with `workload: {namespace: agents, serviceAccount: me}`",
        )
    return settings.namespace, settings.service_account


@contextlib.contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM end us in order instead of at once."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def _alone(home: folder.Folder) -> Iterator[io.TextIOWrapper]:
    """The state folder, ours alone: two journals in one place would be one broken journal."""
    home.state.mkdir(mode=0o700, exist_ok=True)
    (home.state / "logs").mkdir(mode=0o700, exist_ok=True)
    with (home.state / "dev.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise output.Stop(
                output.UNREACHABLE,
                f"another `outrider dev` runs on {home.path}",
                then="stop it, or use it: see .outrider/mcp.json",
            ) from None
        yield lock
