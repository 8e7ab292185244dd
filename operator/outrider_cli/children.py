# SPDX-License-Identifier: Apache-2.0
"""The processes that `outrider dev` owns: started behind a tether, logged to a file, ended with it whatever happens.

Called by crew. A child cannot outlive us: its tether holds a pipe that ends with this process. Refuses to restart anything:
that is the crew's decision.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence

from outrider_cli import output, tether

STOP_SECONDS_MAX = tether.GRACE_SECONDS + 3.0
"""How long stopping one child may take: its grace, and what its tether needs to end the rest."""

_BRIDGE = "mcp-proxy"
_TAIL_BYTES = 65_536
_TAIL_LINES = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Child:
    """A running command; `process` is its tether."""

    name: str
    process: subprocess.Popen[bytes]
    log: pathlib.Path

    def ended(self) -> int | None:
        """Its exit code once it is over, None while it runs."""
        return self.process.poll()

    def tail(self) -> str:
        """The last lines of its log, without anything that could steer a terminal."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return ""
        lines = [line for line in text.splitlines() if line.strip()][-_TAIL_LINES:]
        return "\n".join(f"  | {output.printable(line)}" for line in lines)


def start(  # noqa: PLR0913 - what a process is made of, by name
    name: str,
    command: Sequence[str],
    *,
    logs: pathlib.Path,
    cwd: pathlib.Path,
    env: Mapping[str, str] | None = None,
    again: bool = False,
) -> Child:
    """Starts `command`; its output goes to `logs/NAME.log`, begun anew unless it is started `again`. `env` None: as ours."""
    log = logs / f"{name}.log"
    if not again:
        with contextlib.suppress(FileNotFoundError):
            log.unlink()
    fresh = 0 if again else os.O_EXCL
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | fresh, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        process = subprocess.Popen(  # noqa: S603 - commands of our own and of the user's own files
            [sys.executable, "-I", "-S", str(pathlib.Path(tether.__file__)), *command],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=env,
            start_new_session=True,
        )
    return Child(name, process, log)


def stop(children: Iterable[Child]) -> None:
    """Ends all of them, each waited for; those given first are told first."""
    running = [child for child in children if child.ended() is None]
    for child in running:
        assert child.process.stdin is not None
        child.process.stdin.close()
    deadline = time.monotonic() + STOP_SECONDS_MAX
    for child in running:
        try:
            child.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


def beside_us(program: str) -> str:
    """One of our own programs, from the same environment as this one. Raises Stop when it is not there."""
    found = pathlib.Path(sys.executable).parent / program
    if not found.is_file():
        raise output.Stop(
            output.UNREACHABLE,
            f"{program} is not installed beside {sys.executable}",
            then="install the distribution `outrider` again in this environment",
        )
    return str(found)


def bridge() -> str:
    """The program that puts a stdio server behind HTTP: $OUTRIDER_BRIDGE, else `mcp-proxy` of PATH, else that of `make install`.

    It must run the server as its child for as long as it runs itself. Raises Stop when there is none.
    """
    named = os.environ.get("OUTRIDER_BRIDGE")
    found = shutil.which(named or _BRIDGE, path=search_path())
    if found is None:
        raise output.Stop(
            output.UNREACHABLE,
            f"{named or _BRIDGE} is not found",
            why="a server with endpoint.command runs behind it",
            then="run `make install` in the source folder or `pip install mcp-proxy`, or set OUTRIDER_BRIDGE to its path",
        )
    return found


def unstartable(command: Sequence[str], cwd: pathlib.Path) -> str:
    """Why no bridge could run the program of `command` in `cwd`, and what to do about it; "" when it could."""
    program = command[0]
    named = str(cwd / program) if os.sep in program else program
    path = os.pathsep.join(str(cwd / part) for part in search_path().split(os.pathsep))
    if shutil.which(named, path=path):
        return ""
    found = shutil.which(named, mode=os.F_OK, path=path)
    if found:
        return f"{output.printable(found)} is not executable; run `chmod +x {output.printable(shlex.quote(found))}`"
    if os.sep in program:
        return f"there is no program {output.printable(named)}; put it there or correct the path"
    return f"there is no program '{output.printable(program)}' on the PATH; install it or correct the name"


def search_path() -> str:
    """PATH, then the folders of the bridge, this interpreter and `make install`: stdio servers are often beside them."""
    named = os.environ.get("OUTRIDER_BRIDGE", "")
    more = [str(pathlib.Path(program).parent) for program in (named, sys.executable) if os.sep in program]
    # The bridge needs an older SDK than we do, so `make install` gives it an environment of its own beside ours.
    more.append(str(pathlib.Path(sys.prefix).parent / ".venv-legacy" / "bin"))
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *more])
