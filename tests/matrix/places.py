# SPDX-License-Identifier: Apache-2.0
"""The servers of the matrix, each a process of its own, and what must be installed for them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import sys
from collections.abc import Iterator

from tests.conformance import fixture
from tests.scenarios import servers

HERE = pathlib.Path(__file__).parent
NODE = pathlib.Path(sys.executable).with_name("node")
KEPT = "kept.txt"


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A server: which eras it speaks, and which server of the same kind a client of the other era is compared at.

    `by_client` are tools that it offers only to sessions of clients that declare a capability. The proxy lists a server once for
    everybody, as a client of all the capabilities that the entry allows; whoever declares less sees these tools too.
    """

    name: str
    modern: bool
    legacy: bool
    compared_at: str = ""
    by_client: frozenset[str] = frozenset()


_BY_CLIENT = frozenset(
    {
        "get-roots-list", "trigger-sampling-request", "trigger-elicitation-request", "trigger-url-elicitation",
        "simulate-research-query",
    }
)  # fmt: skip
PLACES = (
    Place("fixture", modern=True, legacy=True),
    Place("modern only", modern=True, legacy=False, compared_at="fixture"),
    Place("everything", modern=False, legacy=True, by_client=_BY_CLIENT),
    Place("memory", modern=False, legacy=True),
    Place("filesystem", modern=False, legacy=True),
    Place("fastmcp", modern=True, legacy=True),
)


def fast_python() -> pathlib.Path:
    return pathlib.Path(os.environ["OUTRIDER_FASTMCP_PYTHON"])


def npm(name: str) -> pathlib.Path:
    """The program of one of the official servers on npm."""
    return pathlib.Path(
        os.environ["OUTRIDER_NODE_MODULES"], "@modelcontextprotocol", name, "dist", "index.js"
    )


def needed() -> list[pathlib.Path]:
    """Files that the servers are started from."""
    programs = [npm(f"server-{each}") for each in ("everything", "memory", "filesystem")]
    return [NODE, pathlib.Path(os.environ["OUTRIDER_BRIDGE"]), fast_python(), *programs]


@contextlib.contextmanager
def running(folder: pathlib.Path) -> Iterator[dict[str, str]]:
    """All of them, by name; `folder` holds what they may touch and their logs."""
    logs = folder / "logs"
    files = folder / "files"
    files.mkdir()
    (files / KEPT).write_text("kept\n")
    bridge = [os.environ["OUTRIDER_BRIDGE"], "--host", "127.0.0.1", "--port", "{port}"]
    memory = [
        *bridge,
        "--env",
        "MEMORY_FILE_PATH",
        str(folder / "memory.json"),
        "--",
        NODE,
        npm("server-memory"),
    ]
    lines = {
        "memory": memory,
        "filesystem": [*bridge, "--", NODE, npm("server-filesystem"), files],
        "fastmcp": [fast_python(), "-W", "ignore", HERE / "fast_server.py", "{port}"],
    }
    with contextlib.ExitStack() as stack:
        urls = {
            "fixture": stack.enter_context(fixture.running(logs)),
            "modern only": stack.enter_context(fixture.running(logs, modern_only=True)),
            "everything": stack.enter_context(servers.everything(logs)),
        }
        for name, line in lines.items():
            urls[name] = stack.enter_context(
                servers.on_a_free_port(name, [os.fspath(word) for word in line], logs)
            )
        yield urls
