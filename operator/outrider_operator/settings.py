# SPDX-License-Identifier: Apache-2.0
"""The operator's flags, parsed once.

Called by main. Refuses, with a sentence and exit code 2, whatever it could only guess at.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence

from outrider import names
from outrider.resources import urls


@dataclasses.dataclass(frozen=True, slots=True)
class Flags:
    """Where the files are, where what must survive is kept, and where to listen (always 127.0.0.1).

    `port` 0 lets the kernel choose. `bridges` are the URLs of servers that are commands.
    """

    files: pathlib.Path
    state: pathlib.Path
    token_file: pathlib.Path
    port: int = 0
    address_file: pathlib.Path | None = None
    bridges: Mapping[names.ServerId, str] = dataclasses.field(default_factory=dict)


def parser() -> argparse.ArgumentParser:
    """The flags, each with its line of help."""
    made = argparse.ArgumentParser(
        prog="outrider-operator",
        description="The control plane with a folder of YAML files as its source, for one proxy on this machine.",
        allow_abbrev=False,
    )
    made.add_argument(
        "--files", required=True, metavar="DIR", type=_folder, help="folder of *.yaml files; watched"
    )
    made.add_argument(
        "--port", default=0, metavar="N", type=_port, help="port on 127.0.0.1; 0 (default): any"
    )
    made.add_argument(
        "--state", metavar="DIR", type=_path, help="what survives restarts (DIR of --files/.outrider)"
    )
    made.add_argument(
        "--token-file",
        metavar="FILE",
        type=_path,
        help="shared token, mode 0600; made if absent (STATE/operator-token)",
    )
    made.add_argument(
        "--bridge",
        action="append",
        default=[],
        metavar="NS/NAME=URL",
        type=_bridge,
        help="where the bridge of an MCPServer with endpoint.command listens; repeatable",
    )
    made.add_argument(
        "--address-file", metavar="FILE", type=_path, help="written when listening: port and url as JSON"
    )
    return made


def parse(arguments: Sequence[str] | None = None) -> Flags:
    """The flags of a command line. Raises SystemExit(2) after saying what is wrong on stderr."""
    reader = parser()
    given = reader.parse_args(arguments)
    bridges: dict[names.ServerId, str] = {}
    for server, url in given.bridge:
        if server in bridges:
            reader.error(f"argument --bridge: {server} is given twice; keep one")
        bridges[server] = url
    state = given.state or given.files / ".outrider"
    return Flags(
        files=given.files,
        state=state,
        token_file=given.token_file or state / "operator-token",
        port=given.port,
        address_file=given.address_file,
        bridges=bridges,
    )


def _path(text: str) -> pathlib.Path:
    if not text:
        raise argparse.ArgumentTypeError("is empty; give a path")
    return pathlib.Path(text).absolute()


def _folder(text: str) -> pathlib.Path:
    path = _path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(
            f"there is no folder {path}; create it and put your *.yaml files there"
        )
    return path


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: a number from 0 to 65535")
    return int(text)


def _bridge(text: str) -> tuple[names.ServerId, str]:
    name, equals, url = text.partition("=")
    server = names.server_id(name)
    if not equals or server is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form namespace/name=http://127.0.0.1:PORT/mcp"
        )
    if not re.fullmatch(urls.PATTERN[1:-1], url) or urls.problem(url):
        raise argparse.ArgumentTypeError(
            f"the URL for {server} is not an http URL such as http://127.0.0.1:8000/mcp"
        )
    if not urls.loopback(url):
        raise argparse.ArgumentTypeError(f"the bridge of {server} must be on this machine (127.0.0.1)")
    return server, url
